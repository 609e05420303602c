"""Read-only reports about lists and runs for superusers."""

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import func, not_, select, union_all
from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue
from portal.domain.address import printable
from portal.domain.mailinglist import MailingList
from portal.domain.outlook import State
from portal.domain.run import IF_INTENDED, NEVER_BEGUN, SHOWS_PLAN, RunKind, RunState, counts_in_words
from portal.models import Address, History, Preference, Run
from portal.services import paging
from portal.services.accounts.addresses import is_held
from portal.services.paging import Paged
from portal.services.reports import counting
from portal.services.reports.counting import StateCounts
from portal.services.transaction import reading

LEAVES_SHOWN = timedelta(days=30)
OVERDUE = timedelta(minutes=5)  # by then a process should have taken a run that was asked for
_COLUMN = {State.NOT_SUBSCRIBED: "unsubscribed"}  # where a count's name is not its state's


class RunReport(NamedTuple):
    """A run; times are UTC.

    ``started_at`` of a waiting run is the time of its request or last try. ``asked_at`` is None if it never waited,
    ``finished_at`` until it has ended. A shown run changed nothing; a held run only what needs no approval.
    """

    id: int
    handle: str
    kind: str
    asked_by: str
    asked_at: datetime | None
    host: str
    started_at: datetime
    finished_at: datetime | None
    state: str
    message: str
    plan_id: str | None
    accepted: bool
    on_roster: int | None
    without_account: int | None
    initialised: int
    left: int
    joined: int
    added: int
    removed: int
    held: int
    refused: int
    waiting: int
    no_effect: int

    @property
    def counts(self) -> list[tuple[int, str]]:
        """The counts of what it did, each with its name in words."""
        return counts_in_words(self._asdict()) if self.has_begun else []

    @property
    def message_for_pages(self) -> str:
        """The message without the handle and the advice to run a command: pages have a name and a button."""
        return self.message.partition(IF_INTENDED)[0].removeprefix(f"{self.handle}: ")

    @property
    def has_begun(self) -> bool:
        """Whether it was more than requested and shown."""
        return self.state not in NEVER_BEGUN

    @property
    def is_shown(self) -> bool:
        """Whether it ended with a plan that may be applied."""
        return self.state in SHOWS_PLAN and self.kind != RunKind.PLANNED

    def is_overdue(self, now: datetime) -> bool:
        """Return True if it has waited so long that no process seems to carry out runs."""
        return self.state == RunState.ASKED and now - self.started_at > OVERDUE


class ListReport(NamedTuple):
    """A list: the number of managed addresses in each state, and the state of its runs.

    ``departed`` counts addresses with a preference that no active user who may see the list holds any more,
    ``departing`` those of them that the next run removes. ``without_account`` counts subscribers without an account at
    the last run. ``is_paused``: no run reads the list or pushes to it. ``is_late``: there is no good run within the
    time that members are promised. ``oldest_change_at`` is when the oldest change in progress was chosen; ``due_at`` is
    the time promised to members for it.
    """

    handle: str
    name: str
    subscribed: int
    unsubscribed: int
    not_chosen: int
    being_added: int
    being_removed: int
    waiting: int
    unconfirmed: int
    not_added: int
    refused: int
    departed: int
    departing: int
    without_account: int | None
    last_run: RunReport | None
    last_good_at: datetime | None
    is_paused: bool
    is_late: bool
    oldest_change_at: datetime | None
    due_at: datetime | None

    @property
    def is_troubled(self) -> bool:
        """Whether its runs need attention: it is late, or the last one did not end well."""
        run = self.last_run
        ended_badly = run is not None and run.state in {RunState.HELD, RunState.FAILED, RunState.UNFINISHED}
        return self.is_late or (ended_badly and not self.is_paused)

    @property
    def pending(self) -> int:
        """The number of addresses that are out of sync, without those that the list refused."""
        return self.drift - self.refused

    @property
    def by_state(self) -> dict[str, int]:
        """The number of addresses in each state that ``subscribers`` names, without zeros."""
        counts = {state.value: getattr(self, _COLUMN.get(state, state.value)) for state in State}
        return {name: count for name, count in {**counts, "departed": self.departed}.items() if count}

    @property
    def drift(self) -> int:
        """The number of addresses that are on the list but should not be, or the reverse."""
        return self.not_on_it + self.being_removed + self.departing

    @property
    def not_on_it(self) -> int:
        """The number of addresses that should be on the list but are not."""
        return self.being_added + self.waiting + self.unconfirmed + self.not_added + self.refused


