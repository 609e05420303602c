"""Partial indexes of what is rare.

They find preferences that differ from the list, inactive users, and addresses that were given up or moved to. The two
other indexes of moves become partial on PostgreSQL, too.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None

_NEW = (
    ("preferences", "list_handle", "subscribed IS NOT seen", "subscribed IS DISTINCT FROM seen"),
    ("users", "is_active", "is_active = 0", "NOT is_active"),
    ("addresses", "let_go_at", "let_go_at IS NOT NULL", "let_go_at IS NOT NULL"),
    ("user_addresses", "address_id", "moved_in_at IS NOT NULL", "moved_in_at IS NOT NULL"),
)
_OF_MOVES = (("preferences", "moved_to"), ("user_addresses", "moved_from"))


def upgrade() -> None:
    for table, column, sqlite, postgresql in _NEW:
        name = f"ix_{table}_{column}"
        op.create_index(name, table, [column], sqlite_where=sa.text(sqlite), postgresql_where=sa.text(postgresql))
    for table, column in _OF_MOVES if op.get_context().dialect.name == "postgresql" else ():
        name = f"ix_{table}_{column}"
        op.drop_index(name, table)
        op.create_index(name, table, [column], postgresql_where=sa.text(f"{column} IS NOT NULL"))


def downgrade() -> None:
    for table, column in _OF_MOVES if op.get_context().dialect.name == "postgresql" else ():
        name = f"ix_{table}_{column}"
        op.drop_index(name, table)
        op.create_index(name, table, [column])
    for table, column, _sqlite, _postgresql in _NEW:
        op.drop_index(f"ix_{table}_{column}", table)
