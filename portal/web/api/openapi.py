"""The OpenAPI document, generated from the types that the API validates and returns."""

from datetime import datetime
from functools import cache
from types import UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin, get_type_hints

import msgspec

from portal.domain.mailinglist import HANDLE
from portal.services.membership import runs
from portal.services.reports.lists import CatalogueLine, ListReport, RunReport
from portal.web.api.bodies import CSV, FIELD, FORM, JSON, PLAIN
from portal.web.api.parameters import (
    ExportQuery,
    FormatQuery,
    InitQuery,
    MembersQuery,
    PasswordsQuery,
    Query,
    RunsQuery,
)

PROBLEM = "application/problem+json"
_INTRODUCTION = (
    "The steps of `flask mailinglist`, for scripts on any host. "
    "Send an API key in the header `Authorization: Bearer KEY` or `X-API-Key: KEY`, and never in a URL."
)
_ERRORS = {
    400: "A parameter is unknown, given twice or invalid, or the body was cut off.",
    401: "The key is missing, unknown, revoked or expired.",
    403: "The owner of the key is not an active superuser.",
    404: "The catalogue has no list with this handle.",
    409: (
        "The plan needs approval (safety limits), the roster may be wrong, another run holds the list, the list is "
        "paused, or no planned run is open."
    ),
    413: "The body is larger than `max_roster`.",
    415: "The call does not accept this type of body, or a roster is not in UTF-8.",
    422: (
        "The body has no address or has a line that cannot be read, or it is not a JSON array or a file of members. "
        "`detail` says where."
    ),
    428: "The list has `syncpws = false`.",
    429: "Too many requests with bad keys from this IP address. `Retry-After` says for how many seconds to wait.",
    500: "An unexpected error; the portal's log describes it.",
    503: "Mailing lists are not enabled, `mailinglists.toml` is invalid, or the database is unavailable.",
}
_ALWAYS = (400, 401, 403, 429, 500, 503)
_PRIMITIVES: dict[Any, dict[str, Any]] = {
    int: {"type": "integer"},
    str: {"type": "string"},
    bool: {"type": "boolean"},
    datetime: {"type": "string", "format": "date-time"},
    type(None): {"type": "null"},
}
_LINES = {"type": "string", "description": "One address per line. As text/plain, the last line must have a line end."}
_ADDRESSES = {"type": "array", "items": {"type": "string"}}
_EXPORT = {PLAIN: _LINES, JSON: _ADDRESSES}
_TEXT_COUNTS = {"type": "string", "description": "The same counts, as `name: count` lines."}


class Call(NamedTuple):
    """One call. ``answers`` maps content types to schemas; ``errors`` are statuses beyond those of every call."""

    summary: str
    answers: dict[str, Any]
    query: type[Query] = Query
    body: dict[str, Any] | None = None
    errors: tuple[int, ...] = ()
    is_open: bool = False


def _counts_schema(*names: str, **more: Any) -> dict[str, Any]:
    properties = {**{name: {"type": "integer", "minimum": 0} for name in names}, **more}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


_TAKEN = ("subscribed", "unsubscribed", "kept", "unknown", "invalid")
_INITIATED = {
    "oneOf": [
        {"title": "list-init", **_counts_schema(*_TAKEN)},
        {
            "title": "plan",
            **_counts_schema(
                *_TAKEN,
                "adds",
                "removals",
                plan={"type": "string", "pattern": "^[0-9a-f]{16}$"},
                token={"type": "string", "pattern": "^[0-9a-f]{32}$"},
            ),
        },
        {"title": "confirm", **_counts_schema("added", "removed", "refused", "waiting", "no_effect")},
        {"title": "abandon", **_counts_schema("abandoned")},
    ]
}
_ROSTER = {
    FORM: {"type": "object", "properties": {FIELD: _LINES}, "required": [FIELD], "additionalProperties": True},
    PLAIN: _LINES,
    JSON: _ADDRESSES,
}
_MEMBERS = {CSV: {"type": "string", "description": "The file. Its first line names the columns."}}
_PASSWORDS = {"type": "string", "description": "One address, a tab and its password per line."}


def _imported() -> dict[str, Any]:
    """Return the schema of the report of an import of members."""
    counts = _counts_schema("rows", "unchanged", *runs.COUNTS.values())
    return {
        "type": "object",
        "properties": {
            "import": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "plan": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "excess": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "counts": counts,
            "lines": _array(runs.ImportLine),
            "ignored_columns": {"type": "array", "items": {"type": "string"}},
            "encoding": {"type": "string"},
        },
        "required": ["import", "plan", "excess", "counts", "lines", "ignored_columns", "encoding"],
        "additionalProperties": False,
    }


