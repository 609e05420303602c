"""The demo: a dozen people, three lists and the changes of a fortnight, so that every page has something to show.

No row is invented. People choose, join, leave and depart as in a real portal, and runs react to that; only the clock is
set back. The passwords are used nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.domain.membership_file import standard_columns
from portal.listmanagers.base import ListManager, Outcome, Result
from portal.models import User
from portal.services.accounts import address_changes, addresses, invitations, profiles, users
from portal.services.history import COMMAND_LINE, Actor
from portal.services.membership import importing
from portal.services.preferences import preferences
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.transaction import reading, transaction

DEMO = Actor(None, "demo")
PASSWORD = "a walk in the demo"  # noqa: S105 - it opens nothing but the demo

CATALOGUE = """\
# The lists of the demo. Their rosters are the text files in rosters/, which stand for a list manager: an address that
# is added to one of them, or taken off it, has joined or left at the list.

enabled = true
applied_within_hours = 12

[lists.members]
name = { en = "Members", de = "Mitglieder" }
desc.en = "News and decisions for all members. A few mails a month."
desc.de = "Neuigkeiten und Beschlüsse für alle Mitglieder. Einige E-Mails im Monat."
email = "members@lists.example.org"
archive = "https://lists.example.org/archives/members/"
syncpws = false

[lists.tech]
name = { en = "Technical discussion", de = "Technik" }
desc.en = "Maintenance windows and operations talk."
desc.de = "Wartungsfenster und Betriebsthemen."
email = "tech@lists.example.org"
archive = "https://lists.example.org/archives/tech/"
syncpws = false

[lists.board]
name = { en = "Board", de = "Vorstand" }
desc.en = "Agendas and minutes. For the board only; its list manager asks a moderator about each new address."
desc.de = "Tagesordnungen und Protokolle. Nur für den Vorstand; die Moderation gibt jede neue Adresse frei."
email = "board@lists.example.org"
audience = ["board"]
syncpws = false

[managers.files]
kind = "file"
directory = "rosters"
"""

SETTINGS = """\
help_contact = "helpdesk@example.org"

# Letters of the demo are files in letters/, and are shown at /demo/mail. A real portal has a mail server here:
# docs/mail.md.

[mail]
sender = "portal@example.org"
folder = "letters"

# members.csv stands for a membership database: flask user import makes the accounts agree with it.

