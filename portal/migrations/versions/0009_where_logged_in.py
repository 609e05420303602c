"""log-ins: browser, system and place, and when the password was last typed."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

_TEXTS = {"browser": 16, "system": 16, "place": 45}


def upgrade() -> None:
    for name, length in _TEXTS.items():
        column = sa.Column(name, sa.String(length=length), server_default=sa.text("''"), nullable=False)
        op.add_column("login_sessions", column)
    op.add_column("login_sessions", sa.Column("is_forwarded", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.add_column("login_sessions", sa.Column("confirmed_at", sa.DateTime(timezone=True), nullable=True))


def downgrade() -> None:
    for name in (*_TEXTS, "is_forwarded", "confirmed_at"):
        op.drop_column("login_sessions", name)
