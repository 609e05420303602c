"""Several addresses of one account: added, removed, made the main one. Source: SEMANTICS, "Several addresses"."""

import functools
from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.errors import BadInputError, SharedMailboxError, UnknownUserError
from portal.models import AccountChange, Address, History, Preference, User, UserAddress
from portal.services.accounts import address_changes, bulk, profiles, users
from portal.services.accounts.address_changes import AddressChange
from portal.services.accounts.addresses import checked
from portal.services.accounts.directory import Wanted
from portal.services.history import Actor
from portal.services.membership import merging
from portal.services.membership.merging import Merge
from portal.services.preferences import preferences
from portal.services.transaction import transaction
from tests.factories import NOW, make_preference, make_user

X, Y, Z = "x@example.org", "y@example.org", "z@example.org"
CLERK = Actor(7, "clerk")
Stored = dict[str, tuple[bool, str]]


class Office:
    """A clerk who changes addresses, and what is stored afterwards."""

    def __init__(self, session: Session, catalogue: Catalogue) -> None:
        self.session, self.catalogue = session, catalogue
        self.common: dict[str, Any] = {"actor": CLERK, "now": NOW, "lists": catalogue.lists}

    def add(self, user_id: int, spelling: str, **values: Any) -> bool:
        return address_changes.add(self.session, user_id, checked(spelling), **{**self.common, **values})

    def remove(self, user_id: int, address: str) -> None:
        address_changes.remove(self.session, user_id, address, **self.common)

    def make_main(self, user_id: int, address: str) -> bool:
        return address_changes.make_main(self.session, user_id, address, **self.common)

    def move(self, user_id: int, spelling: str) -> None:
        address_changes.change(self.session, user_id, checked(spelling), **self.common)

    def change_many(self, wanted: dict[int, AddressChange]) -> set[int]:
        with transaction(self.session):
            return address_changes.change_many(self.session, wanted, **self.common)

    def choose(self, user_id: int, address: str | None, *, handle: str = "members", at: Any = NOW) -> None:
        """Let a user tick a list for an address of theirs, or untick it, as their page does."""
        page = preferences.page(self.session, user_id, catalogue=self.catalogue, now=at)
        ids = {each.spelling: each.id for each in page.addresses}
        shown = {each.mailing_list.handle: each.address_id or 0 for each in page.offers}
        preferences.choose(
            self.session,
            user_id,
            shown={handle: shown[handle]},
            ticked={handle} if address else (),
            addresses={handle: ids[address]} if address else {},
            catalogue=self.catalogue,
            now=at,
        )

    def stored(self, handle: str = "members") -> Stored:
        rows = self.session.execute(
            select(Address.canonical, Preference.subscribed, Preference.source)
            .join(Preference, Preference.address_id == Address.id)
            .where(Preference.list_handle == handle)
        ).all()
        self.session.rollback()
        return {canonical: (subscribed, source) for canonical, subscribed, source in rows}

    def held(self, user_id: int) -> tuple[str, ...]:
        return profiles.by_id(self.session, user_id).addresses

    def known(self) -> set[str]:
        found = set(self.session.scalars(select(Address.canonical)))
        self.session.rollback()
        return found


@pytest.fixture
def office(app: Flask, session: Session) -> Office:
    return Office(session, app.extensions["portal"].catalogue())


# Given.


