"""The whole reachable state space of one address: the promises of SEMANTICS hold in it all.

A world is what the portal knows, what is true at the list manager, and what the person visibly did last. From the
first worlds every event and every answer of the list manager is tried, until no new world turns up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from portal.domain.merge import Action, AddressState, PushResult, Rules, conclude, decide, subscribe_new_member


@dataclass(frozen=True)
class World:
    state: AddressState
    on_roster: bool
    at_moderator: bool = False  # an add of ours is held there
    refused: bool = False  # less than a day ago
    last_act: str = ""  # "leave" or "join", in the portal or visibly at the list
    is_new: bool = False  # the account is new to a list that subscribes new members, until something is stored


RULES = [Rules(), Rules(remove_on_departure=False)]


def first_worlds() -> Iterator[World]:
    for on_roster, managed in product([True, False], repeat=2):
        for is_new in (True, False):
            yield World(AddressState(None, is_managed=managed), on_roster, is_new=is_new)


def events(world: World) -> Iterator[World]:
    state = world.state
    yield replace(world, refused=False)  # a day passes
    if state.is_managed:
        for wish in (True, False):
            if state.preference is not wish:  # choosing what already holds is no change
                chosen = replace(state, preference=wish, touched=True)
                act = "join" if wish else "leave"
                yield replace(world, state=chosen, refused=False, last_act=act, is_new=False)
        yield replace(world, state=replace(state, is_managed=False))
        if state.preference is not None:
            yield replace(world, state=replace(state, is_managed=False, has_moved=True))
    else:
        yield replace(world, state=replace(state, is_managed=True, has_moved=False, is_dealt_with=False))
        if state.preference:  # by a mailed link, or by a superuser
            left = replace(state, preference=False, touched=True, is_dealt_with=False)
            yield replace(world, state=left, refused=False, last_act="leave")
    if world.on_roster:
        # A join and a leave between two runs are seen by nobody.
        act = "leave" if state.seen is True else ""
        yield replace(world, on_roster=False, last_act=act)
    else:
        yield replace(world, on_roster=True, at_moderator=False, last_act="join")
    if world.at_moderator:
        yield replace(world, at_moderator=False)
        yield replace(world, at_moderator=False, on_roster=True)


def is_pushed(action: Action, world: World) -> bool:
    return action in {Action.ADD, Action.REMOVE} and not world.refused


def answers(world: World, action: Action) -> Iterator[tuple[World, PushResult | None]]:
    """What the list manager may do with what it is told."""
    if not is_pushed(action, world):
        yield world, None
    elif action is Action.ADD:
        yield replace(world, on_roster=True, at_moderator=False), PushResult(on_roster=True)
        yield replace(world, at_moderator=True, refused=True), PushResult(on_roster=False)
        yield replace(world, at_moderator=False, refused=True), PushResult(on_roster=False, is_refused=True)
    else:
        yield replace(world, on_roster=False), PushResult(on_roster=False)
        yield replace(world, refused=True), PushResult(on_roster=True)


def decided(world: World, rules: Rules) -> tuple[AddressState, Action]:
    """What a run decides, and about which state: rule 1 comes first."""
    state = subscribe_new_member(world.state, on_roster=world.on_roster) if world.is_new else world.state
    return state, decide(state, on_roster=world.on_roster, rules=rules)


def runs(world: World, rules: Rules) -> Iterator[tuple[Action, World, bool]]:
    """A run's action, the world after it, and whether the list manager did as it was told."""
    state, action = decided(world, rules)
    for answered, push in answers(world, action):
        concluded = conclude(state, action, on_roster=world.on_roster, push=push)
        after = state if concluded.preference is None else concluded  # without a row nothing is remembered
        complied = push is None or push.on_roster is (action is Action.ADD)
        held_back = push is None and action in {Action.ADD, Action.REMOVE}
        is_new = world.is_new and after.preference is None
        yield action, replace(answered, state=after, refused=held_back or not complied, is_new=is_new), complied


def reachable(rules: Rules) -> set[World]:
    found: set[World] = set()
    todo = list(first_worlds())
    while todo:
        world = todo.pop()
        if world in found:
            continue
        found.add(world)
        todo += events(world)
        todo += [after for _action, after, _complied in runs(world, rules)]
    return found


@pytest.fixture(scope="module", params=RULES, ids=["remove", "keep"])
def space(request: pytest.FixtureRequest) -> tuple[Rules, set[World]]:
    return request.param, reachable(request.param)


def test_the_space_is_as_large_as_it_is_thought_to_be(space: tuple[Rules, set[World]]) -> None:
    standings = {(world.state, world.on_roster, world.at_moderator) for world in space[1]}
    assert 80 < len(standings) < 400


def test_nobody_is_added_without_a_standing_yes_and_an_account(space: tuple[Rules, set[World]]) -> None:
    rules, worlds = space
    for world in worlds:
        if decided(world, rules)[1] is Action.ADD:
            assert world.state.preference is True or world.is_new
            assert world.state.is_managed


def test_new_members_are_subscribed_once_and_nobody_who_has_chosen_or_is_on_the_list(
    space: tuple[Rules, set[World]],
) -> None:
    rules, worlds = space
    newcomers = [world for world in worlds if world.is_new]
    assert len(newcomers) > 2
    for world in newcomers:
        state, action = decided(world, rules)
        assert world.state.preference is None
        assert (action is Action.ADD) is (world.state.is_managed and not world.on_roster)
        assert action is not Action.ADD or state == replace(world.state, preference=True, seen=False)
        for _action, after, _complied in runs(world, rules):
            assert after.is_new is not world.state.is_managed


def test_nobody_who_was_on_at_the_last_run_and_is_off_now_is_added(space: tuple[Rules, set[World]]) -> None:
    rules, worlds = space
    for world in worlds:
        if world.state.seen is True and not world.on_roster:
            assert decided(world, rules)[1] is not Action.ADD


def test_whose_last_visible_act_was_to_leave_is_not_on_the_list_after_a_good_run(
    space: tuple[Rules, set[World]],
) -> None:
    rules, worlds = space
    for world in worlds:
        if world.last_act == "leave" and world.state.preference is not None and not world.refused:
            for _action, after, complied in runs(world, rules):
                assert not (complied and after.on_roster), (world, after)


def test_an_address_without_a_row_is_never_touched(space: tuple[Rules, set[World]]) -> None:
    rules, worlds = space
    for world in worlds:
        if world.state.preference is None and not world.state.is_managed:
            assert decided(world, rules)[1] is Action.NOTHING


def test_a_second_run_in_a_row_does_nothing(space: tuple[Rules, set[World]]) -> None:
    rules, worlds = space
    for world in worlds:
        for _action, after, _complied in runs(world, rules):
            for again, second, _ in runs(after, rules):
                assert not is_pushed(again, after), (world, after)
                assert second.state == after.state


def test_where_the_portal_wins_the_roster_ends_as_every_account_wants_it() -> None:
    rules = Rules(honour_list_changes=False)
    for world in reachable(rules):
        if world.state.is_managed and world.state.preference is not None and not world.refused:
            for _action, after, complied in runs(world, rules):
                if complied:
                    assert after.on_roster is world.state.preference
