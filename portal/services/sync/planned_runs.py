"""Planned runs: the two halves of a sync, between which a shell script or another host pushes the changes.

Source: docs/semantics.md, "list-init".
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan, Reason, Row
from portal.domain.roster_text import RosterText
from portal.domain.run import RunKind, RunState
from portal.errors import NoPlannedRunError
from portal.listmanagers.base import ListManager
from portal.services.sync import leases, plans, runs
from portal.services.sync.abandonment import abandon_open, take_back
from portal.services.sync.carried_options import with_options_of_planned_run
from portal.services.sync.leases import HeldLease
from portal.services.sync.list_init import require_announced
from portal.services.sync.run_steps import (
    Clock,
    Request,
    SyncResult,
    Work,
    begin,
    by_address,
    checked_plan,
    failure_recorded,
    finish,
    never_added,
    outcome_of,
    require_believable_after,
    subscribe_new_members,
    sync_result,
    write_first_preferences,
)
from portal.services.sync.runs import PushedLine, StartedRun
from portal.services.sync.settlement import settle
from portal.services.transaction import reading

PLANNED_RUN_SECONDS = 3600.0


def begin_planned_run(
    session: Session,
    mailing_list: MailingList,
    text: RosterText,
    *,
    clock: Clock,
    request: Request,
    open_manager: Callable[[], ListManager] | None = None,
) -> tuple[SyncResult, int]:
    """Plan from a roster on a stream: take over changes at the list and write the run, but push nothing.

    ``open_manager`` opens the list manager if it may be asked for the options of people who moved. Return the result
    and the number of skipped lines. Raise the errors of ``sync_list``, UnreadableRosterError, and NoAddressesError for
    input without an address unless ``request.allow_empty``.
    """
    mailing_list.require_running()
    work = Work(session, mailing_list, clock, RunKind.PLANNED, request)
    roster = by_address(text)
    if not roster:
        require_announced(text, allow_empty=request.allow_empty)
    lease = leases.acquire(session, mailing_list.handle, seconds=PLANNED_RUN_SECONDS, outlives_process=True)
    try:
        repaired = abandon_open(session, mailing_list.handle, now=clock())
        plan, is_accepted = checked_plan(
            work,
            roster,
            with_options=lambda plan: with_options_of_planned_run(session, open_manager, plan, clock=clock),
        )
        plan = subscribe_new_members(work, plan, plan.lines)
        run = begin(work, plan, is_accepted=is_accepted)
        with failure_recorded(work, run), _taken_back_on_failure(work, run):
            write_first_preferences(work, plan, roster)
            unpushed = [each for each in plan.decisions if not each.is_pushed]
            settled = settle(session, run, unpushed, never_added(plan), now=clock())
    except BaseException:
        leases.release(session, lease)
        raise
    return replace(sync_result(run, plan, {}, settled, repaired), token=lease.token), text.invalid


def confirm_planned_run(
    session: Session, mailing_list: MailingList, text: RosterText, *, clock: Clock, request: Request
) -> SyncResult:
    """End a planned run with the roster that was read after the push.

    Raise NoPlannedRunError, UnreadableRosterError, NoAddressesError, RosterInDoubtError or LeaseHeldError; the run then
    stays open.
    """
    work = Work(session, mailing_list, clock, RunKind.PLANNED, request)
    roster = by_address(text)
    run, lease = open_planned_run(session, mailing_list.handle, token=request.token)
    if not roster:
        require_announced(text, allow_empty=request.allow_empty)
    plan = _plan_of_lines(work, run)
    pushed = {each.row.address_id: outcome_of(each, roster) for each in plan.decisions}
    require_believable_after(plan, roster)
    leases.renew(session, lease)  # someone else may have ended this run in the meantime, and another begun
    settled = settle(session, run, plan.decisions, pushed, now=clock())
    finish(work, run, pushed, settled)
    leases.release(session, lease)
    return sync_result(run, plan, pushed, settled, [])


def open_planned_run(session: Session, handle: str, *, token: str | None = None) -> tuple[StartedRun, HeldLease]:
    """Return the planned run of a list that waits for confirmation, and its lease.

    Raise NoPlannedRunError, also if a token is given and is not the run's.
    """
    with reading(session):
        lease = leases.of_planned_run(session, handle)
        run = runs.open_planned(session, handle)
    if run is None or lease is None:
        raise NoPlannedRunError(
            f"{handle}: no planned run is open; start one with: flask mailinglist list-init --plan {handle}"
        )
    if token not in {None, lease.token}:
        raise NoPlannedRunError(f"{handle}: the planned run with that token has ended, and another one is open")
    return run, lease


def _plan_of_lines(work: Work, run: StartedRun) -> Plan:
    """Return the pushed lines of a planned run as the plan that its end is settled with."""
    session, handle = work.session, run.handle
    with reading(session):
        lines = {each.address_id: each for each in runs.pushed_lines(session, run)}
        rows = plans.load_rows(session, work.mailing_list, lines, now=work.clock())
        staying = plans.count_staying(session, handle, leaving=lines)
    decisions = tuple(
        _decided(replace(row, version=line.version), line) for row in rows if (line := lines[row.address_id])
    )
    return Plan(handle, decisions, staying=staying)


def _decided(row: Row, line: PushedLine) -> Decision:
    on_roster = line.action is Action.REMOVE
    row = replace(row, version=line.version)  # a choice made since then makes it stale
    return Decision(row, row.state, on_roster, line.action, Reason.CHOSEN, line.spelling)


@contextmanager
def _taken_back_on_failure(work: Work, run: StartedRun) -> Iterator[None]:
    """If the first half of a planned run fails, take back everything that it applied except first preferences."""
    try:
        yield
    except BaseException:
        take_back(work.session, run, now=work.clock())
        raise


def abandon_planned_run(
    session: Session, mailing_list: MailingList, *, clock: Callable[[], datetime], token: str | None = None
) -> int:
    """End a planned run after a failed step, and release the list; return the run's id.

    What it took over from the list is restored. Its lines stay open, as when the list manager fails in a sync, so that
    the next run can tell pushed changes from people's own. Raise NoPlannedRunError, also if ``token`` is not the run's.
    """
    run, lease = open_planned_run(session, mailing_list.handle, token=token)
    take_back(session, run, now=clock())
    message = "it was abandoned because a step failed"
    runs.finish(session, run, state=RunState.FAILED, now=clock(), message=message)
    leases.release(session, lease)
    return run.run_id
