"""The weeks of a list: what was on it, who joined and who left."""

from datetime import timedelta
from typing import Any

from sqlalchemy.orm import Session

from portal.models import History, Run
from portal.services.reports import trends
from tests.conftest import Clock


def make_run(session: Session, at: Any, on_roster: int | None, handle: str = "members", state: str = "done") -> None:
    values = {"kind": "sync", "asked_by": "", "host": "", "started_at": at, "finished_at": at}
    session.add(Run(list_handle=handle, state=state, on_roster=on_roster, **values))
    session.commit()


def make_change(session: Session, at: Any, subscribed: bool, source: str = "user") -> None:
    values = {"list_handle": "members", "address_id": 1, "address": "alice@example.org"}
    session.add(History(at=at, subscribed=subscribed, source=source, **values))
    session.commit()


def test_a_week_has_what_its_last_good_run_read(session: Session, clock: Clock) -> None:
    now = clock()
    make_run(session, now - timedelta(days=85), 1)  # before the first week
    make_run(session, now - timedelta(days=80), 5)
    make_run(session, now - timedelta(days=2), 7)
    make_run(session, now - timedelta(days=1), 8)
    make_run(session, now, 9, state="failed")
    make_run(session, now, 4, handle="tech")
    weeks = trends.weeks(session, ["members", "tech"], now=now)
    assert [each.on_list for each in weeks["members"]] == [5, *[None] * 10, 8]
    assert [each.on_list for each in weeks["tech"]] == [*[None] * 11, 4]
    assert weeks["members"][0].begins_at == now - timedelta(weeks=12)


def test_a_week_counts_who_joined_and_left_but_not_what_the_first_run_took_over(session: Session, clock: Clock) -> None:
    now = clock()
    for days, subscribed in ((8, True), (9, True), (10, False), (1, False)):
        make_change(session, now - timedelta(days=days), subscribed)
    make_change(session, now - timedelta(days=1), True, "init")
    weeks = trends.weeks(session, ["members"], now=now)["members"]
    assert [(each.joined, each.left) for each in weeks[-3:]] == [(0, 0), (2, 1), (0, 1)]


def test_no_list_has_no_weeks(session: Session, clock: Clock) -> None:
    assert trends.weeks(session, [], now=clock()) == {}
