"""`flask demo`: every state is there, made by real changes, and the next run does what it should."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask.testing import FlaskCliRunner
from sqlalchemy import select

from portal.domain.outlook import State
from portal.extensions import db
from portal.models import Base
from portal.services.accounts import profiles, sessions
from portal.services.demo import CATALOGUE, PASSWORD, ROSTERS
from portal.services.preferences import preferences
from tests.web.conftest import Client, Visitor

pytestmark = pytest.mark.slow


@pytest.fixture
def runner(make_app, instance) -> FlaskCliRunner:
    """A shell on an instance folder that holds a migrated database and nothing else."""
    (instance / "mailinglists.toml").unlink()
    return make_app(for_a_command=True).test_cli_runner()


def rows(session) -> dict[str, list[tuple[object, ...]]]:
    found = {table.name: list(map(tuple, session.execute(select(table)))) for table in Base.metadata.sorted_tables}
    session.rollback()
    return found


@pytest.fixture
def session(runner):
    from sqlalchemy.orm import Session

    with runner.app.app_context(), Session(db.engine) as session:
        yield session


def call(runner: FlaskCliRunner, *args: str) -> str:
    result = runner.invoke(args=args)
    assert (result.exit_code, result.stderr) == (0, "")
    return result.stdout


def offers(runner, session, clock, username):
    catalogue = runner.app.extensions["portal"].catalogue()
    page = preferences.page(session, profiles.id_of(session, username), catalogue=catalogue, now=clock())
    return {offer.mailing_list.handle: offer for offer in page.offers}


def test_the_demo_says_where_to_look_who_to_be_and_how_to_run_a_sync(runner, instance):
    told = call(runner, "demo")
    assert told.startswith("Created the demo in ")
    assert "http://localhost:8000" in told
    assert PASSWORD in told
    assert f"PORTAL_INSTANCE={instance} " in told
    assert "-m flask --app portal mailinglist sync -v" in told


def test_those_whom_it_names_can_log_in(runner, session, clock):
    told = call(runner, "demo")
    for username in ("alice", "bob", "charlie", "dora"):
        assert username in told
        assert sessions.log_in(
            session,
            name=username,
            password=PASSWORD,
            origin=sessions.Origin("192.0.2.1"),
            remember=False,
            now=clock(),
            rounds=4,
        )


def test_a_second_demo_changes_nothing(runner, session):
    call(runner, "demo")
    before = rows(session)
    told = call(runner, "demo")
    assert told.startswith("The demo is already in ")
    assert PASSWORD in told
    assert rows(session) == before


def test_no_demo_is_made_beside_anything_real(runner, session, instance):
    for path, text in (("mailinglists.toml", "enabled = false\n"), ("rosters/members.txt", "a@example.org\n")):
        (instance / path).parent.mkdir(exist_ok=True)
        (instance / path).write_text(text)
        told = call(runner, "demo")
        assert told.startswith("No demo was created, because ")
        assert PASSWORD not in told
        assert (instance / path).read_text() == text
        (instance / path).unlink()
    assert rows(session)["users"] == []


def test_no_demo_is_made_beside_other_users(runner, session, instance):
    from tests.factories import make_user

    make_user(session, "alice")
    assert call(runner, "demo").startswith("No demo was created, because ")
    assert not (instance / "mailinglists.toml").exists()


def test_a_database_without_tables_is_78(make_app, instance, tmp_path):
    runner = make_app(PORTAL_SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'new.db'}").test_cli_runner()
    result = runner.invoke(args=["demo"])
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith("error: the database is not migrated; run: flask db upgrade")


def test_there_are_a_dozen_users_of_every_kind(runner, session):
    call(runner, "demo")
    found = {each.username: each for each in profiles.list_all(session)}
    assert len(found) == 12
    assert {email.rpartition("@")[2] for each in found.values() for email in each.addresses} <= {
        "example.org", "home.example.org",
    }  # fmt: skip
    assert [name for name, each in found.items() if each.is_superuser] == ["bob"]
    assert [name for name, each in found.items() if not each.is_active] == ["ivan"]
    assert len(found["charlie"].addresses) == 2
    assert found["dora"].email == found["erin"].email
    assert {name for name, each in found.items() if "board" in each.groups} == {"alice", "bob", "leo"}


def test_every_state_of_a_list_can_be_seen(runner, session, clock):
    call(runner, "demo")
    found = [
        (offer.state, offer.detail.kind)
        for each in profiles.list_all(session)
        for offer in offers(runner, session, clock, each.username).values()
    ]
    assert {state for state, _ in found} == set(State)
    kinds = {kind for _, kind in found}
    assert {"add_by", "remove_by", "remove_overdue", "waiting", "left", "joined", "refused", "next_run"} <= kinds
    assert {"init_on", "init_off", "chosen"} <= kinds
    assert offers(runner, session, clock, "dora")["tech"].detail.by_other


def test_subscribers_without_an_account_are_on_every_list(runner):
    call(runner, "demo")
    reports = json.loads(call(runner, "mailinglist", "report", "--format", "json"))
    assert [report["handle"] for report in reports] == ["members", "tech", "board"]
    assert all(report["without_account"] for report in reports)
    assert [report["is_late"] for report in reports] == [False, True, False]


def test_history_and_runs_are_in_the_order_of_time(runner):
    call(runner, "demo")
    for command, name in (("history", "at"), ("runs", "started_at")):
        times = [line[name] for line in json.loads(call(runner, "mailinglist", command, "--format", "json"))]
        assert times == sorted(times, reverse=True)


def test_the_next_run_carries_out_what_waits_and_leaves_subscribers_without_an_account_alone(runner, instance: Path):
    call(runner, "demo")
    assert (instance / "mailinglists.toml").read_text() == CATALOGUE
    call(runner, "mailinglist", "sync")

    def roster(handle: str) -> set[str]:
        return {line for line in (instance / "rosters" / f"{handle}.txt").read_text().splitlines() if line[0] != "#"}

    gone = {"alice@example.org", "ivan@example.org", "judy@example.org", "leo@example.org", "grace@example.org"}
    assert roster("members") == (set(ROSTERS["members"]) - gone) | {"judy@home.example.org"}
    assert roster("tech") == {
        "charlie@example.org", "robot@monitoring.example.net", "heidi@example.org", "alice@example.org",
        "bob@example.org", "office@example.org",
    }  # fmt: skip
    assert roster("board") == set(ROSTERS["board"])
    assert "nothing to do" in call(runner, "mailinglist", "sync", "-v", "members")


def test_a_visitor_goes_from_an_invitation_to_being_off_a_list_with_what_the_demo_mails(runner, instance, make_app):
    """Heidi was invited: her mail is sent within the minute, and shown at /demo/mail alone."""
    assert "/demo/mail" in call(runner, "demo")
    app = make_app()
    app.extensions["portal"] = replace(app.extensions["portal"], clock=lambda: datetime.now(UTC))
    app.test_client_class = Client
    visitor = Visitor(app.test_client())
    assert "There are no e-mails yet." in visitor.get("/demo/mail").text
    call(app.test_cli_runner(), "minutely")

    page = visitor.get("/demo/mail")
    assert f"To heidi@example.org, {datetime.now(UTC).day} " in page.text
    assert page.html.count('href="http://localhost:8000/link/ask">http://localhost:8000/link/ask</a>') == 1
    assert 'href="mailto:helpdesk@example.org"' in page.html
    (link,) = re.findall(r'href="http://localhost:8000(/link/[^"]{43})"', page.html)
    visitor.client.get(link)
    assert visitor.follow("/link", {}).title.startswith("Choose a password")
    assert visitor.get("/subscriptions").ticked() == {"tech"}
    visitor.follow("/subscriptions", {})
    call(app.test_cli_runner(), "mailinglist", "sync", "tech")
    assert "heidi" not in (instance / "rosters" / "tech.txt").read_text()


def test_a_portal_that_is_not_the_demo_shows_no_letters(runner, instance, make_app):
    call(runner, "demo")
    (instance / "mailinglists.toml").write_text(f"{CATALOGUE}# ours\n")
    app = make_app()
    assert app.test_client().get("/demo/mail").status_code == 404


def test_settings_that_are_there_already_are_left_alone(runner, instance):
    (instance / "portal.toml").write_text('site_name = "Ours"\n')
    call(runner, "demo")
    assert (instance / "portal.toml").read_text() == 'site_name = "Ours"\n'


def test_the_members_of_the_demo_can_be_edited_and_imported(runner, instance, make_app):
    told = call(runner, "demo")
    assert f"are in {instance / 'members.csv'}: edit it" in told
    runner = make_app(for_a_command=True).test_cli_runner()
    assert call(runner, "user", "import") == "", "the accounts are as the file says"
    file = instance / "members.csv"
    edited = file.read_text().replace("1009,leo,leo@example.org,Leo,board\n", "1010,mia,mia@example.org,Mia,\n")
    file.write_text(edited.replace("1008,judy,judy@example.org", "1008,judy,j@example.org"))
    assert call(runner, "user", "import") == ""
    people = {row.split()[0]: row for row in call(runner, "user", "list").splitlines()}
    assert "j@example.org" in people["judy"]
    assert "mia@example.org" in people["mia"]
    assert "no" in people["leo"].split(), "who is not named any more is deactivated"
