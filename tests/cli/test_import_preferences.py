"""`flask mailinglist import`: what it prints where, and how it ends; and a whole move from elsewhere."""

import json
from collections.abc import Callable
from pathlib import Path

import bcrypt
import pytest
from flask.testing import FlaskClient, FlaskCliRunner
from sqlalchemy.orm import Session

from tests.conftest import Rosters
from tests.factories import make_user

Call = Callable[..., tuple[int, str, str]]
RECORDS = [
    {"username": "alice", "email": "", "attribute": "mailinglist.members.subscribed", "value": "1"},
    {"username": "alice", "email": "", "attribute": "mailinglist.gone.subscribed", "value": "1"},
    {"username": "bob", "email": "", "attribute": "mailinglist.members.subscribed", "value": "0"},
    {"username": "eve", "email": "", "attribute": "mailinglist.members.subscribed", "value": "1"},
]


@pytest.fixture
def call(runner: FlaskCliRunner) -> Call:
    def run(*args: str, stdin: str | bytes | None = None) -> tuple[int, str, str]:
        result = runner.invoke(args=list(args), input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def file(tmp_path: Path, session: Session) -> str:
    make_user(session, "alice")
    make_user(session, "bob")
    path = tmp_path / "preferences.json"
    path.write_text(json.dumps(RECORDS))
    return str(path)


def test_import_prints_counts_and_tells_on_stderr_what_it_passed_over(call: Call, file: str):
    code, stdout, stderr = call("mailinglist", "import", file)
    assert code == 0
    assert stdout.splitlines() == [
        "LIST     SUBSCRIBED  UNSUBSCRIBED  REFUSED  KEPT",
        "members           1             1        0     0",
        "tech              0             0        0     0",
        "board             0             0        0     0",
    ]
    assert stderr.splitlines() == [
        "unknown list: 1",
        "  entry 2: gone",
        "unknown user: 1",
        "  entry 4: eve",
    ]
    assert call("mailinglist", "get-subscribed", "members")[1] == "alice@example.org\n"
    assert call("mailinglist", "get-unsubscribed", "members")[1] == "bob@example.org\n"


def test_import_reads_standard_input_and_a_dry_run_writes_nothing(call: Call, file: str):
    code, stdout, stderr = call(
        "mailinglist", "import", "--dry-run", "--format", "json", "-", stdin=Path(file).read_bytes()
    )
    assert code == 0
    found = json.loads(stdout)
    assert found["lists"][0] == {
        "handle": "members", "subscribed": 1, "unsubscribed": 1, "refused": 0, "kept": 0,
    }  # fmt: skip
    assert found["skipped"][0] == {"reason": "unknown list", "times": 1, "examples": ["entry 2: gone"]}
    assert stderr.endswith("dry run: nothing was changed\n")
    assert call("mailinglist", "get-subscribed", "members")[1] == ""


@pytest.mark.parametrize("content", [b"", b"nonsense\n", b"\xff\xff", b"[", b"{\n"])
def test_import_refuses_a_file_of_which_nothing_can_be_read(call: Call, content: bytes):
    code, stdout, stderr = call("mailinglist", "import", "-", stdin=content)
    assert (code, stdout) == (65, "")
    assert stderr.startswith("error: ")
    assert stderr.count("\n") == 1


def test_import_shows_hostile_text_without_control_characters(call: Call, session: Session):
    records = [
        {"username": "a\x1b[2J\u202e", "attribute": "mailinglist.members.subscribed", "value": "1"},
        {"email": "\n\r\x07e", "attribute": "mailinglist.x\0\x07.subscribed", "value": "1"},
        {"username": "b", "attribute": "mailinglist.members.subscribed", "value": "\x1b"},
    ]
    code, _, stderr = call("mailinglist", "import", "-", stdin=json.dumps(records))
    assert code == 0
    assert all(line.isprintable() for line in stderr.splitlines())


def test_users_log_in_with_the_password_that_they_had_and_find_what_they_had_chosen(
    call: Call, client: FlaskClient, rosters: Rosters
):
    """The whole move: accounts with their hashes, preferences, a look, a yes, and nobody notices."""
    names = [f"user{number}" for number in range(12)]
    stored = "$2y$" + bcrypt.hashpw(b"an old password", bcrypt.gensalt(4)).decode()[4:]
    users = "username,email,name,superuser,password_hash\n" + "".join(
        f'{name},{name.title()}@Example.org,"Doe, {name}",no,{stored}\n' for name in names
    )
    assert call("user", "import", "-", stdin=users)[0] == 0
    rosters.set("members", *(f"{name}@example.org" for name in names), "stranger@example.net")
    preferences = "username,email,attribute,value\n" + "".join(
        f"{name},,mailinglist.members.subscribed,{int(number < 4)}\n" for number, name in enumerate(names)
    )
    assert call("mailinglist", "import", "-", stdin=preferences)[0] == 0
    dry = call("mailinglist", "sync", "--dry-run", "members")
    assert "this plan exceeds the safety limits: it removes 8 of" in dry[2]
    refused, _, told = call("mailinglist", "sync", "members")
    assert refused == 77
    assert len(rosters.get("members")) == 13
    assert call("mailinglist", "sync", "--accept", told.split()[-2])[0] == 0
    assert rosters.get("members") == {*(f"{name}@example.org" for name in names[:4]), "stranger@example.net"}
    assert call("mailinglist", "sync", "--dry-run", "members")[1].startswith("members: nothing to do")

    page = client.get("/login").text
    token = page.split('name="csrf_token"')[1].split('value="')[1].split('"')[0]
    form = {"csrf_token": token, "username": "user0", "password": "an old password"}
    assert client.post("/login", data=form).status_code == 303
    assert "checked" in client.get("/subscriptions").text
