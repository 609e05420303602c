"""One run with the result of each of its lines, for superusers; read-only."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, case, exists, func, literal, or_, select, true
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action
from portal.domain.run import IN_PROGRESS, NEVER_BEGUN, UNDER_WAY, WAITS, RunState
from portal.errors import UnknownRunError
from portal.models import Run, RunLine
from portal.services.reports.lists import RunReport, run_reports
from portal.services.sync import leases
from portal.services.sync.runs import KEPT
from portal.services.transaction import reading

HELD = "held"  # the result of a line that was held back
NOT_SENT = "not_sent"  # … and of a line that was not pushed, or whose result is unknown

_DANGEROUS_FIRST = (Action.REMOVE, Action.LEFT, Action.ADD, Action.JOINED)


class RunFound(NamedTuple):
    """A run.

    ``is_last``: no later run of the list has begun. ``is_interrupted``: it has not ended but no longer holds the list.
    ``counts`` are its lines by action and result.
    """

    run: RunReport
    is_last: bool
    is_interrupted: bool
    counts: Mapping[tuple[str, str], int]

    @property
    def duration(self) -> timedelta | None:
        """How long it took; None while it is in progress, or if it was interrupted."""
        return None if self.run.finished_at is None else self.run.finished_at - self.run.started_at

    @property
    def is_under_way(self) -> bool:
        """Whether its page may change within moments."""
        return self.run.state in UNDER_WAY and not self.is_interrupted

    def changes(self, action: str | None = None) -> int:
        """Count the lines of an action, or of all, that are carried out if its plan is applied."""
        if self.run.state == RunState.HELD:
            return self.how_many(action=action, result=WAITS)
        return self.how_many(action=action) - self.how_many(action=action, result=HELD)

    def how_many(self, *, action: str | None = None, result: str | None = None) -> int:
        """Count its lines by action, by result, or by both."""
        return sum(
            count for (of, ended), count in self.counts.items() if action in {None, of} and result in {None, ended}
        )


class RunLineReport(NamedTuple):
    """A line of a run's plan; ``words`` are the list manager's."""

    address_id: int
    address: str
    action: str
    reason: str
    result: str
    words: str


def find(session: Session, run_id: int) -> RunFound:
    """Return a run. Raise UnknownRunError."""
    newer = Run.__table__.alias("newer")
    is_later = or_(newer.c.started_at > Run.started_at, and_(newer.c.started_at == Run.started_at, newer.c.id > Run.id))
    has_newer = exists().where(newer.c.list_handle == Run.list_handle, newer.c.state.not_in(NEVER_BEGUN), is_later)
    query = run_reports().add_columns(has_newer).where(Run.id == run_id)
    counts = select(RunLine.action, _result(), func.count()).where(RunLine.run_id == run_id).group_by("action", "ended")
    with reading(session):
        found = session.execute(query).first()
        if found is None:
            raise UnknownRunError(
                f"no run has the number {run_id}; one that is only shown is kept for {KEPT.days} days"
            )
        *columns, has_newer_one = found
        run, is_last = RunReport._make(columns), not has_newer_one
        counted = {(action, ended): count for action, ended, count in session.execute(counts)}
        is_interrupted = run.state in IN_PROGRESS and not (is_last and leases.is_held(session, run.handle))
    return RunFound(run, is_last, is_interrupted, counted)


def lines(
    session: Session,
    run_id: int,
    *,
    action: str | None = None,
    result: str | None = None,
    number: int = 1,
    size: int = 100,
) -> tuple[RunLineReport, ...]:
    """Return a page of the lines of a run: removals first, held-back lines last, otherwise by address.

    ``number`` counts the pages from 1.
    """
    query = select(RunLine.address_id, RunLine.address, RunLine.action, RunLine.reason, _result(), RunLine.words).where(
        RunLine.run_id == run_id,
        RunLine.action == action if action else true(),
        _result() == result if result else true(),
    )
    page = query.order_by(*_order(session)).limit(size).offset((number - 1) * size)
    with reading(session):
        return tuple(map(RunLineReport._make, session.execute(page)))


def _order(session: Session) -> tuple[Any, ...]:
    danger = case(*((RunLine.action == each, number) for number, each in enumerate(_DANGEROUS_FIRST)))
    return (
        case((RunLine.held, 1), else_=0),
        danger,
        RunLine.address.collate(database.code_points(session)),
        RunLine.address_id,
    )


def _result() -> Any:
    """Return the result of a line in SQL."""
    return case(
        (RunLine.held, literal(HELD)), (RunLine.result.is_not(None), RunLine.result), else_=literal(NOT_SENT)
    ).label("ended")
