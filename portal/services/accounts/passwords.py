"""Passwords: hashed with bcrypt behind an HMAC, compared at one cost on every path, refused where they are weak."""

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

# bcrypt is imported inside functions: the commands that cron starts never need it.

UNUSABLE = "!"  # a stored hash that no password opens
LEAST = 12  # characters
MOST = 1024  # characters; more is no password but a file

VERSION = "v1$"  # what our own hashes begin with
_LABEL = b"member portal: password, version 1"  # changing it makes every stored hash worthless
_BCRYPT = re.compile(r"\$2[aby]\$(0[4-9]|1[0-7])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_BCRYPT_BYTES = 72  # what bcrypt looks at; the library raises for more, the systems we import from cut
_COST = 12  # of a comparison where no other is given
# What is compared where there is no hash to compare with: well formed, and the hash of no known password.
_NOBODYS = "$2b${:02d}$lrM3AZ48UuPaSQBOloOilu20pRX8kWFEYhbous./IJpPtJnSXDqVa"
_LETTERS = "".join(sorted(set(string.ascii_letters + string.digits) - set("0O1lI")))
_TAIL = 8  # a well-known password, or an own word, with at most so many characters around it is no better


class PasswordCheck(NamedTuple):
    """What a comparison says; ``needs_rehash``: the stored hash is not what ``hash_password`` would make now."""

    is_right: bool
    needs_rehash: bool


def hash_password(password: str, *, rounds: int) -> str:
    """Return what is stored for a password: ``v1$`` and bcrypt of base64 of the HMAC-SHA-384 of its NFC.

    bcrypt sees 64 bytes whatever the password is, so that no part of a long one is ignored.
    """
    import bcrypt

    return VERSION + bcrypt.hashpw(_shortened(_nfc(password)), bcrypt.gensalt(rounds)).decode("ascii")


def verify(password: str, stored: str | None, *, rounds: int | None = None, cost: int | None = None) -> PasswordCheck:
    """Compare a password with a stored hash, in NFC and, where that differs, as typed.

    ``stored`` is a hash of ours, an imported ``$2a$``, ``$2b$`` or ``$2y$`` one, or anything else (None: there is no
    such user), with which no password is right. ``rounds`` is the cost that hashes are made with now.

    A comparison takes the CPU of one bcrypt at ``cost`` (without it, at ``rounds``) for each form of what was typed,
    whatever is stored: one with a cheaper hash is topped up, unless it is right and the caller makes another hash.
    """
    cost = max(cost or 0, rounds or _COST)
    forms = list(dict.fromkeys((_nfc(password), password)))
    compared = [_compare(form, stored or "", cost=cost) for form in forms]  # all of them: none must save time
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
    if found is None or b"\0" in text:  # to bcrypt "a" and "a, NUL, a" are one password
        bcrypt.checkpw(_shortened(form), _NOBODYS.format(cost).encode("ascii"))
        return _Compared(is_right=False, cost=cost)
    return _Compared(bcrypt.checkpw(text, bare.encode("ascii")), int(found[1]))


def _top_up(spent: int, cost: int) -> None:
    """Run bcrypt until as much is spent as a comparison at a cost takes: each step of the cost doubles it."""
    import bcrypt

    for each in range(spent, cost):
        bcrypt.checkpw(b"", _NOBODYS.format(each).encode("ascii"))


def is_hash(text: str) -> bool:
    """Tell whether a text is a hash that ``verify`` can compare with: what an import may bring along."""
    return _BCRYPT.fullmatch(text.removeprefix(VERSION)) is not None


def check_strength(password: str, *, own: Iterable[str]) -> None:
    """Refuse a new password that is short, well known, or little more than one of the user's ``own`` words.

    ``own`` are the username, the name and the addresses. There are no rules about kinds of characters. Raise
    WeakPasswordError.
    """
    password = _nfc(password)
    if len(password) < LEAST:
        raise WeakPasswordError(
            "a password has at least %(least)s characters; a few words in a row make a good one", least=LEAST
        )
    if len(password) > MOST:
        raise WeakPasswordError("a password has at most %(most)s characters", most=MOST)
    if any(letter == "\0" or "\ud800" <= letter <= "\udfff" for letter in password):
        raise WeakPasswordError("the password holds a character that cannot be typed")
    lowered = password.lower()
    if _is_well_known(lowered):
        raise WeakPasswordError("the password is one of those that are tried first; choose another")
    if any(_is_mostly(lowered, word) for text in own for word in _words(text)):
        raise WeakPasswordError("the password is little more than the user's own name or address; choose another")


def random_password(bits: bytes | None = None) -> str:
    """Return a password of 20 letters and digits that cannot be mistaken for each other: 115 bits.

    It is made of 32 random bytes: those that the caller has, or others.
    """
    number, letters = int.from_bytes(bits or secrets.token_bytes(32)), []
    for _ in range(20):
        number, place = divmod(number, len(_LETTERS))
        letters.append(_LETTERS[place])
    return "".join(letters)


def _shortened(password: str) -> bytes:
    return base64.b64encode(hmac.digest(_LABEL, _bytes(password), hashlib.sha384))


def _nfc(password: str) -> str:
    """Return the form in which passwords are stored: keyboards and systems send an é as one character or as two."""
    return unicodedata.normalize("NFC", password)


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
