"""What superusers ask for in the browser, and how a command carries it out: the web never asks a list manager.

A request waits until a process takes it, which one does alone, and ends with what became of it.
"""

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import delete, exists, insert, not_, or_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan
from portal.errors import (
    ForbiddenError,
    LeaseHeldError,
    PlanChangedError,
    PortalError,
    SafetyLimitError,
    UnknownRequestError,
)
from portal.listmanagers.base import ListManager
from portal.models import Address, Lease, RequestLine, Run, RunRequest, User
from portal.services.history import Actor
from portal.services.sync import leases
from portal.services.transaction import reading, transaction

if TYPE_CHECKING:
    from portal.services.sync.sync import Clock, SyncResult

OVERDUE = timedelta(minutes=5)  # by then somebody should have taken a request
LONGEST = timedelta(hours=1)  # that a process of another host is believed to be at work without a lease
KEPT = timedelta(days=90)

_OPEN = ("waiting", "taken")
_DANGEROUS_FIRST = (Action.REMOVE, Action.LEFT, Action.ADD, Action.JOINED)


class Kind(StrEnum):
    """What can be asked for."""

    SHOW = "show"  # what a run would do
    SYNC = "sync"
    APPLY = "apply"  # a run that does what one plan says, or nothing


class Waiting(NamedTuple):
    """A request that waits; ``was_held``: it was tried already, and another run held the list."""

    id: int
    handle: str
    kind: Kind
    plan_id: str | None
    asked_by_id: int | None
    asked_by: str
    was_held: bool

    @property
    def trigger(self) -> str:
        """Return what its run is told apart by."""
        return _trigger(self.id, self.asked_by)


class RequestReport(NamedTuple):
    """One request; times are UTC.

    ``found_plan_id`` names the plan that was found for it and whose lines are kept; the counts are that plan's.
    """

    id: int
    handle: str
    kind: str
    plan_id: str | None
    asked_by: str
    asked_at: datetime
    state: str
    taken_at: datetime | None
    finished_at: datetime | None
    message: str
    run_id: int | None
    found_plan_id: str | None
    on_roster: int | None
    without_account: int | None
    initialised: int
    adds: int
    removals: int
    left: int
    joined: int
    held: int
    doubtful: int
    warning: str

    @property
    def changes(self) -> int:
        """Count what applying the plan would change, first preferences aside."""
        return self.adds + self.removals + self.left + self.joined

    def is_overdue(self, now: datetime) -> bool:
        """Tell whether it has waited for so long that nobody seems to carry requests out."""
        return self.state == "waiting" and now - (self.taken_at or self.asked_at) > OVERDUE


class LineReport(NamedTuple):
    """One line of a plan that was found; ``address`` is None where it has been forgotten since."""

    position: int
    address: str | None
    action: str
    reason: str
    held: bool


@dataclass(frozen=True)
class Means:
    """What a request is carried out with."""

    catalogue: Catalogue
    open_list_manager: Callable[[MailingList], ListManager]
    clock: "Clock"


def ask(session: Session, handle: str, *, kind: Kind, actor: Actor, now: datetime, plan_id: str | None = None) -> int:
    """Write a request and return its number: that of one that asks for the same and still waits, if there is one."""
    slot = " ".join(filter(None, (kind, handle, plan_id)))
    with transaction(session):
        return int(
            session.execute(
                database.insert(session, RunRequest)
                .values(
                    list_handle=handle,
                    kind=str(kind),
                    plan_id=plan_id,
                    asked_by_id=actor.user_id,
                    asked_by=actor.name[:80],
                    asked_at=now,
                    slot=slot,
                )
                .on_conflict_do_update(index_elements=["slot"], set_={"slot": slot})
                .returning(RunRequest.id)
            ).scalar_one()
        )


def due(session: Session, *, now: datetime) -> list[Waiting]:
    """Return what waits, the oldest first; end what was cut short, forget what is old. Mostly that is one query."""
    columns = (
        RunRequest.id, RunRequest.list_handle, RunRequest.kind, RunRequest.plan_id, RunRequest.asked_by_id,
        RunRequest.asked_by, RunRequest.asked_at, RunRequest.taken_at, RunRequest.state, RunRequest.host,
        RunRequest.pid,
    )  # fmt: skip
    oldest = now - KEPT
    query = select(*columns).where(or_(RunRequest.state.in_(_OPEN), RunRequest.asked_at < oldest))
    with reading(session):
        found = session.execute(query.order_by(RunRequest.id)).all()
    for each in found:
        if each.state == "taken" and (_is_gone(each) or now - each.taken_at > LONGEST):
            _end_cut_short(session, each, now=now)
    if any(each.asked_at < oldest for each in found):
        with transaction(session):
            session.execute(delete(RunRequest).where(RunRequest.asked_at < oldest, RunRequest.state != "taken"))
    return [
        Waiting(
            each.id,
            each.list_handle,
            Kind(each.kind),
            each.plan_id,
            each.asked_by_id,
            each.asked_by,
            each.taken_at is not None,
        )
        for each in found
        if each.state == "waiting" and each.asked_at >= oldest
    ]


