"""Two acts at the same time, one of them stopped at each of its statements: SECURITY 32, both databases.

Whatever the moment, it ends as if one had come after the other, or as if the one that was refused had not been tried:
nothing is lost, nothing waits for ever, and nobody is shown an error of the database.
"""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from itertools import product
from threading import Event, get_ident
from zlib import crc32

import pytest
from sqlalchemy import delete, insert, select, text
from sqlalchemy.orm import Session, aliased

from portal.domain.membership_file import Columns
from portal.domain.roster_text import RosterText
from portal.errors import PortalError
from portal.extensions import db
from portal.models import Address, Base, History, Preference, User, UserAddress, UserGroup
from portal.services.accounts import address_changes, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE, Actor
from portal.services.mail import links
from portal.services.membership import importing, merging
from portal.services.preferences import by_link, from_ixp_manager, preferences
from portal.services.sync.list_init import list_init
from portal.services.sync.planned_runs import begin_planned_run, confirm_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import SERVER, is_nightly
from tests.factories import make_address, make_preference, make_user
from tests.fakes.memory import MemoryList
from tests.listening import listening
from tests.services.membership.conftest import Membership
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

EVERY = 10**6
POINTS = EVERY if is_nightly() else 1  # of each pair
LISTS = ("members", "board")
STEADY = ("dora@example.org", "erin@example.org")


class World:
    """Alice, who is on a list with one address, and on the board's, which is for a group; some who stay; Bob."""

    def __init__(self, app, session, clock):
        self.app, self.clock = app, clock
        self.catalogue = app.extensions["portal"].catalogue()
        self.alice = make_user(session, "alice", "alice@example.org", "side@example.org", groups=("board",))
        make_user(session, "bob")
        make_user(session, "carol", is_superuser=True)
        for address in STEADY:
            make_user(session, address.partition("@")[0], groups=("board",))
        self._make_somebody_inactive(session)
        self.lists = {handle: MemoryList(batch=50) for handle in LISTS}
        for handle in LISTS:
            for address in ("alice@example.org", *STEADY):
                self.lists[handle].join(address)
                make_preference(session, handle, address, True, seen=True)
        make_preference(session, "members", "bob@example.org", False, seen=False)
        self.side = make_address(session, "side@example.org")
        self.shown = dict.fromkeys(LISTS, make_address(session, "alice@example.org"))
        session.rollback()
        self.link = links.make_for_mailbox(session, "leave", mailbox="alice@example.org", now=clock())
        self.tables = {each: session.execute(select(each)).mappings().all() for each in Base.metadata.sorted_tables}
        session.rollback()
        self.rosters = {handle: dict(each.members) for handle, each in self.lists.items()}

    def _make_somebody_inactive(self, session):
        """Dan, who is deactivated: he shares Alice's other address, and was given one since that she may move to."""
        dan = make_user(session, "dan", "dan@example.org", "side@example.org")
        make_preference(session, "members", "dan@example.org", True, seen=False)
        session.rollback()
        users.deactivate(session, "dan", now=self.clock())
        give = {"actor": COMMAND_LINE, "now": self.clock(), "lists": self.catalogue.lists}
        address_changes.add(session, dan, checked("new@example.org"), **give)

    def restore(self):
        with db.engine.begin() as connection:
            for table in reversed(self.tables):
                connection.execute(delete(table))
            for table, rows in self.tables.items():
                if rows:
                    connection.execute(insert(table), [dict(row) for row in rows])
        for handle, members in self.rosters.items():
            self.lists[handle].members = dict(members)

    def sync(self, session):
        for handle in LISTS:
            with suppress(PortalError):  # another one holds the list, for one
                sync_list(session, self.catalogue.get(handle), self.lists[handle], clock=self.clock, request=Request())

    def ending(self):
        """Return how it stands after two more runs of each list."""
        with Session(db.engine) as session:
            for _run in range(2):
                self.sync(session)
            successor = aliased(Address)
            stored = session.execute(
                select(
                    Preference.list_handle, Address.canonical, Preference.subscribed, Preference.seen,
                    Preference.touched, Preference.departed, Preference.waiting_since, successor.canonical,
                )
                .join(Address, Address.id == Preference.address_id)
                .outerjoin(successor, successor.id == Preference.moved_to)
                .order_by(Preference.list_handle, Address.canonical)
            ).all()  # fmt: skip
            held = session.execute(
                select(User.username, User.is_active, Address.canonical, UserAddress.is_main)
                .outerjoin(UserAddress, UserAddress.user_id == User.id)
                .outerjoin(Address, Address.id == UserAddress.address_id)
                .order_by(User.username, Address.canonical)
            ).all()
            groups = session.execute(
                select(User.username, UserGroup.name).join(User, User.id == UserGroup.user_id).order_by(User.username)
            ).all()
            chosen = session.execute(
                select(History.list_handle, History.address, History.subscribed)
                .where(History.source.in_(["user", "superuser"]))
                .order_by(History.list_handle, History.address, History.subscribed)
            ).all()
        ending = {"accounts": held, "groups": groups}
        for handle in LISTS:
            ending[handle] = [
                sorted(self.lists[handle].members),
                [each[1:] for each in stored if each.list_handle == handle],
                [each[1:] for each in chosen if each.list_handle == handle],
            ]
        return ending


