"""Lists and handles."""

from dataclasses import replace

import pytest

from portal.domain.mailinglist import HANDLE, MailingList, SafetyLimits
from portal.errors import PausedError

EVERYBODY = MailingList(
    handle="members",
    name="Members",
    description="",
    email="members@lists.example.org",
    archive=None,
    sync_passwords=False,
    manager="files",
    list_name="members",
    audience=None,
    honour_list_changes=True,
    remove_on_departure=True,
    safety_limits=SafetyLimits(),
)


@pytest.mark.parametrize("handle", ["members", "a", "0", "ixp-ops", "ops.tech_2", "a" * 64])
def test_a_handle_is_a_short_plain_word(handle: str) -> None:
    assert HANDLE.fullmatch(handle)


@pytest.mark.parametrize(
    "handle", ["", "-members", ".members", "_members", "Members", "a/b", "a b", "a\n", "members@x", "é", "a" * 65]
)
def test_what_could_be_an_option_a_path_or_a_line_is_no_handle(handle: str) -> None:
    assert not HANDLE.fullmatch(handle)


def test_a_list_without_an_audience_is_offered_to_everybody() -> None:
    assert EVERYBODY.is_offered_to(frozenset())
    assert EVERYBODY.is_offered_to(frozenset({"board"}))


def test_a_list_with_an_audience_is_offered_to_its_groups_alone() -> None:
    board = replace(EVERYBODY, audience=frozenset({"board", "staff"}))

    assert board.is_offered_to(frozenset({"staff", "full"}))
    assert not board.is_offered_to(frozenset({"full"}))
    assert not board.is_offered_to(frozenset())


def test_an_empty_audience_is_nobody() -> None:
    assert not replace(EVERYBODY, audience=frozenset()).is_offered_to(frozenset({"board"}))


def test_a_paused_list_may_not_be_run() -> None:
    EVERYBODY.require_running()
    with pytest.raises(PausedError, match="members is paused"):
        replace(EVERYBODY, is_paused=True).require_running()


def test_settings_at_the_list_are_those_of_the_address() -> None:
    assert EVERYBODY.settings_of("a+b@example.org") is None
    there = replace(EVERYBODY, settings_url="https://lists.example.org/{address}?digest=1")
    assert there.settings_of("a+/b@example.org") == "https://lists.example.org/a%2B%2Fb%40example.org?digest=1"


def test_a_list_has_the_name_and_description_of_a_language_or_else_of_english_or_the_first() -> None:
    assert EVERYBODY.in_language("de") is EVERYBODY
    both = replace(EVERYBODY, names={"de": "Mitglieder", "en": "Everybody"}, descriptions={"fr": "Tout", "de": "Alle"})
    found = [(each.name, each.description) for each in map(both.in_language, ("de", "fr", "it"))]
    assert found == [("Mitglieder", "Alle"), ("Everybody", "Tout"), ("Everybody", "Tout")]


def test_a_list_is_a_key_by_all_its_fields() -> None:
    rows = {EVERYBODY: "as it was"}
    assert rows[replace(EVERYBODY)] == "as it was"
    assert replace(EVERYBODY, name="All members", names={"de": "Mitglieder"}) not in rows
