"""`flask mailinglist`: what it prints where, and how it ends."""

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.cli.mailinglist import mailinglist
from tests.conftest import SERVER, Rosters
from tests.factories import make_preference, make_user

Call = Callable[..., tuple[int, str, str]]
HOSTILE = ["-rf@example.org", "`id`@example.org", "$HOME@example.org", "/etc/passwd@example.org", "a|b@example.org"]

# Every command, with arguments that would do where the list is known and the facility enabled.
COMMANDS = {
    "get-subscribed": ["LIST"],
    "get-unsubscribed": ["LIST"],
    "list-init": ["LIST"],
    "sync": ["LIST"],
    "subscribe": ["LIST", "alice"],
    "unsubscribe": ["LIST", "alice"],
    "why": ["LIST", "alice@example.org"],
    "report": ["LIST"],
    "numbers": ["LIST"],
    "runs": ["--list", "LIST"],
    "history": ["--list", "LIST"],
    "lists": [],
    "check": [],
    "import": ["-"],
    "rename": ["old", "LIST"],
    "password-sync": ["LIST"],
    "changepw-script": [],
    "memberoptions-script": [],
    "sync-script": [],
}


@pytest.fixture
def call(runner: FlaskCliRunner) -> Call:
    def run(*args: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
        result = runner.invoke(args=["mailinglist", *args], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def refused(call: Call) -> Callable[..., str]:
    def run(code: int, *args: str, **options: str) -> str:
        found, stdout, stderr = call(*args, **options)
        assert (found, stdout) == (code, ""), stderr
        assert stderr.startswith("error: ")
        assert stderr.count("\n") == 1
        return stderr.removesuffix("\n")

    return run


@pytest.fixture
def cast(session: Session, rosters: Rosters) -> None:
    """Alice is on the list, Bob and Charlie are not; Bob wants to be."""
    make_user(session, "alice", groups=("board",))
    make_user(session, "bob")
    make_user(session, "charlie")
    rosters.set("members", "alice@example.org", "stranger@example.net")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_preference(session, "members", "bob@example.org", True, seen=False, touched=True, version=1)


def test_the_table_of_commands_is_complete(app):  # commands of other files join when it is composed
    assert set(COMMANDS) == set(mailinglist.commands)


@pytest.mark.parametrize("command", sorted(each for each, arguments in COMMANDS.items() if "LIST" in arguments))
def test_an_unknown_list_is_78(refused, session, command):
    make_user(session, "alice")
    told = refused(78, command, *(each.replace("LIST", "nope") for each in COMMANDS[command]))
    assert "unknown list: nope (lists in mailinglists.toml: members, tech, board)" in told


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"check"}))  # which tells it in its table
@pytest.mark.parametrize("catalogue", [None, "", "enabled = 1"], ids=["no file", "empty file", "not true"])
def test_a_facility_that_is_not_enabled_is_78(make_app, instance, command, catalogue):
    path = instance / "mailinglists.toml"
    path.unlink() if catalogue is None else path.write_text(catalogue)
    arguments = [each.replace("LIST", "members") for each in COMMANDS[command]]
    result = make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", command, *arguments])
    assert (result.exit_code, result.stdout) == (78, "")
    where = f"{path}, which does not exist" if catalogue is None else path
    assert (
        result.stderr
        == f"error: mailing lists are not enabled: set enabled = true in {where} (docs/errors.md#mailing-lists-are-not-enabled)\n"
    )


@pytest.mark.parametrize("command", sorted(COMMANDS.keys() - {"check"}))
def test_an_invalid_catalogue_is_78(make_app, instance, command):
    (instance / "mailinglists.toml").write_text("enabled = true\n[lists.members]\nsurprise = 1\n")
    arguments = [each.replace("LIST", "members") for each in COMMANDS[command]]
    result = make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", command, *arguments])
    assert (result.exit_code, result.stdout) == (78, "")
    assert result.stderr.startswith(f"error: {instance / 'mailinglists.toml'}: lists.members: ")
    assert result.stderr.count("\n") == 1


