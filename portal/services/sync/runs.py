"""Runs and their lines: requested, claimed by one process, written before the first push, finished after the last."""

import os
import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    and_,
    bindparam,
    case,
    delete,
    exists,
    func,
    insert,
    literal,
    not_,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan
from portal.domain.run import IN_PROGRESS, NEVER_BEGUN, WAITS, RunKind, RunState
from portal.listmanagers.base import Outcome, Result
from portal.models import Lease, Run, RunLine
from portal.services import displaced_preferences
from portal.services.history import Actor
from portal.services.sync import leases
from portal.services.transaction import reading, transaction

LONGEST = timedelta(hours=1)  # how long a process on another host is assumed to run without a lease
KEPT = timedelta(days=90)  # for a run that never began

AT_ONCE = "a change"  # recorded as the requester on lists that apply changes immediately; no person is named

_INTERRUPTED = "it was interrupted"


@dataclass(frozen=True, slots=True)
class Origin:
    """The list, kind and requester of a run; ``run_id`` if the request waited."""

    handle: str
    kind: RunKind
    actor: Actor
    run_id: int | None = None


class RequestedRun(NamedTuple):
    """A waiting run. ``plan_id``: it applies only that plan; ``was_held``: another run held the list before."""

    id: int
    handle: str
    kind: RunKind
    plan_id: str | None
    actor: Actor
    was_held: bool


@dataclass(frozen=True, slots=True)
class StartedRun:
    """A run that has begun and not finished."""

    run_id: int
    handle: str


def request(
    session: Session, handle: str, *, kind: RunKind, actor: Actor, now: datetime, plan_id: str | None = None
) -> int:
    """Request a run and return its id, which is that of an equal request if one is still waiting."""
    slot = _slot(handle, kind, plan_id)
    with transaction(session):
        return int(
            session.execute(
                database.insert(session, Run)
                .values(
                    list_handle=handle,
                    kind=kind,
                    state=RunState.ASKED,
                    plan_id=plan_id,
                    asked_by_id=actor.user_id,
                    asked_by=actor.name[:80],
                    asked_at=now,
                    started_at=now,
                    slot=slot,
                )
                .on_conflict_do_update(index_elements=["slot"], set_={"slot": slot, **_requested_again(now)})
                .returning(Run.id)
            ).scalar_one()
        )


def request_at_once(session: Session, lists: Iterable[MailingList], *, now: datetime) -> None:
    """Request runs of lists that apply changes immediately, unless one waits already; in the caller's transaction."""
    rows = [
        {
            "list_handle": each.handle,
            "kind": RunKind.SYNC,
            "state": RunState.ASKED,
            "asked_by": AT_ONCE,
            "asked_at": now,
            "started_at": now,
            "slot": _slot(each.handle, RunKind.SYNC, None),
        }
        for each in sorted(lists, key=lambda each: each.handle)  # slots are always locked in this order
        if each.is_applied_at_once and not each.is_paused
    ]
    if rows:
        statement = database.insert(session, Run).on_conflict_do_update(
            index_elements=["slot"], set_=_requested_again(now), where=_is_forgotten(now)
        )
        session.execute(statement, rows)


def _requested_again(now: datetime) -> dict[str, Any]:
    """Return the values for requesting a waiting run again; its time to live starts again."""
    columns = {"asked_at": Run.asked_at, "started_at": Run.started_at}
    moment = literal(now, Run.asked_at.type)
    return {name: case((_is_forgotten(now), moment), else_=column) for name, column in columns.items()}


def _is_forgotten(now: datetime) -> ColumnElement[bool]:
    return Run.asked_at < now - KEPT


def _slot(handle: str, kind: RunKind, plan_id: str | None) -> str:
    return " ".join(filter(None, (kind, handle, plan_id)))


def due(session: Session, *, now: datetime) -> list[RequestedRun]:
    """Return waiting runs, the oldest first; drop interrupted ones and delete old ones. Mostly this is one query."""
    columns = (
        Run.id, Run.list_handle, Run.kind, Run.plan_id, Run.asked_by_id, Run.asked_by, Run.asked_at, Run.started_at,
        Run.state, Run.message, Run.pid, Run.pid_space,
    )  # fmt: skip
    is_old = and_(Run.state.in_(NEVER_BEGUN), _is_forgotten(now))
    waits = Run.state.in_([RunState.ASKED, RunState.TAKEN])
    with reading(session):
        found = session.execute(select(*columns).where(or_(waits, is_old)).order_by(Run.id)).all()
    for each in found:
        if each.state == RunState.TAKEN and (_is_gone(each) or abs(now - each.started_at) > LONGEST):
            _drop_cut_short(session, each, now=now)
    if any(each.asked_at < now - KEPT for each in found):
        with transaction(session):
            session.execute(delete(Run).where(is_old, Run.state != RunState.TAKEN))
    return [
        RequestedRun(
            each.id,
            each.list_handle,
            RunKind(each.kind),
            each.plan_id,
            Actor(each.asked_by_id, each.asked_by),
            bool(each.message),
        )
        for each in found
        if each.state == RunState.ASKED and each.asked_at >= now - KEPT
    ]


