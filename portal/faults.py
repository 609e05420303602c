"""The status, exit code and title of every error: the only such table, and its three renderers."""

import logging
import re
from http import HTTPStatus
from typing import NamedTuple, NoReturn

import click
from flask import Flask, Response, render_template, request
from werkzeug.exceptions import BadHost, HTTPException, InternalServerError, SecurityError

from portal import errors
from portal.services import security_log
from portal.translation import marked


class Fault(NamedTuple):
    """The exit code, the HTTP status and the title for a kind of error."""

    exit_code: int
    status: int
    title: str

    @property
    def help(self) -> str:
        """The section of the documentation that explains it."""
        return f"docs/errors.md#{re.sub(r'[^a-z0-9]+', '-', self.title.lower())}"


# An error is looked up by its class, then by its parents.
FAULTS: dict[type[BaseException], Fault] = {
    errors.NoAddressesError: Fault(65, 422, "No addresses in the input"),
    errors.UnreadableRosterError: Fault(65, 422, "Roster cannot be read"),
    errors.DuplicateError: Fault(65, 409, "Already taken"),
    errors.SharedMailboxError: Fault(65, 409, "Already taken"),
    errors.NotOfferedError: Fault(65, 404, "Not offered"),
    errors.UnknownUserError: Fault(65, 404, "No such user"),
    errors.UnknownRunError: Fault(65, 404, "No such run"),
    errors.NoPlannedRunError: Fault(65, 409, "No planned run is open"),
    errors.InvalidAddressError: Fault(65, 422, "Not an address"),
    errors.WeakPasswordError: Fault(65, 422, "Password not accepted"),
    errors.WrongPasswordError: Fault(65, 422, "Password not accepted"),
    errors.ChangedMeanwhileError: Fault(65, 409, "Changed in the meantime"),
    errors.StaleFormError: Fault(65, 400, "Page out of date"),
    errors.BadInputError: Fault(65, 422, "Input not accepted"),
    errors.LogInFailedError: Fault(65, 401, "Log-in failed"),
    errors.LinkRefusedError: Fault(65, 410, "Link not valid"),
    errors.KeyRefusedError: Fault(77, 401, "API key needed"),
    errors.RateLimitedError: Fault(75, 429, "Too many attempts"),
    errors.ForbiddenError: Fault(77, 403, "Not allowed"),
    errors.RosterInDoubtError: Fault(69, 409, "Roster may be wrong"),
    errors.CallFailedError: Fault(69, 503, "List manager unavailable"),
    errors.ListManagerUnavailableError: Fault(69, 503, "List manager unavailable"),
    errors.NoSuchListError: Fault(69, 503, "No such list at the list manager"),
    errors.MailUnavailableError: Fault(69, 503, "Mail server unavailable"),
    errors.MailDeferredError: Fault(69, 503, "Mail delayed"),
    errors.MailRefusedError: Fault(69, 503, "Mail refused"),
    errors.DatabaseUnavailableError: Fault(69, 503, "Database unavailable"),
    errors.UnavailableError: Fault(69, 503, "Unavailable"),
    errors.LeaseHeldError: Fault(75, 409, "Another run holds the list"),
    errors.PausedError: Fault(75, 409, "List paused"),
    errors.SafetyLimitError: Fault(77, 409, "Needs approval"),
    errors.PlanChangedError: Fault(77, 409, "The plan has changed"),
    errors.DisabledError: Fault(78, 503, "Mailing lists are not enabled"),
    errors.UnknownListError: Fault(78, 404, "Unknown list"),
    errors.NotMigratedError: Fault(78, 503, "Database not migrated"),
    errors.ConfigurationError: Fault(78, 503, "Configuration error"),
    errors.PortalError: Fault(1, 500, "Refused"),
}
UNFORESEEN = Fault(1, 500, "Something went wrong")
_WAS_LOGGED = marked("The error has been logged. Try again, or contact the help desk.")

# Texts for people where Werkzeug's would not help them.
_WORDS = {
    400: (
        Fault(1, 400, "That did not work"),
        marked("The page may have been open for too long. Go back, reload the page and try again."),
    ),
    404: (Fault(1, 404, "Not found"), marked("There is no such page. Check the address.")),
    405: (Fault(1, 405, "Not possible"), marked("This page does not support this kind of request.")),
    413: (Fault(1, 413, "Too large"), marked("The data you sent is larger than this portal accepts.")),
}


_EXIT_CODES = {400: 65, 404: 78, 413: 65, 415: 65, 428: 78}  # of API calls that fail before a service is called
# Written to the security log for every request; rate limits log once a minute by themselves.
_SECURITY_EVENTS = {403: "forbidden"}


def fault_of(error: BaseException) -> Fault:
    """Return the entry of the table for an error."""
    return next((FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS), UNFORESEEN)


def status_and_headers(error: BaseException) -> tuple[int, dict[str, str]]:
    """Return the HTTP status for an error, and the headers that tell the client what to do."""
    headers = {}
    if isinstance(error, errors.RateLimitedError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.KeyRefusedError):
        headers["WWW-Authenticate"] = 'Bearer realm="API"'
    return fault_of(error).status, headers


