"""preferences and runs: tell refused changes from those that wait at the list or had no effect."""

import sqlalchemy as sa
from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None

_COUNTS = ("waiting", "no_effect")
_PREFERENCES = sa.table(
    "preferences",
    sa.column("refusal", sa.String),
    sa.column("waiting_since", sa.DateTime),
    sa.column("push_result", sa.String),
)


def upgrade() -> None:
    op.add_column("preferences", sa.Column("push_result", sa.String(length=8), nullable=True))
    for name in _COUNTS:
        op.add_column("runs", sa.Column(name, sa.Integer(), server_default=sa.text("0"), nullable=False))
    words = _PREFERENCES.c.refusal
    had_no_effect = words.like("not on the list after%") | words.like("still on the list after%")
    result = sa.case(
        (had_no_effect, "undone"), (_PREFERENCES.c.waiting_since.is_not(None), "pending"), else_="rejected"
    )
    op.execute(sa.update(_PREFERENCES).where(words.is_not(None)).values(push_result=result))


def downgrade() -> None:
    for name in _COUNTS:
        op.drop_column("runs", name)
    op.drop_column("preferences", "push_result")