def _is_gone(row: Any) -> bool:
    """Return True if the process that claimed a run has ended.

    This process has claimed nothing yet, so its own id in a row belonged to an earlier process.
    """
    is_own = row.pid == os.getpid() and row.pid_space == leases.pid_space()
    return is_own or leases.is_gone(row)


def _drop_cut_short(session: Session, row: Any, *, now: datetime) -> None:
    """Drop a run whose process has ended, or seems to have: claimed long ago, while no run holds the list."""
    still = [Run.id == row.id, Run.state == RunState.TAKEN, Run.started_at == row.started_at]
    with transaction(session):
        if not _is_gone(row):
            held = exists().where(Lease.list_handle == row.list_handle, leases.is_open(database.clock(session)))
            still.append(not_(held))
        session.execute(update(Run).where(*still).values(state=RunState.DROPPED, finished_at=now, message=_INTERRUPTED))


def claim(session: Session, asked: RequestedRun, *, now: datetime) -> bool:
    """Claim a run for this process; return False if another has claimed it."""
    with transaction(session):
        taken = session.scalar(
            update(Run)
            .where(Run.id == asked.id, Run.state == RunState.ASKED)
            .values(state=RunState.TAKEN, slot=None, host=socket.gethostname()[:120])
            .values(pid=os.getpid(), pid_space=leases.pid_space())
            .values(started_at=now, message="")
            .returning(Run.id)
        )
    return taken is not None


def requeue(session: Session, taken: RequestedRun, *, message: str) -> bool:
    """Let a run that has not begun wait again, unless an equal one has been requested since."""
    slot = _slot(taken.handle, taken.kind, taken.plan_id)
    with transaction(session):
        if session.scalar(select(Run.id).where(Run.slot == slot)):
            return False
        waits = session.scalar(
            update(Run)
            .where(Run.id == taken.id, Run.state == RunState.TAKEN)
            .values(state=RunState.ASKED, slot=slot, pid=None, message=message[:400])
            .returning(Run.id)
        )
    return waits is not None


def drop(session: Session, taken: RequestedRun, *, now: datetime, message: str) -> None:
    """Record why a run could not begin; a run that has begun records its own end."""
    with transaction(session):
        session.execute(
            update(Run)
            .where(Run.id == taken.id, Run.state == RunState.TAKEN)
            .values(state=RunState.DROPPED, finished_at=now, message=message[:400])
        )


def drop_requested(session: Session, *, now: datetime, message: str) -> int:
    """Drop every waiting or claimed run, in the caller's transaction; return how many."""
    dropped: Any = session.execute(
        update(Run)
        .where(Run.state.in_([RunState.ASKED, RunState.TAKEN]))
        .values(state=RunState.DROPPED, slot=None, finished_at=now, message=message)
    )
    count: int = dropped.rowcount
    return count


def show(session: Session, taken: RequestedRun, plan: Plan, *, now: datetime, state: RunState, message: str) -> None:
    """Store the plan of a sync line by line instead of carrying it out."""
    chunks = database.written_in_chunks(session, plan.lines)
    for chunk in chunks:
        with transaction(session):
            _insert_lines(session, taken.id, plan, chunk, carried_out=())
    with transaction(session):
        session.execute(
            update(Run)
            .where(Run.id == taken.id, Run.state == RunState.TAKEN)
            .values(state=state, finished_at=now, message=message[:400], **_found(plan), **_counts_of_plan(plan))
        )


def begin(
    session: Session,
    origin: Origin,
    *,
    now: datetime,
    plan: Plan,
    is_accepted: bool,
    carried_out: Collection[Decision] | None = None,
) -> StartedRun:
    """Write a run and the lines of its plan before anything is pushed.

    ``carried_out`` are the lines that it carries out while others wait for approval.
    """
    state = RunState.PLANNED if origin.kind is RunKind.PLANNED else RunState.OPEN
    counts = _counts_of_plan(plan) if carried_out is None else {}
    with transaction(session):
        run_id = _write(session, origin, now=now, state=state, accepted=is_accepted, **_found(plan), **counts)
        if carried_out is not None:
            _forget_waiting_lines(session, origin.handle)
        _insert_lines(session, run_id, plan, plan.lines, carried_out=plan.lines if carried_out is None else carried_out)
        displaced_preferences.forget_added(session, plan.handle, run_id)  # what we add, we may remove
    return StartedRun(run_id, origin.handle)


