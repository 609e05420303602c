"""Lists that apply changes at once: a save asks for a run, which the minute's cron carries out."""

from datetime import timedelta
from threading import Barrier, Thread

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.domain.run import RunState
from portal.extensions import Portal, db
from portal.models import Preference, Run
from portal.services.accounts import log as account_log
from portal.services.history import COMMAND_LINE
from portal.services.mail import links
from portal.services.preferences import by_link, on_behalf, preferences
from portal.services.preferences.on_behalf import BulkAction
from portal.services.reports import promptness
from portal.services.reports.subscribers import Filter
from portal.services.sync import runs
from portal.services.transaction import transaction
from tests.conftest import CATALOGUE, Clock, Rosters
from tests.factories import make_preference, make_user

ALICE = "alice@example.org"


class Office:
    def __init__(self, session: Session, app: Flask, rosters: Rosters, clock: Clock) -> None:
        self.session, self.rosters, self.clock = session, rosters, clock
        self.portal: Portal = app.extensions["portal"]
        self.configure('apply = "at once"')
        self.alice = make_user(session, "alice")

    def configure(self, settings: str) -> None:
        """Configure Members, and Tech, which waits for its cron."""
        text = CATALOGUE.replace("[lists.members]", f"[lists.members]\n{settings}")
        (self.rosters.folder.parent / "mailinglists.toml").write_text(text)
        self.portal.catalogue.cache_clear()

    def choose(self, *ticked: str, user_id: int | None = None, session: Session | None = None) -> bool:
        """Save a form that showed no tick; return whether it says that it is carried out within minutes."""
        choices = preferences.choose(
            session or self.session,
            user_id or self.alice,
            shown=dict.fromkeys(ticked, 0),
            ticked=ticked,
            catalogue=self.portal.catalogue(),
            now=self.clock(),
        )
        return all(each.is_soon for each in choices)

    def runs(self, *states: str) -> list[tuple[str, str, str]]:
        self.session.rollback()
        found = self.session.execute(select(Run.list_handle, Run.state, Run.asked_by).order_by(Run.id)).all()
        self.session.rollback()
        return [(handle, state, by) for handle, state, by in found if not states or state in states]

    def keep_run(self, *, minutes: float | None, state: str = "done") -> None:
        asked_at = self.clock() - timedelta(hours=1)
        ended = None if minutes is None else asked_at + timedelta(minutes=minutes)
        run = Run(list_handle="members", kind="sync", asked_by="a change", asked_at=asked_at, started_at=asked_at)
        run.state, run.finished_at = state, ended
        self.session.add(run)
        self.session.commit()


@pytest.fixture
def office(session: Session, app: Flask, rosters: Rosters, clock: Clock) -> Office:
    return Office(session, app, rosters, clock)


def test_a_save_asks_for_a_run_of_the_lists_it_changed_and_the_minutes_cron_carries_it_out(
    office: Office, runner: FlaskCliRunner
) -> None:
    office.choose("members", "tech")
    assert office.runs() == [("members", "asked", "a change")]
    result = runner.invoke(args=["minutely"])
    assert (result.exit_code, result.stderr) == (0, "")
    assert office.rosters.get("members") == {ALICE}
    assert office.rosters.get("tech") == set()
    office.choose("members")  # is so already
    assert office.runs() == [("members", "done", "a change")]


def test_many_saves_ask_for_one_run(office: Office, session: Session) -> None:
    for number in range(5):
        office.choose("members", user_id=make_user(session, f"user{number}"))
    assert office.runs() == [("members", "asked", "a change")]


def test_a_save_renews_a_run_that_has_waited_for_so_long_that_it_would_be_forgotten(
    office: Office, session: Session
) -> None:
    office.choose("members")
    office.clock.advance(days=91)
    office.choose("members", user_id=make_user(session, "bob"))
    assert [each.handle for each in runs.due(session, now=office.clock())] == ["members"]


def test_saves_at_the_same_time_ask_for_one_run(office: Office, app: Flask, session: Session) -> None:
    users, barrier, failed = [make_user(session, f"user{number}") for number in range(4)], Barrier(4), []

    def save(user_id: int) -> None:
        with app.app_context(), Session(db.engine) as own:
            barrier.wait()
            try:
                office.choose("members", user_id=user_id, session=own)
            except Exception as error:  # noqa: BLE001 - told below
                failed.append(error)

    threads = [Thread(target=save, args=(each,)) for each in users]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert failed == []
    assert office.runs() == [("members", "asked", "a change")]


@pytest.mark.parametrize("settings", ["", 'apply = "at once"\npaused = true'])
def test_no_run_is_asked_for_where_changes_wait_for_cron_or_the_list_is_paused(office: Office, settings: str) -> None:
    office.configure(settings)
    office.choose("members")
    assert office.runs() == []


