"""Passwords: set by a superuser, changed or chosen by the member, and confirmed before a sensitive change."""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.errors import LogInFailedError, WrongPasswordError
from portal.models import User
from portal.services import security_log
from portal.services.accounts import log as account_log
from portal.services.accounts import names, passwords, profiles, rate_limits, sessions
from portal.services.accounts.profiles import Profile
from portal.services.history import COMMAND_LINE, Actor
from portal.services.transaction import reading, transaction


def set_password(
    session: Session,
    username: str,
    *,
    password: str,
    rounds: int,
    actor: Actor = COMMAND_LINE,
    as_of: int | None = None,
) -> None:
    """Set a user's password and end all their sessions.

    ``as_of`` is the last change of the account that the actor has seen. Raise UnknownUserError, WeakPasswordError or
    ChangedMeanwhileError.
    """
    found = profiles.by_username(session, username)
    passwords.check_strength(password, own=_own(found))
    stored = passwords.hash_password(password, rounds=rounds)
    with transaction(session):
        user = names.locked(session, username)
        account_log.require_unchanged(session, user.id, since=as_of)
        user.password_hash = stored
        session.flush()
        sessions.end(session, user.id)
        account_log.record(session, [(user.id, user.username)], "given a password", actor=actor)
    security_log.log("password set", user=found.id)


def change_password(
    session: Session, user_id: int, *, current: str, new: str, token: str, now: datetime, rounds: int
) -> str:
    """Change a member's own password, end their other sessions and return the new token of the session of ``token``.

    Raise WeakPasswordError, WrongPasswordError or RateLimitedError.
    """
    passwords.check_strength(new, own=_own(profiles.by_id(session, user_id)))
    typed = _type_password(session, user_id, current, now=now, rounds=rounds)
    replaced = passwords.hash_password(new, rounds=rounds)
    with transaction(session):
        changed = session.execute(
            update(User)
            .where(User.id == user_id, User.is_active, User.password_hash == typed.stored)
            .values(password_hash=replaced)
            .returning(User.id)
        ).scalar()
        if changed is None:  # somebody changed it while bcrypt was running
            raise WrongPasswordError("this is not the current password")
        rate_limits.forgive(session, typed.counted, cleared=typed.counted.keys)
        sessions.end(session, user_id, keep_token=token)
        renewed = sessions.renew(session, token, now=now)
        user = session.get_one(User, user_id)
        account_log.record(session, [(user.id, user.username)], "password changed", actor=Actor(user_id, user.username))
    security_log.log("password changed", user=user_id)
    return renewed


def choose_password(session: Session, user_id: int, *, new: str, token: str, now: datetime, rounds: int) -> str:
    """Set the password of a member who has logged in with a mailed link, without asking for the old one.

    End their other sessions and return the new token of the session of ``token``. Raise WeakPasswordError, or
    LogInFailedError if the link was used too long ago.
    """
    passwords.check_strength(new, own=_own(profiles.by_id(session, user_id)))
    if not sessions.may_choose_password(session, token, now=now):
        raise LogInFailedError("the link was used too long ago; request a new one")
    replaced = passwords.hash_password(new, rounds=rounds)
    with transaction(session):
        user = session.get_one(User, user_id, with_for_update=True)
        user.password_hash = replaced
        session.flush()
        sessions.end(session, user_id, keep_token=token)
        renewed = sessions.renew(session, token, now=now)
        account_log.record(session, [(user.id, user.username)], "password changed", actor=Actor(user_id, user.username))
    security_log.log("password changed", user=user_id)
    return renewed


def confirm_password(session: Session, user_id: int, *, password: str, token: str, now: datetime, rounds: int) -> None:
    """Allow a session to make sensitive changes for 15 minutes. Raise WrongPasswordError or RateLimitedError."""
    typed = _type_password(session, user_id, password, now=now, rounds=rounds)
    with transaction(session):
        rate_limits.forgive(session, typed.counted, cleared=typed.counted.keys)
        if not sessions.confirm(session, token, now=now):  # the password was changed while this one was compared
            raise WrongPasswordError("this is not the current password")
    security_log.log("password confirmed", user=user_id)


class _Typed(NamedTuple):
    """The stored hash that a password was compared with, and the attempt as the rate limits counted it."""

    stored: str | None
    counted: rate_limits.Counted


def _type_password(session: Session, user_id: int, password: str, *, now: datetime, rounds: int) -> _Typed:
    """Compare a member's own password; attempts are limited like log-ins.

    Raise WrongPasswordError or RateLimitedError.
    """
    counted = rate_limits.count(session, [rate_limits.key("current password", str(user_id))], now=now)
    with reading(session):
        stored = session.execute(select(User.password_hash).where(User.id == user_id)).scalar()
    if not passwords.verify(password, stored, rounds=rounds).is_right:
        security_log.log("password refused", user=user_id)
        raise WrongPasswordError("this is not the current password")
    return _Typed(stored, counted)


def _own(found: Profile) -> list[str]:
    return [found.username, found.name, *found.addresses]
