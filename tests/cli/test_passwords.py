"""`flask mailinglist password-sync` and `changepw-script`: SEMANTICS, "Passwords of the list manager"."""

import ast
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.services.accounts.passwords import hash_password
from portal.services.sync.list_passwords import derive, mailboxes, replace_password
from tests.factories import make_preference, make_user
from tests.fakes.mailman2 import FakeMailman2

Call = Callable[..., tuple[int, str, str]]
PASSWORD = "correct horse battery"


@pytest.fixture
def mailman(tmp_path: Path) -> FakeMailman2:
    fake = FakeMailman2(tmp_path / "mailman")
    fake.set_roster("members", ["alice@example.org", "Bob@example.org"])
    fake.set_roster("silent", ["alice@example.org"])
    return fake


@pytest.fixture
def instance(instance: Path, mailman: FakeMailman2) -> Path:
    """A catalogue of three lists: at Mailman, at Mailman without passwords, and at one that keeps none."""
    lists = "".join(
        f'[lists.{handle}]\nname = "{handle}"\nemail = "{handle}@lists.example.org"\nmanager = "{manager}"\n{more}\n'
        for handle, manager, more in [
            ("members", "mailman", ""),
            ("silent", "mailman", "syncpws = false"),
            ("plain", "files", "syncpws = true"),
        ]
    )
    files = '[managers.files]\nkind = "file"\ndirectory = "rosters"\n'
    (instance / "mailinglists.toml").write_text(f"enabled = true\n{lists}{files}{mailman.toml()}")
    return instance


