"""Sympa: the meaning of its messages, and when its dump can be trusted."""

import errno
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import CallFailedError, ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import registry
from portal.listmanagers.base import ListManager, OddSubscriber, Result
from portal.listmanagers.sympa import Settings
from tests.fakes.sympa import FakeSympa

OWN = "ants@lists.example.org"


@pytest.fixture
def fake(tmp_path: Path) -> FakeSympa:
    fake = FakeSympa(tmp_path / "sympa")
    fake.set_roster("ants", ["alice@example.org"], digest=["dora@example.org"], concealed=["carol@example.org"])
    return fake


def _open(fake: FakeSympa, name: str = "ants", **settings) -> ListManager:
    return registry.open_list(registry.read_settings("sympa", {**fake.table(), **settings}), name)


def _actions(fake: FakeSympa) -> list[str]:
    return [call["argv"][0] for call in fake.calls()]


def test_the_defaults_are_those_of_debian():
    settings = registry.read_settings("sympa", {}).settings
    assert settings == Settings()
    assert (settings.program, settings.data) == ("/usr/bin/sympa", Path("/var/lib/sympa/list_data"))
    assert settings.batch == 200


def test_the_roster_holds_those_who_conceal_themselves_and_those_who_get_digests(fake):
    assert set(_open(fake).roster()) == {"alice@example.org", "carol@example.org", "dora@example.org"}
    assert _actions(fake) == ["dump"]


def test_a_check_says_which_sympa_answered(fake):
    assert _open(fake).check() == f"Sympa 6.2.70: {OWN} found, subscribers: 3"


def test_a_list_is_called_with_its_domain_and_in_lower_case(fake):
    for name in ("ants", "Ants", OWN, "Ants@Lists.Example.ORG"):
        assert len(_open(fake, name).roster()) == 3
    assert len(_open(fake, OWN, domain="").roster()) == 3
    assert {call["argv"][-1] for call in fake.calls()} == {OWN}


@pytest.mark.parametrize("name", ["ants", "", "*", "-x@example.org", "a b@example.org", "../x@example.org", "a/b@c.d"])
def test_a_name_without_a_domain_or_that_means_more_than_one_list_is_refused(fake, name):
    with pytest.raises(ConfigurationError, match="LIST@DOMAIN"):
        _open(fake, name, domain="")


def test_a_list_of_another_domain_is_found_in_its_folder_even_beside_a_namesake(fake):
    fake.set_roster("ants@ants.example", ["queen@ants.example"])
    assert _open(fake, "ants@ants.example").roster() == ["queen@ants.example"]
    assert len(_open(fake).roster()) == 3
    assert _open(fake, "ants@ants.example").roster() == ["queen@ants.example"]


def test_everything_is_silent_and_addresses_go_in_on_stdin(fake):
    manager = _open(fake)
    manager.add(["bob@example.org", "-rf@example.org"])
    manager.remove(["bob@example.org"])
    assert fake.calls() == [
        {"argv": ["add", "--force", "--quiet", OWN], "stdin": "bob@example.org\n-rf@example.org\n"},
        {"argv": ["del", "--force", "--quiet", OWN], "stdin": "bob@example.org\n"},
    ]


def test_without_an_address_to_send_no_command_is_run(fake):
    _open(fake).add(["not an address"])
    _open(fake).remove(["not an address"])
    assert fake.calls() == []


def test_each_line_is_an_outcome_in_sympas_own_words_whatever_the_exit_code(fake):
    fake.act(ban=["x@spam.example"])
    outcomes = _open(fake).add(["Bob@example.org", "ALICE@example.org", "x@spam.example", "foo@bar", OWN])
    assert {address: tuple(outcome) for address, outcome in outcomes.items()} == {
        "Bob@example.org": (Result.DONE, "User bob@example.org is now subscriber of list ants."),
        "ALICE@example.org": (Result.ALREADY, "The User 'alice@example.org' is already subscriber of list ''."),
        "x@spam.example": (Result.REJECTED, 'Address "x@spam.example" is blocklisted'),
        "foo@bar": (Result.REJECTED, 'Address "foo@bar" is incorrect'),
        OWN: (Result.REJECTED, f'Address "{OWN}" is the address of the list'),
    }
    removed = _open(fake).remove(["bob@example.org", "eve@example.org"])
    assert removed["bob@example.org"] == (
        Result.DONE,
        f"The user bob@example.org has been removed from the list {OWN}.",
    )
    assert removed["eve@example.org"] == (Result.ALREADY, "E-mail address eve@example.org was not found in list .")


