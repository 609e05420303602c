"""Addresses as lines of text, as programs read and print them."""

from collections.abc import Sequence
from io import BytesIO

from portal.domain.address import canonical, printable
from portal.domain.roster_text import RosterText, without_name
from portal.errors import InvalidAddressError, ListManagerUnavailableError, UnreadableRosterError
from portal.listmanagers.base import OddSubscriber


def why_unsendable(address: str) -> str:
    """Return why an address must not be on a line of its own, or an empty text."""
    try:
        canonical(address)
    except InvalidAddressError:
        return "not an e-mail address"
    if address != address.strip() or address[0] == "\ufeff":
        return "white space around the address"
    return ""


def printed_roster(output: bytes, *, source: str) -> list[str]:
    """Return the addresses that a command printed, one a line, as it spells them.

    Raise ListManagerUnavailableError, which names the source and the line, for a line that cannot be read or a last
    line that was cut off: this is not a whole roster.
    """
    text = RosterText(BytesIO(output), ends_with_newline=True)
    try:
        return [line.spelling for line in text]
    except UnreadableRosterError:
        number, line, problem = text.unreadable[0]
        raise ListManagerUnavailableError(
            f"{source}: line {number} of the output cannot be read: {problem}: {line}; run the command by hand to see "
            "what it prints"
        ) from None


def subscribers(output: bytes, *, source: str) -> list[str]:
    """Return the subscribers from output that is known to have one a line.

    An odd line among addresses is an ``OddSubscriber``. Raise ListManagerUnavailableError, which names the source, if
    no line is an address: then it is not a roster.
    """
    lines = (raw.decode("utf-8", "surrogateescape").strip() for raw in output.split(b"\n"))
    found = [subscriber(line) for line in lines if line]
    if found and all(isinstance(each, OddSubscriber) for each in found):
        raise ListManagerUnavailableError(
            f"{source}: the output contains no address; it begins with: {one_line(found[0])}; run the command by hand "
            "to see what it prints"
        )
    return found


def subscriber(text: str) -> str:
    """Return a subscriber as the list manager spells it, as an ``OddSubscriber`` if it is not an address."""
    spelling = without_name(text)
    try:
        canonical(spelling)
    except InvalidAddressError:
        return OddSubscriber(text)
    return spelling


def as_lines(addresses: Sequence[str]) -> bytes:
    """Return addresses as input for a command, one a line."""
    return "".join(f"{address}\n" for address in addresses).encode()


def one_line(text: str) -> str:
    """Return a list manager's message as one line: no control characters, at most 200 characters."""
    return printable(text.strip(), limit=200)
