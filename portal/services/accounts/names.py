"""Usernames of accounts: given anew by a person, or because they are an address that has changed."""

from sqlalchemy import exists, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal.domain import usernames
from portal.domain.search_text import search_key
from portal.errors import BadInputError
from portal.models import User
from portal.services.accounts import log as account_log
from portal.services.history import Actor

# The functions here work inside a transaction that the caller has begun.


def give(session: Session, user: User, username: str, *, actor: Actor) -> bool:
    """Give a user a username, which has been checked; return whether it was free."""
    before, taken = user.username, User.username_key == usernames.key(username)
    if session.scalar(select(exists().where(taken, User.id != user.id))):
        return False
    try:
        with session.begin_nested():  # another transaction may take the name at the same time
            user.username, user.username_key = username, usernames.key(username)
            user.search_key = search_key(username, user.name)
    except IntegrityError:
        return False
    account_log.record(session, [(user.id, before)], "renamed", actor=actor, old=before, new=username)
    return True


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
