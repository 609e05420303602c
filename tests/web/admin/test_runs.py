"""Runs in the browser: what there was, what would be, and asking for it; the web pushes nothing itself."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from portal.models import Preference, Run, RunLine
from portal.services.sync import leases
from tests.conftest import Clock, Rosters
from tests.factories import make_preference, make_user
from tests.test_query_counts import traffic
from tests.web.admin.test_lists import make_run
from tests.web.conftest import Client, Page, Visitor

HOSTILE = "<script>alert(1)</script> '\"--> \x1b[31m \r\nX: y \u202e &amp;"


class Desk:
    """Bob at the browser, and the command that carries out what he asks for."""

    def __init__(self, bob: Visitor, runner: FlaskCliRunner, session: Session, rosters: Rosters) -> None:
        self.bob, self.runner, self.session, self.rosters = bob, runner, session, rosters

    def ask(self, kind: str, handle: str = "members", **form: str) -> str:
        """Press a button; return the path of the run."""
        response: Any = self.bob.post("/admin/runs", {"kind": kind, "handle": handle, **form}, page="/admin/runs")
        path: str = response.headers["Location"]
        return path

    def cron(self) -> int:
        return self.runner.invoke(args=["mailinglist", "sync", "--requested"]).exit_code

    def press_apply(self, path: str) -> str:
        """Press the button that applies the plan of a page, with what its form holds."""
        page = self.bob.get(path)
        return self.ask("sync", page.value("handle"), plan_id=page.value("plan_id"))

    def crowd(self, count: int = 40, *, unticked: int = 8) -> None:
        """Members on the list, some of whom have unticked it."""
        names = [f"user{number}" for number in range(10, 10 + count)]
        for name in names:
            make_user(self.session, name)
            make_preference(self.session, "members", f"{name}@example.org", True, seen=True)
        self.rosters.set("members", *(f"{name}@example.org" for name in names))
        self.untick(unticked)

    def untick(self, count: int) -> None:
        chosen = select(Preference.address_id).order_by(Preference.address_id).limit(count)
        self.session.execute(
            update(Preference)
            .where(Preference.address_id.in_(self.session.scalars(chosen).all()))
            .values(subscribed=False, source="superuser", touched=True, version=Preference.version + 1)
        )
        self.session.commit()


@pytest.fixture
def desk(bob: Visitor, runner: FlaskCliRunner, session: Session, rosters: Rosters) -> Desk:
    return Desk(bob, runner, session, rosters)


def state_of(page: Page) -> str:
    """Return what the note of a run's page is about."""
    return next((each["data-note"] or "" for _tag, each in page.tags if "data-note" in each), "")


def lines_of(page: Page) -> list[tuple[str | None, str | None]]:
    return [(each["data-action"], each["data-result"]) for _tag, each in page.tags if "data-action" in each]


def test_a_run_is_asked_for_carried_out_and_seen(desk: Desk) -> None:
    desk.crowd(unticked=2)
    path = desk.ask("sync")
    page = desk.bob.get(path)
    assert state_of(page) == "asked"
    assert "Requested by bob, 22 Nov, 06:00" in page.text
    assert len(desk.rosters.get("members")) == 40, "the web does nothing itself"
    assert desk.cron() == 0
    page = desk.bob.get(path)
    assert "2 removed" in page.text
    assert "Run 1 of Members" in page.text
    assert "user10@example.org Done Take off the list chosen here" in page.text
    assert "Duration less than a second" in page.text
    assert "Requested by bob, 22 Nov, 06:00" in page.text


def test_a_plan_is_shown_applied_and_seen(desk: Desk) -> None:
    desk.crowd(unticked=2)
    shown = desk.ask("show")
    desk.cron()
    page = desk.bob.get(shown)
    assert "A run would make 2 changes" in page.text
    assert "2 addresses will be taken off the list and will get no more mail from it." in page.text
    assert page.text.index("taken off the list") < page.text.index("Apply these 2 changes") < page.text.index("user10@")
    assert len(desk.rosters.get("members")) == 40
    applied = desk.press_apply(shown)
    desk.cron()
    assert "2 removed" in desk.bob.get(applied).text
    assert len(desk.rosters.get("members")) == 38
    assert "Apply these" not in desk.bob.get(shown).text, "a newer run has begun since"


def test_a_plan_that_changed_meanwhile_is_shown_again_and_not_applied(desk: Desk) -> None:
    desk.crowd(unticked=2)
    shown = desk.ask("show")
    desk.cron()
    desk.untick(3)
    applied = desk.press_apply(shown)
    assert desk.cron() == 77
    page = desk.bob.get(applied)
    assert state_of(page) == "changed"
    assert "Apply these 3 changes" in page.text
    assert len(desk.rosters.get("members")) == 40
    desk.press_apply(applied)
    assert desk.cron() == 0
    assert len(desk.rosters.get("members")) == 37


