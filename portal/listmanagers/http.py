"""HTTP for list managers: one connection, a deadline, no redirects, no proxy, and answers of bounded size.

Every failure is a ListManagerUnavailableError that names method and URL, never the password. urllib3 is imported when a
server is called, not when settings are read, to keep the start of commands fast.
"""

import json
import socket
import time
import weakref
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from http.client import HTTPException
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import quote, urlencode, urlsplit

from portal.errors import CallFailedError, ConfigurationError, ListManagerUnavailableError
from portal.listmanagers.lines import one_line

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse
    from urllib3.connection import HTTPConnection

CONNECT_SECONDS = 10.0
PAUSE = 0.2  # seconds before the second try
_CHUNK = 65536


class Deadline(NamedTuple):
    """The deadline of a call: ``seconds`` after it began, and ``at`` on the monotonic clock."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline of a call that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """The remaining seconds; zero or less if it has passed."""
        return self.at - time.monotonic()


class Answer(NamedTuple):
    """A server's answer. ``data`` is its JSON, None if it is empty."""

    call: str  # method and URL, for messages
    status: int
    data: Any


class _Request(NamedTuple):
    call: str
    method: str
    target: str  # path and query
    form: Sequence[tuple[str, str]]
    is_secret: bool


_SERVER_ADVICE = "check that the list manager is running, and that `url` in mailinglists.toml is its address"
_CERTIFICATE_ADVICE = (
    "check that `url` has the host name that the certificate is for; if the certificate is self-signed or from a "
    "private issuer, set `ca_file` in mailinglists.toml to its file or the issuer's"
)


class ConnectionFailed(NamedTuple):
    """A request that found no server or lost the connection, so that a second try may succeed."""

    call: str
    why: str
    what_to_do: str


def is_server_error(answer: Answer) -> bool:
    """Return True if the server itself failed."""
    return answer.status >= 500


@dataclass(frozen=True)
class Client:
    """A JSON server below one checked URL. ``max_output`` is in bytes."""

    url: str
    user: str
    password: str = field(repr=False)
    max_output: int
    ca_file: Path | None = None

    def request(
        self,
        method: str,
        *path: str,
        until: Deadline,
        query: Mapping[str, object] | None = None,
        form: Sequence[tuple[str, str]] = (),
        is_transient: Callable[[Answer], bool] = is_server_error,
        is_secret: bool = False,
    ) -> Answer:
        """Send a request; if there is no answer, or a transient one, retry once after a pause.

        A server may therefore get a request twice. Every part of the path is quoted, slashes too. Raise
        ListManagerUnavailableError if the second try fails, if the deadline has passed, and for an unusable answer: a
        redirect, no JSON, too much of it, or a refused log-in. Answers to a secret request are not shown, because they
        may contain the secret.
        """
        target = "/".join([urlsplit(self.url).path, *(quote(part, safe="@") for part in path)])
        call = f"{method} {self.url}{target.removeprefix(urlsplit(self.url).path)}"
        if query:
            target += f"?{urlencode(query)}"
        request = _Request(call, method, target, form, is_secret)
        found = self._once(request, until)
        if isinstance(found, ConnectionFailed) or is_transient(found):
            time.sleep(max(0.0, min(PAUSE, until.left)))
            found = self._once(request, until)
        if isinstance(found, ConnectionFailed):
            raise ListManagerUnavailableError(f"{call}: {found.why}; {found.what_to_do}")
        if is_transient(found):
            said = "" if is_secret else f": {described(found)}"
            message = f"{call}: answered with status {found.status} twice{said}"
            if is_server_error(found):
                raise CallFailedError(message, words="" if is_secret else described(found))
            raise ListManagerUnavailableError(message)
        return found

    def _once(self, request: _Request, until: Deadline) -> Answer | ConnectionFailed:
        from urllib3.exceptions import HTTPError

        call = request.call
        if until.left <= 0:
            raise _too_slow(call, until)
        try:
            status, content = self._exchange(request, until)
        except (HTTPError, HTTPException, OSError) as error:
            if until.left <= 0:
                raise _too_slow(call, until) from None
            return ConnectionFailed(call, _reason_of(error), _certificate_advice(error) or _SERVER_ADVICE)
        if until.left <= 0:  # the answer may have been cut off
            raise _too_slow(call, until)
        return _parsed(request, status, content)

    def _exchange(self, request: _Request, until: Deadline) -> tuple[int, bytes]:
        connection, form = self._connection, request.form
        headers = {**self._headers, **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})}
        try:
            if not connection.is_connected:
                connection.close()
                connection.timeout = min(CONNECT_SECONDS, until.left)
                connection.connect()
            connection.timeout = None
            with _closed_at(until, connection.sock):
                connection.request(
                    request.method,
                    request.target,
                    urlencode(form) if form else None,
                    headers,
                    preload_content=False,
                    decode_content=False,
                )
                with closing(connection.getresponse()) as response:
                    return response.status, self._read(request.call, response)
        except BaseException:
            connection.close()  # the rest of an answer must not be taken for the next one
            raise

    def _read(self, call: str, response: "BaseHTTPResponse") -> bytes:
        content = bytearray()
        while chunk := response.read(_CHUNK):
            content += chunk
            if len(content) > self.max_output:
                raise ListManagerUnavailableError(
                    f"{call}: answered with more than {self.max_output} bytes, so reading was stopped; if the list is "
                    "that large, raise `max_output`"
                )
        return bytes(content)

    @cached_property
    def _headers(self) -> dict[str, str]:
        credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Accept": "application/json", "User-Agent": "member-portal", "Authorization": f"Basic {credentials}"}

    @cached_property
    def _connection(self) -> "HTTPConnection":
        """The connection, opened when needed and kept if the server allows it."""
        from urllib3.connection import HTTPConnection, HTTPSConnection

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            connection = HTTPConnection(host, parts.port)
        else:
            connection = HTTPSConnection(host, parts.port, ssl_context=self._trust())
        weakref.finalize(self, connection.close)
        return connection

    def _trust(self) -> Any:
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigurationError(f"ca_file: {self.ca_file}: {_reason_of(error)}") from None