def test_a_database_without_tables_is_78(make_app, rosters, tmp_path):
    runner = make_app(PORTAL_SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'new.db'}").test_cli_runner()
    result = runner.invoke(args=["mailinglist", "sync", "members"])
    assert result.exit_code == 78
    assert result.stderr.startswith("error: the database is not migrated; run: flask db upgrade")


@pytest.mark.parametrize(
    "args",
    [
        ["nope"],
        ["sync", "--dry-run", "--accept", "0123456789abcdef"],
        ["list-init", "--plan", "--confirm", "members"],
        ["list-init", "--accept", "0123456789abcdef", "members"],
        ["list-init", "members", "no-such-file"],
        ["list-init"],
        ["why", "members", "-rf@example.org"],
        ["runs", "--limit", "0"],
        ["history", "--format", "yaml"],
    ],
)
def test_a_wrong_call_is_2(call, args):
    assert call(*args)[:2] == (2, "")


def test_lists_prints_the_catalogue_with_counts(call, cast):
    code, stdout, stderr = call("lists")
    assert (code, stderr) == (0, "")
    assert stdout == (
        "LIST     NAME     ADDRESS                    SUBSCRIBED  UNSUBSCRIBED  NOT CHOSEN  AUDIENCE  MANAGER\n"
        "members  Members  members@lists.example.org           2             0           1  -         files\n"
        "tech     Tech     tech@lists.example.org              0             0           3  -         files\n"
        "board    Board    board@lists.example.org             0             0           1  board     files\n"
    )
    rows = json.loads(call("lists", "--format", "json")[1])
    assert [row["handle"] for row in rows] == ["members", "tech", "board"]
    assert (rows[0]["subscribed"], rows[2]["audience"]) == (2, ["board"])


def test_exports_print_one_address_a_line_as_spelled_and_sorted(call, session):
    spelled = ["Zoë@example.org", "b@EXAMPLE.org", "A@example.org", *HOSTILE]
    for number, each in enumerate(spelled):
        make_user(session, f"user{number}", each)
        make_preference(session, "members", each, True)
    code, stdout, stderr = call("get-subscribed", "members")
    assert (code, stderr) == (0, "")
    assert stdout.removesuffix("\n").split("\n") == sorted(spelled, key=str.lower)
    assert call("get-unsubscribed", "members") == (0, "", "")


def test_list_init_reads_a_file_a_dash_and_standard_input(call, session, tmp_path):
    make_user(session, "alice")
    (tmp_path / "-roster").write_text("alice@example.org\n")
    assert call("list-init", "--", "members", str(tmp_path / "-roster"))[1].startswith("subscribed: 1\n")
    assert call("list-init", "members", "-", stdin="alice@example.org\n")[1].startswith("subscribed: 0\n")
    (tmp_path / "no-end").write_text("alice@example.org")
    assert call("list-init", "members", str(tmp_path / "no-end"))[0] == 0
    assert call("list-init", "members", stdin="alice@example.org")[0] == 65  # may have been cut off


def test_lines_that_cannot_be_read_change_nothing_unless_they_are_skipped(call, session):
    make_user(session, "alice")
    dirty = {"stdin": "alice@example.org\nx\n"}
    for options in ([], ["--plan"], ["--allow-empty"]):
        code, stdout, stderr = call("list-init", "members", *options, **dirty)
        assert (code, stdout) == (65, "")
        assert "line 2" in stderr
        assert "--skip-invalid" in stderr
    code, stdout, _ = call("list-init", "members", "--skip-invalid", "--format", "json", **dirty)
    assert code == 0
    assert json.loads(stdout) == {"subscribed": 1, "unsubscribed": 0, "kept": 0, "unknown": 0, "invalid": 1}


