"""Usernames: which are allowed, and how they are compared."""

import unicodedata
from collections.abc import Collection

from portal.domain.address import canonical, printable
from portal.errors import BadInputError, InvalidAddressError

MAX_LENGTH = 64  # characters

# Unicode categories. Marks and modifiers go with any script.
_LETTERS = {"Lu", "Ll", "Lt", "Lo"}

# Scripts that may be mixed. No others may: a Cyrillic a among Latin letters makes another name that looks the same.
# Source: UTS 39, Restriction Levels, "highly restrictive".
_TOGETHER = (
    frozenset({"LATIN", "CJK", "HIRAGANA", "KATAKANA"}),
    frozenset({"LATIN", "CJK", "HANGUL"}),
    frozenset({"LATIN", "CJK", "BOPOMOFO"}),
)


def checked(text: str, *, own: Collection[str]) -> str:
    """Return a username as it is stored, in NFC. Raise BadInputError.

    Up to 64 printable characters, no white space, letters of one script in their usual form. With an @ it must be one
    of the user's ``own`` addresses, which are canonical: somebody else's address would take over that person's log-in.
    """
    username = unicodedata.normalize("NFC", text)
    if not 0 < len(username) <= MAX_LENGTH or not username.isprintable() or " " in username:
        raise BadInputError(
            "not a username: %(text)s (1 to %(max_length)s printable characters without white space)",
            text=repr(printable(text)),
            max_length=MAX_LENGTH,
        )
    own_part = username.partition("@")[0]
    if unicodedata.normalize("NFKC", own_part) != own_part:
        raise BadInputError(
            "a username cannot have full-width letters, ligatures and the like: %(text)s", text=repr(printable(text))
        )
    if not is_of_one_script(own_part):
        raise BadInputError("a username cannot mix letters of different scripts: %(text)s", text=repr(printable(text)))
    if "@" in username and _canonical(username) not in own:
        raise BadInputError(
            "a username with an @ must be the user's own address: %(username)s", username=printable(username)
        )
    return username


def is_of_one_script(text: str) -> bool:
    """Return True if all letters of a text are of one script, or of scripts that may be mixed."""
    if text.isascii():
        return True
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if unicodedata.category(letter) in _LETTERS)
    scripts = {unicodedata.name(letter, "").partition(" ")[0] for letter in letters}
    return len(scripts) <= 1 or any(scripts <= together for together in _TOGETHER)


def key(username: str) -> str:
    """Return the form in which usernames are compared and stored: NFC, lower case."""
    if username.isascii():
        return username.lower()
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", username).lower())


def is_address(username: str, address: str) -> bool:
    """Return True if a username is a canonical address."""
    return "@" in username and _canonical(username) == address


def _canonical(text: str) -> str | None:
    try:
        return canonical(text)
    except InvalidAddressError:
        return None
