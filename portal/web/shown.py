"""What a page showed, signed: its form carries it, so that a save knows what the person changed and what others did."""

from typing import Any

from flask import current_app, g
from itsdangerous import BadData, URLSafeSerializer

from portal.errors import StaleFormError


def sign(page: str, value: object, *, owner: object = None) -> str:
    """Return what a page shows, as its form carries it, for its owner: the member who is logged in, or another."""
    return _signer(page).dumps([g.member.id if owner is None else owner, value])


def read(page: str, signed: str | None, *, owner: object = None) -> Any:
    """Return what the page of a form had shown. Raise StaleFormError where it was altered or is somebody else's."""
    found, value = read_with_owner(page, signed)
    if found != (g.member.id if owner is None else owner):
        raise StaleFormError("the page belongs to another log-in")
    return value


def read_with_owner(page: str, signed: str | None) -> tuple[Any, Any]:
    """Return whom a page was shown to, and what. Raise StaleFormError where it was altered."""
    try:
        owner, value = _signer(page).loads(signed or "")
    except BadData:
        raise StaleFormError("what the page had shown was altered") from None
    return owner, value


def _signer(page: str) -> URLSafeSerializer:
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt=f"shown: {page}")
