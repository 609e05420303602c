"""Plans as data, and which lines need approval: SEMANTICS, "Safety" and "Identity"."""

import hashlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.merge import Action, AddressState, Rules
from portal.domain.plan import Decision, Plan, Reason, Row, decide_rows, expected_counts

HONOUR = Rules()
PORTAL_WINS = Rules(honour_list_changes=False)
TICKED = AddressState(True, seen=False, touched=True)
UNTICKED = AddressState(False, seen=True, touched=True)
ON = AddressState(True, seen=True)


def mailbox(number):
    return f"u{number}@example.org"


def row(number, state, **values):
    return Row(number, mailbox(number), f"U{number}@Example.org", state, **values)


def roster(*numbers):
    return {mailbox(each): mailbox(each) for each in numbers}


def decide(*rows, on=(), rules=HONOUR, our_acts=None, **values):
    return decide_rows(rows, roster(*on), rules=rules, our_acts=our_acts or {}, **values)


def plan_of(decisions, *, on_roster=0, seen_on=0):
    return Plan("members", tuple(decisions), on_roster=on_roster, seen_on=seen_on)


def line(number, action, **values):
    return Decision(row(number, ON), ON, False, action, Reason.CHOSEN, mailbox(number), **values)


def lines(count, action, **values):
    return [line(number, action, **values) for number in range(count)]


# Spelling.


def test_an_add_uses_the_spelling_as_typed_and_a_removal_the_rosters():
    added, removed = decide_rows(
        [row(1, TICKED), row(2, UNTICKED)], {mailbox(2): "u2@EXAMPLE.org"}, rules=HONOUR, our_acts={}
    )
    assert (added.spelling, removed.spelling) == ("U1@Example.org", "u2@EXAMPLE.org")


# Why a line stands in a plan.


@pytest.mark.parametrize(
    ("decided", "on", "action", "reason"),
    [
        (row(1, TICKED), [], Action.ADD, Reason.CHOSEN),
        (row(1, UNTICKED), [1], Action.REMOVE, Reason.CHOSEN),
        (row(1, replace(ON, is_managed=False)), [1], Action.REMOVE, Reason.DEPARTED),
        (row(1, ON), [], Action.LEFT, Reason.LIST),
        (row(1, AddressState(False, seen=False)), [1], Action.JOINED, Reason.LIST),
        (row(1, TICKED, is_recent_refusal=True), [], Action.ADD, Reason.REFUSED),
        (row(1, replace(ON, has_moved=True, is_managed=False), moved_to=9), [1], Action.REMOVE, Reason.MOVED),
    ],
)
def test_a_line_says_why_it_stands_in_the_plan(decided, on, action, reason):
    found = decide(decided, row(9, ON), on=[*on, 9])[0]
    assert (found.action, found.reason) == (action, reason)


# New members.


def test_a_new_member_is_added_as_rule_1_says_and_counts_in_the_limits():
    nothing = AddressState(None)
    new, other, there = decide(row(1, nothing), row(2, nothing), row(3, nothing), on=[3], new_members={1, 3})
    assert (new.action, new.reason, new.held_back) == (Action.ADD, Reason.NEW_MEMBER, False)
    assert (new.row.state, new.row.version) == (AddressState(True, seen=False), 0)
    assert [other.action, there.action] == [Action.INIT, Action.INIT]
    assert plan_of([new, other, there]).approval.counted == {1}


@pytest.mark.parametrize("preference", [True, False])
def test_who_has_chosen_is_no_new_member(preference):
    chosen = AddressState(preference, seen=False, touched=True)
    assert decide(row(1, chosen), new_members={1})[0].row.state == chosen


def test_the_address_of_a_list_is_no_new_member():
    rules = Rules(never_added=frozenset({mailbox(1)}))
    (found,) = decide(row(1, AddressState(None)), rules=rules, new_members={1})
    assert (found.action, found.row.state.preference) == (Action.INIT, None)


def test_an_add_of_a_new_member_that_was_cut_short_is_ours():
    (found,) = decide(row(1, AddressState(None)), new_members={1}, our_acts={1: Action.ADD})
    assert (found.action, found.reason, found.state.waiting) == (Action.ADD, Reason.NEW_MEMBER, True)


