"""A plan: what a run would do with one list, and which of its lines need approval."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import NamedTuple

from portal.domain.address import outgoing
from portal.domain.mailinglist import MailingList, SafetyLimits
from portal.domain.merge import Action, AddressState, Rules, decide, explain, subscribe_new_member
from portal.domain.safety import Approval, EarlierRuns, ExpectedCounts, Line, counts, judge
from portal.domain.subscriber_options import SubscriberOptions


class Reason(StrEnum):
    """The reason for a line of a plan."""

    CHOSEN = "chosen"  # the portal changed: rule 3
    DEFAULTS = "defaults"  # chosen at an old address whose digests could not be carried along, or not be read
    DEPARTED = "departed"  # nobody who may see the list holds the address: rule 4
    LIST = "list"  # the roster moved: rule 2
    LIST_ADDRESS = "list address"  # held back: it is the address of a mailing list
    OPTIONS = "options"  # held back: mail was switched off at the old address, and the list manager cannot carry that
    LINK = "link"  # they unsubscribed their previous address by a mailed link
    MOVED = "moved"  # the holder moved to another address
    NEW_MEMBER = "new member"  # the list subscribes new members: rule 1
    REFUSED = "refused"  # held back: the list manager refused it less than a day ago
    SUCCESSOR = "successor"  # held back: the address that the holder moved to is not on the list yet


@dataclass(frozen=True, slots=True)
class Row:
    """The stored state of one address on one list.

    ``left_by`` is the last account to leave the address, and ``moved_to`` the address that it moved to (this one if
    there is nobody to follow). ``holders`` are the active accounts that hold the address now, or two of them.
    ``moved_from`` is the address that a move brought the preference from, and ``is_unread``: no good run has read it
    since. ``by_holder``: chosen last by a holder, here or for another of their addresses, or by a mailed link.
    ``did_not_take``: the last push of it had no effect or was refused. ``is_new_member``: the preference is not stored
    yet; the list is about to subscribe its holder, who is new. ``unsubscribed_by_link``: and no run has read that
    choice yet. ``has_refusal``: the last push was refused; ``is_recent_refusal``: less than a day ago.
    ``has_waited_long``: an add has waited too long to count as waiting.
    """

    address_id: int
    canonical: str
    spelling: str
    state: AddressState
    version: int = 0
    left_by: int | None = None
    moved_to: int | None = None
    moved_from: int | None = None
    is_unread: bool = False
    holders: frozenset[int] = frozenset()
    is_held: bool = True  # some account, active or not, holds the address
    unsubscribed_by_link: bool = False
    by_holder: bool = False
    did_not_take: bool = False
    has_refusal: bool = False
    is_recent_refusal: bool = False
    has_waited_long: bool = False
    is_new_member: bool = False

    @property
    def is_own_choice(self) -> bool:
        """Whether a holder chose it and it has not been carried out yet."""
        return self.by_holder and (self.state.touched or self.did_not_take)

    @property
    def is_given_up(self) -> bool:
        """Whether a holder unsubscribed the address or moved out of it, so that no roster is expected to hold it."""
        return self.moved_to is not None or (self.by_holder and self.state.preference is False)


@dataclass(frozen=True, slots=True)
class Decision:
    """A run's decision about one row.

    ``state`` is the row's state corrected by our own unfinished actions. ``spelling`` is sent to the list manager, or
    holds the roster's spellings, one a line. ``after`` is the address whose add must be done before this removal. If
    this is an add that a move made, ``moved_from`` is the person's previous address and ``options`` are carried along
    from it.
    """

    row: Row
    state: AddressState
    on_roster: bool
    action: Action
    reason: Reason
    spelling: str
    held_back: bool = False
    after: int | None = None
    moved_from: int | None = None
    options: SubscriberOptions | None = None

    @property
    def stays(self) -> bool:
        """Whether the address is on the roster, is wanted there, and is not removed."""
        is_subscribed = self.state.preference is True and not self.state.has_moved
        wanted = self.action in {Action.INIT, Action.JOINED} or is_subscribed
        return self.on_roster and wanted and not self.is_removed

    @property
    def is_pushed(self) -> bool:
        """Whether the line is sent to the list manager."""
        return self.action in {Action.ADD, Action.REMOVE} and not self.held_back

    @property
    def is_withdrawn(self) -> bool:
        """Whether an add that is no longer wanted is waiting at the list manager."""
        return self.state.waiting and not self.state.preference and not self.on_roster

    @property
    def is_removed(self) -> bool:
        """Whether the list manager is asked to remove the address."""
        return self.action is Action.REMOVE and self.is_pushed


class FirstPreferences(NamedTuple):
    """How many first preferences are made from the roster, by whether the address is on it."""

    on_roster: int = 0
    off_roster: int = 0


@dataclass(frozen=True)
class Plan:
    """What a run would do with one list.

    ``first_preferences`` counts those that are too many to be among the ``decisions``. ``seen_on`` counts the addresses
    seen on. ``expected`` counts those of them whose absence would put the roster in doubt. ``staying`` counts addresses
    on the roster that are wanted there and not removed; if there are any, an empty roster after the push is in doubt.
    ``without_account`` counts addresses on the roster that no account holds. ``is_planned_run``: if it needs approval,
    it waits as a whole.
    """

    handle: str
    decisions: tuple[Decision, ...]
    on_roster: int = 0
    without_account: int = 0
    seen_on: int = 0
    expected: ExpectedCounts = field(default_factory=ExpectedCounts)
    staying: int = 0
    limits: SafetyLimits = field(default_factory=SafetyLimits)
    earlier: EarlierRuns = field(default_factory=EarlierRuns)
    is_planned_run: bool = False
    first_preferences: FirstPreferences = field(default_factory=FirstPreferences)

    @cached_property
    def lines(self) -> tuple[Decision, ...]:
        """Adds, removals and take-overs, held-back ones included."""
        return tuple(each for each in self.decisions if each.action not in {Action.NOTHING, Action.INIT})

    def of(self, action: Action) -> list[Decision]:
        """Return the decisions of one kind that are not held back."""
        return [each for each in self.decisions if each.action is action and not each.held_back]

    @cached_property
    def approval(self) -> Approval:
        """The approval that the plan needs, if any."""
        return judge(
            self.handle,
            self._judged_lines(),
            limits=self.limits,
            expected=self.expected,
            seen_on=self.seen_on,
            on_roster=self.on_roster,
            earlier=self.earlier,
            waits_as_whole=self.is_planned_run,
        )

    def _judged_lines(self) -> list[Line]:
        """Return the lines as the safety limits judge them."""
        return [
            Line(
                each.row.address_id,
                each.row.canonical,
                each.action,
                counts(
                    each.action,
                    preference=each.row.state.preference,
                    is_own_choice=each.row.is_own_choice,
                    is_half_of_move=each.reason is Reason.MOVED or each.moved_from is not None,
                ),
            )
            for each in self.lines
            if not each.held_back
        ]

    @property
    def id(self) -> str:
        """The id of what needs approval."""
        return self.approval.id

    @property
    def warning(self) -> str:
        """Why a sync does not carry out all of the plan without approval; empty if it does."""
        return self.approval.reason

    @cached_property
    def needs_no_approval(self) -> tuple[Decision, ...]:
        """The lines that are pushed even while the others wait for approval."""
        return tuple(each for each in self.lines if each.is_pushed and each.row.address_id not in self.approval.waiting)

    @property
    def all_first_preferences(self) -> FirstPreferences:
        """The number of all first preferences, including those among the decisions."""
        decided = self.of(Action.INIT)
        on_roster = sum(each.on_roster for each in decided)
        return FirstPreferences(
            self.first_preferences.on_roster + on_roster, self.first_preferences.off_roster + len(decided) - on_roster
        )

    @property
    def counts(self) -> dict[str, int]:
        """The counts of a run that carries out the plan, by the names of a run's counts."""
        return {
            "added": len(self.of(Action.ADD)),
            "removed": len(self.of(Action.REMOVE)),
            "joined": len(self.of(Action.JOINED)),
            "left": len(self.of(Action.LEFT)),
            "initialised": sum(self.all_first_preferences),
            "held": sum(each.held_back for each in self.lines),
        }


