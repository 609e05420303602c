"""Accounts: made, looked up, changed, deactivated and deleted."""

import unicodedata
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, insert, or_, select, update
from sqlalchemy import delete as delete_from
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain import usernames
from portal.domain.address import canonical, printable
from portal.domain.search_text import search_key
from portal.errors import (
    BadInputError,
    DuplicateError,
    InvalidAddressError,
    LogInFailedError,
    UnknownUserError,
    WrongPasswordError,
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
    rate_limits,
    sessions,
)
from portal.services.accounts import log as account_log
from portal.services.accounts.address_changes import AddressChange
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.history import COMMAND_LINE, Actor
from portal.services.transaction import reading, transaction

_LONGEST_GROUP = 64  # characters
_LONGEST_NAME = 120
_BLOCK = 1_000  # accounts read at once


class Details(NamedTuple):
    """What a form changes of an account: name, main address as spelled, and groups as they are stored."""

    name: str
    email: str
    groups: tuple[str, ...]


class Edited(NamedTuple):
    """What became of a form: the fields that were ``stale``, and left alone, and what was found before the save."""

    stale: frozenset[str]
    found: Details


class Profile(NamedTuple):
    """An account as it is shown. Addresses are as spelled, the main one, ``email``, first.

    ``member_key`` is None for a local account. ``deactivated_by_import``: and by nobody since.
    """

    id: int
    username: str
    name: str
    email: str
    addresses: tuple[str, ...]
    groups: tuple[str, ...]
    is_superuser: bool
    is_active: bool
    created_at: datetime
    last_login_at: datetime | None
    member_key: str | None
    deactivated_by_import: bool

    @property
    def details(self) -> Details:
        """Return what a form changes."""
        return Details(self.name, self.email, self.groups)


def checked_name(text: str) -> str:
    """Return a person's name as it is stored: trimmed, in NFC. Raise BadInputError."""
    name = unicodedata.normalize("NFC", text.strip())
    if len(name) > _LONGEST_NAME or not name.isprintable():
        raise BadInputError(
            "not a name: %(text)s (at most %(longest_name)s printable characters)",
            text=repr(printable(text)),
            longest_name=_LONGEST_NAME,
        )
    return name


