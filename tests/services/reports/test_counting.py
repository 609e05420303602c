"""How many addresses of which list are in which state, counted for all lists at once."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, event, func, select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.domain.outlook import KnownPreference, State, outlook
from portal.models import Address, Base, Preference, Run
from portal.services.accounts.addresses import departs, is_managed
from portal.services.reports import counting
from portal.services.reports import lists as list_reports
from portal.services.transaction import reading
from tests.conftest import Clock
from tests.factories import NOW, make_preference, make_user

GROUPS = ("board", "staff")
ADDRESSES = ("a@example.org", "b@example.org", "c@example.org")
UNDER_WAY = {State.BEING_ADDED, State.BEING_REMOVED}

people = st.lists(
    st.fixed_dictionaries(
        {
            "addresses": st.lists(st.sampled_from(ADDRESSES), min_size=1, max_size=2, unique=True),
            "groups": st.sets(st.sampled_from(GROUPS)),
            "is_active": st.booleans(),
        }
    ),
    max_size=3,
)
stored = st.dictionaries(
    st.tuples(st.sampled_from(["all", "board", "both"]), st.sampled_from([*ADDRESSES, "nobody@example.org"])),
    st.fixed_dictionaries(
        {
            "subscribed": st.booleans(),
            "seen": st.sampled_from([None, True, False]),
            "departed": st.booleans(),
            "moved_to": st.sampled_from([None, 1]),
            "push_result": st.sampled_from([None, "pending", "confirm", "undone", "rejected"]),
            "changed_at": st.sampled_from([NOW, NOW + timedelta(hours=1)]),
        }
    ),
    max_size=8,
)


@pytest.fixture
def lists(app: Any) -> list[MailingList]:
    members = app.extensions["portal"].catalogue().get("members")
    return [
        replace(members, handle="all"),
        replace(members, handle="board", audience=frozenset({"board"}), remove_on_departure=False),
        replace(members, handle="both", audience=frozenset(GROUPS)),
        replace(members, handle="none", audience=frozenset()),
    ]


@pytest.mark.slow
@given(people=people, stored=stored)
@settings(max_examples=60)
def test_all_at_once_are_counted_as_each_by_itself(
    session: Session, lists: list[MailingList], people: list[Any], stored: dict[Any, Any]
) -> None:
    session.rollback()
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
    session.commit()
    for number, person in enumerate(people):
        make_user(
            session,
            f"user{number}",
            *person["addresses"],
            groups=tuple(person["groups"]),
            is_active=person["is_active"],
        )
    for (handle, address), columns in stored.items():
        make_preference(session, handle, address, **columns)

    with reading(session):
        found = counting.count_states(session, lists)
        expected = {each.handle: counted_one_by_one(session, each) for each in lists}

    assert {handle: (each.states, each.departing, each.oldest_change_at) for handle, each in found.items()} == expected


def counted_one_by_one(session: Session, mailing_list: MailingList) -> tuple[dict[State, int], int, datetime | None]:
    states: Counter[State] = Counter(dict.fromkeys(State, 0))
    oldest = []
    of_list = (Preference.list_handle == mailing_list.handle) & (Preference.address_id == Address.id)
    query = select(Address.id, Preference).outerjoin(Preference, of_list).where(is_managed(mailing_list))
    for _, row in session.execute(query):
        names = ("subscribed", "source", "changed_at", "seen", "push_result")
        known = row and KnownPreference(**{name: getattr(row, name) for name in names})
        state, _ = outlook(known, now=NOW, promise=timedelta(0))
        states[state] += 1
        if state in UNDER_WAY and row.push_result is None:
            oldest.append(row.changed_at)
    going = select(func.count()).select_from(Preference).join(Address, of_list).where(departs(mailing_list))
    return dict(states), session.execute(going).scalar_one(), min(oldest, default=None)


@contextmanager
def counted(session: Session) -> Iterator[list[str]]:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    bind: Any = session.get_bind()
    event.listen(bind, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(bind, "before_cursor_execute", note)


def catalogue_of(lists: list[MailingList], count: int) -> Catalogue:
    """A catalogue of many lists, a third of them for everybody and each of the others for a group of its own."""
    made = {
        f"list{number}": replace(
            lists[0], handle=f"list{number}", audience=frozenset({f"group{number}"}) if number % 3 else None
        )
        for number in range(count)
    }
    return Catalogue(True, 12, made, {})


def test_six_hundred_lists_take_as_many_statements_as_six(
    session: Session, lists: list[MailingList], clock: Clock
) -> None:
    make_user(session, "alice", groups=("group1", "group599"))
    make_preference(session, "list599", "alice@example.org", True, seen=True)
    taken = []
    for count in (6, 600):
        catalogue = catalogue_of(lists, count)
        with counted(session) as statements:
            reports = list_reports.lists(session, catalogue=catalogue, now=clock())
            alarms = list_reports.alarms(session, catalogue=catalogue, now=clock())
        taken.append(len(statements))
        assert (len(reports), len(alarms)) == (count, count)  # no run yet, so all are late

    assert taken[0] == taken[1]
    assert (reports[1].not_chosen, reports[599].subscribed, reports[2].not_chosen) == (1, 1, 0)


def test_the_last_runs_of_many_lists_are_found_in_one_statement(
    session: Session, lists: list[MailingList], clock: Clock
) -> None:
    for number in range(3):
        for hours, state in ((0, "done"), (1, "done"), (2, "failed"), (3, "shown")):
            at = NOW + timedelta(hours=hours)
            session.add(
                Run(
                    list_handle=f"list{number}",
                    kind="sync",
                    asked_by="",
                    host="",
                    started_at=at,
                    finished_at=at,
                    state=state,
                )
            )
    session.commit()
    reports = list_reports.lists(session, catalogue=catalogue_of(lists, 4), now=clock())

    assert [(each.last_run and each.last_run.state, each.last_good_at) for each in reports] == [
        *[("failed", NOW + timedelta(hours=1))] * 3,
        (None, None),
    ]
