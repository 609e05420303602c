"""known_options: a subscriber's options at a list, for a later change of address."""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "known_options",
        sa.Column("list_handle", sa.String(length=64), nullable=False),
        sa.Column("address_id", sa.Integer(), nullable=False),
        sa.Column("words", sa.String(length=200), nullable=False),
        sa.Column("is_mail_off", sa.Boolean(), nullable=False),
        sa.Column("read_at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(
            ["address_id"],
            ["addresses.id"],
            name=op.f("fk_known_options_address_id_addresses"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("list_handle", "address_id", name=op.f("pk_known_options")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_known_options_address_id"), "known_options", ["address_id"])


def downgrade() -> None:
    op.drop_table("known_options")
