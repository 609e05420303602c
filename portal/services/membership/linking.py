"""Links by hand: which account a member key belongs to, and which keys an import leaves alone."""

import unicodedata

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal.domain.address import printable
from portal.errors import BadInputError, DuplicateError
from portal.models import LastSaid, User
from portal.services import security_log
from portal.services.accounts import deleted_keys, names
from portal.services.accounts import log as account_log
from portal.services.history import COMMAND_LINE, Actor
from portal.services.membership.rows import LONGEST_KEY
from portal.services.transaction import reading, transaction


def link(
    session: Session,
    username: str,
    key: str,
    *,
    secret: bytes,
    actor: Actor = COMMAND_LINE,
    as_of: int | None = None,
) -> None:
    """Let an account follow the membership source from the next import on; nothing of it changes until then.

    The key that it has already says that the person is the same, where an import was in doubt. ``as_of``, here and
    below, is the last change of the account that the actor has seen. Raise UnknownUserError, ChangedMeanwhileError,
    BadInputError, or DuplicateError where the key is another account's.
    """
    key = checked_key(key)
    with transaction(session):
        user = names.locked(session, username)
        account_log.require_unchanged(session, user.id, since=as_of)
        if user.member_key == key:
            session.execute(update(LastSaid).where(LastSaid.user_id == user.id).values(name=None))
        elif user.member_key is not None:
            raise BadInputError(
                "%(username)s already has the key %(member_key)s; unlink it first",
                username=user.username,
                member_key=printable(user.member_key),
            )
        holder = session.scalar(select(User.username).where(User.member_key == key, User.id != user.id))
        if holder is not None:
            raise DuplicateError(
                "%(holder)s already has the key %(key)s; unlink that account first", holder=holder, key=printable(key)
            )
        deleted_keys.forget(session, key, secret=secret)
        user.member_key, user.was_unlinked, user_id = key, False, user.id
        account_log.record(session, [(user.id, user.username)], "linked", actor=actor, new=key)
    security_log.log("user linked", user=user_id)


def unlink(session: Session, username: str, *, actor: Actor = COMMAND_LINE, as_of: int | None = None) -> str:
    """Make an account a local one, which no import changes; return the key that it had, which is free.

    It is linked again by ``link`` alone. Raise UnknownUserError, or BadInputError where it has no key.
    """
    with transaction(session):
        user = names.locked(session, username)
        account_log.require_unchanged(session, user.id, since=as_of)
        key, user_id = user.member_key, user.id
        if key is None:
            raise BadInputError("%(username)s is not linked", username=user.username)
        user.member_key, user.was_unlinked, user.deactivated_by_import = None, True, False
        session.execute(delete(LastSaid).where(LastSaid.user_id == user.id))
        account_log.record(session, [(user.id, user.username)], "unlinked", actor=actor, old=key)
    security_log.log("user unlinked", user=user_id)
    return key


def forget_key(session: Session, key: str, *, secret: bytes) -> None:
    """Let an import make an account for a key again. Raise BadInputError where no deleted account had it."""
    with transaction(session):
        if not deleted_keys.forget(session, checked_key(key), secret=secret):
            raise BadInputError("no deleted account had the key %(key)s", key=printable(key))
    security_log.log("member key forgotten")


def key_of(session: Session, user_id: int) -> str | None:
    """Return the member key of an account; None where it is a local one."""
    with reading(session):
        return session.scalar(select(User.member_key).where(User.id == user_id))


def checked_key(text: str) -> str:
    """Return a member key as it is stored. Raise BadInputError."""
    key = unicodedata.normalize("NFC", " ".join(text.split()))
    if not key or len(key) > LONGEST_KEY or not key.isprintable():
        raise BadInputError(
            "not a valid member key: %(text)s (1 to %(longest_key)s printable characters)",
            text=repr(printable(text)),
            longest_key=LONGEST_KEY,
        )
    return key
