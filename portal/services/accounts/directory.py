"""The directory of accounts: found by a text, a group or a status, in any order, a page at a time or as a stream."""

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
_AT_ONCE = 1_000  # accounts that a stream reads in one go


class Status(StrEnum):
    """What an account can be found by. It may be several at once; a page counts each."""

    ACTIVE = "active"
    NEVER_LOGGED_IN = "never-logged-in"  # active, and nobody has used it
    NO_PASSWORD = "no-password"  # noqa: S105 - active, and none is set
    NO_ADDRESS = "no-address"  # it holds none
    DEACTIVATED = "deactivated"
    LEFT = "deactivated-by-import"  # the membership source does not name them any more
    BARRED = "deactivated-by-person"
    SUPERUSER = "superuser"


class Wanted(NamedTuple):
    """Which accounts: words, each part of name, username, address or member key; a group; a status.

    ``made_since``: at that time or later. ``user_ids`` are some accounts alone, ``leavers_of`` those whom the plan of
    an import deactivates.
    """

    text: str = ""
    group: str = ""
    status: Status | None = None
    made_since: datetime | None = None
    user_ids: tuple[int, ...] | None = None
    leavers_of: int | None = None


class Person(NamedTuple):
    """An account in a table; ``lists`` counts the lists that it is subscribed to."""

    profile: Profile
    lists: int


class Page(NamedTuple):
    """A page of accounts; ``counts`` is how many there are of each status, whatever status was asked for."""

    people: tuple[Person, ...]
    counts: Mapping[Status, int]
    all: int
    total: int


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
    """Return one page of the accounts that are wanted, counted from 1; who has no value to sort by comes last."""
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
    """Return all accounts that are wanted by username, in blocks, in constant memory.

    The stream has a session of its own, as it outlives the request, and no transaction stays open between two blocks.
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
    """Return the condition that an account is wanted."""
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
    # Found once for all, and not once for each account.
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
    """Yield what accounts are sorted by, the last of it unique."""
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
    """Return addresses and their holders by words that are parts of address, username or name, in any order.

    A text that is a whole address finds that one alone.
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
    """Select the addresses that a word is part of, or of a holder's name: two scans take less time than one of both."""
    of_named = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(is_named(word))
    return union(select(Address.id).where(is_spelled(word)), of_named)
