"""Mailman 2.1: the output of its commands, and its meaning."""

import subprocess
import tomllib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from portal.domain.delivery import Delivery, MailOff
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import registry
from portal.listmanagers.base import ListManager, Outcome, Result
from portal.listmanagers.mailman2 import Settings
from tests.fakes.mailman2 import FakeMailman2


@pytest.fixture
def fake(tmp_path: Path) -> FakeMailman2:
    fake = FakeMailman2(tmp_path / "mailman")
    fake.set_roster("ants", ["alice@example.org"], digest=["Dora@example.org"])
    return fake


def _open(fake: FakeMailman2, name: str = "ants", **settings) -> ListManager:
    return registry.open_list(registry.read_settings("mailman2", {"cmds": fake.cmds, **settings}), name)


def test_the_defaults_are_the_commands_of_an_installation_and_are_silent():
    cmds = Settings().cmds
    assert cmds.list_members == "/usr/local/mailman/bin/list_members"
    assert cmds.add_members == "/usr/local/mailman/bin/add_members -r - -w n -a n"
    assert cmds.remove_members == "/usr/local/mailman/bin/remove_members -f - -n -N"
    assert cmds.changepw == "/usr/local/mailman/bin/withlist -q -l -r changepw"
    registry.read_settings("mailman2", {})


def test_commands_that_are_left_out_keep_their_default():
    settings = registry.read_settings("mailman2", {"cmds": {"changepw": "/opt/setpw"}}).settings
    assert settings.cmds.changepw == "/opt/setpw"
    assert settings.cmds.list_members == "/usr/local/mailman/bin/list_members"


def test_the_roster_holds_regular_and_digest_members(fake):
    assert list(_open(fake).roster()) == ["alice@example.org", "dora@example.org"]


def test_with_p_the_roster_is_spelled_as_it_was_added(fake):
    cmds = {**fake.cmds, "list_members": fake.cmds["list_members"] + " -p"}
    manager = registry.open_list(registry.read_settings("mailman2", {"cmds": cmds}), "ants")
    assert list(manager.roster()) == ["alice@example.org", "Dora@example.org"]


def test_an_address_that_starts_with_a_hash_is_a_subscriber_and_no_comment(fake):
    manager = _open(fake)
    assert manager.add(["#hash@example.org"])["#hash@example.org"].result is Result.DONE
    assert "#hash@example.org" in manager.roster()


def test_each_answer_of_add_members_is_an_outcome_in_mailmans_own_words(fake):
    fake.ban(r"^.*@spam\.example")
    outcomes = _open(fake).add(["bob@example.org", "ALICE@example.org", "dora@example.org", "x@spam.example"])
    assert outcomes == {
        "bob@example.org": Outcome(Result.DONE, "Subscribed"),
        "ALICE@example.org": Outcome(Result.ALREADY, "Already a member"),
        "dora@example.org": Outcome(Result.ALREADY, "Already a member"),
        "x@spam.example": Outcome(Result.REJECTED, r"Banned address (matched ^.*@spam\.example)"),
    }
    assert fake.digest_roster("ants") == {"Dora@example.org"}


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("Bad/Invalid email address: bob@example.org", Result.REJECTED),
        ("Hostile address (illegal characters): bob@example.org", Result.REJECTED),
        ("bob@example.org: Banned address (matched bob@example.org)", Result.REJECTED),
        ("Eingetragen: bob@example.org", Result.DONE),
    ],
)
def test_a_line_about_an_address_is_understood_in_english_and_passed_on_in_other_languages(fake, line, expected):
    fake.fail("add_members", exit_code=0, stdout=f"{line}\n")
    outcome = _open(fake).add(["bob@example.org"])["bob@example.org"]
    assert outcome.result is expected
    assert outcome.words
    assert not outcome.words.startswith("bob@example.org")


def test_a_list_in_another_language_is_kept_all_the_same(fake):
    fake.speak("Eingetragen")
    assert _open(fake).add(["bob@example.org"]) == {"bob@example.org": Outcome(Result.DONE, "Eingetragen")}


