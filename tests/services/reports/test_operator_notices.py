"""Notices for operators: when a trouble begins, once a day while it goes on, and when it is over."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.models import MailRequest, MemberImport, Run
from portal.services import outbox
from portal.services.reports import operator_notices
from portal.services.transaction import reading
from tests.conftest import Clock

OPERATOR = "root@example.org"
News = Callable[..., list[str]]


@pytest.fixture
def catalogue(app: Flask) -> Catalogue:
    """One list, so that each mail is about it."""
    found: Catalogue = app.extensions["portal"].catalogue()
    return replace(found, lists={"members": found.lists["members"]})


@pytest.fixture
def news(session: Session, clock: Clock, catalogue: Catalogue) -> News:
    """Ask for notices; return what the new ones say and lead to."""
    seen: set[int] = set()

    def ask() -> list[str]:
        operator_notices.ask_for(session, operators=[OPERATOR], catalogue=catalogue, now=clock())
        with reading(session):
            rows = session.execute(select(MailRequest.id, MailRequest.mailbox, MailRequest.details)).all()
        new = [outbox.as_details(row.details) for row in rows if row.id not in seen]
        assert {row.mailbox for row in rows} <= {OPERATOR}
        seen.update(row.id for row in rows)
        return sorted(f"{each['when'] % {'what': each['what'] % each}} {each['page']}" for each in new)

    return ask


def run(session: Session, clock: Clock, state: str) -> int:
    row = Run(
        list_handle="members", kind="sync", asked_by="", host="h", started_at=clock(), finished_at=clock(), state=state
    )
    session.add(row)
    session.commit()
    number = row.id
    session.rollback()
    return number


def test_a_failed_run_is_told_when_it_begins_once_a_day_and_when_it_is_over(
    session: Session, clock: Clock, news: News
) -> None:
    run(session, clock, "done")
    assert news() == []
    failed = run(session, clock, "failed")
    assert news() == [f"the last run of Members failed /admin/runs/{failed}"]
    clock.advance(hours=1)
    failed = run(session, clock, "failed")
    assert news() == []
    run(session, clock, "done")
    assert news() == ["over: the last run of Members failed /admin/lists/members"]
    assert news() == []


def test_a_run_that_needs_approval_leads_to_its_very_plan(session: Session, clock: Clock, news: News) -> None:
    run(session, clock, "done")
    held = run(session, clock, "held")
    assert news() == [f"a run of Members needs approval /admin/runs/{held}"]


def test_an_overdue_list_is_told_and_told_again_a_day_later(session: Session, clock: Clock, news: News) -> None:
    run(session, clock, "done")
    clock.advance(hours=13)
    words = "Members has had no good run within the time that members are promised"
    assert news() == [f"{words} /admin/lists/members"]
    clock.advance(hours=23)
    assert news() == []
    clock.advance(hours=1)
    assert news() == [f"still: {words} /admin/lists/members"]


def test_an_import_that_needs_approval_leads_to_its_plan(session: Session, clock: Clock, news: News) -> None:
    def add_import(state: str) -> int:
        row = MemberImport(
            source="x", asked_by="cron", asked_by_id=None, started_at=clock(), state=state, deactivates=True
        )
        session.add(row)
        session.commit()
        number = row.id
        session.rollback()
        return number

    add_import("done")
    assert news() == []
    held = add_import("held")
    add_import("shown")  # somebody looks at a file in the browser
    assert news() == [f"an import of members needs approval /admin/users/imports/{held}"]
    clock.advance(days=1)
    held = add_import("held")
    assert news() == [f"still: an import of members needs approval /admin/users/imports/{held}"]
    add_import("done")
    assert news() == ["over: an import of members needs approval /admin/users/imports"]
    failed = add_import("failed")
    assert news() == [f"the last import of members failed /admin/users/imports/{failed}"]
    clock.advance(hours=25)
    assert news() == ["over: the last import of members failed /admin/users/imports"]


def test_a_new_list_that_was_never_synced_is_no_news(news: News) -> None:
    assert news() == []


def test_whoever_notices_first_mails_alone(session: Session, clock: Clock, catalogue: Catalogue, news: News) -> None:
    run(session, clock, "failed")
    assert len([each for each in news() if "failed" in each]) == 1
    with Session(session.get_bind()) as other:
        assert operator_notices.ask_for(other, operators=[OPERATOR], catalogue=catalogue, now=clock()) == 0


def test_without_operators_nothing_is_looked_at(session: Session, clock: Clock, catalogue: Catalogue) -> None:
    run(session, clock, "failed")
    assert operator_notices.ask_for(session, operators=[], catalogue=catalogue, now=clock()) == 0
