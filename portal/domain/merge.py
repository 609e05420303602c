"""The merge: what a sync decides about one address on one list, and what it remembers afterwards.

Pure functions over small values. Source of every rule: docs/semantics.md, "The merge".
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Action(StrEnum):
    """What a sync does about one address."""

    NOTHING = "nothing"
    INIT = "init"  # the first preference is what the roster says
    LEFT = "left"  # they left at the list: the preference becomes unsubscribed
    JOINED = "joined"  # they joined at the list: the preference becomes subscribed
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Rules:
    """What a list lets the merge do."""

    honour_list_changes: bool = True
    remove_on_departure: bool = True
    never_added: frozenset[str] = frozenset()  # canonical addresses: those of the lists themselves


@dataclass(frozen=True, slots=True)
class AddressState:
    """All that the rules look at, save the roster.

    ``seen`` and ``preference`` are None before the first run and the first choice; ``has_moved`` tells that its last
    holder moved to another address; ``is_dealt_with`` that the departure of an address that is not managed needs no
    more.
    """

    preference: bool | None
    seen: bool | None = None
    touched: bool = False
    waiting: bool = False
    is_dealt_with: bool = False
    has_moved: bool = False
    is_managed: bool = True


def decide(state: AddressState, *, on_roster: bool, rules: Rules) -> Action:
    """Return what the first matching rule of the merge says."""
    wanted = state.preference
    if wanted is None:
        return Action.INIT if state.is_managed else Action.NOTHING  # rule 1
    roster_moved = wanted != on_roster and state.seen is (not on_roster)
    if rules.honour_list_changes and roster_moved:  # rule 2
        if not on_roster:
            return Action.LEFT
        if not (state.touched or state.waiting):
            return Action.JOINED
    if state.is_managed and wanted != on_roster:  # rule 3
        return Action.ADD if wanted else Action.REMOVE
    if not state.is_managed and on_roster and _departs(state, rules):  # rule 4
        return Action.REMOVE
    return Action.NOTHING  # rule 5


def subscribe_new_member(state: AddressState, *, on_roster: bool) -> AddressState:
    """Return the state of a new member's main address, as a list has it that subscribes them: rule 1.

    Rule 3 then adds it. What is stored stays, and so does whoever is on the list already.
    """
    if state.preference is not None or on_roster or not state.is_managed:
        return state
    return replace(state, preference=True, seen=False)


def _departs(state: AddressState, rules: Rules) -> bool:
    """Tell whether an address that is not managed has to leave the roster, its departure not dealt with yet."""
    if state.is_dealt_with:
        return False
    if not state.preference or state.has_moved:
        return True
    return rules.remove_on_departure and (state.seen is True or state.waiting)


def explain(state: AddressState, our_act: Action, *, on_roster: bool) -> AddressState:
    """Take a difference for our own act, where a line of a run that was not finished explains it.

    An add of which nothing is to be seen may be held at the list manager.
    """
    if our_act is Action.ADD and not on_roster:
        return replace(state, waiting=True)
    if our_act is (Action.ADD if on_roster else Action.REMOVE):
        return replace(state, seen=on_roster)
    return state


@dataclass(frozen=True, slots=True)
class Push:
    """What became of an add or a removal: is the address on the roster read afterwards, and was it plainly refused."""

    on_roster: bool
    is_refused: bool = False


def conclude(state: AddressState, action: Action, *, on_roster: bool, push: Push | None) -> AddressState:
    """Return what is remembered after a good run. ``push`` is None where nothing was sent about this address."""
    on_after = push.on_roster if push else on_roster
    waiting = _is_waiting(state, action, on_after=on_after, push=push)
    taken = {Action.INIT: on_roster, Action.LEFT: False, Action.JOINED: True}.get(action, state.preference)
    awaits_removal = action is Action.REMOVE and on_after
    return replace(
        state,
        preference=taken,
        seen=on_after,
        touched=False,
        waiting=waiting,
        is_dealt_with=not (state.is_managed or waiting or awaits_removal),
    )


def _is_waiting(state: AddressState, action: Action, *, on_after: bool, push: Push | None) -> bool:
    if on_after:
        return False
    if push is None:
        return state.waiting
    return action is Action.ADD and not push.is_refused
