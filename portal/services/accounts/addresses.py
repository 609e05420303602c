"""Addresses: who holds which, what a change of address does, and when one is forgotten."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, delete, exists, false, func, not_, or_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import canonical, printable
from portal.domain.mailinglist import MailingList
from portal.errors import InvalidAddressError, UnknownUserError
from portal.models import Address, History, Preference, Run, RunLine, User, UserAddress, UserGroup
from portal.services import history, preference_rows, security_log
from portal.services.accounts import log as account_log
from portal.services.accounts import names
from portal.services.history import Actor
from portal.services.preference_rows import Mailbox
from portal.services.transaction import reading, transaction

Lists = Mapping[str, MailingList] | None  # None: the catalogue cannot be read; every list counts as offered

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
            f"not an e-mail address: {printable(spelling)} ({printable(str(error), limit=150)})"
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
    return left if mailing_list.remove_on_departure else and_(left, not_(Preference.subscribed))


def managed_ids(mailing_list: MailingList) -> Select[Any]:
    """Return the ids of all managed addresses: what ``is_managed`` says, where all are asked for."""
    return select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(may_see(mailing_list))


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


# The functions from here to ``change`` work inside a transaction that the caller has begun.


def give(session: Session, user_id: int, address: Checked, *, lists: Lists) -> int:
    """Let a user hold an address as the main one; return the address's id.

    Whatever was remembered of a departure, or of a former holder's move, is over.
    """
    address_id = _find_or_make(session, address)
    session.execute(update(UserAddress).where(UserAddress.user_id == user_id).values(is_main=False))
    session.execute(
        database.insert(session, UserAddress)
        .values(address_id=address_id, user_id=user_id, is_main=True)
        .on_conflict_do_update(index_elements=["address_id", "user_id"], set_={"is_main": True})
    )
    clear_moves_and_departures(session, [address_id], lists=lists)
    return address_id


def clear_moves_and_departures(session: Session, address_ids: Sequence[int], *, lists: Lists) -> None:
    """Forget that departures of addresses were dealt with, or that their former holders moved: somebody holds them."""
    for chunk in database.chunked(address_ids, _BLOCK):
        preference_rows.clear_moves(session, chunk)
    clear_departures_of(session, address_ids, lists=lists)


def _find_or_make(session: Session, address: Checked) -> int:
    """Return the id of an address, whose row is locked: nobody forgets it before the transaction ends."""
    address_id: int = session.execute(
        database.insert(session, Address)
        .values(canonical=address.canonical, spelling=address.spelling)
        .on_conflict_do_update(index_elements=["canonical"], set_={"canonical": address.canonical})
        .returning(Address.id)
    ).scalar_one()
    # The first spelling stays until nobody holds the address; whoever holds it again does not want it erased.
    session.execute(
        update(Address)
        .where(Address.id == address_id, not_(is_held().correlate(Address)))
        .values(spelling=address.spelling, erase=False)
    )
    return address_id


def clear_departures(session: Session, user_id: int, *, lists: Lists) -> None:
    """Forget that departures of a user's addresses were dealt with, on the lists that the user may see now."""
    held = session.scalars(select(UserAddress.address_id).where(UserAddress.user_id == user_id)).all()
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


def release(session: Session, user_id: int, *, erase: bool, lists: Lists) -> None:
    """Take a user's addresses away, just before the account is deleted.

    ``erase`` marks those that nobody else holds: their traces go once no roster holds them.
    """
    held = list(session.scalars(select(UserAddress.address_id).where(UserAddress.user_id == user_id)))
    session.execute(delete(UserAddress).where(UserAddress.user_id == user_id))
    if erase:
        former = select(Preference.address_id).where(Preference.moved_to.in_(held))
        held += session.scalars(former.distinct())
        unheld = and_(Address.id.in_(held), not_(is_held().correlate(Address)))
        marked = session.scalars(update(Address).where(unheld).values(erase=True).returning(Address.id)).all()
        if lists is not None:  # of a list that left the catalogue nobody reads the roster any more
            preference_rows.purge_gone_lists(session, marked, handles=lists)
    forget_unused(session, held)


def forget_unused(session: Session, address_ids: Sequence[int]) -> None:
    """Delete those of some addresses that nobody holds and that no list has a preference for.

    One that is locked is about to be held again: it is passed over.
    """
    unused = and_(
        not_(is_held().correlate(Address)),
        not_(exists().where(Preference.address_id == Address.id).correlate(Address)),
    )
    found = select(Address.id).where(Address.id.in_(address_ids), unused).with_for_update(skip_locked=True)
    gone = session.execute(
        delete(Address)
        .where(Address.id.in_(session.scalars(found).all()), unused)
        .returning(Address.id, Address.canonical, Address.spelling, Address.erase)
    ).all()
    for each in gone:
        if each.erase:
            _erase(session, f"erased-{each.id}", Checked(each.canonical, each.spelling))


def _erase(session: Session, name: str, address: Checked) -> None:
    """Replace an address by a name in history, runs and outcomes: the one rewrite of history there is."""
    history.forget_address(session, address.canonical, name=name)
    session.execute(
        update(RunLine).where(RunLine.address == address.canonical).values(address=name, spelling=name, words="")
    )
    # Whole addresses only: the end of a longer one is somebody else's.
    either = "|".join(map(re.escape, address))
    quoted = re.compile(rf"(?<!\w)(?<!\w[.+-])(?:{either})(?![\w-]|\.\w)", re.IGNORECASE)
    for column in (History.reason, Preference.refusal, Run.message, RunLine.words):
        quoting = or_(*(column.icontains(each, autoescape=True) for each in address))
        for text in session.scalars(select(column).where(quoting).distinct()).all():
            erased = quoted.sub(name, text or "")[: column.type.length]
            session.execute(update(column.class_).where(column == text).values({column.key: erased}))


def change(session: Session, user_id: int, address: Checked, *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Change a user's main address; their preferences move along. Source: SEMANTICS, Identity, Address change.

    Raise UnknownUserError.
    """
    with transaction(session):
        session.execute(select(User.id).where(User.id == user_id).with_for_update())  # one change at a time
        old = session.execute(
            select(Address.id, Address.canonical)
            .join(UserAddress, UserAddress.address_id == Address.id)
            .where(UserAddress.user_id == user_id, UserAddress.is_main)
        ).first()
        if old is None:
            raise UnknownUserError(f"no user has the number {user_id}")
        if old.canonical == address.canonical:
            _respell(session, old.id, address.spelling)
            return
        session.execute(delete(UserAddress).where(UserAddress.user_id == user_id, UserAddress.address_id == old.id))
        new_id = _find_or_make(session, address)
        new = Mailbox(new_id, address.canonical)
        preference_rows.carry_over(session, Mailbox(old.id, old.canonical), new, actor=actor, now=now)
        give(session, user_id, address, lists=lists)
        forget_unused(session, [old.id])
        username = session.execute(select(User.username).where(User.id == user_id)).scalar_one()
        account_log.record(session, [(user_id, username)], "address changed", actor=actor)
        names.follow(session, user_id, old=old.canonical, new=address.canonical, spelling=address.spelling, actor=actor)
    security_log.log("address changed", user=user_id)


def _respell(session: Session, address_id: int, spelling: str) -> None:
    holders = select(func.count()).select_from(UserAddress).where(UserAddress.address_id == address_id)
    session.execute(
        update(Address).where(Address.id == address_id, holders.scalar_subquery() == 1).values(spelling=spelling)
    )
