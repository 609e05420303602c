"""Access by blueprint and role. Everything is closed unless it is named here."""

import logging
from collections.abc import Mapping
from enum import Enum, auto
from urllib.parse import urlsplit

from flask import Flask, current_app, flash, g, has_request_context, redirect, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import LoginManager
from flask_wtf import CSRFProtect

from portal.errors import ForbiddenError, KeyRefusedError
from portal.extensions import db, portal
from portal.services.accounts import api_keys, sessions
from portal.services.accounts.api_keys import Caller
from portal.services.accounts.sessions import Member
from portal.services.history import Actor
from portal.services.preferences import preferences
from portal.services.preferences.preferences import Holder
from portal.translation import gettext
from portal.web import language, unsaved

login = LoginManager()
csrf = CSRFProtect()


class Role(Enum):
    """The roles of logged-in users; a user can have several."""

    MEMBER = auto()
    SUPERUSER = auto()


# Endpoints that are open to everybody.
PUBLIC = frozenset(
    {
        "static",
        "health.alive",
        "health.ready",
        "sign_in.log_in",
        "demo_mail.show",
        "links.ask",
        "links.leave",
        "links.receive",
        "links.show",
        "links.use",
        "api.calls.document",  # the same for every portal
    }
)
KEYS = "api"  # the blueprint that needs an API key and ignores cookies
# The endpoints and blueprints, with everything nested in them, that each role may use. All others are closed.
REACH: Mapping[Role, frozenset[str]] = {
    Role.MEMBER: frozenset({"account", "own_addresses", "links.choose_password", "sign_in.log_out", "subscriptions"}),
    Role.SUPERUSER: frozenset({"admin"}),
}


def register(app: Flask) -> None:
    """Run the guard before every request."""
    login.session_protection = None  # login_sessions protects log-ins; the IP address may change during one
    login.user_loader(_load)
    app.before_request(guard)
    logging.getLogger("portal.security").addFilter(_name_asker)


def _load(token: str) -> Member | None:
    if request.endpoint != "subscriptions.show":
        return sessions.member(db.session(), token, now=portal().clock())
    found = preferences.logged_in(db.session(), token, now=portal().clock())
    if found is None:
        return None
    member, g.holder = found
    return member


def holder() -> Holder | None:
    """Return the addresses and preferences of the member, if they were read together with the log-in."""
    found: Holder | None = g.get("holder")
    return found


def logged_in() -> Member | None:
    """Return the logged-in member or None, with at most one query a request."""
    if "member" not in g:
        token = session.get("_user_id")  # Flask-Login's own way from here to the user takes 5 % of a page
        g.member = None if token is None else _load(token)
        if g.member:
            language.of_member(g.member.language)
    found: Member | None = g.member
    return found


def member() -> Member:
    """Return the logged-in member, on pages for members."""
    found: Member = g.member
    return found


def actor() -> Actor:
    """Return the logged-in member as the actor in histories."""
    return Actor(member().id, member().username)


def token() -> str:
    """Return the token of the current log-in."""
    return str(member().get_id())


def guard() -> ResponseReturnValue | None:
    """Let a request through, or redirect to the log-in page. Raise ForbiddenError or KeyRefusedError."""
    if request.endpoint is None:  # no such page or method; the error page still shows who is logged in
        if not _is_api() and "_user_id" in session:
            logged_in()
        return None
    if request.endpoint in PUBLIC:
        return None
    if KEYS in request.blueprints:
        g.caller = api_keys.authenticate(db.session(), _key(), ip=request.remote_addr or "", now=portal().clock())
        return None
    found = logged_in()
    if found is None:
        return _ask_to_log_in()
    names = {request.endpoint, *request.blueprints}
    if any(names & REACH[role] for role in _roles(found)):
        return None
    raise ForbiddenError("This page is only for administrators of this portal.")


def _roles(of: Member) -> set[Role]:
    return {Role.MEMBER, Role.SUPERUSER} if of.is_superuser else {Role.MEMBER}


def _ask_to_log_in() -> ResponseReturnValue:
    if _is_api():
        raise KeyRefusedError("this call is not open to anybody")
    if request.method == "POST" and request.endpoint != "sign_in.log_out" and _is_from_here():
        if request.endpoint == "subscriptions.choose":
            unsaved.keep()
        flash(gettext("You had been logged out, so nothing has been saved yet. Log in to continue."))
    wanted = f"{request.script_root}{request.full_path.rstrip('?')}"
    has_page = request.path != "/" and is_local(wanted) and is_page(wanted)
    return redirect(url_for("sign_in.log_in", next=wanted if has_page else None), 302)


def _is_from_here() -> bool:
    """Return whether a POST comes from one of our own pages.

    A POST from another site has no cookie, and a response with a new one would end the browser's log-in. Over plain
    HTTP, and in older browsers, only the Origin header shows where it comes from.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    if site:
        return site in {"same-origin", "none"}
    return origin is None or origin.partition("://")[2] == request.host


def _is_api() -> bool:
    """Return whether the request is for the API, which ignores cookies."""
    return request.path.startswith("/api/")


def _key() -> str:
    """Return the API key in the request's headers; cookies and URLs are ignored. Raise KeyRefusedError."""
    scheme, _, key = request.headers.get("Authorization", "").partition(" ")  # Werkzeug's own reading can fail
    key = key.strip() if scheme.lower() == "bearer" else request.headers.get("X-API-Key", "")
    if not key:
        raise KeyRefusedError("this call needs an API key, in the header Authorization: Bearer KEY")
    return key


def caller() -> Caller:
    """Return the caller of the API."""
    found: Caller = g.caller
    return found


def _name_asker(record: logging.LogRecord) -> bool:
    """Return the user and IP address for an event of the security log."""
    if not has_request_context():
        who: dict[str, object] = {"by": "command line"}
    else:
        who = {"ip": request.remote_addr}
        if g.get("member"):
            who["by"] = g.member.id
        elif g.get("caller"):
            who |= {"by": g.caller.user_id, "api_key": g.caller.key_id}
    record.fields = {**who, **getattr(record, "fields", {})}
    return True


def is_page(target: str) -> bool:
    """Return whether a path of this portal accepts GET, so that a log-in can redirect to it."""
    path = urlsplit(target).path.removeprefix(request.script_root)
    adapter = current_app.create_url_adapter(request)
    return adapter is not None and adapter.test(path, "GET")


def is_local(target: str, *, below: str = "") -> bool:
    r"""Return whether browsers take a target for a path of this portal, which is ``below`` a path of its host.

    Browsers take ``\`` for ``/`` and drop tabs and line ends, so that ``/\evil`` and ``/<TAB>/evil`` lead elsewhere.
    """
    return (
        target.startswith(f"{below}/")
        and not target.startswith("//")
        and "\\" not in target
        and len(target) <= 2000
        and all(letter.isprintable() and not letter.isspace() for letter in target)
    )
