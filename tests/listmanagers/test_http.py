"""All failures of HTTP by a server, a proxy or the network: SECURITY, "Input and output"."""

import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from portal.errors import ConfigurationError, ListManagerUnavailableError
from portal.listmanagers.http import Answer, Client, Deadline, described
from tests.waiting import wait_until

SECRET = "pass\r\nX-Evil: wörd:@/"
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Server:
    """Says to each request, whole with its body, what the test wants said; keeps what it heard."""

    def __init__(self, *answers: Any, tls: ssl.SSLContext | None = None) -> None:
        self.answers, self.heard, self.connections = list(answers), [], 0
        self.over = threading.Event()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(0.05)
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}/api"
        if tls:
            self.url = self.url.replace("http:", "https:")
            self.listener = tls.wrap_socket(self.listener, server_side=True)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def close(self) -> None:
        self.over.set()
        self.thread.join()
        self.listener.close()

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection, _ = self.listener.accept()
            except OSError:  # nobody came, or somebody who does not trust us
                continue
            self.connections += 1
            with connection:
                connection.settimeout(5)
                try:
                    while self.answers and (request := _request(connection)):
                        self.heard.append(request)
                        answer = self.answers.pop(0)
                        answer(connection) if callable(answer) else connection.sendall(answer)
                except OSError:
                    continue


def _request(connection: socket.socket) -> bytes:
    heard = b""
    while b"\r\n\r\n" not in heard:
        heard += (chunk := connection.recv(65536))
        if not chunk:
            return heard
    head, _, body = heard.partition(b"\r\n\r\n")
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length: "):
            while len(body) < int(line[16:]):
                body += connection.recv(65536)
    return head + b"\r\n\r\n" + body


@contextmanager
def serving(*answers: Any, tls: ssl.SSLContext | None = None) -> Iterator[Server]:
    server = Server(*answers, tls=tls)
    try:
        yield server
    finally:
        server.close()


def client(url: str, **settings: Any) -> Client:
    return Client(url, "admin", settings.pop("password", SECRET), settings.pop("max_output", 10_000), **settings)


def get(url: str, *path: str, seconds: float = 1.0, **settings: Any) -> Answer:
    return client(url, **settings).request("GET", *(path or ("x",)), until=Deadline.after(seconds))


def answering(status: int, content: bytes = b"", *headers: bytes) -> bytes:
    lines = [b"HTTP/1.1 %d Word" % status, b"Content-Length: %d" % len(content), *headers]
    return b"\r\n".join(lines) + b"\r\n\r\n" + content


def dripping(start: bytes) -> Callable[[socket.socket], None]:
    def drip(connection: socket.socket) -> None:
        connection.sendall(start)
        connection.settimeout(0.02)
        while True:
            with suppress(TimeoutError):
                connection.recv(1)  # nothing is said any more
            connection.sendall(b" ")

    return drip


