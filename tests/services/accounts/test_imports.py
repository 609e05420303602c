"""Accounts from a CSV file: what is accepted, what is a bad line, and that it is all or nothing."""

from collections.abc import Iterable
from typing import Any

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select
from sqlalchemy.orm import Session

from portal.errors import BadInputError, DuplicateError
from portal.models import Address, Preference, User, UserAddress
from portal.services.accounts import addresses, imports, passwords, sessions, users
from tests.factories import NOW, make_address, make_preference, make_user

HEADER = "username,email,name,groups,superuser\n"


def run(session: Session, text: str | bytes | Iterable[bytes], **values: Any) -> imports.Imported:
    if isinstance(text, str):
        text = text.encode()
    lines = text.splitlines(keepends=True) if isinstance(text, bytes) else text
    return imports.import_users(session, lines, now=NOW, lists=None, **values)


def usernames(session: Session) -> list[str]:
    return [each.username for each in users.list_users(session)]


def test_each_line_makes_an_account(session):
    text = HEADER + (
        'alice,Alice@Example.org,"Liddell, Alice",board; full members,yes\n'
        "bob,bob@example.org,,,no\n"
        "李小龙,bruce@example.org,李小龙,board,0\n"
    )
    assert run(session, text) == imports.Imported(3, ())
    alice = users.get_profile(session, "alice")
    assert (alice.name, alice.email, alice.groups) == ("Liddell, Alice", "Alice@Example.org", ("board", "full members"))
    assert (alice.is_superuser, alice.is_active, alice.created_at) == (True, True, NOW)
    assert users.get_profile(session, "bob").groups == ()
    assert users.get_profile(session, "李小龙").groups == ("board",)


@pytest.mark.parametrize(
    "text",
    [
        "\ufeffusername,email\r\n\r\nalice,alice@example.org\r\n,\r\nbob,bob@example.org",
        "\n  \nEMAIL,Username\nalice@example.org,alice\nbob@example.org , bob\n",
        'email,superuser,username\n"alice@example.org","","alice"\nbob@example.org,,bob\n\n',
    ],
)
def test_marks_blank_lines_and_any_order_of_columns_are_accepted(session, text):
    assert run(session, text).created == 2
    assert usernames(session) == ["alice", "bob"]


@pytest.mark.parametrize("text", ["", "\n\n", "alice,alice@example.org\n", "username\nalice\n", "\0", b"\xff\xfe\n"])
@pytest.mark.parametrize("more", ["", "alice,alice@example.org\n"])
def test_input_without_a_header_is_refused(session, text, more):
    text = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(BadInputError):
        run(session, text + more.encode() if more else text)
    assert usernames(session) == []


@pytest.mark.parametrize(
    "header", ["username,email,emial", "username,email,email", "username;email", "username,email,"]
)
def test_a_header_that_cannot_be_meant_is_refused(session, header):
    with pytest.raises(BadInputError, match="line 1"):
        run(session, header + "\nalice,alice@example.org\n")


BAD = [
    ("alice,no address,,,", "not an e-mail address"),
    ("alice,,,,", "not an e-mail address"),
    (",alice@example.org,,,", "not a username"),
    ("a b,alice@example.org,,,", "not a username"),
    ("bob@example.org,alice@example.org,,,", "own address"),
    ("alice,alice@example.org,,,perhaps", "yes or no"),
    ("alice,alice@example.org,,a\0b,", "not a group"),
    ("alice,alice@example.org,a\0b,,", "not a name"),
    ("ali\0ce,alice@example.org,,,", "not a username"),
    ("alice,alice@example.org", "2 cells"),
    ("alice,alice@example.org,,,,", "6 cells"),
    ('alice,alice@example.org,"never closed,,', "not CSV"),
    ('alice,alice@example.org,"a"b,,', "not CSV"),
    ("alice,alice@example.org,a\rb,,", "not CSV"),
    ("alice,alice@example.org," + "x" * 200_000 + ",,", "not CSV"),
    ("alice,alice@example.org," + "x" * 200 + ",,", "not a name"),
    (b"alice,alice@example.org,\xff,,", "not UTF-8"),
    (b"alice,alice@example.org,\xed\xa0\x80,,", "not UTF-8"),
    ("taken,new@example.org,,,", "already"),
    ("TAKEN,new@example.org,,,", "already"),
    ("CHARLIE,charlie@example.org,,,", "line 2"),
]


