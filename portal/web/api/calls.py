"""The calls of the API. Each uses the same service as a command and returns the same answer."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain
from tempfile import SpooledTemporaryFile
from typing import IO

import msgspec
from flask import Blueprint, Response, abort, request

from portal.domain.json_values import plain
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.extensions import db, portal
from portal.services import security_log
from portal.services.membership import importing
from portal.services.reports import lists as list_reports
from portal.services.sync import list_passwords, roster_input, wanted
from portal.services.sync.roster_input import RosterUse
from portal.web import guards
from portal.web.api import bodies, openapi
from portal.web.api.parameters import (
    ExportQuery,
    FormatQuery,
    InitQuery,
    MembersQuery,
    PasswordsQuery,
    Query,
    RunsQuery,
    asked,
)

blueprint = Blueprint("calls", __name__)

_IN_MEMORY = 1024**2  # bytes of an answer; a larger one is written to an unnamed file
_BLOCK = 65_536  # bytes sent at once


@blueprint.get("/lists")
def lists() -> Response:
    """Return the catalogue with the number of subscribed addresses of each list."""
    asked(Query)
    return _json(list_reports.catalogue(db.session(), portal().catalogue(), now=portal().clock()))


@blueprint.post("/lists/<handle>/init")
def init(handle: str) -> Response:
    """Read a roster for a list-init, or to begin or end a planned run."""
    query = asked(InitQuery)
    steps = [name for name in ("plan", "confirm", "abandon") if query.is_set(name)]
    if len(steps) > 1:
        abort(400, "use only one of plan, confirm and abandon")
    if query.accept and "plan" not in steps:
        abort(400, "accept can only be used with plan")
    if query.token and not {"confirm", "abandon"} & set(steps):
        abort(400, "token can only be used with confirm or abandon")
    mailing_list = portal().catalogue().get(handle)
    use = RosterUse(
        **dict.fromkeys(steps, True),
        accept=query.accept,
        token=query.token,
        allow_empty=query.is_set("allow_empty"),
        actor=guards.caller().actor,
    )
    text = RosterText(()) if use.abandon else bodies.roster(skip_invalid=query.is_set("skip_invalid"))
    taken = roster_input.carry_out(db.session(), mailing_list, text, clock=portal().clock, use=use)
    return _answer_counts(taken.answer, query.format)


@blueprint.get("/lists/<handle>/subscribed")
def subscribed(handle: str) -> Response:
    """Return the addresses that should be on the list."""
    return _export(handle, Action.ADD)


@blueprint.get("/lists/<handle>/unsubscribed")
def unsubscribed(handle: str) -> Response:
    """Return the addresses that should not be on the list."""
    return _export(handle, Action.REMOVE)


def _export(handle: str, action: Action) -> Response:
    query = asked(ExportQuery)
    mailing_list = portal().catalogue().get(handle)
    blocks = wanted.export(db.session(), mailing_list, action, is_planned=query.is_set("planned"))
    addresses = chain.from_iterable(blocks)
    if _form(query.format, otherwise="text") == "json":
        response = _whole(_as_array(addresses), bodies.JSON)
    else:
        response = _whole((f"{each}\n".encode() for each in addresses), bodies.PLAIN)
    security_log.log("export", list=handle, of=request.endpoint)
    return response


@blueprint.get("/lists/<handle>/passwords")
def passwords(handle: str) -> Response:
    """Return the list passwords to set."""
    query = asked(PasswordsQuery)
    mailing_list = _with_passwords(handle)
    pairs = list_passwords.pending(
        db.session(), mailing_list, key=portal().list_password_key(), everyone=query.is_set("all")
    )
    response = _whole((f"{address}\t{password}\n".encode() for address, password in pairs), bodies.PLAIN)
    security_log.log("export", list=handle, of=request.endpoint)
    return response


@blueprint.post("/lists/<handle>/passwords")
def confirm_passwords(handle: str) -> Response:
    """Mark the list passwords of the posted lines as set."""
    query = asked(FormatQuery)
    mailing_list = _with_passwords(handle)
    lines = bodies.PasswordLines()
    confirmed = list_passwords.confirm(db.session(), mailing_list, lines, key=portal().list_password_key())
    return _answer_counts({"confirmed": confirmed, "invalid": lines.invalid}, query.format)


def _with_passwords(handle: str) -> MailingList:
    mailing_list = portal().catalogue().get(handle)
    if not mailing_list.sync_passwords:
        abort(428, f"{handle}: {list_passwords.why_none(mailing_list)}")
    return mailing_list


@blueprint.get("/lists/<handle>/report")
def report(handle: str) -> Response:
    """Return the number of addresses in each state, and the last run."""
    asked(Query)
    catalogue = portal().catalogue()
    handles = [catalogue.get(handle).handle]
    (found,) = list_reports.lists(db.session(), catalogue=catalogue, now=portal().clock(), handles=handles)
    return _json(found)


@blueprint.get("/runs")
def runs() -> Response:
    """Return the last runs, newest first."""
    query = asked(RunsQuery)
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    handle = None if query.list is None else catalogue.get(query.list).handle
    return _json(list_reports.runs(db.session(), handle=handle, before=query.before, limit=query.limit))


@blueprint.post("/members")
def members() -> Response:
    """Create, link and change accounts according to a file of today's members."""
    query = asked(MembersQuery)
    if query.accept and query.is_set("dry_run"):
        abort(400, "dry_run and accept cannot be used together")
    wanted = importing.make_request(
        portal().settings,
        bodies.members(),
        source="API",
        key=query.key,
        leavers=query.leavers,
        actor=guards.caller().actor,
        clock=portal().clock,
        lists=portal().known_lists(),
        secret=portal().list_password_key(),
    )
    if query.is_set("dry_run"):
        return _json(importing.preview(db.session(), wanted).as_json())
    return _json(importing.run(db.session(), wanted, accept=query.accept).as_json())