# What to do, by how the message of SQLite or of PostgreSQL's driver begins; the messages themselves leave it out.
_OWNER = "; run this as the owner of the database file and its folder"
_SERVER = "; check that PostgreSQL is running, and `sqlalchemy_database_uri` in portal.toml"
_REMEDIES = {
    "unable to open database file": _OWNER,
    "attempt to write a readonly database": _OWNER,
    "database is locked": "; another program has kept it locked for too long: find that program and end it",
    "database or disk is full": "; free some space on its disk",
    "disk I/O error": "; check whether its disk is full, and then whether the disk is faulty",
    "connection failed": _SERVER,
    "connection is bad": _SERVER,
}
_READ_ONLY = "25006"  # PostgreSQL's SQLSTATE for a write to a read-only standby
_DAMAGED = ("file is not a database", "database disk image is malformed")


def as_portal_error(error: Exception) -> Exception:
    """Return a database error as a PortalError if an operator can do something about it."""
    from sqlalchemy.exc import DatabaseError, InternalError, OperationalError, ProgrammingError  # not needed at start

    if isinstance(error, DatabaseError) and str(error.orig) in _DAMAGED:
        return errors.DatabaseUnavailableError(f"the database is damaged; restore a backup: {error.orig}")
    if isinstance(error, OperationalError | ProgrammingError | InternalError):
        words = str(error.orig).splitlines()[0] if error.orig else "no answer"
        if "no such table" in words or "no such column" in words or "does not exist" in words:
            return errors.NotMigratedError(f"the database is not migrated; run: flask db upgrade ({words})")
        if isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", "") == _READ_ONLY:
            return errors.DatabaseUnavailableError(f"the database is unavailable: {words}{_remedy(words)}")
    return error


def _remedy(words: str) -> str:
    return next((remedy for beginning, remedy in _REMEDIES.items() if words.startswith(beginning)), "")


def register(app: Flask) -> None:
    """Render every error of a request as a page, or as ``application/problem+json`` below /api/."""
    from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError  # as above

    app.register_error_handler(HTTPException, _http)
    for kind in (errors.PortalError, OperationalError, ProgrammingError, InternalError):
        app.register_error_handler(kind, _refusal)


def _refusal(error: Exception) -> Response:
    known = as_portal_error(error)
    fault = fault_of(known)
    if not isinstance(known, errors.PortalError):
        logging.getLogger("portal").exception("unforeseen", exc_info=known)
        return _answer(fault, _WAS_LOGGED)
    # Members do not see what an operator must fix.
    private = isinstance(known, errors.ConfigurationError | errors.UnavailableError) and not request.path.startswith(
        ("/api/", "/admin/")
    )
    if private:
        logging.getLogger("portal").error("%s: %s", fault.title, known)
        fault = fault._replace(title=marked("Not available right now"))
    message = marked("Please try again later, or contact the help desk.") if private else known
    response = _answer(fault, message, plan=getattr(known, "plan_id", ""))
    response.headers.update(status_and_headers(known)[1])
    if fault.status in _SECURITY_EVENTS:
        security_log.log(_SECURITY_EVENTS[fault.status], endpoint=request.endpoint)
    return response


def _http(error: HTTPException) -> Response:
    code = error.code or 500
    if isinstance(error, InternalServerError) and error.original_exception is not None:
        return _answer(UNFORESEEN, _WAS_LOGGED)
    if isinstance(error, SecurityError | BadHost):  # no page can be built for a host that is missing or not ours
        return Response("This portal does not serve this host name.\n", code, mimetype="text/plain")
    plain = (Fault(_EXIT_CODES.get(code, 1), code, HTTPStatus(code).phrase), error.description or "")
    response = _answer(*(plain if request.path.startswith("/api/") else _WORDS.get(code, plain)))
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def _answer(fault: Fault, message: str | errors.PortalError, *, plan: str = "") -> Response:
    if request.path.startswith("/api/"):
        body = {"type": "about:blank", "title": fault.title, "status": fault.status, "detail": str(message)}
        body["exit_code"] = fault.exit_code  # generated scripts exit with it
        body["help"] = fault.help
        if plan:
            body["plan"] = plan
        response = Response(_json(body) + b"\n", fault.status, mimetype="application/problem+json")
    else:
        response = Response(render_template("error.html", fault=fault, message=message), fault.status)
    return response


def _json(body: object) -> bytes:
    import msgspec

    return msgspec.json.encode(body)


class StartError(errors.ConfigurationError, click.ClickException):
    """A configuration error at start, which `flask` prints as one line before it exits with 78."""

    exit_code = FAULTS[errors.ConfigurationError].exit_code

    def show(self, file: object = None) -> None:
        """Print the line."""
        print_error(self)


def exit_with(error: Exception) -> NoReturn:
    """Print an error as one line on stderr and exit with its code."""
    known = as_portal_error(error)
    if not isinstance(known, errors.PortalError):
        logging.getLogger("portal").debug("unforeseen", exc_info=known)
    print_error(known)
    raise SystemExit(fault_of(known).exit_code)


def print_error(error: Exception, words: str | None = None) -> None:
    """Print an error, or ``words`` instead, as one line on stderr with a reference to the documentation.

    A command that meets the same error several times prints it once.
    """
    line = f"error: {one_line(error) if words is None else words} ({fault_of(error).help})"
    context = click.get_current_context(silent=True)
    printed: set[str] = set() if context is None else context.meta.setdefault("portal.printed_errors", set())
    if line not in printed:
        printed.add(line)
        click.echo(line, err=True)


def one_line(error: Exception) -> str:
    """Return an error's message on one line, without control characters."""
    text = str(error) if isinstance(error, errors.PortalError) else f"{type(error).__name__}: {error}"
    return "".join(letter if letter.isprintable() else " " for letter in text)
