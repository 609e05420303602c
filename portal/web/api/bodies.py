"""Request bodies of the API: rosters, members and list passwords, read as a stream."""

import re
from collections.abc import Iterator
from functools import partial
from io import BufferedReader
from typing import Any, BinaryIO, cast
from urllib.parse import unquote_to_bytes

import msgspec
from flask import request
from werkzeug.exceptions import UnsupportedMediaType

from portal.domain.roster_text import RosterText
from portal.errors import BadInputError, NoAddressesError
from portal.extensions import portal

FORM, PLAIN, JSON = "application/x-www-form-urlencoded", "text/plain", "application/json"
CSV = "text/csv"
FIELD = "addresses"
_CHARSETS = {"utf-8", "utf8", "us-ascii", "ascii"}
_BLOCK = 65_536  # bytes
_LONGEST = 4_096  # bytes; a longer line cannot be an address
_END = re.compile(rb"(&|\n|%0[aA])")  # ends of lines in a form, usually percent-encoded


def roster(*, skip_invalid: bool) -> RosterText:
    """Return the lines of a roster in any of the accepted content types.

    The body is read while it is used, so that a large roster takes little memory; only JSON is read at once. A body
    over the limit raises RequestEntityTooLarge, before it is read if its Content-Length says so.
    """
    stream = _stream()
    kind = _kind(FORM, PLAIN, JSON)
    if kind == JSON:
        # In blocks: read() of everything stops silently at the limit.
        return RosterText(_of_json(b"".join(iter(partial(stream.read, _BLOCK), b""))), skip_invalid=skip_invalid)
    if kind == FORM:
        return RosterText(_of_form(stream), skip_invalid=skip_invalid)
    return RosterText(stream, ends_with_newline=True, skip_invalid=skip_invalid)


def members() -> bytes:
    """Return a file of members in its own encoding. Raise BadInputError if it may have been truncated."""
    if request.mimetype != CSV:
        raise UnsupportedMediaType(f"send the file as {CSV}")
    stream = _stream()
    content = b"".join(iter(partial(stream.read, _BLOCK), b""))
    if content and not content.endswith((b"\n", b"\r", b"\n\0", b"\r\0")):
        raise BadInputError("the file ends in the middle of a line, so it may have been cut off")
    return content


class PasswordLines:
    """Lines ``address TAB password``; counts the invalid ones."""

    def __init__(self) -> None:
        _kind(PLAIN)
        self._stream = _stream()
        self.invalid = 0

    def __iter__(self) -> Iterator[tuple[str, str]]:
        is_empty = True
        for raw in self._stream:
            address, tab, password = raw.decode("utf-8", "replace").strip("\ufeff\r\n").partition("\t")
            if tab and password.isprintable():
                is_empty = False
                yield address, password
            elif raw.strip():
                self.invalid += 1
        if is_empty:
            raise NoAddressesError("the input holds no line that is an address, a tab and a password")


def _stream() -> BinaryIO:
    """Return the body as a stream that raises an error when it exceeds the limit."""
    request.max_content_length = portal().settings.max_roster
    return cast(BinaryIO, BufferedReader(cast(Any, request.stream), _BLOCK))


def _kind(*allowed: str) -> str:
    """Return the content type of the body. Raise UnsupportedMediaType."""
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype not in allowed or charset not in _CHARSETS:
        raise UnsupportedMediaType(f"send UTF-8, as one of these types: {', '.join(allowed)}")
    return request.mimetype


def _of_json(raw: bytes) -> list[str]:
    try:
        return msgspec.json.decode(raw.removeprefix(b"\xef\xbb\xbf"), type=list[str])
    except (msgspec.DecodeError, ValueError) as error:
        raise BadInputError(f"the body is not a JSON array of addresses: {error}") from None


def _of_form(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the lines of the field ``addresses`` of a form."""
    has_field = is_field = False
    is_start = True
    for raw, end in _pieces(stream):
        value = raw
        if is_start:
            name, _, value = raw.partition(b"=")
            is_field = _decoded(name) == FIELD.encode()
            has_field = has_field or is_field
        if is_field:
            yield _decoded(value)
        is_start = end == b"&"
    if not has_field:
        raise BadInputError(f"the form has no field {FIELD}; with curl: --data-urlencode {FIELD}@FILE")


def _pieces(stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield a form in pieces, each with its terminator. A piece too long for an address is truncated."""
    rest = b""
    while block := stream.read(_BLOCK):
        *whole, rest = _END.split(rest + block)
        yield from zip(whole[::2], whole[1::2], strict=True)
        if len(rest) > _BLOCK:
            rest = rest[:_LONGEST] + rest[-2:]  # the terminator may be split between two blocks
    yield rest, b"&"


def _decoded(raw: bytes) -> bytes:
    return unquote_to_bytes(raw.replace(b"+", b" "))
