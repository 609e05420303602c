"""Addresses: which may be stored, who holds which, and who comes to them and goes."""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    delete,
    exists,
    false,
    not_,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import canonical, printable
from portal.domain.mailinglist import MailingList
from portal.domain.moves import Move
from portal.errors import InvalidAddressError
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services import preference_rows
from portal.services.accounts import erasure, moves
from portal.services.accounts.moves import Lists
from portal.services.history import Actor
from portal.services.transaction import reading

_BLOCK = 5_000  # addresses in one statement


class Checked(NamedTuple):
    """An address that may be stored: its canonical form, and as it was typed."""

    canonical: str
    spelling: str


def checked(text: str, *, special_domains: Collection[str] = ()) -> Checked:
    """Validate an address that a person typed. Raise InvalidAddressError.

    ``special_domains`` are domains of an intranet, such as ``lan``, that would be refused for not being public.
    """
    from email_validator import EmailNotValidError, validate_email  # no command but those that store one pays for it

    spelling = text.strip()
    compared = canonical(spelling)
    domain = compared.rpartition("@")[2]
    is_special = any(domain == each or domain.endswith(f".{each}") for each in special_domains)
    try:
        validate_email(spelling, check_deliverability=False, globally_deliverable=not is_special)
    except EmailNotValidError as error:
        raise InvalidAddressError(
            "not an e-mail address: %(spelling)s (%(error)s)",
            spelling=printable(spelling),
            error=printable(str(error), limit=150),
        ) from None
    return Checked(compared, spelling)


def is_held() -> ColumnElement[bool]:
    """Return the condition that some account, active or not, holds an address."""
    return exists().where(UserAddress.address_id == Address.id)


def is_managed(mailing_list: MailingList | None) -> ColumnElement[bool]:
    """Return the condition that some active user who may see the list holds an address."""
    return (
        exists()
        .where(UserAddress.address_id == Address.id, User.id == UserAddress.user_id, may_see(mailing_list))
        .correlate(Address)
    )


def departs(mailing_list: MailingList) -> ColumnElement[bool]:
    """Return the condition, of a preference, that rule 4 takes its address off the list, as far as was seen."""
    left = and_(not_(is_managed(mailing_list)), not_(Preference.departed), Preference.seen.is_(True))
    goes = or_(not_(Preference.subscribed), Preference.moved_to.is_not(None))
    return left if mailing_list.remove_on_departure else and_(left, goes)


def managed_ids(mailing_list: MailingList) -> Select[Any]:
    """Return the ids of all managed addresses, some more than once: what ``is_managed`` says, where all are asked for.

    Those of a list with an audience are found from its groups.
    """
    managed = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    if mailing_list.audience is None:
        return managed
    in_audience = UserGroup.name.in_(sorted(mailing_list.audience))
    return managed.join(UserGroup, UserGroup.user_id == User.id).where(in_audience)


def unmanaged_ids() -> CompoundSelect[Any]:
    """Return the ids of the addresses that no active account holds: of deactivated accounts alone, or let go of."""
    holds = (UserAddress.address_id == Address.id, User.id == UserAddress.user_id)
    inactive = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(not_(User.is_active))
    let_go = select(Address.id).where(Address.let_go_at.is_not(None))
    return union(
        select(Address.id).where(Address.id.in_(inactive), not_(exists().where(*holds, User.is_active))), let_go
    )


def may_see(mailing_list: MailingList | None) -> ColumnElement[bool]:
    """Return the condition that a user is active and in a group of the list's audience."""
    if mailing_list is None or mailing_list.audience is None:
        return User.is_active.expression
    groups = sorted(mailing_list.audience)
    in_audience = exists().where(UserGroup.user_id == User.id, UserGroup.name.in_(groups)).correlate(User)
    return and_(User.is_active, in_audience)


def holders(session: Session, address: Checked) -> tuple[str, ...]:
    """Return the usernames of the accounts, active or not, that hold an address."""
    query = (
        select(User.username)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(Address.canonical == address.canonical)
        .order_by(User.username_key)
    )
    with reading(session):
        return tuple(session.scalars(query))


class HeldAddress(NamedTuple):
    """An address of an account: its id, its canonical form, as it is spelled, and whether it is the main one."""

    id: int
    canonical: str
    spelling: str
    is_main: bool


def held(session: Session, user_id: int) -> tuple[HeldAddress, ...]:
    """Return the addresses of a user, the main one first."""
    query = (
        select(Address.id, Address.canonical, Address.spelling, UserAddress.is_main)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id)
        .order_by(UserAddress.is_main.desc(), Address.canonical)
    )
    with reading(session):
        return tuple(map(HeldAddress._make, session.execute(query)))


# The functions from here on work inside a transaction that the caller has begun.


def give(session: Session, user_id: int, address: Checked, *, actor: Actor, now: datetime, lists: Lists) -> int:
    """Let a user hold an address as the main one; return the address's id.

    Whatever was remembered of a departure is over, and what somebody who is gone left there does not work for the user.
    """
    address_id = find_or_make_all(session, [address])[address.canonical]
    is_active = session.scalar(select(User.is_active).where(User.id == user_id))
    if session.get(UserAddress, (address_id, user_id)) is None:
        moves.carry_out(session, [Move(user_id, None, address_id, bool(is_active))], actor=actor, now=now)
    _hold(session, user_id, address_id)
    clear_departures_of(session, [address_id], lists=lists)
    return address_id


def _hold(session: Session, user_id: int, address_id: int, **moved: Any) -> None:
    """Make an address the main one of a user, and remember how they came to it if they did not hold it before."""
    session.execute(update(UserAddress).where(UserAddress.user_id == user_id).values(is_main=False))
    session.execute(
        database.insert(session, UserAddress)
        .values(address_id=address_id, user_id=user_id, is_main=True, **moved)
        .on_conflict_do_update(index_elements=["address_id", "user_id"], set_={"is_main": True})
    )


