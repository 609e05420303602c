"""Passwords: hashed with bcrypt behind an HMAC, compared at one cost on every path, refused where they are weak."""

import base64
import hashlib
import hmac
import re
import secrets
import string
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from portal.errors import WeakPasswordError

# bcrypt is imported inside functions: the commands that cron starts never need it.

UNUSABLE = "!"  # a stored hash that no password opens
LEAST = 12  # characters
MOST = 1024  # characters; more is no password but a file

_VERSION = "v1$"
_LABEL = b"member portal: password, version 1"  # changing it makes every stored hash worthless
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_BCRYPT_BYTES = 72  # what bcrypt looks at; the library raises for more, the systems we import from cut
_COST = 12  # of a comparison with nobody's hash, where no other is given
# What is compared where there is no hash to compare with: well formed, and the hash of no known password.
_NOBODYS = "$2b${:02d}$lrM3AZ48UuPaSQBOloOilu20pRX8kWFEYhbous./IJpPtJnSXDqVa"
_LETTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
_TAIL = 8  # a well-known password, or an own word, with at most so many characters around it is no better


class PasswordCheck(NamedTuple):
    """What a comparison says; ``needs_rehash``: the hash was imported, or has another cost than is now asked for."""

    is_right: bool
    needs_rehash: bool


def hash_password(password: str, *, rounds: int) -> str:
    """Return what is stored for a password: ``v1$`` and bcrypt of base64 of its HMAC-SHA-384.

    bcrypt sees 64 bytes whatever the password is, so that no part of a long one is ignored.
    """
    import bcrypt

    return _VERSION + bcrypt.hashpw(_shortened(password), bcrypt.gensalt(rounds)).decode("ascii")


def verify(password: str, stored: str | None, *, rounds: int | None = None) -> PasswordCheck:
    """Compare a password with a stored hash, running bcrypt exactly once whatever the hash is.

    ``stored`` is a hash of ours, an imported ``$2a$``, ``$2b$`` or ``$2y$`` one, or anything else (None: there is no
    such user), with which no password is right. ``rounds`` is the cost that hashes are made with now.
    """
    import bcrypt

    is_ours = stored is not None and stored.startswith(_VERSION)
    bare = (stored or "").removeprefix(_VERSION)
    found = _BCRYPT.fullmatch(bare)
    text = _shortened(password) if is_ours else _bytes(password)[:_BCRYPT_BYTES]
    if found is None or b"\0" in text:  # to bcrypt "a" and "a, NUL, a" are one password
        bcrypt.checkpw(_shortened(password), _NOBODYS.format(rounds or _COST).encode("ascii"))
        return PasswordCheck(is_right=False, needs_rehash=False)
    is_right = bcrypt.checkpw(text, bare.encode("ascii"))
    is_dated = not is_ours or (rounds is not None and int(found[1]) != rounds)
    return PasswordCheck(is_right, needs_rehash=is_right and is_dated)


def is_hash(text: str) -> bool:
    """Tell whether a text is a hash that ``verify`` can compare with: what an import may bring along."""
    return _BCRYPT.fullmatch(text.removeprefix(_VERSION)) is not None


def check_strength(password: str, *, own: Iterable[str]) -> None:
    """Refuse a new password that is short, well known, or little more than one of the user's ``own`` words.

    ``own`` are the username, the name and the addresses. There are no rules about kinds of characters. Raise
    WeakPasswordError.
    """
    if len(password) < LEAST:
        raise WeakPasswordError(f"a password has at least {LEAST} characters; a few words in a row make a good one")
    if len(password) > MOST:
        raise WeakPasswordError(f"a password has at most {MOST} characters")
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in password):
        raise WeakPasswordError("the password holds a character that cannot be typed")
    lowered = password.lower()
    if _is_well_known(lowered):
        raise WeakPasswordError("the password is one of those that are tried first; choose another")
    if any(_is_mostly(lowered, word) for text in own for word in _words(text)):
        raise WeakPasswordError("the password is little more than the user's own name or address; choose another")


def random_password() -> str:
    """Return a password of 20 letters and digits that cannot be mistaken for each other: 115 bits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(20))


def _shortened(password: str) -> bytes:
    return base64.b64encode(hmac.digest(_LABEL, _bytes(password), hashlib.sha384))


def _bytes(password: str) -> bytes:
    # A lone surrogate cannot be typed, but it can be sent: it is a wrong password, not a fault.
    return password.encode("utf-8", "surrogatepass")


def _is_well_known(lowered: str) -> bool:
    known = _well_known()
    core = lowered.strip(string.digits + string.punctuation)
    return (
        lowered in known
        or (core in known and len(lowered) - len(core) <= _TAIL)
        or any(lowered == (lowered[:size] * len(lowered))[: len(lowered)] for size in range(1, 5))
    )


@cache
def _well_known() -> frozenset[str]:
    return frozenset(Path(__file__).with_name("common_passwords.txt").read_text(encoding="utf-8").split())


def _words(text: str) -> set[str]:
    lowered = text.lower()
    return {word for word in (lowered, "".join(lowered.split()), lowered.partition("@")[0]) if len(word) >= 4}


def _is_mostly(lowered: str, word: str) -> bool:
    return word in lowered and len(lowered.replace(word, "")) <= _TAIL
