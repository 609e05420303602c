"""Changes to the addresses of accounts: add, remove and replace addresses, for one account or many at once."""

import functools
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import printable
from portal.domain.moves import Move
from portal.errors import BadInputError, SharedMailboxError, UnknownUserError
from portal.models import Address, User, UserAddress
from portal.services import security_log
from portal.services.accounts import addresses, erasure, moves, names
from portal.services.accounts import log as account_log
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.history import Actor
from portal.services.transaction import transaction


class AddressChange(NamedTuple):
    """The wanted change to the addresses of one account.

    ``main`` becomes the main address, whether it was held before or not; None keeps the current one. With
    ``replaces_main`` the previous main address is removed. ``added`` are further addresses to hold. ``removed`` are
    canonical addresses to give up; each is a move to the main address. Adding an address that is held, or removing one
    that is not, changes nothing.
    """

    main: Checked | None = None
    replaces_main: bool = False
    added: tuple[Checked, ...] = ()
    removed: frozenset[str] = frozenset()


def change_many(
    session: Session,
    wanted: Mapping[int, AddressChange],
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    may_share: bool = True,
) -> set[int]:
    """Change the addresses of several users together; return the ids of those whose addresses changed.

    All removals happen before all additions, so users can swap addresses. Preferences move with their holders, and a
    list keeps sending to one address of a user who gets another. Source: docs/semantics.md, "Address changes". With
    ``may_share`` an address that another active account holds is allowed. Raise UnknownUserError, SharedMailboxError,
    or BadInputError if a main address would be removed without a replacement.
    """
    accounts = _load_accounts(session, wanted)
    steps = [_Step.of(account, wanted[account.user_id]) for account in accounts.values()]
    ids = addresses.find_or_make_all(
        session,
        [each for step in steps for each in step.named],
        others={each.address_id for account in accounts.values() for each in account.held.values()},
    )
    if not may_share:
        _require_unshared(session, steps, ids)
    for step in steps:
        if step.respelled is not None:
            _respell(session, ids[step.respelled.canonical], step.respelled.spelling)
    changed = [step for step in steps if step.is_change]
    if changed:
        _carry_out(session, changed, ids, actor=actor, now=now, lists=lists)
    for step in changed:
        _record(session, step, actor=actor)
    return {step.account.user_id for step in changed}


class _Held(NamedTuple):
    """An address of a user; ``moved_from`` is the id of the address that they moved from to this one."""

    address_id: int
    spelling: str
    is_main: bool
    moved_from: int | None


class _Account(NamedTuple):
    """A user whose addresses change, with their current addresses by canonical form."""

    user_id: int
    username: str
    is_active: bool
    held: dict[str, _Held]

    @property
    def main(self) -> str | None:
        """Return the canonical form of the main address."""
        return next((name for name, each in self.held.items() if each.is_main), None)


def _load_accounts(session: Session, user_ids: Collection[int]) -> dict[int, _Account]:
    """Return users and lock their rows, so that changes happen one at a time. Raise UnknownUserError."""
    locked = select(User.id, User.username, User.is_active).where(User.id.in_(user_ids)).order_by(User.id)
    found = {row.id: _Account(*row, held={}) for row in session.execute(locked.with_for_update())}
    for user_id in user_ids:
        if user_id not in found:
            raise UnknownUserError("no user has the number %(user_id)s", user_id=user_id)
    rows = session.execute(
        select(UserAddress.user_id, Address.canonical, Address.id, Address.spelling)
        .add_columns(UserAddress.is_main, UserAddress.moved_from)
        .join(Address, Address.id == UserAddress.address_id)
        .where(UserAddress.user_id.in_(user_ids))
        .order_by(Address.id)
    )
    for user_id, name, *held in rows:
        found[user_id].held[name] = _Held(*held)
    return found


