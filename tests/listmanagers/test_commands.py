"""Three commands of the operator's: how they are called, and which results count."""

import subprocess
from pathlib import Path

import pytest

from portal.errors import ConfigurationError, ListManagerUnavailableError
from portal.listmanagers import registry
from portal.listmanagers.base import ListManager, Result, TakesPasswords
from tests.fakes.plain import FakePlain
from tests.listmanagers import harness
from tests.roster_lines import UNREADABLE


@pytest.fixture
def fake(tmp_path: Path) -> FakePlain:
    fake = FakePlain(tmp_path / "plain")
    fake.set_roster("ants", ["alice@example.org"])
    return fake


def _open(fake: FakePlain, *, option: str = "", cmds: dict[str, str] | None = None, **settings) -> ListManager:
    table = {"cmds": {**fake.cmds(option=option), **(cmds or {})}, **settings}
    return registry.open_list(registry.read_settings("commands", table), "ants")


def _one_each(fake: FakePlain, **settings) -> ListManager:
    return _open(fake, option="-a {address}", one_address_per_call=True, **settings)


def test_addresses_go_in_on_stdin_one_a_line_and_the_list_name_last(fake):
    _open(fake).add(["bob@example.org", "-rf@example.org"])
    assert fake.calls() == [{"argv": ["add", "ants"], "stdin": "bob@example.org\n-rf@example.org\n"}]


def test_without_an_address_to_send_no_command_is_run(fake):
    _open(fake).add(["not an address"])
    _open(fake).remove(["not an address"])
    assert fake.calls() == []


def test_one_address_a_call_goes_as_one_word_behind_its_option(fake):
    hostile = ["-rf@example.org", "$HOME@example.org", "{list}@example.org", "{address}@example.org", "a|b@example.org"]
    outcomes = _one_each(fake).add(hostile)
    assert {outcome.result for outcome in outcomes.values()} == {Result.DONE}
    assert [call["argv"] for call in fake.calls()] == [["add", "-a", each, "ants"] for each in hostile]
    assert fake.roster("ants") == {"alice@example.org", *hostile}
    _one_each(fake).remove(hostile)
    assert fake.roster("ants") == {"alice@example.org"}


def test_an_address_that_the_command_would_take_for_an_option_is_refused(fake):
    bare = "/bin/echo add {address} {list}"
    manager = _open(fake, option="-a {address}", cmds={"add_members": bare}, one_address_per_call=True)
    outcome = manager.add(["-rf@example.org"])["-rf@example.org"]
    assert (outcome.result, outcome.words) == (Result.REJECTED, "the command would treat it as an option")


def test_one_address_that_fails_is_refused_with_the_commands_words_and_the_others_go_on(fake):
    fake.act(refuse=["bad@example.org"])
    outcomes = _one_each(fake).add(["bad@example.org", "bob@example.org"])
    assert outcomes["bad@example.org"] == (Result.REJECTED, "refused by the fake")
    assert outcomes["bob@example.org"].result is Result.DONE


def test_one_address_alone_that_fails_is_refused_where_the_list_can_be_read(fake):
    fake.act(refuse=["bad@example.org"])
    assert _one_each(fake).add(["bad@example.org"])["bad@example.org"].result is Result.REJECTED


def test_several_that_all_fail_are_the_list_managers_failure(fake):
    fake.act(refuse=["bad@example.org", "worse@example.org"])
    with pytest.raises(ListManagerUnavailableError, match="refused by the fake"):
        _one_each(fake).add(["bad@example.org", "worse@example.org"])


def test_one_address_a_call_shares_one_time_out(fake):
    fake.act(hang=True)
    with pytest.raises(ListManagerUnavailableError, match="did not finish within"):
        _one_each(fake, timeout=0.4, timeout_per_address=0).add(["a@example.org", "b@example.org"])
    assert len(fake.calls()) == 1


def test_time_that_the_first_addresses_used_up_is_not_there_for_the_last(fake):
    slow = "/bin/sh -c 'sleep 0.3' - {address}"
    manager = _open(
        fake,
        cmds={"add_members": slow, "remove_members": slow},
        one_address_per_call=True,
        timeout=0.2,
        timeout_per_address=0.05,
    )
    with pytest.raises(ListManagerUnavailableError, match=r"did not finish within|timeout_per_address"):
        manager.add([f"a{number}@example.org" for number in range(5)])