class Alarm(NamedTuple):
    """A list that needs attention: it is late, or its last run requires action."""

    handle: str
    name: str
    is_late: bool
    last_good_at: datetime | None
    last_run_id: int | None
    last_state: str | None


class Leaves(NamedTuple):
    """How many addresses have left a list that members cannot leave in the portal, and when the last one did."""

    handle: str
    name: str
    number: int
    last_at: datetime


class CatalogueLine(NamedTuple):
    """A list of the catalogue with counts of managed addresses by choice; ``audience`` is None for everybody."""

    handle: str
    name: str
    email: str
    subscribed: int
    unsubscribed: int
    not_chosen: int
    audience: tuple[str, ...] | None
    manager: str
    section: str | None
    is_listed: bool
    can_leave: bool


class HistoryLine(NamedTuple):
    """A change of a preference."""

    at: datetime
    handle: str
    address: str
    subscribed: bool
    source: str
    actor: str
    reason: str


def lists(
    session: Session, *, catalogue: Catalogue, now: datetime, handles: Iterable[str] | None = None
) -> tuple[ListReport, ...]:
    """Return a report of each list, or of some, in the catalogue's order."""
    wanted = set(catalogue.lists if handles is None else handles)
    chosen = [each for handle, each in catalogue.lists.items() if handle in wanted]
    if not chosen:
        return ()
    with reading(session):
        counts = counting.count_states(session, chosen)
        last, good = _last_runs(session, [each.handle for each in chosen])
    promise = timedelta(hours=catalogue.applied_within_hours)
    return tuple(
        _list_report(each, counts[each.handle], last.get(each.handle), good.get(each.handle), now=now, promise=promise)
        for each in chosen
    )


def alarms(session: Session, *, catalogue: Catalogue, now: datetime) -> tuple[Alarm, ...]:
    """Return the lists that are late or need approval, in the catalogue's order, by one query."""
    found = conditions(session, catalogue=catalogue, now=now)
    return tuple(each for each in found if each.is_late or each.last_state == RunState.HELD)


def conditions(session: Session, *, catalogue: Catalogue, now: datetime) -> tuple[Alarm, ...]:
    """Return the state of each list that is not paused, in the catalogue's order, by one query."""
    if not catalogue.lists:
        return ()
    with reading(session):
        last, good = _last_runs(session, list(catalogue.lists))
    promise = timedelta(hours=catalogue.applied_within_hours)
    running = (each for each in catalogue.lists.values() if not each.is_paused)
    return tuple(
        _alarm(each, last.get(each.handle), good.get(each.handle), now=now, promise=promise) for each in running
    )


def _is_late(good_at: datetime | None, *, now: datetime, promise: timedelta) -> bool:
    """Return True if the last good run is too long ago; a time far ahead is a wrong clock's and is ignored."""
    return good_at is None or abs(now - good_at) > promise


def _alarm(
    mailing_list: MailingList, last: RunReport | None, good: RunReport | None, *, now: datetime, promise: timedelta
) -> Alarm:
    good_at = good.finished_at if good else None
    return Alarm(
        handle=mailing_list.handle,
        name=mailing_list.name,
        is_late=_is_late(good_at, now=now, promise=promise),
        last_good_at=good_at,
        last_run_id=last.id if last else None,
        last_state=last.state if last else None,
    )


def leaves(session: Session, *, catalogue: Catalogue, now: datetime) -> tuple[Leaves, ...]:
    """Return the lists that members cannot leave in the portal but somebody left in the last 30 days.

    They left at the list manager, or by a mailed link.
    """
    locked = [each for each in catalogue.lists.values() if not each.can_leave]
    if not locked:
        return ()
    query = (
        select(Preference.list_handle, func.count(), func.max(Preference.changed_at))
        .where(
            Preference.list_handle.in_([each.handle for each in locked]),
            not_(Preference.subscribed),
            Preference.source.in_(["list", "link"]),
            Preference.changed_at > now - LEAVES_SHOWN,
        )
        .group_by(Preference.list_handle)
    )
    with reading(session):
        found = {handle: (count, at) for handle, count, at in session.execute(query)}
    return tuple(Leaves(each.handle, each.name, *found[each.handle]) for each in locked if each.handle in found)


def without_account(session: Session, roster: Mapping[str, str]) -> tuple[str, ...]:
    """Return the sorted addresses of a roster that no account holds, as the list manager spells them.

    ``roster`` maps canonical addresses to spellings, one a line. Nothing is stored.
    """
    left = dict(roster)
    with reading(session):
        for block in database.stream(session.connection(), select(Address.canonical).where(is_held())):
            for (canonical,) in block:
                left.pop(canonical, None)
    return tuple(printable(each, limit=1_000) for canonical in sorted(left) for each in left[canonical].split("\n"))


