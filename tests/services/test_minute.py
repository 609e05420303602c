"""The driver's queries for `flask minutely` always find a row if a part of it has something to do."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.domain.run import NEVER_BEGUN, RunKind, RunState
from portal.models import MailedLink, MailRequest, Run
from portal.services import minute, outbox
from portal.services.history import COMMAND_LINE
from portal.services.outbox import Mail, MailState
from portal.services.sync import runs
from portal.services.transaction import transaction
from tests.factories import NOW

MOMENT = timedelta(microseconds=1)
ALL = frozenset(minute.QUESTIONS)


@pytest.fixture
def has_work(app: Flask) -> Any:
    def ask(name: str, now: datetime = NOW) -> bool:
        return minute.has_work(app.config["SQLALCHEMY_DATABASE_URI"], now=now, without=ALL - {name})

    return ask


@pytest.mark.parametrize("name", sorted(ALL))
def test_an_empty_portal_has_nothing_to_do(has_work: Any, name: str) -> None:
    assert not has_work(name)


def test_a_run_that_waits_or_is_taken_is_something_to_do(session: Session, has_work: Any) -> None:
    run_id = runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=NOW)
    for state in RunState:
        with transaction(session):
            session.execute(update(Run).where(Run.id == run_id).values(state=state))
        assert has_work("runs") is (state in {RunState.ASKED, RunState.TAKEN}), state


@pytest.mark.parametrize("state", NEVER_BEGUN)
def test_a_run_that_is_to_be_forgotten_is_something_to_do(session: Session, has_work: Any, state: RunState) -> None:
    run_id = runs.request(session, "members", kind=RunKind.SHOW, actor=COMMAND_LINE, now=NOW)
    with transaction(session):
        session.execute(update(Run).where(Run.id == run_id).values(state=state))
    waits = state in {RunState.ASKED, RunState.TAKEN}
    assert has_work("runs", NOW + runs.KEPT) is waits
    assert has_work("runs", NOW + runs.KEPT + MOMENT)


@pytest.mark.parametrize(
    "later", [-MOMENT, timedelta(), timedelta(hours=1), timedelta(days=-1), timedelta(days=-1) - MOMENT]
)
def test_mail_is_something_to_do_when_a_sender_would_claim_it(
    session: Session, has_work: Any, later: timedelta
) -> None:
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "invite")], now=NOW)
    assert has_work("mail", NOW + later) is outbox.has_due(session, now=NOW + later)


@pytest.mark.parametrize("state", MailState)
def test_mail_that_has_ended_is_none_to_send(session: Session, has_work: Any, state: MailState) -> None:
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "invite")], now=NOW)
        session.execute(update(MailRequest).values(state=state))
    assert has_work("mail") is outbox.has_due(session, now=NOW) is (state in outbox.OPEN)


@pytest.mark.parametrize("later", [-MOMENT, timedelta()])
@pytest.mark.parametrize(
    ("name", "table", "kept"), [("old mail", MailRequest, outbox.KEPT), ("old links", MailedLink, timedelta(days=1))]
)
def test_what_is_out_of_date_is_something_to_do_when_it_would_be_deleted(
    session: Session, has_work: Any, later: timedelta, name: str, table: Any, kept: timedelta
) -> None:
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "invite")], now=NOW)
        session.execute(update(MailRequest).values(state=MailState.SENT, ended_at=NOW))
        session.add(MailedLink(token_hash="x", purpose="invite", mailbox="a@example.org", made_at=NOW, expires_at=NOW))
    now = NOW + kept + later

    found = has_work(name, now)
    outbox.thin(session, now=now)

    assert found is (session.execute(select(func.count()).select_from(table)).scalar_one() == 0)
    assert found is (later == timedelta())


@pytest.mark.parametrize("uri", ["sqlite:////nowhere/portal.db", "postgresql+psycopg://nobody@127.0.0.1:1/portal"])
def test_a_database_that_does_not_answer_is_something_to_do(uri: str) -> None:
    assert minute.has_work(uri, now=NOW)


def test_a_path_may_hold_what_an_address_on_the_web_writes_otherwise(tmp_path: Path) -> None:
    import sqlite3

    path = tmp_path / "a b%.db"
    with sqlite3.connect(path) as made:
        for table in (
            "runs (state, asked_at)", "outbox (state, due_at, ended_at)", "mailed_links (expires_at)",
            "account_changes (id)", "history (id)", "notice_marks (name, number)", "list_readings (asked_at, due_at)",
            "member_deliveries (asked_at)", "unknown_subscribers (read_at)",
        ):  # fmt: skip
            made.execute(f"CREATE TABLE {table}")
    made.close()
    assert not minute.has_work(f"sqlite:///{path}".replace("%", "%25"), now=datetime.now(UTC))
