"""Usernames of accounts: looked up, and given anew by a person or because they are an address that has changed."""

from collections.abc import Mapping

from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import usernames
from portal.domain.address import printable
from portal.domain.search_text import search_key
from portal.errors import BadInputError, UnknownUserError
from portal.models import User
from portal.services.accounts import log as account_log
from portal.services.history import Actor


def key(username: str) -> str:
    """Return a username as it is compared. Raise UnknownUserError for what none can be."""
    if not username.isprintable():  # no database stores a NUL or a lone surrogate, so none is asked for one
        raise unknown(username)
    return usernames.key(username)


def unknown(username: str) -> UnknownUserError:
    """Return the error that says that nobody is called so."""
    return UnknownUserError("no user is called %(username)s", username=printable(username))


# The functions from here on work inside a transaction that the caller has begun.


def locked(session: Session, username: str) -> User:
    """Return a user's row, which nobody else changes until the transaction ends. Raise UnknownUserError."""
    rows = select(User).where(User.username_key == key(username)).with_for_update()
    user = session.scalars(rows).one_or_none()
    if user is None:
        raise unknown(username)
    return user


def give(session: Session, user: User, username: str, *, actor: Actor) -> bool:
    """Give a user a username, which has been checked; return whether it was free."""
    before, taken = user.username, User.username_key == usernames.key(username)
    if session.scalar(select(exists().where(taken, User.id != user.id))):
        return False
    try:
        with session.begin_nested():  # another transaction may take the name at the same time
            user.username, user.username_key = username, usernames.key(username)
            user.search_key = search_key(user.name, username)
    except IntegrityError:
        return False
    account_log.record(session, [(user.id, before)], "renamed", actor=actor, old=before, new=username)
    return True


def give_all(session: Session, wanted: Mapping[int, str], *, actor: Actor) -> None:
    """Give users usernames, which have been checked, at once: they may trade theirs.

    Nobody else has one of them, which the caller has seen to.
    """
    users = session.scalars(select(User).where(User.id.in_(wanted)).order_by(User.id)).all()
    changed = [each for each in users if each.username_key != usernames.key(wanted[each.id])]
    for user in changed:
        user.username_key = f"between {user.id}"  # white space: it is nobody's
    session.flush()
    for user in changed:
        before, username = user.username, wanted[user.id]
        user.username, user.username_key = username, usernames.key(username)
        user.search_key = search_key(user.name, username)
        account_log.record(session, [(user.id, before)], "renamed", actor=actor, old=before, new=username)
    session.flush()


def follow(session: Session, user_id: int, *, old: str, new: str, spelling: str, actor: Actor) -> None:
    """Let a username that is the old main address be the new one, where that is free and can be a username.

    ``old`` and ``new`` are canonical. Where it stays as it is, it logs nobody in: see ``sessions.log_in``.
    """
    user = session.get_one(User, user_id)
    if usernames.is_address(user.username, old):
        try:
            give(session, user, usernames.checked(spelling, own=[new]), actor=actor)
        except BadInputError:  # an address may be longer than a username
            return
