"""A plan: what a run would do with one list, as data, and whether it stays within the safety limits."""

import hashlib
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cached_property

from portal.domain.address import outgoing
from portal.domain.mailinglist import MailingList, SafetyLimits
from portal.domain.merge import Action, AddressState, Rules, decide, explain, follow_leave


class Reason(StrEnum):
    """Why a line stands in a plan."""

    CHOSEN = "chosen"  # the portal changed: rule 3
    DEPARTED = "departed"  # nobody who may see the list holds the address: rule 4
    LIST = "list"  # the roster moved: rule 2
    LIST_ADDRESS = "list address"  # held back: it is the address of a mailing list
    MOVED = "moved"  # the holder changed to another address
    REFUSED = "refused"  # held back: the list manager refused it less than a day ago
    SUCCESSOR = "successor"  # held back: the address that the holder changed to is not on the list yet


@dataclass(frozen=True, slots=True)
class Row:
    """What the portal knows of one address on one list.

    ``has_refusal``: the list manager's last word was no; ``is_fresh_refusal``: less than a day ago;
    ``has_waited_long``: an add has been waiting for so long that it no longer counts as waiting.
    """

    address_id: int
    canonical: str
    spelling: str
    state: AddressState
    version: int = 0
    moved_to: int | None = None
    is_held: bool = True  # some account, active or not, holds the address
    has_refusal: bool = False
    is_fresh_refusal: bool = False
    has_waited_long: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """What a run makes of one row.

    ``state`` is the row's, with our own unfinished acts and a leave that follows the person taken into account.
    ``spelling`` is as the list manager is told, or the roster's spellings, one a line. ``after`` is the address whose
    add must be done first.
    """

    row: Row
    state: AddressState
    on_roster: bool
    action: Action
    reason: Reason
    spelling: str
    held_back: bool = False
    after: int | None = None

    @property
    def stays(self) -> bool:
        """Tell whether the address is on the roster, is wanted there, and is not removed."""
        wanted = self.action in {Action.INIT, Action.JOINED} or self.state.preference is True
        return self.on_roster and wanted and not (self.action is Action.REMOVE and self.is_pushed)

    @property
    def is_pushed(self) -> bool:
        """Tell whether the list manager is told about it."""
        return self.action in {Action.ADD, Action.REMOVE} and not self.held_back

    @property
    def is_withdrawn(self) -> bool:
        """Tell whether an add waits at the list manager that nobody wants any more."""
        return self.state.waiting and not self.state.preference and not self.on_roster


@dataclass(frozen=True)
class Plan:
    """What a run would do with one list.

    ``seen_on`` counts the addresses seen on, ``doubtful`` those of them whose preference is subscribed, which make an
    empty roster doubtful; ``staying`` those on the roster that are wanted there and that the run does not remove, which
    make an empty roster after the push doubtful; ``without_account`` those on the roster that no account holds.
    """

    handle: str
    decisions: tuple[Decision, ...]
    on_roster: int
    without_account: int
    seen_on: int
    doubtful: int
    staying: int

    @cached_property
    def lines(self) -> tuple[Decision, ...]:
        """Adds, removals and take-overs, held-back ones included."""
        return tuple(each for each in self.decisions if each.action not in {Action.NOTHING, Action.INIT})

    def of(self, action: Action) -> list[Decision]:
        """Return the decisions of one kind that are not held back."""
        return [each for each in self.decisions if each.action is action and not each.held_back]

    @cached_property
    def id(self) -> str:
        """Name the plan by what it does: 16 hex digits over its lines, held-back ones left out."""
        text = sorted(
            f"{self.handle}\t{each.action}\t{each.row.canonical}" for each in self.lines if not each.held_back
        )
        return hashlib.sha256("\n".join(text).encode()).hexdigest()[:16]

    @property
    def counts(self) -> dict[str, int]:
        """Count what a run would do, by the names that a run counts by."""
        return {
            "added": len(self.of(Action.ADD)),
            "removed": len(self.of(Action.REMOVE)),
            "joined": len(self.of(Action.JOINED)),
            "left": len(self.of(Action.LEFT)),
            "initialised": len(self.of(Action.INIT)),
            "held": sum(each.held_back for each in self.lines),
        }

    @property
    def is_in_doubt(self) -> bool:
        """Tell whether the roster is empty although subscribed addresses were on it."""
        return self.on_roster == 0 and self.doubtful > 0

    def warning(
        self, limits: SafetyLimits, *, approved: Collection[tuple[int, Action]] = (), is_announced: bool = False
    ) -> str:
        """Say why a sync does not carry the plan out without approval; nothing where it does.

        ``is_announced``: somebody said that the roster may be empty.
        """
        if self.is_in_doubt and not is_announced:
            return f"the roster is empty although {self.doubtful} subscribed addresses were on it"
        excess = self.excess(limits, approved=approved)
        return f"this plan exceeds the safety limits: {excess}" if excess else ""

    def excess(self, limits: SafetyLimits, *, approved: Collection[tuple[int, Action]] = ()) -> str | None:
        """Return in words what exceeds the safety limits, if anything; ``approved`` lines were approved before."""
        gone = _counted(self.of(Action.REMOVE) + self.of(Action.LEFT), approved)
        if gone > limits.removals and gone * 100 > limits.removals_percent * self.seen_on:
            return f"it takes {gone} of {self.seen_on} addresses off the list or as having left"
        added = _counted(self.of(Action.ADD), approved)
        if added > limits.additions and added * 100 > limits.additions_percent * self.on_roster:
            return f"it adds {added} addresses to {self.on_roster} on the list"
        return None


