"""Moves: what becomes of a mailbox's preference for one list when its holders go, come, come back or trade places.

Pure functions over small values. Source of every rule: docs/semantics.md, "Identity".
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

UNCHOSEN = frozenset({"init", "rule"})  # sources of a preference that nobody chose, neither here nor at the list

_NEVER = datetime(1, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Standing:
    """What is stored of a mailbox for a list, as far as moves read or write it.

    ``left_by`` is the account that was the last active one to leave the mailbox: by a move, deactivated or deleted;
    None while an active account holds it, or where none ever did. ``moved_to`` is the mailbox that they moved to, and
    the mailbox itself where nobody can be followed: several moved out at once, or the one who did has been deleted.
    ``moved_from`` is the mailbox that a move brought the preference from, until somebody chooses, leaves or joins here;
    then ``touched`` says that no run has read it, and not that somebody chose.
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
    """When a move happens, and the user who made it, if one did."""

    at: datetime | None = None
    by: int | None = None


class Displaced(NamedTuple):
    """What stood at a mailbox before an account moved there; kept until a person chooses or a run plans an add."""

    taken_by: int
    before: Standing | None


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mailbox and one list.

    ``holders`` are the active accounts that hold it, ``guests`` the accounts that moved here while another held it,
    ``fresh`` the accounts that moved here and since whose coming somebody chose, left or joined here. ``displaced``
    goes from the oldest to the newest. ``is_being_removed`` tells that a removal of ours is under way, so that having
    been seen on the list says nothing.
    """

    address_id: int
    standing: Standing | None = None
    holders: frozenset[int] = frozenset()
    guests: frozenset[int] = frozenset()
    fresh: frozenset[int] = frozenset()
    displaced: tuple[Displaced, ...] = ()
    is_being_removed: bool = False


@dataclass(frozen=True, slots=True)
class Move:
    """An account's change from one mailbox to another.

    ``old`` is None where the account is made or is given an address, ``new`` where it is deleted. ``is_return`` tells
    that the account came to the old mailbox from the new one, ``is_held`` that it holds the new one already, as
    the holders say of an active account, and gives up the old one.
    """

    account: int
    old: int | None
    new: int | None
    is_active: bool = True
    is_return: bool = False
    is_held: bool = False


class _Brought(NamedTuple):
    """What an account brings, and from which mailbox.

    ``chosen_at`` is when somebody chose it, left or joined, as ``chosen_at`` says; ``is_fresh``: they did since the
    account moved there, which alone held it, or with others who go where it goes; ``is_found``: others left it there,
    and nobody chose since.
    """

    subscribed: bool
    touched: bool
    chosen_at: datetime
    origin: int
    is_fresh: bool
    is_found: bool = False


def move(mailboxes: Mapping[int, Mailbox], moves: Collection[Move], stamp: Stamp) -> dict[int, Mailbox]:
    """Return all mailboxes after moves that happen at once: all let go, then all take.

    Each brings what the old mailbox had before, so that two who trade places take their choices with them.
    """
    after = dict(mailboxes)
    brought = {each: _brought(mailboxes, each.old, each, moves) for each in moves if each.old is not None}
    for old in {each.old for each in moves if each.old is not None}:
        after[old] = _let_go(after[old], [each for each in moves if each.old == old])
    for new in {each.new for each in moves if each.new is not None}:
        after[new] = _take(after[new], [each for each in moves if each.new == new], brought, stamp)
    return {address_id: _collapsed(each, moves) for address_id, each in after.items()}


def chosen_at(standing: Standing) -> datetime:
    """Return when somebody chose a preference, left or joined, so that the last of several can be told.

    Long ago where nobody did, and a little less long ago where it is not known when.
    """
    if standing.source in UNCHOSEN:
        return _NEVER
    return standing.changed_at or _NEVER + timedelta(days=1)


def deactivate(mailbox: Mailbox, account: int) -> Mailbox:
    """Return a mailbox after one of its holders was deactivated: they are remembered as the last who left."""
    holders = mailbox.holders - {account}
    if mailbox.standing is None or holders or account not in mailbox.holders:
        return replace(mailbox, holders=holders)
    return replace(mailbox, holders=holders, standing=replace(mailbox.standing, left_by=account))


def activate(mailbox: Mailbox, account: int) -> Mailbox:
    """Return a mailbox after one of its holders was activated again.

    What they left is restored, unless somebody else came meanwhile: a yes of theirs does not work for the next.
    """
    standing = mailbox.standing
    if standing is not None and not mailbox.holders:
        standing = _held_again(mailbox, standing, {account})
    return replace(mailbox, holders=mailbox.holders | {account}, standing=standing)


def _brought(mailboxes: Mapping[int, Mailbox], old: int, moved: Move, moves: Collection[Move]) -> _Brought | None:
    """Return what an account takes along; back to where it came from only what is its own doing.

    One that moved in with others takes along what it left at the mailbox before, unless somebody chose since; one that
    is not active, only what it was the last to leave.
    """
    mailbox = mailboxes[old]
    if moved.account in mailbox.guests - mailbox.fresh:
        left = (
            each for each in mailboxes.values() if each.standing and _is_left_for(each.standing, moved.account, old)
        )
        mailbox = next(left, Mailbox(old))
    standing = mailbox.standing
    if standing is None or not (moved.is_active or standing.left_by == moved.account):
        return None
    together = {each.account for each in moves if (each.old, each.new) == (moved.old, moved.new)}
    is_fresh = moved.account in mailbox.fresh and mailbox.holders <= together
    if moved.is_return and not (is_fresh or standing.moved_from is not None or mailbox.address_id != old):
        return None
    if _is_found(mailbox, standing, moved.account):
        return _Brought(standing.subscribed, standing.touched, _NEVER, mailbox.address_id, is_fresh, is_found=True)
    return _Brought(standing.subscribed, standing.touched, chosen_at(standing), mailbox.address_id, is_fresh)


def _is_found(mailbox: Mailbox, standing: Standing, account: int) -> bool:
    """Tell whether a preference is none of an account's doing: it found it, or what was there ended as it came."""
    if standing.moved_from is not None:
        return False
    found = [each.before for each in mailbox.displaced if each.taken_by == account]
    if standing.source == "rule" and not standing.subscribed:
        return bool(found)
    what = (standing.subscribed, standing.source, standing.changed_at)
    return any(each and (each.subscribed, each.source, each.changed_at) == what for each in found)


