"""Addresses: who holds which, what a change of address does, and when one is forgotten."""

import re
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, delete, exists, false, func, not_, or_, select, true, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import canonical, printable
from portal.domain.mailinglist import MailingList
from portal.domain.moves import Move
from portal.errors import InvalidAddressError, UnknownUserError
from portal.models import (
    AccountChange,
    Address,
    History,
    MailedLink,
    MailRequest,
    Preference,
    Run,
    RunLine,
    User,
    UserAddress,
    UserGroup,
)
from portal.services import history, outbox, preference_rows, security_log
from portal.services.accounts import log as account_log
from portal.services.accounts import moves, names
from portal.services.history import Actor
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
    goes = or_(not_(Preference.subscribed), Preference.moved_to.is_not(None))
    return left if mailing_list.remove_on_departure else and_(left, goes)


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


def give(session: Session, user_id: int, address: Checked, *, actor: Actor, now: datetime, lists: Lists) -> int:
    """Let a user hold an address as the main one; return the address's id.

    Whatever was remembered of a departure is over, and what somebody who is gone left there does not work for the user.
    """
    address_id = _find_or_make(session, [address])[address.canonical]
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


def _find_or_make(session: Session, wanted: Sequence[Checked], *, others: Collection[int] = ()) -> dict[str, int]:
    """Return the ids of addresses by canonical form. They and some others are locked, in one order.

    So nobody forgets them before the transaction ends, and what is decided about them stays true.
    """
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
        address_id = _find_or_make(session, [Checked(address, address)])[address]
        _note_let_go(session, [address_id], now=now)
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


def _note_let_go(session: Session, address_ids: Collection[int], *, now: datetime) -> None:
    unheld = and_(Address.id.in_(sorted(address_ids)), not_(is_held().correlate(Address)))
    session.execute(update(Address).where(unheld).values(let_go_at=now))


def _held_by(session: Session, user_id: int) -> list[int]:
    """Return the ids of a user's addresses, which are locked."""
    held = session.scalars(select(UserAddress.address_id).where(UserAddress.user_id == user_id)).all()
    moves.lock(session, held)
    return list(held)


def deactivate(session: Session, user_id: int, *, actor: Actor, now: datetime) -> None:
    """Remember an account as the last to leave its addresses, just before it is deactivated."""
    moves.leave(session, user_id, _held_by(session, user_id), actor=actor, now=now)


def activate(session: Session, user_id: int, *, actor: Actor, now: datetime) -> None:
    """Restore what an account left at its addresses, just before it is activated."""
    moves.return_to(session, user_id, _held_by(session, user_id), actor=actor, now=now)


def release(session: Session, user_id: int, *, erase: bool, actor: Actor, now: datetime, lists: Lists) -> None:
    """Take a user's addresses away, just before the account is deleted.

    ``erase`` unsubscribes those that nobody else holds, everywhere, and marks them: their traces go once no roster
    holds them.
    """
    held = _held_by(session, user_id)
    origins = session.scalars(select(UserAddress.moved_from).where(UserAddress.user_id == user_id)).all()
    is_active = bool(session.scalar(select(User.is_active).where(User.id == user_id)))
    moves.carry_out(session, [Move(user_id, each, None, is_active) for each in held], actor=actor, now=now)
    session.execute(delete(UserAddress).where(UserAddress.user_id == user_id))
    _note_let_go(session, held, now=now)
    if erase:
        left = select(Preference.address_id).where(Preference.left_by == user_id).distinct()
        held += session.scalars(left).all()
        _erase_unheld(session, held, actor=actor, now=now, lists=lists)
    forget_unused(session, [*held, *(each for each in origins if each is not None)])


