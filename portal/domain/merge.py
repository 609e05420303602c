"""The merge: what a sync decides about one address on one list, and what it stores afterwards.

Pure functions over small values. Source of every rule: docs/semantics.md, "The rules".
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Action(StrEnum):
    """The action of a sync on one address."""

    NOTHING = "nothing"
    INIT = "init"  # the first preference is taken from the roster
    LEFT = "left"  # they left at the list: the preference becomes unsubscribed
    JOINED = "joined"  # they joined at the list: the preference becomes subscribed
    ADD = "add"
    REMOVE = "remove"


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules that a list's configuration sets for the merge."""

    honour_list_changes: bool = True
    remove_on_departure: bool = True
    never_added: frozenset[str] = frozenset()  # canonical addresses of the lists themselves


@dataclass(frozen=True, slots=True)
class AddressState:
    """Everything that the rules depend on, except the roster.

    ``preference`` and ``seen`` are None before the first choice and the first run. ``has_moved``: the last holder moved
    to another address. ``is_dealt_with``: the departure of an address that is not managed needs nothing more.
    """

    preference: bool | None
    seen: bool | None = None
    touched: bool = False
    waiting: bool = False
    is_dealt_with: bool = False
    has_moved: bool = False
    is_managed: bool = True


def decide(state: AddressState, *, on_roster: bool, rules: Rules) -> Action:
    """Return the action of the first rule of the merge that matches."""
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
    """Return the state of a new member's main address on a list that subscribes new members: rule 1.

    Rule 3 then adds it. An address that has a preference, or is on the list already, stays as it is.
    """
    if state.preference is not None or on_roster or not state.is_managed:
        return state
    return replace(state, preference=True, seen=False)


def _departs(state: AddressState, rules: Rules) -> bool:
    """Return True if an address that is not managed must leave the roster and its departure is not dealt with yet."""
    if state.is_dealt_with:
        return False
    if not state.preference or state.has_moved:
        return True
    return rules.remove_on_departure and (state.seen is True or state.waiting)


def explain(state: AddressState, our_act: Action, *, on_roster: bool) -> AddressState:
    """Return the state with a difference taken for our own action, if a line of an unfinished run explains it.

    An add that does not show on the roster may be held at the list manager.
    """
    if our_act is Action.ADD and not on_roster:
        return replace(state, waiting=True)
    if our_act is (Action.ADD if on_roster else Action.REMOVE):
        return replace(state, seen=on_roster)
    return state


@dataclass(frozen=True, slots=True)
class PushResult:
    """The result of an add or a removal: whether the address is on the roster afterwards, or was refused."""

    on_roster: bool
    is_refused: bool = False


def conclude(state: AddressState, action: Action, *, on_roster: bool, push: PushResult | None) -> AddressState:
    """Return the state to store after a good run. ``push`` is None if nothing was pushed for this address."""
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


def _is_waiting(state: AddressState, action: Action, *, on_after: bool, push: PushResult | None) -> bool:
    if on_after:
        return False
    if push is None:
        return state.waiting
    return action is Action.ADD and not push.is_refused
