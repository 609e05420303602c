"""The one cookie, the hosts that are answered, and the life of a form's token."""

from datetime import timedelta

from flask import Flask

from portal.config import Settings

REMEMBERED = timedelta(days=30)  # as long as the longest row of login_sessions; the row decides, the cookie only asks


def prepare(app: Flask, settings: Settings) -> None:
    """Set what browsers keep. Behind HTTPS the cookie is bound to the host, and only its own host is answered."""
    app.config.update(
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
        own = settings.host.rpartition(":")[0] if settings.host.rpartition(":")[2].isdecimal() else settings.host
        app.config["TRUSTED_HOSTS"] = [own, "localhost", "127.0.0.1", "[::1]"]  # the latter for checks of its health
