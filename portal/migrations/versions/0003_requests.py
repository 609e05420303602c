"""requests for runs."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("list_handle", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=5), nullable=False),
        sa.Column("plan_id", sa.String(length=16), nullable=True),
        sa.Column("asked_by_id", sa.Integer(), nullable=True),
        sa.Column("asked_by", sa.String(length=80), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("slot", sa.String(length=96), nullable=True),
        sa.Column("host", sa.String(length=120), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(length=400), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("found_plan_id", sa.String(length=16), nullable=True),
        sa.Column("on_roster", sa.Integer(), nullable=True),
        sa.Column("strangers", sa.Integer(), nullable=True),
        sa.Column("initialised", sa.Integer(), nullable=False),
        sa.Column("adds", sa.Integer(), nullable=False),
        sa.Column("removals", sa.Integer(), nullable=False),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("joined", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("doubtful", sa.Integer(), nullable=False),
        sa.Column("warning", sa.String(length=200), nullable=False),
        sa.CheckConstraint("kind IN ('show', 'sync', 'apply')", name=op.f("ck_requests_kind")),
        sa.CheckConstraint(
            "state IN ('waiting', 'taken', 'done', 'changed', 'refused', 'failed', 'unfinished')",
            name=op.f("ck_requests_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("slot", name=op.f("uq_requests_slot")),
    )
    op.create_index(op.f("ix_requests_run_id"), "requests", ["run_id"], unique=False)
    op.create_table(
        "request_lines",
        sa.Column("request_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("address_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=6), nullable=False),
        sa.Column("reason", sa.String(length=12), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.CheckConstraint("action IN ('add', 'remove', 'left', 'joined')", name=op.f("ck_request_lines_action")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_request_lines_request_id_requests"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", "position", name=op.f("pk_request_lines")),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("request_lines")
    op.drop_index(op.f("ix_requests_run_id"), table_name="requests")
    op.drop_table("requests")
