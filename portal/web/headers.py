"""The security headers of all responses, whatever their status."""

from flask import Flask, Response, request

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",  # no-referrer would break the CSRF check on HTTPS
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}

_SECRET_PATHS = frozenset({"links.receive"})  # the next site must not learn this URL


def register(app: Flask) -> None:
    """Add the headers to every response."""
    app.after_request(_protect)


def _protect(response: Response) -> Response:
    response.headers.update(HEADERS)
    if request.endpoint in _SECRET_PATHS:
        response.headers["Referrer-Policy"] = "no-referrer"
    if request.endpoint != "static" or response.status_code >= 400:
        response.headers["Cache-Control"] = "no-store"
    return response
