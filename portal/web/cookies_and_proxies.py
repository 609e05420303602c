"""Settings of requests: trusted proxies, size, host, path, the session cookie and the life of form tokens."""

from collections.abc import Iterable
from datetime import timedelta
from functools import lru_cache, partial
from hashlib import sha256
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from flask import Flask, abort, request
from flask.sessions import SecureCookieSessionInterface
from itsdangerous import URLSafeTimedSerializer
from werkzeug.middleware.proxy_fix import ProxyFix

from portal.config import Settings

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

REMEMBERED = timedelta(days=30)  # as long as the longest life of a login_sessions row, which decides

_TAKES_FILES = frozenset({"admin.imports.upload"})
_MONITORED = ("/healthz", "/readyz")


def trust_proxies(app: Flask, count: int) -> None:
    """Take the client's address and scheme from the headers of ``count`` trusted web servers in front of the portal.

    X-Forwarded-Prefix is accepted only if it is the path of the portal: see ``below``.
    """
    if count:
        app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
            app.wsgi_app, x_for=count, x_proto=count, x_host=0, x_prefix=count
        )


def below(path: str, application: "WSGIApplication") -> "WSGIApplication":
    """Serve an application below a path, whether the web server in front strips the path or not.

    A server that strips it and sends X-Forwarded-Prefix can even serve a portal below ``/account``.
    """

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        asked = environ["PATH_INFO"]
        if environ.get("SCRIPT_NAME") != path and f"{asked}/".startswith(f"{path}/"):
            environ["PATH_INFO"] = asked.removeprefix(path)
        environ["SCRIPT_NAME"] = path
        return application(environ, start_response)

    return serve


def monitored_by_any_name(application: "WSGIApplication") -> "WSGIApplication":
    """Answer health checks under any host name: monitoring may use an IP address or a name inside a cluster."""

    def serve(environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        if environ["PATH_INFO"] in _MONITORED:
            environ["HTTP_HOST"] = "localhost"  # these pages contain no URL
        return application(environ, start_response)

    return serve


def _cookie_name(settings: Settings) -> str:
    """Return a cookie name that is unique among the portals of a host: ``__Host-`` cookies all have the path /."""
    own = f"-{sha256(settings.path.encode()).hexdigest()[:8]}" if settings.path else ""
    return f"{'__Host-' if settings.is_https else ''}portal{own}"


class _Cookies(SecureCookieSessionInterface):
    """Flask's own session cookie, with a serializer that is made only once: making it takes as long as using it."""

    @lru_cache(maxsize=2)  # noqa: B019
    def get_signing_serializer(self, app: Flask) -> URLSafeTimedSerializer | None:
        return super().get_signing_serializer(app)


def _require_length() -> None:
    """Refuse a form without Content-Length: it would silently be truncated at the limit.

    Browsers always send it. The API reads its bodies itself.
    """
    if "Transfer-Encoding" in request.headers and not request.path.startswith("/api/"):
        abort(411)


def _allow_files(most: int) -> None:
    """Allow a file of members to be as large as in the API; the body has not been read yet."""
    if request.endpoint in _TAKES_FILES:
        request.max_content_length = request.max_form_memory_size = most


def prepare(app: Flask, settings: Settings) -> None:
    """Apply the settings. With HTTPS the cookie is bound to the host, and other host names get 400."""
    app.wsgi_app = below(settings.path, monitored_by_any_name(app.wsgi_app))  # type: ignore[method-assign, assignment]
    trust_proxies(app, settings.trusted_proxies)
    app.session_interface = _Cookies()
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
        WTF_CSRF_TIME_LIMIT=None,  # a form is valid as long as the log-in
        # No cookie can have this name: flask-login would read a second cookie and answer 500 if a digest in it is
        # not ASCII. Staying logged in needs only a row of login_sessions and the life of our own cookie.
        REMEMBER_COOKIE_NAME="=",
    )
    if settings.is_https:
        # Tools on the same machine are answered too. Werkzeug does not compare IPv6 addresses: see Settings.
        app.config["TRUSTED_HOSTS"] = [urlsplit(settings.base_url).hostname or "", "localhost", "127.0.0.1"]
