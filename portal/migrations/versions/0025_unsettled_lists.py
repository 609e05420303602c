"""user_addresses: the lists that an account could not see when it was given an address."""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_addresses", sa.Column("unsettled_lists", sa.String(40_000), nullable=True))


def downgrade() -> None:
    op.drop_column("user_addresses", "unsettled_lists")