def test_of_whom_sympa_says_nothing_nothing_is_believed(fake):
    fake.act(mute=["bob@example.org"])
    outcomes = _open(fake).add(["bob@example.org", "eve@example.org"])
    assert outcomes["bob@example.org"] == (Result.REJECTED, "Sympa reported nothing about this address")
    assert outcomes["eve@example.org"].result is Result.DONE
    with pytest.raises(ListManagerUnavailableError, match="reported nothing about any address"):
        _open(fake).remove(["bob@example.org"])


@pytest.mark.parametrize(("address", "words"), [("#hash@example.org", "comment"), ("jörg@example.org", "ASCII")])
def test_what_sympa_would_misread_is_refused(fake, address, words):
    for call in (_open(fake).add, _open(fake).remove):
        outcome = call([address])[address]
        assert outcome.result is Result.REJECTED
        assert words in outcome.words
    assert fake.calls() == []


def test_a_list_that_sympa_does_not_know_is_no_such_list(fake):
    manager = _open(fake, "nolist")
    for call in (manager.roster, manager.check, lambda: manager.add(["a@example.org"])):
        with pytest.raises(NoSuchListError, match=r"nolist@lists\.example\.org: sympa \w+: Sympa has no list"):
            call()


@pytest.mark.parametrize("call", ["add", "remove"])
def test_a_broken_database_is_told_in_sympas_words_and_not_in_its_noise(fake, call):
    fake.act(no_database=True)
    with pytest.raises(ListManagerUnavailableError, match=r"exit code \d+: \w+ \[intern\] Attempts to \w+ some users"):
        getattr(_open(fake), call)(["bob@example.org"])


# --- the dump


def test_an_empty_list_is_believed_when_the_database_answers(fake):
    fake.set_roster("ants", [])
    assert _open(fake).roster() == []
    assert _actions(fake) == ["dump", "del", "dump"]
    assert fake.calls()[1] == {"argv": ["del", "--force", "--quiet", OWN], "stdin": f"{OWN}\n"}


def test_a_database_that_is_gone_makes_no_empty_list_though_sympa_says_all_is_well(fake):
    fake.act(no_database=True)
    with pytest.raises(ListManagerUnavailableError, match=r"\[intern\].*the roster is empty"):
        _open(fake).roster()


def test_a_database_that_was_busy_for_a_moment_makes_no_empty_list(fake):
    fake.act(no_database_once=True)
    assert len(_open(fake).roster()) == 3


def test_a_dump_of_yesterday_is_no_roster(fake):
    manager = _open(fake)
    manager.roster()
    fake.set_roster("ants", ["eve@example.org"])
    fake.act(stale=True)
    with pytest.raises(ListManagerUnavailableError, match=r"wrote no new member\.dump"):
        manager.roster()


@pytest.mark.parametrize("mode", ["closed", "unsaved"])
def test_a_dump_that_did_not_happen_is_no_roster_though_the_exit_code_is_0(fake, mode):
    manager = _open(fake)
    manager.roster()
    fake.act(**{mode: True})
    with pytest.raises(ListManagerUnavailableError, match=r"exit code 0.*not dumped; check whether the list is open"):
        manager.roster()


def test_half_a_dump_is_no_roster(fake):
    fake.act(torn=True)
    with pytest.raises(ListManagerUnavailableError, match="the roster is incomplete"):
        _open(fake).roster()


def test_a_dump_on_a_full_disk_is_no_roster(fake, monkeypatch):
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_blocks=1000, f_bavail=10, f_frsize=4096))
    with pytest.raises(ListManagerUnavailableError, match="the disk is full"):
        _open(fake).roster()


def test_a_dump_in_another_place_than_the_portal_looks_is_a_failure_that_names_the_setting(fake):
    with pytest.raises(ListManagerUnavailableError, match="`data` to Sympa's folder list_data"):
        _open(fake, data=str(fake.root / "elsewhere")).roster()


def test_a_dump_larger_than_the_limit_is_not_read(fake):
    fake.set_roster("ants", [f"user{number}@example.org" for number in range(100)])
    with pytest.raises(
        ListManagerUnavailableError, match="larger than 2000 bytes; if the list is that large, raise `max_output`"
    ):
        _open(fake, max_output=2000).roster()


