"""The merge, rule by rule: SEMANTICS, "The merge"."""

from dataclasses import replace

import pytest

from portal.domain.merge import Action, AddressState, PushResult, Rules, conclude, decide, explain

HONOUR = Rules()
PORTAL_WINS = Rules(honour_list_changes=False)
KEEP = Rules(remove_on_departure=False)

ON = AddressState(preference=True, seen=True)  # subscribed, and agreed with the list
OFF = AddressState(preference=False, seen=False)


@pytest.mark.parametrize(
    ("story", "state", "on_roster", "rules", "action"),
    [
        # rule 1
        ("no preference, managed: what the roster says", AddressState(None), True, HONOUR, Action.INIT),
        ("no preference, managed, not on it", AddressState(None), False, HONOUR, Action.INIT),
        ("a stranger is never touched", AddressState(None, is_managed=False), True, HONOUR, Action.NOTHING),
        # rule 2, off
        ("they left at the list", ON, False, HONOUR, Action.LEFT),
        ("they left at the list and have no account now", replace(ON, is_managed=False), False, HONOUR, Action.LEFT),
        ("both moved: leaving wins over a fresh tick", replace(ON, touched=True), False, HONOUR, Action.LEFT),
        ("the portal always wins where it is told to", ON, False, PORTAL_WINS, Action.ADD),
        # rule 2, on
        ("they joined at the list", OFF, True, HONOUR, Action.JOINED),
        ("they joined and have no account", replace(OFF, is_managed=False), True, HONOUR, Action.JOINED),
        ("a fresh untick wins over a join", replace(OFF, touched=True), True, HONOUR, Action.REMOVE),
        ("a moderator let in who had changed their mind", replace(OFF, waiting=True), True, HONOUR, Action.REMOVE),
        ("... with an address that they moved from too", replace(OFF, has_moved=True), True, HONOUR, Action.JOINED),
        ("the portal wins over a join where it is told to", OFF, True, PORTAL_WINS, Action.REMOVE),
        # rule 3
        ("ticked", AddressState(True, seen=False, touched=True), False, HONOUR, Action.ADD),
        ("ticked before the first run", AddressState(True, touched=True), False, HONOUR, Action.ADD),
        ("unticked", AddressState(False, seen=True, touched=True), True, HONOUR, Action.REMOVE),
        ("unticked before the first run", AddressState(False), True, HONOUR, Action.REMOVE),
        ("subscribed and on it", ON, True, HONOUR, Action.NOTHING),
        ("unsubscribed and off it", OFF, False, HONOUR, Action.NOTHING),
        (
            "nobody without an account is added",
            AddressState(True, seen=False, is_managed=False),
            False,
            HONOUR,
            Action.NOTHING,
        ),
        # rule 4
        (
            "they asked to leave before they went",
            AddressState(False, seen=True, is_managed=False),
            True,
            HONOUR,
            Action.REMOVE,
        ),
        (
            "... and are off it already",
            AddressState(False, seen=True, is_managed=False),
            False,
            HONOUR,
            Action.NOTHING,
        ),
        ("a departed subscriber is removed", replace(ON, is_managed=False), True, HONOUR, Action.REMOVE),
        ("... or kept, where the list says so", replace(ON, is_managed=False), True, KEEP, Action.NOTHING),
        (
            "who asked to leave goes even so",
            AddressState(False, seen=True, is_managed=False),
            True,
            KEEP,
            Action.REMOVE,
        ),
        (
            "an add that waited when they went is removed",
            AddressState(True, seen=False, waiting=True, is_managed=False),
            True,
            HONOUR,
            Action.REMOVE,
        ),
        (
            "... or kept, where the list says so",
            AddressState(True, seen=False, waiting=True, is_managed=False),
            True,
            KEEP,
            Action.NOTHING,
        ),
        ("who moved goes", replace(ON, is_managed=False, has_moved=True), True, HONOUR, Action.REMOVE),
        ("... whatever the list says", replace(ON, is_managed=False, has_moved=True), True, KEEP, Action.REMOVE),
        (
            "... and though they were never seen on",
            AddressState(True, has_moved=True, is_managed=False),
            True,
            KEEP,
            Action.REMOVE,
        ),
        (
            "... once",
            replace(ON, is_managed=False, has_moved=True, is_dealt_with=True),
            True,
            HONOUR,
            Action.NOTHING,
        ),
        (
            "who asked to leave goes once",
            AddressState(False, seen=True, is_managed=False, is_dealt_with=True),
            True,
            HONOUR,
            Action.NOTHING,
        ),
        (
            "who was never seen on is left",
            AddressState(True, seen=False, is_managed=False),
            True,
            HONOUR,
            Action.NOTHING,
        ),
        (
            "who joined again by hand after the departure is left",
            replace(ON, is_managed=False, is_dealt_with=True),
            True,
            HONOUR,
            Action.NOTHING,
        ),
    ],
    ids=lambda value: value if isinstance(value, str) and " " in value else "",
)
def test_the_first_rule_that_matches_decides(
    story: str, state: AddressState, on_roster: bool, rules: Rules, action: Action
) -> None:
    assert decide(state, on_roster=on_roster, rules=rules) is action


