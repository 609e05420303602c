"""The addresses of one list: found, sorted, paged and streamed."""

from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.outlook import KnownPreference, outlook
from portal.models import Base
from portal.services.reports import lists as list_reports
from portal.services.reports import subscribers
from portal.services.reports.subscribers import DEPARTED, SORTS, STATES, Filter, Holder, Page
from tests.conftest import Clock
from tests.factories import NOW, make_preference, make_user

PROMISE = timedelta(hours=12)
ALL = Filter()


@pytest.fixture
def members(app: Any) -> MailingList:
    return app.extensions["portal"].catalogue().get("members")


@pytest.fixture
def page(session: Session, members: MailingList, clock: Clock) -> Any:
    def load(wanted: Filter = ALL, **how: Any) -> Page:
        return subscribers.page(session, members, wanted, now=clock(), promise=PROMISE, **how)

    return load


@pytest.fixture
def export(session: Session, members: MailingList, clock: Clock) -> Any:
    def load(wanted: Filter = ALL) -> Iterator[list[Any]]:
        return subscribers.export(session, members, wanted, now=clock(), promise=PROMISE)

    return load


def told(page: Page) -> list[str]:
    return [each.canonical for each in page.subscribers]


preferences = st.none() | st.fixed_dictionaries(
    {
        "subscribed": st.booleans(),
        "seen": st.sampled_from([None, True, False]),
        "waiting_since": st.sampled_from([None, NOW]),
        "push_result": st.sampled_from([None, "pending", "confirm", "undone", "rejected"]),
        "refusal": st.sampled_from([None, "banned"]),
    }
)


@pytest.mark.slow
@given(found=st.lists(preferences, max_size=5))
@settings(max_examples=40)
def test_the_state_is_the_one_that_members_are_told(session: Session, page: Any, found: list[Any]) -> None:
    session.rollback()
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
    session.commit()
    expected = []
    for number, columns in enumerate(found):
        make_user(session, f"user{number}")
        known = None
        if columns is not None:
            make_preference(session, "members", f"user{number}@example.org", **columns)
            known = KnownPreference(source="user", changed_at=NOW, **columns)
        expected.append(outlook(known, now=NOW, promise=PROMISE)[0].value)
    shown = page()
    assert [each.state for each in shown.subscribers] == expected
    assert shown.counts == Counter(expected)
    for state in STATES:
        assert page(Filter(state=state)).total == expected.count(state)


def test_the_states_are_those_that_the_report_counts(session: Session, page: Any, app: Any, clock: Clock) -> None:
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    make_user(session, "charlie", is_active=False)
    make_preference(session, "members", "charlie@example.org", True, seen=True)
    (report,) = list_reports.lists(
        session, catalogue=app.extensions["portal"].catalogue(), now=clock(), handles=["members"]
    )
    assert (report.being_added, report.subscribed) == (1, 0)
    assert page().counts == {"being_added": 1, DEPARTED: 1}


def test_an_address_comes_with_what_is_stored_and_who_holds_it(session: Session, page: Any) -> None:
    alice = make_user(session, "alice", "Alice@example.org")
    charlie = make_user(session, "charlie", "alice@example.org", is_active=False)
    make_preference(session, "members", "alice@example.org", True, refusal="banned", refused_at=NOW)
    (found,) = page().subscribers
    assert (found.address, found.canonical, found.state) == ("Alice@example.org", "alice@example.org", "refused")
    assert (found.source, found.changed_at, found.refusal, found.refused_at) == ("user", NOW, "banned", NOW)
    assert found.holders == (Holder(alice, "alice", True), Holder(charlie, "charlie", False))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ALICE", ["alice@example.org"]),
        ("example.net", ["dora_x@example.net"]),
        ("Theodora", ["dora_x@example.net"]),
        ("_", ["dora_x@example.net"]),
        ("%", []),
        ("\\", []),
        ("' OR 1=1 --", []),
        ("  alice  ", ["alice@example.org"]),
    ],
)
def test_a_text_is_found_in_addresses_and_names_as_it_is(
    session: Session, page: Any, text: str, expected: list[str]
) -> None:
    make_user(session, "alice", "Alice@example.org")
    make_user(session, "theodora", "dora_x@example.net")
    assert told(page(Filter(text=text))) == expected