@pytest.fixture
def call(runner: FlaskCliRunner) -> Call:
    def run(*args: str) -> tuple[int, str, str]:
        result = runner.invoke(args=["mailinglist", *args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def key(app: Flask) -> bytes:
    found: bytes = app.extensions["portal"].list_password_key()
    return found


@pytest.fixture
def cast(session: Session) -> dict[str, int]:
    """Alice and Bob are members, and Charlie was one a moment ago."""
    made = {}
    for name in ("alice", "bob", "charlie"):
        made[name] = make_user(session, name, password_hash=hash_password(PASSWORD, rounds=4))
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    return made


def test_subscribers_get_their_list_password_in_one_call_and_only_once(call, cast, key, mailman, session):
    code, stdout, stderr = call("password-sync", "members")
    assert (code, stdout) == (0, "")
    assert stderr == ("members: the list manager did not set the password of charlie@example.org: No such member\n")
    assert mailman.passwords("members") == {
        address: derive(key, address, 0) for address in ("alice@example.org", "bob@example.org")
    }
    assert len(mailman.calls("changepw")) == 1
    mailman.set_roster("members", ["alice@example.org", "bob@example.org", "charlie@example.org"])
    assert call("password-sync", "members") == (0, "", "")
    assert call("password-sync", "members") == (0, "", "")
    assert [each.stdin.count("\t") for each in mailman.calls("changepw")] == [3, 1]


def test_a_password_that_was_replaced_is_set_again_and_all_are_with_all(call, cast, key, mailman, session):
    mailman.set_roster("members", [f"{name}@example.org" for name in cast])
    call("password-sync", "members")
    address_id = mailboxes(session, cast["bob"])[0].address_id
    replaced = replace_password(session, cast["bob"], address_id, key=key)
    assert call("password-sync", "-v", "members") == (
        0, "", "members: bob@example.org\nmembers: passwords set: 1\n",
    )  # fmt: skip
    assert mailman.passwords("members")["bob@example.org"] == replaced
    assert call("password-sync", "--all", "members")[0] == 0
    assert mailman.calls("changepw")[-1].stdin.count("\t") == 3


def test_noexec_prints_the_commands_quoted_runs_none_and_shows_no_password(call, cast, key, mailman):
    code, stdout, stderr = call("password-sync", "--noexec", "-v", "members")
    assert code == 0
    assert shlex.split(stdout) == [*shlex.split(mailman.cmds["changepw"]), "members"]
    assert "members: passwords to set: 3\n" in stderr
    assert "alice@example.org" in stderr
    assert derive(key, "alice@example.org", 0) not in stdout + stderr
    assert mailman.calls() == []
    assert call("password-sync", "members")[0] == 0
    assert mailman.passwords("members")


def test_a_list_without_passwords_and_a_kind_without_them_say_so_and_all_is_well(call, cast, mailman, instance):
    code, stdout, stderr = call("password-sync", "silent")
    assert (code, stdout) == (0, "")
    assert stderr == "silent: syncpws = false in mailinglists.toml, so no passwords are set\n"
    code, stdout, stderr = call("password-sync", "--noexec", "plain")
    assert (code, stdout) == (0, "")
    assert stderr == "plain: this kind of list manager has no list passwords, so none are set\n"
    assert mailman.calls() == []
    assert not (instance / "list_password_key").exists()


@pytest.mark.parametrize(
    ("exit_code", "stderr", "words"),
    [
        (1, "Traceback (most recent call last):\n  line\nImportError: No module named changepw\n", "No module named"),
        (1, "Unknown list: members\n", "Mailman has no list of that name"),
    ],
)
def test_a_command_that_fails_is_69_and_nothing_is_marked(call, cast, mailman, exit_code, stderr, words):
    mailman.fail("changepw", exit_code=exit_code, stderr=stderr)
    code, stdout, told = call("password-sync", "-v", "members")
    assert (code, stdout) == (69, "")
    assert told.startswith("error: members: changepw")
    assert words in told
    mailman.repair()
    call("password-sync", "members")
    assert mailman.calls("changepw")[-1].stdin.count("\t") == 3


def test_an_empty_list_needs_no_command(call, mailman):
    assert call("password-sync", "-v", "members") == (0, "", "members: passwords set: 0\n")
    assert call("password-sync", "--noexec", "members") == (0, "", "")
    assert mailman.calls() == []


def test_no_form_of_a_portal_password_and_no_list_password_is_ever_told(
    app, call, cast, key, mailman, instance, caplog
):
    caplog.set_level(0)
    own = derive(key, "alice@example.org", 0)
    stored = hash_password(PASSWORD, rounds=4).partition("$")[2][-53:]
    said = []
    mailman.fail("changepw", stderr=f"cannot set alice@example.org\t{own}\n")
    said += call("password-sync", "-v", "members")[1:]
    mailman.repair()
    for options in (["-v"], ["-v", "--all"], ["--noexec", "-v", "--all"]):
        said += call("password-sync", *options, "members")[1:]
    handed = "".join(f"{each.argv}{each.environment}{each.stdin}" for each in mailman.calls())
    in_ps = "".join(f"{each.argv}{each.environment}" for each in mailman.calls())
    told = "".join(said) + caplog.text
    assert own in handed
    assert own not in in_ps + told
    for canary in (PASSWORD, stored, "$2b$", "v1$", key.decode(), (instance / "secret_key").read_text().strip()):
        assert canary not in handed + told


# --- the helper for withlist

DRIVER = '''
import sys
import changepw


class MailList(object):
    """What of Mailman.MailList a helper needs; tells on stderr what was done to it."""

    def __init__(self):
        self.locked = "-l" in sys.argv

    def Locked(self):
        return self.locked

    def Lock(self):
        self.locked = True
        sys.stderr.write("lock\\n")

    def Unlock(self):
        if self.locked:
            sys.stderr.write("unlock\\n")
        self.locked = False

    def isMember(self, address):
        return address.lower() in ("alice@example.org", "bob@example.org")

    def setMemberPassword(self, address, password):
        if password == "break":
            raise RuntimeError("it broke down")
        sys.stderr.write("%s=%s\\n" % (address, password))

    def Save(self):
        assert self.locked
        sys.stderr.write("save\\n")


arguments = [each for each in sys.argv[1:] if each not in ("-l", "nope")]
changepw.changepw(None if "nope" in sys.argv else MailList(), *arguments)
'''


def pythons() -> list[str]:
    """The Python 2 of this host, where it has one that starts, and the one that runs the tests."""
    found = [each for name in ("python2.7", "python2") if (each := shutil.which(name))]
    old = [each for each in found if subprocess.run([each, "-V"], check=False, capture_output=True).returncode == 0]
    return [*old[:1], sys.executable]


@pytest.fixture
def script(call: Call) -> str:
    code, stdout, stderr = call("changepw-script")
    assert (code, stderr) == (0, "")
    return stdout


@pytest.fixture(params=pythons(), ids=os.path.basename)
def withlist(request: pytest.FixtureRequest, script: str, tmp_path: Path) -> Call:
    """Mailman's withlist -r changepw, with a list of its own that Alice and Bob are members of."""
    (tmp_path / "changepw.py").write_text(script)
    (tmp_path / "driver.py").write_text(DRIVER)

    def run(*args: str, stdin: str = "") -> tuple[int, str, str]:
        command = [request.param, "-B", str(tmp_path / "driver.py"), *args]
        done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("locked", [["-l"], []])
def test_the_helper_sets_one_password(withlist, locked):
    code, stdout, stderr = withlist(*locked, "Alice@example.org", "pä ss")
    assert (code, stdout) == (0, "")
    assert stderr == f"{'' if locked else f'lock{chr(10)}'}Alice@example.org=pä ss\nsave\nunlock\n"


def test_the_helper_sets_the_passwords_of_lines_with_one_save_and_names_who_is_no_member(withlist):
    lines = "alice@example.org\tone\ncharlie@example.org\ttwo\nbob@example.org\tthree four\n"
    code, stdout, stderr = withlist("-l", stdin=lines)
    assert (code, stdout) == (0, "No such member: charlie@example.org\n")
    assert stderr == "alice@example.org=one\nbob@example.org=three four\nsave\nunlock\n"


def test_the_helper_leaves_a_list_alone_that_none_of_them_is_a_member_of(withlist):
    assert withlist("-l", stdin="x@example.org\tone\n") == (0, "No such member: x@example.org\n", "unlock\n")
    assert withlist("-l") == (0, "", "unlock\n")


def test_the_helper_ends_with_3_for_who_is_no_member(withlist):
    code, stdout, stderr = withlist("-l", "charlie@example.org", "pw")
    assert (code, stdout) == (3, "No such member: charlie@example.org\n")
    assert stderr == "unlock\nchangepw: charlie@example.org is not a member of the list\n"


def test_the_helper_ends_with_1_where_withlist_found_no_list(withlist):
    assert withlist("nope", "alice@example.org", "pw") == (1, "", "changepw: there is no such list\n")


@pytest.mark.parametrize(
    "lines", ["alice@example.org\n", "alice@example.org\tone\ttwo\n", "\tone\n", "bob@example.org\t\n", "\n"]
)
def test_the_helper_sets_nothing_where_a_line_cannot_be_read(withlist, lines):
    code, stdout, stderr = withlist("-l", stdin=f"alice@example.org\tone\n{lines}")
    assert (code, stdout) == (2, "")
    assert stderr == "changepw: line 2 is not ADDRESS TAB PASSWORD, so nothing was set\nunlock\n"


def test_the_helper_does_not_take_a_line_that_was_cut_off(withlist):
    assert withlist("-l", stdin="alice@example.org\tone\nbob@example.org\tthr")[0] == 2


def test_the_helper_explains_its_use(withlist):
    code, stdout, stderr = withlist("-l", "alice@example.org")
    assert (code, stdout) == (2, "")
    assert "give ADDRESS and PASSWORD" in stderr


def test_the_helper_unlocks_whatever_happens_and_saves_nothing_then(withlist):
    code, _stdout, stderr = withlist("-l", "alice@example.org", "break")
    assert code == 1
    assert stderr.startswith("unlock\n")
    assert "save" not in stderr


def test_the_helper_is_python_2_as_well(script):
    script.encode("ascii")
    tree = ast.parse(script)
    modern = (
        ast.JoinedStr,
        ast.AnnAssign,
        ast.Nonlocal,
        ast.Starred,
        ast.NamedExpr,
        ast.YieldFrom,
        ast.AsyncFunctionDef,
    )
    for node in ast.walk(tree):
        assert not isinstance(node, modern)
        if isinstance(node, ast.FunctionDef):
            assert (node.args.kwonlyargs, node.returns) == ([], None)
            assert all(each.annotation is None for each in node.args.args)
        if isinstance(node, ast.Raise):
            assert node.cause is None
    futures = [each for each in tree.body if isinstance(each, ast.ImportFrom) and each.module == "__future__"]
    assert [alias.name for each in futures for alias in each.names] == ["print_function"]