def catalogue(session: Session, catalogue: Catalogue, *, now: datetime) -> tuple[CatalogueLine, ...]:
    """Return the lists of the catalogue with the number of each choice. Raise DisabledError."""
    catalogue.require_enabled()
    return tuple(
        CatalogueLine(
            handle=each.handle,
            name=each.name,
            email=catalogue.lists[each.handle].email,
            subscribed=each.subscribed + each.not_on_it,
            unsubscribed=each.unsubscribed + each.being_removed,
            not_chosen=each.not_chosen,
            audience=tuple(sorted(catalogue.lists[each.handle].audience or ())) or None,
            manager=catalogue.lists[each.handle].manager,
            section=catalogue.lists[each.handle].section,
            is_listed=catalogue.lists[each.handle].is_listed,
            can_leave=catalogue.lists[each.handle].can_leave,
        )
        for each in lists(session, catalogue=catalogue, now=now)
    )


def _list_report(
    mailing_list: MailingList,
    counts: StateCounts,
    last: RunReport | None,
    good: RunReport | None,
    *,
    now: datetime,
    promise: timedelta,
) -> ListReport:
    good_at = good.finished_at if good else None
    return ListReport(
        handle=mailing_list.handle,
        name=mailing_list.name,
        **{_COLUMN.get(state, state.value): count for state, count in counts.states.items()},
        departed=counts.departed,
        departing=counts.departing,
        without_account=good.without_account if good else None,
        last_run=last,
        last_good_at=good_at,
        is_paused=mailing_list.is_paused,
        is_late=not mailing_list.is_paused and _is_late(good_at, now=now, promise=promise),
        oldest_change_at=counts.oldest_change_at,
        due_at=counts.oldest_change_at and counts.oldest_change_at + promise,
    )


def _last_runs(session: Session, handles: list[str]) -> tuple[dict[str, RunReport], dict[str, RunReport]]:
    """Return each list's last run and its last good run.

    A run that waited has a lower id than others that began before it.
    """
    of_list = database.table_of(session, "lists", ("handle",), [[each] for each in handles])
    latest = (
        select(Run.id)
        .where(Run.list_handle == of_list.c.handle)
        .order_by(Run.started_at.desc(), Run.id.desc())
        .limit(1)
        .correlate(of_list)
    )
    last = select(latest.where(Run.state.not_in(NEVER_BEGUN)).scalar_subquery()).select_from(of_list)
    good = select(latest.where(Run.state == RunState.DONE).scalar_subquery()).select_from(of_list)
    query = run_reports().where(Run.id.in_(union_all(last, good))).order_by(Run.started_at, Run.id)
    found = list(map(RunReport._make, session.execute(query)))
    return {each.handle: each for each in found}, {each.handle: each for each in found if each.state == RunState.DONE}


def run_reports() -> Any:
    """Return the query for runs in the form of reports."""
    return select(Run.id, Run.list_handle, *(getattr(Run, name) for name in RunReport._fields[2:]))


def runs(
    session: Session, *, handle: str | None = None, before: int | None = None, limit: int = 50
) -> tuple[RunReport, ...]:
    """Return runs, the newest first; ``before`` is the id of the last one shown on the previous page."""
    query = run_reports().order_by(Run.id.desc()).limit(limit)
    if handle is not None:
        query = query.where(Run.list_handle == handle)
    if before is not None:
        query = query.where(Run.id < before)
    with reading(session):
        return tuple(map(RunReport._make, session.execute(query)))


def page_of_runs(session: Session, *, handle: str | None = None, number: int = 1) -> Paged[RunReport]:
    """Return a page of runs of all lists or of one, newest first."""
    query = run_reports().order_by(Run.id.desc())
    return paging.page(
        session, query if handle is None else query.where(Run.list_handle == handle), RunReport._make, number=number
    )


def history(
    session: Session, *, handle: str | None = None, address: str | None = None, limit: int | None = 100
) -> tuple[HistoryLine, ...]:
    """Return changes of preferences, the newest first; ``address`` is canonical."""
    query = select(
        History.at,
        History.list_handle,
        History.address,
        History.subscribed,
        History.source,
        History.actor,
        History.reason,
    ).order_by(History.id.desc())
    if handle is not None:
        query = query.where(History.list_handle == handle)
    with reading(session):
        if address is not None:
            number = session.scalar(select(Address.id).where(Address.canonical == address))
            # The lines of an address outlive it; they are then found by its text alone, which has no index.
            query = query.where(History.address == address if number is None else History.address_id == number)
        return tuple(map(HistoryLine._make, session.execute(query.limit(limit))))
