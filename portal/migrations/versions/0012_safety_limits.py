"""runs: what counts in the safety limits, and what waits for approval; restores."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

_RUNS = sa.table("runs", sa.column("state"))
_STATES = (
    "state IN ('asked', 'taken', 'shown', 'changed', 'dropped', "
    "'{}', 'open', 'planned', 'done', 'failed', 'unfinished')"
)


def upgrade() -> None:
    _rename_state("refused", "held")
    op.add_column("run_lines", sa.Column("counts", sa.Boolean(), server_default=sa.false(), nullable=False))
    op.execute(
        "UPDATE run_lines SET result = 'waits' WHERE NOT held AND run_id IN (SELECT id FROM runs WHERE state = 'held')"
    )
    op.create_table(
        "restores",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_restores")),
    )


def downgrade() -> None:
    op.drop_table("restores")
    op.execute("UPDATE run_lines SET result = NULL WHERE result = 'waits'")
    op.drop_column("run_lines", "counts")
    _rename_state("held", "refused")


def _rename_state(old: str, new: str) -> None:
    with op.batch_alter_table("runs") as runs:
        runs.drop_constraint(op.f("ck_runs_state"), type_="check")
    op.execute(_RUNS.update().where(_RUNS.c.state == old).values(state=new))
    with op.batch_alter_table("runs") as runs:
        runs.create_check_constraint(op.f("ck_runs_state"), _STATES.format(new))
