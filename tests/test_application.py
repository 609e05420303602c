"""What an application attaches in a command's process and in a server's, each tested in its own process."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import SERVER

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def flask(instance: Path, *words: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    environ = {"PATH": os.environ["PATH"], "PORTAL_INSTANCE": str(instance), "PORTAL_BCRYPT_ROUNDS": "4"}
    if SERVER:
        environ["PORTAL_SQLALCHEMY_DATABASE_URI"] = SERVER
    return subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flask", "--app", "portal", *words],
        cwd=ROOT, env=environ, input=stdin, capture_output=True, text=True, check=False,
    )  # fmt: skip


def imported(done: subprocess.CompletedProcess[str]) -> set[str]:
    lines = (line for line in done.stderr.splitlines() if line.startswith("import time:"))
    return {line.rpartition("|")[2].strip() for line in lines}


@pytest.mark.parametrize("words", [("mailinglist", "get-subscribed", "members"), ("mailinglist", "sync")])
def test_a_command_that_shows_no_page_imports_none(app, instance: Path, rosters, words: tuple[str, ...]) -> None:
    done = flask(instance, *words)

    assert done.returncode == 0, done.stderr[-2000:]
    assert "portal.services.transaction" in imported(done)  # the measurement works
    assert {each for each in imported(done) if each.startswith(("portal.web", "flask_wtf", "flask_login"))} == set()


def test_only_the_driver_of_the_configured_database_is_imported(app, instance: Path, rosters) -> None:
    done = flask(instance, "mailinglist", "sync")

    assert {"sqlite3", "psycopg"} & imported(done) == ({"psycopg"} if SERVER else {"sqlite3"})


def test_a_text_made_from_a_template_is_the_same_in_a_command_as_in_a_server(app, instance: Path, runner) -> None:
    done = flask(instance, "mailinglist", "sync-script")
    served = runner.invoke(args=["mailinglist", "sync-script"])

    assert done.returncode == 0, done.stderr[-2000:]
    assert [line for line in done.stdout.splitlines() if "=" not in line] == [
        line for line in served.stdout.splitlines() if "=" not in line
    ]
    assert "\n\n\n" not in done.stdout  # the blank lines of loops are trimmed


def test_what_serves_or_looks_at_pages_has_them_all(app, instance: Path) -> None:
    done = flask(instance, "routes")

    assert done.returncode == 0, done.stderr[-2000:]
    assert {"subscriptions.show", "admin.lists.index", "api.calls.init"} <= set(done.stdout.split())


def test_the_program_lists_our_commands(app, instance: Path) -> None:
    done = flask(instance, "--help")

    assert {"apikey", "db", "demo", "mailinglist", "portal", "user"} <= {
        line.split()[0] for line in done.stdout.splitlines() if line.startswith("  ")
    }
    assert flask(instance, "nothing-of-ours").returncode == 2


def test_the_security_log_says_of_a_commands_event_that_a_command_caused_it(app, instance: Path) -> None:
    done = flask(
        instance,
        "user",
        "create",
        "--password-stdin",
        "--superuser",
        "bob",
        "bob@example.org",
        stdin="Correct-horse-7!",
    )

    assert done.returncode == 0, done.stderr[-2000:]
    events = [json.loads(line) for line in (instance / "security.log").read_text().splitlines()]
    assert {each["by"] for each in events} == {"command line"}