def test_the_counts_of_a_plan_are_those_of_list_init(call, session, cast):
    roster = "alice@example.org\ncharlie@example.org\nstranger@example.net\nrubbish\n"
    counts = json.loads(call("list-init", "--plan", "--skip-invalid", "members", "--format", "json", stdin=roster)[1])
    assert re.fullmatch("[0-9a-f]{16}", counts.pop("plan"))
    assert re.fullmatch("[0-9a-f]{32}", counts.pop("token"))
    assert counts == {
        "subscribed": 1, "unsubscribed": 0, "kept": 2, "unknown": 1, "invalid": 1, "adds": 1, "removals": 0,
    }  # fmt: skip


def test_sync_does_all_lists_and_is_quiet(call, cast, rosters):
    assert call("sync") == (0, "", "")
    assert rosters.get("members") == {"alice@example.org", "stranger@example.net", "bob@example.org"}
    handles = [run["handle"] for run in json.loads(call("runs", "--format", "json")[1])]
    assert handles == ["board", "tech", "members"]


def test_sync_does_the_lists_that_are_named_once(call, cast):
    assert call("sync", "tech", "tech") == (0, "", "")
    assert [run["handle"] for run in json.loads(call("runs", "--format", "json")[1])] == ["tech"]


def test_sync_says_what_it_did_when_asked(call, cast):
    assert call("sync", "-v", "members", "board") == (
        0,
        "members: 1 added, 1 taken over (of 2 on the list before, 1 without an account)\n"
        "board: 1 taken over (of 0 on the list before, 0 without an account)\n",
        "",
    )
    assert call("sync", "-v", "board")[1] == "board: nothing to do (of 0 on the list before, 0 without an account)\n"


def test_sync_tells_as_json(call, cast):
    code, stdout, _ = call("sync", "--format", "json", "members", "nope")
    done, failed = json.loads(stdout)
    assert code == 78
    assert (done["list"], done["added"], done["removed"], done["without_account"], done["run"]) == (
        "members",
        1,
        0,
        1,
        1,
    )
    assert failed["exit_code"] == 78
    assert "unknown list" in failed["error"]


def test_one_list_that_fails_does_not_stop_the_others(call, cast, rosters):
    (rosters.folder / "members.txt").unlink()
    rosters.set("tech", "alice@example.org")
    code, stdout, stderr = call("sync", "members", "nope", "tech")
    assert (code, stdout) == (78, "")
    first, second = stderr.splitlines()
    assert first.startswith("error: members: ")
    assert second.startswith("error: unknown list: nope (")
    assert [run["state"] for run in json.loads(call("runs", "--format", "json")[1])] == ["done", "failed"]


def test_an_unforeseen_failure_is_1_whatever_else_fails(call, cast, app, monkeypatch):
    from dataclasses import replace

    portal = app.extensions["portal"]

    def open_list_manager(mailing_list):
        if mailing_list.handle == "tech":
            raise ZeroDivisionError("by\nzero")
        return portal.open_list_manager(mailing_list)

    app.extensions["portal"] = replace(portal, open_list_manager=open_list_manager)
    code, _, stderr = call("sync", "members", "tech", "nope")
    assert code == 1
    assert stderr.splitlines()[0] == "error: tech: ZeroDivisionError: by zero (docs/errors.md#something-went-wrong)"


def test_a_dry_run_writes_nothing_and_says_what_would_be_done(call, cast, rosters):
    before = rosters.get("members")
    code, stdout, stderr = call("sync", "--dry-run", "members")
    assert (code, stderr) == (0, "dry run: nothing was changed\n")
    assert stdout == (
        "LIST     WOULD  ADDRESS          BECAUSE\n"
        "members  add    bob@example.org  chosen\n"
        "members: 1 added, 1 taken over (of 2 on the list before, 1 without an account)\n"
    )
    assert rosters.get("members") == before
    assert json.loads(call("runs", "--format", "json")[1]) == []
    lines = json.loads(call("sync", "--dry-run", "--format", "json", "members")[1])[0]["lines"]
    assert lines == [{"action": "add", "address": "bob@example.org", "reason": "chosen", "held_back": False}]


