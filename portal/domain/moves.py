"""Moves: the effect on a mailbox's preference for one list when accounts move in, move out, return or swap.

Pure functions over small values. Source of every rule: docs/semantics.md, "Address changes".
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

UNCHOSEN = frozenset({"init", "rule"})  # sources of a preference that nobody chose, in the portal or at the list

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredPreference:
    """The stored fields of a mailbox's preference for one list that moves read or write.

    ``left_by`` is the last active account to leave the mailbox, because it moved, was deactivated or was deleted. It is
    None while an active account holds the mailbox, and if none ever did. ``moved_to`` is the mailbox that this account
    moved to. It is the mailbox itself if there is nobody to follow: several accounts moved out together, or the one
    that did was deleted. ``moved_from`` is the mailbox that a move brought the preference from, until somebody makes a
    choice, leaves or joins here. Until then ``touched`` means that no run has read the preference, not that somebody
    chose it.
    """

    subscribed: bool
    source: str
    seen: bool | None = None
    touched: bool = False
    waiting_since: datetime | None = None
    departed: bool = False
    left_by: int | None = None
    moved_to: int | None = None
    moved_from: int | None = None
    changed_at: datetime | None = None
    changed_by: int | None = None
    version: int = 0


class Stamp(NamedTuple):
    """When a change was made, and the user who made it; None if no user did."""

    at: datetime | None = None
    by: int | None = None


class Displaced(NamedTuple):
    """The preference at a mailbox before an account moved in; kept until a person chooses or a run plans an add."""

    taken_by: int
    before: StoredPreference | None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox, as far as one list is concerned.

    ``holders`` are the active accounts that hold it. ``guests`` are the accounts that moved in while another held it.
    ``changed_since_move`` are the accounts that moved in and after whose move somebody made a choice, left or joined
    here. ``displaced`` runs from the oldest to the newest. ``is_being_removed``: a removal of ours is unfinished, so
    *seen on* proves nothing.
    """

    address_id: int
    preference: StoredPreference | None = None
    holders: frozenset[int] = frozenset()
    guests: frozenset[int] = frozenset()
    changed_since_move: frozenset[int] = frozenset()
    displaced: tuple[Displaced, ...] = ()
    is_being_removed: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """An account's change from one mailbox to another.

    ``old`` is None if the account is new or is given an address, ``new`` is None if it is deleted. ``is_return``: the
    account had moved to the old mailbox from the new one. ``is_held``: the account already holds the new mailbox, as
    ``holders`` shows for an active account, and only gives up the old one.
    """

    account: int
    old: int | None
    new: int | None
    is_active: bool = True
    is_return: bool = False
    is_held: bool = False


class _Carried(NamedTuple):
    """The preference that an account takes along, and the mailbox that it comes from.

    ``chosen_at`` is the return value of the function of that name. ``changed_since_move``: somebody chose the
    preference after the account moved in and while it held the mailbox alone, or together with accounts that make the
    same move. ``is_found``: earlier holders left it there, and nobody has chosen since.
    """

    subscribed: bool
    touched: bool
    chosen_at: datetime
    origin: int
    changed_since_move: bool
    is_found: bool = False


def move(mailboxes: Mapping[int, Mailbox], moves: Collection[Move], stamp: Stamp) -> dict[int, Mailbox]:
    """Return all mailboxes after simultaneous moves: first all accounts let go, then all take.

    Each account takes along the preference that its old mailbox had before, so two who swap keep their choices.
    """
    after = dict(mailboxes)
    brought = {each: _carried_from(mailboxes, each.old, each, moves) for each in moves if each.old is not None}
    for old in {each.old for each in moves if each.old is not None}:
        after[old] = _let_go(after[old], [each for each in moves if each.old == old])
    for new in {each.new for each in moves if each.new is not None}:
        after[new] = _take(after[new], [each for each in moves if each.new == new], brought, stamp)
    return {address_id: _collapse(each, moves) for address_id, each in after.items()}


def chosen_at(preference: StoredPreference) -> datetime:
    """Return when a preference was chosen or the address left or joined, to find the latest of several.

    Preferences that nobody chose sort first, then those whose time is unknown.
    """
    if preference.source in UNCHOSEN:
        return _NEVER
    return preference.changed_at or _NEVER + timedelta(days=1)


def deactivate(mailbox: Mailbox, account: int) -> Mailbox:
    """Return a mailbox after one of its holders was deactivated; the last to leave is remembered."""
    holders = mailbox.holders - {account}
    if mailbox.preference is None or holders or account not in mailbox.holders:
        return replace(mailbox, holders=holders)
    return replace(mailbox, holders=holders, preference=replace(mailbox.preference, left_by=account))


