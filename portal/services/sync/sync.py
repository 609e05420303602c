"""The sync: read the roster, plan, push the difference, read the roster again, settle.

A planned run is the same in two halves, with the pushing left to a shell script or another host in between.
Source: docs/semantics.md, "Safety".
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import MAX_LENGTH, canonical, printable
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan, Reason, Row
from portal.domain.roster_text import RosterLine, RosterText
from portal.domain.run import RunKind, RunState, in_order
from portal.errors import (
    InvalidAddressError,
    ListManagerUnavailableError,
    NoPlannedRunError,
    PlanChangedError,
    PortalError,
    RosterInDoubtError,
    SafetyLimitError,
)
from portal.listmanagers.base import HoldsRequests, ListManager, OddSubscriber, Outcome, Result
from portal.services import security_log
from portal.services.history import COMMAND_LINE, Actor
from portal.services.sync import leases, plans, runs
from portal.services.sync.abandonment import abandon_open, take_back
from portal.services.sync.batches import Send, push_batch
from portal.services.sync.carried_options import sender_of_options, with_options
from portal.services.sync.leases import Held
from portal.services.sync.list_init import require_announced
from portal.services.sync.runs import Begun, Origin, PushedLine
from portal.services.sync.settlement import NotTaken, Pushed, Settled, settle
from portal.services.transaction import reading

Clock = Callable[[], datetime]
Roster = Mapping[str, str]  # canonical address to the list manager's spellings of it, one a line

PLANNED_RUN_SECONDS = 3600.0
_TAKEN = {Result.DONE, Result.ALREADY}
_HELD = {Result.PENDING, Result.CONFIRM}
_UNSAID = Outcome(Result.DONE)  # of an address that somebody else pushed, before the roster is read


@dataclass(frozen=True)
class SyncResult:
    """What became of one list's run: its plan, and what is news to an operator.

    ``tally`` counts what was added and removed, and what did not take; ``not_taken`` is what of that is new;
    ``repaired`` the numbers of earlier runs that had been interrupted; ``run_id`` is None for a dry run; ``token``
    names a planned run that is open to those who end it.
    """

    run_id: int | None
    plan: Plan
    tally: Mapping[str, int] = field(default_factory=dict)
    not_taken: tuple[NotTaken, ...] = ()
    repaired: tuple[int, ...] = ()
    token: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """Count what was done, or what would be done in a dry run."""
        return in_order({**self.plan.counts, **self.tally})


@dataclass(frozen=True)
class Request:
    """Who asked for a run, and how; ``run_id`` where it waited.

    ``accept`` is the id of a plan that is approved; ``only`` that of one that was shown before: it is approved too, and
    no other is carried out. ``allow_empty``: a roster that is handed in may hold no address.
    ``token`` is that of the one planned run that is to be ended.
    """

    actor: Actor = COMMAND_LINE
    run_id: int | None = None
    accept: str | None = None
    allow_empty: bool = False
    only: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class _Work:
    """One run in progress: who holds the list, by which clock, for whom."""

    session: Session
    mailing_list: MailingList
    clock: Clock
    kind: RunKind
    request: Request

    @property
    def origin(self) -> Origin:
        return Origin(self.mailing_list.handle, self.kind, self.request.actor, self.request.run_id)


def sync_list(
    session: Session, mailing_list: MailingList, manager: ListManager, *, clock: Clock, request: Request
) -> SyncResult:
    """Make the list manager agree with the portal, and the portal with what people did at the list.

    Raise PausedError, LeaseHeldError, RosterInDoubtError, PlanChangedError, ListManagerUnavailableError or
    NoSuchListError; nothing that the run had not finished is lost, the next one repairs it. Raise SafetyLimitError
    where the plan needs approval; what of it waits for none has been carried out.
    """
    mailing_list.require_running()
    work = _Work(session, mailing_list, clock, RunKind.SYNC, request)
    with leases.held(session, mailing_list.handle) as lease:
        repaired = abandon_open(session, mailing_list.handle, now=clock())
        with _refusals_recorded(work):
            leases.renew(session, lease, seconds=manager.timeout(0))
            roster = read_roster(manager.roster())
        plan, is_accepted = _checked_plan(work, roster, manager)
        if plan.warning and not is_accepted:
            _carry_out_unhindered(work, lease, manager, plan)
            raise _needs_approval(plan)
        run = _begin(work, plan, is_accepted=is_accepted)
        with _failure_recorded(work, run):
            plan = _withdraw(work, lease, manager, plan)
            pushed = _push(work, lease, manager, plan) | _never_added(plan)
            leases.renew(session, lease)  # what another run has settled meanwhile must not be overwritten
            settled = settle(session, run, plan.decisions, pushed, now=clock())
            _finish(work, run, pushed, settled)
    return _sync_result(run, plan, pushed, settled, repaired)


def _carry_out_unhindered(work: _Work, lease: Held, manager: ListManager, plan: Plan) -> None:
    """Push what waits for no approval, and take in what became of that alone; the run is held."""
    session, lines = work.session, plan.unhindered
    begun = runs.begin(session, work.origin, now=work.clock(), plan=plan, is_accepted=False, carried_out=lines)
    with _failure_recorded(work, begun):
        pushed = _push(work, lease, manager, replace(plan, decisions=lines))
        leases.renew(session, lease)  # as in a run that does all of its plan
        settle(session, begun, lines, pushed, now=work.clock(), is_partial=True)
        runs.finish(
            session,
            begun,
            state=RunState.HELD,
            now=work.clock(),
            message=str(_needs_approval(plan)),
            counts=_tally(pushed),
        )
    security_log.log("sync held", list=plan.handle, plan=plan.id)


def dry_run(session: Session, mailing_list: MailingList, manager: ListManager, *, clock: Clock) -> SyncResult:
    """Return what a sync would do now; write nothing and push nothing. Raise PausedError."""
    mailing_list.require_running()
    roster = read_roster(manager.roster())
    with reading(session):
        plan = plans.make_plan(session, mailing_list, roster, now=clock())
    return SyncResult(None, with_options(manager, plan))


def begin_planned_run(
    session: Session, mailing_list: MailingList, text: RosterText, *, clock: Clock, request: Request
) -> tuple[SyncResult, int]:
    """Plan from a roster on a stream: take over what the roster says, write the run, push nothing.

    Return the sync_result and the count of lines that were passed over. Raise what ``sync_list`` raises,
    UnreadableRosterError, and NoAddressesError for input without an address that was not announced as such by
    ``request.allow_empty``.
    """
    mailing_list.require_running()
    work = _Work(session, mailing_list, clock, RunKind.PLANNED, request)
    roster = by_address(text)
    if not roster:
        require_announced(text, allow_empty=request.allow_empty)
    lease = leases.acquire(session, mailing_list.handle, seconds=PLANNED_RUN_SECONDS, outlives_process=True)
    try:
        repaired = abandon_open(session, mailing_list.handle, now=clock())
        plan, is_accepted = _checked_plan(work, roster)
        run = _begin(work, plan, is_accepted=is_accepted)
        with _failure_recorded(work, run), _taken_back_on_failure(work, run):
            unpushed = [each for each in plan.decisions if not each.is_pushed]
            settled = settle(session, run, unpushed, _never_added(plan), now=clock())
    except BaseException:
        leases.release(session, lease)
        raise
    return replace(_sync_result(run, plan, {}, settled, repaired), token=lease.token), text.invalid


def confirm_planned_run(
    session: Session, mailing_list: MailingList, text: RosterText, *, clock: Clock, request: Request
) -> SyncResult:
    """End a planned run by the roster read after the pushing.

    Raise NoPlannedRunError, UnreadableRosterError, NoAddressesError, RosterInDoubtError or LeaseHeldError; the run
    then stays open.
    """
    work = _Work(session, mailing_list, clock, RunKind.PLANNED, request)
    roster = by_address(text)
    run, lease = open_planned_run(session, mailing_list.handle, token=request.token)
    if not roster:
        require_announced(text, allow_empty=request.allow_empty)
    plan = _plan_of_lines(work, run)
    pushed = {each.row.address_id: _judged(each, roster) for each in plan.decisions}
    _require_believable_after(plan, roster)
    leases.renew(session, lease)  # whoever ended this run meanwhile let others begin theirs
    settled = settle(session, run, plan.decisions, pushed, now=clock())
    _finish(work, run, pushed, settled)
    leases.release(session, lease)
    return _sync_result(run, plan, pushed, settled, [])


def open_planned_run(session: Session, handle: str, *, token: str | None = None) -> tuple[Begun, Held]:
    """Return the planned run of a list that waits for its end, and its lease.

    Raise NoPlannedRunError, where it is not the run that a token names too.
    """
    with reading(session):
        lease = leases.of_planned_run(session, handle)
        run = runs.open_planned(session, handle)
    if run is None or lease is None:
        raise NoPlannedRunError(f"{handle}: no planned run is open; begin one with: list-init --plan {handle}")
    if token not in {None, lease.token}:
        raise NoPlannedRunError(f"{handle}: the planned run of that token has ended; another one is open")
    return run, lease


def read_roster(addresses: Iterable[str]) -> Roster:
    """Return a list manager's answer, whatever its kind, as ``by_address`` does; an odd subscriber stands for itself.

    Raise ListManagerUnavailableError for what is not a roster.
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
                f"the list manager's answer holds what is not an address: {printable(str(spelling))}"
            ) from None