def test_each_answer_of_remove_members_is_an_outcome(fake):
    outcomes = _open(fake).remove(["Alice@example.org", "bob@example.org", "dora@example.org"])
    assert outcomes == {
        "Alice@example.org": Outcome(Result.DONE),
        "bob@example.org": Outcome(Result.ALREADY, "No such member"),
        "dora@example.org": Outcome(Result.DONE),
    }
    assert fake.roster("ants") == set()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("jörg@example.org", "ASCII"),
        ("joe@bücher.example", "ASCII"),
        ("joe@localhost", "at least one dot"),
        ("joe@-x.example", "not an e-mail address"),
        ("joe@x..example", "not an e-mail address"),
        ("joe@x_y.example", "at least one dot"),
        ("joe@[127.0.0.1]", "not an e-mail address"),
        ("a:joe@example.org", "not an e-mail address"),
        ("$(touch)@example.org", "not an e-mail address"),
        ('"joe"@example.org', "not an e-mail address"),
        *[(f"a{each}b@example.org", f"character {each}") for each in "|^"],
        *[(f"a{each}b@example.org", "not an e-mail address") for each in ";\\()[]"],
        ("foo bar@example.org", "not an e-mail address"),
        ("a@example.org bogus", "not an e-mail address"),
        ("a@example.org,b@example.org", "not an e-mail address"),
        ("Joe <joe@example.org>", "not an e-mail address"),
    ],
)
def test_what_mailman_would_misread_is_refused_with_a_reason_and_never_sent(fake, address, reason):
    outcome = _open(fake).add([address])[address]
    assert outcome.result is Result.REJECTED
    assert reason in outcome.words
    assert fake.calls() == []


@pytest.mark.parametrize(
    "address", ["xn--jrg-x@xn--bcher-kva.example", "a.b@example.org", "'a@x.example", "o'x@a.example"]
)
def test_what_mailman_takes_is_not_refused(fake, address):
    assert _open(fake).add([address])[address].result is Result.DONE
    assert address in fake.roster("ants")


def test_an_odd_member_from_older_days_can_still_leave(fake):
    fake.set_roster("ants", ["a|b@example.org", "joe@localhost", "jörg@example.org"])
    manager = _open(fake)
    outcomes = manager.remove(list(manager.roster()))
    assert {outcome.result for outcome in outcomes.values()} == {Result.DONE}
    assert fake.roster("ants") == set()


def test_no_command_is_ever_called_with_empty_input(fake):
    _open(fake).add(["not an address"])
    _open(fake).remove(["not an address"])
    assert fake.calls() == []


@pytest.mark.parametrize("call", ["check", "roster", "add", "remove"])
def test_a_list_that_mailman_does_not_know_is_no_such_list(fake, call):
    arguments = [["bob@example.org"]] if call in {"add", "remove"} else []
    with pytest.raises(NoSuchListError, match=r"nolist: .*no list of that name"):
        getattr(_open(fake, "nolist"), call)(*arguments)


def test_a_list_that_can_be_read_but_not_opened_for_removal_is_a_failure(fake):
    fake.fail("remove_members", exit_code=0, stdout="Error opening list ants... skipping.\n")
    with pytest.raises(ListManagerUnavailableError, match="Error opening list ants"):
        _open(fake).remove(["alice@example.org"])


@pytest.mark.parametrize(
    ("command", "call", "stdout"),
    [
        ("add_members", "add", "Usage: add_members\n\nNothing to do.\n"),
        ("add_members", "add", ""),
        ("add_members", "add", "Subscribed: bob@example.org\nSubscribed: mallory@example.org\n"),
        ("add_members", "add", "Subscribed: mallory@example.org\n"),
        ("remove_members", "remove", "Could not open file for reading: -.\n"),
        ("remove_members", "remove", "No such member: --\n"),
        ("list_members", "roster", "Usage: list_members [options] listname\n"),
    ],
)
def test_an_answer_that_fits_no_address_is_a_failure_though_the_exit_code_is_0(fake, command, call, stdout):
    fake.fail(command, exit_code=0, stdout=stdout)
    arguments = [] if call == "roster" else [["bob@example.org"]]
    with pytest.raises(ListManagerUnavailableError):
        getattr(_open(fake), call)(*arguments)


def test_a_command_that_prints_all_and_then_fails_has_failed(fake):
    fake.fail("list_members", exit_code=1, stdout="alice@example.org\n", stderr="IOError: disk\n")
    with pytest.raises(ListManagerUnavailableError, match="exit code 1: IOError: disk"):
        _open(fake).roster()


def test_the_names_of_lists_that_would_be_options_are_refused_before_any_call(fake):
    with pytest.raises(ConfigurationError, match="dash"):
        _open(fake, "-a")
    assert fake.calls() == []


def test_addresses_never_stand_in_the_command_line(fake):
    _open(fake).add(["bob@example.org"])
    _open(fake).remove(["bob@example.org"])
    assert "bob@example.org" not in "".join(word for call in fake.calls() for word in call.argv)
    assert [call.argv[-1] for call in fake.calls()] == ["ants", "ants"]


