"""Members' changes of their own addresses, each confirmed by a mailed link; the old main address can undo them."""

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.errors import BadInputError, DuplicateError, LinkRefusedError
from portal.models import Address, MailedLink, MailRequest, User, UserAddress
from portal.services import outbox, security_log
from portal.services.accounts import address_changes, passwords, sessions
from portal.services.accounts import log as account_log
from portal.services.accounts.address_changes import AddressChange
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.history import Actor
from portal.services.mail import links
from portal.services.outbox import Mail
from portal.services.transaction import reading, transaction

_CONFIRM, _UNDO = frozenset({"confirm"}), frozenset({"undo"})
_LONGEST_CHANGE = 600  # characters of the description of a change in a letter
_LONGEST = 1_200  # characters of the addresses that a link stores


class Who(NamedTuple):
    """The member who makes a change, the token of their session, and the time."""

    actor: Actor
    token: str
    now: datetime

    @property
    def user_id(self) -> int:
        """The id of the account."""
        return self.actor.user_id or 0


def request(session: Session, address: Checked, *, replaces_main: bool, who: Who, place: str) -> None:
    """Mail a link to an address that a member wants to add, or to use instead of the main one.

    The rate limits are those of all links; beyond them nothing is sent, without an error. Raise DuplicateError if it is
    one of the member's addresses already.
    """
    with reading(session):
        held = _held(session, who.user_id)
    if address.canonical in held.spellings:
        raise DuplicateError("%(address)s is already one of your addresses", address=address.spelling)
    details = {"spelling": address.spelling, "wish": "replace" if replaces_main else "add"}
    links.request(session, "confirm", address.spelling, place=place, now=who.now, user_id=who.user_id, details=details)


def unconfirmed(session: Session, user_id: int, *, now: datetime) -> tuple[str, ...]:
    """Return the canonical addresses that a member has asked to add and not confirmed yet."""
    waits = select(MailRequest.mailbox).where(
        MailRequest.user_id == user_id, MailRequest.purpose == "confirm", MailRequest.state.in_(outbox.OPEN)
    )
    sent = select(MailedLink.mailbox).where(
        and_(MailedLink.user_id == user_id, MailedLink.purpose == "confirm"),
        and_(MailedLink.used_at.is_(None), MailedLink.expires_at > now),
    )
    with reading(session):
        return tuple(sorted(set(session.scalars(waits)) | set(session.scalars(sent))))


def is_used_by_others(session: Session, mailbox: str, *, but: int) -> bool:
    """Return True if another active account holds a mailbox."""
    with reading(session):
        return _is_used_by_others(session, mailbox, but=but)


def _is_used_by_others(session: Session, mailbox: str, *, but: int | None) -> bool:
    holds = exists().where(Address.canonical == mailbox, UserAddress.address_id == Address.id)
    return bool(session.scalar(select(holds.where(User.id == UserAddress.user_id, User.is_active, User.id != but))))


def confirm(session: Session, link_token: str, *, who: Who, may_share: bool, lists: Lists) -> str:
    """Use a link to give its address to the member; return the renewed token of their session.

    It works only in a session of the account that requested it, so that the owner of a mistyped address cannot take
    over the account. Raise LinkRefusedError, or SharedMailboxError if another account uses the address, unless
    ``may_share``.
    """
    with transaction(session):
        row = links.find(session, link_token, now=who.now, purposes=_CONFIRM)
        if row.user_id != who.user_id:
            raise LinkRefusedError(links.REFUSAL)
        details = outbox.as_details(row.details)
        address = Checked(row.mailbox, details.get("spelling", row.mailbox))
        change = AddressChange(added=(address,))
        if details.get("wish") == "replace":
            change = AddressChange(main=address, replaces_main=True)
        renewed = _change(session, change, who=who, lists=lists, may_share=may_share)
        links.use_up(session, row, now=who.now)
    security_log.log("address confirmed", user=who.user_id)
    return renewed


def make_main(session: Session, address: str, *, who: Who, lists: Lists) -> str:
    """Make one of a member's canonical addresses the main one; return the renewed token of their session.

    Raise BadInputError.
    """
    with transaction(session):
        held = _held(session, who.user_id)
        if address not in held.spellings:
            raise BadInputError("%(address)s is not an address of this account", address=address)
        change = AddressChange(main=Checked(address, held.spellings[address]))
        renewed = _change(session, change, who=who, lists=lists)
    security_log.log("main address changed", user=who.user_id)
    return renewed


def remove(session: Session, address: str, *, who: Who, lists: Lists) -> str:
    """Remove one of a member's further canonical addresses, as a move to the main one; return the renewed token.

    Raise BadInputError for the main address, or one that is not theirs.
    """
    with transaction(session):
        if address not in _held(session, who.user_id).spellings:
            raise BadInputError("%(address)s is not an address of this account", address=address)
        renewed = _change(session, AddressChange(removed=frozenset({address})), who=who, lists=lists)
    security_log.log("address removed", user=who.user_id)
    return renewed


