"""The addresses of one list: searched, filtered, sorted, a page at a time or all of them in a stream."""

from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, String, and_, case, cast, exists, false, func, literal, or_, select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.outlook import Detail, Known, State, outlook
from portal.domain.search_text import search_words
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services.accounts import directory
from portal.services.accounts.addresses import is_managed
from portal.services.reports import counting
from portal.services.transaction import reading

DEPARTED = "departed"  # no active user who may see the list holds the address; what was chosen for it is still kept
STATES = (*(state.value for state in State), DEPARTED)
SORTS = ("address", "state", "source", "since")
_AT_ONCE = 1_000  # rows that a stream reads in one go


class Filter(NamedTuple):
    """Which addresses are asked for: part of an address or of a holder's name, state, a group, or some alone."""

    text: str = ""
    state: str = ""
    group: str = ""
    address_ids: tuple[int, ...] = ()


class Holder(NamedTuple):
    """An account that holds an address."""

    user_id: int
    username: str
    is_active: bool


class Subscriber(NamedTuple):
    """One address on one list, as spelled.

    ``state`` is one of STATES; ``detail`` is what a member would be told beneath it. What is stored is None where
    nothing was chosen; ``refused_at`` is None, beside a refusal, where it is tried again at the next run.
    """

    id: int
    address: str
    canonical: str
    state: str
    detail: Detail
    subscribed: bool | None
    source: str | None
    changed_at: datetime | None
    seen: bool | None
    push_result: str | None
    refusal: str | None
    refused_at: datetime | None
    holders: tuple[Holder, ...]


class Page(NamedTuple):
    """A page of a list's addresses; ``counts`` is how many match in each state, whatever state was asked for."""

    subscribers: tuple[Subscriber, ...]
    counts: dict[str, int]
    total: int


def page(
    session: Session,
    mailing_list: MailingList,
    wanted: Filter,
    *,
    sort: str = "address",
    is_descending: bool = False,
    number: int = 1,
    size: int = 50,
    now: datetime,
    promise: timedelta,
) -> Page:
    """Return one page of the addresses that a filter finds, counted from 1. Two statements."""
    state = state_of(mailing_list)
    column = {"address": Address.canonical, "state": state, "source": Preference.source, "since": Preference.changed_at}
    order = column[sort].desc() if is_descending else column[sort]
    rows = _rows(mailing_list, wanted).order_by(order, Address.canonical).limit(size).offset((number - 1) * size)
    with reading(session):
        counts = dict(map(tuple, session.execute(_count_found(mailing_list, wanted))))
        subscribers = tuple(_subscriber(row, now=now, promise=promise) for row in session.execute(rows))
    total = counts.get(wanted.state, 0) if wanted.state else sum(counts.values())
    return Page(subscribers, counts, total)


def export(
    session: Session, mailing_list: MailingList, wanted: Filter, *, now: datetime, promise: timedelta
) -> Iterator[list[Subscriber]]:
    """Return all addresses that a filter finds, in blocks, sorted, in constant memory.

    The stream has a session of its own, as it outlives the request, and no transaction stays open between two blocks:
    a slow reader keeps nobody waiting.
    """
    engine = session.get_bind()

    def blocks() -> Iterator[list[Subscriber]]:
        last = ""
        while True:
            query = _rows(mailing_list, wanted).where(Address.canonical > last).order_by(Address.canonical)
            with Session(engine) as own, reading(own):
                block = own.execute(query.limit(_AT_ONCE)).all()
            yield [_subscriber(row, now=now, promise=promise) for row in block]
            if len(block) < _AT_ONCE:
                return
            last = block[-1].canonical

    return blocks()


def joined(mailing_list: MailingList, *columns: Any) -> Any:
    """Select columns of all addresses with what is stored for them on a list."""
    stored = and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id)
    return select(*columns).select_from(Address).outerjoin(Preference, stored)


def matching(mailing_list: MailingList, wanted: Filter) -> ColumnElement[bool]:
    """Return the condition that a filter finds an address: one that is managed, or that something is stored for."""
    found = [or_(Preference.list_handle.is_not(None), is_managed(mailing_list))]
    if wanted.text.strip():
        found.append(_holds_text(wanted.text))
    if wanted.group:
        found.append(_held_by(UserGroup.name == wanted.group, UserGroup.user_id == UserAddress.user_id))
    if wanted.state:
        found.append(state_of(mailing_list) == wanted.state if wanted.state in STATES else false())
    if wanted.address_ids:
        found.append(Address.id.in_(wanted.address_ids))
    return and_(*found)


def state_of(mailing_list: MailingList) -> Any:
    """Return the state of an address in SQL, with its preference joined."""
    states = ((condition, literal(state.value)) for state, condition in counting.conditions().items())
    return case((~is_managed(mailing_list), literal(DEPARTED)), *states, else_=literal(DEPARTED))


def _holds_text(text: str) -> ColumnElement[bool]:
    return and_(
        *(
            or_(directory.is_spelled(word), _held_by(User.id == UserAddress.user_id, directory.is_named(word)))
            for word in search_words(text)
        )
    )


def _held_by(*conditions: Any) -> ColumnElement[bool]:
    return exists().where(UserAddress.address_id == Address.id, *conditions).correlate(Address)


def _count_found(mailing_list: MailingList, wanted: Filter) -> Any:
    of_any_state = matching(mailing_list, wanted._replace(state=""))
    found = joined(mailing_list, state_of(mailing_list).label("state")).where(of_any_state).subquery()
    return select(found.c.state, func.count()).group_by(found.c.state)


_KNOWN = ("subscribed", "source", "changed_at", "seen", "waiting_since", "push_result", "refusal", "refused_at")


def _rows(mailing_list: MailingList, wanted: Filter) -> Any:
    # The holders in one text each, so that a page takes one statement however many addresses it shows.
    holder = cast(User.id, String) + case((User.is_active, " 1 "), else_=" 0 ") + User.username
    holders = (
        select(func.aggregate_strings(holder, "\n"))
        .select_from(UserAddress)
        .join(User, User.id == UserAddress.user_id)
        .where(UserAddress.address_id == Address.id)
        .correlate(Address)
        .scalar_subquery()
    )
    stored = (getattr(Preference, name) for name in _KNOWN)
    state = state_of(mailing_list).label("state")
    columns = (Address.id, Address.spelling, Address.canonical, state, holders.label("holders"), *stored)
    return joined(mailing_list, *columns).where(matching(mailing_list, wanted))


def _subscriber(row: Any, *, now: datetime, promise: timedelta) -> Subscriber:
    known = None
    if row.source is not None:
        known = Known(**{name: getattr(row, name) for name in _KNOWN})
    return Subscriber(
        id=row.id,
        address=row.spelling,
        canonical=row.canonical,
        state=row.state,
        detail=Detail("none") if row.state == DEPARTED else outlook(known, now=now, promise=promise)[1],
        subscribed=row.subscribed,
        source=row.source,
        changed_at=row.changed_at,
        seen=row.seen,
        push_result=row.push_result,
        refusal=row.refusal,
        refused_at=row.refused_at,
        holders=tuple(sorted(_holders((row.holders or "").split("\n")), key=lambda each: each.username)),
    )


def _holders(texts: Iterable[str]) -> Iterator[Holder]:
    for text in filter(None, texts):
        user_id, is_active, username = text.split(" ", 2)
        yield Holder(int(user_id), username, is_active == "1")
