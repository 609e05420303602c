"""`flask mailinglist sync --requested`: fast and quiet without requests, like `sync` with some."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import Result
from flask import Flask
from flask.testing import FlaskCliRunner
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.run import RunKind
from portal.models import Preference, Run
from portal.services.reports import runs as run_reports
from portal.services.reports.lists import RunReport
from portal.services.sync import leases, runs
from tests.conftest import SERVER, Clock, Rosters
from tests.factories import make_preference, make_user
from tests.services.sync.test_runs import BOB, make_account
from tests.test_query_counts import traffic
from tests.waiting import wait_until


class Desk:
    """Somebody who asks, and cron."""

    def __init__(self, session: Session, runner: FlaskCliRunner, clock: Clock) -> None:
        self.session, self.runner, self.clock = session, runner, clock
        make_account(session, BOB)

    def ask(self, kind: RunKind = RunKind.SYNC, handle: str = "members", plan_id: str | None = None) -> int:
        return runs.request(self.session, handle, kind=kind, plan_id=plan_id, actor=BOB, now=self.clock())

    def cron(self, *options: str) -> Result:
        return self.runner.invoke(args=["mailinglist", "sync", "--requested", *options])

    def find(self, run_id: int) -> RunReport:
        return run_reports.find(self.session, run_id).run

    def state(self, run_id: int) -> str:
        return self.find(run_id).state


@pytest.fixture
def desk(session: Session, runner: FlaskCliRunner, clock: Clock) -> Desk:
    return Desk(session, runner, clock)


@pytest.fixture
def crowd(session: Session, rosters: Rosters) -> list[str]:
    """Forty members on the list, of whom eight have unticked it."""
    names = [f"user{number}" for number in range(10, 50)]
    for name in names:
        make_user(session, name)
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    rosters.set("members", *(f"{name}@example.org" for name in names))
    chosen = session.scalars(select(Preference.address_id).order_by(Preference.address_id).limit(8)).all()
    session.execute(
        update(Preference)
        .where(Preference.address_id.in_(chosen))
        .values(subscribed=False, source="superuser", version=1)
    )
    session.commit()
    return names


def test_nothing_to_do_is_one_query_and_no_word(app: Flask, desk: Desk) -> None:
    with app.app_context(), traffic() as seen:
        done = desk.cron()
    assert (done.exit_code, done.output) == (0, "")
    assert (len(seen.statements), seen.commits) == (1, 0)


def test_what_was_asked_for_is_done_in_its_order_and_no_more(desk: Desk, session: Session, rosters: Rosters) -> None:
    make_user(session, "alice")
    asked = [desk.ask(handle="tech"), desk.ask(RunKind.SHOW, "board"), desk.ask(handle="members")]
    done = desk.cron()
    assert (done.exit_code, done.output) == (0, "")
    assert [desk.state(each) for each in asked] == ["done", "shown", "done"]
    assert (desk.cron().exit_code, session.scalar(select(Run.id).where(Run.id > 3))) == (0, None)


def test_verbose_and_json_tell_of_each(desk: Desk, rosters: Rosters) -> None:
    desk.ask()
    assert desk.cron("-v").output == "members: nothing to do (of 0 on the list before, 0 without an account)\n"
    assert desk.cron("-v").output == ""
    assert desk.cron("--format", "json").output == "[]\n"


def test_the_safety_limits_are_77_and_approval_in_the_browser_lets_it_through(
    desk: Desk, rosters: Rosters, crowd: list[str]
) -> None:
    desk.ask()
    refused = desk.cron()
    assert refused.exit_code == 77
    assert refused.stderr.startswith(
        "error: members: this plan exceeds the safety limits: it removes 8 of 40 addresses"
    )
    shown = desk.ask(RunKind.SHOW)
    assert (desk.cron().exit_code, desk.cron().output) == (0, "")
    plan_id = desk.find(shown).plan_id
    assert plan_id == refused.stderr.split()[-2]
    desk.ask(plan_id=plan_id)
    assert (desk.cron().exit_code, len(rosters.get("members"))) == (0, 32)


def test_a_plan_that_changed_is_77_and_nothing_is_done(desk: Desk, rosters: Rosters, crowd: list[str]) -> None:
    run_id = desk.ask(plan_id="0123456789abcdef")
    done = desk.cron()
    assert done.exit_code == 77
    assert done.stderr.startswith("error: members: the plan has changed, so nothing was done: it was 0123456789abcdef")
    assert desk.state(run_id) == "changed"
    assert rosters.get("members") == {f"{name}@example.org" for name in crowd}


def test_a_held_list_is_75_told_once_and_tried_until_it_is_free(desk: Desk, rosters: Rosters) -> None:
    lease = leases.acquire(desk.session, "members", outlives_process=True)
    run_id = desk.ask()
    first, second = desk.cron(), desk.cron()
    assert (first.exit_code, second.exit_code) == (75, 75)
    assert "members is held by a planned run" in first.stderr
    assert second.output == ""
    assert desk.state(run_id) == "asked"
    leases.release(desk.session, lease)
    assert (desk.cron().exit_code, desk.state(run_id)) == (0, "done")


def test_one_that_fails_stops_no_other(desk: Desk, rosters: Rosters) -> None:
    (rosters.folder / "members.txt").unlink()
    failed, other = desk.ask(), desk.ask(handle="tech")
    done = desk.cron()
    assert done.exit_code == 69
    assert len(done.stderr.splitlines()) == 1
    assert (desk.state(failed), desk.state(other)) == ("failed", "done")


def test_a_list_that_is_not_in_the_catalogue_any_more_is_78(desk: Desk) -> None:
    desk.ask(handle="gone")
    done = desk.cron()
    assert done.exit_code == 78
    assert "unknown list: gone" in done.stderr


@pytest.mark.parametrize("words", [["members"], ["--dry-run"], ["--accept", "0" * 16], ["--allow-empty"]])
def test_it_takes_no_list_and_no_other_option(desk: Desk, words: list[str]) -> None:
    assert desk.cron(*words).exit_code == 2


def test_where_lists_are_not_enabled_it_is_78(instance: Path, make_app: Callable[..., Flask], rosters: Rosters) -> None:
    (instance / "mailinglists.toml").write_text("enabled = false\n")
    done = make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", "sync", "--requested"])
    assert (done.exit_code, "not enabled" in done.stderr) == (78, True)


@pytest.mark.slow
def test_two_at_once_and_one_killed_in_the_middle(desk: Desk, instance: Path, tmp_path: Path) -> None:
    """The second does what the first has not taken; the next pass says what became of the first's."""
    reached = tmp_path / "reached"
    program = tmp_path / "slow"
    program.write_text(f"#!/bin/sh\ntouch {reached}\nwhile [ ! -e {reached}.enough ]; do sleep 0.1; done\n")
    program.chmod(0o755)
    text = (instance / "mailinglists.toml").read_text().replace("[lists.tech]", '[lists.tech]\nmanager = "files"')
    text = text.replace("[lists.members]", '[lists.members]\nmanager = "slow"')
    text = text.replace("[lists.board]", '[lists.board]\nmanager = "files"')
    commands = "\n".join(f'{name} = "{program}"' for name in ("list_members", "add_members", "remove_members"))
    slow = f'[managers.slow]\nkind = "commands"\n[managers.slow.cmds]\n{commands}\n'
    (instance / "mailinglists.toml").write_text(text + slow)
    environ = {**os.environ, "PORTAL_INSTANCE": str(instance)}
    if SERVER:
        environ["PORTAL_SQLALCHEMY_DATABASE_URI"] = SERVER
    argv = [sys.executable, "-m", "flask", "--app", "portal", "mailinglist", "sync", "--requested"]
    desk.clock.now = datetime.now(UTC)  # what those processes go by
    slow_one, quick_one = desk.ask(handle="members"), desk.ask(handle="tech")
    first = subprocess.Popen(argv, env=environ, stderr=subprocess.PIPE)
    try:
        wait_until(reached.exists)
        second = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False, timeout=60)
        assert (second.returncode, second.stderr, second.stdout) == (0, "", "")
        assert (desk.state(slow_one), desk.state(quick_one)) == ("taken", "done")
    finally:
        first.kill()
        (tmp_path / "reached.enough").touch()
        first.communicate()
    assert subprocess.run(argv, env=environ, check=False, timeout=60).returncode == 0
    assert desk.state(slow_one) == "dropped"