def test_an_odd_subscriber_is_one_without_an_account(fake):
    fake.set_roster("ants", ["x@y@example.org", "bob@example.org"])
    assert _open(fake).roster() == [OddSubscriber("x@y@example.org"), "bob@example.org"]


def test_a_program_is_split_as_a_shell_would_so_that_sudo_may_stand_before_it(fake):
    program = f"/usr/bin/env {fake.table()['program']}"
    assert len(_open(fake, program=program).roster()) == 3
    with pytest.raises(ConfigurationError, match="program is not a valid command"):
        _open(fake, program="bin/sympa")


# --- options, by dump and restore


def _options(words: str, *, is_mail_off: bool = False) -> SubscriberOptions:
    return SubscriberOptions(words, is_mail_off)


def test_a_suspension_is_carried_along_until_it_is_over(fake):
    fake.set_roster("ants", [f"{name}@example.org" for name in "abcd"])
    later, earlier = int(time.time()) + 10_000, int(time.time()) - 10_000
    fake.set_options("ants", "a@example.org", suspend=1, startdate=earlier, enddate=later)
    fake.set_options("ants", "b@example.org", suspend=1, startdate=1, enddate=earlier)
    fake.set_options("ants", "c@example.org", suspend=1, startdate=1, enddate=earlier, reception="digest")
    manager = _open(fake)
    found = manager.options([f"{name}@example.org" for name in "abcd"])
    words = f"suspend=1&startdate={earlier}&enddate={later}"
    assert found == {
        "a@example.org": _options(words, is_mail_off=True),
        "c@example.org": _options("reception=digest"),
    }
    assert manager.deliveries([f"{name}@example.org" for name in "abcd"]) == {
        "a@example.org": (False, "chosen", None),
        "c@example.org": (True, None, None),
    }
    manager.add_with_options([("new@example.org", found["a@example.org"])])
    assert manager.options(["new@example.org"]) == {"new@example.org": found["a@example.org"]}


def test_nobody_who_is_on_the_list_is_changed_by_an_add_with_options(fake):
    manager = _open(fake)
    outcomes = manager.add_with_options(
        [("Alice@example.org", _options("reception=nomail", is_mail_off=True)), ("x y", _options("reception=digest"))]
    )
    assert {address: outcome.result for address, outcome in outcomes.items()} == {
        "Alice@example.org": Result.ALREADY,
        "x y": Result.REJECTED,
    }
    assert _actions(fake) == ["dump"]


def test_somebody_who_would_get_mail_where_the_list_allows_no_mail_to_nobody_is_taken_off_again(fake):
    fake.act(not_allowed=["nomail", "digest"])
    outcomes = _open(fake).add_with_options(
        [
            ("quiet@example.org", _options("reception=nomail", is_mail_off=True)),
            ("digests@example.org", _options("reception=digest")),
        ]
    )
    assert outcomes["quiet@example.org"].result is Result.REJECTED
    assert "mail was switched off at the old address" in outcomes["quiet@example.org"].words
    assert outcomes["digests@example.org"].result is Result.DONE
    assert "quiet@example.org" not in fake.roster("ants")
    assert "digests@example.org" in fake.roster("ants")


def test_where_the_dump_cannot_be_written_only_those_who_get_mail_are_added(fake, monkeypatch):
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    quiet = ("quiet@example.org", _options("reception=nomail", is_mail_off=True))
    outcomes = _open(fake).add_with_options([quiet, ("digests@example.org", _options("reception=digest"))])
    assert outcomes["quiet@example.org"].result is Result.REJECTED
    assert outcomes["quiet@example.org"].words.endswith("member.dump cannot be written")
    assert outcomes["digests@example.org"].result is Result.DONE
    assert fake.roster("ants") - {"alice@example.org", "dora@example.org", "carol@example.org"} == {
        "digests@example.org"
    }
    assert list(_open(fake).add_with_options([quiet])) == ["quiet@example.org"]


def test_a_restore_that_did_not_happen_is_a_failure(fake):
    fake.act(unrestored=True)
    with pytest.raises(CallFailedError, match="nobody was added"):
        _open(fake).add_with_options([("new@example.org", _options("reception=digest"))])


def test_a_dump_that_cannot_be_written_after_all_is_a_failure(fake, monkeypatch):
    def full(*_ignored):
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(ListManagerUnavailableError, match="cannot be written: No space left"):
        _open(fake).add_with_options([("new@example.org", _options("reception=digest"))])
