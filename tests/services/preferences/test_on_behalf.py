"""What a superuser does for others: looked at first, then done to exactly those addresses."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.errors import BadInputError, ChangedMeanwhileError, NotOfferedError
from portal.models import History, Preference
from portal.services.history import Actor
from portal.services.preferences import on_behalf
from portal.services.preferences.on_behalf import BulkAction, Eligibility
from portal.services.reports.subscribers import Filter
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock
from tests.factories import NOW, make_address, make_preference, make_user
from tests.fakes.memory import MemoryList

BOB = Actor(1, "bob")
ALL = Filter()


@pytest.fixture
def members(app: Any) -> MailingList:
    return app.extensions["portal"].catalogue().get("members")


@pytest.fixture
def board(app: Any) -> MailingList:
    return app.extensions["portal"].catalogue().get("board")


@pytest.fixture
def do(session: Session, clock: Clock) -> Callable[..., int]:
    """Look, and do what was looked at."""

    def act(
        mailing_list: MailingList, bulk_action: BulkAction, wanted: Filter = ALL, reason: str = "asked by phone"
    ) -> int:
        seen = on_behalf.preview(session, mailing_list, bulk_action, wanted, now=NOW)
        done = on_behalf.do(
            session, mailing_list, bulk_action, wanted, preview_id=seen.id, actor=BOB, now=clock(), reason=reason
        )
        assert done == seen.count
        return done

    return act


def wanted(session: Session, handle: str = "members") -> dict[int, bool]:
    rows = session.execute(
        select(Preference.address_id, Preference.subscribed).where(Preference.list_handle == handle)
    ).all()
    session.rollback()
    return dict(map(tuple, rows))


def test_everybody_of_a_group_is_taken_off_and_put_back(session: Session, members: MailingList, do: Any) -> None:
    for name in ("alice", "dora"):
        make_user(session, name, groups=("staff",))
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    make_user(session, "erin")
    make_preference(session, "members", "erin@example.org", True, seen=True)
    of_staff = Filter(group="staff")
    ids = {name: make_address(session, f"{name}@example.org") for name in ("alice", "dora", "erin")}
    session.rollback()

    assert do(members, BulkAction.UNSUBSCRIBE, of_staff) == 2
    assert wanted(session) == {ids["alice"]: False, ids["dora"]: False, ids["erin"]: True}
    assert do(members, BulkAction.SUBSCRIBE, of_staff) == 2
    assert set(wanted(session).values()) == {True}


def test_each_change_is_one_line_of_history_with_who_and_why(session: Session, members: MailingList, do: Any) -> None:
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_user(session, "dora")
    make_preference(session, "members", "dora@example.org", False, seen=False)
    do(members, BulkAction.UNSUBSCRIBE)
    lines = session.execute(select(History.address, History.subscribed, History.source, History.actor, History.reason))
    assert lines.all() == [("alice@example.org", False, "superuser", "bob", "asked by phone")]
    row = session.execute(select(Preference.version, Preference.touched).where(Preference.source == "superuser")).one()
    assert tuple(row) == (1, True)


def test_who_is_inactive_or_outside_the_audience_is_passed_over_and_counted(
    session: Session, members: MailingList, board: MailingList, do: Any
) -> None:
    make_user(session, "alice", groups=("board",))
    make_user(session, "charlie", groups=("board",), is_active=False)
    make_user(session, "dora")
    for name in ("alice", "charlie", "dora"):
        make_preference(session, "board", f"{name}@example.org", False, seen=False)
    seen = on_behalf.preview(session, board, BulkAction.SUBSCRIBE, ALL, now=NOW)
    assert (seen.count, seen.first, seen.passed_over) == (1, ("alice@example.org",), {Eligibility.NOT_MANAGED: 2})
    assert do(board, BulkAction.SUBSCRIBE) == 1
    assert on_behalf.preview(session, board, BulkAction.UNSUBSCRIBE, ALL, now=NOW).passed_over == {
        Eligibility.NOT_MANAGED: 2
    }


def test_who_has_several_addresses_is_put_on_with_one(session: Session, members: MailingList, do: Any) -> None:
    make_user(session, "alice", "alice@example.org", "alice@home.example.org")
    make_user(session, "dora", "dora@example.org", "dora@home.example.org")
    make_preference(session, "members", "dora@home.example.org", True, seen=True)
    seen = on_behalf.preview(session, members, BulkAction.SUBSCRIBE, ALL, now=NOW)
    assert seen.first == ("alice@example.org",)
    assert seen.passed_over == {Eligibility.SO_ALREADY: 1, Eligibility.OTHER_ADDRESS: 2}
    home = Filter(address_ids=(make_address(session, "alice@home.example.org"),))
    session.rollback()
    assert do(members, BulkAction.SUBSCRIBE, home) == 1
    assert on_behalf.preview(session, members, BulkAction.SUBSCRIBE, ALL, now=NOW).count == 0


def test_addresses_that_changed_since_the_look_are_looked_at_again(
    session: Session, members: MailingList, clock: Clock
) -> None:
    make_user(session, "alice")
    make_user(session, "dora")
    seen = on_behalf.preview(session, members, BulkAction.SUBSCRIBE, ALL, now=NOW)
    make_preference(session, "members", "dora@example.org", True)
    with pytest.raises(ChangedMeanwhileError, match="check them again"):
        on_behalf.do(session, members, BulkAction.SUBSCRIBE, ALL, preview_id=seen.id, actor=BOB, now=clock())
    session.rollback()
    assert len(wanted(session)) == 1


def test_a_preview_of_one_bulk_action_allows_no_other(session: Session, members: MailingList, clock: Clock) -> None:
    make_user(session, "alice")
    seen = on_behalf.preview(session, members, BulkAction.SUBSCRIBE, ALL, now=NOW)
    with pytest.raises(ChangedMeanwhileError):
        on_behalf.do(session, members, BulkAction.UNSUBSCRIBE, ALL, preview_id=seen.id, actor=BOB, now=clock())


@pytest.mark.parametrize("reason", ["two\nlines", "\x00", "x" * 201, "\ud800"])
def test_a_reason_is_one_line(session: Session, members: MailingList, clock: Clock, reason: str) -> None:
    seen = on_behalf.preview(session, members, BulkAction.SUBSCRIBE, ALL, now=NOW)
    with pytest.raises(BadInputError, match="one line"):
        on_behalf.do(
            session, members, BulkAction.SUBSCRIBE, ALL, preview_id=seen.id, actor=BOB, now=clock(), reason=reason
        )


@pytest.mark.slow
def test_a_thousand_addresses_are_chosen_for_at_once(session: Session, members: MailingList, do: Any) -> None:
    for number in range(1_000):
        make_user(session, f"member{number:04}")
    assert do(members, BulkAction.SUBSCRIBE) == 1_000
    assert set(wanted(session).values()) == {True}
    assert len(session.scalars(select(History.id)).all()) == 1_000
    session.rollback()
    assert do(members, BulkAction.SUBSCRIBE) == 0


def test_what_the_list_refused_is_tried_again_at_the_next_run(
    session: Session, members: MailingList, clock: Clock, do: Any
) -> None:
    make_user(session, "alice")
    manager = MemoryList(banned={"alice@example.org"})
    do(members, BulkAction.SUBSCRIBE)

    def adds() -> int:
        manager.calls.clear()
        sync_list(session, members, manager, clock=clock, request=Request())
        return sum(name == "add" for name, _ in manager.calls)

    assert (adds(), adds()) == (1, 0)
    version = session.scalars(select(Preference.version)).one()
    session.rollback()
    assert do(members, BulkAction.RETRY, Filter(state="refused")) == 1
    assert do(members, BulkAction.RETRY, Filter(state="refused")) == 0
    row = session.execute(select(Preference.refusal, Preference.refused_at, Preference.version)).one()
    assert tuple(row) == ("banned", None, version)
    session.rollback()
    assert (adds(), adds()) == (1, 0)
    manager.banned.clear()
    do(members, BulkAction.RETRY)
    assert adds() == 1
    assert "alice@example.org" in manager.members


def test_an_add_that_waits_for_a_moderator_is_not_tried_again(session: Session, members: MailingList) -> None:
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, refusal="held", refused_at=NOW, waiting_since=NOW)
    assert on_behalf.preview(session, members, BulkAction.RETRY, ALL, now=NOW).count == 0


def test_a_choice_made_between_the_preview_and_the_bulk_action_stays(
    session: Session, members: MailingList, clock: Clock, do: Any
) -> None:
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    do(members, BulkAction.UNSUBSCRIBE)
    clock.advance(hours=1)
    session.execute(update(Preference).values(touched=False, seen=False))
    session.commit()
    assert on_behalf.preview(session, members, BulkAction.UNSUBSCRIBE, ALL, now=NOW).passed_over == {
        Eligibility.SO_ALREADY: 1
    }
    assert clock() - timedelta(hours=1) == session.scalars(select(Preference.changed_at)).one()


# People who are not managed.


def take_off(session: Session, mailing_list: MailingList, address: str) -> bool:
    return on_behalf.take_off(session, mailing_list, address, actor=BOB, now=NOW)


@pytest.mark.parametrize("row", [None, True, False])
def test_an_address_that_no_account_holds_is_taken_off_whatever_is_stored(
    session: Session, members: MailingList, clock: Clock, row: bool | None
) -> None:
    manager = MemoryList()
    manager.join("gone@example.org")
    manager.join("stranger@example.net")
    if row is not None:
        make_preference(session, "members", "gone@example.org", row, seen=True, departed=True)
    assert take_off(session, members, "gone@example.org") is (row is not False)
    sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True))
    assert set(manager.members) == {"stranger@example.net"}


def test_an_address_of_an_active_user_who_may_see_the_list_is_not_taken_off_by_itself(
    session: Session, members: MailingList, board: MailingList
) -> None:
    make_user(session, "alice")
    make_user(session, "bob", is_active=False)
    with pytest.raises(NotOfferedError, match="belongs to alice"):
        take_off(session, members, "alice@example.org")
    assert take_off(session, board, "alice@example.org"), "outside the audience"
    assert take_off(session, members, "bob@example.org"), "inactive"


def test_a_bulk_action_takes_off_who_is_not_managed_and_subscribed(
    session: Session, members: MailingList, do: Any
) -> None:
    make_user(session, "alice", is_active=False)
    make_user(session, "bob", is_active=False)
    make_preference(session, "members", "alice@example.org", True, seen=True)
    assert do(members, BulkAction.UNSUBSCRIBE, ALL) == 1
    assert wanted(session) == {session.scalar(select(Preference.address_id)): False}