def refuse(
    session: Session, origin: Origin, *, now: datetime, state: RunState, message: str, plan: Plan | None
) -> None:
    """Record a run that ended before it changed anything: held for approval, in doubt, or without a roster.

    Lines that wait for approval are stored for approval; of each list only the last plan's.
    """
    found = _found(plan) if plan else {}
    with transaction(session):
        run_id = _write(session, origin, now=now, state=state, finished_at=now, message=message[:400], **found)
        if plan is not None and state is RunState.HELD:
            _forget_waiting_lines(session, origin.handle)
            _insert_lines(session, run_id, plan, plan.lines, carried_out=())


def _forget_waiting_lines(session: Session, handle: str) -> None:
    """Delete the lines of a list's earlier runs that wait for approval."""
    earlier = select(Run.id).where(Run.list_handle == handle, Run.state == RunState.HELD)
    waited = or_(RunLine.result == WAITS, RunLine.held)
    session.execute(delete(RunLine).where(RunLine.run_id.in_(earlier), waited))


def _write(session: Session, origin: Origin, *, now: datetime, **columns: Any) -> int:
    """Write a run into its own row if it was requested, else into a new one; return its id."""
    columns |= {"started_at": now, "host": socket.gethostname()[:120]}
    if origin.run_id is not None:
        session.execute(update(Run).where(Run.id == origin.run_id).values(**columns))
        return origin.run_id
    asked_by_id, name = origin.actor
    run = Run(list_handle=origin.handle, kind=origin.kind, asked_by_id=asked_by_id, asked_by=name[:80], **columns)
    session.add(run)
    session.flush()
    return run.id


def _insert_lines(
    session: Session, run_id: int, plan: Plan, lines: Iterable[Decision], *, carried_out: Collection[Decision]
) -> None:
    """Write the lines of a plan; those that are not carried out are settled from the start."""
    open_ids = {each.row.address_id for each in carried_out if not each.held_back}
    for chunk in database.chunked(lines, database.chunk_size(session)):
        session.execute(insert(RunLine), [_line(run_id, plan, each, open_ids) for each in chunk])


def _found(plan: Plan) -> dict[str, Any]:
    return {"plan_id": plan.id, "on_roster": plan.on_roster, "without_account": plan.without_account}


def _counts_of_plan(plan: Plan) -> dict[str, int]:
    counts = plan.counts
    return {name: counts[name] for name in ("initialised", "left", "joined", "held")}


def _line(run_id: int, plan: Plan, decision: Decision, open_ids: Collection[int]) -> dict[str, Any]:
    address_id = decision.row.address_id
    is_waiting = address_id in plan.approval.waiting and address_id not in open_ids
    return {
        "run_id": run_id,
        "address_id": address_id,
        "list_handle": plan.handle,
        "address": decision.row.canonical,
        "spelling": decision.spelling,
        "action": str(decision.action),
        "reason": str(decision.reason),
        "held": decision.held_back,
        "version": decision.row.version,
        "counts": address_id in plan.approval.counted,
        "result": WAITS if is_waiting else None,
        # A run that does nothing leaves nothing to settle or to explain.
        "settled": address_id not in open_ids,
    }


def finish(
    session: Session,
    run: StartedRun,
    *,
    state: RunState,
    now: datetime,
    message: str = "",
    counts: Mapping[str, int] | None = None,
) -> None:
    """Record the end of a run, its last step; a run that another has given up as lost stays so."""
    with transaction(session):
        session.execute(
            update(Run)
            .where(Run.id == run.run_id, Run.state.in_(IN_PROGRESS))
            .values(state=state, finished_at=now, message=message[:400], **(counts or {}))
        )


def abandon_open(session: Session, handle: str) -> list[int]:
    """Mark a list's runs that never ended as unfinished; return their ids. The caller holds the lease."""
    with transaction(session):
        return list(
            session.scalars(
                update(Run)
                .where(Run.list_handle == handle, Run.state.in_(IN_PROGRESS))
                .values(state=RunState.UNFINISHED, message=_INTERRUPTED)
                .returning(Run.id)
            )
        )