def by_address(lines: Iterable[RosterLine]) -> Roster:
    """Return the spellings of each address of a roster, one a line, as many as fit where they are stored."""
    roster: dict[str, str] = {}
    for address, spelling in lines:
        known = roster.setdefault(address, spelling)
        if known != spelling and spelling not in (spellings := known.split("\n")):
            roster[address] = "\n".join([*spellings, spelling]) if len(known) + len(spelling) < MAX_LENGTH else known
    return roster


def _checked_plan(work: _Work, roster: Roster, manager: ListManager | None = None) -> tuple[Plan, bool]:
    """Return the plan and whether it was approved by its id. There is no list manager to ask in a planned run.

    Raise PlanChangedError, or SafetyLimitError where the plan needs approval and nothing of it goes without.
    """
    session, request = work.session, work.request
    with reading(session):
        plan = plans.make_plan(
            session, work.mailing_list, roster, now=work.clock(), is_planned_run=work.kind is RunKind.PLANNED
        )
    if manager is not None:
        with _refusals_recorded(work):
            plan = with_options(manager, plan)
    if request.only not in {None, plan.id}:  # nothing went wrong, so it is no run: it is shown again
        raise PlanChangedError(
            f"{plan.handle}: the plan is not {request.only} any more, so nothing was done; it is now {plan.id}",
            plan_id=plan.id,
        )
    is_accepted = plan.id in {request.accept, request.only}
    with _refusals_recorded(work, plan):
        if plan.warning and not (is_accepted or plan.unhindered):
            raise _needs_approval(plan)
    return plan, is_accepted