def test_lines_to_skip_are_skipped(fake):
    fake.act(header="1 member(s) in list ants@example.org\n")
    assert list(_open(fake, skip_lines=1).roster()) == ["alice@example.org"]
    with pytest.raises(ListManagerUnavailableError, match="line 1 of the output cannot be read"):
        _open(fake).roster()


def test_silence_where_a_header_should_be_is_no_empty_roster(fake):
    fake.set_roster("ants", [])
    with pytest.raises(ListManagerUnavailableError, match="skip_lines"):
        _open(fake, skip_lines=1).roster()


def test_comments_and_names_are_read_past(fake):
    fake.set_roster("ants", ["# two", "Bob B. <bob@example.org>", "carol@example.org (Carol C.)"])
    assert list(_open(fake).roster()) == ["bob@example.org", "carol@example.org"]


@pytest.mark.parametrize("line", [each for each in UNREADABLE if "\r" not in each])
def test_a_line_that_cannot_be_read_is_unavailable_and_named(fake, line):
    fake.set_roster("ants", ["bob@example.org", line])
    with pytest.raises(ListManagerUnavailableError, match="line 2 of the output cannot be read"):
        _open(fake).roster()


@pytest.mark.parametrize(
    "output", [b"bob@example.org\nj\xf6rg@example.org\n", b"bob@example.org\ncarol@exam", b"bob@example.org"]
)
def test_another_encoding_or_a_cut_off_last_line_is_unavailable(fake, output):
    (fake.root / "ants.roster").write_bytes(output)
    command = f"/bin/cat {fake.root}/{{list}}.roster"
    with pytest.raises(ListManagerUnavailableError, match="of the output cannot be read"):
        _open(fake, cmds={"list_members": command}).roster()


def test_other_exit_codes_count_as_good_only_where_they_are_named_and_never_for_a_roster(fake):
    fake.act(exit_code=1)
    with pytest.raises(ListManagerUnavailableError, match="exit code 1"):
        _open(fake).add(["bob@example.org"])
    manager = _open(fake, ok_exit_codes=[0, 1, 2])
    assert manager.add(["charlie@example.org"])["charlie@example.org"].result is Result.DONE
    (fake.root / "ants.roster").unlink()
    with pytest.raises(ListManagerUnavailableError, match="unknown list"):
        manager.roster()


def test_a_check_command_answers_for_the_check(fake):
    assert _open(fake, cmds={"check": "/bin/echo version 7 has"}).check() == "version 7 has ants"
    assert "ants found" in _open(fake, cmds={"check": "/bin/true"}).check()
    with pytest.raises(ListManagerUnavailableError, match="ants: check: ended with exit code 1"):
        _open(fake, cmds={"check": "/bin/false"}).check()


def test_a_check_finds_a_misspelt_command_before_the_sync_does(fake):
    with pytest.raises(ListManagerUnavailableError, match="/nowhere/add"):
        _open(fake, cmds={"add_members": "/nowhere/add"}).check()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"cmds": {"add_members": "/bin/a"}}, "list_members"),
        (
            {"cmds": {"list_members": "a 'b", "add_members": "a", "remove_members": "a"}},
            "list_members is not a valid command",
        ),
        (
            {"cmds": {"list_members": "a", "add_members": "", "remove_members": "a"}},
            "add_members is not a valid command",
        ),
        ({"cmds": {"list_members": "a", "add_members": "./a", "remove_members": "a"}}, "absolute path"),
        ({"cmds": {"list_members": "a", "add_members": "a", "remove_members": "a", "drop": "a"}}, "`drop`"),
        ({"timout": 3}, "`timout`"),
        ({"timeout": 0}, "`timeout`"),
        ({"timeout": "long"}, "`timeout`"),
        ({"ok_exit_codes": []}, "`ok_exit_codes`"),
        ({"skip_lines": -1}, "`skip_lines`"),
        ({"one_address_per_call": True}, "must be used together"),
    ],
)
def test_a_wrong_table_is_refused_and_the_key_is_named(fake, change, words):
    with pytest.raises(ConfigurationError) as caught:
        registry.read_settings("commands", {"cmds": fake.cmds(), **change})
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("command", "words"),
    [
        ("/bin/sh -c 'add {address}'", "must be a separate argument"),
        ("/bin/add x{address}", "must be a separate argument"),
        ("/bin/sh '-c add --to={address}'", "must be a separate argument"),
        ("/usr/bin/ssh lists add -a {address}", "ssh"),
    ],
)
def test_an_address_is_never_put_where_a_shell_would_read_it(fake, command, words):
    table = {"cmds": {**fake.cmds(option="-a {address}"), "add_members": command}, "one_address_per_call": True}
    with pytest.raises(ConfigurationError, match=words):
        registry.read_settings("commands", table)


