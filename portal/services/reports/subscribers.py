"""The addresses of one list: searched, filtered and sorted, by page or as a stream."""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    FromClause,
    Select,
    String,
    and_,
    case,
    cast,
    false,
    func,
    literal,
    null,
    or_,
    outerjoin,
    select,
    true,
    union,
    union_all,
)
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.domain.outlook import Detail, KnownPreference, State, outlook
from portal.domain.search_text import search_words
from portal.errors import InvalidAddressError
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services.accounts import directory
from portal.services.accounts.addresses import is_managed, managed_ids
from portal.services.reports import counting
from portal.services.transaction import reading

DEPARTED = "departed"  # no active user who may see the list holds the address, but its preference is kept
STATES = (*(state.value for state in State), DEPARTED)
SORTS = ("address", "state", "source", "since")
_AT_ONCE = 1_000  # rows that a stream reads together
_COMMON = 0.05  # the share of addresses above which a state is common
_STORED = {each.value for each in State if each is not State.NOT_CHOSEN}  # states of addresses that have a preference


class Filter(NamedTuple):
    """A filter of addresses: part of an address or a holder's name, state, group, or certain ids."""

    text: str = ""
    state: str = ""
    group: str = ""
    address_ids: tuple[int, ...] = ()

    @property
    def is_narrow(self) -> bool:
        """Whether it filters by more than a state."""
        return bool(self.text.strip() or self.group or self.address_ids)


class Holder(NamedTuple):
    """An account that holds an address."""

    user_id: int
    username: str
    is_active: bool


class Subscriber(NamedTuple):
    """An address on a list, as spelled.

    ``state`` is one of STATES; ``detail`` is what a member would read below it. The stored values are None if nothing
    was chosen; ``refused_at`` is None beside a refusal that the next run will retry.
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
    """A page of a list's addresses; ``counts`` is how many match in each state, whichever state was selected."""

    subscribers: tuple[Subscriber, ...]
    counts: dict[str, int]
    total: int


class Source(NamedTuple):
    """All addresses with their preference for a list, as a table, and the condition that one is managed."""

    table: FromClause
    is_managed: ColumnElement[bool]


def one_by_one(mailing_list: MailingList) -> Source:
    """Return a source for few addresses, where each is checked for being managed."""
    return Source(outerjoin(Address, Preference, _stored_for(mailing_list)), is_managed(mailing_list))


def as_sets(mailing_list: MailingList, *, is_stored: bool = False) -> Source:
    """Return a source for many addresses, where all managed ones are found at once.

    For a list with an audience it holds only managed or stored addresses; with ``is_stored``, only stored ones.
    """
    managed = managed_ids(mailing_list).distinct().cte("managed")
    table: FromClause = Address.__table__
    if is_stored:
        table = table.join(Preference.__table__, _stored_for(mailing_list))
        return Source(table.outerjoin(managed, managed.c.address_id == Address.id), managed.c.address_id.is_not(None))
    if mailing_list.audience is not None:
        stored = select(Preference.address_id).where(Preference.list_handle == mailing_list.handle)
        of_concern = union(select(managed.c.address_id), stored).subquery("of_concern")
        table = of_concern.join(table, Address.id == of_concern.c.address_id)
    table = outerjoin(table, Preference, _stored_for(mailing_list))
    return Source(table.outerjoin(managed, managed.c.address_id == Address.id), managed.c.address_id.is_not(None))


def _stored_for(mailing_list: MailingList) -> ColumnElement[bool]:
    return and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id)


def resolved(session: Session, wanted: Filter) -> Filter:
    """Return a filter for one address if the text is a whole address, else the filter itself."""
    try:
        compared = canonical(wanted.text)
    except InvalidAddressError:
        return wanted
    address_id = session.scalar(select(Address.id).where(Address.canonical == compared))
    if address_id is None or wanted.address_ids:
        return wanted
    return wanted._replace(text="", address_ids=(address_id,))


class Order(NamedTuple):
    """The order and the range of rows: one of SORTS, the offset, and the number of rows."""

    sort: str
    is_descending: bool
    offset: int
    size: int

    def apply(self, query: Select[Any], by_sort: Mapping[str, Any]) -> Select[Any]:
        """Return a query in this order; ``by_sort`` maps each sort to its column."""
        column = by_sort[self.sort]
        return query.order_by(column.desc() if self.is_descending else column, by_sort["address"])

    def cut(self, query: Select[Any], by_sort: Mapping[str, Any]) -> Select[Any]:
        """Return a query in this order, limited to the range."""
        return self.apply(query, by_sort).limit(self.size).offset(self.offset)


def page(
    session: Session,
    mailing_list: MailingList,
    wanted: Filter,
    *,
    sort: str = "address",
    is_descending: bool = False,
    number: int = 1,
    size: int = 50,
    known_counts: Mapping[str, int] | None = None,
    now: datetime,
    promise: timedelta,
) -> Page:
    """Return a page, counted from 1, of the addresses that match a filter, by at most three queries.

    ``known_counts`` are the list's addresses by state, if the caller has counted them.
    """
    order = Order(sort, is_descending, (number - 1) * size, size)
    with reading(session):
        wanted = resolved(session, wanted)
        if known_counts is None or wanted.is_narrow:
            counts, ids = _find(session, mailing_list, wanted, order)
        else:
            counts, ids = dict(known_counts), _find_in_state(session, mailing_list, wanted, order, known_counts)
        rows = order.apply(_rows(mailing_list).where(Address.id.in_(ids)), _by_sort(one_by_one(mailing_list)))
        shown = tuple(_subscriber(row, now=now, promise=promise) for row in session.execute(rows))
    total = counts.get(wanted.state, 0) if wanted.state else sum(counts.values())
    return Page(shown, counts, total)