def expected_counts(decisions: Iterable[Decision], *, steady_on: int) -> ExpectedCounts:
    """Count the addresses that a believable roster must hold; ``steady_on`` more are on it that need no decision."""
    seen = [each for each in decisions if each.state.seen and not each.row.is_given_up]
    present = [each for each in seen if each.on_roster]
    return ExpectedCounts(
        seen_on=steady_on + len(seen),
        on_roster=steady_on + len(present),
        staying=steady_on + sum(not each.is_removed for each in present),
    )


def rules_of(mailing_list: MailingList) -> Rules:
    """Return the rules of the merge that a list's configuration sets."""
    return Rules(
        honour_list_changes=mailing_list.honour_list_changes,
        remove_on_departure=mailing_list.remove_on_departure,
        never_added=mailing_list.never_added,
    )


def decide_rows(
    rows: Iterable[Row],
    roster: Mapping[str, str],
    *,
    rules: Rules,
    our_acts: Mapping[int, Action],
    new_members: Collection[int] = (),
    is_planned_run: bool = False,
) -> tuple[Decision, ...]:
    """Decide about rows. They must include the row of every address that somebody on the list moved to.

    ``roster`` maps canonical addresses to the list manager's spellings, one a line. ``our_acts`` maps address ids to
    the adds and removals of unfinished runs. ``new_members`` are ids of addresses that the list subscribes because
    their holders are new. In a planned run an old address always waits for its successor.
    """
    read = (_as_new_member(row, roster, rules) if row.address_id in new_members else row for row in rows)
    known = {row.address_id: (row, _state(row, roster, our_acts)) for row in read}
    followed = _leaves_that_follow(known, roster, rules)
    decisions = {
        address_id: _decide(row, state, roster, rules, followed.get(address_id))
        for address_id, (row, state) in known.items()
    }
    origins = {new: old for old, new in _moves(known) if old != new}
    return tuple(
        _as_half_of_a_move(each, decisions, origins.get(each.row.address_id), is_planned_run=is_planned_run)
        for each in decisions.values()
    )