def _is_gone(row: Any) -> bool:
    """Tell whether the process that took a request was one of this host and has ended.

    This one has taken nothing yet: where a row names its number, that was another, before the host was started anew.
    """
    host = socket.gethostname()[:120]
    return row.host == host and (row.pid == os.getpid() or leases.is_gone(row, host))


def _end_cut_short(session: Session, row: Any, *, now: datetime) -> None:
    """End a request whose process is gone, or seems to be: it has been at work for long, and no run holds the list."""
    still = [RunRequest.id == row.id, RunRequest.state == "taken", RunRequest.taken_at == row.taken_at]
    with transaction(session):
        if not _is_gone(row):
            held = exists().where(Lease.list_handle == row.list_handle, Lease.expires_at > database.clock(session))
            still.append(not_(held))
        session.execute(
            update(RunRequest)
            .where(*still)
            .values(
                state="unfinished",
                finished_at=now,
                message="it was interrupted",
                run_id=_run_of(row.list_handle, _trigger(row.id, row.asked_by)).scalar_subquery(),
            )
        )


def take(session: Session, waiting: Waiting, *, now: datetime) -> bool:
    """Take a request for this process; return whether it was still to be had."""
    with transaction(session):
        taken = session.scalar(
            update(RunRequest)
            .where(RunRequest.id == waiting.id, RunRequest.state == "waiting")
            .values(state="taken", slot=None, host=socket.gethostname()[:120], pid=os.getpid(), taken_at=now)
            .returning(RunRequest.id)
        )
    return taken is not None


def carry_out(session: Session, taken: Waiting, means: Means) -> "SyncResult":
    """Do what was asked for, and write what became of it.

    Raise what ``sync_list`` raises, and ForbiddenError where who asked has lost the right to since. Where another run
    held the list from the start, the request waits again.
    """
    from portal.services.sync.sync import Request, sync_list  # pages do not carry out, nor does cron most minutes

    with _ending_recorded(session, taken, means.clock):
        _require_right(session, taken)
        mailing_list = means.catalogue.get(taken.handle)
        manager = means.open_list_manager(mailing_list)
        if taken.kind is Kind.SHOW:
            return _show(session, taken, mailing_list, manager, clock=means.clock, state="done")
        only = taken.plan_id if taken.kind is Kind.APPLY else None
        request = Request(trigger=taken.trigger, only=only)
        try:
            sync_result = sync_list(session, mailing_list, manager, clock=means.clock, request=request)
        except PlanChangedError as error:
            _show(session, taken, mailing_list, manager, clock=means.clock, state="changed", message=str(error))
            raise
        _end(session, taken, now=means.clock(), state="done", run_id=sync_result.run_id)
        return sync_result


def _require_right(session: Session, taken: Waiting) -> None:
    if taken.asked_by_id is None:  # the command line
        return
    with reading(session):
        may = select(User.id).where(User.id == taken.asked_by_id, User.is_superuser, User.is_active)
        if session.scalar(may) is None:
            raise ForbiddenError(
                f"{taken.handle}: request {taken.id} is not carried out: who asked is no active superuser any more"
            )


def _show(
    session: Session, taken: Waiting, mailing_list: MailingList, manager: ListManager, *, clock: "Clock", **columns: Any
) -> "SyncResult":
    """Keep what a run would do now, line by line, what is dangerous first."""
    from portal.services.sync.sync import dry_run

    sync_result = dry_run(session, mailing_list, manager, clock=clock)
    plan = sync_result.plan
    lines = enumerate(sorted(plan.lines, key=_danger), start=1)
    for chunk in database.written_in_chunks(session, lines):
        with transaction(session):
            session.execute(insert(RequestLine), [_line(taken.id, position, each) for position, each in chunk])
    excess = plan.excess(mailing_list.safety_limits) or ""
    _end(session, taken, now=clock(), warning=excess[:200], **_counts(plan), **columns)
    return sync_result


def _danger(decision: Decision) -> tuple[bool, int, str]:
    return decision.held_back, _DANGEROUS_FIRST.index(decision.action), decision.row.canonical