class HeldAddresses(NamedTuple):
    """The addresses of an account: spellings by canonical form, and the main one."""

    main: str | None
    spellings: Mapping[str, str]


def _held(session: Session, user_id: int) -> HeldAddresses:
    query = select(Address.canonical, Address.spelling, UserAddress.is_main).join(UserAddress)
    rows = session.execute(query.where(UserAddress.user_id == user_id).order_by(Address.canonical)).all()
    return HeldAddresses(next((row[0] for row in rows if row[2]), None), {row[0]: row[1] for row in rows})


def _change(session: Session, change: AddressChange, *, who: Who, lists: Lists, may_share: bool = True) -> str:
    """Change a member's addresses, notify the old main one, and renew the token of the session."""
    session.execute(select(User.id).where(User.id == who.user_id).with_for_update())
    before = _held(session, who.user_id)
    address_changes.change_many(
        session, {who.user_id: change}, actor=who.actor, now=who.now, lists=lists, may_share=may_share
    )
    _notify_old_address(session, before, who=who)
    return sessions.renew_without_password(session, who.token)


def _notify_old_address(session: Session, before: HeldAddresses, *, who: Who) -> None:
    after = _held(session, who.user_id)
    if before.main is not None and before != after:
        details = _remembered(before) | {"change": _as_lines(before, after)}
        outbox.enqueue(session, [Mail(before.main, "undo", who.user_id, details)], now=who.now)


def held_by(session: Session, user_id: int) -> HeldAddresses:
    """Return the addresses of an account, to compare in ``follow_up``."""
    with reading(session):
        return _held(session, user_id)


def follow_up(session: Session, before: HeldAddresses, *, who: Who, sends_mail: bool) -> str:
    """Complete a superuser's change of their own addresses that was made on the page for any user's.

    The old main address gets a link to undo the change. Return the renewed token.
    """
    with transaction(session):
        session.execute(select(User.id).where(User.id == who.user_id).with_for_update())
        if sends_mail:
            _notify_old_address(session, before, who=who)
        return sessions.renew_without_password(session, who.token)


def _remembered(before: HeldAddresses) -> dict[str, str]:
    held = " ".join(sorted(before.spellings.values()))
    main = before.spellings[before.main or ""]
    return {"main": main} | ({"held": held} if len(held) <= _LONGEST else {})


def _as_lines(before: HeldAddresses, after: HeldAddresses) -> str:
    """Return the changes, a line for each, which the letter translates into the recipient's language."""
    lines = [f"added {after.spellings[each]}" for each in after.spellings if each not in before.spellings]
    lines += [f"removed {before.spellings[each]}" for each in before.spellings if each not in after.spellings]
    if after.main is not None and after.main != before.main:
        lines.append(f"main {after.spellings[after.main]}")
    while len("\n".join(lines)) > _LONGEST_CHANGE:
        lines.pop()
    return "\n".join(lines)


def undo(session: Session, link_token: str, *, now: datetime, lists: Lists) -> str:
    """Use a link to restore an account's addresses, ending all its sessions and its password; return the main address.

    The link stays valid if the password changes. Raise LinkRefusedError, also if another active account now holds the
    address.
    """
    with transaction(session):
        row = links.find(session, link_token, now=now, purposes=_UNDO)
        user = session.get(User, row.user_id, with_for_update=True)
        if user is None or _is_used_by_others(session, row.mailbox, but=user.id):
            raise LinkRefusedError(links.REFUSAL)
        links.use_up(session, row, now=now)
        actor = Actor(user.id, user.username)
        change = _back(session, user.id, row.mailbox, outbox.as_details(row.details))
        address_changes.change_many(session, {user.id: change}, actor=actor, now=now, lists=lists)
        user.password_hash = passwords.UNUSABLE
        session.flush()
        sessions.end(session, user.id)
        left_over = and_(MailedLink.user_id == user.id, or_(MailedLink.purpose != "undo", MailedLink.id > row.id))
        session.execute(update(MailedLink).where(left_over, MailedLink.used_at.is_(None)).values(used_at=now))
        account_log.record(session, [(user.id, user.username)], "change of address undone", actor=actor)
        user_id = user.id
    security_log.log("change of address undone", user=user_id)
    return str(row.mailbox)


def _back(session: Session, user_id: int, mailbox: str, details: Mapping[str, str]) -> AddressChange:
    """Return the change that restores the earlier addresses, as far as no other account uses them now."""
    now = _held(session, user_id)
    main = Checked(mailbox, details.get("main", mailbox))
    before = [Checked(canonical(each), each) for each in details.get("held", "").split()] or [main]
    added = tuple(
        each
        for each in before
        if each.canonical not in {*now.spellings, mailbox}
        and not _is_used_by_others(session, each.canonical, but=user_id)
    )
    kept = {each.canonical for each in before} | {mailbox}
    removed = frozenset(now.spellings) - kept if "held" in details else frozenset({now.main or mailbox}) - kept
    return AddressChange(main=main, added=added, removed=removed)