class _Step(NamedTuple):
    """The change to the addresses of one account, in canonical forms. A new main address comes first in ``gained``."""

    account: _Account
    main: str
    gained: tuple[str, ...]
    removed: tuple[str, ...]
    named: tuple[Checked, ...]
    respelled: Checked | None

    @classmethod
    def of(cls, account: _Account, wanted: AddressChange) -> "_Step":
        """Compare the wanted change with the current addresses. Raise BadInputError."""
        main = wanted.main.canonical if wanted.main else account.main
        removed = wanted.removed & account.held.keys()
        if wanted.replaces_main and account.main not in {None, main}:
            removed |= {account.main}
        if main is None or main in removed:
            if main is None:
                raise BadInputError("%(username)s has no main address: add one first", username=account.username)
            raise BadInputError("%(main)s is the main address: make another address the main one first", main=main)
        named = (*filter(None, [wanted.main]), *wanted.added)
        gained = {each.canonical: None for each in named if each.canonical not in account.held}
        is_respelled = wanted.main is not None and main in account.held
        ordered = tuple(sorted(removed, key=lambda each: (each != account.main, each)))
        return cls(account, main, tuple(gained), ordered, named, wanted.main if is_respelled else None)

    @property
    def is_change(self) -> bool:
        return bool(self.gained or self.removed or self.main != self.account.main)

    def moves(self, ids: Mapping[str, int]) -> list[Move]:
        """Return a move to the main address for each removed address, and a move from nowhere for each new one."""
        user_id, is_active, is_held = self.account.user_id, self.account.is_active, self.main in self.account.held
        main = ids.get(self.main) or self.account.held[self.main].address_id
        those = [
            Move(user_id, old.address_id, main, is_active, is_return=old.moved_from == main, is_held=is_held)
            for old in map(self.account.held.__getitem__, self.removed)
        ]
        given = (each for each in self.gained if not (those and each == self.main))
        return those + [Move(user_id, None, ids[each], is_active) for each in given]


def _carry_out(
    session: Session, steps: Sequence[_Step], ids: Mapping[str, int], *, actor: Actor, now: datetime, lists: Lists
) -> None:
    those = [each for step in steps for each in step.moves(ids)]
    olds = {each.old for each in those if each.old is not None}
    addresses.clear_departures_of(session, sorted(olds), lists=lists)  # they were managed until now, and depart again
    returning = moves.carry_out(session, those, actor=actor, now=now)
    for each in those:
        session.execute(
            delete(UserAddress).where(UserAddress.user_id == each.account, UserAddress.address_id == each.old)
        )
    taken = [each for each in those if not each.is_held]
    shared = _held_by_active(session, {each.new for each in taken if each.new is not None})
    for each in taken:
        _take_seat(session, each, now=now, is_guest=each.new in shared, is_back=(each.account, each.new) in returning)
    for step in steps:
        main = ids.get(step.main) or step.account.held[step.main].address_id
        session.execute(
            update(UserAddress)
            .where(UserAddress.user_id == step.account.user_id)
            .values(is_main=UserAddress.address_id == main)
        )
    addresses.note_let_go(session, olds, now=now)
    news = {each.new for each in taken if each.new is not None}
    addresses.clear_departures_of(session, sorted(news), lists=lists)
    given = {
        (each.account, each.new): (each.account, each.new) in returning
        for each in taken
        if each.old is None and each.new is not None
    }
    if given:
        moves.send_to_one(session, given, lists=lists, actor=actor, now=now)
    origins = {each.moved_from for step in steps for each in step.account.held.values() if each.moved_from is not None}
    erasure.forget_unused(session, sorted(olds | origins))


def _take_seat(session: Session, move: Move, *, now: datetime, is_guest: bool, is_back: bool) -> None:
    """Make an account a holder of an address, and store where it moved from and whether another account held it."""
    moved = {"moved_in_at": now, "moved_from": move.old, "is_guest": is_guest}
    remembered = moved if (move.old is not None or is_guest) and not is_back else {}
    session.execute(
        database.insert(session, UserAddress)
        .values(address_id=move.new, user_id=move.account, is_main=False, **remembered)
        .on_conflict_do_nothing()
    )


def _record(session: Session, step: _Step, *, actor: Actor) -> None:
    """Record the change in the history of the account; a username equal to the main address changes with it."""
    account, spelled = step.account, {each.canonical: each.spelling for each in step.named}
    line = functools.partial(account_log.record, session, [(account.user_id, account.username)], actor=actor)
    before = account.main
    is_move = before in step.removed
    if before is not None and is_move:
        line("address changed", old=account.held[before].spelling, new=spelled[step.main])
    for each in step.gained:
        if each != step.main or not is_move:
            line("address added", new=spelled[each])
    for each in step.removed:
        if each != before:
            line("address removed", old=account.held[each].spelling)
    if step.main != before and before is not None:
        new = spelled.get(step.main) or account.held[step.main].spelling
        if not is_move:
            line("another main address", old=account.held[before].spelling, new=new)
        names.follow(session, account.user_id, old=before, new=step.main, spelling=new, actor=actor)