def test_an_address_that_is_added_is_held_beside_the_main_one(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    assert office.add(alice, "Y@Example.org")
    assert office.held(alice) == (X, "Y@Example.org")
    assert not office.add(alice, Y)


def test_of_two_subscribed_addresses_the_one_that_was_chosen_last_stays(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=True, changed_at=NOW - timedelta(days=2))
    office.move(alice, Y)
    office.choose(alice, None)
    office.choose(alice, Y)
    office.add(alice, X)
    assert office.stored() == {X: (False, "rule"), Y: (True, "user")}


def test_else_one_that_is_on_the_roster_stays_and_else_the_main_one(office: Office, session: Session) -> None:
    make_user(session, "bob", Y)
    for handle, on in (("members", True), ("tech", False)):
        make_preference(session, handle, Y, True, source="init", seen=on)
    users.deactivate(session, "bob", now=NOW)
    alice = make_user(session, "alice", X)
    for handle in ("members", "tech"):
        make_preference(session, handle, X, True, source="init", seen=False)
    office.add(alice, Y)
    assert office.stored("members") == {X: (False, "rule"), Y: (True, "init")}
    assert office.stored("tech") == {X: (True, "init"), Y: (False, "rule")}


def test_an_address_of_which_nothing_is_known_is_not_sent_to_beside_another(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=True)
    make_preference(session, "tech", X, False, seen=False)
    office.add(alice, Y)
    assert office.stored("members") == {X: (True, "user"), Y: (False, "rule")}
    assert office.stored("tech") == {X: (False, "user")}
    line = session.scalars(select(History)).one()
    assert (line.address, line.subscribed, line.source, line.actor) == (Y, False, "rule", "clerk")


def test_lists_that_the_person_may_not_see_stay_as_they_are(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    for handle in ("board", "gone"):
        make_preference(session, handle, X, True, seen=True)
    office.add(alice, Y)
    assert office.stored("board") == office.stored("gone") == {X: (True, "user")}


def test_a_list_that_the_person_may_see_later_is_sent_to_one_address_then(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    make_preference(session, "board", X, True, seen=False)
    make_preference(session, "board", Y, True, source="init", seen=True)
    office.add(alice, Y)
    enter = functools.partial(users.set_groups, session, "alice", lists=office.catalogue.lists, now=NOW)
    enter(groups=["choir"])
    assert office.stored("board") == {X: (True, "user"), Y: (True, "init")}
    enter(groups=["board"])
    assert office.stored("board") == {X: (True, "user"), Y: (False, "rule")}
    with transaction(session):  # she joins with both by hand, and that stays
        session.execute(update(Preference).values(subscribed=True, source="list"))
    enter(groups=[])
    enter(groups=["board"])
    assert office.stored("board") == {X: (True, "list"), Y: (True, "list")}


def test_every_list_counts_where_the_catalogue_cannot_be_read(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    make_preference(session, "gone", X, True)
    office.add(alice, Y, lists=None)
    assert office.stored("gone") == {X: (True, "user"), Y: (False, "rule")}


def test_an_account_that_is_not_active_is_sent_nothing_so_nothing_ends(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X, is_active=False)
    make_preference(session, "members", X, True)
    office.add(alice, Y)
    assert office.stored() == {X: (True, "user")}


@pytest.mark.parametrize("comes_by", ["gift", "merge"])
@pytest.mark.parametrize("act", ["one", "many"])
def test_an_address_given_to_a_deactivated_account_ends_what_a_list_sends_to_twice_once_it_is_activated(
    office: Office, session: Session, act: str, comes_by: str
) -> None:
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    for address, days in ((X, 0), (Y, -1)):
        at = NOW + timedelta(days=days)
        make_preference(session, "members", address, True, source="list", seen=True, changed_at=at)
    make_preference(session, "tech", X, True)
    for name in ("alice", "bob"):
        users.deactivate(session, name, now=NOW)
    if comes_by == "gift":
        office.add(alice, Y)
    else:
        merging.merge(session, Merge("bob", "alice"), now=NOW, lists=office.catalogue.lists, secret=b"")
    assert office.stored("members") == {X: (True, "list"), Y: (True, "list")}
    activate(session, office, alice, act)
    assert office.stored("members") == {X: (True, "list"), Y: (False, "rule")}
    assert office.stored("tech") == {X: (True, "user"), Y: (False, "rule")}
    office.choose(alice, Y)
    for _again in range(2):
        users.deactivate(session, "alice", now=NOW)
        activate(session, office, alice, act)
    assert office.stored("members") == {X: (False, "rule"), Y: (True, "user")}


def activate(session: Session, office: Office, user_id: int, act: str) -> None:
    if act == "one":
        users.activate(session, "alice", now=NOW, lists=office.catalogue.lists)
        return
    asked = bulk.Asked(bulk.Change.ACTIVATE, Wanted(user_ids=(user_id,)))
    preview = bulk.preview(session, asked)
    assert bulk.do(session, asked, preview_id=preview.id, **office.common) == 1


def test_whoever_is_activated_again_has_all_that_they_had_at_several_addresses(
    office: Office, session: Session
) -> None:
    """They joined with the second one by hand, and nothing was given meanwhile."""
    make_user(session, "alice", X, Y)
    for address in (X, Y):
        make_preference(session, "members", address, True, source="list", seen=True)
    users.deactivate(session, "alice", now=NOW)
    users.activate(session, "alice", now=NOW, lists=office.catalogue.lists)
    assert office.stored() == {X: (True, "list"), Y: (True, "list")}


def test_an_address_added_by_mistake_and_removed_leaves_nothing_with_anybody(office: Office, session: Session) -> None:
    alice, bob = make_user(session, "alice", X), make_user(session, "bob", Z)
    make_preference(session, "members", X, True, source="init", seen=True)
    for handle in ("members", "tech"):
        make_preference(session, handle, Z, True, seen=True, changed_at=NOW - timedelta(days=1))
    before = (office.stored("members"), office.stored("tech"), office.known())
    for spelling in (Y, Z):
        office.add(alice, spelling)
        office.remove(alice, spelling)
        assert (office.stored("members"), office.stored("tech"), office.known()) == before
    assert (office.held(alice), office.held(bob)) == ((X,), (Z,))


def test_a_mailbox_that_somebody_left_is_theirs_again_after_a_mistake(office: Office, session: Session) -> None:
    alice, bob = make_user(session, "alice", X), make_user(session, "bob", Y)
    make_preference(session, "members", Y, True, seen=False)
    office.move(bob, Z)
    office.add(alice, Y)
    assert office.stored() == {Y: (False, "rule"), Z: (True, "rule")}
    office.remove(alice, Y)
    assert office.stored() == {Y: (True, "user"), Z: (True, "rule")}


@pytest.mark.parametrize("own", [(True, "init", False), (False, "user", False), (True, "user", True)])
def test_what_others_left_on_the_roster_is_no_choice_of_the_person_and_does_not_go_along(
    office: Office, session: Session, own: tuple[bool, str, bool]
) -> None:
    make_user(session, "bob", Y)
    make_preference(session, "members", Y, True, seen=True, changed_at=NOW + timedelta(days=1))
    users.deactivate(session, "bob", now=NOW)
    alice = make_user(session, "alice", X)
    subscribed, source, seen = own
    make_preference(session, "members", X, subscribed, source=source, seen=seen)
    make_preference(session, "tech", Y, False, source="superuser")
    make_preference(session, "tech", X, True)
    office.add(alice, Y)
    assert office.stored("members")[X][0] is (source == "user" and subscribed)
    office.remove(alice, Y)
    assert office.stored("members")[X][0] is subscribed
    assert office.stored("tech") == {X: (True, "user"), Y: (False, "superuser")}


def test_a_mailbox_that_another_account_uses_is_taken_only_if_somebody_says_so(
    office: Office, session: Session
) -> None:
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    with pytest.raises(SharedMailboxError, match="used by bob") as refusal:
        office.add(alice, Y, may_share=False)
    assert (refusal.value.holders, office.held(alice)) == (("bob",), (X,))
    assert office.add(alice, Y, may_share=True)


def test_a_shared_mailbox_keeps_what_it_has_and_does_not_end_what_the_person_has(
    office: Office, session: Session
) -> None:
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    make_preference(session, "members", X, True, source="init", seen=True)
    make_preference(session, "members", Y, True, seen=True)
    office.add(alice, Y)
    assert office.stored() == {X: (True, "init"), Y: (True, "user")}


# The main one.


def test_make_main_leaves_the_lists_where_they_are(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    make_preference(session, "members", X, True)
    assert office.make_main(dora, Y)
    assert office.held(dora) == (Y, X)
    assert office.stored() == {X: (True, "user")}
    office.choose(dora, Y, handle="tech")
    assert office.stored("tech") == {Y: (True, "user"), X: (False, "rule")}
    assert not office.make_main(dora, Y)


def test_a_username_that_is_the_main_address_follows_it(office: Office, session: Session) -> None:
    dora = make_user(session, X, X, Y)
    office.make_main(dora, Y)
    assert profiles.by_id(session, dora).username == Y


@pytest.mark.parametrize("act", ["make_main", "remove"])
def test_an_address_of_somebody_else_is_refused(office: Office, session: Session, act: str) -> None:
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    with pytest.raises(BadInputError, match="not an address of this account"):
        getattr(office, act)(alice, Y)
    with pytest.raises(UnknownUserError):
        getattr(office, act)(4711, Y)


# Removed.


def test_the_main_address_is_not_removed(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    with pytest.raises(BadInputError, match="make another address the main one first"):
        office.remove(dora, X)
    assert office.held(dora) == (X, Y)


def test_what_a_removed_address_had_moves_to_the_main_one(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    make_preference(session, "members", Y, True, seen=True)
    make_preference(session, "tech", Y, False)
    office.remove(dora, Y)
    assert office.stored("members") == {X: (True, "rule"), Y: (True, "user")}
    assert office.stored("tech") == {X: (False, "rule"), Y: (False, "user")}
    row = session.scalars(select(Preference).join(Address).where(Address.canonical == Y)).first()
    assert row is not None
    assert (row.left_by, row.moved_to) == (dora, session.scalar(select(Address.id).where(Address.canonical == X)))


@pytest.mark.parametrize(
    ("at_main", "at_removed", "expected"),
    [
        ((True, "user", 1), (False, "user", 2), False),
        ((False, "user", 1), (True, "user", 2), True),
        ((True, "user", 2), (False, "user", 1), True),
        ((True, "user", 1), (False, "init", 2), True),
        ((True, "user", 1), (False, "rule", 2), True),
        ((False, "user", 1), (True, "init", 2), False),
        ((False, "rule", 2), (True, "user", 1), True),
        ((False, "init", 2), (True, "init", 1), True),
        ((True, "init", 1), (False, "init", 2), True),
        ((True, "init", 2), (False, "list", 1), False),
    ],
)
def test_of_the_two_rows_the_one_chosen_later_counts_and_of_two_that_nobody_chose_the_yes(
    office: Office,
    session: Session,
    at_main: tuple[bool, str, int],
    at_removed: tuple[bool, str, int],
    expected: bool,
) -> None:
    dora = make_user(session, "dora", X, Y)
    for spelling, (subscribed, source, day) in ((X, at_main), (Y, at_removed)):
        make_preference(session, "members", spelling, subscribed, source=source, changed_at=NOW + timedelta(days=day))
    office.remove(dora, Y)
    assert office.stored()[X][0] is expected


def test_a_main_address_that_others_use_keeps_what_it_has(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    make_user(session, "bob", X)
    make_preference(session, "members", X, False, changed_at=NOW - timedelta(days=1))
    make_preference(session, "members", Y, True, seen=True)
    make_preference(session, "tech", Y, True)
    office.remove(dora, Y)
    assert office.stored("members")[X] == (False, "user")
    assert office.stored("tech") == {Y: (True, "user")}


def test_what_others_chose_at_a_shared_mailbox_before_somebody_came_does_not_go_along(
    office: Office, session: Session
) -> None:
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    make_preference(session, "members", Y, True, seen=True, changed_at=NOW - timedelta(days=1))
    office.add(alice, Y)
    office.remove(alice, Y)
    assert office.stored() == {Y: (True, "user")}


def test_an_account_that_is_not_active_gives_up_what_it_left(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    make_preference(session, "members", X, False, changed_at=NOW - timedelta(days=1))
    make_preference(session, "members", Y, True)
    users.deactivate(session, "dora", now=NOW)
    office.remove(dora, Y)
    assert office.stored()[X] == (True, "rule")
    users.activate(session, "dora", now=NOW, lists=office.catalogue.lists)
    assert (office.stored()[X], office.held(dora)) == ((True, "rule"), (X,))


# At once.


def test_a_further_address_can_become_the_main_one_while_the_old_one_is_kept_or_given_up(
    office: Office, session: Session
) -> None:
    dora, erin = make_user(session, "dora", X, Y), make_user(session, "erin", Z)
    make_preference(session, "members", X, True)
    wanted = {
        dora: AddressChange(main=checked(Y), removed=frozenset([X])),
        erin: AddressChange(main=checked("erin@example.org"), added=(checked("e@example.org"),)),
    }
    assert office.change_many(wanted) == {dora, erin}
    assert office.held(dora) == (Y,)
    assert office.stored() == {X: (True, "user"), Y: (True, "rule")}
    assert office.held(erin) == ("erin@example.org", "e@example.org", Z)
    assert office.change_many(wanted) == set()


def test_an_address_can_go_from_one_account_to_another(office: Office, session: Session) -> None:
    dora, erin = make_user(session, "dora", X, Y), make_user(session, "erin", Z)
    make_preference(session, "members", Y, True, seen=False)
    wanted = {
        erin: AddressChange(added=(checked(Y),)),
        dora: AddressChange(removed=frozenset([Y])),
    }
    office.change_many(wanted)
    assert (office.held(dora), office.held(erin)) == ((X,), (Z, Y))
    assert office.stored() == {X: (True, "rule"), Y: (False, "rule")}, "what somebody wanted goes with them"


def test_of_several_that_one_person_gives_up_for_a_new_one_the_last_choice_goes_along(
    office: Office, session: Session
) -> None:
    dora = make_user(session, "dora", X, Y)
    make_preference(session, "members", X, False, changed_at=NOW - timedelta(days=1))
    make_preference(session, "members", Y, True, changed_at=NOW)
    office.change_many({dora: AddressChange(main=checked(Z), removed=frozenset([X, Y]))})
    assert office.held(dora) == (Z,)
    assert office.stored() == {X: (False, "user"), Y: (True, "user"), Z: (True, "rule")}
    moved_from = session.scalar(select(UserAddress.moved_from).where(UserAddress.user_id == dora))
    assert moved_from == session.scalar(select(Address.id).where(Address.canonical == X)), "the main one came first"


def test_a_main_address_cannot_go_without_another(office: Office, session: Session) -> None:
    dora = make_user(session, "dora", X, Y)
    with pytest.raises(BadInputError, match="main address"):
        office.change_many({dora: AddressChange(removed=frozenset([X]))})
    session.execute(UserAddress.__table__.delete())
    session.commit()
    with pytest.raises(BadInputError, match="has no main address"):
        office.change_many({dora: AddressChange(added=(checked(Z),))})
    office.change_many({dora: AddressChange(main=checked(Z))})
    assert office.held(dora) == (Z,)


def test_the_history_of_an_account_says_what_became_of_its_addresses(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    office.add(alice, Y)
    office.make_main(alice, Y)
    office.remove(alice, X)
    office.move(alice, Z)
    lines = session.execute(select(AccountChange.what, AccountChange.old, AccountChange.new)).all()
    assert [tuple(each) for each in lines] == [
        ("address added", "", Y),
        ("another main address", X, Y),
        ("address removed", X, ""),
        ("address changed", Y, Z),
    ]


def test_a_deleted_accounts_further_addresses_go_with_it(office: Office, session: Session) -> None:
    alice = make_user(session, "alice", X)
    office.add(alice, Y)
    users.delete(session, "alice", erase=False, now=NOW, lists=office.catalogue.lists)
    assert (office.known(), session.scalar(select(User.id))) == (set(), None)


def test_who_joined_with_a_second_address_ends_it_by_unticking_and_ticking_again(
    office: Office, session: Session
) -> None:
    alice = make_user(session, "alice", X, Y)
    for address in (X, Y):
        make_preference(session, "members", address, True, source="list", seen=True)
    office.choose(alice, None)
    office.choose(alice, X)
    assert office.stored() == {X: (True, "user"), Y: (False, "user")}