def activate(mailbox: Mailbox, account: int) -> Mailbox:
    """Return a mailbox after one of its holders was activated again.

    The preference that they left is restored, unless somebody else has held the mailbox meanwhile: a departed holder's
    subscription does not pass to the next holder.
    """
    preference = mailbox.preference
    if preference is not None and not mailbox.holders:
        preference = _held_again(mailbox, preference, {account})
    return replace(mailbox, holders=mailbox.holders | {account}, preference=preference)


def _carried_from(mailboxes: Mapping[int, Mailbox], old: int, moved: Move, moves: Collection[Move]) -> _Carried | None:
    """Return the preference that an account takes along; on a return, only one that the account itself caused.

    An account that moved in with others takes along what it left at its previous mailbox, unless somebody has chosen
    since. An inactive account takes along only what it was the last to leave.
    """
    mailbox = mailboxes[old]
    if moved.account in mailbox.guests - mailbox.changed_since_move:
        left = (
            each
            for each in mailboxes.values()
            if each.preference and _has_left_for(each.preference, moved.account, old)
        )
        mailbox = next(left, Mailbox(old))
    preference = mailbox.preference
    if preference is None or not (moved.is_active or preference.left_by == moved.account):
        return None
    together = {each.account for each in moves if (each.old, each.new) == (moved.old, moved.new)}
    changed_since_move = moved.account in mailbox.changed_since_move and mailbox.holders <= together
    if moved.is_return and not (changed_since_move or preference.moved_from is not None or mailbox.address_id != old):
        return None
    if _is_found(mailbox, preference, moved.account):
        return _Carried(
            preference.subscribed, preference.touched, _NEVER, mailbox.address_id, changed_since_move, is_found=True
        )
    return _Carried(
        preference.subscribed, preference.touched, chosen_at(preference), mailbox.address_id, changed_since_move
    )


def _is_found(mailbox: Mailbox, preference: StoredPreference, account: int) -> bool:
    """Return True if an account has no part in a preference: it found it, or found what was ended there."""
    if preference.moved_from is not None:
        return False
    found = [each.before for each in mailbox.displaced if each.taken_by == account]
    if preference.source == "rule" and not preference.subscribed:
        return bool(found)
    what = (preference.subscribed, preference.source, preference.changed_at)
    return any(each and (each.subscribed, each.source, each.changed_at) == what for each in found)


def _has_left_for(preference: StoredPreference, account: int, address_id: int) -> bool:
    return (preference.left_by, preference.moved_to) == (account, address_id)


def _let_go(mailbox: Mailbox, moves: Collection[Move]) -> Mailbox:
    """Remove holders. If the move of one of them made the current preference, restore the previous one."""
    leavers = {each.account for each in moves}
    holders = mailbox.holders - leavers
    preference, displaced = _restore_displaced(mailbox, leavers)
    is_undone = bool(mailbox.displaced) and mailbox.displaced[-1].taken_by in leavers
    if preference is not None and is_undone and holders:
        preference = _held_again(mailbox, preference, holders)
    elif preference is not None and not holders:
        takers = {each.taken_by for each in mailbox.displaced} if is_undone else set()
        departing = [each for each in moves if each.account not in takers]
        preference = _remember_leavers(
            preference, sorted(departing, key=lambda each: each.account in mailbox.guests), mailbox.address_id
        )
    return replace(
        mailbox,
        holders=holders,
        guests=mailbox.guests - leavers,
        changed_since_move=mailbox.changed_since_move - leavers,
        preference=preference,
        displaced=displaced,
    )


def _restore_displaced(
    mailbox: Mailbox, leavers: Collection[int]
) -> tuple[StoredPreference | None, tuple[Displaced, ...]]:
    """Return the preference and the displaced ones after undoing everything that the leavers displaced."""
    if all(each.taken_by not in leavers for each in mailbox.displaced):
        return mailbox.preference, mailbox.displaced
    # what each taker found, in order, and the preference that the last of them made
    states = [*(each.before for each in mailbox.displaced), mailbox.preference]
    staying = [number for number, each in enumerate(mailbox.displaced) if each.taken_by not in leavers]
    states = [states[0], *(states[number + 1] for number in staying)]
    displaced = tuple(
        Displaced(mailbox.displaced[number].taken_by, before) for number, before in zip(staying, states, strict=False)
    )
    preference = states[-1]
    return preference and _with_current_reading(preference, mailbox.preference), displaced