def test_a_take_over_changes_the_preference_and_what_was_seen() -> None:
    assert conclude(AddressState(None), Action.INIT, on_roster=True, push=None) == ON
    assert conclude(ON, Action.LEFT, on_roster=False, push=None) == OFF
    assert conclude(OFF, Action.JOINED, on_roster=True, push=None) == ON


def test_a_good_run_has_read_the_choice() -> None:
    touched = AddressState(True, seen=False, touched=True)
    assert conclude(touched, Action.ADD, on_roster=False, push=PushResult(on_roster=True)) == ON


def test_seen_is_what_the_roster_read_last_says_of_a_pushed_address() -> None:
    after = conclude(AddressState(False, seen=True), Action.REMOVE, on_roster=True, push=PushResult(on_roster=True))
    assert after == AddressState(False, seen=True)


def test_an_add_that_is_neither_on_the_roster_nor_refused_waits() -> None:
    ticked = AddressState(True, seen=False)
    assert conclude(ticked, Action.ADD, on_roster=False, push=PushResult(on_roster=False)).waiting
    assert not conclude(ticked, Action.ADD, on_roster=False, push=PushResult(on_roster=False, is_refused=True)).waiting


def test_waiting_ends_on_the_roster_and_by_removal_alone() -> None:
    waits = AddressState(False, seen=False, waiting=True)
    assert conclude(waits, Action.NOTHING, on_roster=False, push=None).waiting
    assert not conclude(replace(waits, preference=True), Action.NOTHING, on_roster=True, push=None).waiting
    assert not conclude(waits, Action.REMOVE, on_roster=True, push=PushResult(on_roster=False)).waiting


def test_a_departure_is_dealt_with_once_nothing_is_left_to_do() -> None:
    gone = replace(ON, is_managed=False)
    assert conclude(gone, Action.REMOVE, on_roster=True, push=PushResult(on_roster=False)).is_dealt_with
    assert conclude(gone, Action.NOTHING, on_roster=True, push=None).is_dealt_with  # kept
    assert conclude(gone, Action.LEFT, on_roster=False, push=None).is_dealt_with


def test_a_departure_is_not_dealt_with_while_a_removal_or_an_add_is_open() -> None:
    gone = replace(ON, is_managed=False)
    assert not conclude(gone, Action.REMOVE, on_roster=True, push=PushResult(on_roster=True)).is_dealt_with  # refused
    assert not conclude(gone, Action.REMOVE, on_roster=True, push=None).is_dealt_with  # waits for a successor
    waits = AddressState(True, seen=False, waiting=True, is_managed=False)
    assert not conclude(waits, Action.NOTHING, on_roster=False, push=None).is_dealt_with


def test_managed_again_clears_the_mark_of_departure() -> None:
    returned = replace(ON, is_dealt_with=True)
    assert not conclude(returned, Action.NOTHING, on_roster=True, push=None).is_dealt_with


@pytest.mark.parametrize(
    ("act", "on_roster", "explained"),
    [
        (Action.ADD, True, AddressState(True, seen=True)),
        (Action.ADD, False, AddressState(True, seen=False, waiting=True)),
        (Action.REMOVE, False, AddressState(True, seen=False)),
        (Action.REMOVE, True, AddressState(True, seen=False)),
    ],
)
def test_a_line_of_an_unfinished_plan_explains_a_difference_as_our_act(
    act: Action, on_roster: bool, explained: AddressState
) -> None:
    assert explain(AddressState(True, seen=False), act, on_roster=on_roster) == explained


def test_a_tick_during_a_crashed_removal_is_not_taken_for_a_leave() -> None:
    ticked_meanwhile = AddressState(True, seen=True, touched=True)
    explained = explain(ticked_meanwhile, Action.REMOVE, on_roster=False)
    assert decide(explained, on_roster=False, rules=HONOUR) is Action.ADD
