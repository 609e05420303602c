"""List passwords: derived for the list manager's subscribers, never stored, and unrelated to portal passwords.

Source: docs/list-passwords.md.
"""

import hashlib
import hmac
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Protocol, TypeGuard

from sqlalchemy import and_, exists, or_, select, update
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.errors import BadInputError, InvalidAddressError
from portal.listmanagers.base import ListManager, Result, TakesPasswords
from portal.models import Address, Preference, UserAddress
from portal.services import preference_rows
from portal.services.accounts.addresses import is_managed
from portal.services.sync import leases
from portal.services.sync.leases import HeldLease
from portal.services.transaction import reading, transaction

LENGTH = 20
# 32 letters carry five bits each, so 20 of them are 100 bits. None is special to a shell or a list manager, and no two
# look alike when copied by hand.
ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_LABEL = b"list password 1"  # anything else derived from the key needs another label


class Mailbox(NamedTuple):
    """An address of a user; ``is_shared``: another account holds it and sees the same list password."""

    address_id: int
    spelling: str
    is_shared: bool


class PasswordPush(NamedTuple):
    """The addresses whose password was set, and those that the list manager refused, with its messages."""

    done: tuple[str, ...]
    refused: tuple[tuple[str, str], ...]


class PasswordManager(ListManager, TakesPasswords, Protocol):
    """A list manager that keeps passwords."""


def derive(key: bytes, canonical_address: str, version: int) -> str:
    """Return the list password of an address: 20 letters of ALPHABET from HMAC-SHA-256."""
    message = b"\0".join([_LABEL, str(version).encode(), canonical_address.encode()])
    number = int.from_bytes(hmac.digest(key, message, hashlib.sha256))
    return "".join(ALPHABET[number >> 5 * place & 31] for place in range(LENGTH))


def pending(
    session: Session, mailing_list: MailingList, *, key: bytes, everyone: bool = False
) -> Iterator[tuple[str, str]]:
    """Yield the spelling and the list password of addresses whose password must be set, by canonical address.

    They are managed, subscribed and seen on, and this version of the password has not been set before, unless
    ``everyone``. A read transaction stays open until the last one is consumed.
    """
    query = _due(session, mailing_list, everyone=everyone)
    with reading(session):
        for block in database.stream(session.connection(), query):
            for address, spelling, version in block:
                yield spelling, derive(key, address, version)


def _due(session: Session, mailing_list: MailingList, *, everyone: bool) -> Any:
    """Return the query for canonical form, spelling and password version of the addresses that are due."""
    query = (
        select(Address.canonical, Address.spelling, Address.password_version)
        .join(Preference, and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id))
        .where(Preference.subscribed, Preference.seen.is_(True), is_managed(mailing_list))
        .order_by(Address.canonical.collate(database.code_points(session)))
    )
    if everyone:
        return query
    return query.where(
        or_(Preference.password_pushed.is_(None), Preference.password_pushed != Address.password_version)
    )


def confirm(session: Session, mailing_list: MailingList, pairs: Iterable[tuple[str, str]], *, key: bytes) -> int:
    """Mark passwords as set, in chunks; return how many were.

    Only current passwords count: one replaced in the meantime must be set again. Lines that are not addresses, and
    addresses without a preference for the list, are skipped.
    """
    confirmed = 0
    for chunk in database.written_in_chunks(session, pairs):
        given = {address: password for spelling, password in chunk if (address := _canonical(spelling))}
        with transaction(session):
            versions = {
                address_id: version
                for address_id, address, version in session.execute(_versions(mailing_list, given))
                if hmac.compare_digest(derive(key, address, version).encode(), _bytes(given[address]))
            }
            preference_rows.mark_passwords(session, mailing_list.handle, versions)
        confirmed += len(versions)
    return confirmed


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _canonical(spelling: str) -> str:
    try:
        return canonical(spelling)
    except InvalidAddressError:
        return ""


def _versions(mailing_list: MailingList, addresses: Iterable[str]) -> Any:
    """Return id, canonical form and password version of addresses, in the order in which rows are locked."""
    return (
        select(Address.id, Address.canonical, Address.password_version)
        .join(Preference, and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id))
        .where(Address.canonical.in_(sorted(addresses)))
        .order_by(Address.id)
    )