def test_a_dry_run_tells_what_a_sync_would_refuse(call, session, rosters):
    for number in range(8):
        make_user(session, f"user{number}")
        make_preference(session, "members", f"user{number}@example.org", False, seen=True, source="superuser")
    rosters.set("members", *(f"user{number}@example.org" for number in range(8)))
    code, _, stderr = call("sync", "--dry-run", "members")
    assert code == 0
    assert re.search(r"^members: .* to approve it: --accept [0-9a-f]{16}\ndry run: ", stderr)
    make_preference(session, "tech", "user0@example.org", True, seen=True)
    assert "--accept" in call("sync", "--dry-run", "tech")[2]


def test_accept_without_a_list_means_whichever_plan_has_the_id(call, session, rosters):
    for handle in ("members", "tech"):
        for number in range(8):
            if handle == "members":
                make_user(session, f"user{number}")
            make_preference(session, handle, f"user{number}@example.org", False, seen=True, source="superuser")
        rosters.set(handle, *(f"user{number}@example.org" for number in range(8)))
    code, _, stderr = call("sync")
    assert code == 77
    _, tech = stderr.splitlines()
    assert tech.startswith("error: tech: ")
    code, _, stderr = call("sync", "--accept", tech.split()[-2])
    assert code == 77
    assert stderr.startswith("error: members: ")
    assert rosters.get("tech") == set()
    assert len(rosters.get("members")) == 8


def test_a_run_that_was_interrupted_is_told_by_the_one_that_repairs_it(call, session, cast, clock):
    from portal.models import Run

    session.add(Run(list_handle="members", kind="sync", asked_by="cron", host="elsewhere", started_at=clock()))
    session.commit()
    code, _, stderr = call("sync", "members")
    assert code == 0
    assert stderr == "members: run 1 was interrupted; its remaining changes have been completed\n"
    assert json.loads(call("runs", "--format", "json")[1])[1]["state"] == "unfinished"


def test_subscribe_and_unsubscribe_choose_for_a_user(call, cast):
    assert call("subscribe", "members", "Charlie", "--reason", "asked by phone") == (
        0, "", "Charlie is subscribed to members; the next run carries it out\n",
    )  # fmt: skip
    assert call("subscribe", "members", "charlie")[2].endswith("is already subscribed to members; nothing changed\n")
    assert call("get-subscribed", "members")[1].split()[-1] == "charlie@example.org"
    assert call("unsubscribe", "members", "charlie")[0] == 0
    lines = json.loads(call("history", "--address", "CHARLIE@example.org", "--format", "json")[1])
    assert [(line["subscribed"], line["source"], line["actor"], line["reason"]) for line in lines] == [
        (False, "superuser", "command line", ""),
        (True, "superuser", "command line", "asked by phone"),
    ]


def test_unsubscribe_takes_an_address_that_no_account_holds(call, cast):
    code, _stdout, _stderr = call("unsubscribe", "members", "Gone@example.org")
    assert code == 0
    assert call("unsubscribe", "members", "gone@example.org")[0] == 0
    assert call("unsubscribe", "members", "nobody")[0] != 0


@pytest.mark.parametrize("command", ["subscribe", "unsubscribe"])
def test_choosing_for_somebody_who_cannot_is_65(refused, session, cast, command):
    make_user(session, "dora", is_active=False)
    for args in (["members", "nobody"], ["members", "dora"], ["board", "bob"], ["members", "\udcff"]):
        refused(65, command, *args)
    refused(65, command, "members", "alice", "--reason", "two\nlines")
    refused(65, command, "members", "alice", "--reason", "\udcff")


def test_why_answers_in_sentences_and_as_json(call, cast):
    code, stdout, stderr = call("why", "members", "BOB@example.org")
    assert (code, stderr) == (0, "")
    assert stdout.splitlines()[:2] == ["bob@example.org is not on members, as last seen.", "It is held by bob."]
    found = json.loads(call("why", "members", "bob@example.org", "--format", "json")[1])
    assert (found["seen"], found["preference"], found["next_action"]) == (False, True, "add")
    (holder,) = found["holders"]
    assert (holder["username"], holder["is_active"], holder["may_see"]) == ("bob", True, True)


