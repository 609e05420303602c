"""notices: how far the histories have been read, and known problems."""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "notice_marks",
        sa.Column("name", sa.String(length=16), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_notice_marks")),
    )
    for name, table in (("accounts", "account_changes"), ("lists", "history")):
        op.execute(f"INSERT INTO notice_marks (name, number) SELECT '{name}', coalesce(max(id), 0) FROM {table}")  # noqa: S608
    op.create_table(
        "known_troubles",
        sa.Column("list_handle", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=8), nullable=False),
        sa.Column("began_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("mailed_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint("kind IN ('failed', 'held', 'overdue')", name=op.f("ck_known_troubles_kind")),
        sa.PrimaryKeyConstraint("list_handle", "kind", name=op.f("pk_known_troubles")),
    )


def downgrade() -> None:
    op.drop_table("known_troubles")
    op.drop_table("notice_marks")
