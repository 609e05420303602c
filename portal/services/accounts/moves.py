"""Preferences follow accounts that leave, take or return to mailboxes, on all lists.

Source: docs/semantics.md, "Address changes".

All functions work inside a transaction that the caller has begun, with the addresses locked. The caller writes the new
holders afterwards, unless a function says otherwise.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from itertools import product
from typing import NamedTuple

from sqlalchemy import and_, exists, func, not_, select, union, update
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.moves import Displaced, Mailbox, Move, Stamp, StoredPreference, activate, deactivate, move
from portal.domain.several_addresses import OwnAddress, ended_elsewhere
from portal.models import Address, DisplacedPreference, Preference, RunLine, User, UserAddress, UserGroup
from portal.services import displaced_preferences, preference_rows
from portal.services.history import Actor
from portal.services.preference_rows import MovedPreference

_CHOSEN = frozenset({"user", "superuser", "link", "list"})  # sources of preferences that somebody chose
_BLOCK = 5_000
_MOST_LISTS = 600  # handles that fit into the column of unsettled lists

Mailboxes = Mapping[int, Mailbox]
Lists = Mapping[str, MailingList] | None  # None: the catalogue cannot be read; every list counts as offered


class _Seat(NamedTuple):
    """How an account holds an address: since when, and whether another active account held it then."""

    account: int
    is_active: bool
    moved_in_at: datetime | None
    is_guest: bool


def lock(session: Session, address_ids: Iterable[int]) -> None:
    """Lock addresses in the order of their ids, so that decisions about them stay true until they are written."""
    for chunk in database.chunked(sorted(set(address_ids)), _BLOCK):
        session.execute(select(Address.id).where(Address.id.in_(chunk)).order_by(Address.id).with_for_update())


def carry_out(session: Session, moves: Sequence[Move], *, actor: Actor, now: datetime) -> set[tuple[int, int | None]]:
    """Write the effect of moves on preferences; return the pairs of account and address that are returns."""
    ends = {each.old for each in moves} | {each.new for each in moves}
    ids = {each for each in ends if each is not None}
    olds = [each.old for each in moves if each.old is not None]
    returning = {(each.account, each.new) for each in moves if each.is_return}

    def decide(mailboxes: Mailboxes) -> Mailboxes:
        for each in moves:
            preference = mailboxes[each.new].preference if each.new is not None else None
            if preference is not None and preference.left_by == each.account:
                returning.add((each.account, each.new))
        return move(mailboxes, moves, Stamp(now, actor.user_id))

    _rewrite(session, sorted(ids | _moved_to(session, olds)), decide, actor=actor, now=now)
    return returning


def send_to_one(
    session: Session, given: Mapping[tuple[int, int], bool], *, lists: Lists, actor: Actor, now: datetime
) -> None:
    """Make each list send to one address of accounts that were given addresses.

    ``given`` maps pairs of account and address to whether the account had left that address itself. The caller has
    written the new holders and locked all addresses of the accounts. Lists that an account may not see stay as they are
    and are settled once it may see them.
    """
    _settle(session, {each: _Gift(is_back, None) for each, is_back in given.items()}, lists=lists, actor=actor, now=now)


def settle(session: Session, accounts: Collection[int], *, lists: Lists, actor: Actor, now: datetime) -> None:
    """Settle lists that accounts may see now but could not see when they were given an address."""
    unsettled = and_(UserAddress.user_id.in_(accounts), UserAddress.unsettled_lists.is_not(None))
    query = select(UserAddress.user_id, UserAddress.address_id, UserAddress.given_back, UserAddress.unsettled_lists)
    rows = session.execute(query.where(unsettled)).all()
    if not rows:
        return
    given = {
        (row.user_id, row.address_id): _Gift(bool(row.given_back), frozenset((row.unsettled_lists or "").split("\n")))
        for row in rows
    }
    held = select(UserAddress.address_id).where(UserAddress.user_id.in_({row.user_id for row in rows}))
    lock(session, session.scalars(held))
    _settle(session, given, lists=lists, actor=actor, now=now)


class _Gift(NamedTuple):
    """An address given to an account, or given back, and the lists still to settle for it; None means all."""

    is_back: bool
    handles: frozenset[str] | None


def _settle(
    session: Session, given: Mapping[tuple[int, int], _Gift], *, lists: Lists, actor: Actor, now: datetime
) -> None:
    people = _people(session, {account for account, _number in given})
    numbers = sorted({number for each in people for number in each.held})
    preferences = preference_rows.load_preferences(session, numbers)
    displaced = displaced_preferences.load(session, numbers)
    names = dict(session.execute(select(Address.id, Address.canonical).where(Address.id.in_(numbers))).all())
    written: dict[tuple[str, int], MovedPreference] = {}
    redisplaced: dict[tuple[str, int], tuple[Displaced, ...]] = {}
    later: dict[tuple[int, int], list[str]] = {each: [] for each in given}
    for handle, each in product(sorted({handle for handle, _number in preferences}), people):
        gifts = {
            number: gift.is_back
            for number in each.held
            if (gift := given.get((each.account, number))) and (gift.handles is None or handle in gift.handles)
        }
        if not any((handle, number) in preferences for number in each.held):
            continue
        if not each.may_see(handle, lists):
            for number in gifts:
                later[each.account, number].append(handle)
            continue
        own = [
            OwnAddress(number, preferences.get((handle, number)), *flags, is_found=not gifts.get(number, True))
            for number, flags in each.held.items()
        ]
        ended = ended_elsewhere(own, each.account, Stamp(now, actor.user_id)) if gifts else {}
        for number, after in ended.items():
            key, before = (handle, number), preferences.get((handle, number))
            written[key] = MovedPreference(handle, number, names[number], before, after)
            if number in gifts:  # taking back an address given by mistake restores the preference
                redisplaced[key] = (*displaced.get(key, ()), Displaced(each.account, before))
    preference_rows.write_moves(session, written.values(), actor=actor, now=now)
    displaced_preferences.replace(session, redisplaced)
    _note_unsettled(session, given, later)


def _note_unsettled(
    session: Session, given: Mapping[tuple[int, int], _Gift], later: Mapping[tuple[int, int], Sequence[str]]
) -> None:
    """Store for each given address which lists are to be settled later."""
    changed = [each for each, gift in sorted(given.items()) if later[each] or gift.handles is not None]
    for account, address_id in changed:
        handles = later[account, address_id]
        values = {
            "unsettled_lists": "\n".join(handles[:_MOST_LISTS]) or None,
            "given_back": given[account, address_id].is_back if handles else None,
        }
        of_seat = and_(UserAddress.user_id == account, UserAddress.address_id == address_id)
        session.execute(update(UserAddress).where(of_seat).values(values))


def rename_list(session: Session, old: str, new: str) -> None:
    """Replace the handle of a renamed list among the lists to be settled later."""
    lines = func.replace("\n" + UserAddress.unsettled_lists + "\n", f"\n{old}\n", f"\n{new}\n")
    renamed = func.substr(lines, 2, func.length(lines) - 2)
    holds = UserAddress.unsettled_lists.contains(old, autoescape=True)
    session.execute(update(UserAddress).where(holds).values(unsettled_lists=renamed))


class _Person(NamedTuple):
    """An account, its groups, and its addresses: ``held`` maps ids to (is the main one, is shared)."""

    account: int
    is_active: bool
    groups: frozenset[str]
    held: dict[int, tuple[bool, bool]]

    def may_see(self, handle: str, lists: Lists) -> bool:
        if lists is None or not self.is_active:
            return self.is_active
        mailing_list = lists.get(handle)
        return mailing_list is not None and mailing_list.is_offered_to(self.groups)


def _people(session: Session, accounts: Collection[int]) -> list[_Person]:
    other, holder = aliased(UserAddress), aliased(User)
    is_shared = (
        exists()
        .where(other.address_id == UserAddress.address_id, other.user_id != UserAddress.user_id)
        .where(holder.id == other.user_id, holder.is_active)
        .correlate(UserAddress)
    )
    rows = session.execute(
        select(UserAddress.user_id, UserAddress.address_id, UserAddress.is_main, is_shared.label("is_shared"))
        .add_columns(User.is_active)
        .join(User, User.id == UserAddress.user_id)
        .where(UserAddress.user_id.in_(accounts))
        .order_by(UserAddress.user_id, UserAddress.address_id)
    )
    held: dict[tuple[int, bool], dict[int, tuple[bool, bool]]] = {}
    for row in rows:
        held.setdefault((row.user_id, row.is_active), {})[row.address_id] = (row.is_main, bool(row.is_shared))
    groups: dict[int, set[str]] = {}
    for user_id, name in session.execute(
        select(UserGroup.user_id, UserGroup.name).where(UserGroup.user_id.in_(accounts))
    ):
        groups.setdefault(user_id, set()).add(name)
    return [
        _Person(account, is_active, frozenset(groups.get(account, ())), each)
        for (account, is_active), each in held.items()
    ]


def leave(session: Session, held: Collection[tuple[int, int]], *, actor: Actor, now: datetime) -> None:
    """Write the effect of deactivating accounts; ``held`` are pairs of account and address."""
    _for_each(session, held, deactivate, actor=actor, now=now)


def return_to(session: Session, held: Collection[tuple[int, int]], *, actor: Actor, now: datetime) -> None:
    """Write the effect of activating accounts again; ``held`` are pairs of account and address."""
    _for_each(session, held, activate, actor=actor, now=now)


def _for_each(
    session: Session,
    held: Collection[tuple[int, int]],
    act: Callable[[Mailbox, int], Mailbox],
    *,
    actor: Actor,
    now: datetime,
) -> None:
    """Apply ``act`` to each pair of account and address in order, and write the result."""

    def decide(mailboxes: Mailboxes) -> Mailboxes:
        after = dict(mailboxes)
        for account, address_id in sorted(held):
            after[address_id] = act(after[address_id], account)
        return after

    _rewrite(session, sorted({address_id for _, address_id in held}), decide, actor=actor, now=now)


def _moved_to(session: Session, olds: Sequence[int]) -> set[int]:
    """Return the addresses from which somebody moved to one of ``olds``, in current or displaced preferences."""
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
    """Load the mailboxes of each list, apply ``decide``, and write what it changed."""
    preferences = preference_rows.load_preferences(session, address_ids)
    displaced = displaced_preferences.load(session, address_ids)
    handles = {handle for handle, _address_id in (*preferences, *displaced)}
    if not handles:
        return
    seats = _seats(session, address_ids)
    removed = _being_removed(session, address_ids)
    names = dict(session.execute(select(Address.id, Address.canonical).where(Address.id.in_(address_ids))).all())
    written: list[MovedPreference] = []
    redisplaced: dict[tuple[str, int], tuple[Displaced, ...]] = {}
    for handle in sorted(handles):
        before = {
            number: _mailbox(
                number,
                preferences.get((handle, number)),
                displaced.get((handle, number), ()),
                seats.get(number, ()),
                is_being_removed=(handle, number) in removed,
            )
            for number in address_ids
        }
        for number, after in decide(before).items():
            if after.preference != before[number].preference:
                written.append(
                    MovedPreference(handle, number, names[number], before[number].preference, after.preference)
                )
            if after.displaced != before[number].displaced:
                redisplaced[handle, number] = after.displaced
    preference_rows.write_moves(session, written, actor=actor, now=now)
    displaced_preferences.replace(session, redisplaced)


def _mailbox(
    number: int,
    preference: StoredPreference | None,
    displaced: tuple[Displaced, ...],
    seats: Sequence[_Seat],
    *,
    is_being_removed: bool,
) -> Mailbox:
    return Mailbox(
        number,
        preference,
        holders=frozenset(each.account for each in seats if each.is_active),
        guests=frozenset(each.account for each in seats if each.is_guest),
        changed_since_move=frozenset(each.account for each in seats if _has_changed_since_move(preference, each)),
        displaced=displaced,
        is_being_removed=is_being_removed,
    )


def _has_changed_since_move(preference: StoredPreference | None, seat: _Seat) -> bool:
    """Return whether somebody chose, left or joined at a mailbox after the account had moved there."""
    if preference is None or seat.moved_in_at is None or preference.moved_from is not None:
        return False
    is_later = preference.changed_at is not None and preference.changed_at >= seat.moved_in_at
    return is_later and preference.source in _CHOSEN


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
