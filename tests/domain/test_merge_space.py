"""The whole reachable state space of one address, and of a move over two: the promises of SEMANTICS hold in it all.

A world is what the portal knows, what is true at the list manager, and what the person visibly did last. From the
first worlds every event and every answer of the list manager is tried, until no new world turns up.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import pytest

from portal.domain.merge import Action, AddressState, Push, Rules, conclude, decide
from portal.domain.plan import Decision, Row, decide_rows


@dataclass(frozen=True)
class World:
    state: AddressState
    on_roster: bool
    at_moderator: bool = False  # an add of ours is held there
    refused: bool = False  # less than a day ago
    last_act: str = ""  # "leave" or "join", in the portal or visibly at the list


RULES = [Rules(), Rules(remove_on_departure=False)]


def first_worlds() -> Iterator[World]:
    for on_roster, managed in product([True, False], repeat=2):
        yield World(AddressState(None, is_managed=managed), on_roster)


def events(world: World) -> Iterator[World]:
    state = world.state
    yield replace(world, refused=False)  # a day passes
    if state.is_managed:
        for wish in (True, False):
            if state.preference is not wish:  # choosing what already holds is no change
                chosen = replace(state, preference=wish, touched=True, has_moved=False)
                yield replace(world, state=chosen, refused=False, last_act="join" if wish else "leave")
        yield replace(world, state=replace(state, is_managed=False))
    else:
        yield replace(world, state=replace(state, is_managed=True, is_dealt_with=False))
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


def answers(world: World, action: Action) -> Iterator[tuple[World, Push | None]]:
    """What the list manager may do with what it is told."""
    if not is_pushed(action, world):
        yield world, None
    elif action is Action.ADD:
        yield replace(world, on_roster=True, at_moderator=False), Push(on_roster=True)
        yield replace(world, at_moderator=True, refused=True), Push(on_roster=False)
        yield replace(world, at_moderator=False, refused=True), Push(on_roster=False, is_refused=True)
    else:
        yield replace(world, on_roster=False), Push(on_roster=False)
        yield replace(world, refused=True), Push(on_roster=True)


def runs(world: World, rules: Rules) -> Iterator[tuple[Action, World, bool]]:
    """A run's action, the world after it, and whether the list manager did as it was told."""
    action = decide(world.state, on_roster=world.on_roster, rules=rules)
    for answered, push in answers(world, action):
        after = conclude(world.state, action, on_roster=world.on_roster, push=push)
        complied = push is None or push.on_roster is (action is Action.ADD)
        held_back = push is None and action in {Action.ADD, Action.REMOVE}
        yield action, replace(answered, state=after, refused=held_back or not complied), complied


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
        if decide(world.state, on_roster=world.on_roster, rules=rules) is Action.ADD:
            assert world.state.preference is True
            assert world.state.is_managed


def test_nobody_who_was_on_at_the_last_run_and_is_off_now_is_added(space: tuple[Rules, set[World]]) -> None:
    rules, worlds = space
    for world in worlds:
        if world.state.seen is True and not world.on_roster:
            assert decide(world.state, on_roster=False, rules=rules) is not Action.ADD


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
            assert decide(world.state, on_roster=world.on_roster, rules=rules) is Action.NOTHING


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


# A move over two: X was left for Y.

X, Y = "x@example.org", "y@example.org"
FLAGS = [True, False]


def moves() -> Iterator[tuple[Row, Row, dict[str, str]]]:
    for seen_x, on_x, waiting_x in product([None, True, False], FLAGS, FLAGS):
        old = AddressState(False, seen_x, waiting=waiting_x, has_moved=True, is_managed=False)
        for wants, seen_y, on_y, touched, managed, refused in product(
            FLAGS, [None, True, False], FLAGS, FLAGS, FLAGS, FLAGS
        ):
            new = AddressState(wants, seen_y, touched=touched, is_managed=managed)
            roster = {address: address for address, on in ((X, on_x), (Y, on_y)) if on}
            yield Row(1, X, X, old, moved_to=2), Row(2, Y, Y, new, is_fresh_refusal=refused), roster


def both(rows: tuple[Row, Row], roster: dict[str, str], *, is_planned_run: bool = False) -> tuple[Decision, Decision]:
    x, y = decide_rows(rows, roster, rules=Rules(), our_acts={}, is_planned_run=is_planned_run)
    return x, y


def settle(decision: Decision, roster: dict[str, str]) -> Row:
    """The row after a run in which the list manager did as it was told."""
    canonical = decision.row.canonical
    push = Push(on_roster=canonical in roster) if decision.is_pushed else None
    after = conclude(decision.state, decision.action, on_roster=decision.on_roster, push=push)
    return replace(decision.row, state=after)


def pushed(decisions: tuple[Decision, ...], roster: dict[str, str]) -> dict[str, str]:
    after = dict(roster)
    for each in decisions:
        if each.is_pushed and each.action is Action.ADD:
            after[each.row.canonical] = each.spelling
        elif each.is_pushed:
            after.pop(each.row.canonical, None)
    return after


@pytest.mark.parametrize("is_planned_run", [False, True])
def test_a_moved_address_is_removed_only_when_its_successor_is_on_or_not_wanted(is_planned_run: bool) -> None:
    for old, new, roster in moves():
        x, y = both((old, new), roster, is_planned_run=is_planned_run)
        assert x.action in {Action.NOTHING, Action.REMOVE}
        if x.action is Action.REMOVE and not x.held_back:
            assert y.action is not Action.ADD or (x.after == 2 and not y.held_back and not is_planned_run)
        if x.held_back:
            assert y.action is Action.ADD


def test_a_leave_with_the_old_address_follows_the_person() -> None:
    for old, new, roster in moves():
        if old.state.seen is True and X not in roster:
            _x, y = both((old, new), roster)
            after = pushed((_x, y), roster)
            joined_by_hand = Y in roster and new.state.seen is not True
            if not joined_by_hand:
                assert settle(y, after).state.preference is False
                assert Y not in after or y.held_back or not new.state.is_managed
            elif new.state.preference:
                assert settle(y, after).state.preference is True
                assert Y in after


def test_a_second_run_after_a_move_does_nothing() -> None:
    for old, new, roster in moves():
        decisions = both((old, new), roster)
        after = pushed(decisions, roster)
        rows = (settle(decisions[0], after), settle(decisions[1], after))
        for each in both(rows, after):
            assert not each.is_pushed, (old, new, roster)


def test_somebody_who_moved_is_on_the_list_with_one_address_at_the_end() -> None:
    for old, new, roster in moves():
        wants = new.state.preference and new.state.is_managed and not new.is_fresh_refusal
        left = old.state.seen is True and X not in roster
        if wants and not left and new.state.seen is not True:
            after = pushed(both((old, new), roster), roster)
            assert set(after) == {Y}
