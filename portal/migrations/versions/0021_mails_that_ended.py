"""outbox: an index of expired mails."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_outbox_ended_at", "outbox", ["ended_at"])


def downgrade() -> None:
    op.drop_index("ix_outbox_ended_at", "outbox")
