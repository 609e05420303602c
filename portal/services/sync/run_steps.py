"""The steps that a sync and a planned run share: the plan and its approval, the run's row, and its results."""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime

from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import MAX_LENGTH
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan, Reason
from portal.domain.roster_text import RosterLine
from portal.domain.run import IF_INTENDED, RunKind, RunState, in_order
from portal.errors import (
    PlanChangedError,
    PortalError,
    RosterInDoubtError,
    SafetyLimitError,
)
from portal.listmanagers.base import Outcome, Result
from portal.services import preference_rows, security_log
from portal.services.history import COMMAND_LINE, Actor, Change
from portal.services.sync import plans, runs
from portal.services.sync.runs import Origin, StartedRun
from portal.services.sync.settlement import FailedChange, PushOutcome, Settlement
from portal.services.transaction import reading, transaction

Clock = Callable[[], datetime]


Roster = Mapping[str, str]  # maps canonical addresses to the list manager's spellings, one a line


SUCCESSFUL = {Result.DONE, Result.ALREADY}


HELD_RESULTS = {Result.PENDING, Result.CONFIRM}


ASSUMED_DONE = Outcome(Result.DONE)  # for an address that somebody else pushed, until the roster is read


@dataclass(frozen=True)
class SyncResult:
    """The result of a run: its plan, and what an operator should know.

    ``tally`` counts adds, removals and those that did not take; ``new_failures`` are the latter unless they were known
    before. ``repaired`` are the ids of earlier interrupted runs. ``run_id`` is None for a dry run. ``token`` identifies
    a planned run to the caller who will end it.
    """

    run_id: int | None
    plan: Plan
    tally: Mapping[str, int] = field(default_factory=dict)
    new_failures: tuple[FailedChange, ...] = ()
    repaired: tuple[int, ...] = ()
    token: str = ""

    @property
    def counts(self) -> dict[str, int]:
        """The counts of what was done, or would be done in a dry run."""
        return in_order({**self.plan.counts, **self.tally})


@dataclass(frozen=True)
class Request:
    """Who requested a run, and how; ``run_id`` if the request waited.

    ``accept`` is the id of an approved plan. ``only`` is the id of a plan that was shown before: it is approved too,
    and no other is carried out. ``allow_empty``: a given roster may have no addresses. ``token`` is that of the planned
    run to end.
    """

    actor: Actor = COMMAND_LINE
    run_id: int | None = None
    accept: str | None = None
    allow_empty: bool = False
    only: str | None = None
    token: str | None = None


@dataclass(frozen=True)
class Work:
    """A run in progress: its list, clock, kind and request."""

    session: Session
    mailing_list: MailingList
    clock: Clock
    kind: RunKind
    request: Request

    @property
    def origin(self) -> Origin:
        """Where the run comes from, for its row in ``runs``."""
        return Origin(self.mailing_list.handle, self.kind, self.request.actor, self.request.run_id)


def by_address(lines: Iterable[RosterLine]) -> Roster:
    """Return the spellings of each address of a roster, one a line, as many as the column holds."""
    roster: dict[str, str] = {}
    for address, spelling in lines:
        known = roster.setdefault(address, spelling)
        if known != spelling and spelling not in (spellings := known.split("\n")):
            roster[address] = "\n".join([*spellings, spelling]) if len(known) + len(spelling) < MAX_LENGTH else known
    return roster


def checked_plan(work: Work, roster: Roster, *, with_options: Callable[[Plan], Plan]) -> tuple[Plan, bool]:
    """Return the plan, and whether it was approved by its id.

    ``with_options`` gives adds the options that go along with a move. Raise PlanChangedError, or SafetyLimitError if
    the plan needs approval and no part of it can go ahead without.
    """
    session, request = work.session, work.request
    with reading(session):
        plan = plans.make_plan(
            session, work.mailing_list, roster, now=work.clock(), is_planned_run=work.kind is RunKind.PLANNED
        )
    with refusals_recorded(work):
        plan = with_options(plan)
    if request.only not in {None, plan.id}:  # nothing failed, so this is no run; the plan is shown again
        raise PlanChangedError(
            f"{plan.handle}: the plan has changed, so nothing was done: it was {request.only} and is now {plan.id}",
            plan_id=plan.id,
        )
    is_accepted = plan.id in {request.accept, request.only}
    with refusals_recorded(work, plan):
        if plan.warning and not (is_accepted or plan.needs_no_approval):
            raise needs_approval(plan)
    return plan, is_accepted


def needs_approval(plan: Plan) -> SafetyLimitError:
    """Return the error for a plan that needs approval."""
    return SafetyLimitError(
        f"{plan.handle}: {plan.warning}{IF_INTENDED}, run again with: --accept {plan.id}", plan_id=plan.id
    )


def begin(work: Work, plan: Plan, *, is_accepted: bool) -> StartedRun:
    """Write the run and its lines before anything is pushed, and credit earlier runs with what they had done."""
    run = runs.begin(work.session, work.origin, now=work.clock(), plan=plan, is_accepted=is_accepted)
    explained = {
        each.row.address_id: Action.ADD if each.on_roster else Action.REMOVE
        for each in plan.decisions
        if each.state.seen is not each.row.state.seen
    }
    runs.record_explained(work.session, run, explained)
    return run


