"""The safety limits, which guard against mistakes in bulk: which lines of a plan count, and which need approval.

Pure functions over small values. Source of every rule: docs/semantics.md, "What a run does not trust".
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from portal.domain.mailinglist import SafetyLimits
from portal.domain.merge import Action

Act = tuple[int, Action]  # the id of an address, and the action on it


class Line(NamedTuple):
    """A line of a plan that is not held back. ``counts``: no person asked for it one by one."""

    address_id: int
    canonical: str
    action: Action
    counts: bool


class ExpectedCounts(NamedTuple):
    """Counts of the addresses that a believable roster holds some of.

    They were seen on, and no holder unsubscribed them or moved out of them. ``seen_on`` counts all, ``on_roster`` those
    on the roster that was read, ``staying`` those on it after the plan.
    """

    seen_on: int = 0
    on_roster: int = 0
    staying: int = 0


@dataclass(frozen=True)
class EarlierRuns:
    """The earlier runs that matter for the approval of a plan.

    ``approved`` are lines of an approved plan that was interrupted. ``recent`` is what runs started in the last twelve
    hours pushed or took over without approval, as far as it counts. ``is_first_after_restore``: no plan has been
    approved or carried out since a backup was restored.
    """

    approved: Collection[Act] = ()
    recent: Collection[Act] = ()
    is_first_after_restore: bool = False


class Limited(StrEnum):
    """The kinds of change that the safety limits count."""

    REMOVALS = "removals"  # and leaves that are taken over
    JOINS = "joins"
    ADDITIONS = "additions"


class Excess(NamedTuple):
    """The limit that is exceeded: the number, including the last twelve hours, and the limit.

    ``base`` is the number of addresses that the percentage is taken of.
    """

    of: Limited
    number: int
    limit: int
    base: int


@dataclass(frozen=True)
class Approval:
    """Whether a plan needs approval, and for what.

    ``id`` names what needs approval. ``counted`` are the addresses whose lines count, ``waiting`` those whose lines
    wait for the approval. ``reason`` says why they wait, and is empty if the whole plan may be carried out. ``excess``
    is the exceeded safety limit, None if the roster is in doubt instead.
    """

    id: str
    reason: str
    counted: frozenset[int]
    waiting: frozenset[int]
    excess: Excess | None = None


def counts(action: Action, *, preference: bool | None, is_own_choice: bool, is_half_of_move: bool) -> bool:
    """Return True if a line counts: it is neither a holder's own choice nor half of a move.

    The removal of an address whose holder chose to be subscribed is a departure, and counts.
    """
    if action not in {Action.ADD, Action.REMOVE}:
        return True
    follows_choice = is_own_choice and preference is (action is Action.ADD)
    return not (follows_choice or is_half_of_move)


def judge(
    handle: str,
    lines: Sequence[Line],
    *,
    limits: SafetyLimits,
    expected: ExpectedCounts,
    seen_on: int,
    on_roster: int,
    earlier: EarlierRuns,
    waits_as_whole: bool,
) -> Approval:
    """Return which lines of a plan wait for approval; with ``waits_as_whole`` (a planned run), all or none."""
    unapproved = [each for each in lines if (each.address_id, each.action) not in earlier.approved]
    counted = [each for each in unapproved if each.counts]
    doubt = _doubt(expected, on_roster=on_roster, earlier=earlier)
    if lines and not unapproved:
        doubt = ""
    excess = None if doubt else _excess(counted, limits, seen_on=seen_on, on_roster=on_roster, recent=earlier.recent)
    reason = doubt or (_excess_text(excess, is_recent=bool(earlier.recent)) if excess else "")
    is_whole = bool(doubt or (reason and waits_as_whole))
    named = unapproved if is_whole else counted
    return Approval(
        id=plan_id(handle, named),
        reason=reason,
        counted=frozenset(each.address_id for each in counted),
        waiting=frozenset(each.address_id for each in named) if reason else frozenset(),
        excess=excess,
    )


def most_allowed(count: int, percent: int, *, base: int) -> int:
    """Return how many lines need no approval: a count, or a percentage of a number of addresses if that is more."""
    return max(count, percent * base // 100)


def plan_id(handle: str, lines: Iterable[Line]) -> str:
    """Return the id of lines: 16 hex digits of a hash over the handle and the sorted lines."""
    text = "\n".join([handle, *sorted(f"{each.action}\t{each.canonical}" for each in lines)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _doubt(expected: ExpectedCounts, *, on_roster: int, earlier: EarlierRuns) -> str:
    """Return why the roster itself is in doubt, so that the plan waits as a whole; empty if it is not."""
    if earlier.is_first_after_restore:
        return "this is the first plan since a backup was restored"
    if expected.seen_on < (2 if on_roster else 1):
        return ""
    if not expected.on_roster:
        found = "is empty" if on_roster == 0 else "contains none of them"
        return f"{expected.seen_on} addresses were on the list at the last run, but the roster {found}"
    if not expected.staying:
        return f"{expected.seen_on} addresses were on the list at the last run, but none of them would stay"
    return ""


def _excess(
    counted: Collection[Line], limits: SafetyLimits, *, seen_on: int, on_roster: int, recent: Collection[Act]
) -> Excess | None:
    """Return the first limit that is exceeded, or None."""

    def count(*actions: Action) -> int:
        ids = {each.address_id for each in counted if each.action in actions}
        return len(ids | {address_id for address_id, action in recent if action in actions}) if ids else 0

    removals = most_allowed(limits.removals, limits.removals_percent, base=seen_on)
    additions = most_allowed(limits.additions, limits.additions_percent, base=on_roster)
    measured = (
        Excess(Limited.REMOVALS, count(Action.REMOVE, Action.LEFT), removals, seen_on),
        Excess(Limited.JOINS, count(Action.JOINED), removals, seen_on),
        Excess(Limited.ADDITIONS, count(Action.ADD), additions, on_roster),
    )
    return next((each for each in measured if each.number > each.limit), None)


def _excess_text(excess: Excess, *, is_recent: bool) -> str:
    number, base = excess.number, excess.base
    words = {
        Limited.REMOVALS: f"it removes {number} of {base} addresses, or records that they left",
        Limited.JOINS: f"it records that {number} unsubscribed addresses joined at the list",
        Limited.ADDITIONS: f"it adds {number} addresses to the {base} on the list",
    }
    together = ", counting the last 12 hours" if is_recent else ""
    return f"this plan exceeds the safety limits: {words[excess.of]}{together}"
