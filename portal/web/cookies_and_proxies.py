"""The bounds of a request: its origin, its size, its host, its one cookie, and the life of a form's token."""

from datetime import timedelta
from urllib.parse import urlsplit

from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from portal.config import Settings

REMEMBERED = timedelta(days=30)  # as long as the longest row of login_sessions; the row decides, the cookie only asks


def trust_proxies(app: Flask, count: int) -> None:
    """Take the client's address and scheme from that many web servers in front; what comes from further is forged."""
    if count:
        app.wsgi_app = ProxyFix(app.wsgi_app, x_for=count, x_proto=count, x_host=0)  # type: ignore[method-assign]


def prepare(app: Flask, settings: Settings) -> None:
    """Set the bounds. Behind HTTPS the cookie is bound to the host, and only the portal's own host is answered."""
    trust_proxies(app, settings.trusted_proxies)
    app.config.update(
        MAX_CONTENT_LENGTH=settings.max_body,
        MAX_FORM_MEMORY_SIZE=settings.max_body,
        SESSION_COOKIE_NAME="__Host-portal" if settings.is_https else "portal",
        SESSION_COOKIE_SECURE=settings.is_https,
        SESSION_COOKIE_HTTPONLY=True,
        SESSION_COOKIE_SAMESITE="Lax",
        SESSION_COOKIE_PATH="/",  # what __Host- demands
        SESSION_REFRESH_EACH_REQUEST=False,
        PERMANENT_SESSION_LIFETIME=REMEMBERED,
        WTF_CSRF_TIME_LIMIT=None,  # a form is good for as long as the log-in
        # No cookie can have this name. flask-login would read a second cookie beside ours, and a digest in it that is
        # not ASCII would be a 500; staying logged in is a row of login_sessions and the life of our own cookie.
        REMEMBER_COOKIE_NAME="=",
    )
    if settings.is_https:
        own = urlsplit(settings.base_url).hostname or ""
        # Whoever watches its health on the same machine is answered too.
        app.config["TRUSTED_HOSTS"] = [f"[{own}]" if ":" in own else own, "localhost", "127.0.0.1", "[::1]"]
