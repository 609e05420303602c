"""The decisions of make, tested with fake interpreters; CI runs the real thing on a fresh clone."""

import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.waiting import is_gone, wait_until

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder in which make has all that it looks at, and a half of what it would install."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
        os.utime(tmp_path / name, (1, 1))
    return tmp_path


def make(clone: Path, *args: str, **environ: str) -> subprocess.CompletedProcess[str]:
    kept = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"}
    return subprocess.run(
        ["make", *args], cwd=clone, env={**kept, **environ}, capture_output=True, text=True, check=False, timeout=60
    )


def program(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(["#!/bin/sh", *lines, ""]))
    path.chmod(0o755)
    return path


def install(clone: Path, *stamps: str, python: str = "exit 0") -> None:
    """Pretend that an installation has come to its end."""
    program(clone / ".venv" / "bin" / "python", python)
    for stamp in stamps:
        (clone / ".venv" / f".installed-{stamp}").touch()


PATCHED = f"""exec {sys.executable} -c 'import sys; {{}}
exec(sys.argv[1])' "$2\""""
OLD = PATCHED.format('sys.version_info = (3, 9, 18, "final", 0)')
WITHOUT_VENV = PATCHED.format("sys.modules['ensurepip'] = None").replace("['ensurepip']", '["ensurepip"]')


