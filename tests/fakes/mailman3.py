"""A Mailman 3 for tests: its REST API on a loopback port, with the very answers of Mailman 3.3.10 and its traps.

``act`` makes it misbehave from some request on, in the ways of a server, a proxy or a network that fails. A held
request, a ban and a moderated list are as in the real one; mails that the real one would queue are counted.
"""

import base64
import contextlib
import hashlib
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

USER, PASSWORD = "restadmin", "restpass"
DOMAIN = "lists.example.org"
SILENT = {"pre_verified": "true", "pre_confirmed": "true", "pre_approved": "true", "send_welcome_message": "false"}
_VALID = re.compile(r"""[-0-9a-z!#$%&'*+./=?@_`{}~]+@([0-9a-z][-0-9a-z]*\.)+[0-9a-z][-0-9a-z]*""")  # the whole of it


class Call(NamedTuple):
    method: str
    path: str  # with its query, below /3.1
    form: list


class MailingList:
    def __init__(self, name):
        self.name = name
        self.members = {}  # lower-case address to "regular" or "mime_digests"
        self.statuses = {}  # lower-case address to a delivery_status
        self.requests = {}  # token to (address, owner)
        self.bans = set()
        self.moderated = False
        self.poison = set()
        self.tells_owner = False  # about each change

    @property
    def id(self):
        return f"{self.name}.{DOMAIN}"

    @property
    def address(self):
        return f"{self.name}@{DOMAIN}"