def test_past_the_safety_limits_what_is_dangerous_is_said_before_the_one_button(desk: Desk) -> None:
    desk.crowd()
    path = desk.ask("sync")
    assert desk.cron() == 77
    page = desk.bob.get(path)
    assert (state_of(page), lines_of(page)) == ("held", [("remove", "waits")] * 8)
    assert "user17@example.org Needs approval Take off the list chosen here" in page.text
    assert page.text.index("8 addresses will be taken off the list") < page.text.index("Apply these 8 changes")
    assert "Check the planned changes. If they are right, approve them with the button below." in page.text
    assert len(desk.rosters.get("members")) == 40
    applied = desk.press_apply(path)
    assert desk.cron() == 0
    assert "8 removed" in desk.bob.get(applied).text
    assert len(desk.rosters.get("members")) == 32
    assert "A newer run of this list has started since then." in desk.bob.get(path).text
    assert "Apply these" not in desk.bob.get(path).text


def test_a_shown_plan_past_the_safety_limits_says_so_first(desk: Desk) -> None:
    desk.crowd()
    path = desk.ask("show")
    desk.cron()
    text = desk.bob.get(path).text
    assert "exceeds the safety limits: it removes 8 of 40 addresses, or records" in text
    assert text.index("safety limits") < text.index("Apply these 8 changes")


def test_an_empty_list_that_should_not_be_empty_is_said_first(desk: Desk) -> None:
    desk.crowd(3, unticked=0)
    desk.rosters.set("members")
    path = desk.ask("show")
    desk.cron()
    page = desk.bob.get(path)
    assert "the roster is empty" in page.text
    assert page.text.index("the roster is empty") < page.text.index("Apply these 3 changes")


def test_a_list_that_is_up_to_date_is_said_to_be_so_and_there_is_nothing_to_apply(desk: Desk) -> None:
    path = desk.ask("show", "tech")
    desk.cron()
    page = desk.bob.get(path)
    assert state_of(page) == "up-to-date"
    assert "Apply" not in page.text


def test_when_no_process_picks_a_run_up_the_page_says_what_to_do(desk: Desk, clock: Clock) -> None:
    path = desk.ask("sync")
    clock.advance(minutes=5)
    assert state_of(desk.bob.get(path)) == "asked"
    clock.advance(minutes=1)
    page = desk.bob.get(path)
    assert state_of(page) == "overdue"
    assert "* * * * * flask minutely" in page.text
    assert "Not picked up" in desk.bob.get("/admin/runs").text


@pytest.mark.parametrize(
    ("state", "note", "has_ended"),
    [
        ("taken", "running", False),
        ("dropped", "dropped", True),
        ("failed", "failed", True),
        ("unfinished", "unfinished", True),
    ],
)
def test_every_state_has_its_words(
    desk: Desk, session: Session, clock: Clock, state: str, note: str, has_ended: bool
) -> None:
    path = desk.ask("sync")
    ended = clock() if has_ended else None
    session.execute(update(Run).values(state=state, started_at=clock(), finished_at=ended, message=HOSTILE))
    session.commit()
    page = desk.bob.get(path)
    assert state_of(page) == note
    assert ("Sync now" in page.text) is has_ended
    assert page.response.headers.get("Refresh") == (None if has_ended else "10")
    assert "Refresh" not in desk.bob.get(f"{path}?refresh=no").response.headers


def test_a_list_that_another_run_holds_is_said_to_be_held(desk: Desk, session: Session) -> None:
    path = desk.ask("sync")
    session.execute(update(Run).values(message="members is held by process 7 on lists.example.org"))
    session.commit()
    text = desk.bob.get(path).text
    assert "Another run holds the list. This run is tried again every minute." in text
    assert "process 7 on lists.example.org" in text


def test_a_run_is_in_progress_as_long_as_it_holds_the_list(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "members", "open", finished_at=None)
    assert state_of(bob.get("/admin/runs/1")) == "interrupted"
    leases.acquire(session, "members", outlives_process=True)
    assert state_of(bob.get("/admin/runs/1")) == "running"