[membership]
file = "members.csv"
columns = { key = "number", username = "username", name = "name", groups = "groups" }
"""

MEMBERS = """\
number,username,email,name,groups
1001,alice,alice@example.org,Alice,board
1002,charlie,charlie@example.org,Charlie,
1003,dora,office@example.org,Dora,
1004,erin,office@example.org,Erin,
1005,grace,grace@example.org,Grace,
1006,heidi,heidi@example.org,Heidi,
1007,ivan,ivan@example.org,Ivan,
1008,judy,judy@example.org,Judy,
1009,leo,leo@example.org,Leo,board
"""

ROSTERS = {
    "members": (
        "alice@example.org", "bob@example.org", "Charlie@Example.org", "office@example.org", "grace@example.org",
        "ivan@example.org", "judy@example.org", "leo@example.org", "archive@mail.example.net", "old-hand@example.com",
    ),
    "tech": ("charlie@example.org", "leo@example.org", "robot@monitoring.example.net"),
    "board": ("bob@example.org", "chair@example.com"),
}  # fmt: skip


class _Person(NamedTuple):
    username: str
    emails: Sequence[str]  # the last one is the main one
    groups: Sequence[str] = ()
    is_superuser: bool = False
    can_log_in: bool = False


_PEOPLE = (
    _Person("alice", ["alice@example.org"], groups=["board"], can_log_in=True),
    _Person("bob", ["bob@example.org"], groups=["board"], is_superuser=True, can_log_in=True),
    _Person("charlie", ["charlie@home.example.org", "charlie@example.org"], can_log_in=True),
    _Person("dora", ["office@example.org"], can_log_in=True),
    _Person("erin", ["office@example.org"]),
    _Person("frank", ["#frank@example.org"]),
    _Person("grace", ["grace@example.org"]),
    _Person("heidi", ["heidi@example.org"]),
    _Person("ivan", ["ivan@example.org"]),
    _Person("judy", ["judy@example.org"]),
    _Person("leo", ["leo@example.org"], groups=["board"]),
)
_NEWCOMER = _Person("ken", ["ken@example.org"])


@dataclass(frozen=True)
class DemoServices:
    """What the demo gets from the composition root: the catalogue, list managers and the cost of a password."""

    catalogue: Callable[[], Catalogue]
    open_list_manager: Callable[[MailingList], ListManager]
    rounds: int


@dataclass(frozen=True)
class _Stage:
    session: Session
    folder: Path
    tools: DemoServices

    @property
    def lists(self) -> Mapping[str, MailingList]:
        return self.tools.catalogue().lists


def is_there(session: Session, folder: Path) -> bool:
    """Return True if an instance folder and its database are those of the demo."""
    path = folder / "mailinglists.toml"
    return path.exists() and path.read_text(encoding="utf-8") == CATALOGUE and _has_users(session)


def make(session: Session, folder: Path, *, tools: DemoServices, now: datetime) -> bool:
    """Fill an empty instance folder and an empty database; return False, changing nothing, if either is not empty.

    An existing catalogue or roster may belong to a real list, so no demo is made next to it.
    """
    if _has_users(session) or (folder / "mailinglists.toml").exists() or (folder / "rosters").exists():
        return False
    (folder / "rosters").mkdir(parents=True)
    for handle, roster in ROSTERS.items():
        _write(folder, handle, roster)
    (folder / "mailinglists.toml").write_text(CATALOGUE, encoding="utf-8")
    if not (folder / "portal.toml").exists():
        (folder / "portal.toml").write_text(SETTINGS, encoding="utf-8")
    (folder / "members.csv").write_text(MEMBERS, encoding="utf-8")
    _play(_Stage(session, folder, tools), now)
    return True


def _has_users(session: Session) -> bool:
    with reading(session):
        return session.execute(select(User.id).limit(1)).first() is not None


def _play(stage: _Stage, now: datetime) -> None:
    """Play out a fortnight."""
    for person in _PEOPLE:
        _arrive(stage, person, now=now - timedelta(days=14))
    _follow_members(stage, now=now - timedelta(days=13))
    for handle in stage.lists:
        _run(stage, handle, now=now - timedelta(days=7))
    _choose(stage, "alice", "tech", ticked=True, now=now - timedelta(days=4))
    _choose(stage, "leo", "members", ticked=False, now=now - timedelta(days=3))
    _choose(stage, "frank", "tech", ticked=True, now=now - timedelta(days=2))
    _choose(stage, "grace", "tech", ticked=True, now=now - timedelta(days=2))
    _write(stage.folder, "members", [each for each in ROSTERS["members"] if not each.startswith("grace")])
    _write(stage.folder, "tech", [*ROSTERS["tech"], "heidi@example.org"])
    _run(stage, "tech", now=now - timedelta(hours=20), not_added={"grace@example.org": Result.DONE})
    _choose(stage, "leo", "tech", ticked=False, now=now - timedelta(hours=14))
    _choose(stage, "alice", "board", ticked=True, now=now - timedelta(hours=9))
    _choose(stage, "leo", "board", ticked=True, now=now - timedelta(hours=9))
    _run(stage, "members", now=now - timedelta(hours=2))
    held = {"alice@example.org": Result.PENDING, "leo@example.org": Result.CONFIRM}
    _run(stage, "board", now=now - timedelta(hours=2), not_added=held)
    _leave_work_for_the_next_run(stage, now)


def _leave_work_for_the_next_run(stage: _Stage, now: datetime) -> None:
    _arrive(stage, _NEWCOMER, now=now - timedelta(hours=1))
    _choose(stage, "alice", "members", ticked=False, now=now - timedelta(minutes=40))
    _choose(stage, "bob", "tech", ticked=True, now=now - timedelta(minutes=30))
    _choose(stage, "erin", "tech", ticked=True, now=now - timedelta(minutes=25))
    address_changes.change(
        stage.session,
        profiles.id_of(stage.session, "judy"),
        addresses.checked("judy@home.example.org"),
        actor=COMMAND_LINE,
        now=now - timedelta(minutes=20),
        lists=stage.lists,
    )
    users.deactivate(stage.session, "ivan", now=now - timedelta(minutes=15))
    heidi = profiles.id_of(stage.session, "heidi")  # a subscriber, so that there is a list to leave by link
    invitations.invite(stage.session, [heidi], actor=DEMO, now=now)


def _arrive(stage: _Stage, person: _Person, *, now: datetime) -> None:
    first, *others = map(addresses.checked, person.emails)
    user_id = users.create(
        stage.session,
        username=person.username,
        address=first,
        now=now,
        rounds=stage.tools.rounds,
        lists=stage.lists,
        password=PASSWORD if person.can_log_in else None,
        name=person.username.title(),
        is_superuser=person.is_superuser,
        groups=person.groups,
    )
    for address in others:
        with transaction(stage.session):
            addresses.give(stage.session, user_id, address, actor=COMMAND_LINE, now=now, lists=stage.lists)


def _follow_members(stage: _Stage, *, now: datetime) -> None:
    """Link the accounts to the members in the file."""
    content = MEMBERS.encode()
    request = importing.Request(
        content=content,
        columns=standard_columns(content, key="number"),
        source="file members.csv",
        actor=DEMO,
        clock=lambda: now,
        lists=stage.lists,
        secret=b"",  # there is no deleted account whose key could be recognised
    )
    importing.run(stage.session, request)


def _choose(stage: _Stage, username: str, handle: str, *, ticked: bool, now: datetime) -> None:
    """Save the form as the person sees it, with one box changed."""
    preferences.choose(
        stage.session,
        profiles.id_of(stage.session, username),
        shown={handle: not ticked},
        ticked={handle} if ticked else set(),
        catalogue=stage.tools.catalogue(),
        now=now,
    )


@dataclass(frozen=True)
class _RefusingListManager:
    """A list manager that refuses some addresses, with a reason."""

    manager: ListManager
    not_added: Mapping[str, Result]

    @property
    def batch(self) -> int:
        return self.manager.batch

    def timeout(self, count: int) -> float:
        return self.manager.timeout(count)

    def check(self) -> str:
        return self.manager.check()

    def roster(self) -> Sequence[str]:
        return self.manager.roster()

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        others = [each for each in addresses if each not in self.not_added]
        outcomes = {each: Outcome(self.not_added[each]) for each in addresses if each in self.not_added}
        return outcomes | (self.manager.add(others) if others else {})

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        return self.manager.remove(addresses)


def _run(stage: _Stage, handle: str, *, now: datetime, not_added: Mapping[str, Result] | None = None) -> None:
    mailing_list = stage.lists[handle]
    manager = _RefusingListManager(stage.tools.open_list_manager(mailing_list), not_added or {})
    sync_list(stage.session, mailing_list, manager, clock=lambda: now, request=Request(actor=DEMO))


def _write(folder: Path, handle: str, roster: Sequence[str]) -> None:
    lines = [f"# The roster of {handle}: one address a line.", *roster, ""]
    (folder / "rosters" / f"{handle}.txt").write_text("\n".join(lines), encoding="utf-8")
