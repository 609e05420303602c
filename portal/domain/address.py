"""The canonical form of an e-mail address, by which the portal compares addresses.

Two spellings are one address if their canonical forms are equal: NFC, lower case, the domain in its ASCII form by IDNA
2008. Never casefold, which would make groß@ and gross@ one address. Source: RFC 5321, RFC 5891, and docs/semantics.md,
"How addresses are compared".
"""

import re
import unicodedata

from portal.errors import InvalidAddressError

MAX_LENGTH = 254  # RFC 5321, 4.5.3.1.3

# RFC 5322, 3.2.3, and RFC 6532, 3.2: all but controls, the space and the specials. Every command compiles this when it
# starts, and the class of the allowed characters would take 20 times as long.
_ATOM = r'[^\x00-\x20"(),.:;<>@\[\\\]\x7f]+'
_LABEL = "[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"  # some list managers take an underscore
_LOCAL = re.compile(rf"{_ATOM}(?:\.{_ATOM})*")
_DOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_ADDRESS = re.compile(f"{_LOCAL.pattern}@{_DOMAIN.pattern}")


def canonical(spelling: str) -> str:
    """Return the canonical form of an address. Raise InvalidAddressError.

    An address is a dot-atom, one @ and a domain of labels, with nothing around them. This one definition applies to
    rosters from all sources; what a person types is checked more strictly by ``services.accounts.addresses.checked``.
    Source: docs/semantics.md, "How addresses are compared".
    """
    text = spelling.strip()
    if len(text) > MAX_LENGTH:
        raise InvalidAddressError(
            "an e-mail address can have at most %(max_length)s bytes: %(text)s",
            max_length=MAX_LENGTH,
            text=printable(text),
        )
    if not text.isascii():
        return _canonical_unicode(text)
    if not _ADDRESS.fullmatch(text):
        raise InvalidAddressError("not an e-mail address: %(text)s", text=printable(text))
    return text.lower()


def _canonical_unicode(text: str) -> str:
    import idna  # loads large tables, needed only for addresses beyond ASCII

    normal = unicodedata.normalize("NFC", text)
    local, _, domain = normal.partition("@")
    try:
        ascii_domain = idna.encode(domain.lower(), uts46=True).decode("ascii") if not domain.isascii() else domain
    except UnicodeError as error:
        raise InvalidAddressError(
            "not an e-mail address, because its domain is not valid: %(text)s", text=printable(text)
        ) from error
    if not (_LOCAL.fullmatch(local) and _DOMAIN.fullmatch(ascii_domain)) or any(map(_is_unseen, normal)):
        raise InvalidAddressError("not an e-mail address: %(text)s", text=printable(text))
    # NFC once more: lower() can leave a letter and a combining mark that compose
    result = f"{unicodedata.normalize('NFC', local.lower())}@{ascii_domain.lower()}"
    if len(result.encode()) > MAX_LENGTH:
        raise InvalidAddressError(
            "an e-mail address can have at most %(max_length)s bytes: %(text)s",
            max_length=MAX_LENGTH,
            text=printable(text),
        )
    return result


def _is_unseen(letter: str) -> bool:
    """Return True if a character is a control, a format character, half of a surrogate pair or white space."""
    return letter.isspace() or unicodedata.category(letter) in {"Cc", "Cf", "Cs"}


def outgoing(spelling: str) -> str:
    """Return an address as it is sent to list managers: the local part as typed, the domain in its ASCII form."""
    text = spelling.strip()
    local, _, domain = text.rpartition("@")
    return text if domain.isascii() else f"{local}@{canonical(text).rpartition('@')[2]}"


def printable(text: str, *, limit: int = 100) -> str:
    """Return a text that is safe in an error message: no control characters or lone surrogates, cut at a limit."""
    clean = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in text[: limit + 1])
    return clean if len(clean) <= limit else clean[: limit - 1] + "…"
