"""Usernames that change: by a person, or along with the address that they are."""

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.errors import BadInputError, DuplicateError, LogInFailedError, UnknownUserError
from portal.models import AccountChange, Base, Run
from portal.services.accounts import address_changes, addresses, directory, log, passwords, profiles, sessions, users
from portal.services.history import COMMAND_LINE
from tests.factories import NOW, make_user

PASSWORD = "canary battery staple"
HASH = passwords.hash_password(PASSWORD, rounds=4)


def move(session: Session, user_id: int, text: str) -> str:
    """Change the main address; return the username that the account has then."""
    address_changes.change(session, user_id, addresses.checked(text), actor=COMMAND_LINE, now=NOW, lists=None)
    return profiles.by_id(session, user_id).username


def log_in(session: Session, name: str) -> str:
    origin = sessions.Origin("192.0.2.1")
    return sessions.log_in(session, name=name, password=PASSWORD, origin=origin, remember=False, now=NOW, rounds=4)


def test_a_username_that_is_the_main_address_changes_with_it(session: Session) -> None:
    user_id = make_user(session, "Alice@example.org", "alice@example.org", password_hash=HASH)
    assert move(session, user_id, "Alice@new.example.org") == "Alice@new.example.org"
    assert log_in(session, "alice@new.example.org")
    with pytest.raises(LogInFailedError):
        log_in(session, "alice@example.org")
    (found,) = directory.page(session, directory.Wanted("alice@new"), lists={}).people
    assert found.profile.id == user_id
    assert [each.what for each in log.recent(session, user_id=user_id)] == [
        "renamed",
        "address changed",
    ]


@pytest.mark.parametrize("username", ["alice", "other@example.org"])
def test_a_username_that_is_not_the_main_address_stays(session: Session, username: str) -> None:
    user_id = make_user(session, username, "alice@example.org", "other@example.org")
    assert move(session, user_id, "alice@new.example.org") == username


def test_a_username_stays_where_the_new_one_is_taken_or_cannot_be(session: Session) -> None:
    user_id = make_user(session, "alice@example.org", "alice@example.org", password_hash=HASH)
    make_user(session, "taken@example.org", "else@example.org")
    assert move(session, user_id, "taken@example.org") == "alice@example.org"
    move(session, user_id, "alice@example.org")
    assert move(session, user_id, f"{'l' * 60}@example.org") == "alice@example.org"
    assert log_in(session, f"{'l' * 60}@example.org")


def test_a_user_is_renamed_and_logs_in_by_the_new_name(session: Session) -> None:
    user_id = make_user(session, "alice", password_hash=HASH)
    token = log_in(session, "alice")
    assert users.rename(session, "ALICE", to="Zoë") == "Zoë"
    assert profiles.id_of(session, "zoë") == user_id
    assert sessions.member(session, token, now=NOW).username == "Zoë"
    assert log_in(session, "zoe\u0308")
    with pytest.raises(LogInFailedError):
        log_in(session, "alice")
    (line,) = log.recent(session, user_id=user_id)
    assert (line.username, line.what, line.new, line.actor) == ("alice", "renamed", "Zoë", "command line")
    assert users.rename(session, "zoë", to="ZOË") == "ZOË", "the same name in capitals is free"
    assert users.rename(session, "zoë", to="Alice@example.org") == "Alice@example.org"


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("alice", "BOB", DuplicateError),
        ("alice", "bob@example.org", BadInputError),
        ("alice", "two words", BadInputError),
        ("alice", "\u0430lice", BadInputError),
        ("nobody", "somebody", UnknownUserError),
    ],
)
def test_a_name_that_is_taken_or_cannot_be_renames_nobody(
    session: Session, old: str, new: str, error: type[Exception]
) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    with pytest.raises(error):
        users.rename(session, old, to=new)
    assert [each.username for each in profiles.list_all(session)] == ["alice", "bob"]
    assert session.scalar(select(func.count()).select_from(AccountChange)) == 0


def test_an_erased_account_is_in_no_table_under_any_name_that_it_had(session: Session) -> None:
    user_id = make_user(session, "first@example.org", "first@example.org")
    move(session, user_id, "second@example.org")
    session.add(
        Run(list_handle="members", kind="sync", asked_by_id=user_id, asked_by="first@example.org", started_at=NOW)
    )
    session.commit()
    users.rename(session, "second@example.org", to="third")
    users.delete(session, "third", now=NOW, erase=True, lists={})
    dump = [str(row) for table in Base.metadata.sorted_tables for row in session.execute(select(table))]
    assert not [row for row in dump if "first@" in row or "second@" in row]


def test_holders_of_an_address_are_named_whatever_its_spelling(session: Session) -> None:
    make_user(session, "alice", "both@example.org")
    make_user(session, "bob", "bob@example.org", "both@example.org", is_active=False)
    assert addresses.holders(session, addresses.checked("BOTH@example.org")) == ("alice", "bob")
    assert addresses.holders(session, addresses.checked("nobody@example.org")) == ()