def find_or_make_all(session: Session, wanted: Sequence[Checked], *, others: Collection[int] = ()) -> dict[str, int]:
    """Return the ids of addresses by canonical form. They and some others are locked, in one order.

    So nobody forgets them before the transaction ends, and what is decided about them stays true.
    """
    if not wanted:
        moves.lock(session, others)
        return {}
    ids: dict[str, int] = {}
    while len(ids) < len({each.canonical for each in wanted}):  # one may just have been forgotten
        session.execute(
            database.insert(session, Address).on_conflict_do_nothing(),
            [{"canonical": each.canonical, "spelling": each.spelling, "erase": False} for each in wanted],
        )
        named = Address.canonical.in_([each.canonical for each in wanted])
        found = select(Address.canonical, Address.id).where(or_(named, Address.id.in_(others))).order_by(Address.id)
        ids = {
            canonical: address_id
            for canonical, address_id in session.execute(found.with_for_update())
            if canonical in {each.canonical for each in wanted}
        }
    for each in wanted:
        # The first spelling stays until nobody holds the address; whoever holds it again does not want it erased.
        session.execute(
            update(Address)
            .where(Address.id == ids[each.canonical], not_(is_held().correlate(Address)))
            .values(spelling=each.spelling, erase=False, let_go_at=None)
        )
    return ids


def find_or_make(session: Session, address: str, *, now: datetime) -> int:
    """Return the id of a canonical address, which is locked; one that nobody has held is made as such."""
    address_id = session.scalar(select(Address.id).where(Address.canonical == address).with_for_update())
    if address_id is None:
        address_id = find_or_make_all(session, [Checked(address, address)])[address]
        note_let_go(session, [address_id], now=now)
    return address_id


def admit(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Let users be on the lists that they may see now: forget that departures of their addresses were dealt with.

    A list sends to one address of somebody who was given another before they could see it.
    """
    moves.settle(session, user_ids, lists=lists, actor=actor, now=now)
    held = session.scalars(select(UserAddress.address_id).where(UserAddress.user_id.in_(user_ids)).distinct()).all()
    clear_departures_of(session, held, lists=lists)


def clear_departures_of(session: Session, address_ids: Sequence[int], *, lists: Lists) -> None:
    """Forget that departures of addresses were dealt with, on the lists that a holder may see now."""
    if lists is None:
        returned: ColumnElement[bool] = _has_returned(None)
    else:
        returned = or_(
            false(), *(and_(Preference.list_handle == handle, _has_returned(each)) for handle, each in lists.items())
        )
    for chunk in database.chunked(address_ids, _BLOCK):
        preference_rows.clear_departures(session, chunk, where=returned)


def _has_returned(mailing_list: MailingList | None) -> ColumnElement[bool]:
    return exists().where(Address.id == Preference.address_id, is_managed(mailing_list)).correlate(Preference)


def note_let_go(session: Session, address_ids: Collection[int], *, now: datetime) -> None:
    """Remember of addresses that nobody holds any more since when that is so."""
    unheld = and_(Address.id.in_(sorted(address_ids)), not_(is_held().correlate(Address)))
    session.execute(update(Address).where(unheld).values(let_go_at=now))


def _held_by(session: Session, user_ids: Collection[int]) -> list[tuple[int, int]]:
    """Return users and their addresses, which are locked, as pairs of ids."""
    pairs = select(UserAddress.user_id, UserAddress.address_id).where(UserAddress.user_id.in_(user_ids))
    held = [(user_id, address_id) for user_id, address_id in session.execute(pairs)]
    moves.lock(session, (address_id for _, address_id in held))
    return held


def deactivate(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime) -> None:
    """Remember accounts as the last to leave their addresses, just before they are deactivated."""
    moves.leave(session, _held_by(session, user_ids), actor=actor, now=now)


def activate(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Activate accounts: restore what they left at their addresses, and clear the marks of their departures.

    A list sends to one address of somebody who was given another meanwhile. Who is active already stays so.
    """
    inactive = select(User.id).where(User.id.in_(user_ids), not_(User.is_active))
    back = sorted(session.scalars(inactive))
    held = _held_by(session, back)
    moves.return_to(session, held, actor=actor, now=now)
    values = {"is_active": True, "deactivated_by_import": False}
    session.execute(update(User).where(User.id.in_(user_ids)).values(values))
    admit(session, user_ids, actor=actor, now=now, lists=lists)


def release(session: Session, user_id: int, *, erase: bool, actor: Actor, now: datetime, lists: Lists) -> None:
    """Take a user's addresses away, just before the account is deleted.

    ``erase`` unsubscribes those that nobody else holds, everywhere, and marks them: their traces go once no roster
    holds them.
    """
    held = [address_id for _, address_id in _held_by(session, [user_id])]
    origins = session.scalars(select(UserAddress.moved_from).where(UserAddress.user_id == user_id)).all()
    is_active = bool(session.scalar(select(User.is_active).where(User.id == user_id)))
    moves.carry_out(session, [Move(user_id, each, None, is_active) for each in held], actor=actor, now=now)
    session.execute(delete(UserAddress).where(UserAddress.user_id == user_id))
    note_let_go(session, held, now=now)
    if erase:
        left = select(Preference.address_id).where(Preference.left_by == user_id).distinct()
        held += session.scalars(left).all()
        erasure.erase_unheld(session, held, actor=actor, now=now, lists=lists)
    erasure.forget_unused(session, [*held, *(each for each in origins if each is not None)])
