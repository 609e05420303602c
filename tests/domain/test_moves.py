"""Moves in few words; all of them together are in test_move_space. Source: docs/semantics.md, "Identity"."""

import pytest

from portal.domain.moves import Displaced, Mailbox, Move, Stamp, Standing, move

CHAIR, ALICE, BOB = 20, 11, 12


def holders(*accounts: int) -> frozenset[int]:
    return frozenset(accounts)


def test_who_undoes_a_move_to_a_mailbox_that_another_took_meanwhile_leaves_what_stood_before() -> None:
    here = Mailbox(
        CHAIR,
        Standing(True, "rule", moved_from=ALICE),
        holders=holders(1, 2),
        guests=holders(2),
        displaced=(Displaced(1, Standing(False, "user")),),
    )
    home = Mailbox(ALICE, Standing(True, "user", moved_to=CHAIR, left_by=1))
    after = move({CHAIR: here, ALICE: home}, [Move(1, CHAIR, ALICE, is_return=True)], Stamp())
    assert (after[CHAIR].standing, after[CHAIR].holders) == (Standing(False, "user"), holders(2))
    assert (after[ALICE].standing, after[ALICE].holders) == (Standing(True, "user"), holders(1))


def test_a_yes_of_somebody_who_is_gone_does_not_work_for_those_who_stay_when_a_mover_goes_back() -> None:
    gone = Standing(True, "user", left_by=9)
    here = Mailbox(
        CHAIR,
        Standing(False, "rule", moved_from=ALICE),
        holders=holders(1, 2),
        guests=holders(2),
        displaced=(Displaced(1, gone),),
    )
    home = Mailbox(ALICE, Standing(False, "user", moved_to=CHAIR, left_by=1))
    after = move({CHAIR: here, ALICE: home}, [Move(1, CHAIR, ALICE, is_return=True)], Stamp())
    assert (after[CHAIR].standing, after[CHAIR].holders) == (None, holders(2))


def test_an_address_given_up_for_another_of_ones_own_brings_nothing_where_nothing_was_chosen() -> None:
    both = {ALICE: Mailbox(ALICE, holders=holders(1)), BOB: Mailbox(BOB, Standing(True, "user"), holders=holders(1))}
    after = move(both, [Move(1, ALICE, BOB)], Stamp())
    assert after[BOB].standing == Standing(True, "user")
    assert after[ALICE].holders == holders()


def test_of_two_who_take_one_free_mailbox_the_one_with_a_yes_brings_it() -> None:
    boxes = {
        ALICE: Mailbox(ALICE, holders=holders(1)),
        BOB: Mailbox(BOB, Standing(True, "user"), holders=holders(2)),
        CHAIR: Mailbox(CHAIR),
    }
    after = move(boxes, [Move(1, ALICE, CHAIR), Move(2, BOB, CHAIR)], Stamp())[CHAIR]
    assert after.standing is not None
    assert (after.standing.subscribed, after.standing.moved_from, after.holders) == (True, BOB, holders(1, 2))


@pytest.mark.parametrize("first", [True, False])
def test_of_two_who_take_one_free_mailbox_a_no_wins(first: bool) -> None:
    boxes = {
        ALICE: Mailbox(ALICE, Standing(first, "user"), holders=holders(1)),
        BOB: Mailbox(BOB, Standing(not first, "user"), holders=holders(2)),
        CHAIR: Mailbox(CHAIR),
    }
    moves = [Move(1, ALICE, CHAIR, is_active=True), Move(2, BOB, CHAIR, is_active=True)]
    after = move(boxes, moves, Stamp())[CHAIR]
    assert after.standing is not None
    assert (after.standing.subscribed, after.holders) == (False, holders(1, 2))


def test_who_moves_on_is_followed_from_the_first_mailbox() -> None:
    left = Standing(True, "user", moved_to=BOB, left_by=1)
    boxes = {ALICE: Mailbox(ALICE, left), BOB: Mailbox(BOB, holders=holders(1)), CHAIR: Mailbox(CHAIR)}
    after = move(boxes, [Move(1, BOB, CHAIR)], Stamp())[ALICE].standing
    assert after is not None
    assert after.moved_to == CHAIR
