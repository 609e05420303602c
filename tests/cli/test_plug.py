"""The list manager fails at each step of a sync: nothing is lost, and the next run repairs it."""

import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import Address, History, Preference
from tests.factories import make_preference, make_user
from tests.fakes.mailman2 import FakeMailman2
from tests.fakes.mailman3 import FakeMailman3

CATALOGUE = """
enabled = true
[lists.ants]
name = "Ants"
email = "ants@lists.example.org"
syncpws = false
"""
BEFORE = {"bob@example.org", "charlie@example.org", "stranger@example.net"}
AFTER = {"alice@example.org", "charlie@example.org", "stranger@example.net"}
CHOSEN = {"alice": True, "bob": False, "charlie": True, "dora": True}
SETTLED = {
    "alice": (True, True, "user"),
    "bob": (False, False, "user"),
    "charlie": (True, True, "user"),
    "dora": (False, False, "list"),  # she left at the list
}
HTTP_STEPS = ["look-up", "first roster", "add", "remove", "roster after"]
HTTP_FAULTS = ["refuse", "hang", "garbage", "redirect", "unauthorized", "error"]
COMMAND_STEPS = ["first roster", "add", "remove", "roster after"]


class Portal:
    """A portal in which Alice ticked a list, Bob unticked it, and Dora left it at the list manager."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        with app.app_context(), Session(db.engine) as session:
            for name, wanted in CHOSEN.items():
                make_user(session, name)
                seen = None if name == "alice" else True
                touched = name in {"alice", "bob"}
                make_preference(session, "ants", f"{name}@example.org", wanted, seen=seen, touched=touched)

    def sync(self) -> tuple[int, str]:
        result = self.app.test_cli_runner().invoke(args=["mailinglist", "sync", "ants"])
        return result.exit_code, result.stderr

    def preferences(self) -> dict[str, tuple[bool, bool | None, str]]:
        columns = (Address.canonical, Preference.subscribed, Preference.seen, Preference.source)
        with self.app.app_context(), Session(db.engine) as session:
            rows = session.execute(select(*columns).join(Preference, Preference.address_id == Address.id)).all()
        return {row.canonical.partition("@")[0]: tuple(row[1:]) for row in rows}

    def history(self) -> int:
        with self.app.app_context(), Session(db.engine) as session:
            return len(session.scalars(select(History.id)).all())


def assert_pulled(portal: Portal, roster: Callable[[], set[str]]) -> None:
    """A run in trouble says so in one line and leaves every choice, and every subscriber it has no business with."""
    code, said = portal.sync()
    assert code == 69, said
    assert len(said.splitlines()) == 1
    assert {name: found[0] for name, found in portal.preferences().items()} == CHOSEN
    assert portal.history() == 0
    assert BEFORE & AFTER <= roster() <= BEFORE | AFTER


def assert_healed(portal: Portal, roster: Callable[[], set[str]]) -> None:
    code, said = portal.sync()
    assert code == 0, said
    assert roster() == AFTER
    assert portal.preferences() == SETTLED
    assert portal.history() == 1
    assert portal.sync() == (0, "")


@pytest.fixture
def mailman3() -> Iterator[FakeMailman3]:
    with FakeMailman3() as fake:
        fake.set_roster("ants", BEFORE)
        yield fake


@pytest.mark.slow
@pytest.mark.parametrize("fault", HTTP_FAULTS)
@pytest.mark.parametrize("step", HTTP_STEPS)
def test_mailman_3_fails_at_any_step_and_the_next_run_heals(instance, make_app, mailman3, step, fault):
    settings = "\n".join(f'{key} = "{value}"' for key, value in mailman3.table().items())
    (instance / "mailinglists.toml").write_text(
        f'{CATALOGUE}[managers.m]\nkind = "mailman3"\n{settings}\n'
        "timeout = 0.5\ntimeout_per_address = 0\nmax_output = 100_000\n"
    )
    portal = Portal(make_app(for_a_command=True))
    mailman3.act(fault, at=HTTP_STEPS.index(step))

    assert_pulled(portal, lambda: mailman3.roster("ants"))
    mailman3.act()

    assert_healed(portal, lambda: mailman3.roster("ants"))
    assert [call.method for call in mailman3.calls[-2:]] == ["GET", "GET"]
    assert mailman3.mails == []


def test_the_steps_are_these(instance, make_app, mailman3):
    settings = "\n".join(f'{key} = "{value}"' for key, value in mailman3.table().items())
    (instance / "mailinglists.toml").write_text(f'{CATALOGUE}[managers.m]\nkind = "mailman3"\n{settings}\n')
    assert_healed(Portal(make_app(for_a_command=True)), lambda: mailman3.roster("ants"))
    steps = [(call.method, call.path.partition("?")[0].rpartition("/")[2]) for call in mailman3.calls]
    assert steps[: len(HTTP_STEPS)] == [
        ("GET", "ants@lists.example.org"),
        ("GET", "member"),
        ("DELETE", "member"),
        ("POST", "members"),
        ("GET", "member"),
    ]


class FullDisk:
    """The commands of Mailman 2 on a disk that is full from some call on."""

    def __init__(self, folder: Path, fake: FakeMailman2) -> None:
        self.switch = folder / "full_from"
        self.cmds = {}
        for name, command in fake.cmds.items():
            program = folder / name
            program.write_text(
                f"#!/bin/sh\ncalls=$(cat {folder}/calls 2> /dev/null || echo 0)\n"
                f"if [ -e {self.switch} ]; then\n"
                f"    echo $((calls + 1)) > {folder}/calls\n"
                f'    if [ "$calls" -ge "$(cat {self.switch})" ]; then\n'
                "        echo 'Traceback (most recent call last):' >&2\n"
                "        echo 'IOError: [Errno 28] No space left on device' >&2\n"
                f'        exit 1\n    fi\nfi\nexec {command} "$@"\n'
            )
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
            self.cmds[name] = str(program)


@pytest.mark.slow
@pytest.mark.parametrize("step", COMMAND_STEPS)
def test_the_disk_is_full_at_any_step_and_the_next_run_heals(instance, make_app, tmp_path, step):
    fake = FakeMailman2(tmp_path / "mailman")
    fake.set_roster("ants", BEFORE)
    (tmp_path / "bin").mkdir()
    disk = FullDisk(tmp_path / "bin", fake)
    cmds = "\n".join(f'{key} = "{value}"' for key, value in disk.cmds.items())
    (instance / "mailinglists.toml").write_text(
        f'{CATALOGUE}[managers.m]\nkind = "mailman2"\n[managers.m.cmds]\n{cmds}\n'
    )
    portal = Portal(make_app(for_a_command=True))
    disk.switch.write_text(str(COMMAND_STEPS.index(step)))

    assert_pulled(portal, lambda: fake.roster("ants"))
    disk.switch.unlink()

    assert_healed(portal, lambda: fake.roster("ants"))
    assert fake.calls()[-1].command == "list_members"
