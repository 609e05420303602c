"""Profiles: accounts as pages and commands show them, found by id, username or condition."""

from collections.abc import Iterator
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, select
from sqlalchemy.orm import Session, aliased

from portal.domain.address import canonical, printable
from portal.errors import BadInputError, InvalidAddressError, UnknownUserError
from portal.models import Address, User, UserAddress, UserGroup
from portal.services.accounts import names
from portal.services.transaction import reading

_BLOCK = 1_000  # accounts read at once


class Details(NamedTuple):
    """The fields of an account that a form can change: name, main address as spelled, groups as stored."""

    name: str
    email: str
    groups: tuple[str, ...]


class Profile(NamedTuple):
    """An account as pages and commands show it.

    ``addresses`` are as spelled, the main one first; ``email`` is the main one, or empty. ``member_key`` is None for a
    local account. ``deactivated_by_import`` is False again once a person has deactivated or activated the account.
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
        """Return the fields that a form can change."""
        return Details(self.name, self.email, self.groups)


def id_of(session: Session, username: str) -> int:
    """Return the id of the account with a username. Raise UnknownUserError."""
    return by_username(session, username).id


def by_username(session: Session, username: str) -> Profile:
    """Return the account with a username. Raise UnknownUserError."""
    with reading(session):
        found = find(session, User.username_key == names.key(username))
    if not found:
        raise names.unknown(username)
    return found[0]


def by_id(session: Session, user_id: int) -> Profile:
    """Return the account with an id. Raise UnknownUserError."""
    with reading(session):
        found = find(session, User.id == user_id)
    if not found:
        raise unknown_id(user_id)
    return found[0]


def addresses_of(session: Session, who: str) -> tuple[str, ...]:
    """Return canonical addresses for an address or a username; a user's main address comes first.

    Raise InvalidAddressError if ``who`` is neither an address nor a username, and BadInputError if the user has no
    address.
    """
    try:
        return (canonical(who),)
    except InvalidAddressError:
        try:
            held = by_username(session, who).addresses
        except UnknownUserError:
            raise InvalidAddressError("neither a username nor an e-mail address: %(who)s", who=printable(who)) from None
    if not held:
        raise BadInputError("%(who)s has no address", who=printable(who)) from None
    return tuple(map(canonical, held))


def other_holders(session: Session, user_id: int) -> dict[str, tuple[tuple[int, str], ...]]:
    """Return the other accounts that hold a user's addresses: ids and usernames, by address as spelled."""
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
    """Return the addresses of a user, as spelled, that other active accounts also hold."""
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


def list_all(session: Session) -> Iterator[Profile]:
    """Yield all accounts in the order of usernames, in constant memory.

    No transaction is open while the caller uses one.
    """
    last = ""
    while True:
        with reading(session):
            block = find(session, User.username_key > last)
        yield from block
        if len(block) < _BLOCK:
            return
        last = names.key(block[-1].username)


def find(session: Session, condition: ColumnElement[bool], *, limit: int = _BLOCK) -> list[Profile]:
    """Return at most ``limit`` accounts that meet a condition, by username, in the caller's transaction."""
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


def unknown_id(user_id: int) -> UnknownUserError:
    """Return the error for an id that no account has."""
    return UnknownUserError("no user has the number %(user_id)s", user_id=user_id)
