"""Generated secrets that a page shows once. The POST redirects to that page, so a reload generates nothing.

The cookie holds only a nonce; the secret is derived from it and the portal's key.
"""

import hmac
import secrets
from typing import NamedTuple

from flask import current_app, session

_COOKIE = "shown_once"


class Made(NamedTuple):
    """256 random bits, and the nonce to derive them from again."""

    nonce: str
    bits: bytes


def make() -> Made:
    """Return random bits to generate a secret from."""
    nonce = secrets.token_hex(16)
    return Made(nonce, _derived(nonce))


def keep(page: str, made: Made) -> None:
    """Keep the bits for one display on a page."""
    session[_COOKIE] = [page, made.nonce]


def take(page: str) -> bytes | None:
    """Return the bits that were kept for a page, or None if it has shown them already."""
    kept_for, nonce = session.get(_COOKIE, ("", ""))
    if kept_for != page:
        return None
    del session[_COOKIE]
    return _derived(nonce)


def _derived(nonce: str) -> bytes:
    key: str = current_app.config["SECRET_KEY"]
    return hmac.digest(key.encode(), f"shown-once: {nonce}".encode(), "sha256")
