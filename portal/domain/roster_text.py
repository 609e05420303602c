"""A roster as text: one address a line, as list managers print it and people edit it.

All such text is read here, whether it was piped, posted, read from a file or printed by a command.
"""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from portal.domain.address import canonical, printable
from portal.errors import InvalidAddressError, UnreadableRosterError

Lines = Iterable[bytes | str]

_REPORTED = 5  # unreadable lines
# An @ in an unquoted name may be another address, and its subscriber must not be lost.
_NAME_BEFORE = re.compile(r'(?:"(?:[^"\\]|\\.)*"|[^@>]*)\s*<([^<>]*)>')
_NAME_BEHIND = re.compile(r"([^\s()]+)\s*\([^@]*\)")


class RosterLine(NamedTuple):
    """One address of a roster: compared by ``canonical``, sent as ``spelling``."""

    canonical: str
    spelling: str


class UnreadableLine(NamedTuple):
    """A line that is not an address: its number, its shortened and printable text, and the problem, for a message."""

    number: int
    text: str
    problem: str


def read_line(text: str) -> RosterLine | None:
    """Return the address on a line, or None for a blank line or a comment. Raise InvalidAddressError.

    ``Name <address>`` and ``address (Name)`` are accepted.
    """
    line = text.lstrip("\ufeff").strip()
    if not line or line[0] == "#":
        return None
    spelling = without_name(line)
    return RosterLine(canonical(spelling), spelling)


def without_name(line: str) -> str:
    """Return a line without the name before or after an address, if there certainly is one."""
    pattern = {">": _NAME_BEFORE, ")": _NAME_BEHIND}.get(line[-1])
    found = pattern.fullmatch(line) if pattern else None
    return found[1].strip() if found else line


class RosterText:
    """Read roster lines one at a time; only reading to the end shows whether they can be trusted.

    A line that cannot be read puts the whole input in doubt: reading to the end raises UnreadableRosterError, which
    reports the first such lines. With ``skip_invalid``, which says that a person has checked them, they are counted and
    skipped. ``ends_with_newline``: a last line without a line end has been cut off. Source: docs/semantics.md,
    "list-init".
    """

    def __init__(self, lines: Lines, *, ends_with_newline: bool = False, skip_invalid: bool = False) -> None:
        self._lines = lines
        self._ends_with_newline = ends_with_newline
        self._skip_invalid = skip_invalid
        self.invalid = 0  # lines that cannot be read, so far
        self.unreadable: list[UnreadableLine] = []  # the first of them

    def __iter__(self) -> Iterator[RosterLine]:
        for number, raw in enumerate(self._lines, start=1):
            text = raw.decode("utf-8", "surrogateescape") if isinstance(raw, bytes) else raw
            if self._ends_with_newline and not text.endswith("\n"):
                self._note(
                    number, text, "the last line does not end with a newline, so the input may have been cut off"
                )
                continue
            try:
                line = read_line(text)
            except InvalidAddressError:
                self._note(number, text, "not an address")
            else:
                if line is not None:
                    yield line
        if self.invalid and not self._skip_invalid:
            raise UnreadableRosterError(self._error_message())

    def _note(self, number: int, text: str, problem: str) -> None:
        self.invalid += 1
        if len(self.unreadable) < _REPORTED:
            self.unreadable.append(UnreadableLine(number, printable(text.strip(), limit=60), problem))

    def _error_message(self) -> str:
        found = "; ".join(f"line {each.number}: {each.problem}: {each.text}" for each in self.unreadable)
        more = self.invalid - len(self.unreadable)
        lines = "1 line" if self.invalid == 1 else f"{self.invalid} lines"
        return (
            f"nothing was changed, because {lines} of the input cannot be read: {found}"
            f"{f'; and {more} more' if more else ''}. Write one address per line. To skip these lines, run again with: "
            "--skip-invalid (API: skip_invalid=1)"
        )
