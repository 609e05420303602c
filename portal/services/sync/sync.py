"""The sync: read the roster, plan, push the difference, read the roster again, settle.

Source: docs/semantics.md, "What a run does not trust".
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace

from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import canonical, printable
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan
from portal.domain.roster_text import RosterLine
from portal.domain.run import RunKind, RunState
from portal.errors import InvalidAddressError, ListManagerUnavailableError
from portal.listmanagers.base import HoldsRequests, ListManager, OddSubscriber, Outcome
from portal.services import security_log
from portal.services.sync import leases, plans, runs
from portal.services.sync.abandonment import abandon_open
from portal.services.sync.batches import Send, push_batch
from portal.services.sync.carried_options import sender_of_options, with_options
from portal.services.sync.leases import HeldLease
from portal.services.sync.run_steps import (
    ASSUMED_DONE,
    SUCCESSFUL,
    Clock,
    Request,
    Roster,
    SyncResult,
    Work,
    begin,
    by_address,
    checked_plan,
    failure_recorded,
    finish,
    needs_approval,
    never_added,
    outcome_of,
    refusals_recorded,
    require_believable_after,
    subscribe_new_members,
    sync_result,
    tally,
    write_first_preferences,
)
from portal.services.sync.settlement import PushOutcome, settle
from portal.services.transaction import reading


def sync_list(
    session: Session, mailing_list: MailingList, manager: ListManager, *, clock: Clock, request: Request
) -> SyncResult:
    """Bring the list manager up to date with the portal, and the portal with changes made at the list.

    Raise PausedError, LeaseHeldError, RosterInDoubtError, PlanChangedError, ListManagerUnavailableError or
    NoSuchListError; the next run repairs what this one did not finish. Raise SafetyLimitError if the plan needs
    approval; the part that does not has been carried out.
    """
    mailing_list.require_running()
    work = Work(session, mailing_list, clock, RunKind.SYNC, request)
    with leases.held(session, mailing_list.handle) as lease:
        repaired = abandon_open(session, mailing_list.handle, now=clock())
        with refusals_recorded(work):
            leases.renew(session, lease, seconds=manager.timeout(0))
            roster = read_roster(manager.roster())
        plan, is_accepted = checked_plan(
            work, roster, with_options=lambda plan: with_options(session, manager, plan, clock=clock)
        )
        if plan.warning and not is_accepted:
            _carry_out_without_approval(work, lease, manager, plan)
            raise needs_approval(plan)
        plan = subscribe_new_members(work, plan, plan.lines)
        run = begin(work, plan, is_accepted=is_accepted)
        with failure_recorded(work, run):
            plan = _withdraw(work, lease, manager, plan)
            pushed = _push(work, lease, manager, plan) | never_added(plan)
            leases.renew(session, lease)  # do not overwrite what another run has settled in the meantime
            write_first_preferences(work, plan, roster)
            settled = settle(session, run, plan.decisions, pushed, now=clock())
            finish(work, run, pushed, settled)
    return sync_result(run, plan, pushed, settled, repaired)


def _carry_out_without_approval(work: Work, lease: HeldLease, manager: ListManager, plan: Plan) -> None:
    """Push the lines that need no approval and settle only those; the run is held."""
    session = work.session
    plan = subscribe_new_members(work, plan, plan.needs_no_approval)
    lines = plan.needs_no_approval
    begun = runs.begin(session, work.origin, now=work.clock(), plan=plan, is_accepted=False, carried_out=lines)
    with failure_recorded(work, begun):
        pushed = _push(work, lease, manager, replace(plan, decisions=lines))
        leases.renew(session, lease)  # as in a run that carries out its whole plan
        settle(session, begun, lines, pushed, now=work.clock(), is_partial=True)
        runs.finish(
            session,
            begun,
            state=RunState.HELD,
            now=work.clock(),
            message=str(needs_approval(plan)),
            counts=tally(pushed),
        )
    security_log.log("sync held", list=plan.handle, plan=plan.id)


def dry_run(session: Session, mailing_list: MailingList, manager: ListManager, *, clock: Clock) -> SyncResult:
    """Return what a sync would do now; write nothing and push nothing. Raise PausedError."""
    mailing_list.require_running()
    roster = read_roster(manager.roster())
    with reading(session):
        plan = plans.make_plan(session, mailing_list, roster, now=clock())
    return SyncResult(None, with_options(session, manager, plan, clock=clock, is_dry=True))


def read_roster(addresses: Iterable[str]) -> Roster:
    """Return a list manager's answer, of whatever kind, as ``by_address`` does; an odd subscriber is kept as it is.

    Raise ListManagerUnavailableError for an answer that is not a roster.
    """
    return by_address(_checked_lines(addresses))


def _checked_lines(addresses: Iterable[str]) -> Iterator[RosterLine]:
    for spelling in addresses:
        if isinstance(spelling, OddSubscriber):
            yield RosterLine(spelling, spelling)
            continue
        try:
            yield RosterLine(canonical(spelling), spelling)
        except (InvalidAddressError, AttributeError, TypeError):
            raise ListManagerUnavailableError(
                f"the list manager returned something that is not an address: {printable(str(spelling))}"
            ) from None


def _withdraw(work: Work, lease: HeldLease, manager: ListManager, plan: Plan) -> Plan:
    """Withdraw held adds that nobody wants any more; return the plan with those no longer waiting.

    If nothing was held any more, a moderator may just have approved the add. That address stays waiting, so that the
    next run sees our add and not a join.
    """
    unwanted = [each for each in plan.decisions if each.is_withdrawn]
    if not unwanted or not isinstance(manager, HoldsRequests):
        return plan
    withdrawn: set[str] = set()
    for batch in database.chunked(unwanted, manager.batch):
        leases.renew(work.session, lease, seconds=manager.timeout(len(batch)))
        withdrawn.update(manager.withdraw([each.spelling for each in batch]))
    return replace(plan, decisions=tuple(_without_waiting(each, withdrawn) for each in plan.decisions))


def _without_waiting(decision: Decision, withdrawn: Collection[str]) -> Decision:
    if not (decision.is_withdrawn and decision.spelling in withdrawn):
        return decision
    return replace(decision, state=replace(decision.state, waiting=False))


def _push(work: Work, lease: HeldLease, manager: ListManager, plan: Plan) -> dict[int, PushOutcome]:
    """Push the differences, and read the roster again if anything was pushed.

    A removal never waits for an unrelated add that fails; only the old address of a move waits for the new one.
    """

    def renew(count: int) -> None:
        leases.renew(work.session, lease, seconds=manager.timeout(count))

    def send(call: Send, lines: Iterable[Decision]) -> None:
        spelled = ((each.row.address_id, spelling) for each in lines for spelling in each.spelling.split("\n"))
        for batch in database.chunked(spelled, manager.batch):
            answers = push_batch(manager, call, [spelling for _, spelling in batch], before_call=renew)
            for address_id, spelling in batch:
                if outcomes.get(address_id, ASSUMED_DONE).result in SUCCESSFUL:  # the first failure counts
                    outcomes[address_id] = answers[spelling]

    outcomes: dict[int, Outcome] = {}
    removals = plan.of(Action.REMOVE)
    send(manager.remove, [each for each in removals if each.after is None])
    adds = plan.of(Action.ADD)
    send(manager.add, [each for each in adds if each.options is None])
    send(sender_of_options(manager, adds), [each for each in adds if each.options is not None])
    taken = {address_id for address_id, outcome in outcomes.items() if outcome.result in SUCCESSFUL}
    send(manager.remove, [each for each in removals if each.after in taken])
    if not outcomes:
        return {}
    leases.renew(work.session, lease, seconds=manager.timeout(0))
    roster = read_roster(manager.roster())
    require_believable_after(plan, roster)
    return {
        each.row.address_id: outcome_of(each, roster, outcomes[each.row.address_id])
        for each in plan.lines
        if each.row.address_id in outcomes
    }
