"""Accounts: create, change, activate, deactivate and delete them, and grant or revoke the superuser role."""

import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, insert, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal import database
from portal.database import BulkInsert
from portal.domain import usernames
from portal.domain.address import printable
from portal.domain.search_text import search_key
from portal.errors import (
    BadInputError,
    DuplicateError,
)
from portal.models import Address, Run, User, UserAddress, UserGroup
from portal.services import history, security_log
from portal.services.accounts import (
    address_changes,
    addresses,
    api_keys,
    deleted_keys,
    names,
    passwords,
    profiles,
    sessions,
)
from portal.services.accounts import log as account_log
from portal.services.accounts.address_changes import AddressChange
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.accounts.profiles import Details, Profile
from portal.services.history import COMMAND_LINE, Actor
from portal.services.transaction import transaction

_LONGEST_GROUP = 64  # characters
_LONGEST_NAME = 120
_BLOCK = 1_000  # accounts inserted at once
_NEW = BulkInsert(User)


class Edited(NamedTuple):
    """The outcome of saving a form: the ``stale`` fields, which were left alone, and the account before it."""

    stale: frozenset[str]
    found: Details


def checked_name(text: str) -> str:
    """Return a person's name as it is stored: trimmed and in NFC. Raise BadInputError."""
    name = unicodedata.normalize("NFC", text.strip())
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInputError(
            "not a valid name: %(text)s (at most %(longest_name)s printable characters)",
            text=repr(printable(text)),
            longest_name=_LONGEST_NAME,
        )
    return name


def checked_groups(texts: Iterable[str]) -> tuple[str, ...]:
    """Return group names as they are stored and compared: trimmed, in NFC, sorted, each once. Raise BadInputError."""
    found = {unicodedata.normalize("NFC", text.strip()): text for text in texts}
    for name, text in found.items():
        if not 0 < len(name) <= _LONGEST_GROUP or not name.isprintable() or ";" in name:
            raise BadInputError(
                "not a valid group name: %(text)s (1 to %(longest_group)s printable characters, no semicolon)",
                text=repr(printable(text)),
                longest_group=_LONGEST_GROUP,
            )
    return tuple(sorted(found))


def create(
    session: Session,
    *,
    username: str,
    address: Checked,
    now: datetime,
    rounds: int,
    lists: Lists,
    password: str | None = None,
    name: str = "",
    is_superuser: bool = False,
    groups: Iterable[str] = (),
    actor: Actor = COMMAND_LINE,
) -> int:
    """Create an account with a main address and return its id. Without a password nobody can log in with one yet.

    Raise BadInputError, WeakPasswordError or DuplicateError.
    """
    username, name = usernames.checked(username, own=[address.canonical]), checked_name(name)
    group_names = checked_groups(groups)
    stored = passwords.UNUSABLE
    if password is not None:
        passwords.check_strength(password, own=[username, name, address.spelling])
        stored = passwords.hash_password(password, rounds=rounds)
    values = {"username": username, "name": name, "password_hash": stored, "is_superuser": is_superuser}
    with transaction(session):
        (user_id,) = insert_accounts(session, [values], now=now).values()
        _put_into(session, user_id, group_names)
        addresses.give(session, user_id, address, actor=actor, now=now, lists=lists)
        made = "made, a superuser" if is_superuser else "made"
        account_log.record(session, [(user_id, username)], made, actor=actor)
    security_log.log("user made", user=user_id)
    if is_superuser:
        security_log.log("role granted", user=user_id)
    return user_id


