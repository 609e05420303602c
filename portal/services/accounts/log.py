"""The append-only history of accounts: who created, changed, deactivated or deleted which account."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.database import BulkInsert
from portal.errors import ChangedMeanwhileError
from portal.models import AccountChange
from portal.services import paging
from portal.services.history import Actor
from portal.services.paging import Paged
from portal.services.transaction import reading
from portal.translation import marked

_LONGEST = 1_000  # characters of a value
_CHANGES = BulkInsert(AccountChange)
MERGED_INTO, MERGED_WITH = marked("merged into %(username)s"), marked("merged with %(username)s")
# All texts of lines, except those of merges.
KINDS = (
    marked("made"),
    marked("made, a superuser"),
    marked("imported"),
    marked("linked"),
    marked("unlinked"),
    marked("renamed"),
    marked("invited"),
    marked("activated"),
    marked("deactivated"),
    marked("deleted"),
    marked("name changed"),
    marked("groups changed"),
    marked("address changed"),
    marked("address added"),
    marked("address removed"),
    marked("another main address"),
    marked("change of address undone"),
    marked("given a password"),
    marked("password changed"),
    marked("made a superuser"),
    marked("no longer a superuser"),
)


class AccountLine(NamedTuple):
    """One change of an account; ``username`` is as it was then, ``old`` and ``new`` are the changed values."""

    id: int
    at: datetime
    user_id: int
    username: str
    what: str
    actor: str
    old: str
    new: str


class Recorded(NamedTuple):
    """A line to write: the account, what happened, and the old and new values."""

    user_id: int
    username: str
    what: str
    old: str = ""
    new: str = ""


def record(
    session: Session,
    accounts: Iterable[tuple[int, str]],
    what: str,
    *,
    actor: Actor,
    old: str = "",
    new: str = "",
) -> None:
    """Write a line for each account, a pair of id and username, in the transaction of the change itself."""
    record_all(session, [Recorded(user_id, username, what, old, new) for user_id, username in accounts], actor=actor)


def record_all(session: Session, lines: Iterable[Recorded], *, actor: Actor) -> None:
    """Write lines of many accounts, in the transaction of the changes themselves."""
    rows = [
        {
            "user_id": each.user_id,
            "username": each.username,
            "what": each.what[:80],
            "old": each.old[:_LONGEST],
            "new": each.new[:_LONGEST],
        }
        for each in lines
    ]
    _CHANGES.execute(session, rows, at=database.clock(session), actor_id=actor.user_id, actor=actor.name[:80])


def forget_name(session: Session, user_id: int) -> Sequence[str]:
    """Replace an account's name by "user NUMBER", as account and as actor, and blank its values.

    Return the usernames that it has had.
    """
    name = f"user {user_id}"
    own = AccountChange.user_id == user_id
    had = session.scalars(select(AccountChange.username).where(own).distinct()).all()
    session.execute(update(AccountChange).where(own).values(old="", new=""))
    for number, text in (
        (AccountChange.user_id, AccountChange.username),
        (AccountChange.actor_id, AccountChange.actor),
    ):
        session.execute(update(AccountChange).where(number == user_id).values({text.key: name}))
    return had


def last_change(session: Session, user_id: int) -> int:
    """Return the id of the last change of an account, or 0 if there is none."""
    with reading(session):
        return _last(session, user_id)


def require_unchanged(session: Session, user_id: int, *, since: int | None) -> None:
    """Raise ChangedMeanwhileError if the last change of an account is not ``since``; None skips the check.

    The caller's transaction has locked the row of the user.
    """
    if since is not None and _last(session, user_id) != since:
        raise ChangedMeanwhileError("the account has changed since it was shown")


def _last(session: Session, user_id: int) -> int:
    last = select(func.max(AccountChange.id)).where(AccountChange.user_id == user_id)
    return session.execute(last).scalar() or 0


def page(session: Session, *, user_id: int | None = None, number: int = 1) -> Paged[AccountLine]:
    """Return a page of the changes of all accounts or of one, newest first."""
    return paging.page(session, _changes(user_id), AccountLine._make, number=number)


def recent(
    session: Session, *, user_id: int | None = None, after: int | None = None, limit: int = 50
) -> tuple[AccountLine, ...]:
    """Return changes of all accounts or of one, newest first; ``after`` is the id of a change."""
    query = _changes(user_id).limit(limit)
    if after is not None:
        query = query.where(AccountChange.id > after)
    with reading(session):
        return tuple(map(AccountLine._make, session.execute(query)))


def _changes(user_id: int | None) -> Select[Any]:
    query = (
        select(AccountChange.id, AccountChange.at, AccountChange.user_id, AccountChange.username, AccountChange.what)
        .add_columns(AccountChange.actor, AccountChange.old, AccountChange.new)
        .order_by(AccountChange.id.desc())
    )
    return query if user_id is None else query.where(AccountChange.user_id == user_id)