def test_what_superusers_and_links_change_asks_too(office: Office, session: Session) -> None:
    catalogue = office.portal.catalogue()
    members = catalogue.get("members")
    by = {"actor": COMMAND_LINE, "now": office.clock()}

    def asked() -> bool:
        found = office.runs("asked")
        with session.begin():
            session.execute(delete(Run))
        return found == [("members", "asked", "a change")]

    preferences.choose_for(session, members, username="alice", is_subscribed=True, **by)
    assert asked()
    preferences.choose_for(session, members, username="alice", is_subscribed=True, **by)
    assert not asked(), "that is no change"
    look = on_behalf.preview(session, members, BulkAction.UNSUBSCRIBE, Filter(), now=office.clock())
    on_behalf.do(session, members, BulkAction.UNSUBSCRIBE, Filter(), preview_id=look.id, **by)
    assert asked()
    values = {"catalogue": catalogue, "as_of": account_log.last_change(session, office.alice), **by}
    preferences.choose_for(session, members, username="alice", is_subscribed=True, **by)
    assert asked()
    preferences.take_off_all(session, office.alice, reason="", **values)
    assert asked()
    dora = make_user(session, "dora", "dora@example.org", "home@example.org")
    make_preference(session, "members", "home@example.org", True)
    preferences.send_to_main(session, dora, catalogue=catalogue, **by)
    assert asked()
    on_behalf.take_off(session, members, "stranger@example.net", **by)
    assert asked()
    make_preference(session, "members", "gone@example.org", True, seen=True)
    with transaction(session):
        token = links.make(session, "leave", mailbox="gone@example.org", now=office.clock())
    by_link.leave(session, token, handles=["members"], catalogue=catalogue, now=office.clock())
    assert asked()


def test_a_list_manager_that_is_down_behaves_as_ever(office: Office, runner: FlaskCliRunner) -> None:
    (office.rosters.folder / "members.txt").unlink()
    office.choose("members")
    result = runner.invoke(args=["minutely"])
    assert result.exit_code == 69
    assert office.runs() == [("members", "failed", "a change")]
    assert runner.invoke(args=["minutely"]).exit_code == 0, "it does not try each minute"
    (office.rosters.folder / "members.txt").touch()
    assert runner.invoke(args=["mailinglist", "sync", "members"]).exit_code == 0
    assert office.rosters.get("members") == {ALICE}


def test_what_members_chose_is_carried_out_where_the_rest_waits_for_approval(
    office: Office, session: Session, runner: FlaskCliRunner
) -> None:
    office.configure('apply = "at once"\nsafety_limits = { removals = 0, removals_percent = 0 }')
    make_preference(session, "members", "gone@example.org", True, seen=True)
    make_preference(session, "members", "stays@example.org", True, seen=True)
    make_user(session, "stays")
    office.rosters.set("members", "gone@example.org", "stays@example.org")
    office.choose("members")
    assert runner.invoke(args=["minutely"]).exit_code == 77
    assert office.rosters.get("members") == {"gone@example.org", "stays@example.org", ALICE}
    assert office.runs() == [("members", "held", "a change")]


@pytest.mark.parametrize(
    ("minutes", "state", "is_soon"),
    [(1, "done", True), (4.9, "held", True), (6, "done", False), (1, "failed", False), (None, "asked", False)],
)
def test_a_save_says_within_minutes_as_the_runs_of_the_last_week_were(
    office: Office, minutes: float | None, state: str, is_soon: bool
) -> None:
    assert not office.choose("tech"), "it waits for cron"
    office.keep_run(minutes=minutes, state=state)
    assert office.choose("members") is is_soon


def test_runs_of_more_than_a_week_ago_say_nothing(office: Office, session: Session) -> None:
    office.keep_run(minutes=1)
    members = [office.portal.catalogue().get("members")]
    assert promptness.find(session, members, now=office.clock()) == {"members"}
    assert promptness.find(session, members, now=office.clock() + timedelta(days=8)) == frozenset()


def test_the_page_of_a_change_that_is_late_promises_no_minutes(office: Office, session: Session) -> None:
    office.keep_run(minutes=1)
    office.choose("members")
    catalogue = office.portal.catalogue()

    def offer() -> preferences.Offer:
        return preferences.page(session, office.alice, catalogue=catalogue, now=office.clock()).offers[0]

    assert offer().is_soon
    office.clock.advance(minutes=6)
    assert not offer().is_soon
    assert session.scalars(select(Preference)).one().subscribed
    assert RunState.ASKED in {state for _, state, _ in office.runs()}