def _erase_unheld(session: Session, address_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Unsubscribe addresses that nobody holds, and mark them to be erased."""
    unheld = and_(Address.id.in_(address_ids), not_(is_held().correlate(Address)))
    marked = session.scalars(update(Address).where(unheld).values(erase=True).returning(Address.id)).all()
    if lists is not None:  # of a list that left the catalogue nobody reads the roster any more
        preference_rows.purge_gone_lists(session, marked, handles=lists)
    wanted = session.execute(
        select(Preference.list_handle, Address.id, Address.canonical)
        .join(Address, Address.id == Preference.address_id)
        .where(Address.id.in_(marked), Preference.subscribed)
    )
    changes = [history.Change(handle, number, name, False, "rule") for handle, number, name in wanted]
    preference_rows.write_choices(session, changes, actor=actor, now=now)
    preference_rows.clear_departures(session, marked, where=true())


def forget_unused(session: Session, address_ids: Sequence[int]) -> None:
    """Delete those of some addresses that nobody holds, moved from, or has a preference for.

    One that is locked is about to be held again: it is passed over.
    """
    unused = and_(
        not_(is_held().correlate(Address)),
        not_(exists().where(Preference.address_id == Address.id).correlate(Address)),
        not_(exists().where(UserAddress.moved_from == Address.id).correlate(Address)),  # somebody may go back there
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
    outbox.forget_address(session, address.canonical)
    session.execute(
        update(RunLine).where(RunLine.address == address.canonical).values(address=name, spelling=name, words="")
    )
    # Whole addresses only: the end of a longer one is somebody else's.
    either = "|".join(map(re.escape, address))
    quoted = re.compile(rf"(?<!\w)(?<!\w[.+-])(?:{either})(?![\w-]|\.\w)", re.IGNORECASE)
    for column in (
        History.reason,
        Preference.refusal,
        Run.message,
        RunLine.words,
        AccountChange.old,
        AccountChange.new,
        MailRequest.details,
        MailRequest.message,
        MailedLink.details,
    ):
        quoting = or_(*(column.icontains(each, autoescape=True) for each in address))
        for text in session.scalars(select(column).where(quoting).distinct()).all():
            erased = quoted.sub(name, text or "")[: column.type.length]
            session.execute(update(column.class_).where(column == text).values({column.key: erased}))


def move_all(
    session: Session, wanted: Mapping[int, Checked], *, actor: Actor, now: datetime, lists: Lists
) -> Collection[int]:
    """Change the main addresses of users at once: all let go of theirs, then all take. Return who has another mailbox.

    Their preferences move along. Source: SEMANTICS, Identity, A move. Raise UnknownUserError.
    """
    mains = _mains(session, wanted)
    for user_id, main in mains.items():
        if main.canonical == wanted[user_id].canonical:
            _respell(session, main.address_id, wanted[user_id].spelling)
    changed = {user_id: main for user_id, main in mains.items() if main.canonical != wanted[user_id].canonical}
    if changed:
        _move(session, changed, wanted, actor=actor, now=now, lists=lists)
    for user_id, main in changed.items():
        new, account = wanted[user_id], (user_id, main.username)
        account_log.record(session, [account], "address changed", actor=actor, old=main.spelling, new=new.spelling)
        names.follow(session, user_id, old=main.canonical, new=new.canonical, spelling=new.spelling, actor=actor)
    return changed


class _Main(NamedTuple):
    """A user's main address; ``moved_from`` is the address that they moved there from."""

    username: str
    is_active: bool
    address_id: int
    canonical: str
    spelling: str
    moved_from: int | None


def _mains(session: Session, user_ids: Collection[int]) -> dict[int, _Main]:
    """Return the main addresses of users, whose rows are locked: one change at a time. Raise UnknownUserError."""
    session.execute(select(User.id).where(User.id.in_(user_ids)).order_by(User.id).with_for_update())
    rows = session.execute(
        select(User.id, User.username, User.is_active, Address.id, Address.canonical, Address.spelling)
        .add_columns(UserAddress.moved_from)
        .join(UserAddress, UserAddress.user_id == User.id)
        .join(Address, Address.id == UserAddress.address_id)
        .where(User.id.in_(user_ids), UserAddress.is_main)
    )
    found = {row[0]: _Main(*row[1:]) for row in rows}
    for user_id in user_ids:
        if user_id not in found:
            raise UnknownUserError(f"no user has the number {user_id}")
    return found


def _move(
    session: Session,
    changed: Mapping[int, _Main],
    wanted: Mapping[int, Checked],
    *,
    actor: Actor,
    now: datetime,
    lists: Lists,
) -> None:
    olds = {main.address_id for main in changed.values()}
    ids = _find_or_make(session, [wanted[user_id] for user_id in changed], others=olds)
    new = {user_id: ids[wanted[user_id].canonical] for user_id in changed}
    those = [
        Move(user_id, main.address_id, new[user_id], main.is_active, is_return=main.moved_from == new[user_id])
        for user_id, main in changed.items()
    ]
    clear_departures_of(session, sorted(olds), lists=lists)  # where they were managed until now, they have to go
    returning = moves.carry_out(session, those, actor=actor, now=now)
    for each in those:
        session.execute(
            delete(UserAddress).where(UserAddress.user_id == each.account, UserAddress.address_id == each.old)
        )
    shared = _held_by_active(session, new.values())
    for each in those:
        moved = {"moved_in_at": now, "moved_from": each.old, "is_guest": each.new in shared}
        _hold(session, each.account, new[each.account], **({} if each.account in returning else moved))
    _note_let_go(session, olds, now=now)
    clear_departures_of(session, sorted(new.values()), lists=lists)
    origins = {main.moved_from for main in changed.values() if main.moved_from is not None}
    forget_unused(session, sorted(olds | origins))


def _held_by_active(session: Session, address_ids: Collection[int]) -> set[int]:
    """Return those of some addresses that an active account holds."""
    active = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    return set(session.scalars(active.where(UserAddress.address_id.in_(address_ids))))


def _respell(session: Session, address_id: int, spelling: str) -> None:
    holders = select(func.count()).select_from(UserAddress).where(UserAddress.address_id == address_id)
    session.execute(
        update(Address).where(Address.id == address_id, holders.scalar_subquery() == 1).values(spelling=spelling)
    )


def change(session: Session, user_id: int, address: Checked, *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Change a user's main address, as ``move_all`` does, in a transaction of its own. Raise UnknownUserError."""
    change_all(session, {user_id: address}, actor=actor, now=now, lists=lists)


def change_all(session: Session, wanted: Mapping[int, Checked], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Change the main addresses of users, as ``move_all`` does, in one transaction. Raise UnknownUserError."""
    with transaction(session):
        changed = move_all(session, wanted, actor=actor, now=now, lists=lists)
    for user_id in changed:
        security_log.log("address changed", user=user_id)
