"""Single cases of moves; test_move_space tests all of them. Source: docs/semantics.md, "Address changes"."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from portal.domain.moves import Displaced, Mailbox, Move, Stamp, StoredPreference, activate, chosen_at, deactivate, move

CHAIR, ALICE, BOB = 20, 11, 12


def holders(*accounts: int) -> frozenset[int]:
    return frozenset(accounts)


def test_who_undoes_a_move_to_a_mailbox_that_another_took_meanwhile_leaves_what_stood_before() -> None:
    here = Mailbox(
        CHAIR,
        StoredPreference(True, "rule", moved_from=ALICE),
        holders=holders(1, 2),
        guests=holders(2),
        displaced=(Displaced(1, StoredPreference(False, "user")),),
    )
    home = Mailbox(ALICE, StoredPreference(True, "user", moved_to=CHAIR, left_by=1))
    after = move({CHAIR: here, ALICE: home}, [Move(1, CHAIR, ALICE, is_return=True)], Stamp())
    assert (after[CHAIR].preference, after[CHAIR].holders) == (StoredPreference(False, "user"), holders(2))
    assert (after[ALICE].preference, after[ALICE].holders) == (StoredPreference(True, "user"), holders(1))


def test_a_yes_of_somebody_who_is_gone_does_not_work_for_those_who_stay_when_a_mover_goes_back() -> None:
    gone = StoredPreference(True, "user", left_by=9)
    here = Mailbox(
        CHAIR,
        StoredPreference(False, "rule", moved_from=ALICE),
        holders=holders(1, 2),
        guests=holders(2),
        displaced=(Displaced(1, gone),),
    )
    home = Mailbox(ALICE, StoredPreference(False, "user", moved_to=CHAIR, left_by=1))
    after = move({CHAIR: here, ALICE: home}, [Move(1, CHAIR, ALICE, is_return=True)], Stamp())
    assert (after[CHAIR].preference, after[CHAIR].holders) == (None, holders(2))


def test_an_address_given_up_for_another_of_ones_own_brings_nothing_where_nothing_was_chosen() -> None:
    both = {
        ALICE: Mailbox(ALICE, holders=holders(1)),
        BOB: Mailbox(BOB, StoredPreference(True, "user"), holders=holders(1)),
    }
    after = move(both, [Move(1, ALICE, BOB)], Stamp())
    assert after[BOB].preference == StoredPreference(True, "user")
    assert after[ALICE].holders == holders()


def test_of_two_who_take_one_free_mailbox_the_one_with_a_yes_brings_it() -> None:
    boxes = {
        ALICE: Mailbox(ALICE, holders=holders(1)),
        BOB: Mailbox(BOB, StoredPreference(True, "user"), holders=holders(2)),
        CHAIR: Mailbox(CHAIR),
    }
    after = move(boxes, [Move(1, ALICE, CHAIR), Move(2, BOB, CHAIR)], Stamp())[CHAIR]
    assert after.preference is not None
    assert (after.preference.subscribed, after.preference.moved_from, after.holders) == (True, BOB, holders(1, 2))


@pytest.mark.parametrize("first", [True, False])
def test_of_two_who_take_one_free_mailbox_a_no_wins(first: bool) -> None:
    boxes = {
        ALICE: Mailbox(ALICE, StoredPreference(first, "user"), holders=holders(1)),
        BOB: Mailbox(BOB, StoredPreference(not first, "user"), holders=holders(2)),
        CHAIR: Mailbox(CHAIR),
    }
    moves = [Move(1, ALICE, CHAIR, is_active=True), Move(2, BOB, CHAIR, is_active=True)]
    after = move(boxes, moves, Stamp())[CHAIR]
    assert after.preference is not None
    assert (after.preference.subscribed, after.holders) == (False, holders(1, 2))


def test_who_moves_on_is_followed_from_the_first_mailbox() -> None:
    left = StoredPreference(True, "user", moved_to=BOB, left_by=1)
    boxes = {ALICE: Mailbox(ALICE, left), BOB: Mailbox(BOB, holders=holders(1)), CHAIR: Mailbox(CHAIR)}
    after = move(boxes, [Move(1, BOB, CHAIR)], Stamp())[ALICE].preference
    assert after is not None
    assert after.moved_to == CHAIR


# Small tables, each line a case that SEMANTICS names.

X, Y, Z = 1, 2, 3
ME, OTHER = 1, 9
NOW = datetime(2026, 11, 1, tzinfo=UTC)
STAMP = Stamp(NOW, 7)
YES, NO = StoredPreference(True, "user", changed_at=NOW), StoredPreference(False, "user", changed_at=NOW)


def brings(subscribed: bool, **values: Any) -> StoredPreference:
    """What a move puts at a mailbox."""
    known: dict[str, Any] = {"seen": False, "touched": True, "moved_from": X, "changed_at": NOW, "changed_by": 7}
    return StoredPreference(subscribed, "rule", **{**known, **values})


def left(preference: StoredPreference, **values: Any) -> StoredPreference:
    """What somebody else had at a mailbox that nobody holds now."""
    return replace(preference, left_by=OTHER, **values)


@pytest.mark.parametrize(
    ("source", "at", "expected"), [("user", NOW, NOW), ("list", NOW, NOW), ("init", NOW, None), ("rule", NOW, None)]
)
def test_when_somebody_chose_is_known_where_somebody_did(source: str, at: datetime, expected: datetime | None) -> None:
    nobody, unknown = chosen_at(StoredPreference(True, "init")), chosen_at(StoredPreference(True, "user"))
    assert chosen_at(StoredPreference(True, source, changed_at=at)) == (expected or nobody)
    assert nobody < unknown < NOW


@pytest.mark.parametrize(
    ("preference", "holders_before", "who", "remembered"),
    [
        (YES, (ME,), ME, ME),
        (YES, (ME, OTHER), ME, None),
        (YES, (OTHER,), ME, None),
        (YES, (), ME, None),
        (None, (ME,), ME, None),
    ],
)
def test_the_last_active_holder_who_is_deactivated_is_remembered(
    preference: StoredPreference | None, holders_before: tuple[int, ...], who: int, remembered: int | None
) -> None:
    after = deactivate(Mailbox(X, preference, holders=holders(*holders_before)), who)
    assert after.holders == holders(*holders_before) - {who}
    assert (after.preference and after.preference.left_by) == remembered
    assert (after.preference and after.preference.subscribed) == (preference and preference.subscribed)


@pytest.mark.parametrize(
    ("preference", "holders_before", "expected"),
    [
        (replace(YES, left_by=ME), (), YES),
        (replace(YES, left_by=ME, moved_to=Y), (), YES),
        (left(YES), (), None),
        (left(YES, seen=True), (), replace(YES, seen=True)),
        (left(NO), (), NO),
        (YES, (OTHER,), YES),
        (left(YES), (OTHER,), left(YES)),
        (None, (), None),
    ],
)
def test_who_is_activated_finds_what_they_left_and_no_yes_of_somebody_who_came_meanwhile(
    preference: StoredPreference | None, holders_before: tuple[int, ...], expected: StoredPreference | None
) -> None:
    after = activate(Mailbox(X, preference, holders=holders(*holders_before)), ME)
    assert (after.preference, after.holders) == (expected, holders(ME, *holders_before))


@pytest.mark.parametrize(
    ("at_x", "at_y", "after_y"),
    [
        (YES, None, brings(True)),
        (NO, None, brings(False)),
        (None, None, None),
        # Nobody here ever held Y: its choice stands, and a yes goes where nobody chose.
        (YES, StoredPreference(False, "init", seen=False), brings(True)),
        (YES, StoredPreference(False, "rule"), brings(True)),
        (YES, NO, NO),
        (YES, StoredPreference(False, "list"), StoredPreference(False, "list")),
        (YES, YES, YES),
        (NO, StoredPreference(True, "init", seen=True), StoredPreference(True, "init", seen=True)),
        (NO, YES, YES),
        (None, YES, YES),
        # Somebody else left Y: what the mover brings replaces it, but for a no by a mailed link.
        (YES, left(NO), brings(True)),
        (NO, left(YES, seen=True, departed=True), brings(False, seen=True, departed=True)),
        (YES, left(StoredPreference(False, "link", changed_at=NOW)), StoredPreference(False, "link", changed_at=NOW)),
        (YES, left(StoredPreference(True, "link", changed_at=NOW)), brings(True)),
        # They bring nothing: a yes of somebody who is gone does not work for them.
        (None, left(YES), None),
        (None, left(YES, seen=False, touched=True), None),
        (None, left(YES, seen=True), replace(YES, seen=True)),
        (None, left(YES, waiting_since=NOW), replace(YES, subscribed=False, source="rule", waiting_since=NOW)),
        (None, left(YES, moved_to=Z), replace(YES, subscribed=False, source="rule")),
        (None, left(NO, touched=True, moved_to=Z), replace(NO, touched=True)),
    ],
)
def test_what_somebody_brings_to_a_mailbox_that_nobody_holds(
    at_x: StoredPreference | None, at_y: StoredPreference | None, after_y: StoredPreference | None
) -> None:
    boxes = {X: Mailbox(X, at_x, holders=holders(ME)), Y: Mailbox(Y, at_y)}
    after = move(boxes, [Move(ME, X, Y)], STAMP)
    assert after[Y].preference == after_y
    assert after[Y].displaced == ((Displaced(ME, at_y),) if at_y or after_y else ())
    assert after[X].preference == (at_x and replace(at_x, left_by=ME, moved_to=Y)), "X's preference is not written"
    assert (after[X].holders, after[Y].holders) == (holders(), holders(ME))


def test_a_yes_that_is_being_removed_is_as_one_that_is_not_on_the_list() -> None:
    here = Mailbox(Y, left(YES, seen=True), is_being_removed=True)
    after = move({X: Mailbox(X, holders=holders(ME)), Y: here}, [Move(ME, X, Y)], STAMP)
    assert after[Y].preference is None


@pytest.mark.parametrize("at_y", [None, YES, NO])
def test_a_mailbox_that_another_account_holds_keeps_what_it_has(at_y: StoredPreference | None) -> None:
    boxes = {X: Mailbox(X, YES, holders=holders(ME)), Y: Mailbox(Y, at_y, holders=holders(OTHER))}
    after = move(boxes, [Move(ME, X, Y)], STAMP)[Y]
    assert (after.preference, after.holders, after.guests) == (at_y, holders(ME, OTHER), holders(ME))


@pytest.mark.parametrize(
    ("at_x", "at_y", "changed_since_move", "others", "after_x"),
    [
        (YES, brings(True), False, (), YES),
        (YES, NO, True, (), brings(False, seen=False, touched=False, moved_from=None)),
        (NO, YES, True, (), brings(True, seen=False, touched=False, moved_from=None)),
        (NO, replace(YES, touched=True), True, (), brings(True, seen=False, moved_from=None)),
        (YES, NO, True, (OTHER,), YES),
        (YES, NO, False, (), YES),
        (YES, None, False, (), YES),
    ],
)
def test_going_back_finds_what_stood_or_what_was_chosen_since(
    at_x: StoredPreference,
    at_y: StoredPreference | None,
    changed_since_move: bool,
    others: tuple[int, ...],
    after_x: StoredPreference,
) -> None:
    home = Mailbox(X, replace(at_x, left_by=ME, moved_to=Y))
    here = Mailbox(
        Y, at_y, holders=holders(ME, *others), changed_since_move=holders(ME) if changed_since_move else holders()
    )
    after = move({X: home, Y: here}, [Move(ME, Y, X, is_return=True)], STAMP)
    assert (after[X].preference, after[X].holders) == (after_x, holders(ME))


@pytest.mark.parametrize(("changed_since_move", "expected"), [(False, X), (True, Y)])
def test_who_moves_on_from_a_mailbox_of_others_takes_along_what_they_left_before(
    changed_since_move: bool, expected: int
) -> None:
    home = Mailbox(X, replace(NO, left_by=ME, moved_to=Y))
    here = Mailbox(
        Y,
        YES,
        holders=holders(ME, OTHER),
        guests=holders(ME),
        changed_since_move=holders(ME) if changed_since_move else holders(),
    )
    after = move({X: home, Y: here, Z: Mailbox(Z)}, [Move(ME, Y, Z)], STAMP)
    assert after[Z].preference == brings(expected == Y, moved_from=expected)
    assert after[Y].preference == YES, "the others hold it"


@pytest.mark.parametrize(
    ("left_by", "expected"), [(ME, brings(True, touched=True)), (OTHER, None), (None, None)], ids=["me", "other", "-"]
)
def test_who_is_not_active_brings_what_they_were_the_last_to_leave(
    left_by: int | None, expected: StoredPreference | None
) -> None:
    boxes = {X: Mailbox(X, replace(YES, left_by=left_by)), Y: Mailbox(Y)}
    after = move(boxes, [Move(ME, X, Y, is_active=False)], STAMP)
    assert after[Y].preference == (expected and replace(expected, left_by=ME))
    assert after[Y].holders == holders()
    found = after[X].preference
    assert found is not None
    assert (found.left_by, found.moved_to) == (left_by, Y if left_by == ME else None)


LATER, SOONER = NOW + timedelta(days=1), NOW - timedelta(days=1)


@pytest.mark.parametrize(
    ("at_main", "at_removed", "expected"),
    [
        (None, YES, brings(True)),
        (None, None, None),
        (replace(NO, changed_at=SOONER), YES, brings(True, seen=False)),
        (NO, replace(YES, changed_at=SOONER), NO),
        (YES, replace(NO, changed_at=LATER), brings(False)),
        (YES, replace(YES, changed_at=LATER), YES),
        (StoredPreference(False, "init"), StoredPreference(True, "init"), brings(True)),
        (StoredPreference(True, "init"), StoredPreference(False, "init"), StoredPreference(True, "init")),
        (replace(NO, left_by=OTHER, changed_at=SOONER), YES, replace(NO, left_by=OTHER, changed_at=SOONER)),
    ],
)
def test_of_an_address_given_up_and_the_main_one_the_later_choice_counts(
    at_main: StoredPreference | None, at_removed: StoredPreference | None, expected: StoredPreference | None
) -> None:
    boxes = {X: Mailbox(X, at_removed, holders=holders(ME)), Y: Mailbox(Y, at_main, holders=holders(ME))}
    after = move(boxes, [Move(ME, X, Y, is_held=True)], STAMP)
    assert (after[Y].preference, after[Y].holders) == (expected, holders(ME))


@pytest.mark.parametrize(
    ("at_main", "found", "expected"),
    [
        (None, StoredPreference(True, "init", seen=True), None),
        (NO, replace(YES, changed_at=LATER), NO),
        (StoredPreference(False, "rule"), StoredPreference(True, "init", seen=True), brings(True)),
        (
            brings(False),
            StoredPreference(True, "list", seen=True),
            brings(False),
        ),  # a no that came along from elsewhere
    ],
)
def test_what_others_left_at_an_address_given_up_is_no_choice(
    at_main: StoredPreference | None, found: StoredPreference, expected: StoredPreference | None
) -> None:
    given_up = Mailbox(X, found, holders=holders(ME), displaced=(Displaced(ME, found),))
    after = move({X: given_up, Y: Mailbox(Y, at_main, holders=holders(ME))}, [Move(ME, X, Y, is_held=True)], STAMP)
    assert after[Y].preference == expected


@pytest.mark.parametrize(("new", "remembered"), [(None, (ME, None)), (Y, (ME, Y))], ids=["deleted", "moved"])
def test_who_is_deleted_cannot_be_followed(new: int | None, remembered: tuple[int, int | None]) -> None:
    boxes = {
        X: Mailbox(X, YES, holders=holders(ME)),
        Y: Mailbox(Y),
        Z: Mailbox(Z, replace(YES, left_by=ME, moved_to=X)),
    }
    after = move(boxes, [Move(ME, X, new)], STAMP)
    assert after[X].preference == replace(YES, left_by=remembered[0], moved_to=remembered[1])
    assert after[Z].preference == replace(YES, left_by=ME, moved_to=new or Z), "nobody waits for a successor"


@pytest.mark.parametrize(
    ("at_y", "changed_since_move", "expected"),
    [(NO, False, None), (NO, True, brings(False, moved_from=Y)), (brings(False), False, brings(False, moved_from=Y))],
)
def test_going_back_to_a_mailbox_that_another_had_since_brings_what_is_ones_own_doing(
    at_y: StoredPreference, changed_since_move: bool, expected: StoredPreference | None
) -> None:
    here = Mailbox(Y, at_y, holders=holders(ME), changed_since_move=holders(ME) if changed_since_move else holders())
    after = move({X: Mailbox(X, left(YES)), Y: here}, [Move(ME, Y, X, is_return=True)], STAMP)
    assert after[X].preference == expected


def test_a_main_address_that_others_hold_too_keeps_what_it_has() -> None:
    boxes = {X: Mailbox(X, replace(YES, changed_at=LATER), holders=holders(ME))}
    boxes[Y] = Mailbox(Y, NO, holders=holders(ME, OTHER))
    assert move(boxes, [Move(ME, X, Y, is_held=True)], STAMP)[Y].preference == NO


@pytest.mark.parametrize(
    ("found", "now", "expected"),
    [
        (
            StoredPreference(True, "init", seen=True),
            StoredPreference(False, "rule", seen=True, touched=True),
            None,
        ),  # it ended
        (replace(NO, changed_at=SOONER), YES, brings(True)),  # they chose since
        (StoredPreference(True, "rule", changed_at=NOW), brings(True, moved_from=Z), brings(True)),  # a move brought it
        (None, StoredPreference(True, "init", seen=True), brings(True)),
    ],
)
def test_what_was_found_at_an_address_is_told_from_what_became_of_it(
    found: StoredPreference | None, now: StoredPreference, expected: StoredPreference | None
) -> None:
    given_up = Mailbox(X, now, holders=holders(ME, OTHER), displaced=(Displaced(ME, found),))
    after = move({X: given_up, Y: Mailbox(Y, holders=holders(ME))}, [Move(ME, X, Y, is_held=True)], STAMP)
    assert after[Y].preference == expected


@pytest.mark.parametrize(
    ("before", "current", "expected"),
    [
        (replace(NO, seen=False), brings(True), replace(NO, seen=False)),
        (replace(NO, seen=False), brings(True, seen=True, touched=False), replace(NO, seen=True)),
        (
            replace(NO, seen=False),
            brings(True, touched=False, waiting_since=NOW),
            replace(NO, seen=False, waiting_since=NOW),
        ),
        (
            replace(YES, seen=True),
            StoredPreference(False, "list", seen=False),
            replace(YES, subscribed=False, source="list", seen=False),
        ),
        (YES, StoredPreference(False, "list", seen=False), replace(YES, seen=False)),
        (replace(YES, seen=True), None, replace(YES, seen=True)),
        (None, brings(True), None),
    ],
)
def test_what_is_put_back_knows_what_runs_have_read_of_the_list_since(
    before: StoredPreference | None, current: StoredPreference | None, expected: StoredPreference | None
) -> None:
    here = Mailbox(Y, current, holders=holders(ME, OTHER), displaced=(Displaced(ME, before),))
    after = move({X: Mailbox(X), Y: here}, [Move(ME, Y, X)], STAMP)[Y]
    assert (after.preference, after.displaced, after.holders) == (expected, (), holders(OTHER))


def test_of_two_who_come_back_at_once_the_one_who_left_meanwhile_is_obeyed_and_displaces_nothing() -> None:
    boxes = {
        X: Mailbox(X, replace(YES, left_by=2)),
        Y: Mailbox(Y, NO, holders=holders(ME), changed_since_move=holders(ME)),
        Z: Mailbox(Z, holders=holders(2)),
    }
    after = move(boxes, [Move(ME, Y, X, is_return=True), Move(2, Z, X)], STAMP)[X]
    assert after.preference == brings(False, touched=False, moved_from=None)
    assert (after.displaced, after.holders) == ((), holders(ME, 2))
