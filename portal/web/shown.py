"""The state that a page showed, signed and sent with its form: it tells the user's changes from those by others."""

from functools import lru_cache
from typing import Any

from flask import current_app, g
from itsdangerous import BadData, Serializer

from portal.errors import StaleFormError


def sign(page: str, value: object, *, owner: object = None) -> str:
    """Return the signed state of a page for its form. ``owner`` is the logged-in member unless given."""
    return _signer(page).dumps([g.member.id if owner is None else owner, value])


def read(page: str, signed: str | None, *, owner: object = None) -> Any:
    """Return the state that the page of a form showed. Raise StaleFormError if it was altered or is someone else's."""
    found, value = read_with_owner(page, signed)
    if found != (g.member.id if owner is None else owner):
        raise StaleFormError("the page belongs to another log-in")
    return value


def read_with_owner(page: str, signed: str | None) -> tuple[Any, Any]:
    """Return the owner and the state of a page. Raise StaleFormError if it was altered."""
    try:
        owner, value = _signer(page).loads(signed or "")
    except BadData:
        raise StaleFormError("what the page had shown was altered") from None
    return owner, value


def _signer(page: str) -> Serializer[str]:
    return _signer_with(current_app.config["SECRET_KEY"], page)


@lru_cache(maxsize=16)  # making one takes as long as signing
def _signer_with(key: str, page: str) -> Serializer[str]:
    return Serializer(key, salt=f"shown: {page}", serializer_kwargs={"separators": (",", ":")})
