"""Statistics for a board: subscribers, joins, leaves and people making changes by week, month or year."""

from collections.abc import Collection, Iterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from enum import StrEnum
from itertools import pairwise
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import ColumnElement, Select, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from portal import database
from portal.domain.run import RunState
from portal.models import History, Run
from portal.services.transaction import reading


class Span(StrEnum):
    """The length of a period."""

    WEEK = "week"
    MONTH = "month"
    YEAR = "year"


MOST = {Span.WEEK: 26, Span.MONTH: 24, Span.YEAR: 10}  # periods in a report, including the current one


class Period(NamedTuple):
    """A week from Monday, a month or a year, in the portal's time zone; the last one has not ended.

    ``subscribers`` counts the addresses on the lists at their last good runs before its end, None before the first run.
    ``joined`` and ``left`` count choices, and moves at the list, by which addresses became subscribed and unsubscribed,
    without what first runs took over. ``people_making_changes`` counts people who chose in the portal themselves.
    """

    begins_on: date
    subscribers: int | None
    joined: int
    left: int
    people_making_changes: int


def numbers(
    session: Session, handles: Collection[str], *, span: Span, now: datetime, zone: ZoneInfo
) -> tuple[Period, ...]:
    """Return the periods of some lists together, the oldest first, starting with the first that has any data."""
    days = _begins(span, now.astimezone(zone).date())
    bounds = [datetime.combine(day, time(), zone).astimezone(UTC) for day in days]
    with reading(session):
        moves = {row.number: row for row in session.execute(_moves(handles, bounds))}
        subscribers: dict[int, int] = {}
        for row in session.execute(_subscribers(session, handles, bounds)):
            if row.on_roster is not None:
                subscribers[row.number] = subscribers.get(row.number, 0) + row.on_roster
    found = [
        Period(day, subscribers.get(number), *(moves[number][1:] if number in moves else (0, 0, 0)))
        for number, day in enumerate(days[:-1])
    ]
    first = next((number for number, each in enumerate(found) if any(each[1:])), len(found) - 1)
    return tuple(found[first:])


def _begins(span: Span, today: date) -> list[date]:
    """Return the first days of the periods, the oldest first, and the day after the last of them."""
    return [_shifted(span, today, number) for number in range(1 - MOST[span], 2)]


def _shifted(span: Span, today: date, number: int) -> date:
    """Return the first day of the period that is ``number`` periods away from today's."""
    if span is Span.WEEK:
        return today - timedelta(days=today.weekday()) + timedelta(weeks=number)
    if span is Span.YEAR:
        return date(today.year + number, 1, 1)
    months = today.year * 12 + today.month - 1 + number
    return date(months // 12, months % 12 + 1, 1)


def _moves(handles: Collection[str], bounds: Sequence[datetime]) -> Any:
    """Count joins, leaves and people making changes by the number of the period, in one pass over the history."""
    number = _number(History.at, bounds[1:-1]).label("number")
    return (
        select(
            number,
            func.count().filter(History.subscribed),
            func.count().filter(~History.subscribed),
            func.count(case((History.source == "user", History.actor_id)).distinct()),
        )
        .where(History.at >= bounds[0], History.at < bounds[-1], History.source != "init")
        .where(History.list_handle.in_(sorted(handles)))
        .group_by(number)
    )


def _number(column: Any, ends: Sequence[datetime], first: int = 0) -> ColumnElement[int]:
    """Return the number of the period of a time by bisection: both dialects compare times fast."""
    if not ends:
        return literal(first)
    middle = len(ends) // 2
    before, after = _number(column, ends[:middle], first), _number(column, ends[middle + 1 :], first + middle + 1)
    return case((column < ends[middle], before), else_=after)


def _subscribers(session: Session, handles: Collection[str], bounds: Sequence[datetime]) -> Select[Any]:
    """Return the number of subscribers at the last good run of each list before the end of each period."""
    of_list = database.table_of(session, "lists", ("handle",), [[each] for each in sorted(handles)])
    periods = union_all(*_ends(bounds)).subquery("periods")
    last = (
        select(Run.on_roster)
        .where(Run.list_handle == of_list.c.handle, Run.state == RunState.DONE, Run.started_at < periods.c.ends_at)
        .order_by(Run.started_at.desc(), Run.id.desc())
        .limit(1)
        .correlate(of_list, periods)
    )
    return select(periods.c.number, last.scalar_subquery().label("on_roster")).select_from(
        periods.join(of_list, literal(1) == 1)
    )


def _ends(bounds: Sequence[datetime]) -> Iterator[Any]:
    for number, (_, end) in enumerate(pairwise(bounds)):
        yield select(literal(number).label("number"), literal(end, Run.started_at.type).label("ends_at"))
