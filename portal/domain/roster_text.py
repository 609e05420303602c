"""A roster as text: one address a line, as list managers print it and people edit it."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from portal.domain.address import canonical
from portal.errors import InvalidAddressError


class RosterLine(NamedTuple):
    """One address of a roster: compared by ``canonical``, sent as ``spelling``."""

    canonical: str
    spelling: str


class RosterText:
    """Read roster lines one at a time, counting the lines that are no address.

    A byte-order mark, blank lines and ``#`` comments are skipped; ``Name <address>`` and CRLF are accepted. No line
    stops the reading. Source: SEMANTICS, list-init, rule 4.
    """

    def __init__(self, lines: Iterable[bytes] | Iterable[str]) -> None:
        self._lines = lines
        self.invalid = 0  # lines that are no address, so far

    def __iter__(self) -> Iterator[RosterLine]:
        for raw in self._lines:
            text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
            spelling = text.lstrip("\ufeff").strip()
            if not spelling or spelling[0] == "#":
                continue
            if spelling[-1] == ">":
                spelling = spelling[spelling.rfind("<") + 1 : -1].strip()
            try:
                yield RosterLine(canonical(spelling), spelling)
            except InvalidAddressError:
                self.invalid += 1