def write_first_preferences(work: Work, plan: Plan, roster: Roster) -> None:
    """Write the first preferences that are not among a plan's decisions."""
    if any(plan.first_preferences):
        from portal.services.sync import list_init  # most runs have none

        list_init.write_first_preferences(work.session, work.mailing_list, roster, now=work.clock())


def subscribe_new_members(work: Work, plan: Plan, lines: Collection[Decision]) -> Plan:
    """Write the preferences of new members among the lines about to be carried out: rule 1.

    Return the plan without those who chose or gave up the address in the meantime: an address without a row is never
    touched.
    """
    new = [each for each in lines if each.reason is Reason.NEW_MEMBER]
    if not new:
        return plan
    made: set[int] = set()
    for chunk in database.written_in_chunks(work.session, new):
        changes = [Change(plan.handle, each.row.address_id, each.row.canonical, True, "rule") for each in chunk]
        with transaction(work.session):
            written = preference_rows.write_new_members(work.session, changes, now=work.clock())
        made |= {each.address_id for each in written}
    left_out = {each.row.address_id for each in new} - made
    return replace(plan, decisions=tuple(each for each in plan.decisions if each.row.address_id not in left_out))


def never_added(plan: Plan) -> dict[int, PushOutcome]:
    """Return refusals for adds that are never made, unless members and operators have been shown them already."""
    refused = PushOutcome(
        on_roster=False,
        took=False,
        outcome=Outcome(Result.REJECTED, "the address of a mailing list is never added to a list"),
    )
    return {
        each.row.address_id: refused
        for each in plan.lines
        if each.reason is Reason.LIST_ADDRESS and not each.row.has_refusal
    }


def require_believable_after(plan: Plan, roster: Roster) -> None:
    """Raise RosterInDoubtError for an empty roster after a push that should have left subscribers."""
    if plan.staying and not roster:
        raise RosterInDoubtError(
            f"{plan.handle}: the roster is empty after the push, although {plan.staying} addresses should be on it",
            plan_id=plan.id,
        )


def outcome_of(decision: Decision, roster: Roster, outcome: Outcome = ASSUMED_DONE) -> PushOutcome:
    """Return whether an add or a removal took, judged by the roster alone, whatever the list manager reported."""
    on_roster = decision.row.canonical in roster
    took = on_roster is (decision.action is Action.ADD)
    if took and outcome.result not in SUCCESSFUL:
        outcome = outcome._replace(result=Result.DONE)
    elif not took and outcome.result in SUCCESSFUL:
        outcome = outcome._replace(result=Result.UNDONE)
    return PushOutcome(on_roster, took, outcome)


def finish(work: Work, run: StartedRun, pushed: Mapping[int, PushOutcome], settled: Settlement) -> None:
    """Store the end of a good run, the run's row last."""
    runs.settle_all_lines(work.session, run, except_for=settled.stale)
    runs.finish(work.session, run, state=RunState.DONE, now=work.clock(), counts=tally(pushed))


def tally(pushed: Mapping[int, PushOutcome]) -> dict[str, int]:
    """Count what took and what did not; a change that took and is on the roster was an add."""
    results = [each.outcome.result for each in pushed.values() if not each.took]
    return {
        "added": sum(each.took and each.on_roster for each in pushed.values()),
        "removed": sum(each.took and not each.on_roster for each in pushed.values()),
        "refused": results.count(Result.REJECTED),
        "waiting": sum(each in HELD_RESULTS for each in results),
        "no_effect": results.count(Result.UNDONE),
    }


def sync_result(
    run: StartedRun, plan: Plan, pushed: Mapping[int, PushOutcome], settled: Settlement, repaired: Sequence[int]
) -> SyncResult:
    """Return the result of a run that was carried out."""
    return SyncResult(run.run_id, plan, tally(pushed), tuple(settled.failures), tuple(repaired))


@contextmanager
def refusals_recorded(work: Work, plan: Plan | None = None) -> Iterator[None]:
    """Record a run for a sync that fails before its run has begun."""
    try:
        yield
    except PortalError as error:
        state = RunState.HELD if isinstance(error, SafetyLimitError) else RunState.FAILED
        runs.refuse(work.session, work.origin, now=work.clock(), state=state, message=str(error), plan=plan)
        if isinstance(error, SafetyLimitError):
            security_log.log("sync held", list=work.mailing_list.handle, plan=error.plan_id)
        raise


@contextmanager
def failure_recorded(work: Work, run: StartedRun) -> Iterator[None]:
    """Record the failure of a run; its lines stay open, and the next run repairs what they explain."""
    try:
        yield
    except BaseException as error:
        message = str(error) if isinstance(error, PortalError) else f"interrupted: {type(error).__name__}"
        runs.finish(work.session, run, state=RunState.FAILED, now=work.clock(), message=message)
        raise
