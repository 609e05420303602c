"""Passwords: hashed with bcrypt over an HMAC, compared in the same time on every path, and refused if weak."""

import base64
import hashlib
import hmac
import re
import secrets
import string
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from portal.errors import WeakPasswordError

# bcrypt is imported inside functions, because commands that cron starts do not need it.

UNUSABLE = "!"  # stored instead of a hash while there is no password
LEAST = 12  # characters
MOST = 1024  # characters

VERSION = "v1$"  # prefix of hashes made here
_LABEL = b"member portal: password, version 1"  # changing it invalidates all stored hashes
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_BCRYPT_BYTES = 72  # bcrypt ignores the rest: the library raises for more, other systems truncate
_COST = 12  # default cost of a comparison
# Compared with if there is no stored hash: well formed, but the hash of no known password.
_NOBODYS = "$2b${:02d}$lrM3AZ48UuPaSQBOloOilu20pRX8kWFEYhbous./IJpPtJnSXDqVa"
_LETTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
_TAIL = 8  # at most this many characters around a well-known password or own word do not make it strong


class PasswordCheck(NamedTuple):
    """The result of a comparison; ``needs_rehash``: ``hash_password`` would make another kind of hash now."""

    is_right: bool
    needs_rehash: bool


def hash_password(password: str, *, rounds: int) -> str:
    """Return the hash to store: ``v1$`` and the bcrypt of the base64 of the HMAC-SHA-384 of the password in NFC.

    bcrypt always gets 64 bytes, so no part of a long password is ignored.
    """
    import bcrypt

    return VERSION + bcrypt.hashpw(_shortened(_nfc(password)), bcrypt.gensalt(rounds)).decode("ascii")


def verify(password: str, stored: str | None, *, rounds: int | None = None, cost: int | None = None) -> PasswordCheck:
    """Compare a password with a stored hash, in NFC and, if that differs, as typed.

    ``stored`` is a hash made here, an imported ``$2a$``, ``$2b$`` or ``$2y$`` hash, or anything else (None: no such
    user), which no password matches. ``rounds`` is the cost of new hashes.

    A comparison takes the CPU time of one bcrypt at ``cost`` (default: ``rounds``) for each form of the password,
    whatever is stored: for a cheaper hash the difference is added, unless it matches and the caller makes a new hash.
    """
    cost = max(cost or 0, rounds or _COST)
    forms = list(dict.fromkeys((_nfc(password), password)))
    compared = [_compare(form, stored or "", cost=cost) for form in forms]  # always both forms, for the same time
    is_dated = not (stored or "").startswith(VERSION) or not compared[0].is_right
    if rounds is not None and any(each.cost != rounds for each in compared):
        is_dated = True
    needs_rehash = is_dated and any(each.is_right for each in compared)
    if not needs_rehash:
        for each in compared:
            _top_up(each.cost, cost)
    return PasswordCheck(any(each.is_right for each in compared), needs_rehash)


class _Compared(NamedTuple):
    is_right: bool
    cost: int


def _compare(form: str, stored: str, *, cost: int) -> _Compared:
    import bcrypt

    is_ours = stored.startswith(VERSION)
    bare = stored.removeprefix(VERSION)
    found = _BCRYPT.fullmatch(bare)
    text = _shortened(form) if is_ours else _bytes(form)[:_BCRYPT_BYTES]
    if found is None or b"\0" in text:  # bcrypt stops at a NUL
        bcrypt.checkpw(_shortened(form), _NOBODYS.format(cost).encode("ascii"))
        return _Compared(is_right=False, cost=cost)
    return _Compared(bcrypt.checkpw(text, bare.encode("ascii")), int(found[1]))


def _top_up(spent: int, cost: int) -> None:
    """Run bcrypt for the rest of the time that a comparison at ``cost`` takes: each step of the cost doubles it."""
    import bcrypt

    for each in range(spent, cost):
        bcrypt.checkpw(b"", _NOBODYS.format(each).encode("ascii"))


def is_hash(text: str) -> bool:
    """Return whether ``verify`` can compare with a hash, so that an import may contain it."""
    return _BCRYPT.fullmatch(text.removeprefix(VERSION)) is not None


def check_strength(password: str, *, own: Iterable[str]) -> None:
    """Raise WeakPasswordError if a new password is too short, well known, or mostly one of the user's ``own`` words.

    ``own`` are the username, the name and the addresses. There are no rules about kinds of characters.
    """
    password = _nfc(password)
    if len(password) < LEAST:
        raise WeakPasswordError(
            "a password must have at least %(least)s characters; a few words in a row make a good one", least=LEAST
        )
    if len(password) > MOST:
        raise WeakPasswordError("a password can have at most %(most)s characters", most=MOST)
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in password):
        raise WeakPasswordError("the password contains a character that cannot be typed")
    lowered = password.lower()
    if _is_well_known(lowered):
        raise WeakPasswordError("this password is too common; choose another one")
    if any(_is_mostly(lowered, word) for text in own for word in _words(text)):
        raise WeakPasswordError("this password is too similar to the user's own name or address; choose another one")


def random_password(bits: bytes | None = None) -> str:
    """Return a password of 20 unambiguous letters and digits, with 115 bits of entropy.

    ``bits`` are 32 random bytes to derive it from; without them new ones are generated.
    """
    number, letters = int.from_bytes(bits or secrets.token_bytes(32)), []
    for _ in range(20):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)


def _shortened(password: str) -> bytes:
    return base64.b64encode(hmac.digest(_LABEL, _bytes(password), hashlib.sha384))


def _nfc(password: str) -> str:
    """Return a password in NFC: keyboards send an é as one character or as two."""
    return unicodedata.normalize("NFC", password)


def _bytes(password: str) -> bytes:
    # A lone surrogate cannot be typed but can be sent: it is a wrong password, not an error.
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
