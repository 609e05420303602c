"""A Mailman 3 of its own: its REST runner alone, on a free loopback port, in a temporary folder.

No runner that sends mail is started, so what Mailman would send piles up in its queue, and can be counted there.
``.ci/mailman3 FOLDER`` makes the virtual environment that PORTAL_TEST_MAILMAN3 names; without the variable it is
looked for in ``.mailman3`` beside pyproject.toml.
"""

import base64
import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from tests.real.base import RealProgram
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
DOMAIN = "lists.example.org"
CONFIGURATION = """
[mailman]
layout: here
[paths.here]
var_dir: {folder}/var
[mta]
incoming: mailman.mta.null.NullMTA
smtp_host: 127.0.0.1
smtp_port: 9
[webservice]
hostname: 127.0.0.1
port: {port}
"""
SILENT = {
    "pre_verified": "true",
    "pre_confirmed": "true",
    "pre_approved": "true",
    "send_welcome_message": "false",
}


def environment() -> Path:
    """Return the virtual environment that Mailman 3 is in, or would be."""
    return Path(os.environ.get("PORTAL_TEST_MAILMAN3") or ROOT / ".mailman3")


def why_missing() -> str:
    """Return why Mailman 3 cannot run here; an empty text where it can."""
    runner = environment() / "bin" / "runner"
    return "" if runner.exists() else f"no {runner}: .ci/mailman3 {environment()}"


class Program(RealProgram):
    """Mailman 3 with an empty database."""

    kind = "mailman3"
    can_hold = True
    can_ban = True
    has_no_mail = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.port = _free_port()
        configuration = folder / "mailman.cfg"
        configuration.write_text(CONFIGURATION.format(folder=folder, port=self.port))
        with (folder / "output").open("wb") as output:
            self._process = subprocess.Popen(
                [environment() / "bin" / "runner", "-C", configuration, "-r", "rest"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # a group of its own, to end as one
            )
        try:
            wait_until(self._answers)
            self.call("POST", "domains", mail_host=DOMAIN)
        except BaseException:
            self.stop()
            raise

    @property
    def version(self) -> str:
        return str(self.call("GET", "system/versions")["mailman_version"])

    def manager_table(self) -> dict[str, Any]:
        return {"url": f"http://127.0.0.1:{self.port}/3.1", "user": "restadmin", "password": "restpass"}

    def list_setting(self, name: str) -> str:
        return f"{name}@{DOMAIN}"

    def make_list(self, name: str) -> None:
        lists = {each["list_name"] for each in self.call("GET", "lists").get("entries", ())}
        if name not in lists:
            self.call("POST", "lists", fqdn_listname=self.list_setting(name))
        for request in self._entries(name, "requests"):
            self.call("POST", f"lists/{_id(name)}/requests/{request['token']}", action="discard")
        for ban in self._entries(name, "bans"):
            self.call("DELETE", f"lists/{_id(name)}/bans/{quote(ban['email'])}")
        self.set_roster(name, ())
        for mail in self._queue():
            mail.unlink()

    def set_roster(self, name: str, normal: Iterable[str], *, digest: Iterable[str] = ()) -> None:
        if present := self.roster(name):
            self.call("DELETE", f"lists/{_id(name)}/roster/member", emails=sorted(present))
        for address in normal:
            self._subscribe(name, address)
        for address in digest:
            self._subscribe(name, address, delivery_mode="mime_digests")

    def roster(self, name: str) -> set[str]:
        return {each["email"] for each in self._entries(name, "roster/member", fields="email")}

    def digest_roster(self, name: str) -> set[str]:
        entries = self._entries(name, "roster/member")
        return {each["email"] for each in entries if each["delivery_mode"] == "mime_digests"}

    def set_no_mail(self, name: str, address: str) -> None:
        member = self.call("GET", f"lists/{_id(name)}/member/{quote(address)}")["member_id"]
        self.call("PATCH", f"members/{member}/preferences", delivery_status="by_user")

    def no_mail_roster(self, name: str) -> set[str]:
        found = self.call("POST", "members/find", list_id=_id(name), role="member", delivery_status="by_user")
        return {each["email"] for each in found.get("entries", ())}

    def hold(self, name: str, address: str, *, policy: str = "moderate") -> None:
        # A person who asks for the subscription; the mail about it is thrown away. ``policy``: "moderate" or "confirm".
        before = set(self._queue())
        self.call("PATCH", f"lists/{_id(name)}/config", subscription_policy=policy)
        self._subscribe(name, address, **{"pre_approved" if policy == "moderate" else "pre_confirmed": "false"})
        self.call("PATCH", f"lists/{_id(name)}/config", subscription_policy="open")
        for mail in set(self._queue()) - before:
            mail.unlink()

    def held(self, name: str) -> set[str]:
        return {each["email"] for each in self._entries(name, "requests")}

    def ban(self, name: str, address: str) -> None:
        self.call("POST", f"lists/{_id(name)}/bans", email=address)

    def queued_mails(self) -> list[str]:
        return [mail.name for mail in self._queue()]

    def typed(self, address: str) -> str:
        """Return how an address was spelled when it was first seen."""
        return str(self.call("GET", f"addresses/{quote(address)}")["original_email"])

    def knows_password(self, address: str, password: str) -> bool:
        """Return True if a user could log in with a password."""
        path = f"users/{quote(address)}/login"
        return self._request("POST", path, {"cleartext_password": password})[0] == 204

    def stop(self) -> None:
        for number, seconds in ((signal.SIGTERM, 5.0), (signal.SIGKILL, 5.0)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(seconds)
                return

    def call(self, method: str, path: str, **form: Any) -> dict[str, Any]:
        """Send a request and return what was answered; it must succeed."""
        status, content = self._request(method, path, form)
        assert 200 <= status < 300, f"{method} {path} {form}: {status} {content.decode()}"
        return dict(json.loads(content)) if content else {}

    def _entries(self, name: str, what: str, **query: str) -> list[dict[str, Any]]:
        path = f"lists/{_id(name)}/{what}"
        return list(self.call("GET", f"{path}?{urlencode(query)}" if query else path).get("entries", ()))

    def _subscribe(self, name: str, address: str, **options: str) -> None:
        self.call("POST", "members", list_id=_id(name), subscriber=address, **{**SILENT, **options})

    def _request(self, method: str, path: str, form: dict[str, Any]) -> tuple[int, bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        headers = {"Authorization": "Basic " + base64.b64encode(b"restadmin:restpass").decode()}
        if form:
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        with contextlib.closing(connection):
            connection.request(method, f"/3.1/{path}", urlencode(form, doseq=True) if form else None, headers)
            response = connection.getresponse()
            return response.status, response.read()

    def _answers(self) -> bool:
        try:
            self.call("GET", "system/versions")
        except OSError:
            output = (self.folder / "output").read_text(errors="replace")
            assert self._process.poll() is None, f"Mailman ended at once: {output}"
            return False
        return True

    def _queue(self) -> list[Path]:
        return sorted((self.folder / "var" / "queue").glob("*/*.pck"))


def _id(name: str) -> str:
    return f"{name}.{DOMAIN}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