@pytest.mark.slow
def test_a_time_out_leaves_nothing_changed_and_the_next_call_works(fake):
    fake.hang("add_members", locked=True)
    with pytest.raises(ListManagerUnavailableError, match="find out what is blocking it, such as a lock"):
        _open(fake, timeout=1).add(["bob@example.org"])
    assert fake.roster("ants") == {"alice@example.org", "Dora@example.org"}
    fake.repair()
    assert _open(fake, timeout=10).add(["bob@example.org"])["bob@example.org"].result is Result.DONE


def test_a_lock_left_behind_ends_as_a_time_out_and_stays(fake):
    fake.leave_lock("ants")
    with pytest.raises(ListManagerUnavailableError, match="did not finish within"):
        _open(fake, timeout=0.6).add(["bob@example.org"])
    assert list(_open(fake).roster()) == ["alice@example.org", "dora@example.org"]
    assert fake.is_locked("ants")


def test_a_larger_batch_may_take_longer(fake):
    manager = _open(fake)
    assert (manager.timeout(0), manager.timeout(10_000)) == (60, 160)


def test_the_fake_writes_tables_that_the_portal_reads(fake):
    table = tomllib.loads(fake.toml("lists", timeout=5))["managers"]["lists"]
    assert table.pop("kind") == "mailman2"
    settings = registry.read_settings("mailman2", table)
    assert settings.settings.timeout == 5
    assert len(registry.open_list(settings, "ants").roster()) == 2


@pytest.mark.parametrize(
    ("line", "subscribed"),
    [
        ("foo bar@example.org", "foobar@example.org"),
        ("c1@example.org,c2@example.org", "c1@example.org"),
        ("$(touch pwn)@example.org", "$@example.org"),
        ("a@example.org bogus", "a@example.orgbogus"),
        ("a:b@example.org", "b@example.org"),
        ("Joe <joe@example.org>", "joe@example.org"),
    ],
)
def test_the_fake_misreads_as_the_real_one_does(fake, line, subscribed):
    said = _shell(fake, "add_members", "ants", line)
    assert said == f"Subscribed: {line}\n"
    assert subscribed in fake.roster("ants")


def test_the_fake_says_nothing_to_do_and_exits_0_when_it_gets_nothing(fake):
    assert _shell(fake, "add_members", "ants", "").endswith("Nothing to do.\n")


def test_the_fake_lies_about_a_removal_from_a_list_that_does_not_exist(fake):
    assert _shell(fake, "remove_members", "nolist", "a@example.org") == "Error opening list nolist... skipping.\n"


def test_people_can_come_and_go_while_a_command_works(fake):
    fake.meanwhile("add_members", "ants", leave=["alice@example.org"], join=["eve@example.org"])
    fake.lie("add_members", "^liar@")
    outcomes = _open(fake).add(["bob@example.org", "liar@example.org"])
    assert {outcome.result for outcome in outcomes.values()} == {Result.DONE}
    assert fake.roster("ants") == {"bob@example.org", "eve@example.org", "Dora@example.org"}


def _shell(fake: FakeMailman2, command: str, name: str, line: str) -> str:
    """Run a fake command and return what it printed; it always exits 0 here, as the real one does."""
    argv = [*fake.cmds[command].split(), name]
    return subprocess.run(argv, input=f"{line}\n", capture_output=True, text=True, check=True).stdout


def test_passwords_are_set_for_members_and_those_without_are_reported(fake):
    outcomes = _open(fake).set_passwords([("Alice@example.org", "one"), ("x@example.org", "two"), ("a b@x", "three")])
    assert outcomes == {
        "Alice@example.org": Outcome(Result.DONE),
        "x@example.org": Outcome(Result.REJECTED, "No such member"),
        "a b@x": Outcome(Result.REJECTED, "not an e-mail address"),
    }
    assert fake.passwords("ants") == {"alice@example.org": "one"}
    (call,) = fake.calls("changepw")
    assert call.stdin == "Alice@example.org\tone\nx@example.org\ttwo\n"
    assert "one" not in call.argv


def test_passwords_of_a_list_that_does_not_exist_are_told_as_such(fake):
    with pytest.raises(NoSuchListError):
        _open(fake, "bees").set_passwords([("alice@example.org", "one")])


def test_a_password_that_a_broken_helper_repeats_is_not_passed_on(fake):
    fake.fail("changepw", stderr="cannot set secret-one for alice@example.org\n" + "more secret-one\n" * 5_000)
    with pytest.raises(ListManagerUnavailableError, match=r"cannot set \.\.\. for alice") as raised:
        _open(fake).set_passwords([("alice@example.org", "secret-one")])
    assert "secret-one" not in str(raised.value)


