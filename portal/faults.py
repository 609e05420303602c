"""What each refusal is to a browser, to the API and to a shell: the only such table, and its three renderers."""

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
    """How one kind of refusal ends: a shell's exit code, a request's status, and a title for both."""

    exit_code: int
    status: int
    title: str

    @property
    def help(self) -> str:
        """Where it is explained: the section of the documentation that has its title."""
        return f"docs/errors.md#{re.sub(r'[^a-z0-9]+', '-', self.title.lower())}"


# The first class of an error's ancestry that stands here decides.
FAULTS: dict[type[BaseException], Fault] = {
    errors.NoAddressesError: Fault(65, 422, "No address in the input"),
    errors.UnreadableRosterError: Fault(65, 422, "Roster that cannot be read"),
    errors.DuplicateError: Fault(65, 409, "Taken already"),
    errors.SharedMailboxError: Fault(65, 409, "Taken already"),
    errors.NotOfferedError: Fault(65, 404, "Not offered"),
    errors.UnknownUserError: Fault(65, 404, "No such user"),
    errors.UnknownRunError: Fault(65, 404, "No such run"),
    errors.NoPlannedRunError: Fault(65, 409, "No planned run is open"),
    errors.InvalidAddressError: Fault(65, 422, "Not an address"),
    errors.WeakPasswordError: Fault(65, 422, "Password not accepted"),
    errors.WrongPasswordError: Fault(65, 422, "Password not accepted"),
    errors.ChangedMeanwhileError: Fault(65, 409, "Changed meanwhile"),
    errors.StaleFormError: Fault(65, 400, "The page had to be loaded again"),
    errors.BadInputError: Fault(65, 422, "Input not accepted"),
    errors.LogInFailedError: Fault(65, 401, "Log in"),
    errors.LinkRefusedError: Fault(65, 410, "Link not valid"),
    errors.KeyRefusedError: Fault(77, 401, "API key needed"),
    errors.LimitedError: Fault(75, 429, "Too many tries"),
    errors.ForbiddenError: Fault(77, 403, "Not allowed"),
    errors.RosterInDoubtError: Fault(69, 409, "Roster in doubt"),
    errors.CallFailedError: Fault(69, 503, "List manager unavailable"),
    errors.ListManagerUnavailableError: Fault(69, 503, "List manager unavailable"),
    errors.NoSuchListError: Fault(69, 503, "No such list at the list manager"),
    errors.MailUnavailableError: Fault(69, 503, "Mail server unavailable"),
    errors.MailPutOffError: Fault(69, 503, "Mail put off"),
    errors.MailRefusedError: Fault(69, 503, "Mail refused"),
    errors.DatabaseUnavailableError: Fault(69, 503, "Database unavailable"),
    errors.UnavailableError: Fault(69, 503, "Unavailable"),
    errors.LeaseHeldError: Fault(75, 409, "Another run holds the list"),
    errors.PausedError: Fault(75, 409, "Paused"),
    errors.SafetyLimitError: Fault(77, 409, "Needs approval"),
    errors.PlanChangedError: Fault(77, 409, "The plan has changed"),
    errors.DisabledError: Fault(78, 503, "Mailing lists are not enabled"),
    errors.UnknownListError: Fault(78, 404, "Unknown list"),
    errors.NotMigratedError: Fault(78, 503, "Database not migrated"),
    errors.ConfigurationError: Fault(78, 503, "Configuration"),
    errors.PortalError: Fault(1, 500, "Refused"),
}
UNFORESEEN = Fault(1, 500, "Something went wrong")
_LOGGED = marked("It has been written to the log. Try again, or tell the help desk.")

# What people read where Werkzeug's own words would not help them.
_WORDS = {
    400: (
        Fault(1, 400, "That did not work"),
        marked("The page may have been open for too long. Go back, load it again and repeat."),
    ),
    404: (Fault(1, 404, "Not found"), marked("There is no such page. Check the address.")),
    405: (Fault(1, 405, "Not possible"), marked("This page cannot be used in that way.")),
    413: (Fault(1, 413, "Too large"), marked("What was sent is larger than this portal accepts.")),
}


_EXIT_CODES = {400: 65, 404: 78, 413: 65, 415: 65, 428: 78}  # of what ends a call before a service is asked
_WATCHED = {403: "forbidden"}  # what the security log has of every request; limits have a line a minute of their own


def fault_of(error: BaseException) -> Fault:
    """Return what an error is in the table."""
    return next((FAULTS[kind] for kind in type(error).__mro__ if kind in FAULTS), UNFORESEEN)


def status_and_headers(error: BaseException) -> tuple[int, dict[str, str]]:
    """Return the status of an answer to an error, and the headers that say what to do."""
    headers = {}
    if isinstance(error, errors.LimitedError):
        headers["Retry-After"] = str(error.retry_after)
    if isinstance(error, errors.KeyRefusedError):
        headers["WWW-Authenticate"] = 'Bearer realm="API"'
    return fault_of(error).status, headers


