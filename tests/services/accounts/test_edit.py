"""A form that changes an account writes what the person changed, and nothing that somebody else changed meanwhile."""

from itertools import product

import pytest
from sqlalchemy import event

from portal.errors import UnknownUserError
from portal.services.accounts import log, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.accounts.profiles import Details
from portal.services.history import Actor
from tests.factories import NOW, make_user

BOB = Actor(7, "bob")
SHOWN = Details("Alice", "alice@example.org", ("board",))
OTHER = Details("Alice B", "alice@other.example.org", ("board", "full"))
OWN = Details("Alice C", "alice@own.example.org", ("full",))


@pytest.fixture
def alice(session) -> int:
    return make_user(session, "alice", groups=("board",))


def edit(session, user_id, wanted, shown=SHOWN):
    return users.edit(
        session, user_id, shown=shown, wanted=wanted, address=checked(wanted.email), actor=BOB, now=NOW, lists=None
    )


@pytest.mark.parametrize("own", [*product([False, True], repeat=3)], ids=str)
@pytest.mark.parametrize("other", [*product([False, True], repeat=3)], ids=str)
def test_each_field_is_written_by_the_one_who_changed_it_and_by_nobody_where_both_did(session, alice, own, other):
    elsewhere = Details(*(OTHER[n] if is_changed else SHOWN[n] for n, is_changed in enumerate(other)))
    wanted = Details(*(OWN[n] if is_changed else SHOWN[n] for n, is_changed in enumerate(own)))
    edit(session, alice, elsewhere)
    edited = edit(session, alice, wanted)

    assert edited.found == elsewhere
    assert edited.stale == {name for name, a, b in zip(Details._fields, own, other, strict=True) if a and b}
    expected = [
        elsewhere[n] if other_changed else wanted[n]
        for n, other_changed in enumerate(other)
    ]  # fmt: skip
    assert profiles.by_id(session, alice).details == Details(*expected)


def test_what_somebody_else_changed_to_the_same_is_no_conflict_and_no_second_line(session, alice):
    edit(session, alice, OTHER)
    assert edit(session, alice, OTHER).stale == set()
    assert len(log.recent(session, user_id=alice)) == 3


def test_the_history_says_from_what_to_what(session, alice):
    edit(session, alice, OWN)
    users.rename(session, "alice", to="carol")
    assert [(each.what, each.old, each.new, each.actor) for each in log.recent(session, user_id=alice)] == [
        ("renamed", "alice", "carol", "command line"),
        ("groups changed", "board", "full", "bob"),
        ("name changed", "Alice", "Alice C", "bob"),
        ("address changed", "alice@example.org", "alice@own.example.org", "bob"),
    ]


def test_one_field_that_fails_leaves_the_others_as_they_were(session, alice):
    def fail(_connection, _cursor, statement, *_rest):
        if statement.startswith("INSERT INTO user_groups"):
            raise RuntimeError

    event.listen(session.get_bind(), "before_cursor_execute", fail)
    with pytest.raises(RuntimeError):
        edit(session, alice, OWN)
    event.remove(session.get_bind(), "before_cursor_execute", fail)
    assert profiles.by_id(session, alice).details == SHOWN
    assert log.recent(session, user_id=alice) == ()


def test_an_account_that_is_gone_is_not_edited(session, alice):
    users.delete(session, "alice", now=NOW, erase=False, lists=None)
    with pytest.raises(UnknownUserError):
        edit(session, alice, OWN)