def _is_left_for(standing: Standing, account: int, address_id: int) -> bool:
    return (standing.left_by, standing.moved_to) == (account, address_id)


def _let_go(mailbox: Mailbox, moves: Collection[Move]) -> Mailbox:
    """Take away holders; where the move of one of them made what stands here, put back what stood before."""
    leavers = {each.account for each in moves}
    holders = mailbox.holders - leavers
    standing, displaced = _put_back(mailbox, leavers)
    is_undone = bool(mailbox.displaced) and mailbox.displaced[-1].taken_by in leavers
    if standing is not None and is_undone and holders:
        standing = _held_again(mailbox, standing, holders)
    elif standing is not None and not holders:
        takers = {each.taken_by for each in mailbox.displaced} if is_undone else set()
        theirs = [each for each in moves if each.account not in takers]
        standing = _left(standing, sorted(theirs, key=lambda each: each.account in mailbox.guests), mailbox.address_id)
    return replace(
        mailbox,
        holders=holders,
        guests=mailbox.guests - leavers,
        fresh=mailbox.fresh - leavers,
        standing=standing,
        displaced=displaced,
    )


def _put_back(mailbox: Mailbox, leavers: Collection[int]) -> tuple[Standing | None, tuple[Displaced, ...]]:
    """Return what stands, and what is displaced, once nothing is left of what leavers displaced."""
    if all(each.taken_by not in leavers for each in mailbox.displaced):
        return mailbox.standing, mailbox.displaced
    stood = [*(each.before for each in mailbox.displaced), mailbox.standing]  # what each found, and what the last made
    staying = [number for number, each in enumerate(mailbox.displaced) if each.taken_by not in leavers]
    stood = [stood[0], *(stood[number + 1] for number in staying)]
    displaced = tuple(
        Displaced(mailbox.displaced[number].taken_by, before) for number, before in zip(staying, stood, strict=False)
    )
    standing = stood[-1]
    return standing and _brought_up_to_date(standing, mailbox.standing), displaced


