"""Several addresses of one person: which of them a list sends to after a tick, an untick or a new address.

Pure functions over small values. Source of every rule: docs/semantics.md, "Several addresses".
"""

from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime
from typing import NamedTuple

from portal.domain.moves import UNCHOSEN, Stamp, StoredPreference, chosen_at


class TickableAddress(NamedTuple):
    """An address of a person, for one list.

    ``is_shared``: another account holds it too. ``subscribed`` is None if there is no preference.
    """

    address_id: int
    is_shared: bool
    subscribed: bool | None


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of a person, and its preference for a list; ``is_found``: earlier holders left the preference."""

    address_id: int
    preference: StoredPreference | None
    is_main: bool = False
    is_shared: bool = False
    is_found: bool = False


def tick(held: Collection[TickableAddress], chosen: int) -> dict[int, bool]:
    """Return the preferences after a tick: the chosen address is subscribed, the person's unshared others are not."""
    changed = (each.address_id for each in held if each.address_id == chosen or not each.is_shared)
    return {address_id: address_id == chosen for address_id in changed}


def untick(held: Collection[TickableAddress]) -> dict[int, bool]:
    """Return the preferences after an untick, the main address first: unshared addresses are unsubscribed.

    A shared address is unsubscribed only if none of the person's unshared addresses was subscribed: the first of
    several, one for each untick. If nothing was subscribed, all become unsubscribed, whatever the roster holds.
    """
    subscribed = [each for each in held if each.subscribed]
    ends = {each.address_id for each in (subscribed[:1] if all(each.is_shared for each in subscribed) else ())}
    return {each.address_id: False for each in held if not (each.is_shared and subscribed) or each.address_id in ends}


def ended_elsewhere(own: Collection[OwnAddress], account: int, stamp: Stamp) -> dict[int, StoredPreference]:
    """Return the preferences to end after a person was given an address, so that a list sends to only one.

    The list keeps sending to the address that somebody chose last, else to one on the roster, else to the main one. The
    others are unsubscribed unless they are shared. What others chose for a mailbox that they share, or held before,
    does not count as the person's choice.
    """
    sent_to = [each for each in own if each.preference is not None and each.preference.subscribed]
    candidates = [each for each in sent_to if not each.is_shared or _is_chosen_by(each, account)]
    if not candidates:
        return {}
    kept = max(candidates, key=_precedence)
    return {
        each.address_id: _ended(each.preference, stamp)
        for each in own
        if each is not kept and not each.is_shared and (each.preference is None or each.preference.subscribed)
    }


def _is_chosen_by(own: OwnAddress, account: int) -> bool:
    preference = own.preference
    if preference is None or own.is_found:
        return False
    return preference.changed_by == account and preference.source not in UNCHOSEN


def _precedence(own: OwnAddress) -> tuple[datetime, bool, bool, int]:
    preference = own.preference or StoredPreference(True, "rule")
    chosen = chosen_at(replace(preference, source="rule") if own.is_found else preference)
    return chosen, preference.seen is True, own.is_main, -own.address_id


def _ended(preference: StoredPreference | None, stamp: Stamp) -> StoredPreference:
    """Return an ended subscription. Nobody chose this, but a run carries it out like a choice."""
    return replace(
        preference or StoredPreference(False, "rule"),
        subscribed=False,
        source="rule",
        touched=True,
        moved_from=None,
        changed_at=stamp.at,
        changed_by=stamp.by,
    )