def _with_current_reading(preference: StoredPreference, current: StoredPreference | None) -> StoredPreference:
    """Return a restored preference with what runs have read at the list since, which is true of the mailbox."""
    if current is None or (current.moved_from is not None and current.touched):
        return preference
    if current.source == "list" and preference.seen is not None:  # they left or joined there
        preference = replace(preference, subscribed=current.subscribed, source="list")
    seen = preference.seen if current.seen is None else current.seen
    return replace(preference, seen=seen, waiting_since=current.waiting_since)


def _remember_leavers(preference: StoredPreference, moves: Collection[Move], address_id: int) -> StoredPreference:
    """Record who left the mailbox last, and where to. Inactive leavers change nothing that they did not leave."""
    leavers = [each for each in moves if each.is_active or preference.left_by == each.account]
    if not leavers:
        return preference
    successors = {each.new for each in leavers} - {None}
    if not successors:  # deleted
        return replace(preference, left_by=leavers[0].account, moved_to=None)
    moved_to = address_id if len(successors) > 1 else successors.pop()
    left_by = next(each.account for each in leavers if each.new is not None)
    return replace(preference, left_by=left_by, moved_to=moved_to)


def _take(mailbox: Mailbox, moves: Collection[Move], brought: Mapping[Move, _Carried | None], stamp: Stamp) -> Mailbox:
    """Let accounts hold a mailbox. It keeps its preference if another active account holds it, and is free if not."""
    staying = [each for each in moves if each.is_held or each.account in mailbox.holders]
    coming = [each for each in moves if each not in staying]
    if mailbox.holders <= {each.account for each in staying}:
        mailbox = _give_up_others(mailbox, staying, brought, stamp)
    if not coming:
        return mailbox
    active = {each.account for each in coming if each.is_active}
    if mailbox.holders:
        guests = {each.account for each in coming if each.old is not None and not each.is_return}
        return replace(mailbox, holders=mailbox.holders | active, guests=mailbox.guests | guests)
    own = {each: brings for each, brings in brought.items() if brings and not brings.is_found}
    preference, brings = mailbox.preference, _by_account(coming, own)

    def order(account: int) -> tuple[bool, bool, int]:  # in whatever order they were named
        return preference is None or preference.left_by != account, brings[account] is None, account

    first, *others = sorted(brings, key=order)
    after = _take_first(mailbox, first, brings[first], stamp)
    returning = {each.account for each in coming if each.is_return}
    for each in others:
        after = _take_with_others(after, each, brings[each], stamp, is_return=each in returning)
    preference = after.preference
    if preference is not None and not active:
        preference = replace(preference, left_by=first)
    return replace(after, holders=frozenset(active), preference=preference)


def _by_account(moves: Iterable[Move], brought: Mapping[Move, _Carried | None]) -> dict[int, _Carried | None]:
    """Return what each account takes along: of several mailboxes that it gives up, the one chosen last counts."""
    brings: dict[int, _Carried | None] = {}
    for each in moves:
        found, before = brought.get(each), brings.get(each.account)
        brings[each.account] = found if before is None or (found and _counts_more(found, before)) else before
    return brings


def _counts_more(one: _Carried, other: _Carried | StoredPreference) -> bool:
    """Return True if the first of one person's two preferences counts: chosen later, or subscribed if nobody chose."""
    other_at = chosen_at(other) if isinstance(other, StoredPreference) else other.chosen_at
    return (one.chosen_at, one.subscribed) > (other_at, other.subscribed)


def _give_up_others(
    mailbox: Mailbox, moves: Collection[Move], brought: Mapping[Move, _Carried | None], stamp: Stamp
) -> Mailbox:
    """Give up other addresses of an account for one that it already holds, and holds alone.

    The later choice counts. If nobody chose, *subscribed* is carried over, and *unsubscribed* only to a mailbox without
    a preference. What the account found at the other mailbox is carried over only if that had ended the preference
    here, and no move had brought that.
    """
    for account, brings in sorted(_by_account(moves, brought).items()):
        preference = mailbox.preference
        if brings is None or (preference and preference.left_by not in {None, account}):
            continue
        if brings.is_found and (preference is None or preference.source != "rule" or preference.moved_from is not None):
            continue
        if preference is None:
            mailbox = replace(mailbox, preference=_new_preference(brings, stamp))
        elif brings.subscribed is not preference.subscribed and _counts_more(brings, preference):
            mailbox = replace(mailbox, preference=_replaced_by(preference, brings, stamp))
    return mailbox


def _take_first(mailbox: Mailbox, taker: int, brought: _Carried | None, stamp: Stamp) -> Mailbox:
    before = mailbox.preference
    if before is not None and before.left_by == taker:
        return replace(mailbox, preference=_after_return(before, brought, stamp))
    after = _after_taking(mailbox, brought, stamp)
    found = Displaced(taker, before)
    return replace(mailbox, preference=after, displaced=(*mailbox.displaced, found)) if after or before else mailbox