def _brought_up_to_date(standing: Standing, current: Standing | None) -> Standing:
    """Return what stood before with what runs have read of the list meanwhile: it is true of the mailbox."""
    if current is None or (current.moved_from is not None and current.touched):
        return standing
    if current.source == "list" and standing.seen is not None:  # they left or joined there
        standing = replace(standing, subscribed=current.subscribed, source="list")
    seen = standing.seen if current.seen is None else current.seen
    return replace(standing, seen=seen, waiting_since=current.waiting_since)


def _left(standing: Standing, moves: Collection[Move], address_id: int) -> Standing:
    """Remember who left the mailbox last, and where to. Of those who were not active, what is not theirs stays."""
    leavers = [each for each in moves if each.is_active or standing.left_by == each.account]
    if not leavers:
        return standing
    successors = {each.new for each in leavers} - {None}
    if not successors:  # deleted
        return replace(standing, left_by=leavers[0].account, moved_to=None)
    moved_to = address_id if len(successors) > 1 else successors.pop()
    left_by = next(each.account for each in leavers if each.new is not None)
    return replace(standing, left_by=left_by, moved_to=moved_to)


def _take(mailbox: Mailbox, moves: Collection[Move], brought: Mapping[Move, _Brought | None], stamp: Stamp) -> Mailbox:
    """Let accounts hold a mailbox. One that another active account holds keeps what it has; else it is free."""
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
    standing, brings = mailbox.standing, _by_account(coming, own)

    def order(account: int) -> tuple[bool, bool, int]:  # in whatever order they were named
        return standing is None or standing.left_by != account, brings[account] is None, account

    first, *others = sorted(brings, key=order)
    after = _take_first(mailbox, first, brings[first], stamp)
    returning = {each.account for each in coming if each.is_return}
    for each in others:
        after = _take_too(after, each, brings[each], stamp, is_return=each in returning)
    standing = after.standing
    if standing is not None and not active:
        standing = replace(standing, left_by=first)
    return replace(after, holders=frozenset(active), standing=standing)


def _by_account(moves: Iterable[Move], brought: Mapping[Move, _Brought | None]) -> dict[int, _Brought | None]:
    """Return what each account brings: of several mailboxes that it gives up, what was chosen last counts."""
    brings: dict[int, _Brought | None] = {}
    for each in moves:
        found, before = brought.get(each), brings.get(each.account)
        brings[each.account] = found if before is None or (found and _counts_more(found, before)) else before
    return brings


def _counts_more(one: _Brought, other: _Brought | Standing) -> bool:
    """Tell which of two preferences of one person counts: what was chosen later, of two that nobody chose the yes."""
    other_at = chosen_at(other) if isinstance(other, Standing) else other.chosen_at
    return (one.chosen_at, one.subscribed) > (other_at, other.subscribed)


def _give_up_others(
    mailbox: Mailbox, moves: Collection[Move], brought: Mapping[Move, _Brought | None], stamp: Stamp
) -> Mailbox:
    """Give up other addresses for one that the same account holds already, as the only one.

    What was chosen later counts. Where nobody chose, a yes goes along, and a no where there is no preference. What was
    found at the other one goes along only where that ended what was here, which no move had brought.
    """
    for account, brings in sorted(_by_account(moves, brought).items()):
        standing = mailbox.standing
        if brings is None or (standing and standing.left_by not in {None, account}):
            continue
        if brings.is_found and (standing is None or standing.source != "rule" or standing.moved_from is not None):
            continue
        if standing is None:
            mailbox = replace(mailbox, standing=_made(brings, stamp))
        elif brings.subscribed is not standing.subscribed and _counts_more(brings, standing):
            mailbox = replace(mailbox, standing=_put(standing, brings, stamp))
    return mailbox


def _take_first(mailbox: Mailbox, comer: int, brought: _Brought | None, stamp: Stamp) -> Mailbox:
    before = mailbox.standing
    if before is not None and before.left_by == comer:
        return replace(mailbox, standing=_returned(before, brought, stamp))
    after = _taken(mailbox, brought, stamp)
    found = Displaced(comer, before)
    return replace(mailbox, standing=after, displaced=(*mailbox.displaced, found)) if after or before else mailbox