def _require_unshared(session: Session, steps: Sequence[_Step], ids: Mapping[str, int]) -> None:
    """Raise SharedMailboxError if another active account holds an address that one of the accounts would get."""
    for step in steps:
        for checked_address in step.named:
            if checked_address.canonical in step.gained:
                others = active_holders(session, ids[checked_address.canonical], but=step.account.user_id)
                if others:
                    raise SharedMailboxError(checked_address.spelling, others)


def active_holders(session: Session, address_id: int, *, but: int) -> tuple[str, ...]:
    """Return the usernames of the active accounts that hold an address, except one account."""
    held = select(User.username).join(UserAddress, UserAddress.user_id == User.id).where(User.is_active, User.id != but)
    return tuple(session.scalars(held.where(UserAddress.address_id == address_id).order_by(User.username_key)))


def _held_by_active(session: Session, address_ids: Collection[int]) -> set[int]:
    """Return which of the addresses an active account holds."""
    active = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    return set(session.scalars(active.where(UserAddress.address_id.in_(address_ids))))


def _respell(session: Session, address_id: int, spelling: str) -> None:
    holders = select(func.count()).select_from(UserAddress).where(UserAddress.address_id == address_id)
    session.execute(
        update(Address).where(Address.id == address_id, holders.scalar_subquery() == 1).values(spelling=spelling)
    )


def change(
    session: Session,
    user_id: int,
    address: Checked,
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    may_share: bool = True,
) -> bool:
    """Replace the main address of a user; return whether anything changed.

    Raise UnknownUserError or SharedMailboxError.
    """
    wanted = {user_id: AddressChange(address, replaces_main=True)}
    return _change(session, wanted, "address changed", actor=actor, now=now, lists=lists, may_share=may_share)


def add(
    session: Session,
    user_id: int,
    address: Checked,
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    may_share: bool = True,
    as_of: int | None = None,
) -> bool:
    """Add an address to a user; return whether it is new to them.

    Each list keeps sending to one of their addresses: the one that somebody chose, else one on its roster, else the
    main one. With ``may_share`` another active account may hold the mailbox; its preferences stay as they are.
    ``as_of``, here and below, is the last change of the account that the actor has seen. Raise UnknownUserError,
    SharedMailboxError or ChangedMeanwhileError.
    """
    wanted = {user_id: AddressChange(added=(address,))}
    values: dict[str, Any] = {"actor": actor, "now": now, "lists": lists, "as_of": as_of}
    return _change(session, wanted, "address added", may_share=may_share, **values)


def remove(
    session: Session,
    user_id: int,
    address: str,
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    as_of: int | None = None,
) -> None:
    """Remove a canonical address from a user: it moves to their main address, and the later choice of both counts.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError if it is their main address or not theirs.
    """
    wanted = {user_id: AddressChange(removed=frozenset([address]))}
    if not _change(session, wanted, "address removed", actor=actor, now=now, lists=lists, as_of=as_of):
        raise BadInputError("%(address)s is not an address of this account", address=printable(address))


def make_main(
    session: Session,
    user_id: int,
    address: str,
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    as_of: int | None = None,
) -> bool:
    """Make a canonical address of a user their main one, for letters and new ticks; return whether it was not yet.

    Lists keep sending where they did. Raise UnknownUserError, ChangedMeanwhileError, or BadInputError if the address is
    not theirs.
    """
    with transaction(session):
        (account,) = _load_accounts(session, [user_id]).values()
        account_log.require_unchanged(session, user_id, since=as_of)
        found = account.held.get(address)
        if found is None:
            raise BadInputError(
                "%(address)s is not an address of this account; add it first", address=printable(address)
            )
        wanted = {user_id: AddressChange(Checked(address, found.spelling))}
        is_changed = bool(change_many(session, wanted, actor=actor, now=now, lists=lists))
    if is_changed:
        security_log.log("main address changed", user=user_id)
    return is_changed


def _change(
    session: Session,
    wanted: Mapping[int, AddressChange],
    what: str,
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
    may_share: bool = True,
    as_of: int | None = None,
) -> bool:
    with transaction(session):
        for user_id in wanted if as_of is not None else ():
            _load_accounts(session, [user_id])  # locked, so that what was seen stays so
            account_log.require_unchanged(session, user_id, since=as_of)
        changed = change_many(session, wanted, actor=actor, now=now, lists=lists, may_share=may_share)
    for user_id in changed:
        security_log.log(what, user=user_id)
    return bool(changed)
