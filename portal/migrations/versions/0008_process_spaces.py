"""leases and requests: the boot and the pid namespace in which a process id means a process."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("leases", "runs"):
        op.add_column(table, sa.Column("pid_space", sa.String(length=64), server_default=sa.text("''"), nullable=False))


def downgrade() -> None:
    for table in ("leases", "runs"):
        op.drop_column(table, "pid_space")
