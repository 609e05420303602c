"""The effect of a change of many accounts on lists: what the next sync adds and removes, and if that needs approval."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, case, exists, false, func, not_, or_, select, true, union_all
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.safety import Excess, Limited, most_allowed
from portal.models import Preference, Run, RunLine, User, UserAddress, UserGroup
from portal.services.accounts import bulk
from portal.services.accounts.addresses import unmanaged_ids
from portal.services.accounts.bulk import Asked, Change
from portal.services.sync import plans
from portal.services.transaction import reading

_AT_ONCE = 50  # audiences that one statement asks about

Condition = Callable[[MailingList], Any]


class Forecast(NamedTuple):
    """The addresses that the next sync adds to and removes from one list because of the change.

    ``needs_approval``: this exceeds the safety limits, together with waiting changes and the last twelve hours, as
    ``excess`` says; or nobody would stay on the list, or it is the first plan since a backup was restored.
    """

    handle: str
    name: str
    additions: int
    removals: int
    needs_approval: bool
    excess: Excess | None = None

    @property
    def counted(self) -> int:
        """How many changes are counted together if it needs approval."""
        return self.excess.number if self.excess else self.removals


def forecast(
    session: Session, asked: Asked, *, lists: Mapping[str, MailingList], now: datetime
) -> tuple[Forecast, ...]:
    """Return a forecast for each list that a change affects, in the catalogue's order."""
    if not lists or asked.change is Change.INVITE:
        return ()
    with reading(session):
        changes = (row for those in _batches(lists) for row in session.execute(_changes(asked, those)))
        counts = {row.list_handle: row for row in changes if row.added or row.removed}
        concerned = {handle: each for handle, each in lists.items() if handle in counts}
        if not concerned:
            return ()
        totals = _totals(session, concerned, counts, now=now)
        held_as_whole = {handle for handle in concerned if plans.is_first_after_restore(session, handle)}
        seen_on = _count_seen(session, concerned)
    found = []
    for handle, each in concerned.items():
        total, seen = totals[handle], seen_on.get(handle, 0)
        is_whole = handle in held_as_whole or _would_be_empty(total, seen)
        excess = None if is_whole else _excess(each, total, seen)
        needs_approval = is_whole or excess is not None
        found.append(Forecast(handle, each.name, counts[handle].added, counts[handle].removed, needs_approval, excess))
    return tuple(found)


class _Total(NamedTuple):
    """The adds and removals of a list's next run and of the runs of the last twelve hours."""

    added: int
    removed: int


def _totals(
    session: Session, lists: Mapping[str, MailingList], counts: Mapping[str, Any], *, now: datetime
) -> dict[str, _Total]:
    recent = _recent(session, lists, now=now)
    departing = {row[0]: row[1] for those in _batches(lists) for row in session.execute(_departing(those))}
    totals = {}
    for handle in lists:
        added, removed = counts[handle].added, counts[handle].removed
        if added:
            added += recent.get((handle, "add"), 0)
        if removed:
            removed += departing.get(handle, 0) + recent.get((handle, "remove"), 0) + recent.get((handle, "left"), 0)
        totals[handle] = _Total(added, removed)
    return totals


def _excess(mailing_list: MailingList, total: _Total, seen_on: int) -> Excess | None:
    limits = mailing_list.safety_limits
    measured = (
        Excess(
            Limited.REMOVALS,
            total.removed,
            most_allowed(limits.removals, limits.removals_percent, base=seen_on),
            seen_on,
        ),
        Excess(
            Limited.ADDITIONS,
            total.added,
            most_allowed(limits.additions, limits.additions_percent, base=seen_on),
            seen_on,
        ),
    )
    return next((each for each in measured if each.number > each.limit), None)


def _would_be_empty(total: _Total, seen_on: int) -> bool:
    """Return True if nobody would stay, which is probably a mistake."""
    return total.removed > 1 and total.removed == seen_on


def _changes(asked: Asked, lists: Mapping[str, MailingList]) -> Any:
    """Count by list what the change makes a run add and remove. The most expensive condition comes last."""
    ids = select(User.id).where(bulk.is_changed(asked)).correlate(None)
    is_concerned = Preference.address_id.in_(select(UserAddress.address_id).where(UserAddress.user_id.in_(ids)))
    before = _of_each(lists, lambda each: _is_held_by(_sees(each)))
    after = _of_each(
        lists, lambda each: _is_held_by(case((User.id.in_(ids), _will_see(each, asked)), else_=_sees(each)))
    )
    is_theirs = or_(Preference.left_by.is_(None), Preference.left_by.in_(ids))  # what another left works for nobody
    goes = and_(_goes_with_holder(lists), before, not_(after))
    comes = and_(Preference.subscribed, not_(Preference.seen.is_(True)), is_theirs, not_(before), after)
    return (
        select(Preference.list_handle, _count(comes).label("added"), _count(goes).label("removed"))
        .where(Preference.list_handle.in_(lists), is_concerned)
        .group_by(Preference.list_handle)
    )