def open_planned(session: Session, handle: str) -> StartedRun | None:
    """Return the planned run of a list that waits for confirmation, or None."""
    run_id = session.scalars(
        select(Run.id).where(Run.list_handle == handle, Run.state == RunState.PLANNED).order_by(Run.id.desc())
    ).first()
    return StartedRun(run_id, handle) if run_id else None


class PushedLine(NamedTuple):
    """An add or removal of a run that is sent to the list manager; spellings are one a line."""

    address_id: int
    spelling: str
    action: Action
    version: int


def pushed_lines(session: Session, run: StartedRun, *, action: Action | None = None) -> Iterator[PushedLine]:
    """Yield the lines of a run that are not held back, sorted by address."""
    query = (
        select(RunLine.address_id, RunLine.spelling, RunLine.action, RunLine.version)
        .where(RunLine.run_id == run.run_id, not_(RunLine.held), RunLine.action.in_(["add", "remove"]))
        .order_by(RunLine.address.collate(database.code_points(session)))
    )
    if action is not None:
        query = query.where(RunLine.action == str(action))
    for row in session.execute(query):
        yield PushedLine(row.address_id, row.spelling, Action(row.action), row.version)


def record_outcomes(session: Session, run: StartedRun, outcomes: Sequence[tuple[int, Outcome, str]]) -> None:
    """Store the outcomes of lines (address id, outcome, words), in the caller's transaction."""
    if not outcomes:
        return
    table: Any = RunLine.__table__
    session.execute(
        update(table)
        .where(table.c.run_id == run.run_id, table.c.address_id == bindparam("of_address"))
        .values(result=bindparam("new_result"), words=bindparam("new_words")),
        [
            {"of_address": address_id, "new_result": str(outcome.result), "new_words": (words or outcome.words)[:200]}
            for address_id, outcome, words in outcomes
        ],
    )


def record_replaced(session: Session, run: StartedRun, replaced: Sequence[tuple[int, str]]) -> None:
    """Store what take-overs replaced (address id, JSON), in the caller's transaction."""
    if not replaced:
        return
    table: Any = RunLine.__table__
    session.execute(
        update(table)
        .where(table.c.run_id == run.run_id, table.c.address_id == bindparam("of_address"))
        .values(replaced=bindparam("new_replaced")),
        [{"of_address": address_id, "new_replaced": text} for address_id, text in replaced],
    )


def settle_all_lines(session: Session, run: StartedRun, *, except_for: Collection[int]) -> None:
    """Mark lines as settled at the end of a good run, except those where a choice intervened."""
    with transaction(session):
        session.execute(
            update(RunLine)
            .where(
                RunLine.list_handle == run.handle, not_(RunLine.settled), RunLine.address_id.not_in(sorted(except_for))
            )
            .values(settled=True)
        )


def record_explained(session: Session, run: StartedRun, acts: Mapping[int, Action]) -> None:
    """Record, and count, what earlier unfinished runs had done, as the roster shows now.

    ``acts`` maps address ids to the adds and removals that the roster shows. The function is idempotent.
    """
    for action in (Action.ADD, Action.REMOVE):
        address_ids = [address_id for address_id, act in acts.items() if act is action]
        for chunk in database.chunked(address_ids, 5_000):
            with transaction(session):
                session.execute(
                    update(RunLine)
                    .where(RunLine.list_handle == run.handle, RunLine.run_id != run.run_id)
                    .where(RunLine.address_id.in_(chunk), RunLine.action == str(action))
                    .where(not_(RunLine.settled), RunLine.result.is_(None))
                    .values(result=Result.DONE)
                )
    if acts:
        _count_explained(session, run)


def _count_explained(session: Session, run: StartedRun) -> None:
    left_open = select(RunLine.run_id).where(RunLine.list_handle == run.handle, not_(RunLine.settled))
    done = select(func.count()).where(RunLine.run_id == Run.id, RunLine.result == Result.DONE)
    with transaction(session):
        session.execute(
            update(Run)
            .where(Run.id.in_(left_open), Run.state.in_([RunState.FAILED, RunState.UNFINISHED]))
            .values(
                added=done.where(RunLine.action == "add").correlate(Run).scalar_subquery(),
                removed=done.where(RunLine.action == "remove").correlate(Run).scalar_subquery(),
            )
        )


def settle_lines(session: Session, run: StartedRun, address_ids: Iterable[int]) -> None:
    """Mark lines as settled because preferences reflect their results; in the caller's transaction."""
    for chunk in database.chunked(address_ids, 5_000):
        session.execute(
            update(RunLine)
            .where(RunLine.list_handle == run.handle, RunLine.address_id.in_(chunk), not_(RunLine.settled))
            .values(settled=True)
        )