# Held back.


@pytest.mark.parametrize(("state", "on"), [(TICKED, []), (UNTICKED, [1])])
def test_what_was_refused_less_than_a_day_ago_is_held_back(state, on):
    (held,) = decide(row(1, state, is_recent_refusal=True, has_refusal=True), on=on)
    assert (held.held_back, held.is_pushed) == (True, False)
    (tried,) = decide(row(1, state, has_refusal=True), on=on)
    assert (tried.held_back, tried.is_pushed) == (False, True)


def test_a_take_over_is_never_held_back():
    (left,) = decide(row(1, ON, is_recent_refusal=True, has_refusal=True))
    assert (left.action, left.held_back) == (Action.LEFT, False)


def test_held_back_lines_stand_in_the_plan_and_count_neither_in_the_limits_nor_in_the_id():
    plan = plan_of([*lines(30, Action.ADD, held_back=True)], on_roster=1)
    assert len(plan.lines) == 30
    assert plan.of(Action.ADD) == []
    assert plan.warning == ""
    assert plan.id == plan_of([]).id


# Our own acts.


def test_what_a_line_of_an_unfinished_plan_explains_is_our_act_not_the_persons():
    removed = row(1, replace(ON, touched=True))  # we removed it, and then they ticked again
    assert decide(removed)[0].action is Action.LEFT
    assert decide(removed, our_acts={1: Action.REMOVE})[0].action is Action.ADD
    added = row(1, AddressState(False, seen=False))  # we added it, and then they unticked; a run has read that
    assert decide(added, on=[1])[0].action is Action.JOINED
    assert decide(added, on=[1], our_acts={1: Action.ADD})[0].action is Action.REMOVE


def test_an_add_of_an_unfinished_plan_that_is_not_on_the_roster_waits():
    (found,) = decide(row(1, AddressState(False, seen=False)), our_acts={1: Action.ADD})
    assert found.state.waiting


def test_an_add_that_has_waited_for_90_days_no_longer_counts_as_waiting():
    waits = AddressState(False, seen=False, waiting=True)
    assert decide(row(1, waits), on=[1])[0].action is Action.REMOVE
    assert decide(row(1, waits, has_waited_long=True), on=[1])[0].action is Action.JOINED


# A move: account 7 left 1, the old address, for 2, the new one.

LEFT_BEHIND = AddressState(True, seen=True, has_moved=True, is_managed=False)


def successor(state, **values):
    return row(2, state, **{"holders": frozenset({7}), **values})


def move(new, *, on=(1,), old=LEFT_BEHIND, moved=None, **values):
    return decide(row(1, old, **{"left_by": 7, "moved_to": 2, **(moved or {})}), new, on=on, **values)


def test_the_old_address_is_removed_after_the_new_one_was_added():
    old, new = move(successor(TICKED))
    assert (new.action, old.action, old.after, old.held_back) == (Action.ADD, Action.REMOVE, 2, False)


def test_the_old_address_waits_while_the_new_one_is_held_back():
    old, _new = move(successor(TICKED, is_recent_refusal=True))
    assert (old.action, old.held_back, old.reason) == (Action.REMOVE, True, Reason.SUCCESSOR)


def test_in_a_planned_run_the_old_address_always_waits():
    old, _new = move(successor(TICKED), is_planned_run=True)
    assert (old.held_back, old.reason) == (True, Reason.SUCCESSOR)


@pytest.mark.parametrize(
    ("new", "on"),
    [
        (successor(ON), (1, 2)),  # on the roster
        (successor(AddressState(False, seen=False)), (1,)),  # not wanted
        (successor(replace(TICKED, is_managed=False)), (1,)),  # nobody's
        (successor(AddressState(None)), (1,)),  # nothing is known of it
        (row(3, TICKED), (1,)),  # it was forgotten
    ],
)
def test_the_old_address_waits_for_nothing_that_will_not_be_added(new, on):
    for is_planned_run in (True, False):
        old, _new = move(new, on=on, is_planned_run=is_planned_run)
        assert (old.action, old.held_back, old.after) == (Action.REMOVE, False, None)


def test_an_address_that_several_moved_out_of_waits_for_nothing():
    old, _new = move(successor(TICKED), moved={"moved_to": 1})
    assert (old.action, old.held_back, old.after) == (Action.REMOVE, False, None)


