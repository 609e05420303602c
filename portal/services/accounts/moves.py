"""What accounts leave, take and bring back at mailboxes, written for all lists at once: SEMANTICS, Identity.

Each function works inside a transaction that the caller has begun, with the addresses locked, before the caller writes
who holds what.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import not_, select, union
from sqlalchemy.orm import Session

from portal import database
from portal.domain.moves import Displaced, Mailbox, Move, Stamp, Standing, activate, deactivate, move
from portal.models import Address, DisplacedPreference, Preference, RunLine, User, UserAddress
from portal.services import displaced_preferences, preference_rows
from portal.services.history import Actor
from portal.services.preference_rows import Written

_CHOSEN = frozenset({"user", "superuser", "link", "list"})  # sources of what somebody did about a list
_BLOCK = 5_000

Mailboxes = Mapping[int, Mailbox]


class _Seat(NamedTuple):
    """How an account holds an address."""

    account: int
    is_active: bool
    moved_in_at: datetime | None
    is_guest: bool


def lock(session: Session, address_ids: Iterable[int]) -> None:
    """Lock addresses, in one order, so that what a move decides about them stays true until it is written."""
    for chunk in database.chunked(sorted(set(address_ids)), _BLOCK):
        session.execute(select(Address.id).where(Address.id.in_(chunk)).order_by(Address.id).with_for_update())


def carry_out(session: Session, moves: Sequence[Move], *, actor: Actor, now: datetime) -> set[int]:
    """Write what moves make of preferences; return the accounts that come back to an address that they left."""
    ends = {each.old for each in moves} | {each.new for each in moves}
    ids = {each for each in ends if each is not None}
    olds = [each.old for each in moves if each.old is not None]
    returning = {each.account for each in moves if each.is_return}

    def decide(mailboxes: Mailboxes) -> Mailboxes:
        for each in moves:
            standing = mailboxes[each.new].standing if each.new is not None else None
            if standing is not None and standing.left_by == each.account:
                returning.add(each.account)
        return move(mailboxes, moves, Stamp(now, actor.user_id))

    _rewrite(session, sorted(ids | _moved_to(session, olds)), decide, actor=actor, now=now)
    return returning


def leave(session: Session, account: int, address_ids: Collection[int], *, actor: Actor, now: datetime) -> None:
    """Write that an account is deactivated, which still holds its addresses."""

    def decide(mailboxes: Mailboxes) -> Mailboxes:
        return {number: deactivate(each, account) for number, each in mailboxes.items()}

    _rewrite(session, sorted(address_ids), decide, actor=actor, now=now)


def return_to(session: Session, account: int, address_ids: Collection[int], *, actor: Actor, now: datetime) -> None:
    """Write that an account, which holds addresses, is active again."""

    def decide(mailboxes: Mailboxes) -> Mailboxes:
        return {number: activate(each, account) for number, each in mailboxes.items()}

    _rewrite(session, sorted(address_ids), decide, actor=actor, now=now)


def _moved_to(session: Session, olds: Sequence[int]) -> set[int]:
    """Return the addresses that somebody moved from to one of some, now or before another came."""
    if not olds:
        return set()
    tables = (Preference, DisplacedPreference)
    return set(session.scalars(union(*(select(table.address_id).where(table.moved_to.in_(olds)) for table in tables))))


def _rewrite(
    session: Session,
    address_ids: Sequence[int],
    decide: Callable[[Mailboxes], Mailboxes],
    *,
    actor: Actor,
    now: datetime,
) -> None:
    """Read mailboxes list by list, decide about them, and write what became another."""
    standings = preference_rows.load_standings(session, address_ids)
    displaced = displaced_preferences.load(session, address_ids)
    handles = {handle for handle, _address_id in (*standings, *displaced)}
    if not handles:
        return
    seats = _seats(session, address_ids)
    removed = _being_removed(session, address_ids)
    names = dict(session.execute(select(Address.id, Address.canonical).where(Address.id.in_(address_ids))).all())
    written: list[Written] = []
    redisplaced: dict[tuple[str, int], tuple[Displaced, ...]] = {}
    for handle in sorted(handles):
        before = {
            number: _mailbox(
                number,
                standings.get((handle, number)),
                displaced.get((handle, number), ()),
                seats.get(number, ()),
                is_being_removed=(handle, number) in removed,
            )
            for number in address_ids
        }
        for number, after in decide(before).items():
            if after.standing != before[number].standing:
                written.append(Written(handle, number, names[number], before[number].standing, after.standing))
            if after.displaced != before[number].displaced:
                redisplaced[handle, number] = after.displaced
    preference_rows.write_moves(session, written, actor=actor, now=now)
    displaced_preferences.replace(session, redisplaced)


def _mailbox(
    number: int,
    standing: Standing | None,
    displaced: tuple[Displaced, ...],
    seats: Sequence[_Seat],
    *,
    is_being_removed: bool,
) -> Mailbox:
    return Mailbox(
        number,
        standing,
        holders=frozenset(each.account for each in seats if each.is_active),
        guests=frozenset(each.account for each in seats if each.is_guest),
        fresh=frozenset(each.account for each in seats if _is_fresh(standing, each)),
        displaced=displaced,
        is_being_removed=is_being_removed,
    )


def _is_fresh(standing: Standing | None, seat: _Seat) -> bool:
    """Tell whether somebody chose, left or joined at a mailbox since an account moved there."""
    if standing is None or seat.moved_in_at is None or standing.moved_from is not None:
        return False
    is_later = standing.changed_at is not None and standing.changed_at >= seat.moved_in_at
    return is_later and standing.source in _CHOSEN


def _seats(session: Session, address_ids: Sequence[int]) -> dict[int, tuple[_Seat, ...]]:
    found: dict[int, tuple[_Seat, ...]] = {}
    rows = session.execute(
        select(UserAddress.address_id, User.id, User.is_active, UserAddress.moved_in_at, UserAddress.is_guest)
        .join(User, User.id == UserAddress.user_id)
        .where(UserAddress.address_id.in_(address_ids))
    )
    for row in rows:
        seat = _Seat(row.id, row.is_active, row.moved_in_at, row.is_guest)
        found[row.address_id] = (*found.get(row.address_id, ()), seat)
    return found


def _being_removed(session: Session, address_ids: Sequence[int]) -> set[tuple[str, int]]:
    rows = session.execute(
        select(RunLine.list_handle, RunLine.address_id).where(
            RunLine.address_id.in_(address_ids), RunLine.action == "remove", not_(RunLine.settled)
        )
    )
    return {(row.list_handle, row.address_id) for row in rows}
