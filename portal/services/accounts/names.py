"""Usernames: look them up, and change them, also when they are an address that has changed."""

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
    """Return the key that a username is compared by. Raise UnknownUserError if no username can look like this."""
    if not username.isprintable():  # databases cannot store NUL or lone surrogates, nor look for them
        raise unknown(username)
    return usernames.key(username)


def unknown(username: str) -> UnknownUserError:
    """Return the error for a username that no account has."""
    return UnknownUserError("no user is called %(username)s", username=printable(username))


# The functions from here on work inside a transaction that the caller has begun.


def locked(session: Session, username: str) -> User:
    """Return a user's row, locked until the transaction ends. Raise UnknownUserError."""
    rows = select(User).where(User.username_key == key(username)).with_for_update()
    user = session.scalars(rows).one_or_none()
    if user is None:
        raise unknown(username)
    return user


def give(session: Session, user: User, username: str, *, actor: Actor) -> bool:
    """Change a user's username to a checked one; return False if another user has it."""
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
    """Change the usernames of several users together, so that they can swap them.

    The usernames are checked, and the caller has made sure that no other user has one of them.
    """
    users = session.scalars(select(User).where(User.id.in_(wanted)).order_by(User.id)).all()
    changed = [each for each in users if each.username_key != usernames.key(wanted[each.id])]
    for user in changed:
        user.username_key = f"between {user.id}"  # no username contains a space
    session.flush()
    for user in changed:
        before, username = user.username, wanted[user.id]
        user.username, user.username_key = username, usernames.key(username)
        user.search_key = search_key(user.name, username)
        account_log.record(session, [(user.id, before)], "renamed", actor=actor, old=before, new=username)
    session.flush()


def follow(session: Session, user_id: int, *, old: str, new: str, spelling: str, actor: Actor) -> None:
    """Change a username that is the old main address to the new one, if it is free and can be a username.

    ``old`` and ``new`` are canonical. If the username stays, nobody can log in with it: see ``sessions.log_in``.
    """
    user = session.get_one(User, user_id)
    if usernames.is_address(user.username, old):
        try:
            give(session, user, usernames.checked(spelling, own=[new]), actor=actor)
        except BadInputError:  # an address may be longer than a username
            return