@pytest.mark.parametrize("goal", ["run", "test", "check"])
@pytest.mark.parametrize(
    ("python", "words"),
    [
        (OLD, "python3 is Python 3.9 and the portal needs 3.11 or newer: name one, make PYTHON=/path/to/python3"),
        ("exit 127", "python3 does not run: install Python 3.11 or newer (Debian: apt-get install python3-venv)"),
        (WITHOUT_VENV, "install its venv module (Debian: apt-get install python3-venv)"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_one_line(clone: Path, goal: str, python: str, words: str) -> None:
    program(clone / "bin" / "python3", python)

    done = make(clone, goal, PATH=f"{clone / 'bin'}:{os.environ['PATH']}")

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert words in done.stderr
    assert not (clone / ".venv").exists()


def test_another_python_can_be_named(clone: Path) -> None:
    assert "/no/python3 does not run: install Python" in make(clone, "test", "PYTHON=/no/python3").stderr


def test_a_bare_clone_is_given_an_environment_and_what_the_goal_needs(clone: Path) -> None:
    run, test = (make(clone, "-n", goal, f"PYTHON={sys.executable}").stdout for goal in ("run", "test"))

    assert f"{sys.executable} -m venv --clear .venv" in run
    assert f"{sys.executable} -m venv --clear .venv" in test
    assert "--constraint constraints.txt --editable '.[server]'" in run
    assert "--constraint constraints.txt --editable '.[server,postgresql,test,e2e,lint]'" in test


def test_what_is_installed_is_left_alone(clone: Path) -> None:
    install(clone, "server", "all")

    for goal in ("test", "test-all", "nightly", "faults", "check", "bench", "screenshots"):
        assert "venv --clear" not in make(clone, "-n", goal).stdout
        assert "pip install" not in make(clone, "-n", goal).stdout


def test_tests_after_a_run_are_installed_on_top(clone: Path) -> None:
    install(clone, "server")
    steps = make(clone, "-n", "test").stdout

    assert "venv --clear" not in steps
    assert "pip install" in steps


def test_a_change_of_what_is_wanted_is_installed_on_top(clone: Path) -> None:
    install(clone, "server", "all")
    (clone / "constraints.txt").touch()
    os.utime(clone / ".venv" / ".installed-all", (2, 2))
    steps = make(clone, "-n", "test").stdout

    assert "venv --clear" not in steps
    assert "pip install" in steps


@pytest.mark.parametrize("stamps", [(), ("server", "all")])
@pytest.mark.parametrize("python", ["exit 0", "exit 1"])
def test_a_half_made_environment_is_made_anew(clone: Path, stamps: tuple[str, ...], python: str) -> None:
    install(clone, *stamps, python=python)  # no stamp: interrupted; exit 1: no pip
    steps = make(clone, "-n", "test", f"PYTHON={sys.executable}").stdout

    assert ("venv --clear" in steps) is not (bool(stamps) and python == "exit 0")


def test_an_installation_that_fails_leaves_no_stamp(clone: Path) -> None:
    install(clone, "server", python='case "$*" in *install*) exit 1;; esac')

    assert make(clone, "test").returncode == 2
    assert list((clone / ".venv").glob(".installed-*")) == []


@pytest.mark.parametrize("port", ["taken", "http", "99999"])
def test_a_port_that_cannot_be_had_is_told_in_one_line(clone: Path, port: str) -> None:
    install(clone, "server", python=f'case "$1" in -c) exec {sys.executable} "$@";; *) echo reached;; esac')
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = str(server.getsockname()[1]) if port == "taken" else port
        done = make(clone, "run", f"PORT={port}")

    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert f"cannot serve on 127.0.0.1:{port} (" in done.stderr
    assert "choose another port, make run PORT=8001" in done.stderr


def test_the_demo_never_reaches_a_database_that_the_environment_names(clone: Path) -> None:
    told = "echo $PORTAL_INSTANCE $PORTAL_BASE_URL [$PORTAL_SQLALCHEMY_DATABASE_URI]"
    install(clone, "server", python=f'case "$1" in -c) ;; *) {told};; esac')
    real = {"PORTAL_SQLALCHEMY_DATABASE_URI": "postgresql+psycopg://real", "PORTAL_INSTANCE": "/real"}

    done = make(clone, "run", "PORT=8765", **real)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == "instance/demo http://127.0.0.1:8765 []"
    assert "real" not in done.stdout


def test_the_demo_carries_requests_out_for_as_long_as_it_serves(clone: Path) -> None:
    """What superusers ask for in it; the server of this test ends as soon as that was done."""
    carried_out = clone / "carried-out"
    install(
        clone,
        "server",
        python=f"""case "$*" in
            *minutely) echo heard; echo "$PPID $PORTAL_INSTANCE" >> {carried_out};;
            *gunicorn*) until [ -s {carried_out} ]; do sleep 0.1; done;;
        esac""",
    )

    program(clone / "bin" / "sleep", "exec /bin/sleep 0.1")

    done = make(clone, "run", "PORT=8765", PATH=f"{clone / 'bin'}:{os.environ['PATH']}")

    assert (done.returncode, done.stderr) == (0, "")
    assert "heard" not in done.stdout
    ((loop, instance),) = {tuple(line.split()) for line in carried_out.read_text().splitlines()}
    assert instance == "instance/demo"
    wait_until(lambda: is_gone(int(loop)))


def test_ci_alone_allows_no_skip(clone: Path) -> None:
    install(clone, "server", "all")

    for goal in ("test", "test-all", "nightly"):
        assert "-p tests.no_skips" in make(clone, "-n", goal, CI="true").stdout
        assert "-p tests.no_skips" not in make(clone, "-n", goal).stdout


def test_the_quick_tests_are_those_that_are_not_slow_and_no_core_is_idle(clone: Path) -> None:
    install(clone, "server", "all")
    quick, whole = (make(clone, "-n", goal, "ARGS=-k roster").stdout for goal in ("test", "test-all"))

    assert "-m 'not slow' -k roster" in quick
    assert "slow" not in whole
    assert "-k roster" in whole
    assert "-n auto" in quick
    assert "-n auto" in whole


def test_a_night_is_for_both_databases_where_there_is_a_server(clone: Path) -> None:
    install(clone, "server", "all")
    alone = make(clone, "-n", "nightly").stdout
    both = make(clone, "-n", "nightly", PORTAL_TEST_DATABASE_URI="postgresql+psycopg://test").stdout

    assert alone.count("--hypothesis-profile=nightly") == 1
    assert both.count("--hypothesis-profile=nightly") == 2
    assert both.count("env -u PORTAL_TEST_DATABASE_URI") == 1


def test_without_a_goal_make_tells_its_goals(clone: Path) -> None:
    help_text = make(clone).stdout

    for goal in ("run", "test", "test-all", "nightly", "faults", "check", "bench", "screenshots", "clean"):
        assert f"make {goal} " in help_text
