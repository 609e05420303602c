"""New members, whom a list may subscribe once for each person.

Pure functions over small values. Source: docs/semantics.md, "The rules", rule 1.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple


class Newcomer(NamedTuple):
    """An account made after the first good run of a list that it may see, without preference or history for that list.

    ``main`` is the id of its main address. ``addresses`` are all that it holds or has held, canonical.
    """

    main: int
    addresses: frozenset[str]


def to_subscribe(newcomers: Iterable[Newcomer], *, known: Collection[str], roster: Collection[str]) -> frozenset[int]:
    """Return the ids of the main addresses that a list subscribes.

    ``known`` are the addresses in the history of the list, ``roster`` those that are on it.
    """
    return frozenset(
        each.main for each in newcomers if not any(address in known or address in roster for address in each.addresses)
    )
