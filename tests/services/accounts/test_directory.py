"""People are found by their names: whatever the case, the accents, the script and the order of the words."""

import pytest
from sqlalchemy.orm import Session

from portal.services.accounts import directory, users
from portal.services.accounts.directory import Wanted
from portal.services.accounts.imports import import_users
from tests.factories import NOW, make_user


@pytest.fixture
def cast(session: Session) -> None:
    names = {"alice": "Zoë Šťastná", "bob": "Νίκος Στρασσε", "charlie": "Groß 100%_ Øster", "dora": "Дора Ёлкина"}
    for username, name in names.items():
        make_user(session, username, f"{username}@example.org")
        users.set_name(session, username, name=name)


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
    assert [each.username for each in directory.find_accounts(session, Wanted(text)).profiles] == [username]
    assert [each.username for each in directory.search(session, text)] == [username]


@pytest.mark.parametrize("text", ["zoe nikos", "%", "100_", "\u0301", "zo\\"])
def test_each_word_must_fit_and_signs_of_a_pattern_are_signs(session: Session, cast: None, text: str) -> None:
    expected = ["charlie"] if text == "%" else []
    assert [each.username for each in directory.find_accounts(session, Wanted(text)).profiles] == expected
    assert [each.username for each in directory.search(session, text)] == expected


def test_accounts_are_found_however_they_were_made(session: Session) -> None:
    address = users.addresses.checked("erin@example.org")
    users.create(session, username="Ëérin", address=address, name="Ünal", now=NOW, rounds=4, lists=None)
    import_users(session, [b"username,email,name\n", "frañk,f@example.org,Gül\n".encode()], now=NOW, lists=None)
    assert [each.username for each in directory.find_accounts(session, Wanted("eerin unal")).profiles] == ["Ëérin"]
    assert [each.username for each in directory.find_accounts(session, Wanted("GUL frank")).profiles] == ["frañk"]