def _needs_approval(plan: Plan) -> SafetyLimitError:
    return SafetyLimitError(
        f"{plan.handle}: {plan.warning}; if that is right, run again with: --accept {plan.id}", plan_id=plan.id
    )


def _begin(work: _Work, plan: Plan, *, is_accepted: bool) -> Begun:
    """Write the run and its lines before anything is pushed, and of earlier ones what they turn out to have done."""
    run = runs.begin(work.session, work.origin, now=work.clock(), plan=plan, is_accepted=is_accepted)
    explained = {
        each.row.address_id: Action.ADD if each.on_roster else Action.REMOVE
        for each in plan.decisions
        if each.state.seen is not each.row.state.seen
    }
    runs.record_explained(work.session, run, explained)
    return run


def _withdraw(work: _Work, lease: Held, manager: ListManager, plan: Plan) -> Plan:
    """Take back held adds that nobody wants any more; return the plan with those no longer waiting.

    Where nothing was held any more a moderator may just have let somebody in: that one goes on waiting, so that the
    next run takes it for our add and not for a join.
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


def _push(work: _Work, lease: Held, manager: ListManager, plan: Plan) -> dict[int, Pushed]:
    """Tell the list manager the difference, and read the roster again where anything was told.

    Leaving never waits behind somebody else's failing add; the old half of a move waits for the new one alone.
    """

    def renew(count: int) -> None:
        leases.renew(work.session, lease, seconds=manager.timeout(count))

    def send(call: Send, lines: Iterable[Decision]) -> None:
        spelled = ((each.row.address_id, spelling) for each in lines for spelling in each.spelling.split("\n"))
        for batch in database.chunked(spelled, manager.batch):
            answers = push_batch(manager, call, [spelling for _, spelling in batch], before_call=renew)
            for address_id, spelling in batch:
                if outcomes.get(address_id, _UNSAID).result in _TAKEN:  # the first failure stays
                    outcomes[address_id] = answers[spelling]

    outcomes: dict[int, Outcome] = {}
    removals = plan.of(Action.REMOVE)
    send(manager.remove, [each for each in removals if each.after is None])
    adds = plan.of(Action.ADD)
    send(manager.add, [each for each in adds if each.options is None])
    send(sender_of_options(manager, adds), [each for each in adds if each.options is not None])
    taken = {address_id for address_id, outcome in outcomes.items() if outcome.result in _TAKEN}
    send(manager.remove, [each for each in removals if each.after in taken])
    if not outcomes:
        return {}
    leases.renew(work.session, lease, seconds=manager.timeout(0))
    roster = read_roster(manager.roster())
    _require_believable_after(plan, roster)
    return {
        each.row.address_id: _judged(each, roster, outcomes[each.row.address_id])
        for each in plan.lines
        if each.row.address_id in outcomes
    }


def _never_added(plan: Plan) -> dict[int, Pushed]:
    """Return what a member and an operator are to read of adds that are never made, where they do not yet."""
    refused = Pushed(
        on_roster=False,
        took=False,
        outcome=Outcome(Result.REJECTED, "the address of a mailing list is never added to a list"),
    )
    return {
        each.row.address_id: refused
        for each in plan.lines
        if each.reason is Reason.LIST_ADDRESS and not each.row.has_refusal
    }


def _require_believable_after(plan: Plan, roster: Roster) -> None:
    if plan.staying and not roster:
        raise RosterInDoubtError(
            f"{plan.handle}: after the push the roster is empty although {plan.staying} addresses should be on it",
            plan_id=plan.id,
        )


def _plan_of_lines(work: _Work, run: Begun) -> Plan:
    """Return what a planned run had pushed, as the plan that its end is settled by."""
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
    row = replace(row, version=line.version)  # a choice made since makes it stale
    return Decision(row, row.state, on_roster, line.action, Reason.CHOSEN, line.spelling)


def _judged(decision: Decision, roster: Roster, outcome: Outcome = _UNSAID) -> Pushed:
    """Tell by the roster read afterwards whether an add or a removal took, whatever the list manager said."""
    on_roster = decision.row.canonical in roster
    took = on_roster is (decision.action is Action.ADD)
    if took and outcome.result not in _TAKEN:
        outcome = outcome._replace(result=Result.DONE)
    elif not took and outcome.result in _TAKEN:
        outcome = outcome._replace(result=Result.UNDONE)
    return Pushed(on_roster, took, outcome)


def _finish(work: _Work, run: Begun, pushed: Mapping[int, Pushed], settled: Settled) -> None:
    runs.settle_all_lines(work.session, run, except_for=settled.stale)
    runs.finish(work.session, run, state=RunState.DONE, now=work.clock(), counts=_tally(pushed))


def _tally(pushed: Mapping[int, Pushed]) -> dict[str, int]:
    """Count what took and what did not; what took and is on the roster now was added."""
    results = [each.outcome.result for each in pushed.values() if not each.took]
    return {
        "added": sum(each.took and each.on_roster for each in pushed.values()),
        "removed": sum(each.took and not each.on_roster for each in pushed.values()),
        "refused": results.count(Result.REJECTED),
        "waiting": sum(each in _HELD for each in results),
        "no_effect": results.count(Result.UNDONE),
    }


def _sync_result(
    run: Begun, plan: Plan, pushed: Mapping[int, Pushed], settled: Settled, repaired: Sequence[int]
) -> SyncResult:
    return SyncResult(run.run_id, plan, _tally(pushed), tuple(settled.not_taken), tuple(repaired))


@contextmanager
def _refusals_recorded(work: _Work, plan: Plan | None = None) -> Iterator[None]:
    """Write a run for a sync that ends before its run has begun."""
    try:
        yield
    except PortalError as error:
        state = RunState.HELD if isinstance(error, SafetyLimitError) else RunState.FAILED
        runs.refuse(work.session, work.origin, now=work.clock(), state=state, message=str(error), plan=plan)
        if isinstance(error, SafetyLimitError):
            security_log.log("sync held", list=work.mailing_list.handle, plan=error.plan_id)
        raise


@contextmanager
def _failure_recorded(work: _Work, run: Begun) -> Iterator[None]:
    """Write the failed end of a run; its lines stay open, and the next run repairs what they explain."""
    try:
        yield
    except BaseException as error:
        message = str(error) if isinstance(error, PortalError) else f"interrupted: {type(error).__name__}"
        runs.finish(work.session, run, state=RunState.FAILED, now=work.clock(), message=message)
        raise


@contextmanager
def _taken_back_on_failure(work: _Work, run: Begun) -> Iterator[None]:
    """See to it that the first half of a planned run that fails has applied nothing but first preferences."""
    try:
        yield
    except BaseException:
        take_back(work.session, run, now=work.clock())
        raise
