"""The safety limits: what of a plan counts, and what of it waits for approval. They are against mistakes in bulk.

Pure functions over small values. Source of every rule: docs/semantics.md, "Safety".
"""

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from portal.domain.mailinglist import SafetyLimits
from portal.domain.merge import Action

Act = tuple[int, Action]  # what is done about one address: its id, and which action


class Line(NamedTuple):
    """A line of a plan that is not held back. ``counts``: no person asked for it one by one."""

    address_id: int
    canonical: str
    action: Action
    counts: bool


class Expected(NamedTuple):
    """The addresses that a believable roster holds some of: those seen on that no holder unsubscribed or moved out of.

    ``seen_on`` counts them, ``on_roster`` those of them that are on the roster read, ``staying`` those that stay there
    after the plan.
    """

    seen_on: int = 0
    on_roster: int = 0
    staying: int = 0


@dataclass(frozen=True)
class Earlier:
    """What came before a plan.

    ``approved``: lines of an approved plan that was interrupted. ``recent``: what runs that started in the last twelve
    hours pushed or took over without approval, as far as it counts. ``is_first_after_restore``: no plan has been
    approved or carried out since a backup was put back.
    """

    approved: Collection[Act] = ()
    recent: Collection[Act] = ()
    is_first_after_restore: bool = False


class Limited(StrEnum):
    """What the safety limits count together."""

    REMOVALS = "removals"  # leaves that are taken over too
    JOINS = "joins"
    ADDITIONS = "additions"


class Excess(NamedTuple):
    """What exceeds a limit: how many, together with the last twelve hours, and how many would need no approval.

    ``base`` is the number of addresses that a percentage is taken of.
    """

    of: Limited
    number: int
    limit: int
    base: int


@dataclass(frozen=True)
class Approval:
    """Whether a plan needs approval, and what for.

    ``id`` names what is to be approved, ``counted`` the addresses whose lines count, ``waiting`` those whose lines wait
    for the approval; ``reason`` says why they do, and is empty where the whole plan may be carried out. ``excess`` is
    what exceeds the safety limits, None where it is the roster that is in doubt.
    """

    id: str
    reason: str
    counted: frozenset[int]
    waiting: frozenset[int]
    excess: Excess | None = None


def counts(action: Action, *, preference: bool | None, is_own_choice: bool, is_half_of_move: bool) -> bool:
    """Tell whether a line counts: it is neither what a holder chose for themselves nor half of a move.

    A removal of somebody who chose to be subscribed is a departure, whatever they chose last.
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
    expected: Expected,
    seen_on: int,
    on_roster: int,
    earlier: Earlier,
    waits_as_whole: bool,
) -> Approval:
    """Say what of a plan waits for approval; ``waits_as_whole``: if anything does, all of it (a planned run)."""
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


def most(count: int, percent: int, *, base: int) -> int:
    """Return how many lines need no approval: a count, or a share of a number of addresses where that is more."""
    return max(count, percent * base // 100)


def plan_id(handle: str, lines: Iterable[Line]) -> str:
    """Name lines by what they do: 16 hex digits over the handle and the sorted lines."""
    text = "\n".join([handle, *sorted(f"{each.action}\t{each.canonical}" for each in lines)])
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _doubt(expected: Expected, *, on_roster: int, earlier: Earlier) -> str:
    """Say why the roster itself is in doubt, so that the plan waits as a whole."""
    if earlier.is_first_after_restore:
        return "this is the first plan since a backup was put back"
    if expected.seen_on < (2 if on_roster else 1):
        return ""
    if not expected.on_roster:
        found = "is empty" if on_roster == 0 else "holds none of them"
        return f"{expected.seen_on} addresses were on the list at the last run, and the roster {found}"
    if not expected.staying:
        return f"{expected.seen_on} addresses were on the list at the last run, and none of them would stay"
    return ""


def _excess(
    counted: Collection[Line], limits: SafetyLimits, *, seen_on: int, on_roster: int, recent: Collection[Act]
) -> Excess | None:
    """Return the first limit that is exceeded, if any is."""

    def count(*actions: Action) -> int:
        ids = {each.address_id for each in counted if each.action in actions}
        return len(ids | {address_id for address_id, action in recent if action in actions}) if ids else 0

    removals = most(limits.removals, limits.removals_percent, base=seen_on)
    additions = most(limits.additions, limits.additions_percent, base=on_roster)
    measured = (
        Excess(Limited.REMOVALS, count(Action.REMOVE, Action.LEFT), removals, seen_on),
        Excess(Limited.JOINS, count(Action.JOINED), removals, seen_on),
        Excess(Limited.ADDITIONS, count(Action.ADD), additions, on_roster),
    )
    return next((each for each in measured if each.number > each.limit), None)


def _excess_text(excess: Excess, *, is_recent: bool) -> str:
    number, base = excess.number, excess.base
    words = {
        Limited.REMOVALS: f"it takes {number} of {base} addresses off the list or as having left",
        Limited.JOINS: f"it takes {number} addresses that are unsubscribed here as having joined at the list",
        Limited.ADDITIONS: f"it adds {number} addresses to {base} on the list",
    }
    together = ", together with the last 12 hours" if is_recent else ""
    return f"this plan exceeds the safety limits: {words[excess.of]}{together}"