def test_why_takes_a_username_and_explains_each_address(call, cast, session):
    assert call("why", "members", "BOB") == call("why", "members", "bob@example.org")
    make_user(session, "dora", "dora@example.org", "dora@home.example.org")
    code, stdout, _ = call("why", "members", "dora")
    assert code == 0
    for address in ("dora@example.org", "dora@home.example.org"):
        assert f"It is not known whether {address} is on members" in stdout
    found = json.loads(call("why", "members", "dora", "--format", "json")[1])
    assert [each["address"] for each in found] == ["dora@example.org", "dora@home.example.org"]


@pytest.mark.parametrize("address", HOSTILE)
def test_options_end_at_two_dashes(call, address):
    code, stdout, _ = call("why", "members", "--", address)
    assert code == 0
    assert stdout.startswith(f"{address.lower()} is not known here")


@pytest.mark.parametrize("address", ["", "rubbish", "a b@example.org", "\udcff@example.org", "a@b@c"])
def test_what_is_no_address_is_65(refused, address):
    assert "neither a username nor an e-mail address" in refused(65, "why", "members", "--", address)
    assert "not an e-mail address" in refused(65, "history", f"--address={address}")


def test_numbers_are_printed_by_month_for_all_lists_or_for_one(call, cast):
    call("sync", "members")
    call("unsubscribe", "members", "alice")
    assert call("numbers")[1].splitlines()[1].split() == ["2026-11-01", "2", "0", "1", "0"]
    (year,) = json.loads(call("numbers", "--by", "year", "--format", "json", "tech")[1])
    assert year == {"begins_on": "2026-01-01", "subscribers": None, "joined": 0, "left": 0, "people_making_changes": 0}


def test_report_is_a_line_for_each_list_or_for_one(call, cast):
    call("sync", "members")
    code, stdout, stderr = call("report")
    assert (code, stderr) == (0, "")
    headings, members, tech, board = stdout.splitlines()
    assert headings.split("  ")[0] == "LIST"
    assert members.split() == [
        "members",
        *["2", "1", "0", "0", "0", "0", "0", "0", "0", "1"],
        "2026-11-22",
        "06:00",
        "UTC",
        "done",
        "no",
    ]
    assert tech.split()[-3:] == ["-", "-", "yes"]
    assert board.startswith("board")
    found = json.loads(call("report", "members", "--format", "json")[1])
    assert len(found) == 1
    assert found[0]["last_run"]["started_at"] == "2026-11-22T06:00:00Z"
    assert found[0]["is_late"] is False


def test_who_is_on_a_list_without_an_account_is_asked_of_the_list_and_kept_nowhere(call, refused, cast, rosters):
    rosters.set("members", "Old@Example.net", "Alice@example.org", "eve@example.net")
    assert call("report", "members", "--without-account") == (0, "eve@example.net\nOld@Example.net\n", "")
    found = call("report", "members", "--without-account", "--format", "json")[1]
    assert json.loads(found) == ["eve@example.net", "Old@Example.net"]
    rosters.set("members", "alice@example.org")
    assert call("report", "members", "--without-account") == (0, "", "")
    (rosters.folder / "members.txt").unlink()
    assert "members" in refused(69, "report", "members", "--without-account")
    assert "unknown list" in refused(78, "report", "nothing", "--without-account")
    assert "--without-account needs a LIST" in call("report", "--without-account")[2]


def test_runs_and_history_can_be_narrowed_and_limited(call, cast):
    call("sync")
    call("sync", "members")
    assert len(call("runs")[1].splitlines()) == 5
    assert len(call("runs", "--list", "members", "--limit", "1")[1].splitlines()) == 2
    assert len(call("history", "--list", "board")[1].splitlines()) == 2
    assert len(call("history", "--limit", "2")[1].splitlines()) == 3
    assert call("history", "--address", "nobody@example.org")[1].splitlines()[1:] == []


