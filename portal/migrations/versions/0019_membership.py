"""accounts that follow a membership source: keys, what it said last, and imports."""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None

_COUNTS = (
    "rows", "unchanged", "linked_accounts", "named", "created", "linked", "changed", "reactivated", "deactivated",
    "reported", "problems",
)  # fmt: skip
_FLAGS = {
    "users": ("deactivated_by_import", "was_unlinked"),
    "user_groups": ("from_source",),
    "user_addresses": ("from_source",),
}


def upgrade() -> None:
    op.add_column("users", sa.Column("member_key", sa.String(length=254), nullable=True))
    op.create_index(op.f("ix_users_member_key"), "users", ["member_key"], unique=True)
    for table, names in _FLAGS.items():
        for name in names:
            op.add_column(table, sa.Column(name, sa.Boolean(), server_default=sa.false(), nullable=False))
    op.create_table(
        "last_said",
        sa.Column("user_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("named", sa.Boolean(), nullable=False),
        sa.Column("address", sa.String(length=254), nullable=True),
        sa.Column("further", sa.String(length=6000), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=True),
        sa.Column("groups", sa.String(length=4000), nullable=False),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name=op.f("fk_last_said_user_id_users"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("user_id", name=op.f("pk_last_said")),
    )
    op.create_table(
        "deleted_keys",
        sa.Column("key_hmac", sa.String(length=64), nullable=False),
        sa.Column("key", sa.String(length=254), nullable=True),
        sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("key_hmac", name=op.f("pk_deleted_keys")),
    )
    _create_imports()
    _create_import_lines()


def _create_imports() -> None:
    op.create_table(
        "member_imports",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("source", sa.String(length=200), nullable=False),
        sa.Column("column", sa.String(length=120), nullable=False),
        sa.Column("asked_by", sa.String(length=80), nullable=False),
        sa.Column("asked_by_id", sa.Integer(), nullable=True),
        sa.Column("started_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("state", sa.String(length=8), nullable=False),
        sa.Column("deactivates", sa.Boolean(), nullable=False),
        sa.Column("accepted", sa.Boolean(), nullable=False),
        sa.Column("plan_id", sa.String(length=16), nullable=True),
        sa.Column("message", sa.String(length=400), nullable=False),
        *(sa.Column(name, sa.Integer(), nullable=False) for name in _COUNTS),
        sa.CheckConstraint(
            "state IN ('shown', 'held', 'open', 'done', 'failed', 'dropped')", name=op.f("ck_member_imports_state")
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_member_imports")),
    )
    op.create_index(op.f("ix_member_imports_state"), "member_imports", ["state"])


def _create_import_lines() -> None:
    op.create_table(
        "member_import_lines",
        sa.Column("import_id", sa.Integer(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("line", sa.Integer(), nullable=True),
        sa.Column("action", sa.String(length=10), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("key", sa.String(length=254), nullable=False),
        sa.Column("username", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=120), nullable=False),
        sa.Column("why", sa.String(length=400), nullable=False),
        sa.Column("details", sa.String(length=20000), nullable=False),
        sa.Column("fingerprint", sa.String(length=16), nullable=False),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["import_id"],
            ["member_imports.id"],
            name=op.f("fk_member_import_lines_import_id_member_imports"),
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("import_id", "number", name=op.f("pk_member_import_lines")),
        sqlite_with_rowid=False,
    )
    op.create_index(op.f("ix_member_import_lines_user_id"), "member_import_lines", ["user_id"])


def downgrade() -> None:
    for table in ("member_import_lines", "member_imports", "deleted_keys", "last_said"):
        op.drop_table(table)
    for table, names in _FLAGS.items():
        for name in names:
            op.drop_column(table, name)
    op.drop_index(op.f("ix_users_member_key"), table_name="users")
    op.drop_column("users", "member_key")
