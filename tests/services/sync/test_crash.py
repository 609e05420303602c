"""After a kill at any point of a sync, the next run reports and repairs it: SEMANTICS, "Safety"; SECURITY 29."""

import os
import signal
import subprocess
import traceback
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from sqlalchemy import delete, event, insert, select, update
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain.mailinglist import SafetyLimits
from portal.errors import SafetyLimitError
from portal.extensions import db
from portal.listmanagers import registry
from portal.listmanagers.base import ListManager
from portal.models import Address, Base, History, Lease, Preference, Run, RunLine, User
from portal.services.accounts import address_changes, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import SERVER, is_nightly
from tests.factories import make_preference, make_user
from tests.fakes.mailman2 import FakeMailman2
from tests.real import mlmmj
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

POINTS = 200 if is_nightly() or not SERVER else 24  # of each list manager; of a second database a sample
FEW = 100 if is_nightly() else 12
ENOUGH = 10**9


@dataclass(eq=False)
class Steps:
    """Counts what a process does, and kills it at its n-th step."""

    last: int
    done: int = 0

    def __call__(self, *_ignored):
        if self.done == self.last:
            os.kill(os.getpid(), signal.SIGKILL)
        self.done += 1


@dataclass
class Stepping:
    """A list manager in small batches, each of whose calls is two steps."""

    inner: ListManager
    step: Steps
    batch: int = field(default=2)

    def timeout(self, count):
        return self.inner.timeout(count)

    def roster(self):
        return self._call(self.inner.roster)

    def add(self, told):
        return self._call(self.inner.add, told)

    def remove(self, told):
        return self._call(self.inner.remove, told)

    def _call(self, call, *told):
        self.step()
        answer = call(*told)
        self.step()
        return answer


class File:
    """Text files: what is pushed is written by the process that may be killed."""

    kind = "file"

    def __init__(self, folder):
        self.path = folder / "members.txt"

    def table(self):
        return {"directory": str(self.path.parent)}

    def get(self):
        return set(self.path.read_text().splitlines())

    def set(self, addresses):
        self.path.write_text("".join(f"{each}\n" for each in addresses))


class Mailman2:
    """Commands that outlive the process that called them, and wait for each other by a lock."""

    kind = "mailman2"

    def __init__(self, folder):
        self.fake = FakeMailman2(folder)

    def table(self):
        return {"cmds": self.fake.cmds}

    def get(self):
        return self.fake.roster("members")

    def set(self, addresses):
        self.fake.set_roster("members", addresses)


class Mlmmj:
    """A real one, which must never have two of its commands at a time: the next run begins when they have ended."""

    kind = "mlmmj"

    def __init__(self, folder):
        if why := mlmmj.why_missing():
            pytest.skip(why)
        self.program = mlmmj.Program(folder)
        self.program.make_list("members")

    def table(self):
        return self.program.manager_table()

    def get(self):
        return self.program.roster("members")

    def set(self, addresses):
        self.program.set_roster("members", addresses)


HOSTS = {each.kind: each for each in (File, Mailman2, Mlmmj)}


def stepping_commands(step, started):
    """Return Popen with a step after each start; the number of the process that it started is written to a pipe."""

    class Popen(subprocess.Popen):
        def __init__(self, *args, **options):
            super().__init__(*args, **options)
            os.write(started, f"{self.pid}\n".encode())
            step()

    return Popen


