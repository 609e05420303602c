"""Several addresses of one person and one list: which of them a tick, an untick and an address given leave subscribed.

Pure functions over small values. Source of every rule: docs/semantics.md, "Several addresses".
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from portal.domain.moves import UNCHOSEN, Stamp, Standing, chosen_at


class Held(NamedTuple):
    """One of a person's addresses; ``is_shared``: another account holds it too; ``subscribed``: None where unknown."""

    address_id: int
    is_shared: bool
    subscribed: bool | None


@dataclass(frozen=True, slots=True)
class Own:
    """One of a person's addresses, and what is stored of it for a list; ``is_found``: by others who held it before."""

    address_id: int
    standing: Standing | None
    is_main: bool = False
    is_shared: bool = False
    is_found: bool = False


def tick(held: Collection[Held], chosen: int) -> dict[int, bool]:
    """Return what a tick makes of addresses: the chosen one is subscribed, others that nobody else holds are not."""
    changed = (each.address_id for each in held if each.address_id == chosen or not each.is_shared)
    return {address_id: address_id == chosen for address_id in changed}


def untick(held: Collection[Held]) -> dict[int, bool]:
    """Return what an untick makes of addresses, the main one first: those that nobody else holds are unsubscribed.

    A shared one is where the person alone holds none that was subscribed: of several the first, one at a time. Where
    nothing was subscribed, nothing is to be, whatever a roster holds.
    """
    subscribed = [each for each in held if each.subscribed]
    ends = {each.address_id for each in (subscribed[:1] if all(each.is_shared for each in subscribed) else ())}
    return {each.address_id: False for each in held if not (each.is_shared and subscribed) or each.address_id in ends}


def ended_elsewhere(own: Collection[Own], account: int, stamp: Stamp) -> dict[int, Standing]:
    """Return what ends at the addresses of a person, who was given one of them, so that a list sends to one.

    It stays the one that somebody chose last, else one that is on the roster, else the main one. The others that nobody
    else holds are unsubscribed. What others chose for a mailbox that they share, or held before, is no choice of the
    person.
    """
    sent_to = [each for each in own if each.standing is not None and each.standing.subscribed]
    candidates = [each for each in sent_to if not each.is_shared or _is_chosen_by(each, account)]
    if not candidates:
        return {}
    kept = max(candidates, key=_precedence)
    return {
        each.address_id: _ended(each.standing, stamp)
        for each in own
        if each is not kept and not each.is_shared and (each.standing is None or each.standing.subscribed)
    }


def _is_chosen_by(own: Own, account: int) -> bool:
    standing = own.standing
    if standing is None or own.is_found:
        return False
    return standing.changed_by == account and standing.source not in UNCHOSEN


def _precedence(own: Own) -> tuple[datetime, bool, bool, int]:
    standing = own.standing or Standing(True, "rule")
    chosen = chosen_at(replace(standing, source="rule") if own.is_found else standing)
    return chosen, standing.seen is True, own.is_main, -own.address_id


def _ended(standing: Standing | None, stamp: Stamp) -> Standing:
    """End a subscription; nobody chose that, but a run is to carry it out as if they had."""
    return replace(
        standing or Standing(False, "rule"),
        subscribed=False,
        source="rule",
        touched=True,
        moved_from=None,
        changed_at=stamp.at,
        changed_by=stamp.by,
    )