# --- what is done at the same time; each gets the world and a session of its own


def save(world, session):
    """Leave a list."""
    preferences.choose(
        session, world.alice, shown=world.shown, ticked={"board"}, catalogue=world.catalogue, now=world.clock()
    )


def save_elsewhere(world, session):
    """Let a list be sent to the other address, and leave the board's."""
    preferences.choose(
        session, world.alice, shown=world.shown, ticked={"members"}, addresses={"members": world.side},
        catalogue=world.catalogue, now=world.clock(),
    )  # fmt: skip


def changer(to):
    def change(world, session):
        address_changes.change(
            session, world.alice, checked(to), actor=COMMAND_LINE, now=world.clock(), lists=world.catalogue.lists
        )

    return change


def remove_address(world, session):
    address_changes.remove(
        session, world.alice, "side@example.org", actor=COMMAND_LINE, now=world.clock(), lists=world.catalogue.lists
    )


def add_address(world, session):
    """Give Alice the mailbox of Bob as a further one."""
    address_changes.add(
        session, world.alice, checked("bob@example.org"), actor=COMMAND_LINE, now=world.clock(),
        lists=world.catalogue.lists,
    )  # fmt: skip


def leave_by_link(world, session):
    by_link.leave(session, world.link, handles=LISTS, catalogue=world.catalogue, now=world.clock())


def merger(gone, kept):
    def merge(world, session):
        merging.merge(
            session, merging.Merge(gone, kept), now=world.clock(), lists=world.catalogue.lists, secret=b"a secret"
        )

    return merge


def erase(world, session):
    users.delete(session, "alice", erase=True, now=world.clock(), lists=world.catalogue.lists)


def drop(world, session):
    users.delete(session, "alice", erase=False, now=world.clock(), lists=world.catalogue.lists)


def deactivate(world, session):
    users.deactivate(session, "alice", now=world.clock())


def activate(world, session):
    users.activate(session, "dan", now=world.clock(), lists=world.catalogue.lists)


def leave_group(world, session):
    users.set_groups(
        session, "alice", groups=(), now=world.clock(), lists=world.catalogue.lists, actor=Actor(99, "carol")
    )


def share(world, session):
    """Make an account with Alice's address."""
    membership = Membership(session, world.clock, lists=world.catalogue.lists)
    content = b"username,email,groups\nalice2,alice@example.org,board\n"
    importing.run(
        session, membership.request(content=content, columns=Columns("email", "username", groups=("groups",)))
    )


def import_preferences(world, session):
    """Give the other address a preference, and change none that there is."""
    header, of_list = "username,email,attribute,value", "mailinglist.{}.subscribed"
    lines = [
        header,
        f"alice,side@example.org,{of_list.format('board')},0",
        f"alice,alice@example.org,{of_list.format('members')},0",
        f"bob,bob@example.org,{of_list.format('members')},1",
    ]
    content = "".join(f"{line}\n" for line in lines).encode()
    from_ixp_manager.import_preferences(session, content, catalogue=world.catalogue, now=world.clock(), is_dry=False)


def init(world, session):
    """Give the other address a first preference: it is not on the roster."""
    lines = [f"{each}\n".encode() for each in ("alice@example.org", *STEADY)]
    list_init(session, world.catalogue.get("members"), RosterText(lines), now=world.clock())


def settle(world, session):
    world.sync(session)


def planned_run(world, session):
    """A planned run of one list, both halves of it."""
    members, roster = world.catalogue.get("members"), world.lists["members"]
    lines = [each.encode() for each in roster.members.values()]
    found, _ = begin_planned_run(session, members, RosterText(lines), clock=world.clock, request=Request())
    for each in found.plan.lines:
        if each.is_pushed:
            (roster.join if each.action == "add" else roster.leave)(each.spelling)
    lines = [each.encode() for each in roster.members.values()]
    confirm_planned_run(session, members, RosterText(lines), clock=world.clock, request=Request())


ACTS = {
    "save": save,
    "save elsewhere": save_elsewhere,
    "move": changer("new@example.org"),
    "move to bob": changer("bob@example.org"),
    "add address": add_address,
    "remove address": remove_address,
    "link": leave_by_link,
    "merge": merger("bob", "alice"),
    "merge away": merger("alice", "bob"),
    "erase": erase,
    "delete": drop,
    "deactivate": deactivate,
    "activate": activate,
    "leave group": leave_group,
    "import account": share,
    "import preferences": import_preferences,
    "list-init": init,
    "settlement": settle,
    "planned run": planned_run,
}


# --- how one is stopped while the other goes on