class Stage:
    """A list, a database, and a sync of them in a process that may be killed."""

    def __init__(self, portal, host, clock, safety_limits):
        self.host, self.clock = host, clock
        self.members = replace(portal.catalogue().get("members"), safety_limits=safety_limits)
        self.manager = registry.open_list(registry.read_settings(host.kind, host.table()), "members")
        self.snapshot = None

    def keep(self, session):
        """Remember how it stands."""
        rows = {table: session.execute(select(table)).mappings().all() for table in Base.metadata.sorted_tables}
        session.rollback()
        self.snapshot = rows, sorted(self.host.get())

    def restore(self):
        tables, roster = self.snapshot
        self.host.set(roster)
        with db.engine.begin() as connection:
            for table in reversed(tables):
                connection.execute(delete(table))
            for table, rows in tables.items():
                if rows:
                    connection.execute(insert(table), [dict(row) for row in rows])

    def sync(self, manager=None, **request):
        with Session(db.engine) as session:
            return sync_list(
                session, self.members, manager or self.manager, clock=self.clock, request=Request(**request)
            )

    def killed_at(self, number, **request):
        """Run a sync in a process of its own, which is killed at a step; return how many it did, None if killed."""
        db.engine.dispose()
        reading, writing = os.pipe()
        begun, beginning = os.pipe()
        child = os.fork()
        if child == 0:
            self._be_the_child(number, writing, beginning, request)
        os.close(writing)
        os.close(beginning)
        with os.fdopen(reading) as pipe, os.fdopen(begun) as started:
            said, commands = pipe.read(), started.read().split()
        _, status = os.waitpid(child, 0)
        if self.host.kind == "mlmmj":
            wait_until(lambda: not any(Path("/proc", each).exists() for each in commands))
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL
            return None
        assert os.WEXITSTATUS(status) == 0, said
        return int(said)

    def _be_the_child(self, number, writing, beginning, request):
        """Never return: what pytest does at its end is not the child's to do."""
        code = 1
        try:
            db.engine.dispose(close=False)
            step = Steps(number)
            event.listen(db.engine, "before_cursor_execute", step)
            event.listen(db.engine, "commit", step)
            subprocess.Popen = stepping_commands(step, beginning)
            self.sync(Stepping(self.manager, step), **request)
            os.write(writing, str(step.done).encode())
            code = 0
        except BaseException:  # noqa: BLE001 - told to the parent
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(code)

    def ending(self):
        """All that must be alike in the end: the roster, preferences without times, history, and nothing left open."""
        successor = aliased(Address)
        with Session(db.engine) as session:
            preferences = session.execute(
                select(
                    Address.canonical, Preference.subscribed, Preference.seen, Preference.source, Preference.touched,
                    Preference.departed, Preference.waiting_since, Preference.refusal, successor.canonical,
                )
                .join(Address, Address.id == Preference.address_id)
                .outerjoin(successor, successor.id == Preference.moved_to)
                .order_by(Address.canonical)
            ).all()  # fmt: skip
            told = session.execute(
                select(History.address, History.subscribed, History.source).order_by(History.address, History.id)
            ).all()
            return {
                "roster": self.host.get(),
                "preferences": preferences,
                "history": told,
                "addresses": session.scalars(select(Address.canonical).order_by(Address.canonical)).all(),
                "open runs": session.scalars(select(Run.id).where(Run.state == "open")).all(),
                "open lines": session.scalars(select(RunLine.address).where(~RunLine.settled)).all(),
                "leases": session.scalars(select(Lease.list_handle)).all(),
            }

    def open_runs(self):
        with Session(db.engine) as session:
            return tuple(session.scalars(select(Run.id).where(Run.state == "open").order_by(Run.id)))

    def has_begun(self):
        with Session(db.engine) as session:
            return session.scalar(select(Run.id).where(Run.plan_id.is_not(None), Run.state != "refused")) is not None


