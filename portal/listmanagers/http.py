"""HTTP as list managers speak it: one connection, an end in time, no redirects, no proxy, an answer of bounded size.

Whatever goes wrong on the way is one ListManagerUnavailableError that names method and URL, never the password.
urllib3 is imported when a server is reached, not when settings are read: every start of a command would pay for it.
"""

import io
import json
import socket
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast
from urllib.parse import quote, urlencode, urlsplit

from portal.errors import ConfigurationError, ListManagerUnavailableError
from portal.listmanagers.lines import one_line

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse, HTTPConnectionPool

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


class Refused(NamedTuple):
    """A request that found no server or lost it on the way, so that a second try may find one."""

    call: str
    why: str


def is_server_error(answer: Answer) -> bool:
    """Tell whether a server failed for reasons of its own."""
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
            raise ListManagerUnavailableError(
                f"{call}: {found.why}; see that the list manager runs, and that url in mailinglists.toml leads to it"
            )
        if is_transient(found):
            said = "" if is_secret else f", saying: {described(found)}"
            raise ListManagerUnavailableError(f"{call}: answered with status {found.status} twice{said}")
        return found

    def _once(self, request: _Request, until: Deadline) -> Answer | Refused:
        import urllib3
        from urllib3.exceptions import ConnectTimeoutError, HTTPError, NewConnectionError
        from urllib3.exceptions import TimeoutError as HTTPTimeoutError

        call, form, left = request.call, request.form, until.left
        if left <= 0:
            raise _too_slow(call, until)
        to_connect = min(CONNECT_SECONDS, left)
        headers = {**self._headers, **({"Content-Type": "application/x-www-form-urlencoded"} if form else {})}
        try:
            response = self._pool.urlopen(
                request.method,
                request.target,
                body=urlencode(form) if form else None,
                headers=headers,
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
                timeout=urllib3.Timeout(connect=to_connect, total=left),
            )
            try:
                return _understood(request, response.status, self._read(call, response))
            finally:
                response.close()
        except NewConnectionError as error:
            return Refused(call, _in_short(error))
        except ConnectTimeoutError:
            return Refused(call, f"no connection within {to_connect:.3g} seconds")
        except (HTTPTimeoutError, TimeoutError):
            raise _too_slow(call, until) from None
        except (HTTPError, OSError) as error:
            return Refused(call, _in_short(error))

    def _read(self, call: str, response: "BaseHTTPResponse") -> bytes:
        content = bytearray()
        while chunk := response.read(_CHUNK):
            content += chunk
            if len(content) > self.max_output:
                raise ListManagerUnavailableError(
                    f"{call}: answered with more than {self.max_output} bytes, so it was cut off; "
                    "raise max_output if the list is that large"
                )
        return bytes(content)

    @cached_property
    def _headers(self) -> dict[str, str]:
        credentials = b64encode(f"{self.user}:{self.password}".encode()).decode()
        return {"Accept": "application/json", "User-Agent": "member-portal", "Authorization": f"Basic {credentials}"}

    @cached_property
    def _pool(self) -> "HTTPConnectionPool":
        """Return the pool, which keeps a connection open where the server lets it."""
        from urllib3 import HTTPConnectionPool, HTTPSConnectionPool
        from urllib3.connection import HTTPConnection, HTTPSConnection

        parts = urlsplit(self.url)
        host = parts.hostname or ""
        if parts.scheme == "http":
            plain = HTTPConnectionPool(host, parts.port)
            plain.ConnectionCls = _timed(HTTPConnection)
            return plain
        secure = HTTPSConnectionPool(host, parts.port, ssl_context=self._trust())
        secure.ConnectionCls = _timed(HTTPSConnection)
        return secure

    def _trust(self) -> Any:
        import ssl

        try:
            return ssl.create_default_context(cafile=self.ca_file)
        except OSError as error:
            raise ConfigurationError(f"ca_file: {self.ca_file}: {_in_short(error)}") from None


def described(answer: Answer) -> str:
    """Return a server's words for what it did not do, as one line."""
    data = answer.data if isinstance(answer.data, dict) else {}
    return one_line(str(data.get("description") or data.get("title") or f"HTTP status {answer.status}"))


def unusable(answer: Answer, what: str) -> ListManagerUnavailableError:
    """Return the error for an answer that is not what was asked for."""
    return ListManagerUnavailableError(
        f"{answer.call}: {what}: {one_line(json.dumps(answer.data))}; see that url leads to the list manager's REST API"
    )


def _understood(request: _Request, status: int, content: bytes) -> Answer:
    """Return an answer as data. Raise ListManagerUnavailableError where it is of no use."""
    call = request.call
    if 300 <= status < 400:
        raise ListManagerUnavailableError(
            f"{call}: answered with a redirect ({status}), which is not followed; correct url in mailinglists.toml"
        )
    if status in {401, 403}:
        raise ListManagerUnavailableError(
            f"{call}: refused the log-in ({status}); see user and password of the manager in mailinglists.toml"
        )
    if not content:
        return Answer(call, status, None)
    try:
        return Answer(call, status, json.loads(content))
    except (ValueError, RecursionError):
        if status >= 500:  # a server in trouble, or a proxy before it, speaks as it can
            return Answer(call, status, None)
        said = "" if request.is_secret else f": {one_line(content[:400].decode('utf-8', 'replace'))}"
        raise ListManagerUnavailableError(f"{call}: answered with what is no JSON{said}") from None


def _too_slow(call: str, until: Deadline) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{call}: not done within {until.seconds:.3g} seconds, so it was given up; "
        "look for what holds the list manager up, or raise timeout"
    )


def _in_short(error: BaseException | None) -> str:
    """Return what went wrong on the way, without the names of Python's and urllib3's objects."""
    while error is not None:
        if isinstance(error, socket.gaierror):
            return "its host has no address"
        words = getattr(error, "verify_message", "") or getattr(error, "reason", "")
        if words and isinstance(words, str):
            return f"TLS failed: {one_line(words)}"
        if isinstance(error, OSError) and error.strerror:
            return one_line(error.strerror)
        error = error.__cause__ or error.__context__
    return "the answer broke off"


class _TimedFile(io.RawIOBase):
    """What comes from a socket, until its time is up."""

    def __init__(self, file: io.RawIOBase, timed: "_TimedSocket") -> None:
        self._file, self._timed = file, timed

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        self._timed.shorten()
        return cast(int | None, self._file.readinto(buffer))

    def close(self) -> None:
        self._file.close()
        super().close()


class _TimedSocket:
    """A socket whose time-out is for all that is read after it was set, not for each piece: a slow drip ends too."""

    def __init__(self, wrapped: socket.socket) -> None:
        self._wrapped = wrapped
        self._end: float | None = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._wrapped, name)

    def settimeout(self, seconds: float | None) -> None:
        self._end = None if seconds is None else time.monotonic() + seconds
        self._wrapped.settimeout(seconds)

    def shorten(self) -> None:
        """Leave the next read what is left of the time. Raise TimeoutError where nothing is."""
        if self._end is None:
            return
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._wrapped.settimeout(left)

    def makefile(self, *_mode: Any, **_options: Any) -> io.BufferedReader:
        return io.BufferedReader(_TimedFile(self._wrapped.makefile("rb", buffering=0), self))


def _timed(kind: Any) -> Any:
    """Return a kind of connection whose time-outs are for an answer as a whole."""

    class Timed(kind):  # type: ignore[misc]
        sock: Any

        def connect(self) -> None:
            super().connect()
            self.sock = _TimedSocket(self.sock)

    return Timed
