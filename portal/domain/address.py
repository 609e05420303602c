"""An e-mail address as the portal compares it.

Two spellings are one address when their canonical forms are equal: NFC, lower case, the domain by IDNA 2008 in its
ASCII form. Never casefold, which makes one of groß@ and gross@. Source: SEMANTICS, Matching; RFC 5321, RFC 5891.
"""

import re
import unicodedata

from portal.errors import InvalidAddressError

MAX_LENGTH = 254  # RFC 5321, 4.5.3.1.3

# What a line protocol, a log or a list manager could misread is no address: white space, controls, separators, half a
# surrogate pair.
_FIT = r"[^\s\x00-\x1f\x7f-\x9f,<>@\ud800-\udfff]+"
_SHAPE = re.compile(f"{_FIT}@{_FIT}")


def canonical(spelling: str) -> str:
    """Return the form of an address that is compared and stored.

    This is a check for the lines of a roster: cheap, and no stricter than list managers are. What a person types is
    validated by ``services.addresses``. Raise InvalidAddressError.
    """
    text = spelling.strip()
    if len(text) > MAX_LENGTH:
        raise InvalidAddressError(f"an e-mail address is at most {MAX_LENGTH} bytes long: {printable(text)}")
    if not text.isascii():
        return _canonical_unicode(text)
    if not _SHAPE.fullmatch(text):
        raise InvalidAddressError(f"not an e-mail address: {printable(text)}")
    return text.lower()


def _canonical_unicode(text: str) -> str:
    import idna  # only addresses beyond ASCII pay for its tables

    normal = unicodedata.normalize("NFC", text)
    if not _SHAPE.fullmatch(normal):
        raise InvalidAddressError(f"not an e-mail address: {printable(text)}")
    local, _, domain = normal.partition("@")
    try:
        ascii_domain = idna.encode(domain.lower(), uts46=True).decode("ascii") if not domain.isascii() else domain
    except UnicodeError as error:
        raise InvalidAddressError(f"not an e-mail address, its domain is not valid: {printable(text)}") from error
    # NFC once more: lower() can leave a letter and a combining mark that compose
    result = f"{unicodedata.normalize('NFC', local.lower())}@{ascii_domain.lower()}"
    if len(result.encode()) > MAX_LENGTH:
        raise InvalidAddressError(f"an e-mail address is at most {MAX_LENGTH} bytes long: {printable(text)}")
    return result


def printable(text: str, *, limit: int = 100) -> str:
    """Return a text for an error line: no control characters, no lone surrogates, cut at a limit."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
