"""A member's page compared with Flask's hello world, both served by gunicorn with threads.

Only the worker's processor time counts, so that the client and other work on the machine do not matter.
"""

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from statistics import median
from urllib.parse import urlencode

import members
from members import ROOT, Instance

LISTS = (5, 20, 100)
_REQUESTS = 1_000
_TICK = os.sysconf("SC_CLK_TCK")


def compare(folder: Path, *, rounds: int) -> dict[str, dict[str, float]]:
    """Return by number of lists the processor time of a request in seconds: of hello world, and of a member's page."""
    found = {}
    for count in LISTS:
        instance = members.make_lists(folder / f"lists{count}", count=100, lists=count)
        _set_password(instance)
        with _serving("hello:app", instance) as hello, _serving("wsgi:app", instance) as portal:
            portal.log_in()
            turns = [(hello.request_cost("/"), portal.request_cost("/subscriptions")) for _ in range(rounds)]
        of_hello, of_page = zip(*turns, strict=True)
        found[str(count)] = {"hello": median(of_hello), "page": median(of_page)}
    return found


def _set_password(instance: Instance) -> None:
    command = [sys.executable, "-m", "flask", "user", "set-password", "--password-stdin", "member1"]
    password = f"{members.PASSWORD}\n".encode()
    subprocess.run(command, env=instance.env, cwd=ROOT, input=password, check=True, stderr=subprocess.DEVNULL)


class _Server:
    """A worker that answers on a connection that stays open."""

    def __init__(self, port: int, master: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port)
        self._master = master
        self._cookie = ""

    def log_in(self) -> None:
        """Log in as the member whose password is known. Raise RuntimeError if that fails."""
        form = self._answer("GET", "/login")
        token = re.search(r'name="csrf_token"[^>]*value="([^"]*)"', form)
        fields = {"username": "member1", "password": members.PASSWORD, "csrf_token": token[1] if token else ""}
        self._answer("POST", "/login", urlencode(fields))
        if 'id="lists"' not in self._answer("GET", "/subscriptions"):
            raise RuntimeError("the member's page has no lists")

    def request_cost(self, path: str) -> float:
        """Return the worker's seconds of processor time for one request."""
        self._answer("GET", path)
        before = self._processor_time()
        for _ in range(_REQUESTS):
            self._answer("GET", path)
        return (self._processor_time() - before) / _REQUESTS

    def _answer(self, method: str, path: str, body: str | None = None) -> str:
        headers = {"Cookie": self._cookie}
        if body is not None:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        self._connection.request(method, path, body, headers)
        response: HTTPResponse = self._connection.getresponse()
        text = response.read().decode()
        for cookie in response.headers.get_all("Set-Cookie") or ():
            self._cookie = cookie.partition(";")[0]
        if response.status not in {200, 303}:
            raise RuntimeError(f"{method} {path}: {response.status}")
        return text

    def _processor_time(self) -> float:
        children = Path(f"/proc/{self._master}/task/{self._master}/children").read_text().split()
        stats = [Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split() for each in children]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats) / _TICK


@contextmanager
def _serving(target: str, instance: Instance) -> Iterator[_Server]:
    port = _free_port()
    command = [sys.executable, "-m", "gunicorn", "--threads", "4", "--keep-alive", "60", "--no-control-socket"]
    command += ["--log-level", "warning", "--bind", f"127.0.0.1:{port}", target]
    env: Mapping[str, str] = {**instance.env, "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}"}
    with subprocess.Popen(command, env=env, cwd=ROOT) as master:
        try:
            _wait_for(port)
            yield _Server(port, master.pid)
        finally:
            master.terminate()


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
    return port


def _wait_for(port: int) -> None:
    ends = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            if time.monotonic() > ends:
                raise
            time.sleep(0.05)
        else:
            return
