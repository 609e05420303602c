"""Writing preferences when the data has changed since it was read."""

from datetime import timedelta

import pytest
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.models import Address, History, Preference, UserAddress
from portal.services import preference_rows
from portal.services.history import COMMAND_LINE, Actor, Change
from portal.services.transaction import transaction
from tests.factories import NOW, make_address, make_preference, make_user

LATER = NOW + timedelta(hours=1)
ALICE = Actor(7, "alice")


@pytest.fixture
def changes(session: Session) -> list[Change]:
    """What is to be written of Alice's and Bob's addresses: both are to be subscribed."""
    found = []
    for name in ("alice", "bob"):
        make_user(session, name)
        number = make_address(session, f"{name}@example.org")
        found.append(Change("members", number, f"{name}@example.org", True, "import"))
    session.commit()
    return found


def rows(session: Session) -> dict[int, Preference]:
    return {each.address_id: each for each in session.scalars(select(Preference))}


def test_a_first_preference_leaves_one_that_was_made_meanwhile(session, changes):
    alice, bob = changes
    make_preference(session, "members", "alice@example.org", False)
    with transaction(session):
        made = preference_rows.write_first_preferences(session, changes, actor=COMMAND_LINE, now=LATER)
    assert made == [bob]
    found = rows(session)
    assert (found[alice.address_id].subscribed, found[alice.address_id].source) == (False, "user")
    assert (found[bob.address_id].subscribed, found[bob.address_id].seen, found[bob.address_id].touched) == (
        True,
        None,
        False,
    )
    assert [each.address for each in session.scalars(select(History))] == ["bob@example.org"]


def test_a_first_preference_passes_over_an_address_that_was_given_up(session, changes):
    alice, bob = changes
    session.execute(delete(UserAddress).where(UserAddress.address_id == bob.address_id))
    session.commit()
    with transaction(session):
        made = preference_rows.write_first_preferences(session, changes, actor=COMMAND_LINE, now=LATER, is_seen=True)
    assert made == [alice]
    assert {number: each.seen for number, each in rows(session).items()} == {alice.address_id: True}


def test_a_choice_ends_a_refusal_and_a_move_and_one_that_holds_already_is_no_change(session, changes):
    alice, bob = changes
    make_preference(session, "members", "alice@example.org", True, refusal="banned", version=4)
    make_preference(
        session,
        "members",
        "bob@example.org",
        False,
        refusal="banned",
        refused_at=NOW,
        moved_from=alice.address_id,
        version=4,
    )
    with transaction(session):
        made = preference_rows.write_choices(session, reversed(changes), actor=ALICE, now=LATER)
    assert made == [bob]
    found = rows(session)
    assert (found[alice.address_id].refusal, found[alice.address_id].version) == ("banned", 4)
    changed = found[bob.address_id]
    assert (changed.subscribed, changed.touched, changed.changed_by, changed.version) == (True, True, 7, 5)
    assert (changed.refusal, changed.refused_at, changed.moved_from) == (None, None, None)


@pytest.mark.parametrize(
    ("columns", "let_go", "is_held", "stays"),
    [
        ({"seen": False}, timedelta(days=90), False, False),
        ({"seen": False}, timedelta(days=89), False, True),
        ({"seen": True}, timedelta(days=90), False, True),
        ({"seen": None}, timedelta(days=90), False, True),
        ({"seen": False, "waiting_since": NOW}, timedelta(days=90), False, True),
        ({"seen": False}, timedelta(days=90), True, True),
    ],
    ids=["due", "not yet due", "on the roster", "never looked for", "an add waits", "held again"],
)
def test_only_what_is_over_is_purged(session, columns, let_go, is_held, stays):
    number = make_address(session, "alice@example.org")
    session.execute(update(Address).where(Address.id == number).values(let_go_at=NOW - let_go))
    make_preference(session, "members", "alice@example.org", True, **columns)
    if is_held:
        make_user(session, "alice")
    with transaction(session):
        preference_rows.purge(session, "members", [number], let_go_before=NOW - timedelta(days=90))
    assert (number in rows(session)) is stays


def test_nothing_to_write_writes_nothing(session):
    with transaction(session):
        assert preference_rows.write_choices(session, [], actor=ALICE, now=NOW) == []
        assert preference_rows.write_first_preferences(session, [], actor=ALICE, now=NOW) == []
        assert preference_rows.settle(session, "members", [], now=NOW).ids == set()
    assert session.scalars(select(History)).all() == []
