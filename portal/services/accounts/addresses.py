"""Addresses: validate and store them, find their holders, and hand them from one account to another."""

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
    """A validated address: its canonical form and its spelling as typed."""

    canonical: str
    spelling: str


def checked(text: str, *, special_domains: Collection[str] = ()) -> Checked:
    """Validate an address for storing. Raise InvalidAddressError.

    ``special_domains`` are top-level domains of an intranet, such as ``lan``, that are otherwise refused.
    """
    from email_validator import EmailNotValidError, validate_email  # slow to import, and most commands store no address

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


class AddressChecker:
    """Checks many addresses as ``checked`` does, and examines a domain once.

    Most members are at a few providers, and of an address in ASCII the domain is the part that takes long.
    """

    def __init__(self, special_domains: Collection[str]) -> None:
        self._special_domains = special_domains
        self._good_domains: set[str] = set()

    def check(self, spelling: str, compared: str) -> None:
        """Validate an address whose canonical form is given. Raise InvalidAddressError."""
        domain = spelling.rpartition("@")[2]
        if domain in self._good_domains and spelling.isascii():
            return  # what comes before the @ is a dot-atom, as in every canonical address
        checked(spelling, special_domains=self._special_domains)
        if domain.isascii() and "xn--" not in compared:  # its length counts in Unicode as well
            self._good_domains.add(domain)


def is_held() -> ColumnElement[bool]:
    """Return the condition that an account, active or not, holds an address."""
    return exists().where(UserAddress.address_id == Address.id)


def is_managed(mailing_list: MailingList | None) -> ColumnElement[bool]:
    """Return the condition that an active user who may see the list holds an address."""
    return (
        exists()
        .where(UserAddress.address_id == Address.id, User.id == UserAddress.user_id, may_see(mailing_list))
        .correlate(Address)
    )


def departs(mailing_list: MailingList) -> ColumnElement[bool]:
    """Return the condition that rule 4 takes the address of a preference off the list, going by the last roster."""
    left = and_(not_(is_managed(mailing_list)), not_(Preference.departed), Preference.seen.is_(True))
    goes = or_(not_(Preference.subscribed), Preference.moved_to.is_not(None))
    return left if mailing_list.remove_on_departure else and_(left, goes)


def managed_ids(mailing_list: MailingList) -> Select[Any]:
    """Return the ids of all managed addresses, with repetitions: the set form of ``is_managed``.

    For a list with an audience they are found from its groups.
    """
    managed = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    if mailing_list.audience is None:
        return managed
    in_audience = UserGroup.name.in_(sorted(mailing_list.audience))
    return managed.join(UserGroup, UserGroup.user_id == User.id).where(in_audience)


def unmanaged_ids() -> CompoundSelect[Any]:
    """Return the ids of addresses that no active account holds: held only by deactivated accounts, or let go."""
    holds = (UserAddress.address_id == Address.id, User.id == UserAddress.user_id)
    inactive = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(not_(User.is_active))
    let_go = select(Address.id).where(Address.let_go_at.is_not(None))
    return union(
        select(Address.id).where(Address.id.in_(inactive), not_(exists().where(*holds, User.is_active))), let_go
    )


def may_see(mailing_list: MailingList | None) -> ColumnElement[bool]:
    """Return the condition that a user is active and, if the list has an audience, in one of its groups."""
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
    """An address of an account."""

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
    """Make an address the main address of a user; return the address's id.

    Earlier departures from the address are cleared, and a preference left there by a former holder does not apply to
    the user.
    """
    address_id = find_or_make_all(session, [address])[address.canonical]
    is_active = session.scalar(select(User.is_active).where(User.id == user_id))
    if session.get(UserAddress, (address_id, user_id)) is None:
        moves.carry_out(session, [Move(user_id, None, address_id, bool(is_active))], actor=actor, now=now)
    _hold(session, user_id, address_id)
    clear_departures_of(session, [address_id], lists=lists)
    return address_id


