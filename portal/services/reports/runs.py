"""One run for superusers, and what became of each line of it: read-only."""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, literal, or_, select, true
from sqlalchemy.orm import Session

from portal import database
from portal.errors import UnknownRunError
from portal.models import Run, RunLine, RunRequest
from portal.services.reports.lists import RunReport
from portal.services.transaction import reading

HELD = "held"  # what stands for the result of a line that was held back
NOT_SENT = "not_sent"  # … and of one that no list manager was told about, or that nothing is known of


class RunFound(NamedTuple):
    """One run.

    ``request_id``: what a superuser had asked for; ``is_last``: the list has no newer run; ``counts``: how many of its
    lines are of which action and result.
    """

    run: RunReport
    request_id: int | None
    is_last: bool
    counts: Mapping[tuple[str, str], int]

    @property
    def duration(self) -> timedelta | None:
        """Return how long it took; None while it is open, or where it was cut short."""
        return None if self.run.finished_at is None else self.run.finished_at - self.run.started_at

    def how_many(self, *, action: str | None = None, result: str | None = None) -> int:
        """Count its lines of an action, of a result, or of both."""
        return sum(
            count for (of, ended), count in self.counts.items() if action in {None, of} and result in {None, ended}
        )


class RunLineReport(NamedTuple):
    """One line of a run's plan: ``words`` are the list manager's."""

    address_id: int
    address: str
    action: str
    reason: str
    result: str
    words: str


def find(session: Session, run_id: int) -> RunFound:
    """Return one run. Raise UnknownRunError."""
    names = ("list_handle" if name == "handle" else name for name in RunReport._fields)
    asked = select(RunRequest.id).where(RunRequest.run_id == Run.id).limit(1).scalar_subquery()
    newest = Run.__table__.alias("newest")
    last = select(func.max(newest.c.id)).where(newest.c.list_handle == Run.list_handle).scalar_subquery()
    query = select(*(getattr(Run, name) for name in names), asked, last).where(Run.id == run_id)
    counts = select(RunLine.action, _result(), func.count()).where(RunLine.run_id == run_id).group_by("action", "ended")
    with reading(session):
        found = session.execute(query).first()
        if found is None:
            raise UnknownRunError(f"no run has the number {run_id}")
        counted = {(action, ended): count for action, ended, count in session.execute(counts)}
    *run, request_id, last_id = found
    return RunFound(RunReport._make(run), request_id, last_id == run_id, counted)


def lines(
    session: Session,
    run_id: int,
    *,
    action: str | None = None,
    result: str | None = None,
    after: int | None = None,
    limit: int = 100,
) -> tuple[RunLineReport, ...]:
    """Return lines of a run by address; ``after`` is the address id of the last one that has been shown already."""
    address = RunLine.address.collate(database.code_points(session))
    query = select(RunLine.address_id, RunLine.address, RunLine.action, RunLine.reason, _result(), RunLine.words).where(
        RunLine.run_id == run_id,
        RunLine.action == action if action else true(),
        _result() == result if result else true(),
    )
    if after is not None:
        shown = RunLine.__table__.alias("shown")
        last = select(shown.c.address).where(shown.c.run_id == run_id, shown.c.address_id == after).scalar_subquery()
        query = query.where(or_(address > last, and_(address == last, RunLine.address_id > after)))
    with reading(session):
        return tuple(
            map(RunLineReport._make, session.execute(query.order_by(address, RunLine.address_id).limit(limit)))
        )


def _result() -> Any:
    """Say in a word what became of a line."""
    return case(
        (RunLine.held, literal(HELD)), (RunLine.result.is_not(None), RunLine.result), else_=literal(NOT_SENT)
    ).label("ended")
