"""Numbers for a board: subscribers, who joined and left, and people making changes, by week, month and year."""

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from portal.models import History, Run
from portal.services.reports.numbers import MOST, Period, Span, numbers
from tests.conftest import Clock

BERLIN = ZoneInfo("Europe/Berlin")
LISTS = ("members", "tech")


def at(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[misc,arg-type]


def make_run(session: Session, when: datetime, on_roster: int, handle: str = "members", state: str = "done") -> None:
    values = {"kind": "sync", "asked_by": "", "host": "", "started_at": when, "finished_at": when}
    session.add(Run(list_handle=handle, state=state, on_roster=on_roster, **values))
    session.commit()


def make_change(session: Session, when: datetime, subscribed: bool, **columns: Any) -> None:
    values = {"list_handle": "members", "address_id": 1, "address": "alice@example.org", "source": "user", **columns}
    session.add(History(at=when, subscribed=subscribed, **values))
    session.commit()


def test_a_month_has_what_the_last_good_runs_found_and_who_joined_and_left(session: Session, clock: Clock) -> None:
    make_run(session, at(2026, 9, 10), 40)
    make_run(session, at(2026, 9, 20), 7, "tech")
    make_run(session, at(2026, 11, 2), 42)
    make_run(session, at(2026, 11, 3), 1, state="failed")
    make_run(session, at(2026, 11, 3), 99, "elsewhere")
    make_change(session, at(2026, 9, 30, 21, 59), True, actor_id=1)
    make_change(session, at(2026, 9, 30, 22), False, actor_id=1)  # October has begun in Berlin
    make_change(session, at(2026, 10, 5), True, actor_id=1)
    make_change(session, at(2026, 10, 6), True, actor_id=2)
    make_change(session, at(2026, 10, 7), True, actor_id=3, source="superuser")
    make_change(session, at(2026, 10, 8), True, source="init")
    make_change(session, at(2026, 10, 9), True, actor_id=4, list_handle="elsewhere")
    found = numbers(session, LISTS, span=Span.MONTH, now=clock(), zone=BERLIN)
    assert found == (
        Period(date(2026, 9, 1), 47, 1, 0, 1),
        Period(date(2026, 10, 1), 47, 3, 1, 2),
        Period(date(2026, 11, 1), 49, 0, 0, 0),
    )


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span.WEEK, [date(2026, 11, 9), date(2026, 11, 16)]),
        (Span.MONTH, [date(2026, 11, 1)]),
        (Span.YEAR, [date(2026, 1, 1)]),
    ],
)
def test_periods_begin_where_something_happened_first(
    session: Session, clock: Clock, span: Span, expected: list[date]
) -> None:
    make_change(session, at(2026, 11, 15), True)
    found = numbers(session, LISTS, span=span, now=clock(), zone=BERLIN)
    assert [each.begins_on for each in found] == expected
    assert sum(each.joined for each in found) == 1


def test_where_nothing_happened_there_is_the_present_period(session: Session, clock: Clock) -> None:
    for handles in ((), LISTS):
        found = numbers(session, handles, span=Span.WEEK, now=clock(), zone=BERLIN)
        assert found == (Period(date(2026, 11, 16), None, 0, 0, 0),)


@given(days=st.integers(0, 40_000), span=st.sampled_from(Span))
def test_periods_follow_each_other_and_end_with_the_present_one(days: int, span: Span) -> None:
    from portal.services.reports.numbers import _begins

    today = date.fromordinal(date(2000, 1, 1).toordinal() + days)
    begins = _begins(span, today)
    assert len(begins) == MOST[span] + 1
    assert begins == sorted(set(begins))
    assert begins[-2] <= today < begins[-1]
