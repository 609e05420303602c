"""list_readings, member_deliveries, unknown_subscribers: readings of a list outside its runs."""

import sqlalchemy as sa
from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "list_readings",
        sa.Column("list_handle", sa.String(64), nullable=False),
        sa.Column("due_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("unknown_read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(200), server_default=sa.text("''"), nullable=False),
        sa.PrimaryKeyConstraint("list_handle", name="pk_list_readings"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "member_deliveries",
        sa.Column("list_handle", sa.String(64), nullable=False),
        sa.Column("address_id", sa.Integer(), nullable=False),
        sa.Column("is_digest", sa.Boolean(), server_default=sa.false(), nullable=False),
        sa.Column("mail_off", sa.String(8), nullable=True),
        sa.Column("since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True),
        sa.CheckConstraint("mail_off IN ('chosen', 'bounces')", name=op.f("ck_member_deliveries_mail_off")),
        sa.ForeignKeyConstraint(
            ["address_id"], ["addresses.id"], name="fk_member_deliveries_address_id_addresses", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("list_handle", "address_id", name="pk_member_deliveries"),
        sqlite_with_rowid=False,
    )
    op.create_index("ix_member_deliveries_address_id", "member_deliveries", ["address_id"])
    op.create_index("ix_member_deliveries_asked_at", "member_deliveries", ["asked_at"])
    op.create_table(
        "unknown_subscribers",
        sa.Column("list_handle", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("address", sa.String(254), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("list_handle", "number", name="pk_unknown_subscribers"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("unknown_subscribers")
    op.drop_table("member_deliveries")
    op.drop_table("list_readings")
