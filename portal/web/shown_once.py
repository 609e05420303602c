"""A secret that the portal makes and one page shows, once: the POST leads to that page, and a reload makes no other.

The cookie holds a nonce, and not the secret: that is made of the nonce and the portal's own key.
"""

import hmac
import secrets
from typing import NamedTuple

from flask import current_app, session

_COOKIE = "shown_once"


class Made(NamedTuple):
    """256 random bits, and the nonce that they can be made of again."""

    nonce: str
    bits: bytes


def make() -> Made:
    """Return random bits to make a secret of."""
    nonce = secrets.token_hex(16)
    return Made(nonce, _derived(nonce))


def keep(page: str, made: Made) -> None:
    """Let a page have the bits again, once."""
    session[_COOKIE] = [page, made.nonce]


def take(page: str) -> bytes | None:
    """Return the bits that were kept for a page, or None where it has shown them."""
    kept_for, nonce = session.get(_COOKIE, ("", ""))
    if kept_for != page:
        return None
    del session[_COOKIE]
    return _derived(nonce)


def _derived(nonce: str) -> bytes:
    key: str = current_app.config["SECRET_KEY"]
    return hmac.digest(key.encode(), f"shown-once: {nonce}".encode(), "sha256")