def test_times_are_in_the_zone_of_the_portal(make_app, rosters):
    runner = make_app(PORTAL_TIMEZONE="America/New_York").test_cli_runner()
    assert runner.invoke(args=["mailinglist", "sync", "members"]).exit_code == 0
    assert "2026-11-22 01:00 EST" in runner.invoke(args=["mailinglist", "runs"]).stdout


def test_what_people_and_list_managers_wrote_cannot_move_the_cursor(call, session, clock):
    from portal.models import Run

    message = "\x1b[2Jgone\r\nerror: forged"
    columns = {"started_at": clock(), "state": "failed", "message": message}
    session.add(Run(list_handle="members", kind="sync", asked_by="cron", host="here", **columns))
    session.commit()
    stdout = call("runs")[1]
    assert "\x1b" not in stdout
    assert "\r" not in stdout
    assert len(stdout.splitlines()) == 2


def _environ(instance: Path) -> dict[str, str]:
    found = {**os.environ, "PORTAL_INSTANCE": str(instance), "PYTHONWARNINGS": "error,ignore::ResourceWarning"}
    return {**found, "PORTAL_SQLALCHEMY_DATABASE_URI": SERVER} if SERVER else found


@pytest.mark.slow
def test_at_a_terminal_sync_says_what_it_did_and_list_init_how_far_it_is(app: Flask, instance, rosters, tmp_path):
    (tmp_path / "roster").write_text("".join(f"user{number}@example.org\n" for number in range(25_000)))
    ours, theirs = pty.openpty()
    flask = [sys.executable, "-m", "flask", "--app", "portal", "mailinglist"]
    for args in (["list-init", "members", str(tmp_path / "roster")], ["sync", "tech"]):
        done = subprocess.run(
            [*flask, *args], env=_environ(instance), stdout=theirs, stderr=theirs, timeout=60, check=False
        )
        assert done.returncode == 0
    shown = os.read(ours, 100_000).decode()
    os.close(ours)
    os.close(theirs)
    assert "\r10,000 lines\r20,000 lines\r25,000 lines\r\n" in shown
    assert "unknown: 25000\r\n" in shown
    assert "tech: nothing to do" in shown


def test_a_full_disk_is_one_line(app, instance, rosters):
    argv = [sys.executable, "-m", "flask", "--app", "portal", "mailinglist", "lists"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(argv, env=_environ(instance), stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "error: OSError: [Errno 28] No space left on device (docs/errors.md#something-went-wrong)\n",
    )


def test_the_help_of_the_commands_imports_nothing_heavy(app, instance, rosters):
    script = (
        "import sys; from flask.cli import main; sys.argv = ['flask', '--app', 'portal', 'mailinglist', '--help']\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'bcrypt', 'email_validator', 'alembic', 'urllib3', 'psycopg', 'flask_migrate', 'hypothesis'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)"
    )
    argv = [sys.executable, "-c", script]
    environ = {name: value for name, value in _environ(instance).items() if name != "PORTAL_SQLALCHEMY_DATABASE_URI"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=True)
    assert "Keep the lists of mailinglists.toml up to date" in done.stdout
    assert done.stderr == "[]\n"


@pytest.mark.parametrize("command", ["", *sorted(COMMANDS)])
def test_every_command_has_help_with_an_example(runner, command):
    result = runner.invoke(args=["mailinglist", *([command] if command else []), "--help"])
    assert result.exit_code == 0
    assert not command or "Example: " in result.stdout


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_every_command_and_option_is_documented(command):
    page = (
        (Path(__file__).parents[2] / "docs" / "commands.md")
        .read_text(encoding="utf-8")
        .partition("\n## `flask user`")[0]
    )
    (row,) = re.findall(rf"^\| `{re.escape(command)}[ `].*", page, re.MULTILINE)
    for parameter in mailinglist.commands[command].params:
        if parameter.param_type_name == "option":
            assert all(option in row for option in parameter.opts), parameter.name