def _hold(session: Session, user_id: int, address_id: int, **moved: Any) -> None:
    """Make an address the main one of a user; ``moved`` are further values of the row if it is new."""
    session.execute(update(UserAddress).where(UserAddress.user_id == user_id).values(is_main=False))
    session.execute(
        database.insert(session, UserAddress)
        .values(address_id=address_id, user_id=user_id, is_main=True, **moved)
        .on_conflict_do_update(index_elements=["address_id", "user_id"], set_={"is_main": True})
    )


def find_or_make_all(session: Session, wanted: Sequence[Checked], *, others: Collection[int] = ()) -> dict[str, int]:
    """Return the ids of addresses by canonical form, inserting missing ones.

    These addresses and ``others`` are locked in the order of their ids, so that they are not deleted, and decisions
    about them stay true, until the transaction ends.
    """
    if not wanted:
        moves.lock(session, others)
        return {}
    ids: dict[str, int] = {}
    while len(ids) < len({each.canonical for each in wanted}):  # one may have been deleted between the two statements
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
        # The first spelling stays while somebody holds the address; a new holder cancels its erasure.
        session.execute(
            update(Address)
            .where(Address.id == ids[each.canonical], not_(is_held().correlate(Address)))
            .values(spelling=each.spelling, erase=False, let_go_at=None)
        )
    return ids


def find_or_make(session: Session, address: str, *, now: datetime) -> int:
    """Return the id of a canonical address and lock it; a missing one is inserted as an address without a holder."""
    address_id = session.scalar(select(Address.id).where(Address.canonical == address).with_for_update())
    if address_id is None:
        address_id = find_or_make_all(session, [Checked(address, address)])[address]
        note_let_go(session, [address_id], now=now)
    return address_id


def admit(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Allow users on the lists that they may see now: clear the departures of their addresses.

    Also settle lists that they could not see when they were given an address.
    """
    moves.settle(session, user_ids, lists=lists, actor=actor, now=now)
    held = session.scalars(select(UserAddress.address_id).where(UserAddress.user_id.in_(user_ids)).distinct()).all()
    clear_departures_of(session, held, lists=lists)


def clear_departures_of(session: Session, address_ids: Sequence[int], *, lists: Lists) -> None:
    """Clear the departures of addresses on the lists that a holder may see now."""
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
    """Store the time since which those of the addresses have no holder that have none now."""
    unheld = and_(Address.id.in_(sorted(address_ids)), not_(is_held().correlate(Address)))
    session.execute(update(Address).where(unheld).values(let_go_at=now))


def _held_by(session: Session, user_ids: Collection[int]) -> list[tuple[int, int]]:
    """Return pairs of ids of users and their addresses, and lock the addresses."""
    pairs = select(UserAddress.user_id, UserAddress.address_id).where(UserAddress.user_id.in_(user_ids))
    held = [(user_id, address_id) for user_id, address_id in session.execute(pairs)]
    moves.lock(session, (address_id for _, address_id in held))
    return held


def deactivate(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime) -> None:
    """Store that accounts leave their addresses, just before they are deactivated."""
    moves.leave(session, _held_by(session, user_ids), actor=actor, now=now)


def activate(session: Session, user_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Activate accounts: restore their preferences, clear the departures of their addresses, and settle their lists.

    Accounts that are active already stay so.
    """
    inactive = select(User.id).where(User.id.in_(user_ids), not_(User.is_active))
    back = sorted(session.scalars(inactive))
    held = _held_by(session, back)
    moves.return_to(session, held, actor=actor, now=now)
    values = {"is_active": True, "deactivated_by_import": False}
    session.execute(update(User).where(User.id.in_(user_ids)).values(values))
    admit(session, user_ids, actor=actor, now=now, lists=lists)


def release(session: Session, user_id: int, *, erase: bool, actor: Actor, now: datetime, lists: Lists) -> None:
    """Release all addresses of a user, just before the account is deleted.

    With ``erase``, those that no other account holds are unsubscribed everywhere and marked, so that all traces of them
    are removed once no roster contains them.
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
