"""mails to be sent, and the links in them."""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None

_EMPTY = sa.text("''")


def upgrade() -> None:
    _create_outbox()
    _create_mailed_links()


def _create_outbox() -> None:
    op.create_table(
        "outbox",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("mailbox", sa.String(length=254), nullable=False),
        sa.Column("purpose", sa.String(length=16), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("details", sa.String(length=2000), server_default=_EMPTY, nullable=False),
        sa.Column("place", sa.String(length=45), server_default=_EMPTY, nullable=False),
        sa.Column("priority", sa.Integer(), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("tried_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("claim", sa.String(length=32), nullable=True),
        sa.Column("ended_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(length=200), server_default=_EMPTY, nullable=False),
        sa.Column("may_be_twice", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.CheckConstraint(
            "state IN ('waiting', 'sending', 'sent', 'refused', 'given up', 'dropped')", name=op.f("ck_outbox_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_outbox")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_outbox_state_priority_due_at"), "outbox", ["state", "priority", "due_at"])
    op.create_index(op.f("ix_outbox_priority_tried_at"), "outbox", ["priority", "tried_at"])
    op.create_index(op.f("ix_outbox_mailbox"), "outbox", ["mailbox"])
    op.create_index(op.f("ix_outbox_user_id"), "outbox", ["user_id"])


def _create_mailed_links() -> None:
    op.create_table(
        "mailed_links",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("token_hash", sa.String(length=64), nullable=False),
        sa.Column("purpose", sa.String(length=8), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("mailbox", sa.String(length=254), nullable=False),
        sa.Column("bound_to", sa.String(length=64), server_default=_EMPTY, nullable=False),
        sa.Column("details", sa.String(length=2000), server_default=_EMPTY, nullable=False),
        sa.Column("made_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("used_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint(
            "purpose IN ('invite', 'log-in', 'confirm', 'undo', 'leave')", name=op.f("ck_mailed_links_purpose")
        ),
        sa.ForeignKeyConstraint(
            ["user_id"], ["users.id"], name=op.f("fk_mailed_links_user_id_users"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_mailed_links")),
        sa.UniqueConstraint("token_hash", name=op.f("uq_mailed_links_token_hash")),
    )
    op.create_index(op.f("ix_mailed_links_user_id_purpose"), "mailed_links", ["user_id", "purpose"])
    op.create_index(op.f("ix_mailed_links_mailbox"), "mailed_links", ["mailbox"])
    op.create_index(op.f("ix_mailed_links_expires_at"), "mailed_links", ["expires_at"])


def downgrade() -> None:
    op.drop_table("mailed_links")
    op.drop_table("outbox")