def insert_accounts(session: Session, accounts: Iterable[Mapping[str, Any]], *, now: datetime) -> dict[str, int]:
    """Insert accounts in the caller's transaction and return their ids by ``username_key``.

    Each has ``username``, ``name``, ``password_hash`` and ``is_superuser``, already checked. Raise DuplicateError.
    """
    ids: dict[str, int] = {}
    for block in database.chunked(accounts, _BLOCK):
        rows = [
            {
                **each,
                "username_key": usernames.key(each["username"]),
                "search_key": search_key(each["name"], each["username"]),
            }
            for each in block
        ]
        named = {row["username_key"]: row["username"] for row in rows}
        of_these = select(User.username_key, User.id).where(User.username_key.in_(named))
        for taken, _ in session.execute(of_these.limit(1)):
            raise DuplicateError("the username %(taken)s is already taken", taken=named[taken])
        try:
            _NEW.execute(session, rows, is_active=True, created_at=now)
        except IntegrityError:
            raise DuplicateError("someone else has just been given one of these usernames or member keys") from None
        ids.update((key, user_id) for key, user_id in session.execute(of_these))
    return ids


def choose_language(session: Session, user_id: int, language: str | None) -> None:
    """Set the language of a user's pages and letters.

    None: pages follow the browser, and letters are in the first of the portal's languages.
    """
    with transaction(session):
        session.execute(update(User).where(User.id == user_id).values(language=language))


def rename(session: Session, username: str, *, to: str, actor: Actor = COMMAND_LINE) -> str:
    """Change the username of a user and return the new one as it is stored.

    Raise UnknownUserError, BadInputError, or DuplicateError if another user has it.
    """
    with transaction(session):
        user = _row(session, username)
        held = select(Address.canonical).join(UserAddress, UserAddress.address_id == Address.id)
        own = session.scalars(held.where(UserAddress.user_id == user.id)).all()
        renamed, user_id = usernames.checked(to, own=own), user.id
        if not names.give(session, user, renamed, actor=actor):
            raise DuplicateError("the username %(renamed)s is already taken", renamed=renamed)
    security_log.log("user renamed", user=user_id)
    return renamed


def _write_name(session: Session, user: User, name: str, *, actor: Actor) -> None:
    _record(session, user, "name changed", actor=actor, old=user.name, new=name)
    user.name, user.search_key = name, search_key(name, user.username)


def set_groups(
    session: Session, username: str, *, groups: Iterable[str], now: datetime, lists: Lists, actor: Actor = COMMAND_LINE
) -> None:
    """Make a user a member of exactly these groups. Raise UnknownUserError or BadInputError."""
    group_names = checked_groups(groups)
    with transaction(session):
        user_id = _write_groups(session, _row(session, username), group_names, actor=actor, now=now, lists=lists)
    security_log.log("groups changed", user=user_id)


def _write_groups(
    session: Session, user: User, groups: Sequence[str], *, actor: Actor, now: datetime, lists: Lists
) -> int:
    before = sorted(session.scalars(select(UserGroup.name).where(UserGroup.user_id == user.id)))
    left = UserGroup.user_id == user.id, UserGroup.name.not_in(groups)
    session.execute(delete_from(UserGroup).where(*left))  # rows of groups that stay keep who gave them
    _put_into(session, user.id, [each for each in groups if each not in before])
    addresses.admit(session, [user.id], actor=actor, now=now, lists=lists)
    _record(session, user, "groups changed", actor=actor, old="; ".join(before), new="; ".join(groups))
    return user.id


def edit(
    session: Session,
    user_id: int,
    *,
    shown: Details,
    wanted: Details,
    address: Checked,
    actor: Actor,
    now: datetime,
    lists: Lists,
    may_share: bool = True,
) -> Edited:
    """Write the fields that differ from what a form showed, in one transaction.

    A field that somebody else has changed to another value meanwhile is left alone. ``address`` is the wanted main
    address, checked; with ``may_share`` another account may hold it. Raise UnknownUserError, SharedMailboxError or
    BadInputError.
    """
    wanted = Details(checked_name(wanted.name), address.spelling, checked_groups(wanted.groups))
    with transaction(session):
        user = session.scalars(select(User).where(User.id == user_id).with_for_update()).one_or_none()
        if user is None:
            raise profiles.unknown_id(user_id)
        (found,) = profiles.find(session, User.id == user_id)
        written, stale = _changes(shown, wanted, found.details)
        if "email" in written:
            moved = {user_id: AddressChange(address, replaces_main=True)}
            address_changes.change_many(session, moved, actor=actor, now=now, lists=lists, may_share=may_share)
        if "name" in written:
            _write_name(session, user, wanted.name, actor=actor)
        if "groups" in written:
            _write_groups(session, user, wanted.groups, actor=actor, now=now, lists=lists)
    for field in sorted(written):
        security_log.log(f"{'address' if field == 'email' else field} changed", user=user_id)
    return Edited(stale, found.details)