def flooding(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
    for _ in range(800):
        connection.sendall(b'"x",' * 16384)  # 50 MB


def hanging(connection: socket.socket) -> None:
    connection.recv(1)


def breaking_off(connection: socket.socket) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
    connection.shutdown(socket.SHUT_RDWR)


def closing(connection: socket.socket) -> None:
    connection.shutdown(socket.SHUT_RDWR)


FAULTS = {
    "hang": ([hanging], "no complete answer within 0.3 seconds"),
    "slow drip in the head": ([dripping(b"HTTP/1.1 200 OK\r\nX-Slow: ")], "no complete answer within 0.3 seconds"),
    "slow drip in the body": (
        [dripping(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n")],
        "no complete answer within 0.3",
    ),
    "slow drip before a chunk": (
        [dripping(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1;")],
        "no complete answer within 0.3",
    ),
    "slow drip that has no end": ([dripping(b"HTTP/1.1 200 OK\r\n\r\n{}")], "no complete answer within 0.3"),
    "50 MB": ([flooding], "more than 10000 bytes.*raise `max_output`"),
    "redirect": (
        [answering(302, b"{}", b"Location: http://127.0.0.1:1/")],
        r"a redirect \(302\), which the portal does not follow",
    ),
    "no JSON": ([answering(200, b"<html>\x1b[31m\r\nX: y</html>")], "not JSON: <html>"),
    "half of a JSON": ([answering(200, b'{"entries": [')], "not JSON"),
    "deep JSON": ([answering(200, b"[" * 9000)], "not JSON"),
    "bytes that are no text": ([answering(200, b"\xff\xfe\x00")], "not JSON"),
    "wrong password": ([answering(401, b"<html>")], r"refused the log-in \(401\)"),
    "forbidden": ([answering(403, b"{}")], r"refused the log-in \(403\)"),
    "twice a server error": (
        [answering(500, b'{"title": "5\\u001b[31m"}'), answering(503, b"oops")],
        "status 503 twice",
    ),
    "twice no answer": ([closing, closing], "the connection was closed before the answer was complete"),
    "twice half an answer": ([breaking_off, breaking_off], "the connection was closed before the answer was complete"),
    "no HTTP": (
        [b"SSH-2.0-OpenSSH\r\n" * 3, b"SSH-2.0-OpenSSH\r\n" * 3],
        "the connection was closed before the answer was complete",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_whatever_fails_is_one_line_that_names_method_and_url_and_no_password(fault):
    answers, words = FAULTS[fault]
    started = time.monotonic()
    with serving(*answers) as server, pytest.raises(ListManagerUnavailableError, match=words) as caught:
        get(server.url, seconds=0.3 if "0.3" in words else 5)
    assert time.monotonic() - started < 3
    assert str(caught.value).startswith(f"GET {server.url}/x: ")
    assert str(caught.value).isprintable()
    assert "evil" not in str(caught.value).lower()
    assert not server.answers


def test_a_refused_connection_is_tried_twice_and_told_in_the_words_of_the_system():
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    started = time.monotonic()
    with pytest.raises(ListManagerUnavailableError, match="Connection refused"):
        get(f"http://127.0.0.1:{port}/api")
    assert time.monotonic() - started > 0.2


@pytest.mark.slow
def test_a_second_try_may_succeed():
    for first in (answering(500, b"oops"), closing, breaking_off):
        with serving(first, OK) as server:
            assert get(server.url) == Answer(f"GET {server.url}/x", 200, {})
            assert len(server.heard) == 2


def test_what_is_transient_may_be_told():
    with serving(answering(400, b'{"description": "locked"}'), OK) as server:
        found = client(server.url).request(
            "POST", "x", until=Deadline.after(1), form=[("a", "b")], is_transient=lambda each: each.status == 400
        )
    assert found.status == 200


def test_the_time_is_for_all_tries_together_and_for_what_comes_after_them():
    with serving(answering(500), hanging) as server:
        until = Deadline.after(0.5)
        with pytest.raises(ListManagerUnavailableError, match=r"no complete answer within 0\.5 seconds"):
            client(server.url).request("GET", "x", until=until)
        assert until.left <= 0
        with pytest.raises(ListManagerUnavailableError, match=r"no complete answer within 0\.5 seconds"):
            client(server.url).request("GET", "y", until=until)
    assert len(server.heard) == 2


def test_a_connection_is_kept_where_the_server_keeps_it():
    with serving(OK, OK, OK) as server:
        own = client(server.url)
        for _ in range(3):
            own.request("GET", "x", until=Deadline.after(1))
        assert server.connections == 1


def test_a_connection_that_the_server_closed_meanwhile_is_opened_again_and_takes_no_second_try(monkeypatch):
    monkeypatch.setattr("portal.listmanagers.http.PAUSE", 60)
    is_closed = threading.Event()

    def answering_once(connection: socket.socket) -> None:
        connection.sendall(OK)
        connection.shutdown(socket.SHUT_RDWR)
        is_closed.set()

    with serving(answering_once, OK) as server:
        own = client(server.url)
        own.request("GET", "x", until=Deadline.after(2))
        assert is_closed.wait(2)
        own.request("GET", "x", until=Deadline.after(2))
        assert (server.connections, len(server.heard)) == (2, 2)


def test_after_a_call_that_was_given_up_the_next_one_gets_its_own_answer():
    is_given_up = threading.Event()

    def answering_late(connection: socket.socket) -> None:
        is_given_up.wait(2)
        connection.sendall(answering(200, b'{"late": true}'))

    with serving(answering_late, OK) as server:
        own = client(server.url)
        with pytest.raises(ListManagerUnavailableError, match="no complete answer within"):
            own.request("GET", "x", until=Deadline.after(0.2))
        is_given_up.set()
        assert own.request("GET", "y", until=Deadline.after(2)).data == {}


def test_no_thread_is_left_behind_by_a_request():
    with serving(OK, closing, closing) as server:
        before = set(threading.enumerate())
        get(server.url, seconds=60)
        with pytest.raises(ListManagerUnavailableError):
            get(server.url, seconds=60)
        wait_until(lambda: set(threading.enumerate()) <= before)


def test_a_request_carries_what_it_is_given_and_nothing_that_breaks_a_line():
    with serving(OK) as server:
        form = [("a", "x\r\nY: z&ü"), ("a", "+ %")]
        path = ("a/b\r\nc", "q?x#y", "ö@b")
        client(server.url).request("POST", *path, until=Deadline.after(1), form=form, query={"n": "1\r\n2"})
    head, _, body = server.heard[0].partition(b"\r\n\r\n")
    lines = head.decode("ascii").split("\r\n")
    assert lines[0] == "POST /api/a%2Fb%0D%0Ac/q%3Fx%23y/%C3%B6@b?n=1%0D%0A2 HTTP/1.1"
    assert body == b"a=x%0D%0AY%3A+z%26%C3%BC&a=%2B+%25"
    assert not any(line.lower().startswith(("x-evil", "y:", "cookie", "proxy")) for line in lines)
    assert sum(line.startswith("Authorization: Basic ") for line in lines) == 1


def test_no_proxy_of_the_environment_is_asked(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1/")
    with serving(OK) as server:
        assert get(server.url).data == {}


@pytest.mark.parametrize(
    "answers",
    [[answering(200, SECRET.encode())], [answering(500, '{"title": "wörd"}'.encode())] * 2],
    ids=["no JSON", "twice a server error"],
)
def test_what_is_said_to_a_secret_request_is_not_told(answers):
    with serving(*answers) as server, pytest.raises(ListManagerUnavailableError) as caught:
        client(server.url).request("PATCH", "x", until=Deadline.after(2), form=[("p", SECRET)], is_secret=True)
    assert "w\u00f6rd" not in str(caught.value)


def test_an_answer_without_content_has_no_data():
    with serving(answering(204)) as server:
        assert get(server.url) == Answer(f"GET {server.url}/x", 204, None)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ({"title": "400 Bad", "description": "no\x1b[31m\r\nroom"}, "no\ufffd[31m"),
        ({"title": "400 Bad"}, "400 Bad"),
        (["x"], "HTTP status 400"),
        (None, "HTTP status 400"),
        ({"description": "x" * 300}, "x" * 200),
    ],
)
def test_the_words_of_a_server_are_one_line(data, words):
    said = described(Answer("GET x", 400, data))
    assert said.isprintable()
    assert len(said) <= 201
    assert said[:3] == words[:3]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory) -> Path:
    """A key and a certificate for 127.0.0.1, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=lists"),
            *("-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key", "-out", "certificate"),
        ],
        cwd=folder,
        check=True,
        capture_output=True,
    )
    (folder / "both").write_bytes((folder / "key").read_bytes() + (folder / "certificate").read_bytes())
    return folder / "both"


@pytest.mark.slow
def test_a_certificate_must_be_trusted(certificate):
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate)
    with serving(OK, tls=tls) as server:
        assert get(server.url, ca_file=certificate, seconds=5).data == {}
    with (
        serving(tls=tls) as server,
        pytest.raises(ListManagerUnavailableError, match=r"TLS failed: self.signed.* `ca_file` "),
    ):
        get(server.url, seconds=5)
    assert server.heard == []
    slow = pytest.raises(ListManagerUnavailableError, match=r"no complete answer within 0\.5 seconds")
    for start in (b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"):
        with serving(dripping(start), tls=tls) as server, slow:
            get(server.url, ca_file=certificate, seconds=0.5)


def test_a_file_of_certificates_that_is_none_is_named(tmp_path):
    for name, words in (("nowhere.pem", "No such file"), ("empty.pem", "")):
        path = tmp_path / name
        if "empty" in name:
            path.write_text("nothing\n")
        with pytest.raises(ConfigurationError, match=f"ca_file: {path}: {words}"):
            get("https://127.0.0.1:1/", ca_file=path)


def test_a_client_shows_no_password():
    assert SECRET not in repr(client("http://127.0.0.1/"))
    assert json.dumps(SECRET)[1:-1] not in repr(client("http://127.0.0.1/"))