# What SQLite leaves unsaid.
_OWNER = "; run this as the user whom the database's file and folder belong to"
_REMEDIES = {"unable to open database file": _OWNER, "attempt to write a readonly database": _OWNER}
_READ_ONLY = "25006"  # what PostgreSQL answers to writing where it follows another one
_DAMAGED = ("file is not a database", "database disk image is malformed")


def translated(error: Exception) -> Exception:
    """Return a database error as one of ours where an operator can do something about it."""
    from sqlalchemy.exc import DatabaseError, InternalError, OperationalError, ProgrammingError  # a start needs none

    if isinstance(error, DatabaseError) and str(error.orig) in _DAMAGED:
        return errors.DatabaseUnavailableError(f"the database is damaged, put a backup in its place: {error.orig}")
    if isinstance(error, OperationalError | ProgrammingError | InternalError):
        words = str(error.orig).splitlines()[0] if error.orig else "no answer"
        if "no such table" in words or "no such column" in words or "does not exist" in words:
            return errors.NotMigratedError(f"the database is not migrated, run: flask db upgrade ({words})")
        if isinstance(error, OperationalError) or getattr(error.orig, "sqlstate", "") == _READ_ONLY:
            return errors.DatabaseUnavailableError(f"the database is unavailable: {words}{_REMEDIES.get(words, '')}")
    return error


def register(app: Flask) -> None:
    """Render every error of a request: a page for people, ``application/problem+json`` below /api/."""
    from sqlalchemy.exc import InternalError, OperationalError, ProgrammingError  # as above

    app.register_error_handler(HTTPException, _http)
    for kind in (errors.PortalError, OperationalError, ProgrammingError, InternalError):
        app.register_error_handler(kind, _refusal)


def _refusal(error: Exception) -> Response:
    known = translated(error)
    fault = fault_of(known)
    if not isinstance(known, errors.PortalError):
        logging.getLogger("portal").exception("unforeseen", exc_info=known)
        return _answer(fault, _LOGGED)
    # What an operator must put right is not for members' eyes.
    private = isinstance(known, errors.ConfigurationError | errors.UnavailableError) and not request.path.startswith(
        ("/api/", "/admin/")
    )
    if private:
        logging.getLogger("portal").error("%s: %s", fault.title, known)
        fault = fault._replace(title=marked("Not available right now"))
    message = marked("Please try again later, or tell the help desk.") if private else known
    response = _answer(fault, message, plan=getattr(known, "plan_id", ""))
    response.headers.update(status_and_headers(known)[1])
    if fault.status in _WATCHED:
        security_log.log(_WATCHED[fault.status], endpoint=request.endpoint)
    return response


def _http(error: HTTPException) -> Response:
    code = error.code or 500
    if isinstance(error, InternalServerError) and error.original_exception is not None:
        return _answer(UNFORESEEN, _LOGGED)
    if isinstance(error, SecurityError | BadHost):  # no page can be built for a host that is not ours, or none
        return Response("This host is not served here.\n", code, mimetype="text/plain")
    plain = (Fault(_EXIT_CODES.get(code, 1), code, HTTPStatus(code).phrase), error.description or "")
    response = _answer(*(plain if request.path.startswith("/api/") else _WORDS.get(code, plain)))
    for name, value in error.get_headers():
        if name in {"Allow", "Retry-After"}:
            response.headers[name] = value
    return response


def _answer(fault: Fault, message: str | errors.PortalError, *, plan: str = "") -> Response:
    if request.path.startswith("/api/"):
        body = {"type": "about:blank", "title": fault.title, "status": fault.status, "detail": str(message)}
        body["exit_code"] = fault.exit_code  # as a shell would see it: generated scripts end with it
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
    """A configuration error at start: `flask` prints it as one line and leaves with 78."""

    exit_code = FAULTS[errors.ConfigurationError].exit_code

    def show(self, file: object = None) -> None:
        """Print the line."""
        print_error(self)


def exit_with(error: Exception) -> NoReturn:
    """Print an error as one line on stderr and leave with its exit code."""
    known = translated(error)
    if not isinstance(known, errors.PortalError):
        logging.getLogger("portal").debug("unforeseen", exc_info=known)
    print_error(known)
    raise SystemExit(fault_of(known).exit_code)


def print_error(error: Exception, words: str | None = None) -> None:
    """Print an error as one line on stderr, by other words where they are given, and where it is explained."""
    click.echo(f"error: {one_line(error) if words is None else words} ({fault_of(error).help})", err=True)


def one_line(error: Exception) -> str:
    """Return an error's message on one line, without control characters."""
    text = str(error) if isinstance(error, errors.PortalError) else f"{type(error).__name__}: {error}"
    return "".join(letter if letter.isprintable() else " " for letter in text)