def _changes(shown: Details, wanted: Details, found: Details) -> tuple[frozenset[str], frozenset[str]]:
    """Return the fields to write, and the stale ones: changed by somebody else since the form was shown."""
    changed = {
        name
        for name in Details._fields
        if getattr(wanted, name) not in {getattr(each, name) for each in (shown, found)}
    }
    stale = frozenset(name for name in changed if getattr(found, name) != getattr(shown, name))
    return frozenset(changed) - stale, stale


def activate(
    session: Session,
    username: str,
    *,
    now: datetime,
    lists: Lists,
    actor: Actor = COMMAND_LINE,
    as_of: int | None = None,
) -> None:
    """Activate an account: the user can log in and their addresses are managed again.

    ``as_of``, here and below, is the last change of the account that the actor has seen. Raise UnknownUserError or
    ChangedMeanwhileError.
    """
    with transaction(session):
        user = _row(session, username, as_of=as_of)
        user_id = user.id
        addresses.activate(session, [user_id], actor=actor, now=now, lists=lists)
        _record(session, user, "activated", actor=actor)
    security_log.log("user activated", user=user_id)


def deactivate(
    session: Session, username: str, *, now: datetime, actor: Actor = COMMAND_LINE, as_of: int | None = None
) -> None:
    """Deactivate an account and end the user's sessions.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError for the last superuser.
    """
    with transaction(session):
        user = row_unless_last_superuser(session, username, as_of=as_of)
        addresses.deactivate(session, [user.id], actor=actor, now=now)
        user.is_active, user.deactivated_by_import, user_id = False, False, user.id
        session.flush()
        sessions.end(session, user.id)
        _record(session, user, "deactivated", actor=actor)
    security_log.log("user deactivated", user=user_id)


def delete(
    session: Session,
    username: str,
    *,
    erase: bool,
    now: datetime,
    lists: Lists,
    actor: Actor = COMMAND_LINE,
    as_of: int | None = None,
    secret: bytes | None = None,
) -> Profile:
    """Delete an account with its sessions, release its addresses, and return its last profile.

    With ``erase``, addresses that no other account holds are unsubscribed, and all traces of them are removed once no
    roster contains them; otherwise preferences and history stay. The member key is remembered as an HMAC with
    ``secret`` as its key, so that no import creates the account again. Raise UnknownUserError, ChangedMeanwhileError,
    or BadInputError for the last superuser.
    """
    with transaction(session):
        user = row_unless_last_superuser(session, username, as_of=as_of)
        if user.member_key is not None:
            if secret is None:
                raise ValueError("the key of a linked account is remembered by its HMAC, which needs a secret")
            deleted_keys.remember(session, user.member_key, erase=erase, secret=secret, now=now)
        gone = _delete(session, user, erase=erase, actor=actor, now=now, lists=lists)
    security_log.log("user deleted", user=gone.id)
    return gone


def delete_leaver(session: Session, user_id: int, *, now: datetime, lists: Lists, actor: Actor) -> Profile | None:
    """Delete an account that an import has deactivated; return its last profile, or None if it no longer is one.

    Its member key is not remembered: if the person becomes a member again, an import creates an account again.
    """
    with transaction(session):
        user = session.scalars(select(User).where(User.id == user_id).with_for_update()).one_or_none()
        if user is None or user.is_active or user.is_superuser or not user.deactivated_by_import:
            return None
        gone = _delete(session, user, erase=False, actor=actor, now=now, lists=lists)
    security_log.log("user deleted", user=user_id)
    return gone