@cache
def calls() -> dict[tuple[str, str], Call]:
    """Return all calls by path below /api/v1 and method."""
    return {
        ("/lists", "get"): Call("Get the lists of the catalogue, with counts", {JSON: _array(CatalogueLine)}),
        ("/lists/{handle}/init", "post"): Call(
            "Take over a roster, or begin or end a planned run",
            {JSON: _INITIATED, PLAIN: _TEXT_COUNTS},
            InitQuery,
            _ROSTER,
            (404, 409, 413, 415, 422),
        ),
        ("/lists/{handle}/subscribed", "get"): Call(
            "Get the addresses that should be on the list", _EXPORT, ExportQuery, None, (404, 409)
        ),
        ("/lists/{handle}/unsubscribed", "get"): Call(
            "Get the addresses that should not be on the list", _EXPORT, ExportQuery, None, (404, 409)
        ),
        ("/lists/{handle}/passwords", "get"): Call(
            "Get the list passwords that have to be set", {PLAIN: _PASSWORDS}, PasswordsQuery, None, (404, 428)
        ),
        ("/lists/{handle}/passwords", "post"): Call(
            "Mark list passwords as set",
            {JSON: _counts_schema("confirmed", "invalid"), PLAIN: _TEXT_COUNTS},
            FormatQuery,
            {PLAIN: _PASSWORDS},
            (404, 413, 415, 422, 428),
        ),
        ("/lists/{handle}/report", "get"): Call(
            "Get the counts of a list, and its last run", {JSON: schema(ListReport)}, errors=(404,)
        ),
        ("/members", "post"): Call(
            "Import a file of members: create, link and change accounts",
            {JSON: _imported()},
            MembersQuery,
            _MEMBERS,
            (409, 413, 415, 422),
        ),
        ("/runs", "get"): Call("Get the latest runs, newest first", {JSON: _array(RunReport)}, RunsQuery, None, (404,)),
        ("/openapi.json", "get"): Call("Get this document", {JSON: {"type": "object"}}, is_open=True),
    }


@cache
def document(below: str = "") -> dict[str, Any]:
    """Return the OpenAPI 3.1 document; ``below`` is the path of the portal on its host."""
    paths: dict[str, dict[str, Any]] = {}
    for (path, method), call in calls().items():
        paths.setdefault(path, {})[method] = _operation(path, call)
    problem = {
        "type": "object",
        "properties": {
            **{name: {"type": "string"} for name in ("type", "title", "detail", "help", "plan")},
            **{name: {"type": "integer"} for name in ("status", "exit_code")},
        },
        "required": ["type", "title", "status", "detail", "exit_code", "help"],
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Member portal", "version": "1", "description": _INTRODUCTION},
        "servers": [{"url": f"{below}/api/v1"}],
        "security": [{"bearer": []}, {"header": []}],
        "paths": paths,
        "components": {
            "schemas": {"Problem": problem},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


def _operation(path: str, call: Call) -> dict[str, Any]:
    answers: dict[str, Any] = {"200": {"description": "The call succeeded.", "content": _content(call.answers)}}
    for status in sorted({*_ALWAYS, *call.errors} if not call.is_open else {400, 500}):
        answers[str(status)] = _problem(status)
    operation: dict[str, Any] = {"summary": call.summary, "responses": answers}
    parameters = [_HANDLE] if "{handle}" in path else []
    parameters += _parameters(call.query)
    if parameters:
        operation["parameters"] = parameters
    if call.body:
        operation["requestBody"] = {"required": True, "content": _content(call.body)}
    if call.is_open:
        operation["security"] = []
    return operation


_HANDLE: dict[str, Any] = {
    "name": "handle",
    "in": "path",
    "required": True,
    "description": "The handle of the list in mailinglists.toml.",
    "schema": {"type": "string", "maxLength": 64, "pattern": f"^{HANDLE.pattern}$"},
}


def _content(schemas: dict[str, Any]) -> dict[str, Any]:
    return {kind: {"schema": each} for kind, each in schemas.items()}


def _problem(status: int) -> dict[str, Any]:
    found: dict[str, Any] = {
        "description": _ERRORS[status],
        "content": {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}},
    }
    if status == 401:
        found["headers"] = {"WWW-Authenticate": {"required": True, "schema": {"type": "string"}}}
    if status == 429:
        found["headers"] = {"Retry-After": {"required": True, "schema": {"type": "string", "pattern": "^[0-9]+$"}}}
    return found


def _parameters(query: type[Query]) -> list[dict[str, Any]]:
    properties = msgspec.json.schema(query)["$defs"][query.__name__]["properties"]
    return [_parameter(name, dict(found)) for name, found in properties.items()]


def _parameter(name: str, found: dict[str, Any]) -> dict[str, Any]:
    found = dict(found.get("anyOf", [found])[0])  # an optional parameter is never null
    description = found.pop("description")
    return {"name": name, "in": "query", "required": False, "description": description, "schema": found}


def schema(kind: Any) -> dict[str, Any]:
    """Return the JSON schema of a type, as ``plain`` converts it."""
    if kind in _PRIMITIVES:
        return _PRIMITIVES[kind]
    if get_origin(kind) in {Union, UnionType}:
        return {"anyOf": [schema(each) for each in get_args(kind)]}
    if get_origin(kind) is tuple:
        return _array(get_args(kind)[0])
    properties = {name: schema(each) for name, each in get_type_hints(kind).items()}
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}


def _array(kind: Any) -> dict[str, Any]:
    return {"type": "array", "items": schema(kind)}
