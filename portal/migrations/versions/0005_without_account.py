"""runs: the field's word for subscribers without an account."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    for table in ("runs", "requests"):
        op.alter_column(table, "strangers", new_column_name="without_account")


def downgrade() -> None:
    for table in ("runs", "requests"):
        op.alter_column(table, "without_account", new_column_name="strangers")
