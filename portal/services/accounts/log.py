"""The append-only history of accounts: who made, changed, locked out or deleted whom."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.models import AccountChange
from portal.services.history import Actor
from portal.services.transaction import reading


class AccountLine(NamedTuple):
    """One change of an account; ``username`` is its name at that time."""

    id: int
    at: datetime
    user_id: int
    username: str
    what: str
    actor: str


def record(session: Session, accounts: Iterable[tuple[int, str]], what: str, *, actor: Actor) -> None:
    """Write a line for each account, given by number and username. The caller's transaction holds the change itself."""
    common = {"at": database.clock(session), "what": what[:80], "actor_id": actor.user_id, "actor": actor.name[:80]}
    rows = [{"user_id": user_id, "username": username, **common} for user_id, username in accounts]
    if rows:
        session.execute(insert(AccountChange), rows)


def forget_name(session: Session, user_id: int) -> Sequence[str]:
    """Name an account by its number alone, as the one changed and as the one who changed others.

    Return the usernames that it has had.
    """
    name = f"user {user_id}"
    own = AccountChange.user_id == user_id
    had = session.scalars(select(AccountChange.username).where(own).distinct()).all()
    session.execute(update(AccountChange).where(own, AccountChange.what.startswith("renamed: ")).values(what="renamed"))
    for number, text in (
        (AccountChange.user_id, AccountChange.username),
        (AccountChange.actor_id, AccountChange.actor),
    ):
        session.execute(update(AccountChange).where(number == user_id).values({text.key: name}))
    return had


def recent(
    session: Session, *, user_id: int | None = None, before: int | None = None, limit: int = 50
) -> tuple[AccountLine, ...]:
    """Return changes, the newest first, of all accounts or of one; ``before`` is the number of the last one shown."""
    query = (
        select(AccountChange.id, AccountChange.at, AccountChange.user_id, AccountChange.username, AccountChange.what)
        .add_columns(AccountChange.actor)
        .order_by(AccountChange.id.desc())
        .limit(limit)
    )
    if user_id is not None:
        query = query.where(AccountChange.user_id == user_id)
    if before is not None:
        query = query.where(AccountChange.id < before)
    with reading(session):
        return tuple(map(AccountLine._make, session.execute(query)))