class FakeMailman3:
    """The server. Close it, or use it as a context."""

    def __init__(self):
        self.lists, self.typed, self.passwords, self.calls, self.mails = {}, {}, {}, [], []
        self._mode, self._from, self._times = "", 0, 0
        self._let_go = threading.Event()
        self._lock = threading.Lock()
        self._server = self._thread = None
        self.port = 0
        self.plug()

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/3.1"

    def table(self):
        return {"url": self.url, "user": USER, "password": PASSWORD}

    def plug(self):
        """Listen, on the same port as before if there was one."""
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), _Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._server.fake = self
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def unplug(self):
        """Refuse connections from now on."""
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def close(self):
        self._let_go.set()
        self.unplug()

    def act(self, mode="", *, at=None, times=10**9):
        """Misbehave, from the request with that number (the next one) on, that many times; without a mode no more.

        Modes: refuse, close, hang, drip, garbage, wrong, redirect, unauthorized, huge, error, locked, race.
        """
        self._let_go.set()
        self._let_go = threading.Event()
        self._mode, self._from, self._times = mode, len(self.calls) if at is None else at, times
        if self._server is None:
            self.plug()
        if mode == "refuse" and self._from <= len(self.calls):
            self.unplug()

    def make_list(self, name):
        return self.lists.setdefault(f"{name}.{DOMAIN}", MailingList(name))

    def get_list(self, name):
        return self.lists[f"{name}.{DOMAIN}"]

    def set_roster(self, name, addresses, *, digest=()):
        self.make_list(name).members = dict.fromkeys((each.lower() for each in addresses), "regular") | dict.fromkeys(
            (each.lower() for each in digest), "mime_digests"
        )
        self.typed.update({each.lower(): each for each in (*addresses, *digest)})

    def roster(self, name):
        return {self.typed[each] for each in self.get_list(name).members}

    def hold(self, name, address, *, owner="moderator"):
        token = hashlib.sha1(f"{name} {address}".encode()).hexdigest()
        self.make_list(name).requests[token] = (address.lower(), owner)
        return token

    def misbehaviour(self, call):
        """Return how the request that has just come is to be mistreated."""
        with self._lock:
            number = len(self.calls)
            self.calls.append(call)
            if self._mode == "refuse" and number + 1 == self._from:
                self.unplug()  # before this answer is out: the next connection finds nobody
            return self._mode if self._from <= number < self._from + self._times and self._mode != "refuse" else ""

    def wait(self, seconds):
        return self._let_go.wait(seconds)

    def answer(self, call):
        """Return the status and the data of a request, as the real one does."""
        parts = urlsplit(call.path)
        path = [unquote(part) for part in parts.path.strip("/").split("/")]
        form, query = dict(call.form), dict(parse_qsl(parts.query))
        with self._lock:
            match call.method, *path:
                case "GET", "system", "versions":
                    return 200, _etag({"mailman_version": "GNU Mailman 3.3.10 (Tom Sawyer)", "api_version": "3.1"})
                case "POST", "members":
                    return self._subscribe(form)
                case "GET", "members", number, "preferences":
                    return self._preferences(number)
                case "PATCH", "users", address:
                    return self._set_password(address, form)
                case "GET", "lists", name, "config", "admin_notify_mchanges" as setting:
                    return 200, _etag({setting: self._found(name).tells_owner})
                case method, "lists", name, *rest:
                    return self._of_list(method, self._found(name), rest, call.form, query)
        return 404, {"title": "404 Not Found"}

    def _found(self, name):
        return next((each for each in self.lists.values() if name in {each.id, each.address}), None)

    def _of_list(self, method, found, rest, form, query):  # noqa: C901 - an answer for each request
        if found is None:
            return 404, {"title": "404 Not Found"}
        match method, *rest:
            case ("GET",):
                return 200, _etag(
                    {
                        "display_name": found.name.capitalize(),
                        "fqdn_listname": found.address,
                        "list_id": found.id,
                        "list_name": found.name,
                        "mail_host": DOMAIN,
                        "member_count": len(found.members),
                        "self_link": f"{self.url}/lists/{found.id}",
                    }
                )
            case "GET", "member", address if address.lower() in found.members:
                return 200, _etag(
                    {
                        "address": f"{self.url}/addresses/{address.lower()}",
                        "delivery_mode": found.members[address.lower()],
                        "email": address.lower(),
                        "list_id": found.id,
                        "member_id": _member_id(found, address.lower()),
                        "role": "member",
                    }
                )
            case "GET", "roster", "member":
                return _paged([{"email": each} for each in sorted(found.members)], query)
            case "DELETE", "roster", "member":
                emails = [value for key, value in form if key == "emails"]
                if not emails:
                    return _bad("Missing Parameter: emails")
                return 200, _etag({each: found.members.pop(each, None) is not None for each in emails})
            case "GET", "requests":
                entries = [
                    {"token": token, "type": "subscription", "list_id": found.id, "email": email, "token_owner": owner}
                    for token, (email, owner) in found.requests.items()
                ]
                return _paged(entries, query)
            case "POST", "requests", token:
                if found.requests.pop(token, None) is None:
                    return 404, {"title": "404 Not Found", "description": "404 Not Found"}
                if dict(form)["action"] != "discard":
                    self.mails.append(f"{dict(form)['action']} {token}")
                return 204, None
        return 404, {"title": "404 Not Found"}

    def _subscribe(self, form):
        found = self.lists.get(form["list_id"])
        typed = form["subscriber"]
        email = typed.lower()
        if found is None:
            return _bad("No such list")
        if not _VALID.fullmatch(email):
            return _bad('Invalid Parameter "subscriber": .')
        if email in found.poison:
            return 500, {"title": "500 Internal Server Error"}
        if email == found.address:
            return _bad("List posting address cannot subscribe")
        if email in found.bans:
            return _bad("Membership is banned")
        if email in {held for held, _owner in found.requests.values()}:
            return 409, {"title": "409 Conflict", "description": "Subscription request already pending"}
        if email in found.members:
            return 409, {"title": "409 Conflict", "description": "Member already subscribed"}
        if found.moderated or {key: form.get(key) for key in SILENT if key.startswith("pre_")}.items() - SILENT.items():
            self.mails.append(f"held {email}")
            return 202, _etag({"token": self.hold(found.name, email), "token_owner": "moderator"})
        if form.get("send_welcome_message") != "false":
            self.mails.append(f"welcome {email}")
        found.members[email] = form.get("delivery_mode", "regular")
        found.statuses[email] = form.get("delivery_status", "enabled")
        self.typed[email] = typed
        return 201, None

    def _preferences(self, number):
        for found in self.lists.values():
            for email in found.members:
                if _member_id(found, email) == number:
                    status = {"delivery_status": found.statuses[email]} if email in found.statuses else {}
                    return 200, _etag({"self_link": f"{self.url}/members/{number}/preferences", **status})
        return 404, {"title": "404 Not Found"}

    def _set_password(self, address, form):
        if "/" in address or address.lower() not in self.typed:
            return 404, {"title": "404 Not Found", "description": "404 Not Found"}
        self.passwords[address.lower()] = form["cleartext_password"]
        return 204, None


