"""Which usernames are allowed. SECURITY: those of mixed scripts are refused."""

import pytest

from portal.domain import usernames
from portal.errors import BadInputError


@pytest.mark.parametrize(
    "name",
    [
        *(
            "alice",
            "Zoë",
            "o'neill-7",
            "алиса",
            "νίκος",
            "たろう2",
            "太郎タロウ",
            "김철수",
            "42",
            "ẞ",
            "a·b",
            "μ",
            "שרה",
        ),
        *("alice@example.org", "алиса@example.org"),
    ],
)
def test_letters_of_one_script_or_of_those_written_together_are_fine(name: str) -> None:
    assert usernames.checked(name, own=[name]) == name


@pytest.mark.parametrize(
    "name", ["\u0430lice", "ali\u0441e", "b\u03bfb", "aliceא", "김たろう", "\u0430lice@example.org"]
)
def test_letters_of_scripts_that_are_not_written_together_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="letters of different scripts"):
        usernames.checked(name, own=[name])


@pytest.mark.parametrize("name", ["\uff41lice", "\ufb01ona", "bob\u00b2", "\u24d0lice", "\uff41lice@example.org"])
def test_forms_of_letters_that_look_like_another_name_are_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="full-width"):
        usernames.checked(name, own=[name])


@pytest.mark.parametrize("name", ["", "two words", "n" * 65, "tab\t", "nul\0", "\ud800"])
def test_what_cannot_be_typed_as_one_word_is_refused(name: str) -> None:
    with pytest.raises(BadInputError, match="not a username"):
        usernames.checked(name, own=[])


def test_with_an_at_sign_it_is_one_of_the_users_own_addresses() -> None:
    assert usernames.checked("Alice@Example.org", own=["bob@example.org", "alice@example.org"]) == "Alice@Example.org"
    for name in ("alice@example.org", "@", "alice@"):
        with pytest.raises(BadInputError, match="own address"):
            usernames.checked(name, own=["bob@example.org"])
