"""The append-only history of preferences: one line a change, in the transaction of the change."""

from collections.abc import Iterable
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert
from sqlalchemy.orm import Session

from portal.models import History


class Actor(NamedTuple):
    """Who made a change: a user with an account, or something with a name alone."""

    user_id: int | None
    name: str


COMMAND_LINE = Actor(None, "command line")
SYNC = Actor(None, "")  # what a run takes over has no author but the list


class Change(NamedTuple):
    """One preference that has just been changed; ``address`` is canonical."""

    list_handle: str
    address_id: int
    address: str
    subscribed: bool
    source: str


def record(session: Session, changes: Iterable[Change], *, actor: Actor, now: datetime, reason: str = "") -> None:
    """Write a line for each change. The caller's transaction is open and holds the changes themselves."""
    common = {"at": now, "actor_id": actor.user_id, "actor": actor.name[:80], "reason": reason[:200]}
    rows = [{**change._asdict(), **common} for change in changes]
    if rows:
        session.execute(insert(History), rows)
