"""The directory: accounts by text, group or status, sorted, as pages or as a stream; and the search for addresses."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Select,
    and_,
    case,
    exists,
    false,
    func,
    not_,
    or_,
    select,
    true,
    union,
)
from sqlalchemy.orm import Session, aliased

from portal.domain import usernames
from portal.domain.mailinglist import MailingList
from portal.domain.search_text import search_key, search_words
from portal.models import Address, MemberImportLine, Preference, User, UserAddress, UserGroup
from portal.services.accounts import passwords, profiles
from portal.services.accounts.profiles import Profile
from portal.services.transaction import reading

SORTS = ("name", "status", "username", "address", "groups", "made", "last_log_in")
_CAN_BE_EMPTY = frozenset({"address", "groups", "last_log_in"})
_AT_ONCE = 1_000  # accounts that a stream reads in one query


class Status(StrEnum):
    """Statuses to filter accounts by. An account can have several; a page shows the count of each."""

    ACTIVE = "active"
    NEVER_LOGGED_IN = "never-logged-in"  # active, but nobody has ever logged in
    NO_PASSWORD = "no-password"  # noqa: S105 - active, but no password is set
    NO_ADDRESS = "no-address"
    DEACTIVATED = "deactivated"
    LEFT = "deactivated-by-import"  # no longer in the membership source
    BARRED = "deactivated-by-person"
    SUPERUSER = "superuser"


class Wanted(NamedTuple):
    """A filter of accounts; every field that is set narrows it.

    ``text``: each word is part of a name, username, address or member key. ``made_since``: created at that time or
    later. ``user_ids``: only these accounts. ``leavers_of``: only the accounts that the plan of this import
    deactivates.
    """

    text: str = ""
    group: str = ""
    status: Status | None = None
    made_since: datetime | None = None
    user_ids: tuple[int, ...] | None = None
    leavers_of: int | None = None


class Person(NamedTuple):
    """A row of the table of accounts; ``lists`` is the number of lists that the account is subscribed to."""

    profile: Profile
    lists: int


class Page(NamedTuple):
    """A page of accounts. ``counts`` are of all statuses, whatever the filter; ``total`` is of the filter."""

    people: tuple[Person, ...]
    counts: Mapping[Status, int]
    all: int
    total: int


class Subscription(NamedTuple):
    """The state of one address of a user on one list. ``stays``: the subscription outlives the account."""

    handle: str
    address: str
    is_subscribed: bool
    is_on_list: bool
    stays: bool


class Match(NamedTuple):
    """An address and one of its holders, or None for the holder if no account holds it any more."""

    canonical: str
    spelling: str
    username: str | None
    name: str | None
    user_id: int | None


def page(
    session: Session,
    wanted: Wanted,
    *,
    lists: Mapping[str, MailingList],
    sort: str = "name",
    is_descending: bool = False,
    number: int = 1,
    size: int = 50,
) -> Page:
    """Return a page, numbered from 1, of the accounts that match; accounts without a value to sort by come last."""
    with reading(session):
        every, *counted = session.execute(_counts(wanted)).one()
        found = select(User.id).where(matching(wanted)).order_by(*_order(sort, is_descending=is_descending))
        ids = session.scalars(found.limit(size).offset((number - 1) * size)).all()
        by_id = {each.id: each for each in profiles.find(session, User.id.in_(ids))}
        subscribed = _count_lists(session, ids, lists)
    counts = dict(zip(Status, counted, strict=True))
    people = tuple(Person(by_id[each], subscribed.get(each, 0)) for each in ids)
    return Page(people, counts, every, counts[wanted.status] if wanted.status else every)


def export(session: Session, wanted: Wanted) -> Iterator[list[Profile]]:
    """Return all matching accounts by username, in blocks, in constant memory.

    The stream uses its own session, because it outlives the request, and keeps no transaction open between blocks.
    """
    engine = session.get_bind()

    def blocks() -> Iterator[list[Profile]]:
        last = ""
        while True:
            with Session(engine) as own, reading(own):
                beyond = and_(matching(wanted), User.username_key > last)
                block = profiles.find(own, beyond, limit=_AT_ONCE)
            yield block
            if len(block) < _AT_ONCE:
                return
            last = usernames.key(block[-1].username)

    return blocks()


def matching(wanted: Wanted) -> ColumnElement[bool]:
    """Return the condition that an account matches a filter."""
    conditions: list[ColumnElement[bool]] = [true(), *map(_has_word, search_words(wanted.text))]
    if wanted.group:
        conditions.append(_is_in(wanted.group))
    if wanted.status is not None:
        conditions.append(_statuses()[wanted.status])
    if wanted.made_since is not None:
        conditions.append(User.created_at >= wanted.made_since)
    if wanted.user_ids is not None:
        conditions.append(User.id.in_(wanted.user_ids))
    if wanted.leavers_of is not None:
        line = MemberImportLine
        leaving = select(line.user_id).where(line.import_id == wanted.leavers_of, line.action == "deactivate")
        conditions.append(User.id.in_(leaving))
    return and_(*conditions)


def _has_word(word: str) -> ColumnElement[bool]:
    # An uncorrelated subquery: evaluated once, not once an account.
    holders = select(UserAddress.user_id).join(Address, Address.id == UserAddress.address_id).where(is_spelled(word))
    has_key = User.member_key.icontains(word, autoescape=True)
    return or_(is_named(word), has_key, User.id.in_(holders))


def _is_in(group: str) -> ColumnElement[bool]:
    return exists().where(UserGroup.user_id == User.id, UserGroup.name == group).correlate(User)


def _statuses() -> dict[Status, ColumnElement[bool]]:
    active = User.is_active.expression
    return {
        Status.ACTIVE: active,
        Status.NEVER_LOGGED_IN: and_(active, User.last_login_at.is_(None)),
        Status.NO_PASSWORD: and_(active, User.password_hash == passwords.UNUSABLE),
        Status.NO_ADDRESS: not_(exists().where(UserAddress.user_id == User.id).correlate(User)),
        Status.DEACTIVATED: not_(active),
        Status.LEFT: and_(not_(active), User.deactivated_by_import),
        Status.BARRED: and_(not_(active), not_(User.deactivated_by_import)),
        Status.SUPERUSER: User.is_superuser.expression,
    }


def _counts(wanted: Wanted) -> Select[Any]:
    statuses = _statuses()
    sums = (func.coalesce(func.sum(case((statuses[each], 1), else_=0)), 0) for each in Status)
    return select(func.count(), *sums).select_from(User).where(matching(wanted._replace(status=None)))


def _order(sort: str, *, is_descending: bool) -> Iterator[Any]:
    """Yield the columns to sort accounts by; the last one is unique."""
    mains = select(Address.canonical).join(UserAddress, UserAddress.address_id == Address.id)
    held = mains.where(UserAddress.user_id == User.id, UserAddress.is_main).correlate(User)
    groups = select(func.min(UserGroup.name)).where(UserGroup.user_id == User.id).correlate(User)
    never, gone = User.last_login_at.is_(None), not_(User.is_active)
    column: Any = {
        "name": User.search_key,
        "status": case((gone, 2), (never, 1), else_=0),
        "username": User.username_key,
        "address": held.scalar_subquery(),
        "groups": groups.scalar_subquery(),
        "made": User.created_at,
        "last_log_in": User.last_login_at,
    }[sort]
    ordered = column.desc() if is_descending else column.asc()
    yield ordered.nulls_last() if sort in _CAN_BE_EMPTY else ordered
    yield User.search_key
    yield User.username_key


def _count_lists(session: Session, user_ids: Sequence[int], lists: Mapping[str, MailingList]) -> dict[int, int]:
    counts = (
        select(UserAddress.user_id, func.count(Preference.list_handle.distinct()).label("number"))
        .join(Preference, Preference.address_id == UserAddress.address_id)
        .where(UserAddress.user_id.in_(user_ids), Preference.list_handle.in_(lists), Preference.subscribed)
        .group_by(UserAddress.user_id)
    )
    return {row.user_id: row.number for row in session.execute(counts)}


def is_named(word: str) -> ColumnElement[bool]:
    """Return the condition that a user's name or username contains a word, ignoring case and accents."""
    key = search_key(word)
    return User.search_key.contains(key, autoescape=True) if key else false()  # the key of a bare accent is empty


