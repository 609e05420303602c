"""Several addresses of one person and one list: every state of three addresses. Source: docs/semantics.md."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from portal.domain.moves import Stamp, StoredPreference
from portal.domain.several_addresses import OwnAddress, TickableAddress, ended_elsewhere, tick, untick

ALICE, BOB = 1, 2
NOW = datetime(2026, 11, 1, tzinfo=UTC)
STAMP = Stamp(NOW, 7)
MAIN, SECOND, THIRD = 1, 2, 3


def all_held() -> Iterator[tuple[TickableAddress, ...]]:
    """Three addresses of a person, shared or not, subscribed, unsubscribed or nothing yet."""
    for shared, subscribed in product(product([False, True], repeat=3), product([None, False, True], repeat=3)):
        yield tuple(TickableAddress(*each) for each in zip((MAIN, SECOND, THIRD), shared, subscribed, strict=True))


def after(held: tuple[TickableAddress, ...], wanted: dict[int, bool]) -> tuple[TickableAddress, ...]:
    return tuple(each._replace(subscribed=wanted.get(each.address_id, each.subscribed)) for each in held)


@pytest.mark.parametrize("chosen", [MAIN, SECOND, THIRD])
def test_a_tick_subscribes_the_chosen_address_and_ends_the_others_that_nobody_else_holds(chosen: int) -> None:
    for held in all_held():
        for each, before in zip(after(held, tick(held, chosen)), held, strict=True):
            if each.address_id == chosen:
                assert each.subscribed is True
            else:
                assert each.subscribed is (before.subscribed if each.is_shared else False)


def test_an_untick_ends_what_the_person_alone_holds_and_a_shared_address_where_it_is_the_only_one() -> None:
    for held in all_held():
        subscribed = [each for each in held if each.subscribed]
        for each, before in zip(after(held, untick(held)), held, strict=True):
            if not each.is_shared or not subscribed:
                assert each.subscribed is False
            elif any(not other.is_shared for other in subscribed):
                assert each == before, "others hold it too"
            else:
                assert each.subscribed is (False if before == subscribed[0] else before.subscribed)


def test_unticking_again_and_again_ends_a_list_for_every_address() -> None:
    for held in all_held():
        ended = held
        for _untick in held:
            ended = after(ended, untick(ended))
        assert not any(each.subscribed for each in ended)


# An address given.


def standings() -> list[StoredPreference | None]:
    days = {"init": 3, "rule": 4, "user": 1, "list": 2}
    chosen = [(source, by) for source in days for by in ((ALICE, BOB) if source == "user" else (None,))]
    return [
        None,
        StoredPreference(False, "user", changed_at=NOW, changed_by=ALICE),
        *(
            StoredPreference(
                True,
                source,
                seen=seen,
                touched=source == "user",
                changed_at=NOW - timedelta(days=days[source]),
                changed_by=by,
            )
            for (source, by), seen in product(chosen, (True, False))
        ),
    ]


def all_own() -> Iterator[tuple[OwnAddress, ...]]:
    for stood, shared in product(product(standings(), repeat=2), product([False, True], repeat=2)):
        yield tuple(
            OwnAddress(number, preference, is_main=number == MAIN, is_shared=is_shared)
            for number, preference, is_shared in zip((MAIN, SECOND), stood, shared, strict=True)
        )


def is_on(preference: StoredPreference | None) -> bool:
    return preference is not None and preference.subscribed


def test_a_list_sends_to_one_of_the_addresses_that_nobody_else_holds_if_it_did_to_any() -> None:
    for own in all_own():
        ended = ended_elsewhere(own, ALICE, STAMP)
        left = [each for each in own if is_on(ended.get(each.address_id, each.preference)) and not each.is_shared]
        was = [each for each in own if is_on(each.preference) and not each.is_shared]
        chosen_shared = [
            each for each in own if each.is_shared and is_on(each.preference) and each.preference.changed_by == ALICE
        ]
        assert len(left) == (1 if was and not chosen_shared else len(left))
        assert len(left) <= 1
        assert bool(left or chosen_shared) is bool(was or chosen_shared)


def test_what_others_hold_too_stays_and_what_ends_is_no_choice() -> None:
    ended: dict[str, Any] = {"subscribed": False, "source": "rule", "touched": True, "changed_at": NOW, "changed_by": 7}
    for own in all_own():
        was = {each.address_id: each for each in own}
        for address_id, preference in ended_elsewhere(own, ALICE, STAMP).items():
            assert not was[address_id].is_shared
            assert was[address_id].preference is None or is_on(was[address_id].preference), "what has ended stays so"
            before = was[address_id].preference or StoredPreference(False, "rule")
            assert preference == replace(before, **ended), "what was seen and what waits stays"


def test_nothing_ends_where_the_person_is_sent_nothing() -> None:
    for own in all_own():
        if not any(is_on(each.preference) for each in own):
            assert ended_elsewhere(own, ALICE, STAMP) == {}


@pytest.mark.parametrize(
    ("main", "second", "kept"),
    [
        (
            StoredPreference(True, "user", changed_at=NOW),
            StoredPreference(True, "init", seen=True, changed_at=NOW),
            MAIN,
        ),
        (StoredPreference(True, "init", seen=True), StoredPreference(True, "user", changed_at=NOW), SECOND),
        (
            StoredPreference(True, "user", seen=True, changed_at=NOW - timedelta(days=1)),
            StoredPreference(True, "user", changed_at=NOW),
            SECOND,
        ),
        (StoredPreference(True, "init", seen=False), StoredPreference(True, "init", seen=True), SECOND),
        (StoredPreference(True, "rule", seen=True), StoredPreference(True, "init", seen=True), MAIN),
        (StoredPreference(True, "import"), StoredPreference(True, "init", seen=True), MAIN),
    ],
)
def test_the_one_chosen_last_stays_else_one_on_the_roster_else_the_main_one(
    main: StoredPreference, second: StoredPreference, kept: int
) -> None:
    own = (OwnAddress(MAIN, main, is_main=True), OwnAddress(SECOND, second))
    assert set(ended_elsewhere(own, ALICE, STAMP)) == {MAIN, SECOND} - {kept}


def test_what_others_chose_at_a_shared_mailbox_is_no_choice_of_the_person() -> None:
    own = OwnAddress(MAIN, StoredPreference(True, "init", seen=True), is_main=True)
    shared = OwnAddress(SECOND, StoredPreference(True, "user", changed_at=NOW, changed_by=BOB), is_shared=True)
    assert ended_elsewhere((own, shared), ALICE, STAMP) == {}
    assert set(ended_elsewhere((own, shared), BOB, STAMP)) == {MAIN}


@pytest.mark.parametrize(
    ("second", "kept"),
    [
        (
            OwnAddress(
                SECOND, StoredPreference(True, "user", seen=False, changed_at=NOW, changed_by=ALICE), is_found=True
            ),
            MAIN,
        ),
        (
            OwnAddress(
                SECOND, StoredPreference(True, "user", seen=True, changed_at=NOW, changed_by=ALICE), is_found=True
            ),
            SECOND,
        ),
        (
            OwnAddress(
                SECOND, StoredPreference(True, "user", changed_at=NOW, changed_by=ALICE), is_shared=True, is_found=True
            ),
            MAIN,
        ),
        (OwnAddress(SECOND, StoredPreference(True, "init", changed_at=NOW, changed_by=ALICE), is_shared=True), MAIN),
        (OwnAddress(SECOND, StoredPreference(True, "user", changed_at=NOW, changed_by=ALICE), is_shared=True), SECOND),
    ],
    ids=["found", "found on the roster", "found and shared", "nobody's choice", "their own choice"],
)
def test_what_is_found_at_a_mailbox_is_no_choice_of_who_was_given_it(second: OwnAddress, kept: int) -> None:
    main = OwnAddress(MAIN, StoredPreference(True, "init", seen=False, moved_from=9), is_main=True)
    ended = ended_elsewhere((main, second), ALICE, STAMP)
    assert set(ended) == {MAIN, SECOND} - {kept} - ({SECOND} if second.is_shared else set())
    assert all(each.moved_from is None for each in ended.values())


def test_a_shared_mailbox_that_somebody_was_given_with_what_they_had_chosen_once_ends_nothing_elsewhere() -> None:
    shared = OwnAddress(
        SECOND, StoredPreference(True, "user", changed_at=NOW, changed_by=ALICE), is_shared=True, is_found=True
    )
    assert ended_elsewhere((OwnAddress(MAIN, None, is_main=True), shared), ALICE, STAMP) == {}
