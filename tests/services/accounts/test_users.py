"""Accounts: made, changed, locked, deleted, and what each does to sessions, lists and history."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.errors import (
    BadInputError,
    DuplicateError,
    PortalError,
    RateLimitedError,
    UnknownUserError,
    WeakPasswordError,
    WrongPasswordError,
)
from portal.models import Address, History, LoginSession, Preference, User, UserAddress, UserGroup
from portal.services import history
from portal.services.accounts import address_changes, addresses, password_changes, passwords, profiles, sessions, users
from tests.conftest import Clock
from tests.factories import NOW, make_preference, make_user

PASSWORD = "canary battery staple"
OTHER = "another canary altogether"
HASH = passwords.hash_password(PASSWORD, rounds=4)


def create(session: Session, username: str = "alice", email: str = "", **values: Any) -> int:
    address = addresses.checked(email or f"{username}@example.org")
    values = {"now": NOW, "rounds": 4, "lists": None, **values}
    return users.create(session, username=username, address=address, **values)


def log_in(session: Session, name: str = "alice", password: str = PASSWORD, **changed: Any) -> str:
    values = {"origin": sessions.Origin("192.0.2.1"), "remember": True, "now": NOW, "rounds": 4, **changed}
    return sessions.log_in(session, name=name, password=password, **values)


def is_alive(session: Session, token: str) -> bool:
    return sessions.member(session, token, now=NOW) is not None


def column(session: Session, statement: Any) -> list[Any]:
    found = list(session.scalars(statement))
    session.rollback()
    return found


def test_a_new_account_holds_its_address_and_logs_in(session):
    user_id = create(session, name=" Alice Liddell ", password=PASSWORD, groups=["board", " tech ", "board"])
    assert profiles.by_username(session, "ALICE") == profiles.Profile(
        id=user_id,
        username="alice",
        name="Alice Liddell",
        email="alice@example.org",
        addresses=("alice@example.org",),
        groups=("board", "tech"),
        is_superuser=False,
        is_active=True,
        created_at=NOW,
        last_login_at=None,
        member_key=None,
        deactivated_by_import=False,
    )
    assert profiles.id_of(session, "alice") == user_id
    assert is_alive(session, log_in(session))
    assert profiles.by_id(session, user_id).last_login_at == NOW


def test_an_account_without_a_password_opens_to_nobody(session):
    create(session)
    assert column(session, select(User.password_hash)) == [passwords.UNUSABLE]


def test_a_profile_lists_the_main_address_first(session):
    user_id = make_user(session, "alice", "z@example.org", "a@example.org", "b@example.org")
    found = profiles.by_id(session, user_id)
    assert found.email == "z@example.org"
    assert found.addresses == ("z@example.org", "a@example.org", "b@example.org")


@pytest.mark.parametrize("username", ["alice", "ALICE", "Alice"])
def test_a_username_is_taken_whatever_the_case(session, username):
    create(session)
    with pytest.raises(DuplicateError):
        create(session, username, "other@example.org")
    assert column(session, select(Address.canonical)) == ["alice@example.org"]


def test_usernames_are_compared_in_nfc(session):
    create(session, "zo\N{LATIN SMALL LETTER E WITH DIAERESIS}", "zoe@example.org")
    assert profiles.id_of(session, "ZOE\N{COMBINING DIAERESIS}")
    with pytest.raises(DuplicateError):
        create(session, "Zoe\N{COMBINING DIAERESIS}", "zoe@example.org")


@pytest.mark.parametrize(
    "username",
    ["", " ", "a b", "a\tb", "a\nb", "a\0b", "a\u200bb", "a\u202eb", "\ud800", "x" * 65, "a\N{NO-BREAK SPACE}b"],
)
def test_these_are_no_usernames(session, username):
    with pytest.raises(BadInputError) as caught:
        create(session, username, "alice@example.org")
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("username", ["-rf", "=cmd|'/C'!A0", "$HOME", "`id`", "../etc/passwd", "李小龙", "x" * 64])
def test_these_are_usernames(session, username):
    create(session, username, "alice@example.org")
    assert profiles.by_username(session, username).username == username


def test_a_username_with_an_at_is_the_users_own_address_or_refused(session):
    create(session, "Alice@example.org", "alice@EXAMPLE.org")
    for username in ("bob@example.org", "@", "bob@", "@bob"):
        with pytest.raises(BadInputError, match="own address"):
            create(session, username, "mallory@example.org")


@pytest.mark.parametrize("name", ["a\nb", "\0", "\ud800", "x" * 121])
def test_these_are_no_names(session, name):
    with pytest.raises(BadInputError):
        create(session, name=name)


@pytest.mark.parametrize("group", ["", " ", "a;b", "a\nb", "\ud800", "x" * 65])
def test_these_are_no_groups(session, group):
    with pytest.raises(BadInputError):
        create(session, groups=[group])


@pytest.mark.parametrize("password", ["short", "password1234", "alice@example.org", "liddell-liddell"])
def test_a_weak_password_makes_no_account(session, password):
    with pytest.raises(WeakPasswordError):
        create(session, password=password, name="liddell")
    assert column(session, select(User.id)) == []


@pytest.mark.parametrize("username", ["nobody", "", "\0", "\ud800", "x" * 1000])
def test_who_does_not_exist_is_said_to_be_unknown(session, username):
    calls: list[Callable[[], object]] = [
        lambda: profiles.by_username(session, username),
        lambda: profiles.id_of(session, username),
        lambda: password_changes.set_password(session, username, password=PASSWORD, rounds=4),
        lambda: users.set_groups(session, username, groups=[], now=NOW, lists=None),
        lambda: users.activate(session, username, now=NOW, lists=None),
        lambda: users.deactivate(session, username, now=NOW),
        lambda: users.delete(session, username, now=NOW, erase=False, lists=None),
        lambda: users.grant(session, username),
        lambda: users.revoke(session, username, now=NOW),
        lambda: profiles.by_id(session, 1),
    ]
    for call in calls:
        with pytest.raises(UnknownUserError):
            call()


def test_all_accounts_are_listed_by_name_with_groups_and_addresses(session, monkeypatch):
    monkeypatch.setattr(users, "_BLOCK", 2)
    for username in ("charlie", "Alice", "bob", "dora"):
        make_user(session, username, groups=(f"{username}s",))
    found = list(profiles.list_all(session))
    assert [each.username for each in found] == ["Alice", "bob", "charlie", "dora"]
    assert [each.groups for each in found] == [("Alices",), ("bobs",), ("charlies",), ("doras",)]
    assert found[1].email == "bob@example.org"


def test_nothing_is_open_while_a_listed_account_is_looked_at(session):
    make_user(session, "alice")
    for _ in profiles.list_all(session):
        assert not session.in_transaction()


def test_another_password_ends_every_session(session):
    make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    password_changes.set_password(session, "alice", password=OTHER, rounds=4)
    assert not is_alive(session, token)
    assert is_alive(session, log_in(session, password=OTHER))
    with pytest.raises(WeakPasswordError):
        password_changes.set_password(session, "alice", password="alice@example.org", rounds=4)


def change(session: Session, user_id: int, current: str = PASSWORD, new: str = OTHER, token: str = "") -> str:
    return password_changes.change_password(session, user_id, current=current, new=new, token=token, now=NOW, rounds=4)


def test_a_member_changes_the_password_and_stays_logged_in_here_only(session):
    alice = make_user(session, "alice", password_hash=HASH)
    own, other = log_in(session), log_in(session)
    renewed = change(session, alice, token=own)
    assert [is_alive(session, each) for each in (renewed, own, other)] == [True, False, False]
    assert is_alive(session, log_in(session, password=OTHER))


def test_a_wrong_current_password_changes_nothing(session):
    alice = make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    with pytest.raises(WrongPasswordError):
        change(session, alice, current="not it")
    assert is_alive(session, token)
    assert is_alive(session, log_in(session))


def test_the_current_password_cannot_be_guessed_without_end(session):
    alice = make_user(session, "alice", password_hash=HASH)
    for _ in range(5):
        with pytest.raises(WrongPasswordError):
            change(session, alice, current="not it")
    with pytest.raises(RateLimitedError):
        change(session, alice)
    assert is_alive(session, log_in(session))


def test_a_weak_new_password_is_no_try(session):
    alice = make_user(session, "alice", password_hash=HASH)
    for _ in range(10):
        with pytest.raises(WeakPasswordError):
            change(session, alice, new="short")
    change(session, alice)


def test_groups_are_replaced(session):
    make_user(session, "alice", groups=("board", "tech"))
    users.set_groups(session, "alice", groups=["tech", "full members"], now=NOW, lists=None)
    assert profiles.by_username(session, "alice").groups == ("full members", "tech")
    users.set_groups(session, "alice", groups=[], now=NOW, lists=None)
    assert profiles.by_username(session, "alice").groups == ()


def departed(session: Session, handle: str) -> bool:
    return column(session, select(Preference.departed).where(Preference.list_handle == handle))[0]


def test_activation_and_a_group_clear_what_was_remembered_of_a_departure(session, app):
    lists = app.extensions["portal"].catalogue().lists
    make_user(session, "alice", is_active=False)
    for handle in ("members", "board"):
        make_preference(session, handle, "alice@example.org", True, departed=True)
    users.set_groups(session, "alice", groups=["tech"], now=NOW, lists=lists)
    assert departed(session, "members")
    users.activate(session, "alice", now=NOW, lists=lists)
    assert (departed(session, "members"), departed(session, "board")) == (False, True)
    users.set_groups(session, "alice", groups=["board"], now=NOW, lists=lists)
    assert not departed(session, "board")


def test_deactivation_ends_sessions_for_good_and_activation_opens_the_account_again(session):
    make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    users.deactivate(session, "alice", now=NOW)
    assert not is_alive(session, token)
    with pytest.raises(PortalError):
        log_in(session)
    users.activate(session, "alice", now=NOW, lists=None)
    assert not is_alive(session, token)
    assert is_alive(session, log_in(session))


def test_the_role_is_given_and_taken_at_once(session):
    make_user(session, "root", is_superuser=True)
    make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    users.grant(session, "alice")
    assert sessions.member(session, token, now=NOW).is_superuser
    users.revoke(session, "alice", now=NOW)
    assert not sessions.member(session, token, now=NOW).is_superuser


@pytest.mark.parametrize(
    "act",
    [
        lambda session, username: users.deactivate(session, username, now=NOW),
        lambda session, username: users.revoke(session, username, now=NOW),
        lambda session, username: users.delete(session, username, now=NOW, erase=False, lists=None),
    ],
)
def test_the_last_active_superuser_stays(session, act):
    make_user(session, "alice", is_superuser=True)
    make_user(session, "bob", is_superuser=True, is_active=False)
    make_user(session, "charlie")
    with pytest.raises(BadInputError, match="last active superuser"):
        act(session, "alice")
    act(session, "charlie")
    act(session, "bob")
    found = profiles.by_username(session, "alice")
    assert (found.is_active, found.is_superuser) == (True, True)


def test_two_superusers_cannot_go_at_the_same_time(session):
    engine = session.get_bind()
    names = [f"root{number}" for number in range(8)]
    for name in names:
        make_user(session, name, is_superuser=True)

    def go(name: str) -> bool:
        with Session(engine) as own:
            try:
                users.deactivate(own, name, now=NOW)
            except BadInputError:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(go, names)) == [False] + [True] * 7


def test_deletion_takes_sessions_groups_and_addresses_along(session):
    alice = make_user(session, "alice", password_hash=HASH, groups=("board",))
    make_user(session, "bob")
    token = log_in(session)
    gone = users.delete(session, "ALICE", now=NOW, erase=False, lists=None)
    assert (gone.id, gone.username, gone.email) == (alice, "alice", "alice@example.org")
    assert not is_alive(session, token)
    for table in (LoginSession, UserGroup):
        assert column(session, select(func.count()).select_from(table)) == [0]
    assert column(session, select(Address.canonical)) == ["bob@example.org"]
    assert column(session, select(User.username)) == ["bob"]


def test_deletion_keeps_what_was_chosen_and_its_history(session):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    write_history(session, actor="alice", actor_id=1)
    users.delete(session, "alice", now=NOW, erase=False, lists=None)
    assert column(session, select(Preference.subscribed)) == [True]
    assert column(session, select(History.address)) == ["alice@example.org"]
    assert column(session, select(History.actor)) == ["alice"]


def write_history(session: Session, *, actor: str, actor_id: int) -> None:
    held = select(UserAddress.address_id, Address.canonical).join(Address).where(UserAddress.user_id == actor_id)
    address_id, address = session.execute(held).one()
    values = {"at": NOW, "list_handle": "members", "subscribed": True, "source": "user"}
    session.add(History(address_id=address_id, address=address, actor=actor, actor_id=actor_id, **values))
    session.commit()


def test_erasure_leaves_no_trace_of_an_address_that_is_a_username_as_well(session):
    alice = make_user(session, "alice@example.org", "alice@example.org")
    write_history(session, actor="alice@example.org", actor_id=alice)
    users.delete(session, "alice@example.org", now=NOW, erase=True, lists={})
    (row,) = session.execute(select(History.address, History.actor, History.actor_id)).all()
    assert row.actor_id == alice
    assert "alice" not in row.address + row.actor
    assert column(session, select(Address.canonical)) == []


def test_a_failure_in_the_middle_leaves_the_account_whole(session, monkeypatch):
    make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    monkeypatch.setattr(addresses, "release", fail)
    with pytest.raises(ZeroDivisionError):
        users.delete(session, "alice", now=NOW, erase=True, lists=None)
    assert is_alive(session, token)
    monkeypatch.setattr(addresses, "give", fail)
    with pytest.raises(ZeroDivisionError):
        create(session, "bob")
    assert column(session, select(User.username)) == ["alice"]


def fail(*_arguments: object, **_values: object) -> None:
    raise ZeroDivisionError


def test_a_password_is_in_no_error(session):
    alice = make_user(session, "alice", password_hash=HASH)
    messages = []
    for act in (
        lambda: change(session, alice, current="canary but wrong"),
        lambda: change(session, alice, new="canary"),
        lambda: create(session, "bob", password="canary"),
        lambda: password_changes.set_password(session, "alice", password="canary\0canary", rounds=4),
    ):
        with pytest.raises(PortalError) as caught:
            act()
        messages.append(str(caught.value))
    assert "canary" not in "".join(messages)


def test_an_address_change_leaves_sessions_alone(session, clock: Clock):
    alice = make_user(session, "alice", password_hash=HASH)
    token = log_in(session)
    new = addresses.checked("alice@example.net")
    later = NOW + timedelta(minutes=1)
    address_changes.change(session, alice, new, actor=history.COMMAND_LINE, now=later, lists=None)
    assert is_alive(session, token)
    assert profiles.by_id(session, alice).email == "alice@example.net"
