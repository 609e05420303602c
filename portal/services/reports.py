"""Reports for superusers: read-only."""

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import and_, case, func, literal, not_, select, union_all
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.models import Address, History, Preference, Run
from portal.services.addresses import is_managed
from portal.services.transaction import reading


class RunReport(NamedTuple):
    """One run; times are UTC, ``finished_at`` is None while it is open."""

    id: int
    handle: str
    kind: str
    trigger: str
    host: str
    started_at: datetime
    finished_at: datetime | None
    result: str
    message: str
    plan_id: str | None
    accepted: bool
    on_roster: int | None
    strangers: int | None
    initialised: int
    left: int
    joined: int
    added: int
    removed: int
    held: int
    refused: int


class ListReport(NamedTuple):
    """One list: how many managed addresses are in which state, and how its runs go.

    ``strangers``: addresses on the list that nobody here holds, as the last run that read it counted them;
    ``is_late``: the last good run is older than members are promised, or there is none.
    """

    handle: str
    name: str
    subscribed: int
    unsubscribed: int
    not_chosen: int
    being_added: int
    being_removed: int
    waiting: int
    refused: int
    strangers: int | None
    last_run: RunReport | None
    last_good_at: datetime | None
    is_late: bool


class HistoryLine(NamedTuple):
    """One change of a preference."""

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
        counts = {row.handle: row for row in session.execute(union_all(*(_counts(each) for each in chosen)))}
        last = _last_runs(session, [each.handle for each in chosen])
        good = _last_runs(session, [each.handle for each in chosen], Run.result == "done")
    oldest = now - timedelta(hours=catalogue.applied_within_hours)
    return tuple(
        _list_report(each, counts[each.handle], last.get(each.handle), good.get(each.handle), oldest=oldest)
        for each in chosen
    )


def _list_report(
    mailing_list: MailingList, counts: Any, last: RunReport | None, good: RunReport | None, *, oldest: datetime
) -> ListReport:
    good_at = good.finished_at if good else None
    return ListReport(
        handle=mailing_list.handle,
        name=mailing_list.name,
        subscribed=counts.subscribed,
        unsubscribed=counts.unsubscribed,
        not_chosen=counts.not_chosen,
        being_added=counts.being_added,
        being_removed=counts.being_removed,
        waiting=counts.waiting,
        refused=counts.refused,
        strangers=good.strangers if good else None,
        last_run=last,
        last_good_at=good_at,
        is_late=good_at is None or good_at < oldest,
    )


def _counts(mailing_list: MailingList) -> Any:
    """Count managed addresses by the states of ``domain.outlook``."""
    on = Preference.seen.is_(True)
    wanted, unwanted = Preference.subscribed.is_(True), Preference.subscribed.is_(False)
    missing = and_(wanted, not_(on))
    waits, refused = Preference.waiting_since.is_not(None), Preference.refusal.is_not(None)
    states = {
        "subscribed": and_(wanted, on),
        "unsubscribed": and_(unwanted, not_(on)),
        "not_chosen": Preference.list_handle.is_(None),
        "being_added": and_(missing, not_(waits), not_(refused)),
        "being_removed": and_(unwanted, on),
        "waiting": and_(missing, waits),
        "refused": and_(missing, refused, not_(waits)),
    }
    sums = [func.coalesce(func.sum(case((state, 1), else_=0)), 0).label(name) for name, state in states.items()]
    return (
        select(literal(mailing_list.handle).label("handle"), *sums)
        .select_from(Address)
        .outerjoin(Preference, and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id))
        .where(is_managed(mailing_list))
    )


def _last_runs(session: Session, handles: list[str], *conditions: Any) -> dict[str, RunReport]:
    latest = select(func.max(Run.id)).where(Run.list_handle.in_(handles), *conditions).group_by(Run.list_handle)
    return {run.handle: run for run in map(RunReport._make, session.execute(_runs().where(Run.id.in_(latest))))}


def _runs() -> Any:
    return select(Run.id, Run.list_handle, *(getattr(Run, name) for name in RunReport._fields[2:]))


def runs(
    session: Session, *, handle: str | None = None, before: int | None = None, limit: int = 50
) -> tuple[RunReport, ...]:
    """Return runs, the newest first; ``before`` is the number of a run that has been shown already."""
    query = _runs().order_by(Run.id.desc()).limit(limit)
    if handle is not None:
        query = query.where(Run.list_handle == handle)
    if before is not None:
        query = query.where(Run.id < before)
    with reading(session):
        return tuple(map(RunReport._make, session.execute(query)))


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
    if address is not None:
        query = query.where(History.address == address)  # its text outlives its row
    with reading(session):
        return tuple(map(HistoryLine._make, session.execute(query.limit(limit))))