def _take_too(mailbox: Mailbox, comer: int, brought: _Brought | None, stamp: Stamp, *, is_return: bool) -> Mailbox:
    """Let an account take a mailbox along with others: one *unsubscribed* among them wins."""
    if brought is None or brought.subscribed or mailbox.standing is None:  # None: nobody brings anything
        return mailbox
    if is_return:
        return replace(mailbox, standing=_returned(mailbox.standing, brought, stamp))
    found = Displaced(comer, mailbox.standing)
    return replace(mailbox, standing=_put(mailbox.standing, brought, stamp), displaced=(*mailbox.displaced, found))


def _returned(standing: Standing, brought: _Brought | None, stamp: Stamp) -> Standing:
    """Going back: the preference stands as it was, unless something was chosen at the other mailbox since."""
    back = _cleared(standing)
    if brought is None or not brought.is_fresh:
        return back
    return replace(_put(back, brought, stamp), touched=brought.touched, moved_from=None)


def _taken(mailbox: Mailbox, brought: _Brought | None, stamp: Stamp) -> Standing | None:
    """Return what stands at a free mailbox after somebody came who was not the last to leave it."""
    standing = mailbox.standing
    if standing is None:
        return None if brought is None else _made(brought, stamp)
    if standing.left_by is None:  # nobody here ever held it
        is_yes = brought is not None and brought.subscribed and standing.source in UNCHOSEN
        return _put(standing, brought, stamp) if brought and is_yes and not standing.subscribed else standing
    if brought is None or (standing.source == "link" and not standing.subscribed):
        return _without_yes(mailbox, standing)
    return _put(_cleared(standing), brought, stamp)


def _made(brought: _Brought, stamp: Stamp) -> Standing:
    """Begin a row *seen off*: somebody who has joined with the new address by hand already joined, as on any list."""
    return _put(Standing(brought.subscribed, "rule"), brought, stamp)


def _put(standing: Standing, brought: _Brought, stamp: Stamp) -> Standing:
    """Put what somebody brings in the place of what stands."""
    return replace(
        standing,
        subscribed=brought.subscribed,
        source="rule",
        seen=bool(standing.seen),
        touched=True,
        moved_from=brought.origin,
        changed_at=stamp.at,
        changed_by=stamp.by,
    )


def _held_again(mailbox: Mailbox, standing: Standing, holders: Collection[int]) -> Standing | None:
    """Return what stands where accounts hold a mailbox again, or are found to have come while it was free."""
    if standing.left_by is None or standing.left_by in holders:
        return _cleared(standing)
    return _without_yes(mailbox, standing)


def _without_yes(mailbox: Mailbox, standing: Standing) -> Standing | None:
    """Return what somebody finds who brings nothing: a yes of somebody who is gone does not work for them."""
    touched = standing.touched and standing.moved_from is None
    kept = replace(_cleared(standing), touched=touched, moved_from=None)
    if not standing.subscribed or (standing.seen and not mailbox.is_being_removed):
        return kept
    if standing.waiting_since is None and standing.moved_to is None:
        return None
    return replace(kept, subscribed=False, source="rule", touched=False)


def _cleared(standing: Standing) -> Standing:
    """Forget who left and where to; the mark of a departure goes where a holder may see the list."""
    return replace(standing, left_by=None, moved_to=None)


def _collapsed(mailbox: Mailbox, moves: Collection[Move]) -> Mailbox:
    """X to Y to Z is X to Z; somebody who is deleted cannot be followed any more."""

    def follow(standing: Standing | None) -> Standing | None:
        if standing is None or standing.moved_to in {None, mailbox.address_id}:
            return standing
        for each in moves:
            if each.old is None or each.new == mailbox.address_id:  # they come back: it leads to where they return to
                continue
            if _is_left_for(standing, each.account, each.old):
                return replace(standing, moved_to=mailbox.address_id if each.new is None else each.new)
        return standing

    displaced = tuple(Displaced(each.taken_by, follow(each.before)) for each in mailbox.displaced)
    return replace(mailbox, standing=follow(mailbox.standing), displaced=displaced)
