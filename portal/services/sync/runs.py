"""Runs and their lines: written before the first push, finished after the last."""

import socket
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, insert, not_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan
from portal.listmanagers.base import Outcome
from portal.models import Run, RunLine
from portal.services.transaction import transaction


@dataclass(frozen=True, slots=True)
class Begun:
    """A run that has been written and is not finished."""

    run_id: int
    handle: str


def begin(
    session: Session, handle: str, *, kind: str, trigger: str, now: datetime, plan: Plan, is_accepted: bool
) -> Begun:
    """Write a run and the lines of its plan, before anything is pushed."""
    with transaction(session):
        run_id = _insert(
            session, handle, kind=kind, trigger=trigger, now=now, plan=plan, accepted=is_accepted, **_counts(plan)
        )
        _insert_lines(session, run_id, plan)
    return Begun(run_id, handle)


def record_refusal(
    session: Session,
    handle: str,
    *,
    kind: str,
    trigger: str,
    now: datetime,
    result: str,
    message: str,
    plan: Plan | None,
) -> None:
    """Write a run that ended before it began: by the safety limits, in doubt, or without a roster.

    A plan that exceeds the safety limits is kept line by line, for who has to approve it; of a list, the last one.
    """
    with transaction(session):
        run_id = _insert(
            session, handle, kind=kind, trigger=trigger, now=now, plan=plan,
            finished_at=now, result=result, message=message[:400],
        )  # fmt: skip
        if plan is not None and result == "refused":
            earlier = select(Run.id).where(Run.list_handle == handle, Run.result == "refused")
            session.execute(delete(RunLine).where(RunLine.run_id.in_(earlier)))
            _insert_lines(session, run_id, plan, settled=True)  # nothing was done, so nothing is left to explain


def _insert(
    session: Session, handle: str, *, kind: str, trigger: str, now: datetime, plan: Plan | None, **columns: Any
) -> int:
    run = Run(
        list_handle=handle,
        kind=kind,
        trigger=trigger[:80],
        host=socket.gethostname()[:120],
        started_at=now,
        **(_found(plan) if plan else {}),
        **columns,
    )
    session.add(run)
    session.flush()
    return run.id


def _insert_lines(session: Session, run_id: int, plan: Plan, **columns: Any) -> None:
    for chunk in database.chunked(plan.lines, database.chunk_size(session)):
        session.execute(insert(RunLine), [{**_line(run_id, plan.handle, each), **columns} for each in chunk])


def _found(plan: Plan) -> dict[str, Any]:
    return {"plan_id": plan.id, "on_roster": plan.on_roster, "without_account": plan.without_account}


def _counts(plan: Plan) -> dict[str, int]:
    return {
        "initialised": len(plan.of(Action.INIT)),
        "left": len(plan.of(Action.LEFT)),
        "joined": len(plan.of(Action.JOINED)),
        "held": sum(each.held_back for each in plan.lines),
    }


def _line(run_id: int, handle: str, decision: Decision) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "address_id": decision.row.address_id,
        "list_handle": handle,
        "address": decision.row.canonical,
        "spelling": decision.spelling,
        "action": str(decision.action),
        "reason": str(decision.reason),
        "held": decision.held_back,
        "version": decision.row.version,
        "settled": decision.held_back,  # nothing is done about it, so nothing is left to take in
    }


def finish(
    session: Session,
    run: Begun,
    *,
    result: str,
    now: datetime,
    message: str = "",
    counts: Mapping[str, int] | None = None,
) -> None:
    """Write the end of a run, the last thing that it does; one that another has given up for lost stays so."""
    with transaction(session):
        session.execute(
            update(Run)
            .where(Run.id == run.run_id, Run.result == "open")
            .values(result=result, finished_at=now, message=message[:400], **(counts or {}))
        )


def abandon_open(session: Session, handle: str) -> list[int]:
    """Mark runs of a list that never ended as unfinished; return their numbers. The caller holds the lease."""
    with transaction(session):
        return list(
            session.scalars(
                update(Run)
                .where(Run.list_handle == handle, Run.result == "open")
                .values(result="unfinished", message="it was interrupted")
                .returning(Run.id)
            )
        )


def open_planned(session: Session, handle: str) -> Begun | None:
    """Return the planned run of a list that waits for its confirmation."""
    run_id = session.scalars(
        select(Run.id)
        .where(Run.list_handle == handle, Run.kind == "planned", Run.result == "open")
        .order_by(Run.id.desc())
    ).first()
    return Begun(run_id, handle) if run_id else None


class PushedLine(NamedTuple):
    """An add or removal of a run that the list manager was, or is to be, told about."""

    address_id: int
    spelling: str
    action: Action
    version: int


def pushed_lines(session: Session, run: Begun, *, action: Action | None = None) -> Iterator[PushedLine]:
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


def record_outcomes(session: Session, run: Begun, outcomes: Sequence[tuple[int, Outcome, str]]) -> None:
    """Write what became of lines (address id, outcome, words); inside the caller's transaction."""
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


def settle_all_lines(session: Session, run: Begun, *, except_for: Collection[int]) -> None:
    """Note, at the end of a good run, that nothing is left to explain but what a choice got in the way of."""
    with transaction(session):
        session.execute(
            update(RunLine)
            .where(
                RunLine.list_handle == run.handle, not_(RunLine.settled), RunLine.address_id.not_in(sorted(except_for))
            )
            .values(settled=True)
        )


def settle_lines(session: Session, run: Begun, address_ids: Iterable[int]) -> None:
    """Note that preferences have taken in what became of lines; inside the caller's transaction."""
    for chunk in database.chunked(address_ids, 5_000):
        session.execute(
            update(RunLine)
            .where(RunLine.list_handle == run.handle, RunLine.address_id.in_(chunk), not_(RunLine.settled))
            .values(settled=True)
        )