def test_asking_for_the_same_twice_leads_to_one_run(desk: Desk) -> None:
    assert desk.ask("sync") == desk.ask("sync")
    assert desk.ask("show") != desk.ask("sync")


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"handle": "members"},
        {"handle": "members", "kind": "rm"},
        {"handle": "../x", "kind": "sync"},
        {"handle": "members\0", "kind": "sync"},
        {"handle": "members", "kind": "planned"},
        {"handle": "members", "kind": "sync", "plan_id": "0123"},
        {"handle": "members", "kind": "sync", "plan_id": "x" * 1000},
        {"handle": "members", "kind": "sync", "plan_id": "0123456789abcdef\0"},
        {"handle": "members", "kind": "sync", "plan_id": "0123456789ABCDEF"},
        {"handle": "members", "kind": "show", "plan_id": "0123456789abcdef"},
    ],
)
def test_what_makes_no_sense_is_a_400(desk: Desk, session: Session, form: dict[str, str]) -> None:
    desk.bob.post("/admin/runs", form, page="/admin/runs", status=400)
    assert session.scalar(select(Run.id)) is None


def test_a_list_that_is_not_in_the_catalogue_cannot_be_asked_about(desk: Desk, session: Session) -> None:
    desk.bob.post("/admin/runs", {"handle": "gone", "kind": "sync"}, page="/admin/runs", status=404)
    assert session.scalar(select(Run.id)) is None


def test_asking_needs_the_token_of_a_page(desk: Desk, session: Session) -> None:
    response = desk.bob.client.post("/admin/runs", data={"handle": "members", "kind": "sync"})
    assert response.status_code == 400
    assert session.scalar(select(Run.id)) is None


def test_members_cannot_ask(alice: Visitor, session: Session) -> None:
    form = {"handle": "members", "kind": "sync"}
    alice.post("/admin/runs", form, page="/account", status=403)
    assert session.scalar(select(Run.id)) is None


def test_looking_asks_for_nothing(desk: Desk, session: Session) -> None:
    desk.crowd()
    desk.ask("sync")
    desk.cron()
    for path in ("/admin/runs", "/admin/runs/1"):
        desk.bob.get(path)
        assert desk.bob.client.head(path).status_code == 200
    assert session.scalars(select(Run.id)).all() == [1]


@pytest.mark.parametrize("number", ["1", "99999999999999999999"])
def test_what_is_not_there_is_a_404(bob: Visitor, number: str) -> None:
    bob.get(f"/admin/runs/{number}", 404)


@pytest.mark.parametrize("query", ["action=rm", "result=x", "page=0", "page=x", "page=99999999999999999999"])
def test_a_filter_that_means_nothing_is_a_400(bob: Visitor, session: Session, clock: Clock, query: str) -> None:
    make_run(session, clock, "members")
    bob.get(f"/admin/runs/1?{query}", 400)


def make_lines(session: Session, run_id: int, count: int, **columns: object) -> None:
    values = {
        "run_id": run_id, "list_handle": "members", "action": "add", "reason": "chosen", "held": False, "version": 0,
        "result": "done", "words": "", "settled": True, **columns,
    }  # fmt: skip
    names = [f"user{number:05}@example.org" for number in range(count)]
    rows = [{**values, "address_id": 10_000 - i, "address": name, "spelling": name} for i, name in enumerate(names)]
    session.execute(insert(RunLine), rows)
    session.commit()


@pytest.mark.slow
def test_10_000_lines_are_paged_with_as_many_queries_as_one(
    app: Flask, bob: Visitor, session: Session, clock: Clock
) -> None:
    make_run(session, clock, "members", added=1)
    make_run(session, clock, "members", added=10_000)
    make_lines(session, 1, 1)
    make_lines(session, 2, 10_000)
    with app.app_context():
        with traffic() as of_one:
            bob.get("/admin/runs/1")
        with traffic() as of_many:
            page = bob.get("/admin/runs/2")
    assert len(of_many.statements) == len(of_one.statements) <= 6, of_many.statements
    assert "1 to 100 of 10,000 lines" in page.text
    for number in range(3):
        assert page.text.count("@example.org") == 100
        assert f"user{number:03}00@example.org" in page.text
        assert f"user{number:03}99@example.org" in page.text
        page = bob.get(f"/admin/runs/2?page={number + 2}")
    assert "Page 1" in page.text


@pytest.mark.slow
def test_10_000_lines_of_a_plan_are_paged_too(app: Flask, desk: Desk, session: Session, clock: Clock) -> None:
    path = desk.ask("show")
    columns = {"plan_id": "0" * 16, "on_roster": 5, "without_account": 1, "state": "shown", "finished_at": clock()}
    session.execute(update(Run).values(**columns))
    make_lines(session, 1, 10_000, result=None)
    with app.app_context(), traffic() as seen:
        page = desk.bob.get(path)
    assert len(seen.statements) <= 6, seen.statements
    assert "Apply these 10,000 changes" in page.text
    assert len(lines_of(page)) == 100
    page = desk.bob.get(f"{path}?page=100")
    assert "user09999@example.org" in page.text
    assert "Next" not in page.text


