"""Two people with several addresses among two mailboxes, one list: the promises of SEMANTICS, "Several addresses".

Every sequence of up to ``DEPTH`` events is tried from every first world: ticks for an address, unticks, addresses given,
taken away and made the main one, joins and leaves at the list, and runs. Of longer sequences a sample is tried.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from random import Random

import pytest

from portal.domain import moves
from portal.domain.merge import Action, Rules
from portal.domain.moves import Displaced, Mailbox, Move, Stamp, StoredPreference
from portal.domain.several_addresses import OwnAddress, TickableAddress, ended_elsewhere, tick, untick
from tests.domain.test_move_space import LONG_AGO, MAILBOXES, World, plan, run

pytestmark = pytest.mark.slow

DEPTH = 3
SAMPLE = 5_000
PEOPLE = (1, 2)
CLERK = 7
RULES = Rules()


@dataclass(frozen=True)
class Several(World):
    """Who holds which mailboxes, the main one first; ``days`` makes each choice later than the one before."""

    held: tuple[tuple[int, ...], ...] = ((), ())
    days: int = 0

    def of(self, person: int) -> tuple[int, ...]:
        return self.held[person - 1]

    def holding(self, person: int, numbers: tuple[int, ...]) -> "Several":
        return replace(self, held=tuple(numbers if each == person else self.of(each) for each in PEOPLE))

    def is_shared(self, number: int) -> bool:
        return len(self.at(number).holders) > 1

    def alone(self, person: int) -> list[int]:
        return [number for number in self.of(person) if not self.is_shared(number)]

    def wants(self, number: int) -> bool | None:
        preference = self.at(number).preference
        return None if preference is None else preference.subscribed


def first_worlds() -> Iterator[Several]:
    """Somebody with one or two addresses, somebody else with one, the same, or none; others may be on the list."""
    for first, second, on in product([(1,), (1, 2)], [(), (1,), (2,)], [(), (1,), (2,), (1, 2)]):
        held = {number: {person for person, own in ((1, first), (2, second)) if number in own} for number in MAILBOXES}
        boxes = tuple(Mailbox(number, holders=frozenset(held[number])) for number in MAILBOXES)
        yield Several(boxes, (None, None), roster=frozenset(on), held=(first, second))


def events(world: Several) -> Iterator[Several]:
    for person in PEOPLE:
        for number in MAILBOXES:
            if number in world.of(person):
                yield ticked(world, person, number)
                if number != world.of(person)[0]:
                    yield removed(world, person, number)
                    rest = tuple(each for each in world.of(person) if each != number)
                    yield world.holding(person, (number, *rest))
            elif world.of(person):
                yield given(world, person, number)
        if world.of(person):
            yield unticked(world, person)
    for number in MAILBOXES:
        yield replace(world, roster=world.roster ^ {number})
    yield run(world, RULES)


def held(world: Several, person: int) -> list[TickableAddress]:
    return [TickableAddress(number, world.is_shared(number), world.wants(number)) for number in world.of(person)]


def ticked(world: Several, person: int, number: int) -> Several:
    wanted = tick(held(world, person), number)
    return chosen(world, person, {each: (is_on, "user" if is_on else "rule") for each, is_on in wanted.items()})


def unticked(world: Several, person: int) -> Several:
    return chosen(world, person, {each: (is_on, "user") for each, is_on in untick(held(world, person)).items()})


def chosen(world: Several, person: int, wanted: dict[int, tuple[bool, str]]) -> Several:
    """Write choices as they are written: what is so already is no change."""
    after = replace(world, days=world.days + 1)
    for number, (is_on, source) in wanted.items():
        mailbox = world.at(number)
        if world.wants(number) is is_on:
            continue
        is_choice = source == "user"
        preference = replace(
            mailbox.preference or StoredPreference(is_on, source),
            subscribed=is_on,
            source=source,
            touched=True,
            moved_from=None,
            departed=False,
            changed_at=LONG_AGO.replace(day=after.days),
            changed_by=person,
        )
        displaced = () if is_choice else mailbox.displaced
        after = after.with_mailbox(replace(mailbox, preference=preference, displaced=displaced))
    return after


def given(world: Several, person: int, number: int) -> Several:
    before = {each.address_id: each for each in world.mailboxes}
    was = before[number]
    is_back = bool(was.preference and was.preference.left_by == person)
    found = moves.move(before, [Move(person, None, number)], Stamp(by=CLERK))
    if was.holders:
        found[number] = replace(found[number], guests=found[number].guests | {person})
    after = world.with_mailboxes(found).holding(person, (*world.of(person), number))
    own = [
        OwnAddress(
            each, after.at(each).preference, index == 0, after.is_shared(each), is_found=each == number and not is_back
        )
        for index, each in enumerate(after.of(person))
    ]
    for each, preference in ended_elsewhere(own, person, Stamp(by=CLERK)).items():
        mailbox = after.at(each)
        added = (Displaced(person, mailbox.preference),) if each == number else ()
        after = after.with_mailbox(replace(mailbox, preference=preference, displaced=(*mailbox.displaced, *added)))
    return managed_again(after)


def removed(world: Several, person: int, number: int) -> Several:
    before = {each.address_id: each for each in world.mailboxes}
    main, *others = (each for each in world.of(person) if each != number)
    found = moves.move(before, [Move(person, number, main, is_held=True)], Stamp(by=CLERK))
    return managed_again(world.with_mailboxes(found).holding(person, (main, *others)))


def managed_again(world: Several) -> Several:
    for mailbox in world.mailboxes:
        if mailbox.preference is not None and mailbox.holders:
            world = world.with_mailbox(replace(mailbox, preference=replace(mailbox.preference, departed=False)))
    return world


@cache
def space() -> frozenset[Several]:
    found = set(first_worlds())
    edge = set(found)
    for _ in range(DEPTH):
        edge = {after for world in edge for after in events(world)} - found
        found |= edge
    dice = Random(0)
    longer = dice.choices(sorted(edge, key=repr), k=SAMPLE)  # by one event
    return frozenset(found | {dice.choice([*events(world)]) for world in longer})


def test_nobody_is_added_without_a_standing_yes_and_an_account() -> None:
    for world in space():
        for each in plan(world, RULES):
            if each.action is Action.ADD:
                mailbox = world.at(each.row.address_id)
                assert mailbox.preference is not None
                assert mailbox.preference.subscribed
                assert mailbox.holders


def test_nobody_who_was_on_at_the_last_run_and_is_off_now_is_added() -> None:
    for world in space():
        for each in plan(world, RULES):
            if each.row.state.seen is True and not each.on_roster:
                assert each.action is not Action.ADD, world


def test_a_second_run_in_a_row_does_nothing() -> None:
    for world in space():
        after = run(world, RULES)
        assert run(after, RULES) == after, world


def test_after_a_tick_a_list_is_sent_to_the_chosen_address_and_to_no_other_that_nobody_else_holds() -> None:
    for world in space():
        for person, number in product(PEOPLE, MAILBOXES):
            if number in world.of(person) and world.wants(number) is not True and not has_left(world, number):
                after = run(ticked(world, person, number), RULES)
                joined = {each for each in world.roster if world.at(each).preference and not world.wants(each)}
                assert number in after.roster, (person, number, world)
                assert set(after.alone(person)) & after.roster <= {number} | joined, (person, number, world)


def has_left(world: Several, number: int) -> bool:
    """Return True if somebody left at the list with a mailbox, or with one that they had before: a leave counts."""
    stood = [(each.address_id, each.preference) for each in world.mailboxes if each.preference is not None]
    those = [each for each, preference in stood if preference.seen is True and number in {each, preference.moved_to}]
    return any(each not in world.roster for each in those)


def test_after_an_untick_a_list_is_sent_to_none_of_the_addresses_that_the_person_alone_holds() -> None:
    for world in space():
        for person in PEOPLE:
            if any(world.wants(number) for number in world.of(person)):
                after = unticked(world, person)
                assert not any(after.wants(number) for number in after.alone(person))
                changed = {number for number in world.of(person) if after.wants(number) is not world.wants(number)}
                assert not changed & run(after, RULES).roster, (person, world)


def test_after_an_address_was_given_a_list_is_sent_to_at_most_one_that_nobody_else_holds() -> None:
    for world in space():
        for person, number in product(PEOPLE, MAILBOXES):
            if world.of(person) and number not in world.of(person):
                after = given(world, person, number)
                assert sum(after.wants(each) is True for each in after.alone(person)) <= 1
                was = any(world.wants(each) for each in world.alone(person))
                assert not was or any(after.wants(each) for each in after.of(person)), "it is still sent to the person"


def test_an_address_given_by_mistake_and_taken_away_is_as_if_nothing_had_happened() -> None:
    tried = 0
    for world in space():
        for person, number in product(PEOPLE, MAILBOXES):
            preference = world.at(number).preference
            is_back = preference is not None and preference.left_by == person
            if world.of(person) and number not in world.of(person) and not is_back:
                after = removed(given(world, person, number), person, number)
                assert after.at(number) == world.at(number), (person, number, world)
                wanted = [after.wants(each) for each in MAILBOXES]
                assert wanted == [world.wants(each) for each in MAILBOXES], (person, number, world)
                tried += 1
    assert tried


def test_a_removed_address_leaves_the_list_and_the_main_one_is_on_it_instead() -> None:
    for world in space():
        for person in PEOPLE:
            for number in world.alone(person):
                main = world.of(person)[0]
                preference = world.at(number).preference
                is_only = all(not world.wants(each) for each in world.of(person) if each != number)
                if number == main or preference is None or not preference.subscribed or not is_only:
                    continue
                if world.is_shared(main) or world.at(main).preference is not None or world.at(number).displaced:
                    continue
                if preference.seen and number not in world.roster:
                    continue  # they left at the list
                after = run(run(removed(world, person, number), RULES), RULES)
                assert after.roster & {number, main} == {main}, (person, number, world)


@pytest.mark.parametrize("person", PEOPLE)
def test_another_main_address_changes_no_preference(person: int) -> None:
    for world in space():
        for number in world.of(person)[1:]:
            after = world.holding(person, (number, *(each for each in world.of(person) if each != number)))
            assert after.mailboxes == world.mailboxes