@blueprint.get("/openapi.json")
def document() -> Response:
    """Return the OpenAPI document, which is public."""
    asked(Query)
    return _json(openapi.document(request.script_root))


def _form(wanted: str | None, *, otherwise: str) -> str:
    """Return the format of the answer: from the query, else the Accept header, else the default of the call."""
    if wanted:
        return wanted
    types = {"text": bodies.PLAIN, "json": bodies.JSON}
    ours = sorted(types, key=lambda name: name != otherwise)
    best = request.accept_mimetypes.best_match([types[name] for name in ours])
    return next((name for name in ours if types[name] == best), otherwise)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(plain(value)) + b"\n", mimetype=bodies.JSON)


def _answer_counts(counts: Mapping[str, int | str], wanted: str | None) -> Response:
    """Return counts as the command prints them."""
    if _form(wanted, otherwise="json") == "json":
        return _json(dict(counts))
    return Response("".join(f"{name}: {count}\n" for name, count in counts.items()), mimetype=bodies.PLAIN)


def _as_array(texts: Iterable[str]) -> Iterator[bytes]:
    separator = b"["
    for text in texts:
        yield separator + msgspec.json.encode(text)
        separator = b",\n"
    yield b"[]\n" if separator == b"[" else b"]\n"


def _whole(pieces: Iterable[bytes], mimetype: str) -> Response:
    """Return a large answer in little memory, with its Content-Length.

    It is written to a temporary file first: no transaction stays open while a slow client reads, a failure becomes an
    error response instead of a truncated list, and the client can detect a truncated response.
    """
    file: IO[bytes] = SpooledTemporaryFile(_IN_MEMORY)  # noqa: SIM115 - the response closes it
    try:
        file.writelines(pieces)
        length = file.tell()
        file.seek(0)
    except BaseException:
        file.close()
        raise
    response = Response(_read(file), mimetype=mimetype)
    response.content_length = length
    if request.method == "HEAD":  # the body is not sent
        file.close()
    return response


def _read(file: IO[bytes]) -> Iterator[bytes]:
    with file:
        while block := file.read(_BLOCK):
            yield block
