"""HTTP as list managers speak it: one connection, an end in time, no redirects, no proxy, an answer of bounded size.

Whatever goes wrong on the way is one ListManagerUnavailableError that names method and URL, never the password.
urllib3 is imported when a server is reached, not when settings are read: every start of a command would pay for it.
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
    """When a call has to be over: ``seconds`` after it began, which is ``at`` on the monotonic clock."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """Return the deadline of a call that begins now."""
        return cls(seconds, time.monotonic() + seconds)

    @property
    def left(self) -> float:
        """The seconds that are left; none or less when it is over."""
        return self.at - time.monotonic()


class Answer(NamedTuple):
    """What a server said. ``data`` is the JSON that it sent, None where it sent nothing."""

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


class Refused(NamedTuple):
    """A request that found no server or lost it on the way, so that a second try may find one."""

    call: str
    why: str
    what_to_do: str


def is_server_error(answer: Answer) -> bool:
    """Return True if a server failed for reasons of its own."""
    return answer.status >= 500


@dataclass(frozen=True)
class Client:
    """A server of JSON below one URL, which has been checked. ``max_output`` is in bytes."""

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
        """Send a request; where no answer came, or a transient one, send it once more after a pause.

        So a server may get a request twice. Every part of the path is quoted, slashes too. Raise
        ListManagerUnavailableError where the second try fares no better, where time is up, and for an answer that
        cannot be used: a redirect, no JSON, too much of it, or a refused log-in. What the server says to a secret
        request is never told, since it may hold the secret.
        """
        target = "/".join([urlsplit(self.url).path, *(quote(part, safe="@") for part in path)])
        call = f"{method} {self.url}{target.removeprefix(urlsplit(self.url).path)}"
        if query:
            target += f"?{urlencode(query)}"
        request = _Request(call, method, target, form, is_secret)
        found = self._once(request, until)
        if isinstance(found, Refused) or is_transient(found):
            time.sleep(max(0.0, min(PAUSE, until.left)))
            found = self._once(request, until)
        if isinstance(found, Refused):
            raise ListManagerUnavailableError(f"{call}: {found.why}; {found.what_to_do}")
        if is_transient(found):
            said = "" if is_secret else f": {described(found)}"
            message = f"{call}: answered with status {found.status} twice{said}"
            if is_server_error(found):
                raise CallFailedError(message, words="" if is_secret else described(found))
            raise ListManagerUnavailableError(message)
        return found

    def _once(self, request: _Request, until: Deadline) -> Answer | Refused:
        from urllib3.exceptions import HTTPError

        call = request.call
        if until.left <= 0:
            raise _too_slow(call, until)
        try:
            status, content = self._exchange(request, until)
        except (HTTPError, HTTPException, OSError) as error:
            if until.left <= 0:
                raise _too_slow(call, until) from None
            return Refused(call, _reason_of(error), _certificate_advice(error) or _SERVER_ADVICE)
        if until.left <= 0:  # what was read may be cut off
            raise _too_slow(call, until)
        return _understood(request, status, content)

    def _exchange(self, request: _Request, until: Deadline) -> tuple[int, bytes]:
        connection, form = self._connection, request.form
        headers = {**self._headers, **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})}
        try:
            if not connection.is_connected:
                connection.close()
                connection.timeout = min(CONNECT_SECONDS, until.left)
                connection.connect()
            connection.timeout = None
            with _hung_up_at(until, connection.sock):
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
            connection.close()  # what is left of an answer must not be taken for the next one
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
        """Return the connection, which is opened when it is needed, and kept where the server lets it."""
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
    """Return a server's words for what it did not do, as one line."""
    data = answer.data if isinstance(answer.data, dict) else {}
    return one_line(str(data.get("description") or data.get("title") or f"HTTP status {answer.status}"))


def unusable(answer: Answer, what: str) -> ListManagerUnavailableError:
    """Return the error for an answer that is not what was asked for."""
    return ListManagerUnavailableError(
        f"{answer.call}: {what}: {one_line(json.dumps(answer.data))}; check that `url` is the address of the list "
        "manager's REST API"
    )


def _understood(request: _Request, status: int, content: bytes) -> Answer:
    """Return an answer as data. Raise ListManagerUnavailableError where it is of no use."""
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
        if status >= 500:  # a server in trouble, or a proxy before it, speaks as it can
            return Answer(call, status, None)
        said = "" if request.is_secret else f": {one_line(content[:400].decode('utf-8', 'replace'))}"
        raise ListManagerUnavailableError(f"{call}: answered with something that is not JSON{said}") from None


def _too_slow(call: str, until: Deadline) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{call}: no complete answer within {until.seconds:.3g} seconds; find out what is blocking the list manager, "
        "or raise `timeout`"
    )


def _reason_of(error: BaseException | None) -> str:
    """Return the reason of a failure, without the names of Python's and urllib3's objects."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return "the host name cannot be resolved"
        if isinstance(error, TimeoutError) and error.errno is None:  # only connecting has a time of its own
            return f"no connection within {CONNECT_SECONDS:.3g} seconds"
        words = getattr(error, "verify_message", "") or getattr(error, "reason", "")
        if words and isinstance(words, str):
            return f"TLS failed: {one_line(words)}"
        if isinstance(error, OSError) and error.strerror:
            return one_line(error.strerror)
        error = error.__cause__ or error.__context__
    return "the connection was closed before the answer was complete"


def _certificate_advice(error: BaseException | None) -> str:
    """Return what to do about a certificate that was refused; nothing where none was."""
    while error is not None:
        if getattr(error, "verify_message", ""):
            return _CERTIFICATE_ADVICE
        error = error.__cause__ or error.__context__
    return ""


@contextmanager
def _hung_up_at(until: Deadline, connected: Any) -> Iterator[None]:
    """Hang up when time is up, whatever is being sent or read then: a time-out for each piece lets a drip go on."""
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
