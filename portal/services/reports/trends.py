"""Weekly trends of lists: subscribers from runs, joins and leaves from the history."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, literal, select, union_all
from sqlalchemy.orm import Session

from portal import database
from portal.domain.run import RunState
from portal.models import History, Run
from portal.services.transaction import reading

WEEKS = 12
_WEEK = timedelta(days=7)
_LONGEST = timedelta(days=1)  # the longest run


class Week(NamedTuple):
    """Seven days of a list, from ``begins_at``.

    ``on_list`` is the roster's size at the last good run, None if there was none. ``joined`` and ``left`` count
    choices, and moves at the list, by which addresses became subscribed and unsubscribed, without what the first run
    took over.
    """

    begins_at: datetime
    on_list: int | None
    joined: int
    left: int


def weeks(session: Session, handles: Sequence[str], *, now: datetime) -> dict[str, tuple[Week, ...]]:
    """Return the last twelve weeks of each list, the oldest first, by two queries however many runs there were."""
    begins = [now - _WEEK * number for number in range(WEEKS, 0, -1)]
    with reading(session):
        on_list = {handle: found for handle, *found in session.execute(_last_good(session, handles, begins, now=now))}
        moves = {(row.handle, row.week): row for row in session.execute(_moves(handles, begins))}
    return {
        handle: tuple(
            Week(
                begins_at=at,
                on_list=on_list[handle][number],
                joined=move.joined if (move := moves.get((handle, number))) else 0,
                left=move.left if move else 0,
            )
            for number, at in enumerate(begins)
        )
        for handle in handles
    }


def _last_good(session: Session, handles: Sequence[str], begins: Sequence[datetime], *, now: datetime) -> Any:
    """Return the query for the size of the roster at each list's last good run of each week.

    An index leads to each of these runs: lists are few, and runs are many.
    """
    of_list = database.table_of(session, "lists", ("handle",), [[each] for each in handles])
    is_good = and_(Run.list_handle == of_list.c.handle, Run.state == RunState.DONE)
    last = (
        select(Run.on_roster).where(is_good).correlate(of_list).order_by(Run.started_at.desc(), Run.id.desc()).limit(1)
    )
    ends = [*begins[1:], now + _WEEK]  # another host's clock may be ahead
    weeks = (
        last.where(Run.started_at.between(begin - _LONGEST, end), Run.finished_at >= begin, Run.finished_at < end)
        for begin, end in zip(begins, ends, strict=True)
    )
    return select(of_list.c.handle, *(each.scalar_subquery() for each in weeks))


def _moves(handles: Sequence[str], begins: Sequence[datetime]) -> Any:
    """Select each list and week with how many joined and left: the weeks apart, as sorting all rows takes longer."""
    of_lists = and_(History.list_handle.in_(handles), History.source != "init")
    ends = [*begins[1:], None]
    return union_all(
        *(
            select(
                History.list_handle.label("handle"),
                literal(number).label("week"),
                func.sum(case((History.subscribed, 1), else_=0)).label("joined"),
                func.sum(case((History.subscribed, 0), else_=1)).label("left"),
            )
            .where(of_lists, History.at >= begin, *([] if end is None else [History.at < end]))
            .group_by(History.list_handle)
            for number, (begin, end) in enumerate(zip(begins, ends, strict=True))
        )
    )