def test_a_group_is_that_of_a_holder(session: Session, page: Any) -> None:
    make_user(session, "alice", groups=("staff", "board"))
    make_user(session, "dora", groups=("board",))
    make_user(session, "noc", "dora@example.org", groups=("staff",))
    make_user(session, "erin")
    assert told(page(Filter(group="staff"))) == ["alice@example.org", "dora@example.org"]
    assert told(page(Filter(group="sta%"))) == []


def test_an_unknown_state_finds_nothing(session: Session, page: Any) -> None:
    make_user(session, "alice")
    assert (page(Filter(state="nonsense")).subscribers, page(Filter(state="nonsense")).total) == ((), 0)


@pytest.mark.parametrize("sort", SORTS)
def test_pages_hold_each_address_once_in_any_order(session: Session, page: Any, sort: str) -> None:
    for number in range(7):
        make_user(session, f"user{number}")
        if number % 2:
            make_preference(session, "members", f"user{number}@example.org", bool(number % 3))
    for is_descending in (False, True):
        pages = [page(sort=sort, is_descending=is_descending, number=number, size=3) for number in (1, 2, 3, 4)]
        shown = [address for each in pages for address in told(each)]
        assert len(shown) == 7
        assert len(set(shown)) == 7
        assert {each.total for each in pages} == {7}
    assert told(page(is_descending=True))[0] == "user6@example.org"


@pytest.mark.slow
@pytest.mark.parametrize("handle", ["members", "board"])
def test_a_page_is_the_same_whether_its_counts_are_known_or_not(
    session: Session, app: Any, clock: Clock, handle: str
) -> None:
    catalogue = app.extensions["portal"].catalogue()
    for number in range(12):
        make_user(session, f"user{number:02}", groups=("board",) if number % 4 else (), is_active=number % 5 > 0)
        if number % 3:
            seen = number % 2 == 0
            make_preference(session, handle, f"user{number:02}@example.org", number % 4 > 1, seen=seen)
    (report,) = list_reports.lists(session, catalogue=catalogue, now=clock(), handles=[handle])

    def shown(**how: Any) -> Page:
        return subscribers.page(session, catalogue.get(handle), now=clock(), promise=PROMISE, size=5, **how)

    assert report.by_state == shown(wanted=ALL).counts
    for state in ("", *STATES):
        for sort in SORTS:
            for number in (1, 2):
                how = {"wanted": Filter(state=state), "sort": sort, "is_descending": number == 2, "number": number}
                assert shown(**how, known_counts=report.by_state) == shown(**how)


def test_the_whole_of_an_address_finds_no_other_that_holds_it(session: Session, page: Any) -> None:
    make_user(session, "alice")
    make_user(session, "malice", "malice@example.org")
    assert told(page(Filter(text="Alice@Example.org"))) == ["alice@example.org"]
    assert told(page(Filter(text="lice@example.org"))) == ["alice@example.org", "malice@example.org"]
    assert told(page(Filter(text="alice@example.org", address_ids=(0,)))) == []


def test_a_stream_holds_what_the_pages_hold(
    session: Session, page: Any, export: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(subscribers, "_AT_ONCE", 3)
    for number in range(7):
        make_user(session, f"user{number}")
        make_preference(session, "members", f"user{number}@example.org", number != 4, seen=True)
    streamed = [each for block in export(Filter(state="subscribed")) for each in block]
    assert tuple(streamed) == page(Filter(state="subscribed")).subscribers
    assert len(streamed) == 6


def test_a_stream_keeps_no_transaction_open_between_blocks(session: Session, export: Any, clock: Clock) -> None:
    make_user(session, "alice")
    blocks = export()
    next(blocks)
    assert not session.in_transaction()
    make_user(session, "dora")  # and nobody waits
    assert list(blocks) == []
