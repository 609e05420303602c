"""What a good run leaves behind: preferences that took in what the roster said, lines that say what became of them."""

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
from portal.services.preference_rows import Finding
from portal.services.sync import runs
from portal.services.sync.runs import Begun
from portal.services.transaction import transaction

KEPT = timedelta(days=90)  # how long a preference outlives the last account that held its address


class Pushed(NamedTuple):
    """What became of one add or removal: is the address on the roster now, as it should be, and what was said."""

    on_roster: bool
    took: bool
    outcome: Outcome


class Ending(NamedTuple):
    """A decision and what it leaves behind; ``words`` are the list manager's where it did not take."""

    decision: Decision
    after: AddressState
    pushed: Pushed | None
    words: str | None


class NotTaken(NamedTuple):
    """An add or a removal that did not take: ``address`` is canonical, ``words`` are the list manager's."""

    action: Action
    address: str
    result: Result
    words: str


@dataclass
class Settled:
    """What did not take and is news, and the addresses that a choice got in the way of."""

    not_taken: list[NotTaken] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)  # a choice made meanwhile wins: nothing was written


def settle(
    session: Session,
    run: Begun,
    decisions: Iterable[Decision],
    pushed: Mapping[int, Pushed],
    *,
    now: datetime,
    is_partial: bool = False,
) -> Settled:
    """Write what a run found, in chunks; only rows that differ, and only where no choice was made meanwhile.

    ``is_partial``: the run was good for these decisions alone, and the rest waits for approval, so that no departure is
    dealt with and nothing is purged. Source: docs/semantics.md, "What a run does not trust".
    """
    endings = [_ending(each, pushed.get(each.row.address_id)) for each in decisions]
    if is_partial:
        endings = [_without_mark(each) for each in endings if each.pushed]
    settled = Settled()
    first_preferences = [each for each in endings if each.decision.action is Action.INIT]  # rule 1
    for chunk in database.written_in_chunks(session, first_preferences):
        with transaction(session):
            changes = [_first(run, each) for each in chunk]
            preference_rows.write_first_preferences(session, changes, actor=history.SYNC, now=now, is_seen=True)
    known = [each for each in endings if each.decision.row.state.preference is not None and _differs(each)]
    # A leave with an old address is followed before it is forgotten: a crash in between must not lose it.
    known.sort(key=lambda each: each.decision.row.moved_to is not None)
    for chunk in database.written_in_chunks(session, known):
        with transaction(session):
            _settle_chunk(session, run, chunk, settled, now=now)
    if not is_partial:
        _purge(session, run, [each.decision.row.address_id for each in endings if _is_over(each)], now=now)
    return settled


def _ending(decision: Decision, pushed: Pushed | None) -> Ending:
    push = PushResult(pushed.on_roster, pushed.outcome.result is Result.REJECTED) if pushed else None
    after = conclude(decision.state, decision.action, on_roster=decision.on_roster, push=push)
    words = None
    if pushed and not pushed.took:
        words = pushed.outcome.words or _WORDS.get(pushed.outcome.result) or _without_effect(decision.action)
    return Ending(decision, after, pushed, words)


def _without_mark(ending: Ending) -> Ending:
    """Leave it open whether a departure has been dealt with."""
    return ending._replace(after=replace(ending.after, is_dealt_with=ending.decision.row.state.is_dealt_with))


# Where the list manager has none.
_WORDS = {
    Result.PENDING: "waiting for a moderator",
    Result.CONFIRM: "waiting for the member's confirmation",
    Result.REJECTED: "refused without a reason",
}


def _without_effect(action: Action) -> str:
    return f"{'still' if action is Action.REMOVE else 'not'} on the list after it was {_DONE[action]}"


_DONE = {Action.ADD: "added", Action.REMOVE: "removed"}


def _differs(ending: Ending) -> bool:
    """Return True if there is anything to write: state, a refusal that came or went, or a line to settle."""
    row = ending.decision.row
    forgets_refusal = row.has_refusal and not ending.decision.held_back
    return ending.after != row.state or row.is_unread or forgets_refusal or ending.pushed is not None


def _first(run: Begun, ending: Ending) -> Change:
    row = ending.decision.row
    return Change(run.handle, row.address_id, row.canonical, ending.decision.on_roster, "init")


def _settle_chunk(session: Session, run: Begun, chunk: list[Ending], settled: Settled, *, now: datetime) -> None:
    """Write endings whose preference is still of the version that the plan read."""
    findings = [_finding(each) for each in chunk]
    written = preference_rows.settle(session, run.handle, findings, now=now)
    settled.stale |= {each.row.address_id for each in findings} - written.ids
    runs.record_outcomes(
        session,
        run,
        [(each.decision.row.address_id, each.pushed.outcome, each.words or "") for each in chunk if each.pushed],
    )
    runs.record_replaced(session, run, written.replaced)
    runs.settle_lines(session, run, sorted(written.ids))
    settled.not_taken += [
        NotTaken(each.decision.action, each.decision.row.canonical, each.pushed.outcome.result, each.words)
        for each in chunk
        if each.decision.row.address_id in written.ids
        and each.pushed
        and each.words
        and not each.decision.row.has_refusal
    ]


def _finding(ending: Ending) -> Finding:
    source = "link" if ending.decision.reason is Reason.LINK else "list"
    result = ending.pushed.outcome.result if ending.pushed and ending.words else None
    return Finding(ending.decision.row, ending.after, ending.words, ending.decision.held_back, source, result)


def _is_over(ending: Ending) -> bool:
    """Return True if no account and no roster holds the address any more; the purge checks all that it depends on."""
    return not (ending.decision.row.is_held or ending.after.seen)


def _purge(session: Session, run: Begun, address_ids: list[int], *, now: datetime) -> None:
    """Delete the preferences that outlived their account for long enough.

    Source: docs/semantics.md, "Users who are deleted".
    """
    for chunk in database.chunked(address_ids, 5_000):
        with transaction(session):
            preference_rows.purge(session, run.handle, chunk, let_go_before=now - KEPT)
            erasure.forget_unused(session, chunk)
