"""account_changes: the values before and after a change."""

import sqlalchemy as sa
from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None

_CHANGES = sa.table("account_changes", *(sa.column(name) for name in ("what", "username", "old", "new")))
_GROUPS, _RENAMED = "groups: ", "renamed: "


def upgrade() -> None:
    for name in ("old", "new"):
        column = sa.Column(name, sa.String(length=1000), server_default=sa.text("''"), nullable=False)
        op.add_column("account_changes", column)
    _split(_GROUPS, "groups changed")
    op.execute(sa.update(_CHANGES).where(_CHANGES.c.new == "none").values(new=""))
    _split(_RENAMED, "renamed", old=_CHANGES.c.username)


def _split(prefix: str, what: str, **values: object) -> None:
    """Move what a line says after its prefix into a column of its own."""
    new = sa.func.substr(_CHANGES.c.what, len(prefix) + 1)
    op.execute(sa.update(_CHANGES).where(_CHANGES.c.what.startswith(prefix)).values(what=what, new=new, **values))


def downgrade() -> None:
    for prefix, what in ((_GROUPS, "groups changed"), (_RENAMED, "renamed")):
        value = sa.case((_CHANGES.c.new == "", "none"), else_=_CHANGES.c.new)
        text = sa.func.substr(sa.literal(prefix) + value, 1, 80)
        op.execute(sa.update(_CHANGES).where(_CHANGES.c.what == what).values(what=text))
    for name in ("old", "new"):
        op.drop_column("account_changes", name)
