"""a request is a run that has not begun."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_STATES = (
    "state IN ('asked', 'taken', 'shown', 'changed', 'dropped', "
    "'refused', 'open', 'planned', 'done', 'failed', 'unfinished')"
)
_RESULTS = "result IN ('open', 'done', 'refused', 'failed', 'unfinished')"

# A request that led to a run: the run learns who asked. Any other becomes a run that was never begun.
_NAME_ASKER = """
UPDATE runs SET
    asked_by = (SELECT min(asked_by) FROM requests WHERE run_id = runs.id),
    asked_by_id = (SELECT min(asked_by_id) FROM requests WHERE run_id = runs.id),
    asked_at = (SELECT min(asked_at) FROM requests WHERE run_id = runs.id)
WHERE id IN (SELECT run_id FROM requests WHERE run_id IS NOT NULL)
"""
_CARRY_REQUESTS = """
INSERT INTO runs (
    request_id, list_handle, kind, asked_by_id, asked_by, asked_at, slot, host, pid, started_at, finished_at,
    state,
    message, plan_id, accepted, on_roster, without_account, initialised, "left", joined, added, removed, held, refused
)
SELECT
    id, list_handle, CASE kind WHEN 'show' THEN 'show' ELSE 'sync' END, asked_by_id, asked_by, asked_at,
    CASE WHEN slot LIKE 'apply %' THEN 'sync' || substr(slot, 6) ELSE slot END, host, pid,
    coalesce(taken_at, asked_at), finished_at,
    CASE state WHEN 'waiting' THEN 'asked' WHEN 'taken' THEN 'taken' WHEN 'done' THEN 'shown'
        WHEN 'changed' THEN 'changed' ELSE 'dropped' END,
    CASE WHEN message = '' THEN warning ELSE message END, coalesce(found_plan_id, plan_id), false, on_roster,
    without_account, initialised, "left", joined, 0, 0, held, 0
FROM requests WHERE run_id IS NULL ORDER BY id
"""
_CARRY_LINES = """
INSERT INTO run_lines (
    run_id, address_id, list_handle, address, spelling, action, reason, held, version, result, words, settled
)
SELECT
    runs.id, request_lines.address_id, runs.list_handle,
    coalesce(addresses.canonical, 'erased-' || request_lines.address_id),
    coalesce(addresses.spelling, 'erased-' || request_lines.address_id),
    request_lines.action, request_lines.reason, request_lines.held, 0, NULL, '', true