def _take_with_others(
    mailbox: Mailbox, taker: int, brought: _Carried | None, stamp: Stamp, *, is_return: bool
) -> Mailbox:
    """Let an account take a mailbox together with others: one *unsubscribed* among them wins."""
    if brought is None or brought.subscribed or mailbox.preference is None:  # None: nobody brings anything
        return mailbox
    if is_return:
        return replace(mailbox, preference=_after_return(mailbox.preference, brought, stamp))
    found = Displaced(taker, mailbox.preference)
    return replace(
        mailbox, preference=_replaced_by(mailbox.preference, brought, stamp), displaced=(*mailbox.displaced, found)
    )


def _after_return(preference: StoredPreference, brought: _Carried | None, stamp: Stamp) -> StoredPreference:
    """Return the preference as it was, unless something was chosen at the other mailbox in the meantime."""
    back = _forget_leaver(preference)
    if brought is None or not brought.changed_since_move:
        return back
    return replace(_replaced_by(back, brought, stamp), touched=brought.touched, moved_from=None)


def _after_taking(mailbox: Mailbox, brought: _Carried | None, stamp: Stamp) -> StoredPreference | None:
    """Return the preference of a free mailbox once it is taken by somebody who was not the last to leave it."""
    preference = mailbox.preference
    if preference is None:
        return None if brought is None else _new_preference(brought, stamp)
    if preference.left_by is None:  # nobody here ever held it
        is_yes = brought is not None and brought.subscribed and preference.source in UNCHOSEN
        return (
            _replaced_by(preference, brought, stamp) if brought and is_yes and not preference.subscribed else preference
        )
    if brought is None or (preference.source == "link" and not preference.subscribed):
        return _for_next_holder(mailbox, preference)
    return _replaced_by(_forget_leaver(preference), brought, stamp)


def _new_preference(brought: _Carried, stamp: Stamp) -> StoredPreference:
    """Make a row *seen off*: somebody who already joined by hand with the new address counts as having joined."""
    return _replaced_by(StoredPreference(brought.subscribed, "rule"), brought, stamp)


def _replaced_by(preference: StoredPreference, brought: _Carried, stamp: Stamp) -> StoredPreference:
    """Replace the preference of a mailbox by the one that an account takes along."""
    return replace(
        preference,
        subscribed=brought.subscribed,
        source="rule",
        seen=bool(preference.seen),
        touched=True,
        moved_from=brought.origin,
        changed_at=stamp.at,
        changed_by=stamp.by,
    )


def _held_again(mailbox: Mailbox, preference: StoredPreference, holders: Collection[int]) -> StoredPreference | None:
    """Return the preference once accounts hold the mailbox again, or turn out to have come while it was free."""
    if preference.left_by is None or preference.left_by in holders:
        return _forget_leaver(preference)
    return _for_next_holder(mailbox, preference)


def _for_next_holder(mailbox: Mailbox, preference: StoredPreference) -> StoredPreference | None:
    """Return the preference for a holder who brings none: a departed holder's subscription does not pass to them."""
    touched = preference.touched and preference.moved_from is None
    kept = replace(_forget_leaver(preference), touched=touched, moved_from=None)
    if not preference.subscribed or (preference.seen and not mailbox.is_being_removed):
        return kept
    if preference.waiting_since is None and preference.moved_to is None:
        return None
    return replace(kept, subscribed=False, source="rule", touched=False)


def _forget_leaver(preference: StoredPreference) -> StoredPreference:
    """Forget who left and where to. The departure mark is cleared elsewhere, once a holder may see the list."""
    return replace(preference, left_by=None, moved_to=None)


def _collapse(mailbox: Mailbox, moves: Collection[Move]) -> Mailbox:
    """Make X to Y to Z into X to Z. A deleted account can no longer be followed."""

    def follow(preference: StoredPreference | None) -> StoredPreference | None:
        if preference is None or preference.moved_to in {None, mailbox.address_id}:
            return preference
        for each in moves:
            if each.old is None or each.new == mailbox.address_id:  # they come back: it leads to where they return to
                continue
            if _has_left_for(preference, each.account, each.old):
                return replace(preference, moved_to=mailbox.address_id if each.new is None else each.new)
        return preference

    displaced = tuple(Displaced(each.taken_by, follow(each.before)) for each in mailbox.displaced)
    return replace(mailbox, preference=follow(mailbox.preference), displaced=displaced)
