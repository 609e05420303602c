"""user_addresses: which of them were given to an account that was not active."""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("user_addresses", sa.Column("given_back", sa.Boolean(), nullable=True))


def downgrade() -> None:
    op.drop_column("user_addresses", "given_back")