def _delete(session: Session, user: User, *, erase: bool, actor: Actor, now: datetime, lists: Lists) -> Profile:
    (gone,) = profiles.find(session, User.id == user.id)
    addresses.release(session, user.id, erase=erase, actor=actor, now=now, lists=lists)
    _record(session, user, "deleted", actor=actor)
    if erase:
        _forget_name(session, gone.id, account_log.forget_name(session, gone.id))
        deleted_keys.forget_account(session, gone.id)
    session.execute(delete_from(User).where(User.id == gone.id))  # sessions and groups go with the row
    return gone


def _forget_name(session: Session, user_id: int, usernames_so_far: Iterable[str]) -> None:
    """Replace the username by "user NUMBER" in history and runs if one of the usernames was an address."""
    if any("@" in each for each in usernames_so_far):
        name = f"user {user_id}"
        history.forget_actor(session, user_id, name=name)
        session.execute(update(Run).where(Run.asked_by_id == user_id).values(asked_by=name))


def grant(session: Session, username: str, *, actor: Actor = COMMAND_LINE, as_of: int | None = None) -> None:
    """Make a user a superuser; sessions of "stay logged in" end within a day.

    Raise UnknownUserError or ChangedMeanwhileError.
    """
    with transaction(session):
        user = _row(session, username, as_of=as_of)
        user.is_superuser, user_id = True, user.id
        _record(session, user, "made a superuser", actor=actor)
    security_log.log("role granted", user=user_id)


def revoke(
    session: Session, username: str, *, now: datetime, actor: Actor = COMMAND_LINE, as_of: int | None = None
) -> int:
    """Revoke the superuser role and all API keys of the user; return how many keys were revoked.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError for the last superuser.
    """
    with transaction(session):
        user = row_unless_last_superuser(session, username, as_of=as_of)
        user.is_superuser, user_id = False, user.id
        ended = api_keys.end(session, user_id, now=now)
        _record(session, user, "no longer a superuser", actor=actor)
    security_log.log("role revoked", user=user_id)
    for key_id in ended:
        security_log.log("key revoked", api_key=key_id, user=user_id)
    return len(ended)


def _record(session: Session, user: User, what: str, *, actor: Actor, old: str = "", new: str = "") -> None:
    account_log.record(session, [(user.id, user.username)], what, actor=actor, old=old, new=new)


def _row(session: Session, username: str, *, as_of: int | None = None) -> User:
    """Return a user's row, locked until the transaction ends. Raise UnknownUserError or ChangedMeanwhileError."""
    user = names.locked(session, username)
    account_log.require_unchanged(session, user.id, since=as_of)
    return user


def row_unless_last_superuser(session: Session, username: str, *, as_of: int | None) -> User:
    """Return the locked row of a user who may be deactivated, deleted or demoted, in the caller's transaction.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError for the last active superuser.
    """
    superusers = lock_with_superusers(session, [names.key(username)])
    user = _row(session, username, as_of=as_of)
    if superusers == [user.id]:
        raise BadInputError(
            "%(username)s is the last active superuser; make someone else a superuser first", username=user.username
        )
    return user


def lock_with_superusers(session: Session, keys: Collection[str]) -> list[int]:
    """Lock users, named by the keys of their usernames, and all active superusers; return the ids of the superusers.

    This keeps two superusers from leaving at the same time. One statement locks them all in the order of their ids, as
    everywhere: two statements could deadlock with another transaction.
    """
    is_superuser = and_(User.is_superuser, User.is_active)
    rows = select(User.id, is_superuser.label("is_superuser")).where(or_(is_superuser, User.username_key.in_(keys)))
    found = session.execute(rows.order_by(User.id).with_for_update()).all()
    return [row.id for row in found if row.is_superuser]


def _put_into(session: Session, user_id: int, groups: Sequence[str]) -> None:
    if groups:
        session.execute(insert(UserGroup), [{"user_id": user_id, "name": name} for name in groups])