FROM request_lines
JOIN runs ON runs.request_id = request_lines.request_id
LEFT JOIN addresses ON addresses.id = request_lines.address_id
"""


def upgrade() -> None:
    _set_lines_aside()
    with op.batch_alter_table("runs") as runs:
        runs.alter_column("trigger", new_column_name="asked_by", existing_type=sa.String(80), existing_nullable=False)
        runs.alter_column("result", new_column_name="state", existing_type=sa.String(10), existing_nullable=False)
        runs.add_column(sa.Column("asked_by_id", sa.Integer(), nullable=True))
        runs.add_column(sa.Column("asked_at", sa.DateTime(timezone=True), nullable=True))
        runs.add_column(sa.Column("slot", sa.String(length=96), nullable=True))
        runs.add_column(sa.Column("pid", sa.Integer(), nullable=True))
        runs.add_column(sa.Column("request_id", sa.Integer(), nullable=True))
        runs.drop_constraint(op.f("ck_runs_result"), type_="check")
        runs.create_check_constraint("kind", "kind IN ('show', 'sync', 'planned')")
        runs.create_check_constraint("state", _STATES)
        runs.create_unique_constraint(op.f("uq_runs_slot"), ["slot"])
    _put_lines_back()
    op.execute("UPDATE runs SET state = 'planned' WHERE state = 'open' AND kind = 'planned'")
    op.execute(_NAME_ASKER)
    op.execute(_CARRY_REQUESTS)
    op.execute(_CARRY_LINES)
    op.drop_table("request_lines")
    op.drop_table("requests")
    op.drop_column("runs", "request_id")
    op.create_index(op.f("ix_runs_list_handle_started_at"), "runs", ["list_handle", "started_at"])
    op.create_index(op.f("ix_runs_state_asked_at"), "runs", ["state", "asked_at"])


def downgrade() -> None:
    op.drop_index(op.f("ix_runs_state_asked_at"), table_name="runs")
    op.drop_index(op.f("ix_runs_list_handle_started_at"), table_name="runs")
    op.execute("DELETE FROM runs WHERE state IN ('asked', 'taken', 'shown', 'changed', 'dropped')")
    op.execute("UPDATE runs SET state = 'open' WHERE state = 'planned'")
    _set_lines_aside()
    with op.batch_alter_table("runs") as runs:
        runs.drop_constraint(op.f("ck_runs_state"), type_="check")
        runs.drop_constraint(op.f("ck_runs_kind"), type_="check")
        runs.drop_constraint(op.f("uq_runs_slot"), type_="unique")
        for name in ("asked_by_id", "asked_at", "slot", "pid"):
            runs.drop_column(name)
        runs.alter_column("asked_by", new_column_name="trigger", existing_type=sa.String(80), existing_nullable=False)
        runs.alter_column("state", new_column_name="result", existing_type=sa.String(10), existing_nullable=False)
        runs.create_check_constraint("result", _RESULTS)
    _put_lines_back()
    _create_requests()


def _is_sqlite() -> bool:
    return op.get_context().dialect.name == "sqlite"


def _set_lines_aside() -> None:
    """Keep the lines while SQLite makes their parent again: dropping the old one would delete them."""
    if _is_sqlite():
        op.execute("CREATE TABLE run_lines_kept AS SELECT * FROM run_lines")
        op.execute("DELETE FROM run_lines")


def _put_lines_back() -> None:
    if _is_sqlite():
        op.execute("INSERT INTO run_lines SELECT * FROM run_lines_kept")
        op.execute("DROP TABLE run_lines_kept")


def _create_requests() -> None:
    op.create_table(
        "requests",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("list_handle", sa.String(length=64), nullable=False),
        sa.Column("kind", sa.String(length=5), nullable=False),
        sa.Column("plan_id", sa.String(length=16), nullable=True),
        sa.Column("asked_by_id", sa.Integer(), nullable=True),
        sa.Column("asked_by", sa.String(length=80), nullable=False),
        sa.Column("asked_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String(length=10), nullable=False),
        sa.Column("slot", sa.String(length=96), nullable=True),
        sa.Column("host", sa.String(length=120), nullable=False),
        sa.Column("pid", sa.Integer(), nullable=True),
        sa.Column("taken_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("finished_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("message", sa.String(length=400), nullable=False),
        sa.Column("run_id", sa.Integer(), nullable=True),
        sa.Column("found_plan_id", sa.String(length=16), nullable=True),
        sa.Column("on_roster", sa.Integer(), nullable=True),
        sa.Column("without_account", sa.Integer(), nullable=True),
        sa.Column("initialised", sa.Integer(), nullable=False),
        sa.Column("adds", sa.Integer(), nullable=False),
        sa.Column("removals", sa.Integer(), nullable=False),
        sa.Column("left", sa.Integer(), nullable=False),
        sa.Column("joined", sa.Integer(), nullable=False),
        sa.Column("held", sa.Integer(), nullable=False),
        sa.Column("doubtful", sa.Integer(), nullable=False),
        sa.Column("warning", sa.String(length=200), nullable=False),
        sa.CheckConstraint("kind IN ('show', 'sync', 'apply')", name=op.f("ck_requests_kind")),
        sa.CheckConstraint(
            "state IN ('waiting', 'taken', 'done', 'changed', 'refused', 'failed', 'unfinished')",
            name=op.f("ck_requests_state"),
        ),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_requests")),
        sa.UniqueConstraint("slot", name=op.f("uq_requests_slot")),
    )
    op.create_index(op.f("ix_requests_run_id"), "requests", ["run_id"], unique=False)
    op.create_table(
        "request_lines",
        sa.Column("request_id", sa.Integer(), nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("address_id", sa.Integer(), nullable=False),
        sa.Column("action", sa.String(length=6), nullable=False),
        sa.Column("reason", sa.String(length=12), nullable=False),
        sa.Column("held", sa.Boolean(), nullable=False),
        sa.CheckConstraint("action IN ('add', 'remove', 'left', 'joined')", name=op.f("ck_request_lines_action")),
        sa.ForeignKeyConstraint(
            ["request_id"], ["requests.id"], name=op.f("fk_request_lines_request_id_requests"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("request_id", "position", name=op.f("pk_request_lines")),
        sqlite_with_rowid=False,
    )