def _member_id(found, email):
    return hashlib.md5(f"{found.id} {email}".encode(), usedforsecurity=False).hexdigest()


def _etag(data):
    return {**data, "http_etag": f'"{hashlib.sha1(str(data).encode()).hexdigest()}"'}


def _bad(description):
    return 400, {"title": "400 Bad Request", "description": description}


def _paged(entries, query):
    if ("count" in query) != ("page" in query):
        return 500, {"title": "500 Internal Server Error"}
    size, number = int(query.get("count", 10**9)), int(query.get("page", 1))
    shown = entries[(number - 1) * size : number * size]
    data = {"start": (number - 1) * size if "count" in query else 0, "total_size": len(entries)}
    return 200, _etag(data | ({"entries": [_etag(each) for each in shown]} if shown else {}))


class _Handler(BaseHTTPRequestHandler):
    server_version, sys_version = "gunicorn", ""

    def setup(self):
        super().setup()
        self.connection.settimeout(30)

    def log_message(self, *_arguments):
        pass

    def do_GET(self):
        with contextlib.suppress(OSError):  # who gave up does not listen any more
            self._serve()

    do_POST = do_DELETE = do_PATCH = do_GET

    def _serve(self):
        fake = self.server.fake
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
        call = Call(self.command, self.path.removeprefix("/3.1"), parse_qsl(body, keep_blank_values=True))
        mode = fake.misbehaviour(call)
        expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.headers.get("Authorization") != expected or mode == "unauthorized":
            self._send(401, {"title": "401 Unauthorized", "description": "REST API authorization failed"})
        elif mode:
            getattr(self, f"_{mode}")()
        elif not self.path.startswith("/3.1/"):
            self._send(404, {"title": "404 Not Found"})
        else:
            self._send(*fake.answer(call))

    def _send(self, status, data=None, *, content=None, **headers):
        content = json.dumps(data).encode() if content is None and data is not None else content or b""
        self.send_response(status)
        for name, value in {"Connection": "close", "Content-Type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _close(self):
        self.close_connection = True

    def _hang(self):
        self.server.fake.wait(30)

    def _drip(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        while not self.server.fake.wait(0.05):
            self.wfile.write(b"x")

    def _drip_body(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
        while not self.server.fake.wait(0.05):
            self.wfile.write(b" ")

    def _garbage(self):
        self._send(200, content=b"<html>Service for admin@example.org is down</html>\n")

    def _wrong(self):
        self._send(200, ["html", None])

    def _redirect(self):
        self._send(302, {}, Location=f"{self.server.fake.url}/elsewhere")

    def _huge(self):
        self.wfile.write(b"HTTP/1.1 200 OK\r\n\r\n[")
        while True:
            self.wfile.write(b'"x",' * 16384)

    def _error(self):
        self._send(500, {"title": "500 Internal Server Error", "description": "no\x1b[31m space\nleft"})

    def _locked(self):
        self._send(*_bad("(sqlite3.OperationalError) database is locked"))

    def _race(self):
        self._send(
            *_bad("(raised as a result of Query-invoked autoflush; consider using a session.no_autoflush block)")
        )
