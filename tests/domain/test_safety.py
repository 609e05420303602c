"""What counts in the safety limits, and which lines wait for approval: SEMANTICS, "Safety"."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.mailinglist import SafetyLimits
from portal.domain.merge import Action
from portal.domain.safety import EarlierRuns, ExpectedCounts, Line, counts, judge, plan_id

DEFAULTS = SafetyLimits()


def lines(action, count, *, first=0, counts=True):
    return [Line(number, f"u{number}@example.org", action, counts) for number in range(first, first + count)]


def judged(found, *, seen_on=0, on_roster=1, expected=(0, 0, 0), limits=DEFAULTS, is_planned=False, **earlier):
    return judge(
        "members",
        found,
        limits=limits,
        expected=ExpectedCounts(*expected),
        seen_on=seen_on,
        on_roster=on_roster,
        earlier=EarlierRuns(**earlier),
        waits_as_whole=is_planned,
    )


def acts(action, *numbers):
    return {(number, action) for number in numbers}


# What counts.


@pytest.mark.parametrize(
    ("action", "preference", "is_own_choice", "is_half_of_move", "is_counted"),
    [
        (Action.ADD, True, True, False, False),
        (Action.ADD, True, False, False, True),
        (Action.ADD, True, False, True, False),
        (Action.REMOVE, False, True, False, False),
        (Action.REMOVE, False, False, False, True),
        (Action.REMOVE, False, False, True, False),
        (Action.REMOVE, True, True, False, True),  # a departure
        (Action.LEFT, True, True, True, True),
        (Action.JOINED, False, True, True, True),
    ],
)
def test_own_choices_and_halves_of_moves_do_not_count(action, preference, is_own_choice, is_half_of_move, is_counted):
    found = counts(action, preference=preference, is_own_choice=is_own_choice, is_half_of_move=is_half_of_move)
    assert found is is_counted


# The limits.


@pytest.mark.parametrize("action", [Action.REMOVE, Action.LEFT, Action.JOINED])
@pytest.mark.parametrize(
    ("count", "seen_on", "waits"),
    [(5, 5, False), (6, 6, True), (6, 59, True), (6, 60, False), (10, 100, False), (11, 100, True), (0, 0, False)],
)
def test_more_than_5_or_10_percent_of_the_addresses_seen_on_wait(action, count, seen_on, waits):
    assert bool(judged(lines(action, count), seen_on=seen_on).reason) is waits


@pytest.mark.parametrize(
    ("count", "on_roster", "waits"),
    [(25, 0, False), (26, 0, True), (26, 103, True), (26, 104, False), (50, 200, False), (51, 200, True)],
)
def test_adds_of_more_than_25_or_25_percent_of_the_roster_wait(count, on_roster, waits):
    assert bool(judged(lines(Action.ADD, count), on_roster=on_roster).reason) is waits


def test_removals_and_leaves_count_together_and_joins_apart():
    assert judged(lines(Action.REMOVE, 3) + lines(Action.LEFT, 3, first=3), seen_on=6).reason
    assert not judged(lines(Action.REMOVE, 3) + lines(Action.JOINED, 3, first=3), seen_on=6).reason


def test_where_anything_waits_all_that_counts_waits_and_nothing_else():
    own = lines(Action.REMOVE, 9, first=50, counts=False)
    found = judged([*lines(Action.REMOVE, 6), *lines(Action.ADD, 1, first=20), *own], seen_on=20)
    assert found.waiting == found.counted == {*range(6), 20}


def test_own_choices_never_wait_however_many_they_are():
    found = judged(lines(Action.REMOVE, 30, counts=False), seen_on=30)
    assert (found.reason, found.waiting) == ("", frozenset())


@pytest.mark.parametrize(
    ("limits", "waits"),
    [
        (SafetyLimits(removals=0, removals_percent=0), True),
        (SafetyLimits(removals=0), True),
        (SafetyLimits(removals=6), False),
        (SafetyLimits(removals_percent=100), False),
    ],
)
def test_a_list_has_limits_of_its_own(limits, waits):
    assert bool(judged(lines(Action.REMOVE, 6), seen_on=6, limits=limits).reason) is waits


@given(st.integers(0, 300), st.integers(0, 300), st.integers(0, 20), st.integers(0, 100))
def test_what_is_above_the_larger_of_count_and_percentage_waits(gone, seen_on, count, percent):
    found = judged(
        lines(Action.REMOVE, gone), seen_on=seen_on, limits=SafetyLimits(removals=count, removals_percent=percent)
    )
    assert bool(found.reason) == (gone > max(count, seen_on * percent / 100))


# Before.


def test_what_was_approved_before_counts_no_more():
    found = lines(Action.REMOVE, 8)
    assert judged(found, seen_on=8, approved=acts(Action.REMOVE, 0, 1)).waiting == set(range(2, 8))
    assert not judged(found, seen_on=8, approved=acts(Action.REMOVE, 0, 1, 2)).reason
    assert judged(found, seen_on=8, approved=acts(Action.ADD, *range(8))).reason


def test_twelve_hours_count_together():
    assert not judged(lines(Action.LEFT, 3), seen_on=30, recent=acts(Action.REMOVE, 10, 11)).reason
    found = judged(lines(Action.LEFT, 3), seen_on=30, recent=acts(Action.REMOVE, 10, 11, 12))
    assert found.waiting == {0, 1, 2}
    assert not judged(lines(Action.ADD, 3), seen_on=30, recent=acts(Action.REMOVE, *range(10, 20))).reason


def test_what_is_tried_again_counts_once():
    assert not judged(lines(Action.REMOVE, 5), seen_on=30, recent=acts(Action.REMOVE, *range(5))).reason


def test_a_plan_in_which_nothing_counts_does_not_wait_whatever_came_before():
    own = lines(Action.REMOVE, 3, counts=False)
    assert not judged(own, seen_on=30, recent=acts(Action.REMOVE, *range(10, 20))).reason


# Whole.


@pytest.mark.parametrize(
    ("expected", "on_roster", "is_whole"),
    [
        ((1, 0, 0), 0, True),  # an empty roster
        ((0, 0, 0), 0, False),
        ((1, 0, 0), 5, False),
        ((2, 0, 0), 5, True),  # another list's
        ((2, 1, 1), 5, False),
        ((2, 2, 0), 5, True),  # every address gone
        ((1, 1, 0), 5, False),
    ],
)
def test_a_plan_waits_as_a_whole_where_the_roster_is_in_doubt(expected, on_roster, is_whole):
    found = lines(Action.LEFT, 1) + lines(Action.ADD, 1, first=9, counts=False)
    waiting = judged(found, seen_on=100, on_roster=on_roster, expected=expected).waiting
    assert waiting == ({0, 9} if is_whole else frozenset())


def test_a_doubtful_roster_waits_though_there_is_nothing_to_do():
    assert judged([], expected=(2, 0, 0)).reason


def test_the_first_plan_after_a_restore_waits_as_a_whole():
    found = judged(lines(Action.ADD, 2, counts=False), is_first_after_restore=True)
    assert (found.waiting, found.counted) == ({0, 1}, frozenset())


def test_what_is_left_of_an_approved_plan_that_empties_the_list_needs_no_second_approval():
    found = lines(Action.REMOVE, 3)
    approved = acts(Action.REMOVE, 0, 1, 2, 3)
    assert not judged(found, seen_on=3, expected=(3, 3, 0), approved=approved).reason


def test_a_planned_run_waits_as_a_whole_if_at_all():
    own = lines(Action.ADD, 2, first=9, counts=False)
    assert judged([*lines(Action.LEFT, 6), *own], seen_on=30, is_planned=True).waiting == {*range(6), 9, 10}
    assert not judged([*lines(Action.LEFT, 5), *own], seen_on=30, is_planned=True).reason


# The id.


def test_the_id_is_of_what_counts_or_of_all_where_the_plan_waits_as_a_whole():
    found, own = lines(Action.LEFT, 6), lines(Action.ADD, 2, first=9, counts=False)
    assert judged([*found, *own]).id == judged(found).id == plan_id("members", found)
    assert judged([*found, *own], is_first_after_restore=True).id == plan_id("members", [*found, *own])
