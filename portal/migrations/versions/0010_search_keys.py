"""users: the form in which names are searched."""

import unicodedata

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

_USERS = sa.table(
    "users",
    *(sa.column(name) for name in ("id", "username", "name", "search_key")),
)
_BLOCK = 1_000


def upgrade() -> None:
    column = sa.Column("search_key", sa.String(length=400), server_default=sa.text("''"), nullable=False)
    op.add_column("users", column)
    connection, last = op.get_bind(), 0
    columns = sa.select(_USERS.c.id, _USERS.c.username, _USERS.c.name).order_by(_USERS.c.id).limit(_BLOCK)
    while rows := connection.execute(columns.where(_USERS.c.id > last)).all():
        connection.execute(
            sa.update(_USERS).where(_USERS.c.id == sa.bindparam("user_id")).values(search_key=sa.bindparam("key")),
            [{"user_id": row.id, "key": _search_key(f"{row.username} {row.name}".strip())} for row in rows],
        )
        last = rows[-1].id


def _search_key(text: str) -> str:
    """As of this version; a migration does not follow what the portal does later."""
    letters = unicodedata.normalize("NFKD", text)
    plain = "".join(letter for letter in letters if not unicodedata.combining(letter))
    return unicodedata.normalize("NFKD", plain.casefold())[:400]


def downgrade() -> None:
    op.drop_column("users", "search_key")