def _by_sort(source: Source) -> dict[str, Any]:
    stored = {"source": Preference.source, "since": Preference.changed_at}
    return {"address": Address.canonical, "state": state_of(source), **stored}


def _find(
    session: Session, mailing_list: MailingList, wanted: Filter, order: Order
) -> tuple[dict[str, int], list[int]]:
    """Return how many addresses match in each state, and the ids of a page. The filter runs once for both."""
    source = as_sets(mailing_list) if not wanted.address_ids else one_by_one(mailing_list)
    columns = (column.label(name) for name, column in _by_sort(source).items())
    is_found = matching(source, wanted._replace(state=""))
    found = select(Address.id, *columns).select_from(source.table).where(is_found).cte("found")
    is_shown = found.c.state == wanted.state if wanted.state else true()
    ids = order.cut(select(found.c.id).where(is_shown), {name: found.c[name] for name in SORTS}).subquery()
    by_state = select(found.c.state, func.count()).group_by(found.c.state)
    rows = session.execute(union_all(by_state, select(cast(null(), String), ids.c.id))).all()
    return {state: count for state, count in rows if state}, [number for state, number in rows if not state]


def _find_in_state(
    session: Session, mailing_list: MailingList, wanted: Filter, order: Order, counts: Mapping[str, int]
) -> list[int]:
    """Return the ids of a page of addresses in one state or any, given the number in each."""
    share = counts.get(wanted.state, 0) / max(sum(counts.values()), 1) if wanted.state else 1.0
    if not share:
        return []
    if share >= _COMMON and order.sort == "address" and mailing_list.audience is None:
        source = one_by_one(mailing_list)  # read in the order of the addresses, a page is soon full
    else:
        source = as_sets(mailing_list, is_stored=wanted.state in _STORED)
    query = select(Address.id).select_from(source.table).where(matching(source, wanted))
    return list(session.scalars(order.cut(query, _by_sort(source))))


def export(
    session: Session, mailing_list: MailingList, wanted: Filter, *, now: datetime, promise: timedelta
) -> Iterator[list[Subscriber]]:
    """Yield all addresses that match a filter in sorted blocks, in constant memory.

    The stream has its own session, because it outlives the request, and no transaction stays open between two blocks,
    so that a slow reader blocks nobody.
    """
    engine = session.get_bind()

    def blocks() -> Iterator[list[Subscriber]]:
        last = ""
        while True:
            with Session(engine) as own, reading(own):
                is_wanted = matching(one_by_one(mailing_list), resolved(own, wanted))
                query = _rows(mailing_list).where(is_wanted, Address.canonical > last).order_by(Address.canonical)
                block = own.execute(query.limit(_AT_ONCE)).all()
            yield [_subscriber(row, now=now, promise=promise) for row in block]
            if len(block) < _AT_ONCE:
                return
            last = block[-1].canonical

    return blocks()


def matching(source: Source, wanted: Filter) -> ColumnElement[bool]:
    """Return the condition that a filter matches an address, which is managed or has a preference."""
    found = [or_(Preference.list_handle.is_not(None), source.is_managed)]
    if wanted.text.strip():
        found.append(_holds_text(wanted.text))
    if wanted.group:
        of_group = UserGroup.__table__.join(UserAddress, UserAddress.user_id == UserGroup.user_id)
        held = select(UserAddress.address_id).select_from(of_group).where(UserGroup.name == wanted.group)
        found.append(Address.id.in_(held))
    if wanted.state:
        found.append(state_of(source) == wanted.state if wanted.state in STATES else false())
    if wanted.address_ids:
        found.append(Address.id.in_(wanted.address_ids))
    return and_(*found)


def state_of(source: Source) -> Any:
    """Return the state of an address in SQL."""
    states = ((condition, literal(state.value)) for state, condition in counting.conditions().items())
    return case((~source.is_managed, literal(DEPARTED)), *states, else_=literal(DEPARTED))


def _holds_text(text: str) -> ColumnElement[bool]:
    """Return the condition that each word of a text is part of an address or a holder's name."""
    named = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id)
    return and_(
        *(
            or_(directory.is_spelled(word), Address.id.in_(named.where(directory.is_named(word))))
            for word in search_words(text)
        )
    )


_KNOWN = ("subscribed", "source", "changed_at", "seen", "waiting_since", "push_result", "refusal", "refused_at")


def _rows(mailing_list: MailingList) -> Select[Any]:
    """Return the query for a few addresses of a list, with their holders and preferences."""
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
    source = one_by_one(mailing_list)
    columns = (Address.id, Address.spelling, Address.canonical, state_of(source).label("state"))
    return select(*columns, holders.label("holders"), *stored).select_from(source.table)


def _subscriber(row: Any, *, now: datetime, promise: timedelta) -> Subscriber:
    known = None
    if row.source is not None:
        known = KnownPreference(**{name: getattr(row, name) for name in _KNOWN})
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