def described(answer: Answer) -> str:
    """Return a server's error message as one line."""
    data = answer.data if isinstance(answer.data, dict) else {}
    return one_line(str(data.get("description") or data.get("title") or f"HTTP status {answer.status}"))


def unusable(answer: Answer, what: str) -> ListManagerUnavailableError:
    """Return the error for an unexpected answer."""
    return ListManagerUnavailableError(
        f"{answer.call}: {what}: {one_line(json.dumps(answer.data))}; check that `url` is the address of the list "
        "manager's REST API"
    )


def _parsed(request: _Request, status: int, content: bytes) -> Answer:
    """Return an answer as data. Raise ListManagerUnavailableError if it is unusable."""
    call = request.call
    if 300 <= status < 400:
        raise ListManagerUnavailableError(
            f"{call}: answered with a redirect ({status}), which the portal does not follow; correct `url` in "
            "mailinglists.toml"
        )
    if status in {401, 403}:
        raise ListManagerUnavailableError(
            f"{call}: refused the log-in ({status}); check `user` and the password of this list manager in "
            "mailinglists.toml"
        )
    if not content:
        return Answer(call, status, None)
    try:
        return Answer(call, status, json.loads(content))
    except (ValueError, RecursionError):
        if status >= 500:  # a failing server, or a proxy in front of it, may send anything
            return Answer(call, status, None)
        said = "" if request.is_secret else f": {one_line(content[:400].decode('utf-8', 'replace'))}"
        raise ListManagerUnavailableError(f"{call}: answered with something that is not JSON{said}") from None


def _too_slow(call: str, until: Deadline) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{call}: no complete answer within {until.seconds:.3g} seconds; find out what is blocking the list manager, "
        "or raise `timeout`"
    )


def _reason_of(error: BaseException | None) -> str:
    """Return the reason of a failure, without the names of objects of Python or urllib3."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return "the host name cannot be resolved"
        if isinstance(error, TimeoutError) and error.errno is None:  # only connecting has a separate timeout
            return f"no connection within {CONNECT_SECONDS:.3g} seconds"
        words = getattr(error, "verify_message", "") or getattr(error, "reason", "")
        if words and isinstance(words, str):
            return f"TLS failed: {one_line(words)}"
        if isinstance(error, OSError) and error.strerror:
            return one_line(error.strerror)
        error = error.__cause__ or error.__context__
    return "the connection was closed before the answer was complete"


def _certificate_advice(error: BaseException | None) -> str:
    """Return what to do about a refused certificate, or an empty text."""
    while error is not None:
        if getattr(error, "verify_message", ""):
            return _CERTIFICATE_ADVICE
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _closed_at(until: Deadline, connected: Any) -> Iterator[None]:
    """Close the connection at the deadline: a timeout for each read would let a slow trickle continue."""
    timer = Timer(until.left, _hang_up, [connected])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(connected: socket.socket) -> None:
    with suppress(OSError):  # it is closed already
        socket.socket.shutdown(connected, socket.SHUT_RDWR)  # of TLS too: another thread is reading there
