"""`flask mail` and `flask minutely`: each step is said, and a minute without anything to do costs next to nothing."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.domain.run import RunKind
from portal.extensions import db
from portal.services import outbox
from portal.services.history import COMMAND_LINE
from portal.services.outbox import Mail, Priority
from portal.services.sync import runs
from portal.services.transaction import transaction
from tests.conftest import SERVER, Clock, Rosters
from tests.factories import NOW, make_user
from tests.fakes.mail_server import FakeMailServer
from tests.test_house import HEAVY, ROOT
from tests.test_query_counts import traffic


@pytest.fixture
def mail_server() -> Iterator[FakeMailServer]:
    with FakeMailServer() as server:
        yield server


@pytest.fixture
def mailing(mail_server: FakeMailServer, instance: Path, rosters: Rosters, make_app: Callable[..., Flask]) -> Flask:
    """A portal with mail in which Alice has asked for a link and been invited."""
    (instance / "portal.toml").write_text(mail_server.toml())
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        user_id = make_user(session, "alice")
        with transaction(session):
            invitation = Mail("alice@example.org", "invite", user_id=user_id, priority=Priority.BULK)
            outbox.enqueue(session, [invitation, Mail("alice@example.org", "log-in")], now=NOW)
    return app


def run(app: Flask, *args: str) -> Result:
    return app.test_cli_runner().invoke(args=args)


def test_send_sends_what_waits_and_says_so_where_asked(mailing: Flask, mail_server: FakeMailServer) -> None:
    done = run(mailing, "mail", "send", "-v")

    assert (done.exit_code, done.stdout) == (0, "2 sent, 0 refused, 0 postponed, 0 no longer needed\n")
    assert [each.message["Subject"][:8] for each in mail_server.taken] == ["Your lin", "Your acc"]
    assert run(mailing, "mail", "send").output == ""


def test_send_ends_with_69_where_the_server_cannot_be_used(mailing: Flask, mail_server: FakeMailServer) -> None:
    mail_server.at_mail = "550 go away"
    done = run(mailing, "mail", "send")

    assert (done.exit_code, done.stderr) == (
        69,
        f"error: 127.0.0.1:{mail_server.port}: 550 go away (docs/errors.md#mail-server-unavailable)\n",
    )


@pytest.mark.parametrize("command", [["mail", "send"], ["mail", "test", "alice@example.org"]])
def test_without_mail_in_the_settings_nothing_is_sent(runner: FlaskCliRunner, command: list[str]) -> None:
    done = runner.invoke(args=command)
    assert (done.exit_code, done.stderr) == (
        78,
        "error: mail is not configured: add a table [mail] to portal.toml (docs/errors.md#configuration-error)\n",
    )


def test_a_test_letter_is_sent_at_once_with_each_step(mailing: Flask, mail_server: FakeMailServer) -> None:
    done = run(mailing, "mail", "test", "zoe@example.net")

    where = f"127.0.0.1:{mail_server.port}"
    steps = f"connected to {where}, not encrypted\n{where} accepted the letter\n"
    assert (done.exit_code, done.stderr, done.stdout) == (0, steps, "sent\n")
    assert [each.to for each in mail_server.taken] == ["zoe@example.net"]


@pytest.mark.parametrize(("address", "code"), [("no address", 65), ("zoe@example.net", 69)])
def test_a_test_letter_that_cannot_be_sent_says_why(
    mailing: Flask, mail_server: FakeMailServer, address: str, code: int
) -> None:
    mail_server.answers["zoe@example.net"] = "550 no such user"
    done = run(mailing, "mail", "test", address)

    assert done.exit_code == code
    assert ("550 no such user" in done.stderr) == (code == 69)


def test_a_letter_can_be_looked_at(runner: FlaskCliRunner) -> None:
    done = runner.invoke(args=["mail", "preview", "invite"])
    assert done.exit_code == 0
    assert done.stdout.startswith(
        "Subject: Your account at Member portal\n\nYou have an account at Member portal, where"
    )
    unknown = runner.invoke(args=["mail", "preview", "nonsense"])
    assert (unknown.exit_code, "invite, " in unknown.stderr) == (2, True)


# --- flask minutely


def test_the_minute_carries_out_runs_sends_mail_and_says_nothing(
    mailing: Flask, mail_server: FakeMailServer, clock: Clock
) -> None:
    with mailing.app_context(), Session(db.engine) as session:
        runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=clock())
        assert len(runs.due(session, now=clock())) == 1
    done = run(mailing, "minutely")

    assert (done.exit_code, done.output) == (0, "")
    assert len(mail_server.taken) == 2
    with mailing.app_context(), Session(db.engine) as session:
        assert runs.due(session, now=clock()) == []


def test_a_mail_server_that_is_down_is_no_news_for_cron(mailing: Flask, mail_server: FakeMailServer) -> None:
    mail_server.at_mail = "451 not now"
    done = run(mailing, "minutely")
    assert (done.exit_code, done.output) == (0, "")


def test_one_part_of_the_minute_that_fails_stops_no_other(
    mailing: Flask, mail_server: FakeMailServer, instance: Path, clock: Clock
) -> None:
    with mailing.app_context(), Session(db.engine) as session:
        runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=clock())
    (instance / "mailinglists.toml").write_text("enabled = oh")

    done = run(mailing, "minutely")

    assert done.exit_code == 78
    assert done.stderr.startswith("error: ")
    assert len(mail_server.taken) == 2


def test_a_portal_without_lists_has_its_minute_too(instance: Path, make_app: Callable[..., Flask]) -> None:
    (instance / "mailinglists.toml").unlink()
    done = run(make_app(for_a_command=True), "minutely")
    assert (done.exit_code, done.output) == (0, "")


def test_a_minute_without_anything_to_do_asks_one_question_and_attaches_no_database(
    mailing: Flask, mail_server: FakeMailServer, instance: Path
) -> None:
    run(mailing, "minutely")
    with mailing.app_context():
        with traffic() as seen:
            done = run(mailing, "minutely")
        assert done.exit_code == 0
    assert seen.statements == []  # the question goes to the driver


def imported_by_the_minute(instance: Path) -> set[str]:
    environ = {"PORTAL_INSTANCE": str(instance)}
    if SERVER:
        environ["PORTAL_SQLALCHEMY_DATABASE_URI"] = SERVER
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flask", "--app", "portal", "minutely"],
        cwd=ROOT, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return {line.rpartition("|")[2].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}


def test_a_minute_without_anything_to_do_imports_nothing_heavy(app: Flask, instance: Path) -> None:
    imported_by_the_minute(instance)  # it deletes what is out of date by this process's clock
    modules = imported_by_the_minute(instance)
    imported = {name.split(".")[0] for name in modules}

    assert {"flask", "psycopg" if SERVER else "sqlite3"} <= imported  # the measurement works
    assert imported & (HEAVY | {"sqlalchemy", "smtplib"}) - {"psycopg"} == set()
    assert {name for name in modules if name.startswith(("portal.services.mail", "portal.services.sync"))} == set()


def test_a_minute_with_something_to_do_attaches_the_database(mailing: Flask, instance: Path) -> None:
    with mailing.app_context(), Session(db.engine) as session:
        runs.request(session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=datetime.now(UTC))
    modules = imported_by_the_minute(instance)

    assert {"sqlalchemy", "portal.services.sync.sync"} <= modules
    with mailing.app_context(), Session(db.engine) as session:
        assert runs.due(session, now=datetime.now(UTC)) == []


def test_the_minute_mails_members_and_operators_what_is_news(
    mailing: Flask, mail_server: FakeMailServer, instance: Path, clock: Clock, make_app: Callable[..., Flask]
) -> None:
    more = 'operators = ["root@example.org"]\ntell_members = true'
    (instance / "portal.toml").write_text(mail_server.toml(more=more))
    app = make_app()
    run(app, "minutely")
    mail_server.taken.clear()
    assert run(app, "mailinglist", "subscribe", "members", "alice").exit_code == 0
    assert run(app, "mailinglist", "sync").exit_code == 0
    clock.advance(hours=13)
    assert clock().minute % 5 == 0

    assert run(app, "minutely").exit_code == 0

    told = sorted((each.to, str(each.message["Subject"])) for each in mail_server.taken)
    assert ("alice@example.org", "Your mailing lists at Member portal") in told
    assert [to for to, _ in told].count("root@example.org") == 3
    mail_server.taken.clear()
    assert run(app, "minutely").exit_code == 0
    assert mail_server.taken == []
