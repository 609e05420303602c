"""New members: who is put on a list that subscribes them, once for each person and list.

Pure functions over small values. Source: docs/semantics.md, "The merge", rule 1.
"""

from collections.abc import Collection, Iterable
from typing import NamedTuple


class Newcomer(NamedTuple):
    """An account made after the first good run of a list, that may see it and has nothing stored for it.

    ``main`` is the id of its main address, ``addresses`` are all that it holds or has held, canonical.
    """

    main: int
    addresses: frozenset[str]


def to_subscribe(newcomers: Iterable[Newcomer], *, known: Collection[str], roster: Collection[str]) -> frozenset[int]:
    """Return the ids of the main addresses that a list subscribes.

    ``known`` are addresses that the history of the list tells of, ``roster`` those that are on it.
    """
    return frozenset(
        each.main for each in newcomers if not any(address in known or address in roster for address in each.addresses)
    )