def test_an_add_that_a_move_made_knows_the_address_moved_from():
    _old, new = move(successor(TICKED, moved_from=1))
    assert new.moved_from == 1
    _old, new = move(successor(ON, moved_from=1), on=[1, 2])
    assert new.moved_from is None, "nothing is added"


def test_a_leave_before_the_move_follows_though_another_account_holds_the_old_address_still():
    shared = row(1, ON, holders=frozenset({8}))
    _old, new = decide(shared, successor(TICKED, moved_from=1, is_unread=True))
    assert (new.action, new.reason) == (Action.LEFT, Reason.LIST)
    _old, new = decide(shared, successor(TICKED, moved_from=1))
    assert new.action is Action.ADD, "a leave after the first run is the other's alone"


def test_a_leave_with_the_old_address_follows_the_person():
    _old, new = move(successor(TICKED), on=())
    assert (new.action, new.reason) == (Action.LEFT, Reason.LIST)


def test_an_unsubscription_of_the_old_address_by_a_mailed_link_follows_the_person():
    unsubscribed = AddressState(False, seen=True, touched=True, has_moved=True, is_managed=False)
    moved = {"unsubscribed_by_link": True}
    for on in ((1,), ()):
        _old, new = move(successor(TICKED), on=on, old=unsubscribed, moved=moved)
        assert (new.action, new.reason) == (Action.LEFT, Reason.LINK)
    _old, new = move(successor(TICKED), on=(1,), old=unsubscribed, moved=moved, rules=PORTAL_WINS)
    assert new.action is Action.LEFT, "it is a choice in the portal"


def test_who_is_on_the_list_with_the_new_address_stays_whatever_became_of_the_old_one():
    for state in (TICKED, ON):
        _old, new = move(successor(state), on=(2,))
        assert (new.action, new.state) == (Action.NOTHING, state)


@pytest.mark.parametrize(
    "values",
    [
        {"our_acts": {1: Action.REMOVE}},  # it was us
        {"rules": PORTAL_WINS},  # it does not matter
        {"old": replace(LEFT_BEHIND, seen=False)},  # they were not on it
        {"old": replace(LEFT_BEHIND, seen=None)},
    ],
)
def test_no_leave_follows_where_nobody_was_seen_to_leave(values):
    _old, new = move(successor(TICKED), on=(), **values)
    assert new.action is Action.ADD


@pytest.mark.parametrize(
    "held", [{"holders": frozenset({7, 8})}, {"holders": frozenset({8})}, {"holders": frozenset(), "left_by": 8}]
)
def test_no_leave_follows_to_an_address_that_another_account_holds_or_left_last(held):
    _old, new = move(successor(TICKED, **held), on=())
    assert new.action is Action.ADD


# The id.


def test_the_id_is_the_beginning_of_the_sha_256_over_the_sorted_lines():
    plan = plan_of([line(2, Action.REMOVE), line(1, Action.ADD), line(3, Action.LEFT), line(4, Action.JOINED)])
    text = "\n".join(
        [
            "members",
            "add\tu1@example.org",
            "joined\tu4@example.org",
            "left\tu3@example.org",
            "remove\tu2@example.org",
        ]
    )
    assert plan.id == hashlib.sha256(text.encode()).hexdigest()[:16]


def test_the_id_is_of_the_list():
    assert plan_of(lines(2, Action.ADD)).id != replace(plan_of(lines(2, Action.ADD)), handle="tech").id


@given(st.permutations(range(6)))
def test_the_id_does_not_hang_on_the_order(order):
    assert plan_of([line(number, Action.ADD) for number in order]).id == plan_of(lines(6, Action.ADD)).id


def test_first_preferences_and_rows_without_a_difference_are_no_lines():
    assert plan_of([*lines(2, Action.INIT), *lines(2, Action.NOTHING)]).lines == ()


# Doubt.


BY_HOLDER = {"by_holder": True}


