"""`flask portal restored`: what it does after a backup was restored."""

import json
from datetime import timedelta

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.run import RunKind
from portal.models import LoginSession, MailedLink, MailRequest, Run
from portal.services import outbox, security_log
from portal.services.accounts import api_keys, users
from portal.services.history import COMMAND_LINE
from portal.services.mail import links
from portal.services.outbox import Mail
from portal.services.sync import runs
from portal.services.transaction import transaction
from tests.conftest import Clock, Rosters
from tests.factories import make_preference, make_user


@pytest.fixture
def runner(app: Flask) -> FlaskCliRunner:
    return app.test_cli_runner()


def restored(runner: FlaskCliRunner) -> dict[str, object]:
    done = runner.invoke(args=["portal", "restored", "--format", "json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


def test_log_ins_end_and_runs_that_were_asked_for_are_dropped(
    runner: FlaskCliRunner, session: Session, clock: Clock
) -> None:
    user_id = make_user(session, "alice")
    later = clock() + timedelta(days=1)
    session.add(
        LoginSession(token_hash="0" * 64, user_id=user_id, created_at=clock(), seen_at=clock(), expires_at=later)
    )
    session.commit()
    runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=clock())
    found = restored(runner)
    assert (found["log_ins_ended"], found["runs_dropped"]) == (1, 1)
    assert session.scalars(select(LoginSession)).all() == []
    assert session.scalar(select(Run.state)) == "dropped"
    session.rollback()
    assert runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=clock())


def test_mails_that_were_to_be_sent_and_links_that_were_are_gone(
    runner: FlaskCliRunner, session: Session, clock: Clock
) -> None:
    make_user(session, "alice")
    (account,) = links.accounts_at(session, "alice@example.org")
    links.make_all(session, "log-in", mailbox="alice@example.org", accounts=[account], now=clock())
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "log-in")] * 2, now=clock())
    assert restored(runner)["mails_dropped"] == 2
    assert session.scalars(select(MailRequest.id)).all() == []
    assert session.scalars(select(MailedLink.id)).all() == []


def test_keys_and_superusers_are_listed_with_what_the_security_log_says_since(
    runner: FlaskCliRunner, session: Session, clock: Clock
) -> None:
    make_user(session, "bob", is_superuser=True)
    with runner.app.app_context():
        key = api_keys.create(session, "bob", label="list host", expires_days=None, now=clock())
        users.grant(session, make_user(session, "alice") and "alice")
        security_log.log("log-in", user=1)
    found = restored(runner)
    assert [each["prefix"] for each in found["keys"]] == [key[:11]]
    assert [each[1:] for each in found["superusers"]] == [["alice", True], ["bob", True]]
    events = [each["event"] for each in found["events"]]
    assert "log-in" not in events
    text = runner.invoke(args=["portal", "restored"])
    assert (text.exit_code, key in text.output, key[:11] in text.output) == (0, False, True)


def test_the_first_plan_of_every_list_waits_until_it_is_approved(
    runner: FlaskCliRunner, session: Session, rosters: Rosters, clock: Clock
) -> None:
    for name in ("alice", "bob"):
        make_user(session, name)
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    rosters.set("members", "alice@example.org", "bob@example.org")
    make_user(session, "charlie")
    make_preference(session, "members", "charlie@example.org", True, touched=True, seen=False)
    restored(runner)
    clock.advance(minutes=1)
    held = runner.invoke(args=["mailinglist", "sync", "members"])
    assert held.exit_code == 77
    assert len(rosters.get("members")) == 2
    approved = runner.invoke(args=["mailinglist", "sync", "members", "--accept", held.stderr.split()[-2]])
    assert (approved.exit_code, len(rosters.get("members"))) == (0, 3)