def fill(session, portal, host, clock):
    """Somebody of every kind: adds, removals, take-overs, moves, departures, and who stays as they are."""
    lists = portal.catalogue().lists
    on = ["stranger@example.net"]

    def person(name, subscribed=None, *, is_on=False, **columns):
        user_id = make_user(session, name)
        if subscribed is not None:
            make_preference(session, "members", f"{name}@example.org", subscribed, **columns)
        if is_on:
            on.append(f"{name}@example.org")
        return user_id

    for number in range(3):
        person(f"steady{number}", True, is_on=True, seen=True)
        person(f"ticked{number}", True, touched=True)
    person("unticked", False, is_on=True, seen=True, touched=True)
    person("left", True, seen=True)
    person("joined", False, is_on=True, seen=False)
    person("first-on", is_on=True)
    person("first-off")
    person("inactive", True, is_on=True, seen=True)
    person("deleted", True, is_on=True, seen=True)
    person("erased", False, seen=False)
    moved = person("moved", True, is_on=True, seen=True)
    followed = person("followed", True, seen=True)  # left at the list, after moving
    host.set(on)
    for user_id, new in ((moved, "moved2"), (followed, "followed2")):
        address_changes.change(
            session, user_id, checked(f"{new}@example.org"), actor=COMMAND_LINE, now=clock(), lists=lists
        )
    users.delete(session, "deleted", now=clock(), erase=False, lists=lists)
    users.delete(session, "erased", now=clock(), erase=True, lists=lists)
    session.execute(update(User).where(User.username == "inactive").values(is_active=False))
    session.commit()


@pytest.fixture(params=["file"])
def host(request, tmp_path):
    folder = tmp_path / "host"
    folder.mkdir()
    made = HOSTS[request.param](folder)
    made.set([])
    return made


on_every_host = pytest.mark.parametrize("host", HOSTS, indirect=True)


@pytest.fixture
def stage(app, session, host, clock, monkeypatch):
    for name in ("sqlite", "postgresql"):  # many chunks, and so many points between them
        monkeypatch.setitem(database._CHUNK, name, 2)
        monkeypatch.setitem(database._PAUSE, name, 0)
    portal = app.extensions["portal"]
    fill(session, portal, host, clock)

    def build(safety_limits):
        made = Stage(portal, host, clock, safety_limits)
        made.keep(session)
        return made

    return build


def points_of(steps, limit):
    """Every step, or as many as there is time for, evenly spread and the last one among them."""
    count = min(steps, limit)
    return sorted({(steps - 1) * number // max(count - 1, 1) for number in range(count)})


@on_every_host
@pytest.mark.parametrize("half", [0, 1])  # two processes share the work
def test_killed_at_any_point_the_next_run_says_so_and_repairs_it(stage, half):
    at_work = stage(SafetyLimits(removals=100))
    steps = at_work.killed_at(ENOUGH)
    expected = at_work.ending()
    assert {"ticked0@example.org", "moved2@example.org"} < expected["roster"]
    assert steps > 100
    repaired, points = 0, points_of(steps, POINTS)[half::2]
    for number in points:
        at_work.restore()
        assert at_work.killed_at(number) is None
        left_open = at_work.open_runs()
        sync_result = at_work.sync()
        assert sync_result.repaired == left_open, f"step {number}"
        assert at_work.ending() == expected, f"step {number}"
        repaired += len(left_open)
    assert repaired > len(points) // 3


def test_killed_at_any_point_an_accepted_plan_needs_no_second_yes(stage):
    at_work = stage(SafetyLimits(removals=0, removals_percent=0, additions=0, additions_percent=0))
    with pytest.raises(SafetyLimitError) as refusal:
        at_work.sync()
    at_work.restore()
    accept = refusal.value.plan_id
    steps = at_work.killed_at(ENOUGH, accept=accept)
    expected = at_work.ending()
    for number in points_of(steps, FEW):
        at_work.restore()
        assert at_work.killed_at(number, accept=accept) is None
        if not at_work.has_begun():
            with pytest.raises(SafetyLimitError):
                at_work.sync()
            at_work.sync(accept=accept)
        else:
            at_work.sync()
        assert at_work.ending() == expected, f"step {number}"


def test_killed_again_and_again_it_ends_all_the_same(stage):
    at_work = stage(SafetyLimits(removals=100))
    steps = at_work.killed_at(ENOUGH)
    expected = at_work.ending()
    at_work.restore()
    for number in range(9, steps, 9 if is_nightly() else 25):
        if at_work.killed_at(number) is not None:
            break
    at_work.sync()
    assert at_work.ending() == expected