@pytest.mark.parametrize(
    ("decision", "expected"),
    [
        (decide(row(1, ON), on=[1])[0], (1, 1, 1)),
        (decide(row(1, ON))[0], (1, 0, 0)),
        (decide(row(1, replace(ON, is_managed=False)), on=[1])[0], (1, 1, 0)),
        (decide(row(1, replace(ON, is_managed=False), is_recent_refusal=True), on=[1])[0], (1, 1, 1)),  # held back
        (decide(row(1, UNTICKED), on=[1])[0], (1, 1, 0)),  # a superuser chose
        (decide(row(1, UNTICKED, **BY_HOLDER), on=[1])[0], (0, 0, 0)),
        (decide(row(1, UNTICKED, **BY_HOLDER))[0], (0, 0, 0)),
        (decide(row(1, replace(ON, has_moved=True), moved_to=9), row(9, TICKED))[0], (0, 0, 0)),
        (decide(row(1, TICKED), on=[1])[0], (0, 0, 0)),  # seen off
        (decide(row(1, ON), our_acts={1: Action.REMOVE})[0], (0, 0, 0)),
    ],
)
def test_a_believable_roster_holds_some_of_those_seen_on_that_no_holder_gave_up(decision, expected):
    assert expected_counts([decision], steady_on=0) == expected
    assert expected_counts([decision], steady_on=7) == tuple(7 + each for each in expected)


# What waits.


@pytest.mark.parametrize(
    ("state", "on", "values", "is_counted"),
    [
        (UNTICKED, [1], {}, True),  # a superuser chose
        (UNTICKED, [1], BY_HOLDER, False),
        (replace(UNTICKED, touched=False), [1], BY_HOLDER, True),  # it was done once, and undone at the list
        (replace(UNTICKED, touched=False), [1], {**BY_HOLDER, "did_not_take": True}, False),
        (replace(UNTICKED, is_managed=False), [1], BY_HOLDER, False),  # they asked to leave before they went
        (replace(ON, touched=True, is_managed=False), [1], BY_HOLDER, True),
        (replace(ON, touched=True), [], BY_HOLDER, True),  # left at the list
        (TICKED, [], {}, True),
        (TICKED, [], BY_HOLDER, False),
    ],
)
def test_what_a_holder_chose_does_not_count(state, on, values, is_counted):
    approval = plan_of(decide(row(1, state, **values), on=on), on_roster=len(on)).approval
    assert approval.counted == ({1} if is_counted else frozenset())


def test_the_halves_of_a_move_do_not_count_and_are_carried_out_while_the_rest_waits():
    old = row(1, AddressState(False, seen=True, has_moved=True, is_managed=False), moved_to=2)
    departed = [row(number, replace(ON, is_managed=False)) for number in range(10, 20)]
    ids = [1, *range(10, 20), 30]
    plan = plan_of(decide(old, row(2, TICKED), *departed, row(30, ON), on=ids), on_roster=12, seen_on=12)
    assert (plan.approval.waiting, {each.row.address_id for each in plan.needs_no_approval}) == (
        set(range(10, 20)),
        {1, 2},
    )


def test_what_is_held_back_is_not_carried_out_while_the_rest_waits():
    departed = [row(number, replace(ON, is_managed=False)) for number in range(10, 20)]
    refused = row(1, TICKED, is_recent_refusal=True, by_holder=True)
    plan = plan_of(decide(refused, *departed, on=range(10, 20)), on_roster=10, seen_on=10)
    assert (len(plan.approval.waiting), plan.needs_no_approval) == (10, ())


@pytest.mark.parametrize(
    ("decision", "stays"),
    [
        (decide(row(1, ON), on=[1])[0], True),
        (decide(row(1, AddressState(None)), on=[1])[0], True),
        (decide(row(1, AddressState(False, seen=False)), on=[1])[0], True),  # joined
        (decide(row(1, UNTICKED), on=[1])[0], False),
        (decide(row(1, UNTICKED, is_recent_refusal=True), on=[1])[0], False),  # wants to go
        (decide(row(1, replace(ON, is_managed=False)), on=[1])[0], False),
        (decide(row(1, replace(ON, is_managed=False), is_recent_refusal=True), on=[1])[0], True),  # held back
        (decide(row(1, ON))[0], False),
        (decide(row(1, TICKED))[0], False),
    ],
)
def test_who_stays_is_on_the_roster_is_wanted_and_is_not_removed(decision, stays):
    assert decision.stays is stays
