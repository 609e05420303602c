"""People are found by their names, whatever the case, accents, script and order of words, and by much else."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import delete, update
from sqlalchemy.orm import Session

from portal.models import User, UserAddress
from portal.services.accounts import directory, users
from portal.services.accounts.directory import SORTS, Status, Wanted
from tests.conftest import Clock
from tests.factories import NOW, give_name, make_preference, make_user
from tests.services.membership.conftest import Membership


def found(session: Session, wanted: Wanted, **values: Any) -> list[str]:
    """The usernames of a page."""
    page = directory.page(session, wanted, lists={}, **values)
    return [each.profile.username for each in page.people]


@pytest.fixture
def cast(session: Session) -> None:
    names = {"alice": "Zoë Šťastná", "bob": "Νίκος Στρασσε", "charlie": "Groß 100%_ Øster", "dora": "Дора Ёлкина"}
    for username, name in names.items():
        make_user(session, username, f"{username}@example.org")
        give_name(session, username, name)


TEXTS = [
    ("zoe", "alice"),
    ("ZOË", "alice"),
    ("zoe\u0308", "alice"),
    ("STASTNA zoe", "alice"),
    ("example zoë", "alice"),
    ("alice@ stast", "alice"),
    ("νικοσ", "bob"),
    ("ΣΤΡΑΣΣΕ νίκος", "bob"),
    ("gross", "charlie"),
    ("GROSS 100%_", "charlie"),
    ("ёлкина", "dora"),
    ("ЕЛКИНА ДОРА", "dora"),
]


@pytest.mark.parametrize(("text", "username"), TEXTS)
def test_people_are_found_by_words_in_any_case_form_and_order(
    session: Session, cast: None, text: str, username: str
) -> None:
    assert found(session, Wanted(text)) == [username]
    assert [each.username for each in directory.search(session, text)] == [username]


@pytest.mark.parametrize("text", ["zoe nikos", "%", "100_", "\u0301", "zo\\"])
def test_each_word_must_fit_and_signs_of_a_pattern_are_signs(session: Session, cast: None, text: str) -> None:
    expected = ["charlie"] if text == "%" else []
    assert found(session, Wanted(text)) == expected
    assert [each.username for each in directory.search(session, text)] == expected


def test_accounts_are_found_however_they_were_made(session: Session) -> None:
    address = users.addresses.checked("erin@example.org")
    users.create(session, username="Ëérin", address=address, name="Ünal", now=NOW, rounds=4, lists=None)
    Membership(session, Clock()).run("1,frañk,f@example.org,Gül,")
    assert found(session, Wanted("eerin unal")) == ["Ëérin"]
    assert found(session, Wanted("GUL frank")) == ["frañk"]


@pytest.fixture
def staff(session: Session) -> dict[str, int]:
    """People who differ in whatever they are sorted and found by; a table of them is in the order of their names."""
    ids = {
        "zoe": make_user(session, "zoe", "a@example.org", groups=("tech",), password_hash="x"),
        "ann": make_user(session, "ann", "d@example.org", is_superuser=True),
        "max": make_user(session, "max", "c@example.org", groups=("board", "tech"), is_active=False),
        "kim": make_user(session, "kim", "b@example.org"),
    }
    names = {"zoe": "Ärna", "ann": "bea", "max": "Carl", "kim": "Émile"}
    for username, name in names.items():
        give_name(session, username, name)
    changed: dict[str, dict[str, Any]] = {
        "zoe": {"last_login_at": NOW, "created_at": NOW - timedelta(days=3)},
        "max": {"last_login_at": NOW - timedelta(days=1), "created_at": NOW - timedelta(days=9)},
        "kim": {"created_at": NOW - timedelta(days=1)},
    }
    for username, values in changed.items():
        session.execute(update(User).where(User.id == ids[username]).values(values))
    session.commit()
    return ids


@pytest.mark.parametrize(
    ("sort", "order"),
    [
        ("name", "zoe ann max kim"),
        ("username", "ann kim max zoe"),
        ("address", "zoe kim max ann"),
        ("status", "zoe ann kim max"),
        ("groups", "max zoe ann kim"),
        ("made", "max zoe kim ann"),
        ("last_log_in", "max zoe ann kim"),
    ],
)
def test_a_table_is_sorted_by_each_column_both_ways(
    session: Session, staff: dict[str, int], sort: str, order: str
) -> None:
    assert found(session, Wanted(), sort=sort) == order.split()
    backwards = found(session, Wanted(), sort=sort, is_descending=True)
    first = {"status": "max", "groups": "zoe", "last_log_in": "zoe"}.get(sort, order.rsplit(maxsplit=1)[-1])
    assert backwards[0] == first, "who has nothing to be sorted by comes last both ways"
    assert sorted(backwards) == sorted(order.split())


def test_every_order_shows_everybody_once_over_all_pages(session: Session, staff: dict[str, int]) -> None:
    for sort in SORTS:
        pages = [found(session, Wanted(), sort=sort, number=number, size=1) for number in range(1, 6)]
        assert sorted(name for page in pages for name in page) == sorted(staff), sort
        assert pages[-1] == []


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (Wanted(status=Status.ACTIVE), "ann kim zoe"),
        (Wanted(status=Status.NEVER_LOGGED_IN), "ann kim"),
        (Wanted(status=Status.NO_PASSWORD), "ann kim"),
        (Wanted(status=Status.DEACTIVATED), "max"),
        (Wanted(status=Status.SUPERUSER), "ann"),
        (Wanted(status=Status.NO_ADDRESS), ""),
        (Wanted(group="tech"), "max zoe"),
        (Wanted(group="tech", status=Status.ACTIVE), "zoe"),
        (Wanted(made_since=NOW - timedelta(days=1)), "ann kim"),
        (Wanted(text="example", group="board"), "max"),
    ],
)
def test_a_filter_finds_those_who_fit(session: Session, staff: dict[str, int], wanted: Wanted, names: str) -> None:
    assert found(session, wanted, sort="username") == names.split()


def test_who_holds_no_address_is_found_so(session: Session, staff: dict[str, int]) -> None:
    session.execute(delete(UserAddress).where(UserAddress.user_id == staff["max"]))
    session.commit()
    assert found(session, Wanted(status=Status.NO_ADDRESS)) == ["max"]
    assert found(session, Wanted(), sort="address", is_descending=True) == ["ann", "kim", "zoe", "max"]


def test_who_deactivated_an_account_is_told_apart_and_a_member_key_is_found(
    session: Session, staff: dict[str, int]
) -> None:
    left = {"member_key": "M-77", "is_active": False, "deactivated_by_import": True}
    session.execute(update(User).where(User.username == "kim").values(left))
    session.commit()
    assert found(session, Wanted(status=Status.LEFT)) == ["kim"]
    assert found(session, Wanted(status=Status.BARRED)) == ["max"]
    assert found(session, Wanted(status=Status.DEACTIVATED)) == ["max", "kim"]
    assert found(session, Wanted("m-7 Émile")) == ["kim"]
    users.deactivate(session, "kim", now=NOW)
    assert found(session, Wanted(status=Status.LEFT)) == []


def test_some_accounts_alone_are_found_by_their_numbers(session: Session, staff: dict[str, int]) -> None:
    assert found(session, Wanted(user_ids=(staff["kim"], staff["ann"], 999))) == ["ann", "kim"]
    assert found(session, Wanted(user_ids=())) == []


def test_a_page_counts_everybody_whom_the_other_filters_find_by_status(session: Session, staff: dict[str, int]) -> None:
    page = directory.page(session, Wanted(group="tech", status=Status.DEACTIVATED), lists={})
    assert (page.all, page.total) == (2, 1)
    counted = {Status.ACTIVE: 1, Status.DEACTIVATED: 1, Status.BARRED: 1}
    assert {each: count for each, count in page.counts.items() if count} == counted
    assert directory.page(session, Wanted(text="nobody at all"), lists={}).counts[Status.ACTIVE] == 0


def test_a_page_counts_the_lists_that_somebody_is_subscribed_to(app: Flask, session: Session) -> None:
    lists = app.extensions["portal"].catalogue().lists
    make_user(session, "dora", "dora@example.org", "dora@home.example.org")
    make_preference(session, "members", "dora@example.org", True)
    make_preference(session, "tech", "dora@home.example.org", True)
    make_preference(session, "members", "dora@home.example.org", True)
    make_preference(session, "board", "dora@example.org", False)
    make_preference(session, "gone", "dora@example.org", True)
    (dora,) = directory.page(session, Wanted(), lists=lists).people
    assert dora.lists == 2


def test_all_who_are_wanted_are_exported_in_blocks(
    session: Session, staff: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory, "_AT_ONCE", 2)
    blocks = list(directory.export(session, Wanted()))
    assert [[each.username for each in block] for block in blocks] == [["ann", "kim"], ["max", "zoe"], []]


def test_a_whole_address_finds_no_other_that_it_is_part_of(session: Session) -> None:
    for name in ("ada", "nada"):
        make_user(session, name)
    assert [each.username for each in directory.search(session, "ADA@example.org")] == ["ada"]
    assert [each.username for each in directory.search(session, "da@example.org")] == ["ada", "nada"]
