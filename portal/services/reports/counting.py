"""The number of addresses in each state for each list, in one pass over the preferences of all lists.

Managed addresses are found once for all lists without an audience, and from its groups for a list with one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, ColumnElement, and_, case, exists, func, literal, not_, or_, select
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.outlook import State
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services.accounts.addresses import unmanaged_ids


@dataclass(slots=True)
class StateCounts:
    """The managed addresses of one list by state.

    ``departed`` counts addresses with a preference that are not managed, ``departing`` those that the next run removes.
    ``oldest_change_at`` is when the oldest change in progress was chosen.
    """

    states: dict[State, int] = field(default_factory=lambda: dict.fromkeys(State, 0))
    departed: int = 0
    departing: int = 0
    oldest_change_at: datetime | None = None


def conditions() -> dict[State, Any]:
    """Return the states of ``domain.outlook`` as SQL conditions on a managed address joined with its preference."""
    on = Preference.seen.is_(True)
    wanted, unwanted = Preference.subscribed.is_(True), Preference.subscribed.is_(False)
    missing = and_(wanted, not_(on))
    result = Preference.push_result
    return {
        State.SUBSCRIBED: and_(wanted, on),
        State.NOT_SUBSCRIBED: and_(unwanted, not_(on)),
        State.NOT_CHOSEN: Preference.list_handle.is_(None),
        State.BEING_ADDED: and_(missing, result.is_(None)),
        State.BEING_REMOVED: and_(unwanted, on),
        State.WAITING: and_(missing, result == "pending"),
        State.UNCONFIRMED: and_(missing, result == "confirm"),
        State.NOT_ADDED: and_(missing, result == "undone"),
        State.REFUSED: and_(missing, result == "rejected"),
    }


_STORED = [each for each in State if each is not State.NOT_CHOSEN]  # the states of what has a row
_BOTH = 2**32  # more than a list has rows
_AGREED = (State.SUBSCRIBED, State.NOT_SUBSCRIBED)


def count_states(session: Session, lists: Sequence[MailingList]) -> dict[str, StateCounts]:
    """Return the counts of lists by handle, in at most six queries however many lists there are."""
    counts = {each.handle: StateCounts() for each in lists}
    for_all = [each for each in lists if each.audience is None]
    if for_all:
        _count_for_all(session, for_all, counts)
    for_groups = [each for each in lists if each.audience is not None]
    if for_groups:
        _count_for_groups(session, for_groups, counts)
    return counts


def _count_for_all(session: Session, lists: Sequence[MailingList], counts: Mapping[str, StateCounts]) -> None:
    """Count the lists without an audience: all preferences, less those of addresses that are not managed.

    Most preferences agree with the list, and one sum counts them. Those that differ are few, and so are the addresses
    that are not managed. Looking up each address, or evaluating every state for each row, would take far longer.
    """
    handles = [each.handle for each in lists]
    of_list = database.table_of(session, "lists", ("handle",), [[each] for each in handles])
    # All rows and the subscribed ones in one number, as a list is read once for each scalar subquery.
    both = func.count().filter(Preference.subscribed) * literal(_BOTH, BigInteger) + func.count()
    stored = select(both).where(Preference.list_handle == of_list.c.handle).scalar_subquery()
    gone = select(func.count()).select_from(unmanaged_ids().subquery()).scalar_subquery()
    managed = select(func.count(Address.id)).scalar_subquery() - gone
    for handle, total, both_counts in session.execute(select(of_list.c.handle, managed, stored)):
        wanted, of_all = divmod(both_counts, _BOTH)
        agreed = {State.SUBSCRIBED: wanted, State.NOT_SUBSCRIBED: of_all - wanted}
        counts[handle].states |= {**agreed, State.NOT_CHOSEN: total}
    of_lists = Preference.list_handle.in_(handles)
    _set_apart(session, {handle: counts[handle] for handle in handles})
    is_gone = Preference.address_id.in_(unmanaged_ids())
    of_gone = select(Preference.list_handle, *_sums(), func.count(), _departing(lists)).where(of_lists, is_gone)
    _subtract(counts, session.execute(of_gone.group_by(Preference.list_handle)))
    _add_not_chosen(counts, {handle: counts[handle].states[State.NOT_CHOSEN] for handle in handles})


def _set_apart(session: Session, counts: Mapping[str, StateCounts]) -> None:
    """Move preferences that differ from the list out of the two states that agree, each to its own state."""
    differs = Preference.subscribed.is_distinct_from(Preference.seen)
    managed = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id).where(User.is_active)
    is_managed = exists(managed.where(UserAddress.address_id == Preference.address_id).correlate(Preference))
    oldest = func.min(case((and_(_under_way(), is_managed), Preference.changed_at)))
    # Of all lists, as SQLite uses the index of preferences that differ only if the query names no list.
    query = select(Preference.list_handle, *_sums(), oldest).where(differs).group_by(Preference.list_handle)
    for handle, *sums, oldest_at in session.execute(query):
        if handle not in counts:
            continue
        states, apart = counts[handle].states, dict(zip(_STORED, sums, strict=True))
        counts[handle].oldest_change_at = oldest_at
        for state in _STORED:
            if state not in _AGREED:
                states[state] = apart[state]
                states[State.NOT_SUBSCRIBED if state is State.BEING_REMOVED else State.SUBSCRIBED] -= apart[state]


def _count_for_groups(session: Session, lists: Sequence[MailingList], counts: Mapping[str, StateCounts]) -> None:
    """Count the lists with an audience, starting from its groups."""
    handles = [each.handle for each in lists]
    pairs = [(each.handle, name) for each in lists for name in each.audience or ()]
    groups = database.table_of(session, "audiences", ("handle", "name"), pairs)
    managed = (
        select(groups.c.handle, UserAddress.address_id)
        .join(UserGroup, UserGroup.name == groups.c.name)
        .join(User, and_(User.id == UserGroup.user_id, User.is_active))
        .join(UserAddress, UserAddress.user_id == User.id)
        .distinct()
        .cte("managed")
    )
    of_managed = and_(Preference.list_handle == managed.c.handle, Preference.address_id == managed.c.address_id)
    oldest = func.min(case((_under_way(), Preference.changed_at)))
    stored = select(managed.c.handle, *_sums(), oldest).join(Preference, of_managed).group_by(managed.c.handle)
    _add(counts, session.execute(stored))
    gone = (
        select(Preference.list_handle, func.count(), _departing(lists))
        .outerjoin(managed, of_managed)
        .where(Preference.list_handle.in_(handles), managed.c.address_id.is_(None))
        .group_by(Preference.list_handle)
    )
    for handle, departed, departing in session.execute(gone):
        counts[handle].departed, counts[handle].departing = departed, departing
    totals = select(managed.c.handle, func.count()).group_by(managed.c.handle)
    _add_not_chosen(counts, dict(map(tuple, session.execute(totals))))


def _sums() -> list[Any]:
    by_state = conditions()
    return [func.count().filter(by_state[each]) for each in _STORED]


def _under_way() -> ColumnElement[bool]:
    """Return the condition that a run will carry a change out; changes refused or held at the list do not count."""
    by_state = conditions()
    removed = and_(by_state[State.BEING_REMOVED], Preference.push_result.is_(None))
    return or_(by_state[State.BEING_ADDED], removed)


def _departing(lists: Iterable[MailingList]) -> ColumnElement[int]:
    """Count addresses that are not managed and that rule 4 removes: ``departs`` for many lists."""
    all_go = Preference.list_handle.in_([each.handle for each in lists if each.remove_on_departure])
    goes = or_(all_go, not_(Preference.subscribed), Preference.moved_to.is_not(None))
    return func.count().filter(and_(Preference.seen.is_(True), not_(Preference.departed), goes))


def _add(counts: Mapping[str, StateCounts], rows: Iterable[Any]) -> None:
    for handle, *sums, oldest in rows:
        counts[handle].states.update(zip(_STORED, sums, strict=True))
        counts[handle].oldest_change_at = oldest


def _subtract(counts: Mapping[str, StateCounts], rows: Iterable[Any]) -> None:
    for handle, *sums, departed, departing in rows:
        counts[handle].departed, counts[handle].departing = departed, departing
        for state, count in zip(_STORED, sums, strict=True):
            counts[handle].states[state] -= count


def _add_not_chosen(counts: Mapping[str, StateCounts], managed: Mapping[str, int]) -> None:
    for handle, count in managed.items():
        states = counts[handle].states
        states[State.NOT_CHOSEN] = count - sum(states[each] for each in _STORED)