def takes(manager: ListManager, mailing_list: MailingList) -> TypeGuard[PasswordManager]:
    """Return True if a list manager keeps passwords and the list's ``syncpws`` is not false."""
    return mailing_list.sync_passwords and isinstance(manager, TakesPasswords)


def why_none(mailing_list: MailingList) -> str:
    """Return the reason, in words, that a list does not take passwords."""
    if not mailing_list.sync_passwords:
        return "syncpws = false in mailinglists.toml, so no passwords are set"
    return "this kind of list manager has no list passwords, so none are set"


def preview(
    session: Session, mailing_list: MailingList, manager: PasswordManager, *, key: bytes, everyone: bool = False
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the calls that a push would make, without passwords, and the addresses that they are for."""
    addresses = tuple(spelling for spelling, _ in pending(session, mailing_list, key=key, everyone=everyone))
    return (manager.password_call(),) * -(-len(addresses) // manager.batch), addresses


def push(
    session: Session, mailing_list: MailingList, manager: PasswordManager, *, key: bytes, everyone: bool = False
) -> PasswordPush:
    """Set the pending list passwords a batch at a time, and mark those that were set.

    No transaction is open while the list manager is called. Raise LeaseHeldError, PausedError,
    ListManagerUnavailableError or NoSuchListError; no password of the failed call is marked.
    """
    mailing_list.require_running()
    done: list[str] = []
    refused: list[tuple[str, str]] = []
    with _one_at_a_time(session, mailing_list.handle) as lease:
        waiting = list(pending(session, mailing_list, key=key, everyone=everyone))
        for batch in database.chunked(waiting, manager.batch):
            if lease is not None:
                leases.renew(session, lease, seconds=manager.timeout(len(batch)))
            outcomes = manager.set_passwords(batch)
            taken = [pair for pair in batch if outcomes[pair[0]].result is Result.DONE]
            confirm(session, mailing_list, taken, key=key)
            done += [spelling for spelling, _ in taken]
            refused += [
                (spelling, outcomes[spelling].words)
                for spelling, _ in batch
                if outcomes[spelling].result is not Result.DONE
            ]
    return PasswordPush(tuple(done), tuple(refused))


@contextmanager
def _one_at_a_time(session: Session, handle: str) -> Iterator[HeldLease | None]:
    """Hold a list's lease, unless a planned run has it: passwords are a step of its script.

    A planned run's lease lasts an hour; it is neither renewed, which would shorten it, nor released. Raise
    LeaseHeldError.
    """
    with reading(session):
        is_planned = leases.of_planned_run(session, handle) is not None
    if is_planned:
        yield None
        return
    with leases.held(session, handle) as lease:
        yield lease


def mailboxes(session: Session, user_id: int) -> tuple[Mailbox, ...]:
    """Return the addresses of a user, the main one first; each has a list password."""
    other = aliased(UserAddress)
    shared = exists().where(other.address_id == Address.id, other.user_id != user_id)
    query = (
        select(Address.id, Address.spelling, shared.correlate(Address))
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id)
        .order_by(UserAddress.is_main.desc(), Address.id)
    )
    with reading(session):
        return tuple(Mailbox(*row) for row in session.execute(query))


def show_password(session: Session, user_id: int, address_id: int, *, key: bytes) -> str:
    """Return the list password of one of a user's addresses. Raise BadInputError if the address is not theirs."""
    with reading(session):
        return _derived(session.execute(_own(user_id, address_id)).one_or_none(), key)


def replace_password(session: Session, user_id: int, address_id: int, *, key: bytes) -> str:
    """Replace the list password of one of a user's addresses and return it; the next password-sync sets it.

    Raise BadInputError if the address is not theirs.
    """
    own = _own(user_id, address_id).with_only_columns(Address.id).scalar_subquery()
    with transaction(session):
        found = session.execute(
            update(Address)
            .where(Address.id == own)
            .values(password_version=Address.password_version + 1)
            .returning(Address.canonical, Address.password_version)
        ).one_or_none()
    return _derived(found, key)


def _derived(found: Any, key: bytes) -> str:
    if found is None:
        raise BadInputError("that is not one of your addresses")
    return derive(key, found.canonical, found.password_version)


def _own(user_id: int, address_id: int) -> Any:
    return (
        select(Address.canonical, Address.password_version)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == user_id, Address.id == address_id)
    )
