"""Indexes for tables that grow for years: the last good run of a list, recent choices, members of a group."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_runs_list_handle_state_started_at", "runs", ["list_handle", "state", "started_at"])
    op.create_index("ix_history_at", "history", ["at"])
    op.create_index("ix_user_groups_name", "user_groups", ["name"])


def downgrade() -> None:
    op.drop_index("ix_user_groups_name", "user_groups")
    op.drop_index("ix_history_at", "history")
    op.drop_index("ix_runs_list_handle_state_started_at", "runs")
