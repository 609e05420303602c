"""What the original commands print: SEMANTICS, "list-init"."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from portal.domain.merge import Action, AddressState, Rules, decide
from portal.domain.roster_text import RosterText
from portal.errors import NoPlannedRunError
from portal.models import Base
from portal.services.sync.planned_runs import begin_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.wanted import planned, subscribed, unsubscribed
from tests.factories import make_preference, make_user


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def members(catalogue):
    return catalogue.get("members")


def printed(blocks):
    return [spelling for block in blocks for spelling in block]


def test_managed_addresses_are_printed_by_what_is_wanted_of_them(session, members):
    make_user(session, "alice")
    make_user(session, "bob")
    make_user(session, "charlie")
    make_preference(session, "members", "alice@example.org", True)
    make_preference(session, "members", "bob@example.org", False)
    make_preference(session, "tech", "charlie@example.org", True)
    assert printed(subscribed(session, members)) == ["alice@example.org"]
    assert printed(unsubscribed(session, members)) == ["bob@example.org"]


def test_the_address_of_a_mailing_list_is_not_printed(session, members):
    for number, address in enumerate(sorted(members.never_added)):
        make_user(session, f"user{number}", address)
        make_preference(session, "members", address, True)
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    assert members.never_added
    assert printed(subscribed(session, members)) == ["alice@example.org"]


def test_addresses_are_printed_as_spelled_sorted_by_code_points_of_the_canonical_form_and_once(session, members):
    for number, spelling in enumerate(
        ["b_@example.org", "B@Example.ORG", "ä@example.org", "a.z@example.org", "Az@example.org", "-rf@example.org"]
    ):
        make_user(session, f"user{number}", spelling)
        make_preference(session, "members", spelling, True)
    make_user(session, "charlie", "b@example.org")
    assert printed(subscribed(session, members)) == [
        "-rf@example.org", "a.z@example.org", "Az@example.org", "B@Example.ORG", "b_@example.org", "ä@example.org",
    ]  # fmt: skip


def test_only_the_audience_of_a_list_is_managed(session, catalogue):
    board = catalogue.get("board")
    make_user(session, "alice", groups=("board",))
    make_user(session, "bob")
    for name in ("alice", "bob"):
        make_preference(session, "board", f"{name}@example.org", True, seen=True)
    assert printed(subscribed(session, board)) == ["alice@example.org"]
    assert printed(unsubscribed(session, board)) == ["bob@example.org"]


@pytest.mark.parametrize(
    ("wanted", "columns", "is_printed", "is_printed_where_kept"),
    [
        (True, {"seen": True}, True, False),
        (True, {"seen": False}, False, False),
        (True, {}, False, False),
        (True, {"seen": True, "departed": True}, False, False),
        (False, {"seen": True}, True, True),
        (False, {"seen": False}, False, False),
        (False, {"seen": True, "departed": True}, False, False),
    ],
)
def test_departed_addresses_that_rule_4_would_remove_are_to_be_unsubscribed(
    session, members, wanted, columns, is_printed, is_printed_where_kept
):
    make_user(session, "alice", is_active=False)
    make_preference(session, "members", "alice@example.org", wanted, **columns)
    kept = replace(members, remove_on_departure=False)
    assert printed(subscribed(session, members)) == []
    assert bool(printed(unsubscribed(session, members))) == is_printed
    assert bool(printed(unsubscribed(session, kept))) == is_printed_where_kept


@given(
    preference=st.booleans(),
    seen=st.sampled_from([None, True, False]),
    is_dealt_with=st.booleans(),
    is_managed=st.booleans(),
    removes=st.booleans(),
)
@settings(max_examples=60)
def test_what_is_printed_is_what_the_rules_would_do_where_the_roster_is_what_was_seen(
    session, members, preference, seen, is_dealt_with, is_managed, removes
):
    session.rollback()
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
    make_user(session, "alice", is_active=is_managed)
    make_preference(session, "members", "alice@example.org", preference, seen=seen, departed=is_dealt_with)
    mailing_list = replace(members, remove_on_departure=removes)
    state = AddressState(preference, seen, is_dealt_with=is_dealt_with, is_managed=is_managed)
    action = decide(state, on_roster=seen is True, rules=Rules(remove_on_departure=removes))
    to_go, to_be = printed(unsubscribed(session, mailing_list)), printed(subscribed(session, mailing_list))
    assert not (to_go and to_be)
    if action is Action.REMOVE:
        assert to_go
    if action is Action.ADD:
        assert to_be
    assert bool(to_go) == (action is Action.REMOVE or (is_managed and not preference))
    assert bool(to_be) == (is_managed and preference)


def test_an_open_planned_run_prints_what_is_to_be_pushed_as_the_list_manager_is_told(session, members, clock):
    for name in ("charlie", "bob", "alice", "dora"):
        make_user(session, name, f"{name.title()}@example.org")
    make_preference(session, "members", "charlie@example.org", True)
    make_preference(session, "members", "bob@example.org", True)
    make_preference(session, "members", "alice@example.org", False, seen=True)
    make_preference(session, "members", "dora@example.org", True, refusal="banned", refused_at=clock())
    begin_planned_run(session, members, RosterText([b"ALICE@example.org"]), clock=clock, request=Request())
    assert printed(planned(session, members, Action.ADD)) == ["Bob@example.org", "Charlie@example.org"]
    assert printed(planned(session, members, Action.REMOVE)) == ["ALICE@example.org"]


def test_without_an_open_planned_run_there_is_nothing_to_print(session, members):
    with pytest.raises(NoPlannedRunError):
        printed(planned(session, members, Action.ADD))


def test_nothing_is_printed_for_a_list_that_nobody_chose(session, members):
    make_user(session, "alice")
    assert printed(subscribed(session, members)) == printed(unsubscribed(session, members)) == []
