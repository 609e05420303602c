"""The bounds of a request: its origin, size, host and path, its one cookie, and the life of a form's token."""

from collections.abc import Iterable
from datetime import timedelta
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, abort, request
from werkzeug.middleware.proxy_fix import ProxyFix

from portal.config import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REMEMBERED = timedelta(days=30)  # as long as the longest row of login_sessions; the row decides, the cookie only asks

_TAKES_FILES = frozenset({"admin.imports.upload"})
_MONITORED = ("/healthz", "/readyz")


def trust_proxies(app: Flask, count: int) -> None:
    """Take the client's address and scheme from that many web servers in front; what comes from further is forged.

    So is the path that they say they took off, which counts only where it is the portal's: ``below`` sees to that.
    """
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=0, x_prefix=count
        )


def below(path: str, application: "WSGIApplication") -> "WSGIApplication":
    """Serve an application below a path, whether the web server in front takes the path off or not.

    One that does, and says so in X-Forwarded-Prefix, serves a portal below ``/account`` right as well.
    """

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        asked = environ["PATH_INFO"]
        if environ.get("SCRIPT_NAME") != path and f"{asked}/".startswith(f"{path}/"):
            environ["PATH_INFO"] = asked.removeprefix(path)
        environ["SCRIPT_NAME"] = path
        return application(environ, start_response)

    return serve


def monitored_by_any_name(application: "WSGIApplication") -> "WSGIApplication":
    """Answer what watches the portal, which knows an address of its host or a name inside a cluster."""

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] in _MONITORED:
            environ["HTTP_HOST"] = "localhost"  # these pages show no host and lead to none
        return application(environ, start_response)

    return serve


def _cookie_name(settings: Settings) -> str:
    """Return a name that no other portal of the host has: all have the path / that ``__Host-`` demands."""
    own = f"-{sha256(settings.path.encode()).hexdigest()[:8]}" if settings.path else ""
    return f"{'__Host-' if settings.is_https else ''}portal{own}"


def _require_length() -> None:
    """Refuse a form that does not say how long it is: it would be cut off at the limit, and the rest be taken for all.

    Browsers always say so. The API reads its bodies itself.
    """
    if "Transfer-Encoding" in request.headers and not request.path.startswith("/api/"):
        abort(411)


def _allow_files(most: int) -> None:
    """Let a file of members be as large as the API takes it; nothing has read the body of the request yet."""
    if request.endpoint in _TAKES_FILES:
        request.max_content_length = request.max_form_memory_size = most


def prepare(app: Flask, settings: Settings) -> None:
    """Set the bounds. Behind HTTPS the cookie is bound to the host, and only the portal's own host is answered."""
    app.wsgi_app = below(settings.path, monitored_by_any_name(app.wsgi_app))  # type: ignore[method-assign, assignment]
    trust_proxies(app, settings.trusted_proxies)
    app.before_request(_require_length)
    app.before_request(partial(_allow_files, settings.max_roster))
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=settings.max_body,
        SESSION_COOKIE_NAME=_cookie_name(settings),
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=REMEMBERED,
        WTF_CSRF_TIME_LIMIT=None,  # a form is good for as long as the log-in
        # No cookie can have this name. flask-login would read a second cookie beside ours, and a digest in it that is
        # not ASCII would be a 500; staying logged in is a row of login_sessions and the life of our own cookie.
        REMEMBER_COOKIE_NAME="=",
    )
    if settings.is_https:
        # Tools on the same machine are answered too. Werkzeug compares no IPv6 address: see Settings.
        app.config["TRUSTED_HOSTS"] = [urlsplit(settings.base_url).hostname or "", "localhost", "127.0.0.1"]