def _departing(lists: Mapping[str, MailingList]) -> Any:
    """Count by list the addresses that the next run removes anyway."""
    counted = []
    for those in _by_audience(lists):
        handles = {each.handle: each for each in those}
        conditions = [Preference.list_handle.in_(handles), _goes_with_holder(handles)]
        if those[0].audience is None:  # then they are few: nobody active holds them
            conditions.append(Preference.address_id.in_(unmanaged_ids()))
        conditions.append(not_(_is_held_by(_sees(those[0]))))
        counted.append(select(Preference.list_handle, func.count()).where(*conditions).group_by(Preference.list_handle))
    return union_all(*counted)


def _count_seen(session: Session, lists: Collection[str]) -> dict[str, int]:
    counted = (
        select(Preference.list_handle, func.count())
        .where(Preference.list_handle.in_(lists), Preference.seen.is_(True))
        .group_by(Preference.list_handle)
    )
    return {row[0]: row[1] for row in session.execute(counted)}


def _recent(session: Session, lists: Mapping[str, MailingList], *, now: datetime) -> dict[tuple[str, str], int]:
    counted = (
        select(Run.list_handle, RunLine.action, func.count(RunLine.address_id.distinct()))
        .join(Run, Run.id == RunLine.run_id)
        .where(Run.list_handle.in_(lists), plans.is_recent(now))
        .group_by(Run.list_handle, RunLine.action)
    )
    return {(handle, action): count for handle, action, count in session.execute(counted)}


def _count(condition: ColumnElement[bool]) -> Any:
    return func.coalesce(func.sum(case((condition, 1), else_=0)), 0)


def _of_each(lists: Mapping[str, MailingList], condition: Condition) -> ColumnElement[bool]:
    """Return a condition on preferences that differs by audience."""
    conditions = (
        and_(Preference.list_handle.in_([each.handle for each in those]), condition(those[0]))
        for those in _by_audience(lists)
    )
    return or_(false(), *conditions)


def _batches(lists: Mapping[str, MailingList]) -> Iterator[dict[str, MailingList]]:
    """Yield a few audiences' lists at a time: each is a term of a statement, and databases limit its size."""
    for audiences in database.chunked(_by_audience(lists), _AT_ONCE):
        yield {each.handle: each for those in audiences for each in those}


def _by_audience(lists: Mapping[str, MailingList]) -> list[list[MailingList]]:
    found: dict[frozenset[str] | None, list[MailingList]] = {}
    for each in lists.values():
        found.setdefault(each.audience, []).append(each)
    return list(found.values())


def _is_held_by(condition: Any) -> ColumnElement[bool]:
    holds = (UserAddress.address_id == Preference.address_id, User.id == UserAddress.user_id)
    return exists().where(*holds, condition).correlate(Preference)


def _goes_with_holder(lists: Mapping[str, MailingList]) -> ColumnElement[bool]:
    """Return the condition of ``addresses.departs`` for a preference whose address is not managed."""
    removing = [handle for handle, each in lists.items() if each.remove_on_departure]
    goes = or_(Preference.list_handle.in_(removing), not_(Preference.subscribed), Preference.moved_to.is_not(None))
    return and_(not_(Preference.departed), Preference.seen.is_(True), goes)


def _sees(mailing_list: MailingList) -> ColumnElement[bool]:
    return and_(User.is_active, _is_in_audience(mailing_list))


def _is_in_audience(mailing_list: MailingList, *, without: Iterable[str] = ()) -> ColumnElement[bool]:
    if mailing_list.audience is None:
        return true()
    names = sorted(mailing_list.audience.difference(without))
    return exists().where(UserGroup.user_id == User.id, UserGroup.name.in_(names)).correlate(User)


def _will_see(mailing_list: MailingList, asked: Asked) -> Any:
    """Return the condition that a changed user may see a list afterwards."""
    if asked.change is Change.DEACTIVATE:
        return false()
    if asked.change is Change.ACTIVATE:
        return _is_in_audience(mailing_list)
    is_given = mailing_list.audience is None or not mailing_list.audience.isdisjoint(asked.groups)
    if is_given and asked.change is not Change.REMOVE_GROUPS:
        return User.is_active
    if asked.change is Change.SET_GROUPS:
        return false()
    without = asked.groups if asked.change is Change.REMOVE_GROUPS else ()
    return and_(User.is_active, _is_in_audience(mailing_list, without=without))