def _as_new_member(row: Row, roster: Mapping[str, str], rules: Rules) -> Row:
    """Return a row with the preference that the list gives to new members. A list's own address is never added."""
    if row.canonical in rules.never_added:
        return row
    state = subscribe_new_member(row.state, on_roster=row.canonical in roster)
    return replace(row, state=state, is_new_member=state != row.state)


def _state(row: Row, roster: Mapping[str, str], our_acts: Mapping[int, Action]) -> AddressState:
    state = replace(row.state, waiting=False) if row.has_waited_long else row.state
    our_act = our_acts.get(row.address_id)
    return explain(state, our_act, on_roster=row.canonical in roster) if our_act else state


def _leaves_that_follow(
    known: Mapping[int, tuple[Row, AddressState]], roster: Mapping[str, str], rules: Rules
) -> dict[int, Reason]:
    """Return the new addresses of holders who left at their old one, at the list or by a mailed link.

    A leave does not follow to an address that is on the roster or that another account holds.
    """
    followed: dict[int, Reason] = {}
    for old, new in _moves(known):
        row, state = known[old]
        successor = known[new][0]
        if successor.canonical in roster:
            continue
        if row.unsubscribed_by_link:
            followed[new] = Reason.LINK
        elif rules.honour_list_changes and state.seen is True and row.canonical not in roster:
            followed.setdefault(new, Reason.LIST)
    return followed


def _moves(known: Mapping[int, tuple[Row, AddressState]]) -> Iterator[tuple[int, int]]:
    """Yield the moves that a leave would follow: from address, to address.

    If others still hold the old address, it does not record the move. A subscription that a move brought from it, and
    that no run has read, ends with a leave from before the move; later leaves are the other holders'.
    """
    for address_id, (row, _state) in known.items():
        if row.moved_to is not None and row.moved_to in known and _holds_alone(row.left_by, known[row.moved_to][0]):
            yield address_id, row.moved_to
        if row.moved_from is not None and row.moved_from in known and row.is_unread:
            yield row.moved_from, address_id


def _holds_alone(account: int | None, row: Row) -> bool:
    """Return True if no other account than the one that moved there holds an address."""
    return row.holders <= {account} and row.left_by in {None, account}


def _decide(
    row: Row, state: AddressState, roster: Mapping[str, str], rules: Rules, followed: Reason | None
) -> Decision:
    on_roster = row.canonical in roster
    if followed and state.preference:
        return Decision(row, state, on_roster, Action.LEFT, followed, row.spelling)
    action = decide(state, on_roster=on_roster, rules=rules)
    spelling = roster[row.canonical] if on_roster else outgoing(row.spelling)
    decision = Decision(row, state, on_roster, action, _reason(row, action), spelling)
    if action is Action.ADD and row.canonical in rules.never_added:
        return replace(decision, held_back=True, reason=Reason.LIST_ADDRESS)
    if action in {Action.ADD, Action.REMOVE} and row.is_recent_refusal:
        return replace(decision, held_back=True, reason=Reason.REFUSED)
    return decision


def _reason(row: Row, action: Action) -> Reason:
    if action in {Action.LEFT, Action.JOINED}:
        return Reason.LIST
    if row.moved_to is not None:
        return Reason.MOVED
    if row.is_new_member:
        return Reason.NEW_MEMBER
    return Reason.CHOSEN if row.state.is_managed else Reason.DEPARTED


def _as_half_of_a_move(
    decision: Decision, decisions: Mapping[int, Decision], moved_from: int | None, *, is_planned_run: bool
) -> Decision:
    """Give an add its old address, and let the removal of that one wait until the new one is on the list."""
    if decision.action is Action.ADD:
        moved_from = moved_from or decision.row.moved_from
        return decision if moved_from is None else replace(decision, moved_from=moved_from)
    if decision.action is not Action.REMOVE or decision.row.moved_to is None:
        return decision
    successor = decisions.get(decision.row.moved_to)
    if successor is None or successor.action is not Action.ADD:
        return decision
    if successor.held_back or is_planned_run:
        return replace(decision, held_back=True, reason=Reason.SUCCESSOR)
    return replace(decision, after=successor.row.address_id)
