"""Runs and requests in the browser: what there was, what would be, and asking for it; the web pushes nothing itself."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from portal.models import Address, Preference, RequestLine, RunLine, RunRequest
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
        """Press a button; return the path of the request."""
        response: Any = self.bob.post(
            "/admin/requests", {"kind": kind, "handle": handle, **form}, page="/admin/requests"
        )
        path: str = response.headers["Location"]
        return path

    def cron(self) -> int:
        return self.runner.invoke(args=["mailinglist", "sync", "--requested"]).exit_code

    def press_apply(self, path: str) -> str:
        """Press the button that applies the plan of a page, with what its form holds."""
        page = self.bob.get(path)
        return self.ask("apply", page.value("handle"), plan_id=page.value("plan_id"))

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
            .values(subscribed=False, touched=True, version=Preference.version + 1)
        )
        self.session.commit()


@pytest.fixture
def desk(bob: Visitor, runner: FlaskCliRunner, session: Session, rosters: Rosters) -> Desk:
    return Desk(bob, runner, session, rosters)


def path_of_run(page: Page) -> str:
    return next(
        each["href"] or "" for tag, each in page.tags if tag == "a" and "/admin/runs/" in (each.get("href") or "")
    )


def test_a_run_is_asked_for_carried_out_and_seen(desk: Desk) -> None:
    desk.crowd(unticked=2)
    path = desk.ask("sync")
    page = desk.bob.get(path)
    assert "Members: sync" in page.text
    assert "Asked for by bob, 22 Nov, 06:00" in page.text
    assert "carried out within a minute" in page.text
    assert len(desk.rosters.get("members")) == 40, "the web does nothing itself"
    assert desk.cron() == 0
    page = desk.bob.get(path)
    assert "2 removed" in page.text
    page = desk.bob.get(path_of_run(page))
    assert "Run 1 of Members" in page.text
    assert "user10@example.org Take off the list it was chosen here Done" in page.text
    assert "Took less than a second" in page.text
    assert 'href="/admin/requests/1">Request 1, which it carried out</a>' in page.html
    assert "Asked for by request 1 of bob" in page.text


def test_a_plan_is_shown_applied_and_seen(desk: Desk) -> None:
    desk.crowd(unticked=2)
    shown = desk.ask("show")
    desk.cron()
    page = desk.bob.get(shown)
    assert "A run would make 2 changes" in page.text
    assert "2 addresses are taken off the list and get no more of its mail." in page.text
    assert page.text.index("taken off the list") < page.text.index("Apply these 2 changes") < page.text.index("user10@")
    assert len(desk.rosters.get("members")) == 40
    applied = desk.press_apply(shown)
    desk.cron()
    assert "2 removed" in desk.bob.get(applied).text
    assert len(desk.rosters.get("members")) == 38


def test_a_plan_that_changed_meanwhile_is_shown_again_and_not_applied(desk: Desk) -> None:
    desk.crowd(unticked=2)
    shown = desk.ask("show")
    desk.cron()
    desk.untick(3)
    applied = desk.press_apply(shown)
    assert desk.cron() == 77
    page = desk.bob.get(applied)
    assert "The plan has changed since it was shown, so nothing was done." in page.text
    assert "Apply these 3 changes" in page.text
    assert len(desk.rosters.get("members")) == 40
    desk.press_apply(applied)
    assert desk.cron() == 0
    assert len(desk.rosters.get("members")) == 37


def test_past_the_brake_what_is_dangerous_is_said_before_the_one_button(desk: Desk) -> None:
    desk.crowd()
    path = desk.ask("sync")
    assert desk.cron() == 77
    page = desk.bob.get(path)
    assert "Nothing was done: the run was refused and needs a yes." in page.text
    run = path_of_run(page)
    page = desk.bob.get(run)
    assert "What it would have done" in page.text
    assert "user17@example.org Take off the list it was chosen here Not done" in page.text
    page = desk.bob.get(f"{run}/apply")
    assert "8 addresses are taken off the list" in page.text
    assert page.text.index("user10@example.org") < page.text.index("Apply these 8 changes")
    assert len(desk.rosters.get("members")) == 40
    applied = desk.press_apply(f"{run}/apply")
    assert desk.cron() == 0
    assert "8 removed" in desk.bob.get(applied).text
    assert len(desk.rosters.get("members")) == 32
    assert "There was a newer run since." in desk.bob.get(run).text
    assert desk.bob.client.get(f"{run}/apply").status_code == 302


def test_a_shown_plan_past_the_brake_says_so_first(desk: Desk) -> None:
    desk.crowd()
    path = desk.ask("show")
    desk.cron()
    text = desk.bob.get(path).text
    assert "exceeds the safety limits: it takes 8 of 40 addresses off the list" in text
    assert text.index("safety limits") < text.index("Apply these 8 changes")


def test_an_empty_list_that_should_not_be_empty_is_said_first(desk: Desk) -> None:
    desk.crowd(3, unticked=0)
    desk.rosters.set("members")
    path = desk.ask("show")
    desk.cron()
    assert "The list is empty although 3 addresses should be on it." in desk.bob.get(path).text


def test_a_list_in_step_is_said_to_be_so_and_there_is_nothing_to_apply(desk: Desk) -> None:
    path = desk.ask("show", "tech")
    desk.cron()
    page = desk.bob.get(path)
    assert "There is nothing to do: the list is in step." in page.text
    assert "Apply" not in page.text


def test_when_nobody_carries_requests_out_the_page_says_what_to_do(desk: Desk, clock: Clock) -> None:
    path = desk.ask("sync")
    clock.advance(minutes=5)
    assert "Nobody carries requests out" not in desk.bob.get(path).text
    clock.advance(minutes=1)
    page = desk.bob.get(path)
    assert "Nobody carries requests out." in page.text
    assert "* * * * * flask mailinglist sync --requested" in page.text
    assert "Nobody takes it" in desk.bob.get("/admin/requests").text


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("taken", "It has been at work since 22 Nov, 06:00 ."),
        ("failed", "It failed. Nothing was done. Put right what is wrong, and ask again."),
        ("unfinished", "It was cut short."),
    ],
)
def test_every_state_has_its_words(desk: Desk, session: Session, clock: Clock, state: str, words: str) -> None:
    path = desk.ask("sync")
    ended = None if state == "taken" else clock()
    session.execute(update(RunRequest).values(state=state, taken_at=clock(), finished_at=ended, message=HOSTILE))
    session.commit()
    page = desk.bob.get(path)
    assert words in page.text
    assert ("What next?" in page.text) is (state != "taken")


def test_a_list_that_another_run_holds_is_said_to_be_held(desk: Desk, session: Session) -> None:
    path = desk.ask("sync")
    session.execute(update(RunRequest).values(message="members is held by process 7 on lists.example.org"))
    session.commit()
    text = desk.bob.get(path).text
    assert "Another run holds the list. This one is tried again each minute." in text
    assert "process 7 on lists.example.org" in text


def test_asking_for_the_same_twice_leads_to_one_request(desk: Desk) -> None:
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
        {"handle": "members", "kind": "apply"},
        {"handle": "members", "kind": "apply", "plan_id": "0123"},
        {"handle": "members", "kind": "apply", "plan_id": " " * 1000},
        {"handle": "members", "kind": "apply", "plan_id": "0123456789abcdef\0"},
        {"handle": "members", "kind": "apply", "plan_id": "0123456789ABCDEF"},
        {"handle": "members", "kind": "sync", "plan_id": "0123456789abcdef"},
    ],
)
def test_what_makes_no_sense_is_a_400(desk: Desk, session: Session, form: dict[str, str]) -> None:
    desk.bob.post("/admin/requests", form, page="/admin/requests", status=400)
    assert session.scalar(select(RunRequest.id)) is None


def test_a_list_that_is_not_in_the_catalogue_cannot_be_asked_about(desk: Desk, session: Session) -> None:
    desk.bob.post("/admin/requests", {"handle": "gone", "kind": "sync"}, page="/admin/requests", status=404)
    assert session.scalar(select(RunRequest.id)) is None


def test_a_request_needs_the_token_of_a_page(desk: Desk, session: Session) -> None:
    response = desk.bob.client.post("/admin/requests", data={"handle": "members", "kind": "sync"})
    assert response.status_code == 400
    assert session.scalar(select(RunRequest.id)) is None


def test_members_cannot_ask(alice: Visitor, session: Session) -> None:
    form = {"handle": "members", "kind": "sync"}
    alice.post("/admin/requests", form, page="/account", status=403)
    assert session.scalar(select(RunRequest.id)) is None


def test_looking_asks_for_nothing(desk: Desk, session: Session) -> None:
    desk.crowd()
    desk.ask("sync")
    desk.cron()
    for path in ("/admin/runs", "/admin/runs/1", "/admin/runs/1/apply", "/admin/requests", "/admin/requests/1"):
        desk.bob.get(path)
        assert desk.bob.client.head(path).status_code == 200
    assert session.scalars(select(RunRequest.id)).all() == [1]


@pytest.mark.parametrize("path", ["/admin/runs/1", "/admin/runs/1/apply", "/admin/requests/1"])
def test_what_is_not_there_is_a_404(bob: Visitor, path: str) -> None:
    bob.get(path, 404)
    bob.get(path.replace("1", "99999999999999999999"), 404)


@pytest.mark.parametrize("query", ["action=rm", "result=x", "after=0", "after=x", "after=99999999999999999999"])
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
    assert "10,000 of 10,000 lines" in page.text
    for number in range(3):
        assert page.text.count("@example.org") == 100
        assert f"user{number:03}00@example.org" in page.text
        assert f"user{number:03}99@example.org" in page.text
        page = bob.get(next(each["href"] or "" for tag, each in page.tags if "after=" in (each.get("href") or "")))
    assert "First page" in page.text


@pytest.mark.slow
def test_10_000_lines_of_a_plan_are_paged_too(app: Flask, desk: Desk, session: Session, clock: Clock) -> None:
    path = desk.ask("show")
    counts = {"found_plan_id": "0" * 16, "adds": 10_000, "on_roster": 5, "without_account": 1, "state": "done"}
    session.execute(update(RunRequest).values(finished_at=clock(), **counts))
    names = [f"user{number:05}@example.org" for number in range(10_000)]
    session.execute(
        insert(Address),
        [{"id": 100 + i, "canonical": name, "spelling": name, "erase": False} for i, name in enumerate(names)],
    )
    session.execute(
        insert(RequestLine),
        [
            {"request_id": 1, "position": i + 1, "address_id": 100 + i, "action": "add", "reason": "chosen", "held": False}
            for i in range(10_000)
        ],
    )  # fmt: skip
    session.commit()
    with app.app_context(), traffic() as seen:
        page = desk.bob.get(path)
    assert len(seen.statements) <= 5, seen.statements
    assert "Apply these 10,000 changes" in page.text
    assert page.text.count("@example.org") == 100
    page = desk.bob.get(f"{path}?after=9900")
    assert "user09999@example.org" in page.text
    assert "Next page" not in page.text


def test_lines_are_filtered_in_the_url(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "members")
    make_lines(session, 1, 150)
    session.execute(update(RunLine).where(RunLine.address_id > 9_970).values(action="remove", result="rejected"))
    session.commit()
    page = bob.get("/admin/runs/1?action=remove&result=rejected")
    assert "30 of 150 lines" in page.text
    assert page.text.count("@example.org") == 30
    assert "No line is like that." in bob.get("/admin/runs/1?action=left").text
    page = bob.get("/admin/runs/1?action=add")
    following = next(each["href"] or "" for tag, each in page.tags if "after=" in (each.get("href") or ""))
    assert "action=add" in following
    assert bob.get(following).text.count("@example.org") == 20


def test_hostile_words_are_only_words(bob: Visitor, session: Session, clock: Clock) -> None:
    for result in ("refused", "failed", "unfinished", "open", "done"):
        make_run(
            session, clock, "members", result, message=HOSTILE, trigger=HOSTILE[:80], host=HOSTILE[:80],
            plan_id="0" * 16, on_roster=3, without_account=1,
        )  # fmt: skip
        make_lines(session, 1 if result == "refused" else 5, 2, words=HOSTILE) if result in {"refused", "done"} else 0
    for path in ("/admin/runs", *(f"/admin/runs/{number}" for number in range(1, 6))):
        page = bob.get(path)
        assert "&lt;script&gt;alert(1)" in page.html
        assert not any(letter in page.html for letter in "\x1b\u202e")


def test_a_run_without_an_end_says_so(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "members", "open", finished_at=None)
    assert "still at work" in bob.get("/admin/runs/1").text
    make_run(session, clock, "members", "unfinished", finished_at=None)
    text = bob.get("/admin/runs/2").text
    assert "The run was cut short. The next one does what is left to do." in text
    assert "not known" in text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "less than a second"), (1, "1 second"), (125, "2 minutes 5 seconds"), (7260, "2 hours 1 minute")],
)
def test_a_duration_is_told_by_its_two_largest_units(
    bob: Visitor, session: Session, clock: Clock, seconds: float, words: str
) -> None:
    make_run(session, clock, "members", finished_at=clock.now - timedelta(hours=1) + timedelta(seconds=seconds))
    assert f"Took {words}" in bob.get("/admin/runs/1").text


def test_runs_can_be_read_where_lists_are_off_and_nothing_can_be_asked_for(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int], session: Session, clock: Clock
) -> None:
    make_run(session, clock, "members", "refused", plan_id="0" * 16)
    (instance / "mailinglists.toml").write_text("enabled = false\n")
    app = make_app()
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    for path in ("/admin/runs", "/admin/runs/1", "/admin/requests"):
        page = bob.get(path)
        assert "Sync now" not in page.text
        assert "Apply" not in page.text
    assert bob.client.get("/admin/runs/1/apply").status_code == 302
    bob.post("/admin/requests", {"handle": "members", "kind": "sync"}, page="/account", status=503)


def test_requests_are_listed_newest_first_and_by_list(desk: Desk, session: Session) -> None:
    for number in range(60):
        desk.ask("show" if number % 2 else "sync", "tech" if number % 3 else "members")
        session.execute(update(RunRequest).values(slot=None, state="taken", asked_by=f"bob{number}"))
        session.commit()
    page = desk.bob.get("/admin/requests")
    assert page.text.count("At work") == 50
    assert "Older requests" in page.text
    older = next(each["href"] or "" for tag, each in page.tags if "before=" in (each.get("href") or ""))
    assert desk.bob.get(older).text.count("At work") == 10
    assert desk.bob.get("/admin/requests?handle=members").text.count("At work") == 20
    desk.bob.get("/admin/requests?handle=%00", 400)


def test_an_empty_list_is_believed_in_the_browser_by_its_plan(desk: Desk) -> None:
    desk.crowd(unticked=0)
    desk.rosters.set("members")
    path = desk.ask("sync")
    assert desk.cron() == 69
    page = desk.bob.get(path)
    assert "If the list really is empty" in page.text
    assert "Nothing was done: the list is empty, and should not be." in desk.bob.get(path_of_run(page)).text
    shown = desk.ask("show")
    desk.cron()
    page = desk.bob.get(shown)
    assert "The list is empty although 40 addresses should be on it." in page.text
    answer = desk.bob.client.post(
        "/admin/requests",
        data={name: page.value(name) for name in ("csrf_token", "handle", "plan_id")} | {"kind": "apply"},
    )
    assert desk.cron() == 0
    assert "40 left at the list" in desk.bob.get(answer.headers["Location"]).text
