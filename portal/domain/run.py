"""The kinds and states of a run, and the words for its counts."""

from collections.abc import Mapping
from enum import StrEnum


class RunKind(StrEnum):
    """The kind of a run."""

    SHOW = "show"  # the plan of a sync, and nothing else
    SYNC = "sync"
    PLANNED = "planned"  # a sync in steps, whose changes a script or another host pushes


class RunState(StrEnum):
    """The state of a run."""

    ASKED = "asked"  # it waits for a process
    TAKEN = "taken"  # a process reads the roster and plans
    SHOWN = "shown"  # its plan is shown, as requested
    CHANGED = "changed"  # a sync would no longer do the one plan that it was to apply; the new plan is shown
    DROPPED = "dropped"  # it could not begin
    HELD = "held"  # its plan needs approval; members' own choices have been carried out
    OPEN = "open"  # its plan is being carried out
    PLANNED = "planned"  # a planned run that has not been confirmed yet
    DONE = "done"
    FAILED = "failed"
    UNFINISHED = "unfinished"  # its process ended before the run did


NEVER_BEGUN = (RunState.ASKED, RunState.TAKEN, RunState.SHOWN, RunState.CHANGED, RunState.DROPPED)
SHOWS_PLAN = (RunState.SHOWN, RunState.CHANGED, RunState.HELD)
IN_PROGRESS = (RunState.OPEN, RunState.PLANNED)
UNDER_WAY = (RunState.ASKED, RunState.TAKEN, *IN_PROGRESS)

IF_INTENDED = "; if this is intended"  # in a message, before the advice to run a command
WAITS = "waits"  # the result of a line that waits for approval

COUNT_WORDS = {
    "added": "added",
    "removed": "removed",
    "refused": "refused by the list",
    "waiting": "waiting at the list",
    "no_effect": "without effect",
    "joined": "joined at the list",
    "left": "left at the list",
    "initialised": "taken over",
    "held": "held back",
}


def in_order(counts: Mapping[str, int]) -> dict[str, int]:
    """Return all counts of a run in the order in which they are printed. A missing count is 0."""
    return {name: counts.get(name, 0) for name in COUNT_WORDS}


def counts_in_words(counts: Mapping[str, int]) -> list[tuple[int, str]]:
    """Return the counts of a run that are not 0, each with its name in words."""
    return [(count, COUNT_WORDS[name]) for name, count in in_order(counts).items() if count]
