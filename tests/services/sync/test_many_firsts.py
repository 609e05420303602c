"""First preferences of most of a list are written by list-init's statements, with the same result as one by one."""

from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.roster_text import RosterText
from portal.errors import SafetyLimitError
from portal.extensions import Portal
from portal.models import Address, History, Preference, Run
from portal.services.sync import plans
from portal.services.sync.roster_input import RosterUse, carry_out
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import dry_run, sync_list
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.fakes.memory import MemoryList

ROSTER = ["User01@example.org", "user02@example.org", "shared@example.org", "off@example.org", "stranger@example.net"]
HANDLES = ("one", "other")  # two lists that differ in nothing else; FEW decides how they are begun


@pytest.fixture
def portal(app: Any) -> Portal:
    return app.extensions["portal"]


@pytest.fixture(params=["members", "board"])
def mailing_list(request: pytest.FixtureRequest, portal: Portal) -> MailingList:
    return portal.catalogue().get(request.param)


@pytest.fixture(autouse=True)
def people(session: Session) -> None:
    """Some without a preference, among them one that somebody moved to; and some of every other sort."""
    for number in range(6):
        make_user(session, f"user{number:02}", groups=("board",))
    make_user(session, "alice", "shared@example.org", groups=("board",))
    make_user(session, "bob", "shared@example.org", "bob@example.org", groups=("board",))
    make_user(session, "off", is_active=False, groups=("board",))
    make_user(session, "outside", groups=("staff",))
    new = make_user(session, "dora", "new@example.org", groups=("board",))
    new_id = session.scalar(select(Address.id).where(Address.canonical == "new@example.org"))
    for handle in HANDLES:
        make_preference(session, handle, "old@example.org", True, seen=True, moved_to=new_id, left_by=new)
        make_preference(session, handle, "user05@example.org", True, touched=True)


def left_behind(session: Session, handle: str) -> tuple[Any, ...]:
    columns = [column for column in Preference.__table__.columns if column.name not in {"changed_at", "list_handle"}]
    rows = session.execute(
        select(Address.canonical, *columns)
        .join(Address, Address.id == Preference.address_id)
        .where(Preference.list_handle == handle)
        .order_by(Address.canonical)
    ).all()
    lines = session.execute(
        select(History.address, History.subscribed, History.source, History.actor)
        .where(History.list_handle == handle)
        .order_by(History.address, History.id)
    ).all()
    of_run = select(Run.state, Run.initialised, Run.on_roster, Run.without_account).where(Run.list_handle == handle)
    runs = session.execute(of_run).all()
    session.rollback()
    return rows, lines, runs


def test_many_are_what_few_are(
    session: Session, portal: Portal, mailing_list: MailingList, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for handle, few in zip(HANDLES, (plans.FEW, 0), strict=True):
        monkeypatch.setattr(plans, "FEW", few)
        this = replace(mailing_list, handle=handle)
        manager = MemoryList(members={each.lower(): each for each in ROSTER})
        would = dry_run(session, this, manager, clock=portal.clock).counts
        assert left_behind(session, handle)[1:] == ([], [])  # a dry run writes nothing
        done = sync_list(session, this, manager, clock=portal.clock, request=Request())
        found.append((would, done.counts, sorted(manager.members), left_behind(session, handle)))
        assert bool(done.plan.first_preferences.on_roster) is (few == 0)

    assert found[0] == found[1]
    assert found[0][0]["initialised"] > 5


def test_the_first_half_of_a_planned_run_counts_many_as_it_counts_few(
    session: Session, portal: Portal, mailing_list: MailingList, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for handle, few in zip(HANDLES, (plans.FEW, 0), strict=True):
        monkeypatch.setattr(plans, "FEW", few)
        this = replace(mailing_list, handle=handle)
        text = RosterText([f"{each}\n".encode() for each in ROSTER])
        answer, _ = carry_out(session, this, text, clock=portal.clock, use=RosterUse(plan=True))
        counts = {name: answer[name] for name in ("subscribed", "unsubscribed", "kept", "unknown", "adds", "removals")}
        found.append((counts, left_behind(session, handle)))

    assert found[0] == found[1]


def test_a_run_that_is_held_writes_no_first_preference(
    session: Session, portal: Portal, mailing_list: MailingList, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FEW", 0)
    this = replace(
        mailing_list, handle="one", safety_limits=replace(mailing_list.safety_limits, removals=0, removals_percent=0)
    )
    for number in range(3):
        make_user(session, f"gone{number}", groups=("board",))
        make_preference(session, "one", f"gone{number}@example.org", True, seen=True)
    manager = MemoryList(members={each.lower(): each for each in ROSTER})

    with pytest.raises(SafetyLimitError):
        sync_list(session, this, manager, clock=portal.clock, request=Request())

    rows, lines, _ = left_behind(session, "one")
    assert lines == []
    assert {row.source for row in rows} == {"user"}
    assert _then(session, portal, this, manager).counts["initialised"] > 5


def _then(session: Session, portal: Portal, mailing_list: MailingList, manager: MemoryList) -> SyncResult:
    """Return what becomes of the same list where its plan is approved."""
    would = dry_run(session, mailing_list, manager, clock=portal.clock)
    request = Request(accept=would.plan.id)
    return sync_list(session, mailing_list, manager, clock=portal.clock, request=request)


def test_who_chose_meanwhile_is_left_as_they_chose(
    session: Session, portal: Portal, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plans, "FEW", 0)
    this = replace(portal.catalogue().get("members"), handle="one")

    def choose(moment: str) -> None:
        if moment == "after add":  # after the plan, before the first preferences
            make_preference(session, "one", "user01@example.org", False, touched=True)

    manager = MemoryList(members={each.lower(): each for each in ROSTER}, watcher=choose)
    sync_list(session, this, manager, clock=clock, request=Request())

    rows, _, _ = left_behind(session, "one")
    assert [(row.subscribed, row.source, row.touched) for row in rows if row.canonical == "user01@example.org"] == [
        (False, "user", True)
    ]
