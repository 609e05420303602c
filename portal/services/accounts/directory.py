"""The directory of accounts: found by a text, a group, a role or a state, a page at a time."""

from collections.abc import Mapping
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, exists, false, func, or_, select, true
from sqlalchemy.orm import Session, aliased

from portal.domain import usernames
from portal.domain.mailinglist import MailingList
from portal.domain.search_text import search_key, search_words
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services.accounts import users
from portal.services.accounts.users import Profile
from portal.services.transaction import reading


class Wanted(NamedTuple):
    """Which accounts: words, each part of name, username or address; a group; a role and a state, None for either."""

    text: str = ""
    group: str = ""
    is_superuser: bool | None = None
    is_active: bool | None = None


class Found(NamedTuple):
    """A page of accounts by username; ``total`` counts all that are wanted, ``has_more`` tells of a next page."""

    profiles: tuple[Profile, ...]
    total: int
    has_more: bool


class Subscription(NamedTuple):
    """What one address of a user is to one list: ``stays`` where the account goes and the subscription does not."""

    handle: str
    address: str
    is_subscribed: bool
    is_on_list: bool
    stays: bool


class Match(NamedTuple):
    """An address, as spelled and canonical, and one of its holders; none where no account holds it any more."""

    canonical: str
    spelling: str
    username: str | None
    name: str | None
    user_id: int | None


def find_accounts(session: Session, wanted: Wanted, *, after: str = "", limit: int = 50) -> Found:
    """Return a page of accounts; ``after`` is the last username of the page before."""
    condition = _condition(wanted)
    with reading(session):
        total = session.execute(select(func.count()).select_from(User).where(condition)).scalar_one()
        beyond = and_(condition, User.username_key > usernames.key(after)) if after else condition
        profiles = users.profiles(session, beyond, limit=limit + 1)
    return Found(tuple(profiles[:limit]), total, len(profiles) > limit)


def _condition(wanted: Wanted) -> ColumnElement[bool]:
    conditions: list[ColumnElement[bool]] = [true()]
    for word in search_words(wanted.text):
        held = exists().where(UserAddress.user_id == User.id, Address.id == UserAddress.address_id)
        conditions.append(or_(is_named(word), held.where(is_spelled(word))))
    if wanted.group:
        conditions.append(exists().where(UserGroup.user_id == User.id, UserGroup.name == wanted.group))
    if wanted.is_superuser is not None:
        conditions.append(User.is_superuser.is_(wanted.is_superuser))
    if wanted.is_active is not None:
        conditions.append(User.is_active.is_(wanted.is_active))
    return and_(*conditions)


def is_named(word: str) -> ColumnElement[bool]:
    """Return the condition that a word is part of a user's name or username, without regard to case and accents."""
    key = search_key(word)
    return User.search_key.contains(key, autoescape=True) if key else false()  # an accent alone is no word


def is_spelled(word: str) -> ColumnElement[bool]:
    """Return the condition that a word is part of an address, as compared or as spelled, without regard to case."""
    compared = usernames.key(word)
    return or_(
        Address.canonical.contains(compared, autoescape=True), Address.spelling.icontains(compared, autoescape=True)
    )


def groups(session: Session) -> tuple[str, ...]:
    """Return the names of all groups that somebody is in."""
    with reading(session):
        return tuple(session.scalars(select(UserGroup.name).distinct().order_by(UserGroup.name)))


def subscriptions(session: Session, user_id: int, *, lists: Mapping[str, MailingList]) -> tuple[Subscription, ...]:
    """Return what a user's addresses are on, or are to be on, and what becomes of each if the account goes."""
    other = aliased(UserAddress)
    is_shared = exists().where(other.address_id == Address.id, other.user_id != user_id).correlate(Address)
    query = (
        select(Preference.list_handle, Address.spelling, Preference.subscribed, Preference.seen, is_shared)
        .join(Address, Address.id == Preference.address_id)
        .join(UserAddress, and_(UserAddress.address_id == Address.id, UserAddress.user_id == user_id))
        .where(Preference.list_handle.in_(lists), or_(Preference.subscribed, Preference.seen.is_(True)))
        .order_by(Preference.list_handle, Address.canonical)
    )
    with reading(session):
        rows = session.execute(query).all()
    return tuple(
        Subscription(handle, address, wanted, seen is True, shared or not lists[handle].remove_on_departure)
        for handle, address, wanted, seen, shared in rows
    )


def search(session: Session, text: str, *, limit: int = 50) -> tuple[Match, ...]:
    """Return addresses and their holders by words that are parts of address, username or name, in any order."""
    query = (
        select(Address.canonical, Address.spelling, User.username, User.name, User.id)
        .outerjoin(UserAddress, UserAddress.address_id == Address.id)
        .outerjoin(User, User.id == UserAddress.user_id)
        .where(*(or_(is_spelled(word), is_named(word)) for word in search_words(text)))
        .order_by(Address.canonical, User.username_key)
        .limit(limit)
    )
    with reading(session):
        return tuple(map(Match._make, session.execute(query)))
