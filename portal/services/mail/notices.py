"""Notices for members: what others changed on their lists, and every change of their password and addresses.

The histories are read from where the last reading ended, so the code that makes changes needs no mail.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.errors import InvalidAddressError
from portal.models import AccountChange, Address, History, NoticeMark, User, UserAddress
from portal.services import outbox
from portal.services.outbox import Mail, Priority
from portal.services.transaction import reading, transaction

_LINES = 1_000  # of a history, in one transaction
_SETTLES = timedelta(minutes=1)  # until then an open transaction may still write a line with a lower id
_OLDEST = timedelta(days=1)  # older changes are not mailed if mail is switched on later
_PASSWORD = frozenset({"given a password", "password changed"})
_FROM_OLD = frozenset({"address changed", "another main address", "address removed"})
_MOST = 12  # lists that one letter names


def ask_for(session: Session, *, lists: Mapping[str, MailingList], tells_members: bool, now: datetime) -> int:
    """Request a mail about each change since the last time; return how many.

    ``tells_members``: also about lists that somebody else put members on or took them off.
    """
    count = 0
    while True:
        with transaction(session):
            lines = _unread(session, "accounts", AccountChange, now)
            wanted = list(_about_accounts(session, lines, now=now))
            outbox.enqueue(session, wanted, now=now)
        count += len(wanted)
        if len(lines) < _LINES:
            break
    while True:
        with transaction(session):
            lines = _unread(session, "lists", History, now)
            wanted = list(_about_lists(session, lines, lists, now=now)) if tells_members else []
            outbox.enqueue(session, wanted, now=now)
        count += len(wanted)
        if len(lines) < _LINES:
            return count


def has_unread(session: Session) -> bool:
    """Return True if a history has unread lines."""
    with reading(session):
        marks = {name: number for name, number in session.execute(select(NoticeMark.name, NoticeMark.number))}  # noqa: C416
        return any(
            session.scalar(select(table.id).where(table.id > marks.get(name, 0)).limit(1)) is not None
            for name, table in (("accounts", AccountChange), ("lists", History))
        )


def _unread(session: Session, name: str, table: Any, now: datetime) -> list[Any]:
    """Return the next lines of a history and mark them as read. Concurrent readers wait for each other.

    Lines are ordered by id, so reading stops at the first that is younger than a minute.
    """
    statement = database.insert(session, NoticeMark).values(name=name, number=0)
    session.execute(statement.on_conflict_do_nothing())
    mark = session.scalars(select(NoticeMark).where(NoticeMark.name == name).with_for_update()).one()
    found = session.scalars(select(table).where(table.id > mark.number).order_by(table.id).limit(_LINES))
    lines = list(takewhile(lambda each: abs(now - each.at) >= _SETTLES, found))
    if lines:
        mark.number = lines[-1].id
        session.flush()
    return lines


class _Person(NamedTuple):
    username: str
    main: str


def _about_accounts(session: Session, lines: list[AccountChange], *, now: datetime) -> Iterator[Mail]:
    recent = [each for each in lines if each.at > now - _OLDEST]
    people = _people(session, {each.user_id for each in recent})
    for each in recent:
        person = people.get(each.user_id)
        if person is None:
            continue
        if each.what in _PASSWORD:
            yield Mail(person.main, "password-changed", each.user_id, priority=Priority.BULK)
        elif each.actor_id != each.user_id:  # a member's own change has its own mail, with a link to undo it
            yield from _about_addresses(each, person)


def _about_addresses(line: AccountChange, person: _Person) -> Iterator[Mail]:
    if line.what == "address added":
        details = {"main": person.main, "change": f"added {line.new}"}
        yield Mail(person.main, "addresses", line.user_id, details, priority=Priority.BULK)
    elif line.what in _FROM_OLD:
        try:
            mailbox = canonical(line.old)
        except InvalidAddressError:  # the address was erased
            return
        said = f"main {line.new}" if line.new else f"removed {line.old}"
        details = {"main": line.old, "change": said}
        yield Mail(mailbox, "addresses", line.user_id, details, priority=Priority.BULK)


def _people(session: Session, user_ids: set[int]) -> dict[int, _Person]:
    query = (
        select(User.id, User.username, Address.canonical)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(User.id.in_(user_ids), User.is_active, UserAddress.is_main)
    )
    return {user_id: _Person(username, main) for user_id, username, main in session.execute(query)}


def _about_lists(
    session: Session, lines: list[History], lists: Mapping[str, MailingList], *, now: datetime
) -> Iterator[Mail]:
    """Yield a mail for each mailbox of an active account that somebody else chose for."""
    by_others = [
        each for each in lines if each.source == "superuser" and each.at > now - _OLDEST and each.list_handle in lists
    ]
    holders: dict[int, set[int]] = defaultdict(set)
    query = select(UserAddress.address_id, User.id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    for address_id, user_id in session.execute(
        query.where(UserAddress.address_id.in_({e.address_id for e in by_others}))
    ):
        holders[address_id].add(user_id)
    said: dict[str, dict[str, str]] = defaultdict(dict)
    for each in by_others:
        if holders[each.address_id] - {each.actor_id}:
            name = lists[each.list_handle].name
            said[each.address][each.list_handle] = (
                f"{'on' if each.subscribed else 'off'} {name}"  # the last change counts
            )
    for mailbox, words_of in said.items():
        details = {"changes": "\n".join(list(words_of.values())[:_MOST])}
        yield Mail(mailbox, "lists-changed", details=details, priority=Priority.BULK)
