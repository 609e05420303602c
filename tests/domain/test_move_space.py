"""Two people, two mailboxes, one list: the promises of SEMANTICS hold whatever is done, in whatever order.

Every sequence of up to ``DEPTH`` events is tried from every first world, and a run after each of them: choices, mailed
links, joins and leaves at the list, moves, swaps, moves of two together, deactivations, deletions, the purge, and runs
that are done as told or held up by a moderator. What an account holds by a move, and whom a mailbox was shared with, is
remembered. Of sequences that are longer by one event, a sample is tried.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import cache
from itertools import product
from random import Random

import pytest

from portal.domain import moves
from portal.domain.merge import Action, AddressState, PushResult, Rules, conclude
from portal.domain.moves import Displaced, Mailbox, Move, Stamp, StoredPreference
from portal.domain.plan import Decision, Reason, Row, decide_rows

pytestmark = pytest.mark.slow

DEPTH = 3
SAMPLE = 3_000  # worlds that are one event further away
PEOPLE = (1, 2)
MOVER = 7  # whoever moves people
BOTH = 12  # in the place of one of them, where a preference is of the two
MAILBOXES = (1, 2)
NAMES = {number: f"u{number}@example.org" for number in MAILBOXES}
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
RULES = [Rules(), Rules(remove_on_departure=False)]


@dataclass(frozen=True)
class World:
    """What is stored, what is true at the list manager, and what each person visibly did last.

    ``seats`` says who holds which mailbox and whether they are active; ``moved_in`` who holds theirs by a move;
    ``welcomed`` who has held theirs together with somebody else, so that what stands there is of both;
    ``origins`` which mailbox they moved there from.
    """

    mailboxes: tuple[Mailbox, ...]
    seats: tuple[tuple[int, bool] | None, ...]
    roster: frozenset[int] = frozenset()
    at_moderator: frozenset[int] = frozenset()
    moved_in: frozenset[int] = frozenset()
    welcomed: frozenset[int] = frozenset()
    origins: tuple[int | None, ...] = (None, None)
    acts: tuple[str, ...] = ("", "")

    def at(self, number: int) -> Mailbox:
        return self.mailboxes[number - 1]

    def seat(self, person: int) -> tuple[int, bool] | None:
        return self.seats[person - 1]

    def with_mailbox(self, mailbox: Mailbox) -> "World":
        changed = tuple(mailbox if each.address_id == mailbox.address_id else each for each in self.mailboxes)
        return replace(self, mailboxes=changed)

    def with_mailboxes(self, found: Mapping[int, Mailbox]) -> "World":
        return replace(self, mailboxes=tuple(found[number] for number in MAILBOXES))

    def with_seat(self, person: int, seat: tuple[int, bool] | None) -> "World":
        return replace(self, seats=tuple(seat if each == person else self.seat(each) for each in PEOPLE))

    def with_act(self, people: frozenset[int] | set[int], act: str) -> "World":
        acts = tuple(act if each in people else self.acts[each - 1] for each in PEOPLE)
        return replace(self, acts=acts)


def first_worlds() -> Iterator[World]:
    """Alone or together, nothing known yet; strangers may be on the list."""
    for second, on in product([1, 2, None], [(), (1,), (2,), (1, 2)]):
        held = {1: {1}, 2: set()}
        if second:
            held[second].add(2)
        boxes = tuple(Mailbox(number, holders=frozenset(held[number])) for number in MAILBOXES)
        seats = ((1, True), (second, True) if second else None)
        yield World(boxes, seats, roster=frozenset(on), welcomed=frozenset(PEOPLE if second == 1 else ()))


# What happens.


def events(world: World) -> Iterator[World]:
    for mailbox in world.mailboxes:
        yield from choices(world, mailbox)
        yield from at_the_list(world, mailbox)
    for person in PEOPLE:
        yield from of_accounts(world, person)
    yield from swaps(world)
    yield purged(world)


def choices(world: World, mailbox: Mailbox) -> Iterator[World]:
    preference = mailbox.preference
    for wish in (True, False):
        if preference is not None and preference.subscribed is wish:
            continue  # choosing what already holds is no change
        if mailbox.holders:
            chosen = _chosen(preference, wish, "user", mailbox.holders)
            after = replace(
                mailbox, preference=chosen, displaced=(), changed_since_move=mailbox.holders & world.moved_in
            )
            yield world.with_mailbox(after).with_act(mailbox.holders, "join" if wish else "leave")
        elif preference is not None and not wish:
            chosen = replace(_chosen(preference, False, "link", frozenset()), left_by=preference.left_by)
            chosen = replace(chosen, moved_to=preference.moved_to, departed=False)
            after_link = world.with_mailbox(replace(mailbox, preference=chosen, displaced=()))
            yield _followed(after_link, preference)


def together(people: frozenset[int] | set[int]) -> int | None:
    """Return one number for those whom a preference is of."""
    return {0: None, 1: next(iter(people), None), 2: BOTH}[len(people)]


def _chosen(preference: StoredPreference | None, wish: bool, source: str, people: frozenset[int]) -> StoredPreference:
    before = preference or StoredPreference(wish, source)
    before = replace(before, left_by=None, moved_to=None, moved_from=None)
    return replace(before, subscribed=wish, source=source, touched=True, departed=False, changed_by=together(people))


def _followed(world: World, old: StoredPreference) -> World:
    """A visible leave with the address that somebody moved from is theirs, unless they are on with the new one."""
    if old.moved_to is None or old.left_by is None:
        return world
    new = world.at(old.moved_to)
    is_theirs = new.holders <= {old.left_by} and (
        new.preference is None or new.preference.left_by in {None, old.left_by}
    )
    if new.address_id in world.roster or not is_theirs:
        return world
    return world.with_act(new.holders & {old.left_by}, "leave")


def at_the_list(world: World, mailbox: Mailbox) -> Iterator[World]:
    number, preference = mailbox.address_id, mailbox.preference
    if number in world.roster:
        after = replace(world, roster=world.roster - {number})
        if preference is not None and preference.seen is True:
            yield _followed(after, preference) if not mailbox.holders else after.with_act(mailbox.holders, "leave")
        else:  # a join and a leave between two runs are seen by nobody
            yield after.with_act(mailbox.holders, "")
    else:
        joined = replace(world, roster=world.roster | {number}, at_moderator=world.at_moderator - {number})
        if preference is not None and preference.seen is True:  # as are a leave and a join
            joined = joined.with_act(set(PEOPLE), "")
        yield joined.with_act(mailbox.holders, "join")
    if number in world.at_moderator:
        rest = world.at_moderator - {number}
        yield replace(world, at_moderator=rest)
        yield replace(world, at_moderator=rest, roster=world.roster | {number})


def of_accounts(world: World, person: int) -> Iterator[World]:
    seat = world.seat(person)
    if seat is None:
        for number in MAILBOXES:
            yield moved(world, [Move(person, None, number)])
        return
    number, is_active = seat
    yield moved(world, [to_the_other(world, person)])
    yield moved(world, [Move(person, number, None, is_active=is_active)])
    yield switched(world, person)


def to_the_other(world: World, person: int) -> Move:
    number, is_active = world.seats[person - 1] or (0, False)
    other = 3 - number
    return Move(person, number, other, is_active=is_active, is_return=world.origins[person - 1] == other)


def swaps(world: World) -> Iterator[World]:
    if all(world.seats):
        yield moved(world, [to_the_other(world, person) for person in PEOPLE])


def moved(world: World, those: list[Move]) -> World:
    before = {each.address_id: each for each in world.mailboxes}
    found = moves.move(before, those, Stamp(by=MOVER))
    left = {
        number: each.holders - {one.account for one in those if one.old == number} for number, each in before.items()
    }
    after = world
    for one in those:
        seat = None if one.new is None else (one.new, one.is_active)
        came_last = after.with_seat(one.account, seat)
        comers = {each.account for each in those if each.new == one.new}
        is_move = one.old is not None and one.new is not None and not is_back(world, one)
        shares = {*left[one.new], *comers} if one.new is not None and len(left[one.new] | comers) > 1 else set()
        after = replace(
            came_last,
            moved_in=came_last.moved_in - {one.account} | ({one.account} if is_move else set()),
            origins=tuple(
                (one.old if is_move else None) if each == one.account else after.origins[each - 1] for each in PEOPLE
            ),
            welcomed=came_last.welcomed - {one.account} | shares,
        ).with_act({one.account}, _act_after(world, one, left, found))
    for number, each in found.items():
        preference = each.preference
        if preference is not None and each.holders:  # at once: what is managed again has not departed
            preference = replace(preference, departed=False)
        if preference is not None and preference.changed_by == MOVER:
            came = {one.account for one in those if one.new == number}
            preference = replace(preference, changed_by=together(came))
        found[number] = replace(each, preference=preference)
    return after.with_mailboxes(found)


def is_back(world: World, one: Move) -> bool:
    preference = world.at(one.new).preference if one.new else None
    return one.is_return or (preference is not None and preference.left_by == one.account)


def _act_after(world: World, one: Move, left: dict[int, frozenset[int]], found: Mapping[int, Mailbox]) -> str:
    """What somebody did last counts on at the new mailbox, unless something else stands there."""
    if one.new is None or one.old is None:
        return ""
    target, after = world.at(one.new).preference, found[one.new].preference
    if one.new in world.roster and (after is None or after.subscribed or after.seen is not True):
        return ""  # it is on the list with the new address already
    stands = target is not None and target.left_by in {None, one.account} and not world.at(one.new).holders
    if left[one.new] or stands or world.at(one.old).preference is None:
        return ""
    return world.acts[one.account - 1]


def switched(world: World, person: int) -> World:
    number, is_active = world.seats[person - 1] or (0, False)
    mailbox = world.at(number)
    if is_active:
        after = moves.deactivate(mailbox, person)
    else:
        after = moves.activate(mailbox, person)
        if after.preference is not None:
            after = replace(after, preference=replace(after.preference, departed=False))
    shares = {person, *mailbox.holders} if mailbox.holders - {person} else set()
    switched_over = replace(world.with_mailbox(after), welcomed=world.welcomed - {person} | shares)
    return switched_over.with_seat(person, (number, not is_active)).with_act({person}, "")


def purged(world: World) -> World:
    """Ninety days pass after the last holder let go."""
    held = {seat[0] for seat in world.seats if seat}
    after = world
    for each in world.mailboxes:
        preference = each.preference
        idle = each.address_id not in held | world.roster
        if preference is not None and idle and preference.waiting_since is None and preference.seen is not True:
            after = after.with_mailbox(Mailbox(each.address_id))
    return after


# Runs.


def row_of(mailbox: Mailbox) -> Row:
    preference = mailbox.preference
    state = AddressState(
        preference=preference.subscribed if preference else None,
        seen=preference.seen if preference else None,
        touched=bool(preference and preference.touched and preference.moved_from is None),
        waiting=bool(preference and preference.waiting_since),
        is_dealt_with=bool(preference and preference.departed),
        has_moved=bool(preference and preference.moved_to),
        is_managed=bool(mailbox.holders),
    )
    name = NAMES[mailbox.address_id]
    is_by_link = bool(preference and preference.touched and preference.source == "link" and not preference.subscribed)
    return Row(
        mailbox.address_id,
        name,
        name,
        state,
        left_by=preference.left_by if preference else None,
        moved_to=preference.moved_to if preference else None,
        moved_from=preference.moved_from if preference else None,
        is_unread=bool(preference and preference.touched),
        holders=mailbox.holders,
        unsubscribed_by_link=is_by_link,
    )


def plan(world: World, rules: Rules) -> tuple[Decision, ...]:
    roster = {NAMES[number]: NAMES[number] for number in world.roster}
    return decide_rows([row_of(each) for each in world.mailboxes], roster, rules=rules, our_acts={})


def run(world: World, rules: Rules, *, is_moderated: bool = False) -> World:
    decisions = plan(world, rules)
    roster = set(world.roster)
    held = set(world.at_moderator)
    pushes: dict[int, PushResult] = {}
    for each in decisions:
        number = each.row.address_id
        if each.is_pushed and each.action is Action.ADD:
            (held if is_moderated else roster).add(number)
            pushes[number] = PushResult(on_roster=number in roster)
    for each in decisions:
        number = each.row.address_id
        waits = each.after is not None and not pushes[each.after].on_roster
        if each.is_pushed and each.action is Action.REMOVE and not waits:
            roster.discard(number)
            pushes[number] = PushResult(on_roster=False)
    after = replace(world, roster=frozenset(roster), at_moderator=frozenset(held - roster))
    for each in decisions:
        after = after.with_mailbox(settled(world, each, pushes.get(each.row.address_id)))
    return after


def settled(world: World, decision: Decision, push: PushResult | None) -> Mailbox:
    mailbox = world.at(decision.row.address_id)
    after = conclude(decision.state, decision.action, on_roster=decision.on_roster, push=push)
    displaced, changed_since_move, preference = mailbox.displaced, mailbox.changed_since_move, mailbox.preference
    if decision.action is Action.INIT:
        preference = StoredPreference(bool(after.preference), "init", changed_by=together(mailbox.holders))
        if mailbox.holders <= world.moved_in:
            displaced = (*displaced, *(Displaced(each, None) for each in sorted(mailbox.holders)))
    if preference is None:
        return mailbox
    if decision.action in {Action.LEFT, Action.JOINED}:
        source = "link" if decision.reason is Reason.LINK else "list"
        preference = replace(preference, source=source, changed_by=None)
        if decision.action is Action.LEFT or not decision.row.is_unread or preference.moved_from is None:
            preference = replace(preference, moved_from=None)
            changed_since_move = mailbox.holders & world.moved_in
    if decision.is_pushed and decision.action is Action.ADD:
        displaced = ()
    preference = replace(
        preference,
        subscribed=bool(after.preference),
        seen=after.seen,
        touched=False,
        waiting_since=LONG_AGO if after.waiting else None,
        departed=after.is_dealt_with,
    )
    return replace(mailbox, preference=preference, displaced=displaced, changed_since_move=changed_since_move)


# The space.


@cache
def reachable(rules: Rules) -> frozenset[World]:
    found = set(first_worlds())
    edge = set(found)
    for _ in range(DEPTH):
        following: set[World] = set()
        for world in edge:
            following.update(events(world))
            following.update(run(world, rules, is_moderated=each) for each in (False, True))
        edge = following - found
        found |= edge
    return frozenset(found)


def longer(rules: Rules, count: int) -> Iterator[World]:
    """Yield worlds that one more event makes of some at the end of the space."""
    dice = Random(0)
    worlds = sorted(reachable(rules), key=repr)
    for world in dice.choices(worlds, k=count):
        following = [*events(world), *(run(world, rules, is_moderated=each) for each in (False, True))]
        yield dice.choice(following)


@pytest.fixture(scope="module", params=RULES, ids=["remove", "keep"])
def space(request: pytest.FixtureRequest) -> tuple[Rules, frozenset[World]]:
    return request.param, reachable(request.param) | frozenset(longer(request.param, SAMPLE))


def test_nobody_is_added_without_an_account_and_a_standing_yes_that_is_not_of_somebody_who_is_gone(space) -> None:
    rules, worlds = space
    for world in worlds:
        for each in plan(world, rules):
            if each.action is Action.ADD:
                mailbox = world.at(each.row.address_id)
                assert mailbox.preference is not None
                assert mailbox.preference.subscribed
                assert mailbox.holders
                entitled = {None, BOTH, *mailbox.holders}
                is_shared = bool(mailbox.holders & world.welcomed)
                assert mailbox.preference.changed_by in entitled or is_shared, world


def test_nobody_who_was_on_at_the_last_run_and_is_off_now_is_added(space) -> None:
    rules, worlds = space
    for world in worlds:
        for each in plan(world, rules):
            if each.row.state.seen is True and not each.on_roster:
                assert each.action is not Action.ADD, world


def test_an_address_without_a_row_that_no_account_holds_is_never_touched(space) -> None:
    rules, worlds = space
    for world in worlds:
        for each in plan(world, rules):
            if each.row.state.preference is None:
                assert each.action is (Action.INIT if world.at(each.row.address_id).holders else Action.NOTHING)


def test_whose_last_visible_act_was_to_leave_is_not_on_the_list_after_a_good_run(space) -> None:
    rules, worlds = space
    for world in worlds:
        after = run(world, rules)
        for person in PEOPLE:
            seat = world.seat(person)
            if world.acts[person - 1] == "leave" and seat and seat[1]:
                assert seat[0] not in after.roster, (person, world)


def test_a_second_run_in_a_row_does_nothing(space) -> None:
    rules, worlds = space
    for world in worlds:
        for is_moderated in (False, True):
            after = run(world, rules, is_moderated=is_moderated)
            if not after.at_moderator:
                assert run(after, rules) == after, world


def test_an_old_address_goes_only_where_the_new_one_is_on_the_list_or_is_not_wanted_there(space) -> None:
    rules, worlds = space
    for world in worlds:
        after = run(world, rules, is_moderated=True)
        for each in plan(world, rules):
            if each.action is Action.REMOVE and each.after is not None:
                assert each.row.address_id in after.roster, world


def typos(world: World) -> Iterator[tuple[int, World]]:
    """Yield moves that are undone next: of people who have arrived where they are, and are not on their way back."""
    for person in PEOPLE:
        seat = world.seat(person)
        if not seat or not seat[1] or is_back(world, to_the_other(world, person)):
            continue
        if all(each.taken_by != person for each in world.at(seat[0]).displaced):
            yield person, moved(world, [to_the_other(world, person)])


def back(world: World, person: int) -> World:
    return moved(world, [to_the_other(world, person)])


def test_a_typo_undone_before_a_run_is_as_if_nothing_had_happened(space) -> None:
    _rules, worlds = space
    for world in worlds:
        for person, typo in typos(world):
            assert back(typo, person).mailboxes == world.mailboxes, (person, world)


def typos_together(world: World) -> Iterator[World]:
    """Yield moves of both people from one mailbox to the other, which are undone next, of people who have arrived."""
    if not all(world.seats) or len(set(world.seats)) != 1:
        return
    seat = world.seats[0]
    those = [to_the_other(world, person) for person in PEOPLE]
    takers = {each.taken_by for each in world.at(seat[0] if seat else 0).displaced}
    if seat and seat[1] and not takers and not any(is_back(world, each) for each in those):
        yield moved(world, those)


def back_together(world: World) -> World:
    return moved(world, [to_the_other(world, person) for person in PEOPLE])


def test_a_typo_of_two_together_undone_before_a_run_is_as_if_nothing_had_happened(space) -> None:
    _rules, worlds = space
    tried = 0
    for world in worlds:
        for typo in typos_together(world):
            assert back_together(typo).mailboxes == world.mailboxes, world
            tried += 1
    assert tried


def test_who_move_together_untick_and_go_back_together_are_off_the_list(space) -> None:
    rules, worlds = space
    tried = 0
    for world in worlds:
        for typo in typos_together(world):
            new = 3 - (world.seats[0] or (0, False))[0]
            for between in (typo, run(typo, rules)):
                for unticked in choices(between, between.at(new)):
                    if unticked.at(new).preference and not unticked.at(new).preference.subscribed:
                        after = run(back_together(unticked), rules)
                        assert not after.roster & {seat[0] for seat in after.seats if seat}, (world, unticked)
                        tried += 1
    assert tried


def leaves_by_itself(world: World, mailbox: Mailbox, rules: Rules) -> bool:
    """Return True if a departure ends off the list with a typo or without: runs know who was there, and nobody came."""
    preference = mailbox.preference
    if preference is None or preference.touched or preference.departed:
        return False
    is_known = preference.seen is (mailbox.address_id in world.roster)
    return is_known and (rules.remove_on_departure or preference.moved_to is not None)


def test_a_typo_undone_after_a_run_leaves_the_list_as_it_would_be_without(space) -> None:
    rules, worlds = space
    for world in worlds:
        for person, typo in typos(world):
            other = world.at(3 - (world.seats[person - 1] or (0, False))[0])
            if other.preference and not (other.holders or leaves_by_itself(world, other, rules)):
                continue
            undone = run(back(run(typo, rules), person), rules)
            plain = run(run(world, rules), rules)
            assert undone.roster == plain.roster, (person, world)