def test_lines_are_filtered_in_the_url(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "members")
    make_lines(session, 1, 150)
    session.execute(update(RunLine).where(RunLine.address_id > 9_970).values(action="remove", result="rejected"))
    session.commit()
    page = bob.get("/admin/runs/1?action=remove&result=rejected")
    assert "1 to 30 of 30 lines" in page.text
    assert page.text.count("@example.org") == 30
    assert "No matching lines." in bob.get("/admin/runs/1?action=left").text
    page = bob.get("/admin/runs/1?action=add")
    following = next(each["href"] or "" for tag, each in page.tags if "page=2" in (each.get("href") or ""))
    assert "action=add" in following
    assert bob.get(following).text.count("@example.org") == 20


def test_hostile_words_are_only_words(bob: Visitor, session: Session, clock: Clock) -> None:
    for result in ("held", "failed", "unfinished", "open", "done"):
        make_run(
            session, clock, "members", result, message=HOSTILE, asked_by=HOSTILE[:80], host=HOSTILE[:80],
            plan_id="0" * 16, on_roster=3, without_account=1,
        )  # fmt: skip
        make_lines(session, 1 if result == "held" else 5, 2, words=HOSTILE) if result in {"held", "done"} else 0
    for path in ("/admin/runs", *(f"/admin/runs/{number}" for number in range(1, 6))):
        page = bob.get(path)
        assert "&lt;script&gt;alert(1)" in page.html
        assert not any(letter in page.html for letter in "\x1b\u202e")


def test_a_run_without_an_end_says_so(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "members", "open", finished_at=None)
    leases.acquire(session, "members", outlives_process=True)
    assert "Duration still running" in bob.get("/admin/runs/1").text
    make_run(session, clock, "members", "unfinished", finished_at=None)
    page = bob.get("/admin/runs/2")
    assert state_of(page) == "unfinished"
    assert "Duration not known" in page.text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "less than a second"), (1, "1 second"), (125, "2 minutes 5 seconds"), (7260, "2 hours 1 minute")],
)
def test_a_duration_is_shown_by_its_two_largest_units(
    bob: Visitor, session: Session, clock: Clock, seconds: float, words: str
) -> None:
    make_run(session, clock, "members", finished_at=clock.now - timedelta(hours=1) + timedelta(seconds=seconds))
    assert f"Duration {words}" in bob.get("/admin/runs/1").text


def test_runs_can_be_read_where_lists_are_off_and_nothing_can_be_asked_for(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int], session: Session, clock: Clock
) -> None:
    make_run(session, clock, "members", "held", plan_id="0" * 16)
    (instance / "mailinglists.toml").write_text("enabled = false\n")
    app = make_app()
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    for path in ("/admin/runs", "/admin/runs/1"):
        page = bob.get(path)
        assert "Sync now" not in page.text
        assert "Apply" not in page.text
    bob.post("/admin/runs", {"handle": "members", "kind": "sync"}, page="/account", status=503)


@pytest.mark.slow
def test_runs_that_were_asked_for_are_listed_newest_first_and_by_list(desk: Desk, session: Session) -> None:
    for number in range(60):
        desk.ask("show" if number % 2 else "sync", "tech" if number % 3 else "members")
        session.execute(update(Run).values(slot=None, state="taken", asked_by=f"bob{number}"))
        session.commit()

    def numbers(page: Page) -> list[int]:
        return [int(each["data-run"] or 0) for _tag, each in page.tags if "data-run" in each]

    page = desk.bob.get("/admin/runs")
    assert numbers(page) == list(range(60, 10, -1))
    assert numbers(desk.bob.get("/admin/runs?page=2")) == list(range(10, 0, -1))
    assert len(numbers(desk.bob.get("/admin/runs?handle=members"))) == 20


def test_an_empty_list_is_believed_in_the_browser_by_its_plan(desk: Desk) -> None:
    desk.crowd(unticked=0)
    desk.rosters.set("members")
    path = desk.ask("sync")
    assert desk.cron() == 77
    page = desk.bob.get(path)
    assert state_of(page) == "held"
    assert "40 addresses were on the list at the last run, but the roster is empty" in page.text
    applied = desk.press_apply(path)
    assert desk.cron() == 0
    assert "40 left at the list" in desk.bob.get(applied).text
