"""mlmmj: how its silence is interpreted, and calls that are never made."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import registry
from portal.listmanagers.base import ListManager, Result
from portal.listmanagers.mlmmj import Settings
from tests.fakes.mlmmj import FakeMlmmj
from tests.real import mlmmj as real

ROOT = Path(__file__).parents[2]


@pytest.fixture
def fake(tmp_path: Path) -> FakeMlmmj:
    fake = FakeMlmmj(tmp_path / "mlmmj")
    fake.set_roster("ants", ["alice@example.org"], digest=["dora@example.org"], no_mail=["nora@example.org"])
    return fake


@pytest.fixture
def program() -> Iterator[real.Program]:
    """The mlmmj of the system, with a spool into which other users may look."""
    if why := real.why_missing():
        pytest.skip(why)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        program = real.Program(Path(folder))
        program.make_list("ants")
        yield program
        assert program.queued_mails() == []


def _open(made: FakeMlmmj | real.Program, name: str = "ants", **settings) -> ListManager:
    table = made.table() if isinstance(made, FakeMlmmj) else made.manager_table()
    return registry.open_list(registry.read_settings("mlmmj", {**table, **settings}), name)


def _results(outcomes) -> dict[str, Result]:
    return {address: outcome.result for address, outcome in outcomes.items()}


def test_the_defaults_are_those_of_debian():
    assert (Settings().spool, Settings().bin) == (Path("/var/spool/mlmmj"), Path("/usr/bin"))
    registry.read_settings("mlmmj", {})


def test_the_roster_is_the_union_of_all_three(fake):
    assert set(_open(fake).roster()) == {"alice@example.org", "dora@example.org", "nora@example.org"}


def test_two_names_of_one_folder_are_one_list(fake):
    fake.set_roster("bees", [])
    (fake.spool / "emmets").symlink_to("ants")
    assert _open(fake, "emmets").identity() == _open(fake).identity() != _open(fake, "bees").identity()


def test_a_check_says_which_mlmmj_answered(fake):
    assert _open(fake).check() == f"mlmmj 1.3.0: {fake.spool}/ants found, subscribers: 3"


@pytest.mark.slow
@pytest.mark.parametrize("program", ["mlmmj-sub", "mlmmj-unsub"])
def test_a_check_finds_a_program_that_is_missing(fake, program):
    (fake.bin / program).unlink()
    with pytest.raises(ListManagerUnavailableError, match=f"{program}: not found"):
        _open(fake).check()


def test_everything_is_silent_by_its_whole_path_and_one_address_a_call(fake):
    manager = _open(fake)
    manager.add(["bob@example.org", "-rf@example.org"])
    manager.remove(["bob@example.org"])
    folder = str(fake.spool / "ants")
    assert fake.calls("mlmmj-sub", "mlmmj-unsub") == [
        ["mlmmj-sub", "-L", folder, "-f", "-q", "-s", "-a", "bob@example.org"],
        ["mlmmj-sub", "-L", folder, "-f", "-q", "-s", "-a", "-rf@example.org"],
        ["mlmmj-unsub", "-L", folder, "-q", "-s", "-a", "bob@example.org"],
    ]


def test_nobody_who_is_on_in_any_variant_is_ever_added(fake):
    who = ["alice@example.org", "Dora@Example.org", "nora@example.org"]
    outcomes = _open(fake).add(who)
    assert _results(outcomes) == dict.fromkeys(who, Result.ALREADY)
    assert fake.calls("mlmmj-sub") == []
    assert (fake.roster("ants", "-d"), fake.roster("ants", "-n")) == ({"dora@example.org"}, {"nora@example.org"})


def test_one_address_in_two_spellings_is_added_once(fake):
    outcomes = _open(fake).add(["bob@example.org", "Bob@example.org"])
    assert _results(outcomes) == {"bob@example.org": Result.DONE, "Bob@example.org": Result.ALREADY}


def test_a_removal_takes_somebody_off_in_every_variant_and_a_stranger_costs_no_call(fake):
    who = ["dora@example.org", "nora@example.org", "eve@example.org"]
    outcomes = _open(fake).remove(who)
    assert [outcomes[each].result for each in who] == [Result.DONE, Result.DONE, Result.ALREADY]
    assert fake.everybody("ants") == {"alice@example.org"}
    assert len(fake.calls("mlmmj-unsub")) == 2


def test_an_add_that_did_not_take_is_found_out_though_mlmmj_said_yes(fake):
    fake.act(lie=["liar@example.org"])
    outcomes = _open(fake).add(["liar@example.org", "bob@example.org"])
    assert outcomes["liar@example.org"] == (
        Result.REJECTED,
        "mlmmj reported success, but the address is not on the list",
    )
    assert outcomes["bob@example.org"].result is Result.DONE


def test_a_removal_that_did_not_take_is_found_out_though_mlmmj_said_yes(fake):
    fake.act(lie=["alice@example.org"])
    outcomes = _open(fake).remove(["alice@example.org", "dora@example.org"])
    assert outcomes["alice@example.org"] == (
        Result.REJECTED,
        "mlmmj reported success, but the address is still on the list",
    )
    assert outcomes["dora@example.org"].result is Result.DONE


def test_an_exit_code_for_one_address_is_its_refusal_and_the_others_go_on(fake):
    fake.act(fail=["odd@example.org"])
    outcomes = _open(fake).add(["odd@example.org", "bob@example.org"])
    assert outcomes["odd@example.org"] == (Result.REJECTED, "mlmmj-sub ended with exit code 1")
    assert outcomes["bob@example.org"].result is Result.DONE


@pytest.mark.parametrize("how", ["fail", "lie"])
def test_several_of_which_none_took_are_mlmmjs_failure(fake, how):
    who = ["bob@example.org", "charlie@example.org"]
    fake.act(**{how: who})
    with pytest.raises(ListManagerUnavailableError, match="changed none of 2 addresses"):
        _open(fake).add(who)


def test_a_program_that_is_killed_ends_the_call(fake):
    fake.act(kill=["bob@example.org"])
    with pytest.raises(ListManagerUnavailableError, match="signal 9"):
        _open(fake).add(["bob@example.org"])


def test_all_calls_of_a_batch_share_one_time_out(fake):
    manager = _open(fake, timeout=0.3, timeout_per_address=0.001)
    with pytest.raises(ListManagerUnavailableError, match=r"did not finish within|timeout_per_address"):
        manager.add([f"user{number}@example.org" for number in range(100)])
    assert len(fake.calls("mlmmj-sub")) < 90


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("jörg@example.org", "ASCII"),
        ("bob@exämple.org", "ASCII"),
        ("/etc@example.org", "starts with /"),
        (".bob@example.org", "not an e-mail address"),
        ("bob@localhost", "with at least one dot"),
        ("bob@example..org", "not an e-mail address"),
        ("bob@example.org.", "not an e-mail address"),
        ("Joe <joe@example.org>", "not an e-mail address"),
    ],
)
def test_what_mlmmj_would_store_and_never_reach_is_refused(fake, address, words):
    outcome = _open(fake).add([address])[address]
    assert outcome.result is Result.REJECTED
    assert words in outcome.words
    assert fake.calls() == []


def test_what_is_on_the_list_can_leave_it_odd_or_not(fake):
    fake.set_roster("ants", ["jörg@example.org", "bob@localhost"])
    outcomes = _open(fake).remove(["jörg@example.org", "bob@localhost"])
    assert set(_results(outcomes).values()) == {Result.DONE}


def test_a_folder_that_is_no_list_is_no_such_list_and_a_missing_spool_is_a_failure(fake):
    (fake.spool / "empty").mkdir()
    (fake.spool / "file").touch()
    for name in ("empty", "file", "nolist"):
        with pytest.raises(NoSuchListError, match=name):
            _open(fake, name).roster()
    with pytest.raises(ListManagerUnavailableError, match="the folder does not exist; correct `spool`"):
        _open(fake, spool=str(fake.root / "elsewhere")).roster()


def test_a_roster_of_which_a_variant_is_missing_is_a_failure(fake):
    for path in (fake.spool / "ants" / "digesters.d").iterdir():
        path.unlink()
    (fake.spool / "ants" / "digesters.d").rmdir()
    with pytest.raises(ListManagerUnavailableError, match=r"digesters\.d: cannot be read: No such file"):
        _open(fake).roster()


@pytest.mark.parametrize("name", ["", "-ants", "..", "../ants", "a/b", "a\nb"])
def test_a_name_that_would_leave_the_spool_is_refused(fake, name):
    with pytest.raises(ConfigurationError, match="the list name"):
        _open(fake, name)


def test_a_line_that_a_full_disk_cut_off_stops_the_list_before_mlmmj_writes_behind_it(fake):
    with (fake.spool / "ants" / "subscribers.d" / "a").open("a") as stream:
        stream.write("ann@exam")
    with pytest.raises(ListManagerUnavailableError, match=r"subscribers\.d/a: the last line is cut off"):
        _open(fake).add(["anton@example.org"])
    assert fake.calls("mlmmj-sub") == []


def test_files_that_mlmmj_is_just_working_with_disturb_nobody(fake):
    fake.set_roster("ants", [])
    (fake.spool / "ants" / "subscribers.d" / ".a.lock").touch()
    (fake.spool / "ants" / "subscribers.d" / "b.new").write_text("bob@exam")
    assert _open(fake).roster() == ["bob@exam"]


def test_nothing_is_written_to_a_disk_that_is_full(fake, monkeypatch):
    full = SimpleNamespace(f_blocks=1000, f_bavail=10, f_frsize=4096)
    monkeypatch.setattr(os, "statvfs", lambda path: full)
    with pytest.raises(ListManagerUnavailableError, match="the disk is full"):
        _open(fake).add(["bob@example.org"])
    assert fake.calls("mlmmj-sub") == []
    assert len(_open(fake).roster()) == 3


def test_a_disk_that_fills_up_stops_the_list_before_the_next_address(fake, monkeypatch):
    room = [SimpleNamespace(f_blocks=1000, f_bavail=each, f_frsize=4096) for each in (1000, 10)]
    monkeypatch.setattr(os, "statvfs", lambda path: room[bool(fake.calls("mlmmj-sub"))])
    with pytest.raises(ListManagerUnavailableError, match="the disk is full"):
        _open(fake).add(["bob@example.org", "charlie@example.org", "dora@example.org"])
    assert len(fake.calls("mlmmj-sub")) == 1


# --- the real one


@pytest.mark.slow
def test_the_real_one_says_its_version(program):
    assert _open(program).check() == f"mlmmj {program.version.split()[-1]}: {program.folder}/ants found, subscribers: 0"


@pytest.mark.slow
def test_the_real_one_makes_a_digest_subscriber_a_normal_one_when_he_is_added_and_so_we_do_not(program):
    program.set_roster("ants", ["alice@example.org"], digest=["dora@example.org"])
    program.set_no_mail("ants", "nora@example.org")
    who = ["dora@example.org", "nora@example.org", "bob@example.org"]
    outcomes = _open(program).add(who)
    assert [outcomes[each].result for each in who] == [Result.ALREADY, Result.ALREADY, Result.DONE]
    assert program.digest_roster("ants") == {"dora@example.org"}
    assert program.no_mail_roster("ants") == {"nora@example.org"}

    argv = ["/usr/bin/mlmmj-sub", "-L", str(program.folder / "ants"), "-f", "-q", "-s", "-a", "dora@example.org"]
    subprocess.run(argv, capture_output=True, check=True)
    assert program.digest_roster("ants") == set()  # the trap is still there


@pytest.mark.slow
def test_the_real_one_is_as_lax_as_the_fake(program):
    folder = str(program.folder / "ants")
    for address in ("a@b", "Joe <joe@example.org>", "c1@example.org,c2@example.org"):
        subprocess.run(
            ["/usr/bin/mlmmj-sub", "-L", folder, "-f", "-q", "-s", "-a", address], capture_output=True, check=True
        )
    listed = subprocess.run(["/usr/bin/mlmmj-list", "-L", folder], capture_output=True, text=True, check=True)
    assert set(listed.stdout.splitlines()) == {"a@b", "joe <joe@example.org>", "c1@example.org,c2@example.org"}


@pytest.mark.slow
def test_control_files_of_a_closed_or_moderated_list_hold_nobody_back_and_mail_nobody(program):
    for name in ("closedlist", "closedlistsub", "submod", "notifysub", "notifymod", "subonlypost"):
        (program.folder / "ants" / "control" / name).write_text("")
    manager = _open(program)
    assert manager.add(["bob@example.org"])["bob@example.org"].result is Result.DONE
    assert manager.remove(["bob@example.org"])["bob@example.org"].result is Result.DONE


HOLDS_LOCK = """
import fcntl, sys
with open(sys.argv[1], "w") as lock:
    fcntl.lockf(lock, fcntl.LOCK_EX)
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.mark.slow
def test_the_real_one_that_waits_for_a_lock_is_ended_in_time_and_nothing_is_lost(program):
    program.set_roster("ants", ["bob@example.org"])
    lock = program.folder / "ants" / "subscribers.d" / ".b.lock"
    # another process: our own would lose its lock as soon as it closes the file that the adapter has looked at
    argv = [sys.executable, "-c", HOLDS_LOCK, str(lock)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        for call, address in (("add", "ben@example.org"), ("remove", "bob@example.org")):
            with pytest.raises(ListManagerUnavailableError, match=r"ants: mlmmj-\w+: did not finish within"):
                getattr(_open(program, timeout=0.5), call)([address])
        holder.stdin.close()
    assert program.roster("ants") == {"bob@example.org"}
    assert _open(program).add(["ben@example.org"])["ben@example.org"].result is Result.DONE


AS_NOBODY = """
import os, sys
from portal.errors import ListManagerUnavailableError
from portal.listmanagers import registry
manager = registry.open_list(registry.read_settings("mlmmj", {"spool": sys.argv[1]}), "ants")
manager.check()  # all is imported now; nobody may not be able to read Python's files
os.setgroups([]), os.setgid(65534), os.setuid(65534)
for call in (manager.check, manager.roster, lambda: manager.add(["eve@example.org"])):
    try:
        print("answered", call())
    except ListManagerUnavailableError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_list_that_the_portals_user_may_not_read_is_no_empty_list(program):
    program.set_roster("ants", ["alice@example.org"])
    listed = subprocess.run(
        ["/usr/bin/mlmmj-list", "-L", str(program.folder / "ants")], user=65534, capture_output=True, check=True
    )
    assert listed.stdout == b""  # the trap is there

    done = _as_nobody(program)
    assert done == [f"{program.folder}/ants/subscribers.d/a: cannot be read: Permission denied; "
                    "run the sync as the owner of the list's folder"] * 3  # fmt: skip


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_list_that_the_portals_user_may_read_but_not_change_is_told_before_anything_is_lost(program):
    program.set_roster("ants", ["alice@example.org"])
    (program.folder / "ants" / "subscribers.d" / "a").chmod(0o644)

    checked, read, added = _as_nobody(program)
    assert read == "answered ['alice@example.org']"
    for line in (checked, added):
        assert line.startswith(
            f"{program.folder}/ants: belongs to user root, and mlmmj lets only that user and root change the list"
        )
    assert program.roster("ants") == {"alice@example.org"}


@pytest.mark.slow
@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can become somebody else")
def test_a_spool_into_which_the_portals_user_may_not_look_is_no_missing_list(program):
    spool = program.folder / "deep" / "spool"
    spool.mkdir(parents=True)
    (program.folder / "ants").rename(spool / "ants")
    program.folder = spool
    for closed in (spool, spool.parent):
        spool.parent.chmod(0o755)
        closed.chmod(0o700)
        assert all(line.endswith("Permission denied; run the sync as the owner of the list's folder")
                   for line in _as_nobody(program))  # fmt: skip


def _as_nobody(program: real.Program) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", AS_NOBODY, str(program.folder)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()
