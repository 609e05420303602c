"""users: the form in which names are searched begins with the name, so that people are sorted by it."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None

_USERS = sa.table("users", *(sa.column(name) for name in ("id", "username", "name", "search_key")))
_BLOCK = 1_000


def upgrade() -> None:
    _rewrite("name", "username")
    op.create_index("ix_users_search_key", "users", ["search_key"])


def _rewrite(first: str, second: str) -> None:
    connection, last = op.get_bind(), 0
    columns = sa.select(_USERS.c.id, _USERS.c.username, _USERS.c.name).order_by(_USERS.c.id).limit(_BLOCK)
    while rows := connection.execute(columns.where(_USERS.c.id > last)).mappings().all():
        connection.execute(
            sa.update(_USERS).where(_USERS.c.id == sa.bindparam("user_id")).values(search_key=sa.bindparam("key")),
            [{"user_id": row["id"], "key": _search_key(f"{row[first]} {row[second]}".strip())} for row in rows],
        )
        last = rows[-1]["id"]


def _search_key(text: str) -> str:
    """As of this version; a migration does not follow what the portal does later."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFKD", plain.casefold())[:400]


def downgrade() -> None:
    op.drop_index("ix_users_search_key", "users")
    _rewrite("username", "name")