def _line(request_id: int, position: int, decision: Decision) -> dict[str, Any]:
    return {
        "request_id": request_id,
        "position": position,
        "address_id": decision.row.address_id,
        "action": str(decision.action),
        "reason": str(decision.reason),
        "held": decision.held_back,
    }


def _counts(plan: Plan) -> dict[str, Any]:
    return {
        "found_plan_id": plan.id,
        "on_roster": plan.on_roster,
        "without_account": plan.without_account,
        "initialised": len(plan.of(Action.INIT)),
        "adds": len(plan.of(Action.ADD)),
        "removals": len(plan.of(Action.REMOVE)),
        "left": len(plan.of(Action.LEFT)),
        "joined": len(plan.of(Action.JOINED)),
        "held": sum(each.held_back for each in plan.lines),
        "doubtful": plan.doubtful if plan.is_in_doubt else 0,
    }


@contextmanager
def _ending_recorded(session: Session, taken: Waiting, clock: "Clock") -> Iterator[None]:
    """Write how a request ends that does not end well."""
    try:
        yield
    except PlanChangedError:
        raise  # shown again already
    except LeaseHeldError as error:
        if not _put_back(session, taken, message=str(error)):
            _end(session, taken, now=clock(), state="failed", message=str(error), run_id=_run_id(session, taken))
        raise
    except BaseException as error:
        state = "refused" if isinstance(error, SafetyLimitError) else "failed"
        message = str(error) if isinstance(error, PortalError) else f"interrupted: {type(error).__name__}"
        _end(session, taken, now=clock(), state=state, message=message, run_id=_run_id(session, taken))
        raise


def _put_back(session: Session, taken: Waiting, *, message: str) -> bool:
    """Let a request wait again whose run has not begun, unless another has been made since that asks for the same."""
    slot = " ".join(filter(None, (taken.kind, taken.handle, taken.plan_id)))
    again = exists().where(RunRequest.slot == slot)
    with transaction(session):
        has_begun = session.scalar(_run_of(taken.handle, taken.trigger)) is not None
        if has_begun or session.scalar(select(again)):
            return False
        session.execute(
            update(RunRequest)
            .where(RunRequest.id == taken.id, RunRequest.state == "taken")
            .values(state="waiting", slot=slot, pid=None, message=message[:400])
        )
    return True


def _end(session: Session, taken: Waiting, *, now: datetime, message: str = "", **columns: Any) -> None:
    with transaction(session):
        session.execute(
            update(RunRequest)
            .where(RunRequest.id == taken.id, RunRequest.state == "taken")
            .values(finished_at=now, message=message[:400], **columns)
        )


def _trigger(request_id: int, asked_by: str) -> str:
    return f"request {request_id} of {asked_by}"[:80]


def _run_id(session: Session, taken: Waiting) -> int | None:
    with reading(session):
        found: int | None = session.scalar(_run_of(taken.handle, taken.trigger))
        return found


def _run_of(handle: str, trigger: str) -> Any:
    """Select the run that was begun for a request."""
    return select(Run.id).where(Run.list_handle == handle, Run.trigger == trigger).order_by(Run.id.desc()).limit(1)


def find(session: Session, request_id: int) -> RequestReport:
    """Return one request. Raise UnknownRequestError."""
    with reading(session):
        found = session.execute(_reports().where(RunRequest.id == request_id)).first()
    if found is None:
        raise UnknownRequestError(f"no request has the number {request_id}; they are kept for {KEPT.days} days")
    return RequestReport._make(found)


def recent(
    session: Session, *, handle: str | None = None, before: int | None = None, limit: int = 50
) -> tuple[RequestReport, ...]:
    """Return requests, the newest first; ``before`` is the number of one that has been shown already."""
    query = _reports().order_by(RunRequest.id.desc()).limit(limit)
    if handle is not None:
        query = query.where(RunRequest.list_handle == handle)
    if before is not None:
        query = query.where(RunRequest.id < before)
    with reading(session):
        return tuple(map(RequestReport._make, session.execute(query)))


def _reports() -> Any:
    names = ("list_handle" if name == "handle" else name for name in RequestReport._fields)
    return select(*(getattr(RunRequest, name) for name in names))


def lines(session: Session, request_id: int, *, after: int = 0, limit: int = 100) -> tuple[LineReport, ...]:
    """Return lines of the plan that was found for a request, those of ``position`` and before left out."""
    query = (
        select(RequestLine.position, Address.spelling, RequestLine.action, RequestLine.reason, RequestLine.held)
        .outerjoin(Address, Address.id == RequestLine.address_id)
        .where(RequestLine.request_id == request_id, RequestLine.position > after)
        .order_by(RequestLine.position)
        .limit(limit)
    )
    with reading(session):
        return tuple(map(LineReport._make, session.execute(query)))