def test_a_place_for_the_address_without_the_setting_is_refused(fake):
    with pytest.raises(ConfigurationError, match="must be used together"):
        registry.read_settings("commands", {"cmds": fake.cmds(option="-a {address}")})
    table = {"cmds": {**fake.cmds(option="-a {address}"), "list_members": "a {address}"}, "one_address_per_call": True}
    with pytest.raises(ConfigurationError, match=r"cmds\.list_members is not called for a single address"):
        registry.read_settings("commands", table)


def test_an_option_with_an_equals_sign_may_hold_the_address(fake):
    cmds = {**fake.cmds(), "add_members": "/bin/true --to={address}", "remove_members": "/bin/true --to={address}"}
    manager = registry.open_list(
        registry.read_settings("commands", {"cmds": cmds, "one_address_per_call": True}), "ants"
    )
    assert manager.add(["-x@example.org"])["-x@example.org"].result is Result.DONE


def test_a_command_for_passwords_reads_lines_and_without_one_none_are_taken(fake, tmp_path):
    assert not isinstance(_open(fake), TakesPasswords)
    manager = _open(fake, cmds={"changepw": f"/usr/bin/tee {tmp_path}/{{list}}"})
    assert isinstance(manager, TakesPasswords)
    outcomes = manager.set_passwords([("alice@example.org", "one"), ("a b@x", "two")])
    assert outcomes["alice@example.org"].result is Result.DONE
    assert outcomes["a b@x"].result is Result.REJECTED
    assert (tmp_path / "ants").read_text() == "alice@example.org\tone\n"
    assert manager.password_call() == f"/usr/bin/tee {tmp_path}/ants"


def test_a_command_for_passwords_that_fails_repeats_none(fake):
    manager = _open(fake, cmds={"changepw": "/bin/sh -c 'cat >&2; exit 4'"})
    with pytest.raises(ListManagerUnavailableError, match=r"changepw: ended with exit code 4") as raised:
        manager.set_passwords([("alice@example.org", "secret-one")])
    assert "secret-one" not in str(raised.value)


# --- the script on the page for a list behind ssh


@pytest.fixture(params=["/bin/bash", "/bin/dash", "/bin/busybox sh"])
def behind_ssh(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> harness.BehindSsh:
    if not Path(request.param.split()[0]).exists():
        pytest.skip(f"no {request.param}")
    monkeypatch.setattr(harness.BehindSsh, "shell", request.param)
    return harness.BehindSsh(tmp_path / "server")


def test_the_script_behind_ssh_does_its_work_in_every_shell(behind_ssh):
    behind_ssh.set_roster("Alice@example.org", "stranger@example.net")
    manager = behind_ssh.open()
    hostile = ["$HOME@example.org", "`id`@example.org", "-rf@example.org", "a.c@example.org", "a|b@example.org"]
    manager.add([*hostile, "ALICE@example.org"])
    assert set(manager.roster()) == {"Alice@example.org", "stranger@example.net", *hostile}
    manager.remove([*hostile, "abc@example.org", "alice@example.org"])
    assert list(manager.roster()) == ["stranger@example.net"]
    manager.remove(["stranger@example.net"])
    assert list(manager.roster()) == []
    manager.add(["bob@example.org"])
    assert list(manager.roster()) == ["bob@example.org"]


@pytest.mark.parametrize(
    "asked", ["", "list", "list ../ants", "list .lock", "drop ants", "list ants; id", "list ants x"]
)
def test_the_script_behind_ssh_does_nothing_else(behind_ssh, asked):
    behind_ssh.set_roster("alice@example.org")
    done = subprocess.run(
        [behind_ssh.ssh, "lists@mail.example.org", asked], input="", capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert behind_ssh.roster() == {"alice@example.org"}


def test_the_script_behind_ssh_takes_no_half_line_for_an_address(behind_ssh):
    done = subprocess.run(
        [behind_ssh.ssh, "lists@mail.example.org", "add ants"], input="bob@example.org\ncarol@exam", text=True, check=False,
        capture_output=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, "the input was cut off\n")
    assert behind_ssh.roster() == set()