def test_the_call_for_passwords_is_one_line_for_a_shell(fake):
    call = registry.open_list(registry.read_settings("mailman2", {"cmds": {"changepw": "/opt/set pw"}}), "it's")
    assert call.password_call() == """/opt/set pw 'it'"'"'s'"""


# --- options, by the helper for withlist


def test_options_are_known_but_of_those_whose_mail_bounced_or_is_off_for_an_unknown_reason(fake):
    fake.set_roster("ants", [f"{name}@example.org" for name in "abcde"], digest=["d@example.net", "p@example.net"])
    for name, why in zip("abcd", ("BYUSER", "BYADMIN", "BYBOUNCE", "UNKNOWN"), strict=True):
        fake.set_delivery("ants", f"{name}@example.org", why)
    fake.set_plain_digests("ants", "p@example.net")
    fake.set_delivery("ants", "p@example.net", "BYUSER")
    manager = _open(fake)
    asked = [f"{name}@example.org" for name in "Abcdex"] + ["D@example.net", "p@example.net", "no address"]
    assert manager.options(asked) == {
        "A@example.org": SubscriberOptions("by-user", is_mail_off=True),
        "b@example.org": SubscriberOptions("by-admin", is_mail_off=True),
        "D@example.net": SubscriberOptions("digest"),
        "p@example.net": SubscriberOptions("plain-digest by-user", is_mail_off=True),
    }
    assert not fake.is_locked("ants")
    assert manager.options(["no address"]) == {}
    chosen, since = MailOff.CHOSEN, datetime.fromtimestamp(1_793_692_800, UTC)
    assert manager.deliveries(asked) == {
        "A@example.org": Delivery(mail_off=chosen),
        "b@example.org": Delivery(mail_off=chosen),
        "c@example.org": Delivery(mail_off=MailOff.BOUNCES, since=since),
        "D@example.net": Delivery(is_digest=True),
        "p@example.net": Delivery(is_digest=True, mail_off=chosen),
    }


def test_addresses_are_added_with_options_by_one_call_that_writes_to_nobody(fake):
    fake.ban("^banned@")
    subscribers = [
        ("New@Example.org", SubscriberOptions("digest")),
        ("plain@example.org", SubscriberOptions("plain-digest by-admin", is_mail_off=True)),
        ("alice@example.org", SubscriberOptions("by-user", is_mail_off=True)),
        ("banned@example.org", SubscriberOptions("by-user", is_mail_off=True)),
        ("a|b@example.org", SubscriberOptions("digest")),
    ]
    outcomes = _open(fake).add_with_options(subscribers)
    assert {address: outcome.result for address, outcome in outcomes.items()} == {
        "New@Example.org": Result.DONE,
        "plain@example.org": Result.DONE,
        "alice@example.org": Result.ALREADY,
        "banned@example.org": Result.REJECTED,
        "a|b@example.org": Result.REJECTED,
    }
    assert outcomes["banned@example.org"].words == "Banned address (matched ^banned@)"
    assert fake.digest_roster("ants") == {"Dora@example.org", "New@example.org", "plain@example.org"}
    assert fake.plain_digests("ants") == {"plain@example.org"}
    assert fake.delivery("ants") == {"plain@example.org": "BYADMIN"}, "nobody who is on the list is changed"
    assert [call.command for call in fake.calls()] == ["memberoptions"]


def test_nobody_is_added_where_no_address_may_be_sent(fake):
    assert _open(fake).add_with_options([("a b@x", SubscriberOptions("digest"))])["a b@x"].result is Result.REJECTED
    assert fake.calls() == []


def test_without_the_helper_nothing_is_known_of_options(fake):
    traceback = "Traceback (most recent call last):\n  File x\nImportError: No module named memberoptions\n"
    fake.fail("memberoptions", stderr=traceback)
    assert _open(fake).options(["alice@example.org"]) is None


@pytest.mark.parametrize(
    ("exit_code", "stdout", "stderr", "told"),
    [
        (1, "", "ImportError: No module named paths\n", "No module named paths"),
        (0, "<html>\n", "", "unexpected output"),
        (0, "alice@example.org\n", "", "unexpected output"),
        (0, "eve@example.org\tdigest\n", "", "unexpected output"),
    ],
)
def test_a_helper_that_fails_or_answers_something_else_ends_the_run(fake, exit_code, stdout, stderr, told):
    fake.fail("memberoptions", exit_code=exit_code, stdout=stdout, stderr=stderr)
    with pytest.raises(ListManagerUnavailableError, match=told):
        _open(fake).options(["alice@example.org"])


def test_options_of_a_list_that_does_not_exist_are_told_as_such(fake):
    with pytest.raises(NoSuchListError):
        _open(fake, "bees").options(["alice@example.org"])
