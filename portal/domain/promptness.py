"""How soon changes are carried out on lists that apply them immediately, judged by recently requested runs.

Pure functions over small values.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import timedelta

SOON = timedelta(minutes=5)

Wait = timedelta | None  # from the request of a run to its end; None if it failed or never began


def prompt_lists(handles: Iterable[str], waits: Mapping[str, Sequence[Wait]]) -> frozenset[str]:
    """Return the lists whose changes are carried out soon, as those of nine in ten of their recent runs were.

    A list without such runs is judged by those of the others.
    """
    of_all = [each for those in waits.values() for each in those]
    return frozenset(handle for handle in handles if _are_soon(waits.get(handle) or of_all))


def _are_soon(waits: Collection[Wait]) -> bool:
    late = sum(each is None or each > SOON for each in waits)
    return bool(waits) and late * 10 <= len(waits)
