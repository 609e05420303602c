"""The append-only history of preferences: one line for each change, in the same transaction."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import String, Table, insert, literal, select, update
from sqlalchemy.orm import Session

from portal.database import IdRange
from portal.models import Address, History, Preference
from portal.translation import gettext, marked


class Actor(NamedTuple):
    """The author of a change: a user with an account, or a name without one."""

    user_id: int | None
    name: str


COMMAND_LINE = Actor(None, marked("command line"))
SYNC = Actor(None, "")  # a run that takes over a change at the list has no other author
# the names of authors that are no person, which pages translate
AUTHORS = frozenset({COMMAND_LINE.name, marked("mailed link"), marked("membership source"), marked("a change")})
NEW_MEMBER = "new member"  # the reason of a line for a new member whom a list subscribed


class Change(NamedTuple):
    """A changed preference; ``address`` is canonical."""

    list_handle: str
    address_id: int
    address: str
    subscribed: bool
    source: str


def author_text(name: str) -> str:
    """Return the name of an author, in the current language if it is no person."""
    return gettext(name) if name in AUTHORS else name


def record(session: Session, changes: Iterable[Change], *, actor: Actor, now: datetime, reason: str = "") -> None:
    """Write a line for each change. The caller's open transaction holds the changes too."""
    common = {"at": now, "actor_id": actor.user_id, "actor": actor.name[:80], "reason": reason[:200]}
    rows = [{**change._asdict(), **common} for change in changes]
    if rows:
        session.execute(insert(History), rows)


def record_noted_first_preferences(session: Session, handle: str, noted: Table, ids: IdRange, *, now: datetime) -> None:
    """Write a line for each noted address whose first preference was just made, as its time shows."""
    made = (
        select(
            Preference.changed_at,
            Preference.list_handle,
            Preference.address_id,
            Address.canonical,
            Preference.subscribed,
            Preference.source,
            literal("", String),
            literal("", String),
        )
        .select_from(Preference)
        .join(noted, noted.c.address_id == Preference.address_id)
        .join(Address, Address.id == Preference.address_id)
        .where(
            Preference.list_handle == handle,
            Preference.source == "init",
            Preference.changed_at == now,
            ids.holds(Preference.address_id, noted.c.address_id, Address.id),
        )
    )
    columns = ["at", "list_handle", "address_id", "address", "subscribed", "source", "actor", "reason"]
    session.execute(insert(History).from_select(columns, made))


def rename_list(session: Session, old: str, new: str) -> int:
    """Move all lines of a list to its new handle; return how many."""
    done: Any = session.execute(update(History).where(History.list_handle == old).values(list_handle=new))
    count: int = done.rowcount
    return count


def forget_address(session: Session, canonical: str, *, name: str) -> None:
    """Replace an address by a name in all lines about it."""
    session.execute(update(History).where(History.address == canonical).values(address=name))


def forget_actor(session: Session, user_id: int, *, name: str) -> None:
    """Replace the name of a user in the lines of their changes."""
    session.execute(update(History).where(History.actor_id == user_id).values(actor=name))
