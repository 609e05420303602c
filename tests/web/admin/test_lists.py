"""What superusers see: what is wrong, the lists in numbers, the runs."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.models import Run, UserGroup
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.web.conftest import Client, Visitor


def make_run(
    session: Session, clock: Clock, handle: str, result: str = "done", *, hours: float = 1, **columns: object
) -> None:
    """Make a run that was some hours ago."""
    at = clock.now - timedelta(hours=hours)
    values = {"kind": "sync", "asked_by": "command line", "host": "lists.example.org", "finished_at": at, **columns}
    session.add(Run(list_handle=handle, started_at=at, state=result, **values))
    session.commit()


def test_lists_are_shown_in_numbers(bob: Visitor, session: Session, clock: Clock) -> None:
    make_preference(session, "members", "alice@example.org", True, seen=True)
    for handle in ("members", "tech", "board"):
        make_run(session, clock, handle, on_roster=7, without_account=6)
    page = bob.get("/admin/")
    assert "All lists are up to date." in page.text
    assert 'data-label="Subscribed" class="n">1</td>' in page.html
    assert 'data-label="No account" class="n">6</td>' in page.html
    assert "Members Up to date 1 0 1 0 0 6 22 Nov, 05:00" in page.text


def test_no_list_is_up_to_date_while_something_is_refused_or_under_way(
    bob: Visitor, session: Session, clock: Clock
) -> None:
    for handle in ("members", "tech", "board"):
        make_run(session, clock, handle)
    assert 'data-note="up-to-date"' in bob.get("/admin/").html
    values = {"refusal": "Banned address", "refused_at": clock.now}
    make_preference(session, "members", "alice@example.org", True, seen=False, **values)
    page = bob.get("/admin/")
    assert 'data-note="up-to-date"' not in page.html
    assert "Members : the list refused 1 address." in page.text


def test_a_list_that_never_ran_is_said_to_be_so(bob: Visitor) -> None:
    assert "No run yet" in bob.get("/admin/").text


def test_a_list_whose_last_good_run_is_too_old_is_red(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "tech", hours=13)
    assert '<span class="state bad">Overdue</span>' in bob.get("/admin/").html


def test_what_is_wrong_stands_first(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "tech", hours=30)
    make_run(session, clock, "tech", "failed", message="mailman: connection refused")
    page = bob.get("/admin/")
    assert "Tech : the run of 22 Nov, 05:00 failed. The last good run was on 21 Nov, 00:00 ." in page.text
    assert page.text.index("mailman: connection refused") < page.text.index("Not subscribed")
    assert "All lists are up to date." not in page.text


def test_what_waits_for_approval_comes_before_what_failed_and_leads_to_its_run(
    bob: Visitor, session: Session, clock: Clock
) -> None:
    make_run(session, clock, "members", "failed")
    make_run(session, clock, "tech", "held")
    make_run(session, clock, "board", hours=30)
    page = bob.get("/admin/")
    assert "3 things need attention" in page.text
    assert "Board : no good run since 21 Nov, 00:00 ." in page.text
    reviewed = [each["href"] for _tag, each in page.tags if each.get("class") == "button primary"]
    (held,) = session.scalars(select(Run.id).where(Run.state == "held"))
    assert reviewed == [f"/admin/runs/{held}"]
    assert page.text.index("Needs approval Tech") < page.text.index("Failed Members")


def test_a_change_that_is_late_needs_attention(bob: Visitor, session: Session, clock: Clock) -> None:
    for handle in ("members", "tech", "board"):
        make_run(session, clock, handle)
    make_preference(session, "tech", "alice@example.org", True, changed_at=clock.now - timedelta(hours=13))
    assert "Delayed Tech : a change was due by 22 Nov, 05:00 ." in bob.get("/admin/").text


def test_a_run_that_needs_approval_shows_why_without_the_advice_for_commands(
    bob: Visitor, session: Session, clock: Clock
) -> None:
    make_run(session, clock, "tech", hours=2)
    make_run(
        session,
        clock,
        "tech",
        "held",
        message="tech: it removes 8 of 40 addresses; if this is intended, run again with: --accept 0123456789abcdef",
        plan_id="0123456789abcdef",
    )
    for path in ("/admin/", "/admin/runs", "/admin/runs/2"):
        text = bob.get(path).text
        assert "t removes 8 of 40 addresses" in text
        assert "if this is intended" not in text
        assert "Needs approval" in text


def test_runs_are_shown_newest_first_and_lead_to_older_ones(bob: Visitor, session: Session, clock: Clock) -> None:
    for number in range(60):
        make_run(session, clock, "tech" if number % 2 else "members", hours=60 - number, added=number)
    page = bob.get("/admin/runs")
    assert page.text.index("59 added") < page.text.index("58 added") < page.text.index("10 added")
    assert "1 to 50 of 60" in page.text
    assert "/admin/runs?page=2" in {each.get("href") for _tag, each in page.tags}
    page = bob.get("/admin/runs?page=2")
    assert "51 to 60 of 60" in page.text
    assert "9 added" in page.text
    assert "1 to 30 of 30" in bob.get("/admin/runs?handle=tech").text


def test_runs_of_one_list_are_shown_alone(bob: Visitor, session: Session, clock: Clock) -> None:
    make_run(session, clock, "tech", removed=3)
    make_run(session, clock, "members", added=4)
    text = bob.get("/admin/runs?handle=tech").text
    assert "3 removed" in text
    assert "4 added" not in text


@pytest.mark.parametrize("query", ["handle=no-such-list", "page=2", ""])
def test_no_runs_are_said_to_be_none(bob: Visitor, query: str) -> None:
    page = bob.get(f"/admin/runs?{query}")
    assert "There are no runs yet." in page.text or "There is no such page." in page.text


@pytest.mark.parametrize(
    "query", ["page=x", "page=0", "page=1001", "page=99999999999999999999", "handle=../x", "handle=%00"]
)
def test_a_query_that_means_nothing_is_a_400(bob: Visitor, query: str) -> None:
    bob.get(f"/admin/runs?{query}", 400)


def test_a_facility_that_is_off_is_said_to_be_off(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    (instance / "mailinglists.toml").unlink()
    app = make_app()
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    assert "Mailing lists are not enabled" in bob.get("/admin/").text


def test_a_superuser_is_told_what_is_wrong_with_the_catalogue(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    (instance / "mailinglists.toml").write_text("enabled = true\nnonsense = 1\n")
    app = make_app()
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    assert "nonsense" in bob.get("/admin/", 503).text


def test_audiences_that_nobody_is_in_and_groups_spelled_otherwise_are_named_first(
    bob: Visitor, session: Session
) -> None:
    make_user(session, "frank", groups=("Bo ard",), is_active=False)
    session.execute(delete(UserGroup).where(UserGroup.name == "board"))
    session.commit()
    found = [each["data-audience"] for _tag, each in bob.get("/admin/").tags if "data-audience" in each]
    assert found == ["board empty", "board unknown", "board similar"]


def test_lists_that_are_paused_are_named_and_are_not_late(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    app = make_app(PORTAL_PAUSED="true")
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    page = bob.get("/admin/")
    assert "paused" in {each.get("data-note") for _tag, each in page.tags}
    assert "no good run" not in page.text
    assert "Sync now" not in bob.get("/admin/lists/members").text
    page = bob.get("/subscriptions")
    assert "paused" in {each.get("data-note") for _tag, each in page.tags}
    bob.post("/admin/runs", {"handle": "members", "kind": "sync"}, page="/account", status=409)