def checked_groups(texts: Iterable[str]) -> tuple[str, ...]:
    """Return names of groups as they are stored and compared: trimmed, in NFC, each once. Raise BadInputError."""
    found = {unicodedata.normalize("NFC", text.strip()): text for text in texts}
    for name, text in found.items():
        if not 0 < len(name) <= _LONGEST_GROUP or not name.isprintable() or ";" in name:
            raise BadInputError(
                "not a group: %(text)s (1 to %(longest_group)s printable characters, no semicolon)",
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
    """Make an account that holds an address; return its id. Without a password nobody can log in to it yet.

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
    """Insert accounts in the caller's transaction; return their ids by ``username_key``.

    Each has ``username``, ``name``, ``password_hash`` and ``is_superuser``, all of them checked. Raise DuplicateError.
    """
    table: Any = User.__table__  # tables, not classes, where there are many rows
    ids: dict[str, int] = {}
    for block in database.chunked(accounts, _BLOCK):
        rows = [
            {
                **each,
                "username_key": usernames.key(each["username"]),
                "search_key": search_key(each["name"], each["username"]),
                "is_active": True,
                "created_at": now,
            }
            for each in block
        ]
        named = {row["username_key"]: row["username"] for row in rows}
        of_these = select(table.c.username_key, table.c.id).where(table.c.username_key.in_(named))
        for taken, _ in session.execute(of_these.limit(1)):
            raise DuplicateError("the username %(taken)s is taken already", taken=named[taken])
        try:
            session.execute(insert(table), rows)
        except IntegrityError:
            raise DuplicateError("somebody else has just been given one of these usernames or member keys") from None
        ids.update((key, user_id) for key, user_id in session.execute(of_these))
    return ids


def id_of(session: Session, username: str) -> int:
    """Return the id of the user of a name. Raise UnknownUserError."""
    return get_profile(session, username).id


def get_profile(session: Session, username: str) -> Profile:
    """Return the account of a username. Raise UnknownUserError."""
    with reading(session):
        found = profiles(session, User.username_key == names.key(username))
    if not found:
        raise names.unknown(username)
    return found[0]


def profile(session: Session, user_id: int) -> Profile:
    """Return the account of an id. Raise UnknownUserError."""
    with reading(session):
        found = profiles(session, User.id == user_id)
    if not found:
        raise _unknown_id(user_id)
    return found[0]


def choose_language(session: Session, user_id: int, language: str | None) -> None:
    """Let pages and letters for a user be in a language; None: in the browser's, and letters in the portal's first."""
    with transaction(session):
        session.execute(update(User).where(User.id == user_id).values(language=language))


def addresses_of(session: Session, who: str) -> tuple[str, ...]:
    """Return the canonical form of an address, or those of a user's addresses, the main one first.

    Raise InvalidAddressError for what is neither, or BadInputError for a user without an address.
    """
    try:
        return (canonical(who),)
    except InvalidAddressError:
        try:
            held = get_profile(session, who).addresses
        except UnknownUserError:
            raise InvalidAddressError(
                "not an e-mail address, and no user is called so: %(who)s", who=printable(who)
            ) from None
    if not held:
        raise BadInputError("%(who)s has no address", who=printable(who)) from None
    return tuple(map(canonical, held))


def other_holders(session: Session, user_id: int) -> dict[str, tuple[tuple[int, str], ...]]:
    """Return who else holds a user's addresses: ids and usernames by address, as spelled."""
    other = aliased(UserAddress)
    query = (
        select(Address.spelling, User.id, User.username)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .join(other, (other.address_id == Address.id) & (other.user_id != user_id))
        .join(User, User.id == other.user_id)
        .where(UserAddress.user_id == user_id)
        .order_by(User.username_key)
    )
    found: dict[str, tuple[tuple[int, str], ...]] = {}
    with reading(session):
        for spelling, holder_id, username in session.execute(query):
            found[spelling] = (*found.get(spelling, ()), (holder_id, username))
    return found


def shared_addresses(session: Session, user_id: int) -> frozenset[str]:
    """Return those of a user's addresses, as spelled, that other active accounts hold too."""
    other, holder = aliased(UserAddress), aliased(User)
    with reading(session):
        return frozenset(
            session.scalars(
                select(Address.spelling)
                .join(UserAddress, UserAddress.address_id == Address.id)
                .join(other, (other.address_id == Address.id) & (other.user_id != user_id))
                .join(holder, (holder.id == other.user_id) & holder.is_active)
                .where(UserAddress.user_id == user_id)
            )
        )


def list_users(session: Session) -> Iterator[Profile]:
    """Yield every account by username, in constant memory; no transaction is open while one is looked at."""
    last = ""
    while True:
        with reading(session):
            block = profiles(session, User.username_key > last)
        yield from block
        if len(block) < _BLOCK:
            return
        last = usernames.key(block[-1].username)


def set_password(
    session: Session,
    username: str,
    *,
    password: str,
    rounds: int,
    actor: Actor = COMMAND_LINE,
    as_of: int | None = None,
) -> None:
    """Give a user another password; all their sessions end.

    ``as_of``, here and below, is the last change of the account that the actor has seen. Raise UnknownUserError,
    WeakPasswordError or ChangedMeanwhileError.
    """
    found = get_profile(session, username)
    passwords.check_strength(password, own=_own(found))
    stored = passwords.hash_password(password, rounds=rounds)
    with transaction(session):
        user = _row(session, username, as_of=as_of)
        user.password_hash = stored
        session.flush()
        sessions.end(session, user.id)
        _record(session, user, "given a password", actor=actor)
    security_log.log("password set", user=found.id)


def change_password(
    session: Session, user_id: int, *, current: str, new: str, token: str, now: datetime, rounds: int
) -> str:
    """Change a member's own password; return the token that the session of ``token`` has from now on.

    Every other session of theirs ends. Raise WeakPasswordError, WrongPasswordError or LimitedError.
    """
    passwords.check_strength(new, own=_own(profile(session, user_id)))
    typed = _type_password(session, user_id, current, now=now, rounds=rounds)
    replaced = passwords.hash_password(new, rounds=rounds)
    with transaction(session):
        changed = session.execute(
            update(User)
            .where(User.id == user_id, User.is_active, User.password_hash == typed.stored)
            .values(password_hash=replaced)
            .returning(User.id)
        ).scalar()
        if changed is None:  # changed elsewhere while bcrypt was at work
            raise WrongPasswordError("this is not the current password")
        rate_limits.forgive(session, typed.counted, cleared=typed.counted.keys)
        sessions.end(session, user_id, keep_token=token)
        renewed = sessions.renew(session, token, now=now)
        user = session.get_one(User, user_id)
        _record(session, user, "password changed", actor=Actor(user_id, user.username))
    security_log.log("password changed", user=user_id)
    return renewed


def choose_password(session: Session, user_id: int, *, new: str, token: str, now: datetime, rounds: int) -> str:
    """Give a member who has logged in by a mailed link a new password, without the one before.

    Return the token that the session of ``token`` has from now on; every other session of theirs ends. Raise
    WeakPasswordError, or LogInFailedError where the link was used too long ago.
    """
    passwords.check_strength(new, own=_own(profile(session, user_id)))
    if not sessions.may_choose_password(session, token, now=now):
        raise LogInFailedError("the link was used too long ago: ask for a new one")
    replaced = passwords.hash_password(new, rounds=rounds)
    with transaction(session):
        user = session.get_one(User, user_id, with_for_update=True)
        user.password_hash = replaced
        session.flush()
        sessions.end(session, user_id, keep_token=token)
        renewed = sessions.renew(session, token, now=now)
        _record(session, user, "password changed", actor=Actor(user_id, user.username))
    security_log.log("password changed", user=user_id)
    return renewed


def confirm_password(session: Session, user_id: int, *, password: str, token: str, now: datetime, rounds: int) -> None:
    """Let a session make changes of access for the next 15 minutes. Raise WrongPasswordError or LimitedError."""
    typed = _type_password(session, user_id, password, now=now, rounds=rounds)
    with transaction(session):
        rate_limits.forgive(session, typed.counted, cleared=typed.counted.keys)
        if not sessions.confirm(session, token, now=now):  # the password was changed while this one was compared
            raise WrongPasswordError("this is not the current password")
    security_log.log("password confirmed", user=user_id)


class _Typed(NamedTuple):
    stored: str | None
    counted: rate_limits.Counted


def _type_password(session: Session, user_id: int, password: str, *, now: datetime, rounds: int) -> _Typed:
    """Compare a member's own password; tries are limited as those of a log-in are."""
    counted = rate_limits.count(session, [rate_limits.key("current password", str(user_id))], now=now)
    with reading(session):
        stored = session.execute(select(User.password_hash).where(User.id == user_id)).scalar()
    if not passwords.verify(password, stored, rounds=rounds).is_right:
        security_log.log("password refused", user=user_id)
        raise WrongPasswordError("this is not the current password")
    return _Typed(stored, counted)


def rename(session: Session, username: str, *, to: str, actor: Actor = COMMAND_LINE) -> str:
    """Give a user another username, by which they log in; return it as it is stored.

    Raise UnknownUserError, BadInputError, or DuplicateError where another user is called so.
    """
    with transaction(session):
        user = _row(session, username)
        held = select(Address.canonical).join(UserAddress, UserAddress.address_id == Address.id)
        own = session.scalars(held.where(UserAddress.user_id == user.id)).all()
        renamed, user_id = usernames.checked(to, own=own), user.id
        if not names.give(session, user, renamed, actor=actor):
            raise DuplicateError("the username %(renamed)s is taken already", renamed=renamed)
    security_log.log("user renamed", user=user_id)
    return renamed


def _write_name(session: Session, user: User, name: str, *, actor: Actor) -> None:
    _record(session, user, "name changed", actor=actor, old=user.name, new=name)
    user.name, user.search_key = name, search_key(name, user.username)


def set_groups(
    session: Session, username: str, *, groups: Iterable[str], now: datetime, lists: Lists, actor: Actor = COMMAND_LINE
) -> None:
    """Put a user into these groups and no others. Raise UnknownUserError or BadInputError."""
    group_names = checked_groups(groups)
    with transaction(session):
        user_id = _write_groups(session, _row(session, username), group_names, actor=actor, now=now, lists=lists)
    security_log.log("groups changed", user=user_id)


def _write_groups(
    session: Session, user: User, groups: Sequence[str], *, actor: Actor, now: datetime, lists: Lists
) -> int:
    before = sorted(session.scalars(select(UserGroup.name).where(UserGroup.user_id == user.id)))
    left = UserGroup.user_id == user.id, UserGroup.name.not_in(groups)
    session.execute(delete_from(UserGroup).where(*left))  # one that stays remains given by whom it was
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
    """Write what is wanted and differs from what a form showed, in one transaction.

    What somebody else changed meanwhile, to something else, stays as it is. ``address`` is the wanted one, checked;
    ``may_share``: another account may use it. Raise UnknownUserError, SharedMailboxError or BadInputError.
    """
    wanted = Details(checked_name(wanted.name), address.spelling, checked_groups(wanted.groups))
    with transaction(session):
        user = session.scalars(select(User).where(User.id == user_id).with_for_update()).one_or_none()
        if user is None:
            raise _unknown_id(user_id)
        (found,) = profiles(session, User.id == user_id)
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
    """Return the fields to write, and those that somebody else changed to something else since they were shown."""
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
    """Let a user log in, and be managed on the lists, again. Raise UnknownUserError or ChangedMeanwhileError."""
    with transaction(session):
        user = _row(session, username, as_of=as_of)
        user_id = user.id
        addresses.activate(session, [user_id], actor=actor, now=now, lists=lists)
        _record(session, user, "activated", actor=actor)
    security_log.log("user activated", user=user_id)


def deactivate(
    session: Session, username: str, *, now: datetime, actor: Actor = COMMAND_LINE, as_of: int | None = None
) -> None:
    """Lock a user out, at once; the account stays.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError for the last superuser.
    """
    with transaction(session):
        user = row_of_one_who_may_go(session, username, as_of=as_of)
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
    """Delete an account, its sessions and its hold on addresses; return what it was.

    ``erase`` unsubscribes addresses that nobody else holds, and asks that every trace of them goes as well, once no
    roster holds them. Preferences and history stay otherwise. An import does not make the account again: its member
    key is remembered, with ``secret`` as the key of the HMAC. Raise UnknownUserError, ChangedMeanwhileError, or
    BadInputError for the last superuser.
    """
    with transaction(session):
        user = row_of_one_who_may_go(session, username, as_of=as_of)
        if user.member_key is not None:
            if secret is None:
                raise ValueError("the key of a linked account is remembered by its HMAC, which needs a secret")
            deleted_keys.remember(session, user.member_key, erase=erase, secret=secret, now=now)
        gone = _delete(session, user, erase=erase, actor=actor, now=now, lists=lists)
    security_log.log("user deleted", user=gone.id)
    return gone


def delete_leaver(session: Session, user_id: int, *, now: datetime, lists: Lists, actor: Actor) -> Profile | None:
    """Delete an account that an import has deactivated; return what it was, or None where that is not so any more.

    Its member key is not remembered: an import makes an account again for who becomes a member again.
    """
    with transaction(session):
        user = session.scalars(select(User).where(User.id == user_id).with_for_update()).one_or_none()
        if user is None or user.is_active or user.is_superuser or not user.deactivated_by_import:
            return None
        gone = _delete(session, user, erase=False, actor=actor, now=now, lists=lists)
    security_log.log("user deleted", user=user_id)
    return gone


def _delete(session: Session, user: User, *, erase: bool, actor: Actor, now: datetime, lists: Lists) -> Profile:
    (gone,) = profiles(session, User.id == user.id)
    addresses.release(session, user.id, erase=erase, actor=actor, now=now, lists=lists)
    _record(session, user, "deleted", actor=actor)
    if erase:
        _forget_name(session, gone.id, account_log.forget_name(session, gone.id))
        deleted_keys.forget_account(session, gone.id)
    session.execute(delete_from(User).where(User.id == gone.id))  # sessions and groups go with the row
    return gone


def _forget_name(session: Session, user_id: int, usernames_so_far: Iterable[str]) -> None:
    """Name an account by its number alone where it chose for others, or asked for runs, if a name was an address."""
    if any("@" in each for each in usernames_so_far):
        name = f"user {user_id}"
        history.forget_actor(session, user_id, name=name)
        session.execute(update(Run).where(Run.asked_by_id == user_id).values(asked_by=name))


def grant(session: Session, username: str, *, actor: Actor = COMMAND_LINE, as_of: int | None = None) -> None:
    """Make a user a superuser; sessions that were to be remembered end within a day.

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
    """Take the role away, at once, and end the user's API keys for good; return how many were ended.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError for the last one.
    """
    with transaction(session):
        user = row_of_one_who_may_go(session, username, as_of=as_of)
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
    """Return a user's row, which nobody else changes until the transaction ends."""
    user = names.locked(session, username)
    account_log.require_unchanged(session, user.id, since=as_of)
    return user


def row_of_one_who_may_go(session: Session, username: str, *, as_of: int | None) -> User:
    """Return a user's row, unless it is that of the last active superuser, inside the caller's transaction."""
    superusers = lock_beside_superusers(session, [names.key(username)])
    user = _row(session, username, as_of=as_of)
    if superusers == [user.id]:
        raise BadInputError(
            "%(username)s is the last active superuser; grant somebody else the role first", username=user.username
        )
    return user


def lock_beside_superusers(session: Session, keys: Collection[str]) -> list[int]:
    """Lock users, by the keys of their names, and all active superusers; return the ids of the latter.

    So no two superusers can go at the same time. They are locked in one order with the others, as users are everywhere:
    in two steps two transactions could wait for each other.
    """
    is_superuser = and_(User.is_superuser, User.is_active)
    rows = select(User.id, is_superuser.label("is_superuser")).where(or_(is_superuser, User.username_key.in_(keys)))
    found = session.execute(rows.order_by(User.id).with_for_update()).all()
    return [row.id for row in found if row.is_superuser]


def _unknown_id(user_id: int) -> UnknownUserError:
    return UnknownUserError("no user has the number %(user_id)s", user_id=user_id)


def _put_into(session: Session, user_id: int, groups: Sequence[str]) -> None:
    if groups:
        session.execute(insert(UserGroup), [{"user_id": user_id, "name": name} for name in groups])


def _own(found: Profile) -> list[str]:
    return [found.username, found.name, *found.addresses]


def profiles(session: Session, condition: ColumnElement[bool], *, limit: int = _BLOCK) -> list[Profile]:
    """Return a block of accounts by username. The caller's transaction is open."""
    users = session.execute(
        select(User.id, User.username, User.name, User.is_superuser, User.is_active, User.created_at)
        .add_columns(User.last_login_at, User.member_key, User.deactivated_by_import)
        .where(condition)
        .order_by(User.username_key)
        .limit(limit)
    ).all()
    held: dict[int, list[str]] = {user.id: [] for user in users}
    groups: dict[int, list[str]] = {user.id: [] for user in users}
    for user_id, spelling in session.execute(
        select(UserAddress.user_id, Address.spelling)
        .join(Address, Address.id == UserAddress.address_id)
        .where(UserAddress.user_id.in_(held))
        .order_by(UserAddress.is_main.desc(), Address.canonical)
    ):
        held[user_id].append(spelling)
    for user_id, name in session.execute(
        select(UserGroup.user_id, UserGroup.name).where(UserGroup.user_id.in_(held)).order_by(UserGroup.name)
    ):
        groups[user_id].append(name)
    return [
        Profile(
            id=user.id,
            username=user.username,
            name=user.name,
            email=next(iter(held[user.id]), ""),
            addresses=tuple(held[user.id]),
            groups=tuple(groups[user.id]),
            is_superuser=user.is_superuser,
            is_active=user.is_active,
            created_at=user.created_at,
            last_login_at=user.last_login_at,
            member_key=user.member_key,
            deactivated_by_import=user.deactivated_by_import,
        )
        for user in users
    ]