def _counted(lines: Iterable[Decision], approved: Collection[tuple[int, Action]]) -> int:
    return sum((each.row.address_id, each.action) not in approved for each in lines)


def rules_of(mailing_list: MailingList) -> Rules:
    """Return what a list's configuration lets the merge do."""
    return Rules(
        honour_list_changes=mailing_list.honour_list_changes,
        remove_on_departure=mailing_list.remove_on_departure,
        never_added=mailing_list.never_added,
    )


def decide_rows(
    rows: Iterable[Row],
    roster: Mapping[str, str],
    *,
    rules: Rules,
    our_acts: Mapping[int, Action],
    is_planned_run: bool = False,
) -> tuple[Decision, ...]:
    """Decide about rows; among them is the row of every address that somebody on the list moved to.

    ``roster`` maps canonical addresses to the list manager's spellings, one a line; ``our_acts`` maps address ids to
    the adds and removals of runs that were not finished. In a planned run an old address always waits for its
    successor.
    """
    known = {row.address_id: (row, _state(row, roster, our_acts)) for row in rows}
    followed = _successors_of_leavers(known.values(), roster, rules)
    decisions = {}
    for address_id, (row, state) in known.items():
        if address_id in followed and state.preference:
            decision = _decide_after_leave(row, state, roster, rules, is_planned_run=is_planned_run)
        else:
            decision = _decide(row, state, roster, rules)
        decisions[address_id] = decision
    return tuple(_after_successor(each, decisions, is_planned_run=is_planned_run) for each in decisions.values())


def _state(row: Row, roster: Mapping[str, str], our_acts: Mapping[int, Action]) -> AddressState:
    state = replace(row.state, waiting=False) if row.has_waited_long else row.state
    our_act = our_acts.get(row.address_id)
    return explain(state, our_act, on_roster=row.canonical in roster) if our_act else state


def _successors_of_leavers(
    known: Iterable[tuple[Row, AddressState]], roster: Mapping[str, str], rules: Rules
) -> set[int]:
    """Return the addresses whose holder left at the list with the address they had before."""
    if not rules.honour_list_changes:
        return set()
    return {
        row.moved_to
        for row, state in known
        if row.moved_to is not None and state.seen is True and row.canonical not in roster
    }


def _decide(row: Row, state: AddressState, roster: Mapping[str, str], rules: Rules) -> Decision:
    on_roster = row.canonical in roster
    action = decide(state, on_roster=on_roster, rules=rules)
    spelling = roster[row.canonical] if on_roster else outgoing(row.spelling)
    decision = Decision(row, state, on_roster, action, _reason(row, action), spelling)
    if action is Action.ADD and row.canonical in rules.never_added:
        return replace(decision, held_back=True, reason=Reason.LIST_ADDRESS)
    if action in {Action.ADD, Action.REMOVE} and row.is_fresh_refusal:
        return replace(decision, held_back=True, reason=Reason.REFUSED)
    return decision


def _reason(row: Row, action: Action) -> Reason:
    if action in {Action.LEFT, Action.JOINED}:
        return Reason.LIST
    if row.moved_to is not None:
        return Reason.MOVED
    return Reason.CHOSEN if row.state.is_managed else Reason.DEPARTED


def _decide_after_leave(
    row: Row, state: AddressState, roster: Mapping[str, str], rules: Rules, *, is_planned_run: bool
) -> Decision:
    """Decide about the address of somebody who left at the list with the one they had before: the leave follows.

    Whoever joined by hand with the new address stays as they are. Where nothing is pushed, the leave itself is what
    is taken over; a planned run, which writes preferences before it pushes, removes at the next run.
    """
    decision = _decide(row, follow_leave(state), roster, rules)
    if decision.action is Action.JOINED:
        return replace(decision, action=Action.NOTHING, state=state)
    if decision.action is Action.REMOVE and not is_planned_run:
        return replace(decision, reason=decision.reason if decision.held_back else Reason.LIST)
    return replace(decision, action=Action.LEFT, reason=Reason.LIST, held_back=False)


def _after_successor(decision: Decision, decisions: Mapping[int, Decision], *, is_planned_run: bool) -> Decision:
    """Let the removal of an old address wait until the new one is on the list.

    A move made while the rows were read may have brought one of the two without the other.
    """
    if decision.action is not Action.REMOVE or decision.row.moved_to is None:
        return decision
    successor = decisions.get(decision.row.moved_to)
    if successor is not None and successor.action is not Action.ADD:
        return decision
    if successor is None or successor.held_back or is_planned_run:
        return replace(decision, held_back=True, reason=Reason.SUCCESSOR)
    return replace(decision, after=successor.row.address_id)
