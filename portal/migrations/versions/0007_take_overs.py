"""run_lines: what a take-over replaced, so that an abandoned planned run can take it back."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("run_lines", sa.Column("replaced", sa.String(length=1000), nullable=True))


def downgrade() -> None:
    op.drop_column("run_lines", "replaced")