def is_spelled(word: str) -> ColumnElement[bool]:
    """Return the condition that an address, canonical or as spelled, contains a word, ignoring case."""
    compared = usernames.key(word)
    return or_(
        Address.canonical.contains(compared, autoescape=True), Address.spelling.icontains(compared, autoescape=True)
    )


def groups(session: Session) -> tuple[str, ...]:
    """Return the names of all groups that have a member."""
    with reading(session):
        return tuple(session.scalars(select(UserGroup.name).distinct().order_by(UserGroup.name)))


def subscriptions(session: Session, user_id: int, *, lists: Mapping[str, MailingList]) -> tuple[Subscription, ...]:
    """Return the subscriptions of a user's addresses, wanted or on a roster, and whether they outlive the account."""
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
    """Return addresses with their holders whose address, username or name contains every word, in any order.

    A complete address finds only that address.
    """
    matches = (
        select(Address.canonical, Address.spelling, User.username, User.name, User.id)
        .outerjoin(UserAddress, UserAddress.address_id == Address.id)
        .outerjoin(User, User.id == UserAddress.user_id)
        .order_by(Address.canonical, User.username_key)
        .limit(limit)
    )
    words = search_words(text)
    in_parts = matches.where(*(Address.id.in_(_of_word(word)) for word in words))
    in_parts = in_parts.where(*(or_(is_spelled(word), is_named(word)) for word in words))
    with reading(session):
        whole = session.execute(matches.where(Address.canonical == usernames.key(text))).all() if "@" in text else ()
        return tuple(map(Match._make, whole or session.execute(in_parts)))


def _of_word(word: str) -> CompoundSelect[Any]:
    """Select the addresses that contain a word, or whose holder's name does: two scans are faster than one with OR."""
    of_named = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(is_named(word))
    return union(select(Address.id).where(is_spelled(word)), of_named)
