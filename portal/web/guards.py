"""Who may reach what. Everything is closed unless it stands in this one table."""

from collections.abc import Mapping
from enum import Enum, auto

from flask import Flask, abort, g, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import current_user

from portal.errors import ForbiddenError
from portal.extensions import db, login, portal
from portal.services import sessions
from portal.services.sessions import Member


class Access(Enum):
    """Who may reach an endpoint."""

    PUBLIC = auto()
    USER = auto()
    SUPERUSER = auto()
    KEY = auto()  # an API key; no cookie counts


ACCESS: Mapping[str, Access] = {
    "static": Access.PUBLIC,
    "health.alive": Access.PUBLIC,
    "health.ready": Access.PUBLIC,
    "account.log_in": Access.PUBLIC,
    "account.log_out": Access.USER,
    "account.show": Access.USER,
    "account.change_password": Access.USER,
    "subscriptions.home": Access.USER,
    "subscriptions.show": Access.USER,
    "subscriptions.choose": Access.USER,
    "admin.lists": Access.SUPERUSER,
    "admin.runs": Access.SUPERUSER,
}


def register(app: Flask) -> None:
    """Put the guard before every request."""
    login.session_protection = None  # the row of login_sessions protects; an IP may change within a log-in
    login.user_loader(_load)
    app.before_request(guard)


def _load(token: str) -> Member | None:
    return sessions.member(db.session(), token, now=portal().clock())


def logged_in() -> Member | None:
    """Return who is logged in, asking the database at most once a request."""
    if "member" not in g:
        g.member = current_user._get_current_object() if current_user.is_authenticated else None
    found: Member | None = g.member
    return found


def member() -> Member:
    """Return who is logged in, on pages that only members reach."""
    found: Member = g.member
    return found


def token() -> str:
    """Return the token of the log-in that asks."""
    return str(member().get_id())


def guard() -> ResponseReturnValue | None:
    """Let a request through, or say why not. An endpoint that is not in the table is closed. Raise ForbiddenError."""
    if request.endpoint is None:  # there is no such page or method; the answer still shows who is logged in
        if "_user_id" in session:
            logged_in()
        return None
    access = ACCESS.get(request.endpoint)
    if access is Access.PUBLIC:
        return None
    if access is Access.KEY:
        abort(401)
    found = logged_in()
    if found is None:
        return _ask_to_log_in()
    if access is Access.USER or (access is Access.SUPERUSER and found.is_superuser):
        return None
    raise ForbiddenError("This page is for superusers.")


def _ask_to_log_in() -> ResponseReturnValue:
    if request.path.startswith("/api/"):
        abort(401)
    wanted = request.full_path.rstrip("?")
    is_page = request.method in {"GET", "HEAD"} and wanted != "/" and is_local(wanted)
    return redirect(url_for("account.log_in", next=wanted if is_page else None), 302)


def is_local(target: str) -> bool:
    r"""Tell whether a target is a path of this portal, as every browser reads it.

    Browsers take ``\`` for ``/`` and drop tabs and line ends, so that ``/\evil`` and ``/<TAB>/evil`` lead elsewhere.
    """
    return (
        target.startswith("/")
        and not target.startswith("//")
        and "\\" not in target
        and len(target) <= 2000
        and all(letter.isprintable() and not letter.isspace() for letter in target)
    )
