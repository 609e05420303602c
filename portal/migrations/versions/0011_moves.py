"""who left an address, what a move displaced, and unsubscribing by a mailed link."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

_SOURCES = "source IN ('user', 'superuser', 'link', 'init', 'list', 'rule', 'import')"
_SOURCES_BEFORE = "source IN ('user', 'superuser', 'init', 'list', 'rule', 'import')"

_LET_GO = """
UPDATE addresses SET let_go_at = CURRENT_TIMESTAMP
WHERE NOT EXISTS (SELECT * FROM user_addresses WHERE user_addresses.address_id = addresses.id)
"""
# Where no active account holds an address: one that is deactivated left it last, or one that is not known any more.
_NAME_LEAVERS = """
UPDATE preferences SET left_by = coalesce(
    (SELECT min(user_id) FROM user_addresses WHERE user_addresses.address_id = preferences.address_id), 0)
WHERE NOT EXISTS (
    SELECT * FROM user_addresses JOIN users ON users.id = user_addresses.user_id
    WHERE user_addresses.address_id = preferences.address_id AND users.is_active)
"""


def upgrade() -> None:
    op.add_column("addresses", sa.Column("let_go_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("user_addresses", sa.Column("moved_in_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("user_addresses", sa.Column("moved_from", sa.Integer(), nullable=True))
    op.add_column("user_addresses", sa.Column("is_guest", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_index(
        op.f("ix_user_addresses_moved_from"),
        "user_addresses",
        ["moved_from"],
        sqlite_where=sa.text("moved_from IS NOT NULL"),
    )
    op.add_column("preferences", sa.Column("left_by", sa.Integer(), nullable=True))
    op.add_column("preferences", sa.Column("moved_from", sa.Integer(), nullable=True))
    with op.batch_alter_table("preferences", table_kwargs={"sqlite_with_rowid": False}) as preferences:
        preferences.drop_constraint(op.f("fk_preferences_moved_to_addresses"), type_="foreignkey")
        preferences.drop_constraint(op.f("ck_preferences_source"), type_="check")
        preferences.create_check_constraint(op.f("ck_preferences_source"), _SOURCES)
    _create_displaced_preferences()
    op.execute(_LET_GO)
    op.execute(_NAME_LEAVERS)


def _create_displaced_preferences() -> None:
    op.create_table(
        "displaced_preferences",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("list_handle", sa.String(length=64), nullable=False),
        sa.Column("address_id", sa.Integer(), nullable=False),
        sa.Column("taken_by", sa.Integer(), nullable=False),
        sa.Column("version", sa.Integer(), nullable=False),
        sa.Column("subscribed", sa.Boolean(), nullable=True),
        sa.Column("source", sa.String(length=9), nullable=True),
        sa.Column("changed_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("changed_by", sa.Integer(), nullable=True),
        sa.Column("seen", sa.Boolean(), nullable=True),
        sa.Column("touched", sa.Boolean(), nullable=False),
        sa.Column("waiting_since", sa.DateTime(timezone=True), nullable=True),
        sa.Column("departed", sa.Boolean(), nullable=False),
        sa.Column("left_by", sa.Integer(), nullable=True),
        sa.Column("moved_to", sa.Integer(), nullable=True),
        sa.Column("moved_from", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(
            ["address_id"],
            ["addresses.id"],
            name=op.f("fk_displaced_preferences_address_id_addresses"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_displaced_preferences")),
    )
    op.create_index(
        op.f("ix_displaced_preferences_address_id_list_handle"), "displaced_preferences", ["address_id", "list_handle"]
    )


def downgrade() -> None:
    op.drop_table("displaced_preferences")
    op.execute("UPDATE preferences SET source = 'user' WHERE source = 'link'")
    # What was left behind had no preference of its own before.
    op.execute("UPDATE preferences SET subscribed = false, source = 'rule' WHERE moved_to IS NOT NULL")
    op.execute("UPDATE preferences SET moved_to = NULL WHERE moved_to NOT IN (SELECT id FROM addresses)")
    with op.batch_alter_table("preferences", table_kwargs={"sqlite_with_rowid": False}) as preferences:
        preferences.drop_constraint(op.f("ck_preferences_source"), type_="check")
        preferences.create_check_constraint(op.f("ck_preferences_source"), _SOURCES_BEFORE)
        preferences.create_foreign_key(
            op.f("fk_preferences_moved_to_addresses"), "addresses", ["moved_to"], ["id"], ondelete="SET NULL"
        )
        preferences.drop_column("left_by")
        preferences.drop_column("moved_from")
    op.execute("UPDATE history SET source = 'user' WHERE source = 'link'")
    op.drop_index(op.f("ix_user_addresses_moved_from"), table_name="user_addresses")
    for name in ("moved_in_at", "moved_from", "is_guest"):
        op.drop_column("user_addresses", name)
    op.drop_column("addresses", "let_go_at")