@dataclass(eq=False)
class Stopped:
    """Stops a thread at its n-th statement or commit until it may go on; counts them."""

    at: int
    done: int = 0
    thread: int = 0
    is_stopped: Event = field(default_factory=Event)
    may_go_on: Event = field(default_factory=Event)

    def __call__(self, *_ignored):
        if get_ident() != self.thread:
            return
        if self.done == self.at:
            self.is_stopped.set()
            assert self.may_go_on.wait(60)
        self.done += 1


class Waiting:
    """Tells whether the second thread waits for a lock of the first: by what SQLite is asked, by what PostgreSQL says."""

    def __init__(self):
        self.thread = 0
        self.begins = False

    def before(self, _connection, _cursor, statement, *_ignored):
        if get_ident() == self.thread and statement == "BEGIN IMMEDIATE":
            self.begins = True

    def after(self, _connection, _cursor, statement, *_ignored):
        if get_ident() == self.thread:
            self.begins = False

    def __call__(self, first_holds_lock):
        if not SERVER:
            return self.begins and first_holds_lock
        with db.engine.connect() as connection:
            found = connection.execute(
                text(
                    "SELECT count(*) FROM pg_stat_activity "
                    "WHERE datname = current_database() AND cardinality(pg_blocking_pids(pid)) > 0"
                )
            ).scalar_one()
        return found > 0


class HoldsLock:
    """Tells whether the first thread is in a transaction that writes, on SQLite, where others then wait."""

    def __init__(self):
        self.thread = 0
        self.holds = False

    def after(self, _connection, _cursor, statement, *_ignored):
        if get_ident() == self.thread and statement == "BEGIN IMMEDIATE":
            self.holds = True

    def ended(self, _connection):
        if get_ident() == self.thread:
            self.holds = False


def interleaved(world, first, second, at):
    """Do both, the second while the first stands at a statement; return which of them was refused."""
    stopped, waiting, lock = Stopped(at), Waiting(), HoldsLock()

    def do(act, *watchers):
        for each in watchers:
            each.thread = get_ident()
        with world.app.app_context(), Session(db.engine) as session:
            try:
                ACTS[act](world, session)
            except PortalError as error:
                return error
        return None

    listeners = [
        ("before_cursor_execute", stopped), ("commit", stopped), ("before_cursor_execute", waiting.before),
        ("after_cursor_execute", waiting.after), ("after_cursor_execute", lock.after),
        ("commit", lock.ended), ("rollback", lock.ended),
    ]  # fmt: skip
    with ExitStack() as stack, ThreadPoolExecutor(2) as pool:
        for name, listener in listeners:
            stack.enter_context(listening(db.engine, name, listener))
        one = pool.submit(do, first, stopped, lock)
        wait_until(lambda: stopped.is_stopped.is_set() or one.done())
        two = pool.submit(do, second, waiting)
        try:
            wait_until(lambda: two.done() or one.done() or waiting(lock.holds))
        finally:
            stopped.may_go_on.set()
        return {name for name, each in ((first, one), (second, two)) if each.result(60) is not None}


@pytest.fixture
def world(app, session, clock):
    made = World(app, session, clock)
    made.serial = {}
    return made


def after(world, *acts):
    """Return how it ends where acts are done one after the other."""
    if acts not in world.serial:
        world.restore()
        with world.app.app_context(), Session(db.engine) as session:
            for act in acts:
                with suppress(PortalError):
                    ACTS[act](world, session)
        world.serial[acts] = world.ending()
    return world.serial[acts]


def points(world, act, other):
    """Return the statements to stop an act at: all of them, or some, evenly spread."""
    world.restore()
    counted = Stopped(-1)
    counted.thread = get_ident()
    with (
        listening(db.engine, "before_cursor_execute", counted),
        listening(db.engine, "commit", counted),
        world.app.app_context(),
        Session(db.engine) as session,
    ):
        ACTS[act](world, session)
    count = min(counted.done, POINTS)
    start = crc32(f"{act} {other}".encode()) % counted.done  # so that few points of each pair are not the same of all
    return sorted({(start + counted.done * number // count) % counted.done for number in range(count)})


def pairs():
    """Return each pair of acts, in both orders where there is time for it."""
    both = list(product(ACTS, repeat=2))
    return both if is_nightly() else [(one, two) for one, two in both if one <= two]


@pytest.mark.parametrize("names", pairs(), ids=" and ".join)
def test_two_at_once_end_as_one_after_the_other(world, names):
    first, second = names
    for at in points(world, first, second):
        world.restore()
        refused = interleaved(world, first, second, at)
        found = world.ending()
        allowed = [after(world, first, second), after(world, second, first)]
        allowed += [after(world, each) for each, other in ((first, second), (second, first)) if other in refused]
        # Each list by itself: a settlement is one of two runs.
        for name, each in found.items():
            assert each in [ending[name] for ending in allowed], f"{name}, stopped at {at}, refused: {refused}"
