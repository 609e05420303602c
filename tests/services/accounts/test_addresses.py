"""Who holds which address, and what a change of address does: SEMANTICS, "Identity"."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.errors import InvalidAddressError, UnknownUserError
from portal.extensions import db
from portal.models import Address, History, Preference, User, UserAddress
from portal.services import preference_rows
from portal.services.accounts import address_changes, addresses, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE, Actor, Change
from portal.services.preferences import preferences
from portal.services.transaction import transaction
from tests.factories import NOW, change_main_addresses, make_preference, make_user

X, Y, Z = "x@example.org", "y@example.org", "z@example.org"
ACTOR = Actor(7, "clerk")


@pytest.fixture
def lists(app):
    return app.extensions["portal"].catalogue().lists


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def move(session, lists):
    def change(user_id, spelling):
        address_changes.change(session, user_id, checked(spelling), actor=ACTOR, now=NOW, lists=lists)

    return change


@pytest.fixture
def rows(session):
    """Preferences by address: what is wanted, its source, and where the holder moved to."""

    def load(handle="members"):
        found = session.execute(
            select(Address.canonical, Preference.subscribed, Preference.source, Preference.moved_to)
            .join(Preference, Preference.address_id == Address.id)
            .where(Preference.list_handle == handle)
        ).all()
        names = dict(session.execute(select(Address.id, Address.canonical)).all())
        session.rollback()
        return {each.canonical: (each.subscribed, each.source, names.get(each.moved_to)) for each in found}

    return load


@pytest.fixture
def told(session):
    def load():
        found = session.execute(
            select(History.address, History.subscribed, History.source, History.actor).order_by(History.id)
        ).all()
        session.rollback()
        return [tuple(line) for line in found]

    return load


@pytest.fixture
def row(session):
    def load(spelling=X, handle="members"):
        found = session.scalars(
            select(Preference)
            .join(Address, Address.id == Preference.address_id)
            .where(Address.canonical == spelling, Preference.list_handle == handle)
            .execution_options(populate_existing=True)
        ).one()
        session.expunge(found)
        session.rollback()
        return found

    return load


@pytest.fixture
def held(session):
    """The addresses that a user holds, as spelled, the main one first."""

    def load(user_id):
        found = session.scalars(
            select(Address.spelling)
            .join(UserAddress, UserAddress.address_id == Address.id)
            .where(UserAddress.user_id == user_id)
            .order_by(UserAddress.is_main.desc(), Address.id)
        ).all()
        session.rollback()
        return list(found)

    return load


def known(session):
    found = set(session.scalars(select(Address.canonical)))
    session.rollback()
    return found


def choose(session, spelling, subscribed, *, handle="members", now=NOW):
    """Let the holder of an address choose."""
    with transaction(session):
        address_id = session.scalar(select(Address.id).where(Address.canonical == spelling))
        change = Change(handle, address_id, spelling, subscribed, "user")
        preference_rows.write_choices(session, [change], actor=ACTOR, now=now)


# A change of address.


def test_the_new_address_gets_what_the_old_one_had_which_keeps_it(session, move, rows, told):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    make_preference(session, "tech", X, False)
    move(alice, Y)
    assert rows("members") == {X: (True, "user", Y), Y: (True, "rule", None)}
    assert rows("tech") == {X: (False, "user", Y), Y: (False, "rule", None)}
    assert sorted(told()) == [(Y, False, "rule", "clerk"), (Y, True, "rule", "clerk")]


def test_who_moved_is_remembered_and_who_changed_the_address_and_when(session, move, row):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, changed_by=alice)
    move(alice, Y)
    assert (row(X).left_by, row(X).changed_by) == (alice, alice)
    assert (row(Y).left_by, row(Y).changed_by, row(Y).changed_at) == (None, 7, NOW)


def test_what_was_seen_and_what_waits_stays_with_the_old_address(session, move, row):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=True, waiting_since=NOW)
    move(alice, Y)
    assert (row(X).seen, row(X).waiting_since) == (True, NOW)
    assert (row(Y).seen, row(Y).waiting_since) == (False, None)


def test_a_refusal_of_the_old_address_is_forgotten_and_its_version_raised(session, move, row):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, False, version=3, refusal="banned", refused_at=NOW)
    move(alice, Y)
    assert (row(X).refusal, row(X).refused_at, row(X).version) == (None, None, 4)
    assert row(Y).refusal is None


def test_an_address_that_another_account_holds_still_is_not_left(session, move, rows, row, told):
    alice = make_user(session, "alice", X)
    make_user(session, "charlie", X)
    make_preference(session, "members", X, True)
    move(alice, Y)
    assert rows() == {X: (True, "user", None), Y: (True, "rule", None)}
    assert row(X).left_by is None
    assert told() == [(Y, True, "rule", "clerk")]


def test_a_mailbox_that_another_account_holds_keeps_what_it_has_on_every_list(session, move, rows):
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    make_preference(session, "members", X, True)
    make_preference(session, "members", Y, False)
    make_preference(session, "tech", X, True)
    move(alice, Y)
    assert rows("members") == {X: (True, "user", Y), Y: (False, "user", None)}
    assert rows("tech") == {X: (True, "user", Y)}


def test_moving_twice_collapses(session, move, rows, row):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    move(alice, Y)
    version = row(X).version
    move(alice, Z)
    assert rows() == {X: (True, "user", Z), Z: (True, "rule", None)}
    assert row(X).version > version, "a run that has planned with the old successor must not settle it"


def test_a_typo_undone_is_as_if_nothing_had_happened(session, move, rows, row, held):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, touched=True, seen=False)
    move(alice, Y)
    move(alice, X)
    assert (rows(), held(alice), known(session)) == ({X: (True, "user", None)}, [X], {X})
    assert (row(X).touched, row(X).seen, row(X).left_by) == (True, False, None)


def test_going_back_takes_what_was_chosen_at_the_other_address_since(session, move, rows, row):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=True)
    move(alice, Y)
    choose(session, Y, False)
    version = row(X).version
    move(alice, X)
    assert rows()[X] == (False, "rule", None)
    assert (row(X).touched, row(X).seen) == (True, True)
    assert row(X).version > version
    assert rows()[Y] == (False, "user", X), "a person chose there"


def test_going_back_by_a_detour_undoes_the_move(session, move, rows):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    for spelling in (Y, Z, X):
        move(alice, spelling)
    assert rows() == {X: (True, "user", None)}


def test_a_typo_onto_a_colleagues_mailbox_and_back_changes_nothing(session, move, rows):
    alice = make_user(session, "alice", X)
    make_user(session, "bob", Y)
    make_preference(session, "members", X, True)
    make_preference(session, "members", Y, False)
    make_preference(session, "tech", Y, True)
    move(alice, Y)
    move(alice, X)
    assert rows("members") == {X: (True, "user", None), Y: (False, "user", None)}
    assert rows("tech") == {Y: (True, "user", None)}


def test_a_typo_onto_the_mailbox_of_somebody_who_moved_out_lets_their_departure_go_on(session, move, rows, row):
    alice = make_user(session, "alice", X)
    bob = make_user(session, "bob", Y)
    make_preference(session, "members", Y, True, seen=True)
    move(bob, Z)
    make_preference(session, "members", X, False)
    move(alice, Y)
    assert rows()[Y] == (False, "rule", None), "what the taker brings replaces what stands there"
    move(alice, X)
    assert rows()[Y] == (True, "user", Z)
    assert (row(Y).left_by, row(Y).seen) == (bob, True)


def test_a_typo_onto_a_newcomers_mailbox_leaves_nothing_to_the_newcomer(session, move, rows, lists):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    move(alice, Y)
    users.create(session, username="new", address=checked(Y), now=NOW, rounds=4, lists=lists)
    move(alice, X)
    assert rows() == {X: (True, "user", None)}


def test_the_mailbox_of_ones_own_deactivated_account_takes_what_is_brought(session, move, rows, lists):
    make_user(session, "alice-old", Y)
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    make_preference(session, "members", Y, False)
    users.deactivate(session, "alice-old", now=NOW)
    move(alice, Y)
    assert rows() == {X: (True, "user", Y), Y: (True, "rule", None)}
    users.activate(session, "alice-old", now=NOW, lists=lists)
    assert rows()[Y] == (True, "rule", None), "a mailbox that another account holds keeps what it has"


def test_a_second_account_for_the_new_address_deleted_again_leaves_the_move_alone(session, move, rows, lists):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)
    make_user(session, "alice2", Y)
    make_preference(session, "members", Y, False, source="init", seen=False)
    users.delete(session, "alice2", now=NOW, erase=False, lists=lists)
    move(alice, Y)
    assert rows() == {X: (True, "user", Y), Y: (True, "rule", None)}
    move(alice, X)
    assert rows() == {X: (True, "user", None), Y: (False, "init", None)}


@pytest.mark.parametrize("is_free_first", [True, False])
def test_a_shared_role_is_handed_on_in_either_order(session, move, rows, is_free_first):
    alice = make_user(session, "alice", X)
    bob = make_user(session, "bob", Z)
    make_preference(session, "members", X, True, seen=True)  # the chair's mailbox
    make_preference(session, "members", Z, True, seen=True)
    for user_id, spelling in ((alice, Y), (bob, X)) if is_free_first else ((bob, X), (alice, Y)):
        move(user_id, spelling)
    wanted = {name: (row[0], row[2]) for name, row in rows().items()}
    assert wanted == {X: (True, None), Y: (True, None), Z: (True, X)}


def test_two_who_trade_places_take_their_choices_with_them(session, lists, rows):
    alice, bob = make_user(session, "alice", X), make_user(session, "bob", Y)
    make_preference(session, "members", X, True, seen=True)
    make_preference(session, "members", Y, False, seen=False)
    change_main_addresses(session, {alice: Y, bob: X}, now=NOW, lists=lists)
    assert rows() == {X: (False, "rule", None), Y: (True, "rule", None)}


@pytest.mark.parametrize("names", [("alice", "bob"), ("bob", "alice")])
def test_of_several_who_move_into_one_mailbox_one_unsubscribed_wins(session, lists, rows, names):
    ids = {name: make_user(session, name, f"{name}@example.org") for name in names}
    make_preference(session, "members", "alice@example.org", True)
    make_preference(session, "members", "bob@example.org", False)
    change_main_addresses(session, {ids[name]: Y for name in names}, now=NOW, lists=lists)
    assert rows()[Y] == (False, "rule", None)


def test_of_several_who_move_out_of_one_mailbox_nobody_is_waited_for(session, lists, rows):
    alice, bob = make_user(session, "alice", X), make_user(session, "bob", X)
    make_preference(session, "members", X, True)
    change_main_addresses(session, {alice: Y, bob: Z}, now=NOW, lists=lists)
    assert rows() == {X: (True, "user", X), Y: (True, "rule", None), Z: (True, "rule", None)}


def test_a_yes_of_somebody_who_is_gone_does_not_work_for_the_next(session, move, rows, row):
    alice = make_user(session, "alice", X)
    bob = make_user(session, "bob", Z)
    make_preference(session, "members", X, True)
    make_preference(session, "tech", X, True, seen=True)
    move(alice, Y)
    version = row(X).version
    move(bob, X)
    assert rows("members")[X] == (False, "rule", None)
    assert rows("tech")[X] == (True, "user", None), "the list has the mailbox"
    assert row(X).version > version


def test_what_a_deleted_account_wanted_is_gone_for_a_new_one_and_back_for_nobody(session, rows, lists):
    make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=False)
    make_preference(session, "tech", X, False)
    users.delete(session, "alice", now=NOW, erase=False, lists=lists)
    users.create(session, username="new", address=checked(X), now=NOW, rounds=4, lists=lists)
    assert (rows("members"), rows("tech")) == ({}, {X: (False, "user", None)})


def test_a_return_restores(session, rows, lists):
    make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=False)
    users.deactivate(session, "alice", now=NOW)
    users.activate(session, "alice", now=NOW, lists=lists)
    assert rows() == {X: (True, "user", None)}


def test_a_change_to_an_address_that_the_user_already_holds_makes_it_the_main_one(session, move, rows, held):
    dora = make_user(session, "dora", X, Y, Z)
    make_preference(session, "members", X, True)
    make_preference(session, "tech", X, True, changed_at=NOW)
    make_preference(session, "tech", Y, False, changed_at=NOW - timedelta(days=1))
    make_preference(session, "board", X, True, changed_at=NOW - timedelta(days=1))
    make_preference(session, "board", Y, False, changed_at=NOW)
    move(dora, Y)
    assert held(dora) == [Y, Z]
    assert rows() == {X: (True, "user", Y), Y: (True, "rule", None)}
    assert rows("tech")[Y] == (True, "rule", None), "what was chosen later counts"
    assert rows("board")[Y] == (False, "user", None)


def test_an_address_that_nothing_is_known_of_is_remembered_until_the_move_is_done(session, move):
    alice = make_user(session, "alice", X)
    move(alice, Y)
    assert known(session) == {X, Y}
    move(alice, Z)
    assert known(session) == {Y, Z}


def test_a_change_for_nobody_is_refused_and_leaves_nothing(session, move):
    with pytest.raises(UnknownUserError):
        move(4711, Y)
    assert known(session) == set()


def test_a_failure_in_a_change_leaves_preferences_holders_and_history_as_they_were(session, move, rows, held, told):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True)

    def fail(_connection, _cursor, statement, *_rest):
        if statement.startswith("INSERT INTO history"):
            raise RuntimeError("the disk is full")

    event.listen(db.engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(RuntimeError):
            move(alice, Y)
    finally:
        event.remove(db.engine, "before_cursor_execute", fail)
    assert (rows(), held(alice), told(), known(session)) == ({X: (True, "user", None)}, [X], [], {X})


# Spelling.


def test_a_change_of_spelling_alone_changes_nothing_else(session, move, rows, row, held, told):
    alice = make_user(session, "alice", "alice@example.org")
    make_preference(session, "members", "alice@example.org", True, version=5)
    move(alice, "Alice@Example.org")
    assert held(alice) == ["Alice@Example.org"]
    assert rows() == {"alice@example.org": (True, "user", None)}
    assert (row("alice@example.org").version, told()) == (5, [])


def test_the_first_spelling_holds_while_anybody_else_holds_the_address(session, move, held):
    alice = make_user(session, "alice", "Alice@example.org")
    bob = make_user(session, "bob", X)
    move(bob, "ALICE@example.org")
    assert held(bob) == ["Alice@example.org"]
    move(bob, "aLiCe@example.org")
    assert held(alice) == ["Alice@example.org"]


def test_a_new_spelling_holds_once_nobody_holds_the_address(session, move, held, lists):
    alice = make_user(session, "alice", "Alice@example.org")
    make_preference(session, "members", "alice@example.org", True, seen=True)  # so it is not forgotten
    move(alice, X)
    bob = make_user(session, "bob", Z)
    move(bob, "ALICE@example.org")
    assert held(bob) == ["ALICE@example.org"]


def test_an_address_is_trimmed_and_compared_without_case():
    assert checked("  Alice@EXAMPLE.org\n") == ("alice@example.org", "Alice@EXAMPLE.org")


def test_an_international_domain_is_compared_in_ascii_and_kept_as_typed():
    assert checked("Alice@Exämple.org") == ("alice@xn--exmple-cua.org", "Alice@Exämple.org")


def test_tags_and_dots_are_significant():
    assert checked("a.b+c@example.org").canonical == "a.b+c@example.org"


@pytest.mark.parametrize("text", ["", "alice", "alice@", "@example.org", "alice@localhost", "a b@example.org", "a@b@c"])
def test_what_a_person_types_is_validated(text):
    with pytest.raises(InvalidAddressError):
        checked(text)


@pytest.mark.parametrize("text", ["alice@lan", "alice@host.lan"])
def test_domains_of_an_intranet_are_accepted_where_they_are_allowed(text):
    assert checked(text, special_domains=["lan"]).spelling == text
    with pytest.raises(InvalidAddressError):
        checked("alice@wlan", special_domains=["lan"])


@given(
    st.sampled_from(["alice", "b.o+b", ".bob", "zoë", "a" * 200, '"a b"', "Ann <ann"]),
    st.sampled_from(["example.org", "Example.ORG", "lan", "xn--exmple-cua.org", "exämple.org", "local", "a_b.org"]),
)
def test_an_address_is_judged_the_same_when_its_domain_is_known(local, domain):
    def is_refused(check):
        try:
            check(f"{local}@{domain}")
        except InvalidAddressError:
            return True
        return False

    checker = addresses.AddressChecker(["lan"])
    with suppress(InvalidAddressError):
        checker.check(f"carl@{domain}", f"carl@{domain}".lower())
    assert is_refused(lambda text: checker.check(text, canonical(text))) == is_refused(
        lambda text: checked(text, special_domains=["lan"])
    )


# Departures.


@pytest.fixture
def departed(session):
    def load():
        found = session.execute(select(Preference.list_handle, Preference.departed)).all()
        session.rollback()
        return dict(found)

    return load


def depart(session, *handles, spelling=X):
    for handle in handles:
        make_preference(session, handle, spelling, True, seen=False, departed=True)


def test_activation_clears_the_mark_on_lists_that_the_user_may_see_alone(session, lists, departed):
    make_user(session, "alice", X, is_active=False)
    depart(session, "members", "tech", "board")
    users.activate(session, "alice", now=NOW, lists=lists)
    assert departed() == {"members": False, "tech": False, "board": True}


def test_a_group_clears_the_mark_on_its_lists(session, lists, departed):
    make_user(session, "alice", X)
    depart(session, "board")
    users.set_groups(session, "alice", groups=["choir"], now=NOW, lists=lists)
    assert departed() == {"board": True}
    users.set_groups(session, "alice", groups=["board"], now=NOW, lists=lists)
    assert departed() == {"board": False}


def test_a_group_of_an_inactive_user_clears_no_mark(session, lists, departed):
    make_user(session, "alice", X, is_active=False)
    depart(session, "board")
    users.set_groups(session, "alice", groups=["board"], now=NOW, lists=lists)
    assert departed() == {"board": True}


def test_an_address_given_clears_the_mark(session, move, departed):
    bob = make_user(session, "bob", Z)
    depart(session, "members", "board")
    move(bob, X)
    assert departed() == {"members": False, "board": True}


def test_a_mark_that_is_cleared_raises_the_version_and_others_do_not(session, lists, row):
    make_user(session, "alice", X, is_active=False)
    depart(session, "members", "board")
    make_preference(session, "tech", X, True)
    users.activate(session, "alice", now=NOW, lists=lists)
    assert [row(X, handle).version for handle in ("members", "tech", "board")] == [1, 0, 0]


def test_lists_that_are_not_in_the_catalogue_keep_their_marks(session, lists, departed):
    make_user(session, "alice", X, is_active=False)
    depart(session, "members", "former")
    users.activate(session, "alice", now=NOW, lists=lists)
    assert departed() == {"members": False, "former": True}


def test_every_list_counts_as_offered_where_the_catalogue_cannot_be_read(session, departed):
    make_user(session, "alice", X, is_active=False)
    depart(session, "members", "board")
    users.activate(session, "alice", now=NOW, lists=None)
    assert departed() == {"members": False, "board": False}


def test_a_change_of_address_clears_the_mark_of_the_old_one_which_has_to_go(session, move, row):
    alice = make_user(session, "alice", X)
    depart(session, "members")
    move(alice, Y)
    assert row(X).departed is False


# Deleted accounts.


def release(session, user_id, lists, *, erase=False):
    with transaction(session):
        addresses.release(session, user_id, erase=erase, actor=ACTOR, now=NOW, lists=lists)
        session.execute(User.__table__.delete().where(User.id == user_id))


def test_a_deleted_account_leaves_its_preferences(session, lists, rows):
    alice = make_user(session, "alice", X)
    make_preference(session, "members", X, True, seen=True)
    release(session, alice, lists)
    assert rows() == {X: (True, "user", None)}
    assert session.scalar(select(Address.erase)) is False


def test_a_deleted_accounts_address_without_a_preference_is_forgotten(session, lists):
    alice = make_user(session, "alice", X)
    release(session, alice, lists)
    assert known(session) == set()


def test_an_address_that_another_account_holds_is_neither_forgotten_nor_marked(session, lists):
    alice = make_user(session, "alice", X)
    make_user(session, "charlie", X)
    release(session, alice, lists, erase=True)
    assert session.execute(select(Address.canonical, Address.erase)).all() == [(X, False)]


# At once, as on PostgreSQL.


def at_once(app, *jobs):
    barrier = Barrier(len(jobs))

    def work(job):
        with app.app_context(), Session(db.engine) as own:
            own.connection()
            own.rollback()
            barrier.wait(10)
            return job(own)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(work, jobs))


def test_two_changes_of_one_account_at_once_leave_it_one_address(app, session, lists, held):
    for number in range(8):
        alice = make_user(session, f"alice{number}", f"x{number}@example.org")

        def change(name, alice=alice, number=number):
            address = checked(f"{name}{number}@example.org")
            return lambda own: address_changes.change(own, alice, address, actor=COMMAND_LINE, now=NOW, lists=lists)

        at_once(app, change("y"), change("z"))
        assert len(held(alice)) == 1


def test_two_accounts_that_move_to_one_address_at_once_share_it(app, session, lists, rows):
    for number in range(8):
        new = checked(f"new{number}@example.org")
        movers = []
        for name in ("alice", "bob"):
            movers.append(make_user(session, f"{name}{number}", f"{name}{number}@example.org"))
            make_preference(session, "members", f"{name}{number}@example.org", name == "alice")

        def change(user_id, new=new):
            return lambda own: address_changes.change(own, user_id, new, actor=COMMAND_LINE, now=NOW, lists=lists)

        at_once(app, *map(change, movers))
        assert rows()[new.canonical][1] == "rule"


@pytest.fixture
def untick(catalogue):
    """A job that unticks a list for a user."""

    def make(user_id):
        def save(own):
            preferences.choose(own, user_id, shown={"members": True}, ticked=set(), catalogue=catalogue, now=NOW)

        return save

    return make


def test_an_opt_out_that_meets_a_change_of_address_is_not_lost(app, session, lists, rows, untick):
    for number in range(8):
        alice = make_user(session, f"alice{number}", f"x{number}@example.org")
        make_preference(session, "members", f"x{number}@example.org", True, seen=True)
        new = checked(f"y{number}@example.org")
        at_once(
            app,
            untick(alice),
            lambda own: address_changes.change(own, alice, new, actor=COMMAND_LINE, now=NOW, lists=lists),  # noqa: B023
        )
        assert rows()[new.canonical][0] is False


def test_two_who_move_to_each_others_address_at_once_do_not_lock_each_other_out(app, session, lists, held):
    for number in range(8):
        names = [f"x{number}@example.org", f"y{number}@example.org"]
        alice, bob = (make_user(session, f"user{each}", each) for each in names)

        def change(user_id, spelling):
            return lambda own: address_changes.change(
                own, user_id, checked(spelling), actor=COMMAND_LINE, now=NOW, lists=lists
            )

        at_once(app, change(alice, names[1]), change(bob, names[0]))
        assert (held(alice), held(bob)) == ([names[1]], [names[0]])


@pytest.mark.parametrize("act", ["deactivate", "delete"])
def test_a_change_of_address_that_meets_the_end_of_the_account_leaves_no_half(app, session, lists, act):
    for number in range(4):
        name = f"alice{number}"
        alice = make_user(session, name, f"x{number}@example.org")
        make_preference(session, "members", f"x{number}@example.org", True, seen=True)
        new = checked(f"y{number}@example.org")
        end = {
            "deactivate": lambda own: users.deactivate(own, name, now=NOW),  # noqa: B023
            "delete": lambda own: users.delete(own, name, erase=False, now=NOW, lists=lists),  # noqa: B023
        }[act]

        def change(own, alice=alice, new=new):
            with suppress(UnknownUserError):
                address_changes.change(own, alice, new, actor=COMMAND_LINE, now=NOW, lists=lists)

        at_once(app, end, change)
        managed = session.scalars(select(Address.canonical).where(addresses.is_managed(lists["members"]))).all()
        session.rollback()
        assert managed == []


def test_an_address_that_is_forgotten_while_somebody_takes_it_is_held_all_the_same(app, session, lists, held):
    for number in range(8):
        alice = make_user(session, f"alice{number}", f"x{number}@example.org")
        bob = make_user(session, f"bob{number}", f"b{number}@example.org")
        taken = checked(f"x{number}@example.org")
        left = checked(f"y{number}@example.org")
        at_once(
            app,
            lambda own: address_changes.change(own, alice, left, actor=COMMAND_LINE, now=NOW, lists=lists),  # noqa: B023
            lambda own: address_changes.change(own, bob, taken, actor=COMMAND_LINE, now=NOW, lists=lists),  # noqa: B023
        )
        assert held(bob) == [f"x{number}@example.org"]
