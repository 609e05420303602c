"""Settling a good run: preferences are updated from the roster, and lines get their results."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action, AddressState, PushResult, conclude
from portal.domain.plan import Decision, Reason
from portal.listmanagers.base import Outcome, Result
from portal.services import history, preference_rows
from portal.services.accounts import erasure
from portal.services.history import Change
from portal.services.preference_rows import PreferenceUpdate
from portal.services.sync import runs
from portal.services.sync.runs import StartedRun
from portal.services.transaction import transaction
from portal.translation import marked

KEPT = timedelta(days=90)  # how long a preference outlives the last account that held its address


class PushOutcome(NamedTuple):
    """The outcome of an add or removal: whether the address is on the roster, and whether the change took."""

    on_roster: bool
    took: bool
    outcome: Outcome


class DecisionResult(NamedTuple):
    """A decision and the state to store; ``words`` are the list manager's if the change did not take."""

    decision: Decision
    after: AddressState
    pushed: PushOutcome | None
    words: str | None


class FailedChange(NamedTuple):
    """An add or removal that did not take: ``address`` is canonical, ``words`` are the list manager's."""

    action: Action
    address: str
    result: Result
    words: str


@dataclass
class Settlement:
    """New failures, and the addresses for which a choice intervened."""

    failures: list[FailedChange] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)  # a choice made in the meantime wins, so nothing was written


def settle(
    session: Session,
    run: StartedRun,
    decisions: Iterable[Decision],
    pushed: Mapping[int, PushOutcome],
    *,
    now: datetime,
    is_partial: bool = False,
) -> Settlement:
    """Store the results of a run in chunks: only rows that differ, and where no choice was made in the meantime.

    ``is_partial``: the run was good for these decisions only and the rest waits for approval, so no departure is dealt
    with and nothing is purged. Source: docs/semantics.md, "What a run does not trust".
    """
    concluded = [_conclude(each, pushed.get(each.row.address_id)) for each in decisions]
    if is_partial:
        concluded = [_without_mark(each) for each in concluded if each.pushed]
    settled = Settlement()
    first_preferences = [each for each in concluded if each.decision.action is Action.INIT]  # rule 1
    for chunk in database.written_in_chunks(session, first_preferences):
        with transaction(session):
            changes = [_first(run, each) for each in chunk]
            preference_rows.write_first_preferences(session, changes, actor=history.SYNC, now=now, is_seen=True)
    known = [each for each in concluded if each.decision.row.state.preference is not None and _differs(each)]
    # A leave at an old address is followed before it is forgotten, so that a crash in between does not lose it.
    known.sort(key=lambda each: each.decision.row.moved_to is not None)
    for chunk in database.written_in_chunks(session, known):
        with transaction(session):
            _settle_chunk(session, run, chunk, settled, now=now)
    if not is_partial:
        _purge(session, run, [each.decision.row.address_id for each in concluded if _is_over(each)], now=now)
    return settled


def _conclude(decision: Decision, pushed: PushOutcome | None) -> DecisionResult:
    push = PushResult(pushed.on_roster, pushed.outcome.result is Result.REJECTED) if pushed else None
    after = conclude(decision.state, decision.action, on_roster=decision.on_roster, push=push)
    words = None
    if pushed and not pushed.took:
        words = pushed.outcome.words or _WORDS.get(pushed.outcome.result) or _NO_EFFECT[decision.action]
    return DecisionResult(decision, after, pushed, words)


def _without_mark(concluded: DecisionResult) -> DecisionResult:
    """Keep the departure mark as it is stored."""
    return concluded._replace(after=replace(concluded.after, is_dealt_with=concluded.decision.row.state.is_dealt_with))


# for when the list manager gave no reason
_WORDS = {
    Result.PENDING: marked("waiting for a moderator"),
    Result.CONFIRM: marked("waiting for the member's confirmation"),
    Result.REJECTED: marked("refused without a reason"),
}


_NO_EFFECT = {
    Action.ADD: marked("not on the list after it was added"),
    Action.REMOVE: marked("still on the list after it was removed"),
}


def _differs(concluded: DecisionResult) -> bool:
    """Return True if there is anything to write: a state, a refusal that came or went, or a line to settle."""
    row = concluded.decision.row
    forgets_refusal = row.has_refusal and not concluded.decision.held_back
    return concluded.after != row.state or row.is_unread or forgets_refusal or concluded.pushed is not None


def _first(run: StartedRun, concluded: DecisionResult) -> Change:
    row = concluded.decision.row
    return Change(run.handle, row.address_id, row.canonical, concluded.decision.on_roster, "init")


def _settle_chunk(
    session: Session, run: StartedRun, chunk: list[DecisionResult], settled: Settlement, *, now: datetime
) -> None:
    """Write the results whose preference still has the version that the plan read."""
    updates = [_update_of(each) for each in chunk]
    written = preference_rows.settle(session, run.handle, updates, now=now)
    settled.stale |= {each.row.address_id for each in updates} - written.ids
    runs.record_outcomes(
        session,
        run,
        [(each.decision.row.address_id, each.pushed.outcome, each.words or "") for each in chunk if each.pushed],
    )
    runs.record_replaced(session, run, written.replaced)
    runs.settle_lines(session, run, sorted(written.ids))
    settled.failures += [
        FailedChange(each.decision.action, each.decision.row.canonical, each.pushed.outcome.result, each.words)
        for each in chunk
        if each.decision.row.address_id in written.ids
        and each.pushed
        and each.words
        and not each.decision.row.has_refusal
    ]


def _update_of(concluded: DecisionResult) -> PreferenceUpdate:
    source = "link" if concluded.decision.reason is Reason.LINK else "list"
    result = concluded.pushed.outcome.result if concluded.pushed and concluded.words else None
    return PreferenceUpdate(
        concluded.decision.row, concluded.after, concluded.words, concluded.decision.held_back, source, result
    )


def _is_over(concluded: DecisionResult) -> bool:
    """Return True if neither an account nor the roster holds the address; the purge checks its other conditions."""
    return not (concluded.decision.row.is_held or concluded.after.seen)


def _purge(session: Session, run: StartedRun, address_ids: list[int], *, now: datetime) -> None:
    """Delete preferences that have outlived their account for long enough.

    Source: docs/semantics.md, "Users who are deleted".
    """
    for chunk in database.chunked(address_ids, 5_000):
        with transaction(session):
            preference_rows.purge(session, run.handle, chunk, let_go_before=now - KEPT)
            erasure.forget_unused(session, chunk)
