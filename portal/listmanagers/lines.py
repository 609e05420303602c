"""Addresses as lines of text: what may be sent to a program, and what it printed."""

import re
from collections.abc import Sequence

from portal.domain.address import canonical, printable
from portal.errors import InvalidAddressError, ListManagerUnavailableError

# A subscriber whom no account can hold, such as "a b"@example.org. A sentence about an address does not look like it.
_ODD = re.compile(r'(?:"[^"]*"|[^\s"]+)@\S+')


def why_unsendable(address: str) -> str:
    """Return why an address must not stand on a line of its own; an empty text where it may."""
    try:
        canonical(address)
    except InvalidAddressError:
        return "not an e-mail address"
    if address != address.strip() or address[0] == "\ufeff":
        return "white space around the address"
    return ""


def address_in(text: str) -> str:
    """Return the address of a roster line: the line, or what stands in angle brackets at its end."""
    line = text.strip()
    return line[line.rfind("<") + 1 : -1].strip() if line.endswith(">") else line


def read_roster(output: bytes, *, comments: bool, source: str) -> list[str]:
    """Return the addresses that a command printed, one a line, as it spells them.

    Subscribers whom no account can hold are left out. With ``comments`` lines that start with # are too. Any other
    line is not from a roster, and what is not a roster must not pass for a short one: raise
    ListManagerUnavailableError, which names the source.
    """
    addresses = []
    for number, raw in enumerate(output.split(b"\n"), start=1):
        text = raw.decode("utf-8", "surrogateescape").strip()
        if not text or (comments and text[0] == "#"):
            continue
        spelling = address_in(text)
        try:
            canonical(spelling)
        except InvalidAddressError:
            if not _ODD.fullmatch(spelling):
                raise ListManagerUnavailableError(
                    f"{source}: line {number} of its output is no address: {one_line(text)}; "
                    "run it by hand to see what it prints"
                ) from None
        else:
            addresses.append(spelling)
    return addresses


def as_lines(addresses: Sequence[str]) -> bytes:
    """Return addresses as input for a command, one a line."""
    return "".join(f"{address}\n" for address in addresses).encode()


def one_line(text: str) -> str:
    """Return what a list manager said as one line: no control characters, at most 200 letters."""
    return printable(text.strip(), limit=200)