@pytest.mark.parametrize(("line", "words"), BAD)
def test_one_bad_line_is_named_and_nothing_is_imported(session, line, words):
    make_user(session, "taken")
    raw = line if isinstance(line, bytes) else line.encode()
    good = [b"charlie,charlie@example.org,,,\n"], [b"dora,dora@example.org,,,\n"]
    result = run(session, [HEADER.encode(), *good[0], raw + b"\n", *good[1]])
    assert result.created == 0
    (problem,) = result.problems
    assert problem.line == 3
    assert words in problem.words
    assert len(problem.words) < 300
    assert problem.words.isprintable()
    assert usernames(session) == ["taken"]
    assert session.scalar(select(func.count()).select_from(Address)) == 1


def test_every_bad_line_is_named_in_order(session):
    make_user(session, "taken")
    result = run(session, HEADER + "taken,a@example.org,,,\nx,,,,\nok,ok@example.org,,,\ny,y,,,\n")
    assert [problem.line for problem in result.problems] == [2, 3, 5]


def test_accounts_may_share_an_address_new_or_not(session):
    make_user(session, "alice", "Both@example.org")
    assert run(session, "username,email\nbob,both@example.org\ncharlie,BOTH@example.org\n").created == 2
    assert {each.email for each in users.list_users(session)} == {"Both@example.org"}
    assert session.scalar(select(func.count()).select_from(UserAddress)) == 3


def test_an_address_that_nobody_held_takes_the_new_spelling_and_is_not_erased(session):
    address_id = make_address(session, "OLD@example.org")
    session.get(Address, address_id).erase = True
    session.commit()
    make_preference(session, "members", "old@example.org", True, departed=True, left_by=9, moved_to=address_id)
    run(session, "username,email\nalice,Old@example.org\nbob,oLD@example.org\n")
    address = session.get(Address, address_id)
    assert (address.spelling, address.erase) == ("Old@example.org", False)
    preference = session.scalars(select(Preference)).one()
    assert (preference.departed, preference.moved_to, preference.version > 0) == (False, None, True)


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$", "v1$"])
def test_hashes_may_be_brought_along(session, prefix):
    stored = passwords.hash_password("old password", rounds=4)
    if prefix != "v1$":
        stored = prefix + bcrypt.hashpw(b"old password", bcrypt.gensalt(4)).decode()[4:]
    assert run(session, f"username,email,password_hash\nalice,alice@example.org,{stored}\n").created == 1
    values = {"origin": sessions.Origin(""), "remember": False, "now": NOW, "rounds": 4}
    assert sessions.log_in(session, name="alice", password="old password", **values)


def test_without_a_hash_nobody_can_log_in_and_another_kind_is_a_bad_line(session):
    run(session, "username,email,password_hash\nalice,alice@example.org,\n")
    assert session.scalars(select(User.password_hash)).one() == passwords.UNUSABLE
    session.rollback()
    result = run(session, "username,email,password_hash\nbob,bob@example.org,canary$1$md5\n")
    assert "password_hash" in result.problems[0].words
    assert "canary" not in result.problems[0].words


def test_domains_of_an_intranet_are_accepted_where_they_are_allowed(session):
    text = "username,email\nalice,alice@intranet\n"
    assert run(session, text).created == 0
    assert run(session, text, special_domains=["intranet"]).created == 1


def test_a_name_taken_while_the_file_is_read_stops_it_whole(session, monkeypatch):
    real = imports._taken

    def taken(*arguments: Any) -> Any:
        found = real(*arguments)
        make_user(session, "bob")
        return found

    monkeypatch.setattr(imports, "_taken", taken)
    with pytest.raises(DuplicateError):
        run(session, "username,email\nalice,alice@example.org\nbob,b@example.org\n")
    assert usernames(session) == ["bob"]


def test_a_failure_at_the_end_leaves_nothing(session, monkeypatch):
    def fail(*_arguments: object, **_values: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(addresses, "clear_departures_of", fail)
    with pytest.raises(ZeroDivisionError):
        run(session, "username,email\nalice,alice@example.org\n")
    assert usernames(session) == []
    assert session.scalar(select(func.count()).select_from(Address)) == 0


def test_the_number_of_statements_does_not_grow_with_the_lines(session):
    def statements(start: int, count: int) -> int:
        seen = []
        listener = lambda *each: seen.append(each[2])  # noqa: E731
        event.listen(session.get_bind(), "before_cursor_execute", listener)
        lines = [f"user{number},user{number}@example.org,,board;tech,\n" for number in range(start, start + count)]
        try:
            assert run(session, HEADER + "".join(lines)).created == count
        finally:
            event.remove(session.get_bind(), "before_cursor_execute", listener)
        return len(seen)

    assert statements(0, 10) == statements(10, 500)


@settings(max_examples=100)
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_whatever_the_bytes_are_it_ends_in_an_answer(session, lines):
    result = run(session, [b"username,email,name,groups,superuser\n", *lines])
    assert result.created + len(result.problems) <= len(lines)
    for username in usernames(session):
        users.delete(session, username, now=NOW, erase=False, lists=None)
