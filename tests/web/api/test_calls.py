"""The API: every call answers as its command does, and withstands what it is sent. SECURITY 9, 11, 15, 21, 24, 30."""

import io
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient, FlaskCliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.extensions import portal
from portal.models import Lease, Preference, Run
from portal.services.accounts import api_keys, log, profiles, users
from portal.services.sync import list_passwords
from portal.web.api import calls as api_module
from tests.conftest import CATALOGUE, Clock, Rosters
from tests.factories import NOW, make_preference, make_user
from tests.web.conftest import Client, Visitor
from tests.web.test_security import check_headers, dump, quoted

HOSTILE = [
    "-rf@example.org",
    "`id`@example.org",
    "$HOME@example.org",
    "=cmd|'/C'!A0@example.org",
    "a+b&c=d@example.org",
]
ROSTER = "alice@example.org\ncharlie@example.org\nstranger@example.net\n"


class Caller:
    """A script with a key; it checks that every refusal is a problem in the proper form, and that no cookie is set."""

    def __init__(self, client: FlaskClient, key: str | None) -> None:
        self.client = client
        self.key = key

    def __call__(self, method: str, path: str, status: int = 200, **options: Any) -> TestResponse:
        headers = dict(options.pop("headers", {}))
        if self.key is not None:
            headers.setdefault("Authorization", f"Bearer {self.key}")
        response = self.client.open(f"/api/v1{path}", method=method, headers=headers, **options)
        assert response.status_code == status, response.text
        assert "Set-Cookie" not in response.headers
        check_headers(response.headers)
        if status >= 400 and method != "HEAD":
            assert response.mimetype == "application/problem+json"
            assert response.json["status"] == status
            assert response.json["title"]
            assert "\n" not in response.json["detail"]
        return response

    def get(self, path: str, status: int = 200, **options: Any) -> TestResponse:
        return self("GET", path, status, **options)

    def post(self, path: str, data: Any = None, status: int = 200, kind: str = "text/plain", **options: Any) -> Any:
        return self("POST", path, status, data=data, content_type=kind, **options)


@pytest.fixture
def key(session: Session, clock: Clock) -> str:
    make_user(session, "dora", "dora@example.org", is_superuser=True, is_active=True)
    make_user(session, "erin", "dora@example.org", is_superuser=True)
    return api_keys.create(session, "dora", label="list host", expires_days=None, now=clock())


@pytest.fixture
def api(app: Flask, key: str) -> Caller:
    app.test_client_class = Client
    return Caller(app.test_client(), key)


@pytest.fixture
def anonymous(app: Flask) -> Caller:
    app.test_client_class = Client
    return Caller(app.test_client(), None)


@pytest.fixture
def cast(session: Session, rosters: Rosters) -> None:
    """Alice is on the list, Bob and Charlie are not; Bob wants to be."""
    make_user(session, "alice", groups=("board",))
    make_user(session, "bob")
    make_user(session, "charlie")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    make_preference(session, "members", "bob@example.org", True, seen=False, touched=True, version=1)
    make_preference(session, "members", "charlie@example.org", False, seen=False)


@pytest.fixture
def many(session: Session) -> None:
    """Eight people leave the list at once: more than the safety limits allow."""
    for number in range(8):
        make_user(session, f"user{number}")
        make_preference(
            session, "members", f"user{number}@example.org", False, seen=True, source="superuser", version=1
        )


MANY = "".join(f"user{number}@example.org\n" for number in range(8))


def preferences(session: Session) -> dict[str, bool]:
    session.rollback()
    from portal.models import Address

    query = select(Address.canonical, Preference.subscribed).join(Preference, Preference.address_id == Address.id)
    found = dict(map(tuple, session.execute(query.where(Preference.list_handle == "members"))))
    session.rollback()
    return found


# keys


def test_without_a_key_nothing_is_told(anonymous, cast):
    for path in ("/lists", "/lists/members/subscribed", "/lists/nope/report", "/runs"):
        response = anonymous.get(path, 401)
        assert response.headers["WWW-Authenticate"].startswith("Bearer")
        assert "an API key" in response.json["detail"]


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic bm9ib2R5Om5vdGhpbmc="},
        {"Authorization": "Basic \xff"},
        {"Authorization": "Bearer \xff\xfe"},
        {"X-API-Key": "mp_22222222_" + "A" * 43},
        {"X-API-Key": "\xe9"},
        {"X-API-Key": ""},
    ],
)
def test_what_is_no_key_is_a_401(anonymous, headers):
    anonymous.get("/lists", 401, headers=headers)


@pytest.mark.parametrize("name", ["Authorization", "authorization", "X-API-Key", "x-api-key"])
def test_a_key_comes_in_either_header(anonymous, key, name):
    anonymous.get("/lists", headers={name: key if name.lower() == "x-api-key" else f"bearer {key}"})


def test_a_key_in_the_url_or_in_a_cookie_is_no_key(anonymous, key):
    anonymous.get(f"/lists?key={key}", 401)
    anonymous.get(f"/lists?api_key={key}", 401, headers={"Cookie": f"X-API-Key={key}; portal={key}"})


def test_the_cookie_of_a_superuser_is_nothing_here(bob: Visitor):
    assert bob.client.get("/admin/").status_code == 200
    cookies = bob.client._cookies.copy()
    response = bob.client.get("/api/v1/lists")
    assert response.status_code == 401
    assert "Set-Cookie" not in response.headers
    assert bob.client._cookies == cookies


def test_a_call_needs_no_token_of_a_form(api):
    api.post("/lists/members/init", "alice@example.org\n")


def test_a_deactivated_owner_is_a_403_and_the_keys_of_a_demoted_one_are_revoked(api, session):
    api.get("/lists")
    users.deactivate(session, "dora", now=NOW)
    assert "not an active superuser" in api.get("/lists", 403).json["detail"]
    users.activate(session, "dora", now=NOW, lists=None)
    api.get("/lists")
    users.revoke(session, "dora", now=NOW)
    users.grant(session, "dora")
    assert "was revoked" in api.get("/lists", 401).json["detail"]


def test_bad_keys_are_a_429_that_says_how_long_and_good_ones_go_on(anonymous, api):
    for _ in range(10):
        anonymous.get("/lists", 401, headers={"Authorization": "Bearer x"})
    response = anonymous.get("/lists", 429, headers={"Authorization": "Bearer x"})
    assert 0 < int(response.headers["Retry-After"]) <= 60
    api.get("/lists")


def test_calls_without_a_key_are_not_counted(anonymous):
    for _ in range(20):
        anonymous.get("/lists", 401)


# every call and its command


@pytest.fixture
def twin(app: Flask, api: Caller, runner: FlaskCliRunner, cast: None) -> Callable[..., str]:
    """Run a command on the database as it is; what it changed is undone, so that the call finds the same."""
    from portal.extensions import db
    from tests.conftest import SERVER

    if SERVER:
        pytest.skip("elsewhere: the database of a server is not copied")
    place = Path(db.engine.url.database or "")

    def run(*args: str, stdin: str = "") -> str:
        db.engine.dispose()
        kept = {path: path.read_bytes() for path in place.parent.glob("portal.db*")}
        result = runner.invoke(args=["mailinglist", *args], input=stdin)
        assert result.exit_code == 0, result.stderr
        db.session.remove()
        db.engine.dispose()
        for path in place.parent.glob("portal.db*"):
            path.unlink()
        for path, content in kept.items():
            path.write_bytes(content)
        return result.stdout

    return run


@pytest.mark.parametrize(
    ("command", "method", "path"),
    [
        (["lists", "--format", "json"], "GET", "/lists"),
        (["runs", "--format", "json"], "GET", "/runs"),
        (["runs", "--list", "members", "--limit", "1", "--format", "json"], "GET", "/runs?list=members&limit=1"),
        (["get-subscribed", "members"], "GET", "/lists/members/subscribed"),
        (["get-unsubscribed", "members"], "GET", "/lists/members/unsubscribed"),
        (["list-init", "members"], "POST", "/lists/members/init?format=text"),
        (["list-init", "members", "--format", "json"], "POST", "/lists/members/init"),
        (["list-init", "--plan", "members"], "POST", "/lists/members/init?plan=1&format=text"),
        (["list-init", "--plan", "--format", "json", "members"], "POST", "/lists/members/init?plan=1"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_call_answers_what_its_command_prints(twin, api, session, command, method, path):
    api.post("/lists/members/init?plan=1", ROSTER)
    api.post("/lists/members/init?confirm=1", ROSTER)
    make_user(session, "frank")
    printed = twin(*command, stdin=ROSTER)
    response = api.post(path, ROSTER) if method == "POST" else api.get(path)
    if response.mimetype == "application/json":
        assert without_token(response.json) == without_token(json.loads(printed))
    else:
        token = re.compile("^token: [0-9a-f]{32}$", re.MULTILINE)
        assert token.sub("", response.text) == token.sub("", printed)
    assert printed.strip()


def without_token(answer: Any) -> Any:
    """Leave out what is random in the answer of a plan."""
    return {name: value for name, value in answer.items() if name != "token"} if isinstance(answer, dict) else answer


@pytest.mark.parametrize(
    ("command", "path"),
    [("get-subscribed", "subscribed"), ("get-unsubscribed", "unsubscribed")],
)
def test_what_is_planned_is_answered_as_printed(twin, api, session, command, path):
    make_user(session, "frank")
    make_preference(session, "members", "frank@example.org", False, seen=True, touched=True, version=1)
    api.post("/lists/members/init?plan=1", ROSTER + "frank@example.org\n")
    printed = twin(command, "--planned", "members")
    assert api.get(f"/lists/members/{path}?planned=1").text == printed
    assert api.get(f"/lists/members/{path}?planned=1&format=json").json == printed.splitlines()
    assert printed


def test_the_end_of_a_planned_run_is_answered_as_printed(twin, api):
    api.post("/lists/members/init?plan=1", ROSTER)
    printed = twin("list-init", "--confirm", "--format", "json", "members", stdin=ROSTER + "bob@example.org\n")
    assert api.post("/lists/members/init?confirm=1", ROSTER + "bob@example.org\n").json == json.loads(printed)


def test_the_report_is_answered_as_printed(twin, api):
    printed = twin("report", "members", "--format", "json")
    assert [api.get("/lists/members/report").json] == json.loads(printed)


def test_a_run_says_which_key_asked_for_it(api, key, cast, session):
    api.post("/lists/members/init?plan=1", ROSTER)
    (run,) = api.get("/runs").json
    assert run["asked_by"].startswith(f"API key {key[:11]} of user ")
    assert "@" not in run["asked_by"]


def test_a_planned_run_over_the_api_changes_what_a_run_changes(api, cast, session):
    begun = api.post("/lists/members/init?plan=1", "alice@example.org\n").json
    assert begun["adds"] == 1
    assert api.get("/lists/members/subscribed?planned=1").text == "bob@example.org\n"
    assert api.get("/lists/members/unsubscribed?planned=1").text == ""
    assert api.post("/lists/members/init?confirm=1", "alice@example.org\nbob@example.org\n").json == {
        "added": 1, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 0,
    }  # fmt: skip
    assert api.post("/lists/members/init?plan=1", "bob@example.org\n").json["adds"] == 0
    api.post("/lists/members/init?confirm=1", "bob@example.org\n")
    assert preferences(session) == {
        "alice@example.org": False, "bob@example.org": True, "charlie@example.org": False, "dora@example.org": False,
    }  # fmt: skip


def test_a_planned_run_that_is_given_up_lets_the_list_go(api, cast, session):
    api.post("/lists/members/init?plan=1", "alice@example.org\n")
    answer = api.post("/lists/members/init?abandon=1", b"", kind="application/x-www-form-urlencoded")
    assert answer.json == {"abandoned": 1}
    session.rollback()
    assert session.scalars(select(Lease)).all() == []
    assert [each["state"] for each in api.get("/runs").json] == ["failed"]


def test_a_token_of_another_run_ends_none(api, cast, session):
    token = api.post("/lists/members/init?plan=1", "alice@example.org\n").json["token"]
    assert api.post(f"/lists/members/init?abandon=1&token={'0' * 32}", b"", 409).json["exit_code"] == 65
    api.post(f"/lists/members/init?plan=1&token={token}", "alice@example.org\n", 400)
    assert api.post(f"/lists/members/init?abandon=1&token={token}", b"").json == {"abandoned": 1}


# what a roster may come as


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        ("alice@example.org\nBob <bob@example.org>\r\n\ufeff# note\n\n", "text/plain"),
        ("\ufeffalice@example.org\nbob@example.org\n", "text/plain; charset=UTF-8"),
        ('["alice@example.org", "bob@example.org"]', "application/json"),
        ("addresses=alice%40example.org%0Abob%40example.org%0A", "application/x-www-form-urlencoded"),
        ("x=1&addresses=alice%40example.org%0D%0abob%40example.org&y", "application/x-www-form-urlencoded"),
        ("addresses=alice@example.org&addresses=bob@example.org", "application/x-www-form-urlencoded"),
        ("%61ddresses=alice@example.org\nbob@example.org", "application/x-www-form-urlencoded"),
    ],
)
def test_a_roster_comes_in_three_forms(api, cast, data, kind):
    make = api.post("/lists/tech/init", data.encode(), kind=kind).json
    assert make == {"subscribed": 2, "unsubscribed": 2, "kept": 0, "unknown": 0, "invalid": 0}


def test_hostile_addresses_arrive_and_leave_byte_for_byte(api, session):
    for number, each in enumerate(HOSTILE):
        make_user(session, f"user{number}", each)
    quoted_lines = "%0A".join(quoted(each.encode()).decode() for each in HOSTILE)
    form = f"addresses={quoted_lines}"
    assert api.post("/lists/tech/init", form, kind="application/x-www-form-urlencoded").json["subscribed"] == len(
        HOSTILE
    )
    assert sorted(api.get("/lists/tech/subscribed").text.splitlines()) == sorted(HOSTILE)
    assert sorted(api.get("/lists/tech/subscribed?format=json").json) == sorted(HOSTILE)


@settings(max_examples=60)
@given(
    lines=st.lists(st.text(st.characters(exclude_characters="\n\r", codec="utf-8"), max_size=40), max_size=8),
    block=st.integers(3, 40),
)
def test_a_form_is_cut_into_its_lines_wherever_the_blocks_end(lines: list[str], block: int) -> None:
    from portal.web.api import bodies

    raw = b"a=b&addresses=" + quoted("\n".join(lines).encode()) + b"&c=d%0Ae"

    class Stream(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            return super().read(block)

    assert list(bodies._of_form(Stream(raw))) == "\n".join(lines).encode().split(b"\n")


@pytest.mark.parametrize("cut", [1, 2])
def test_a_line_end_that_a_block_cuts_ends_a_line_that_is_too_long(cut: int) -> None:
    from portal.web.api import bodies

    before = b"addresses=".ljust(2 * bodies._BLOCK - cut, b"a")
    *_, last = bodies._of_form(io.BytesIO(before + b"%0Aalice%40example.org"))
    assert last == b"alice@example.org"


def test_a_line_of_a_form_without_an_end_takes_little_memory(api, cast):
    raw = b"addresses=" + b"a%40" * 500_000 + b"%0Aalice%40example.org"
    answer = api.post("/lists/tech/init?skip_invalid=1", raw, kind="application/x-www-form-urlencoded").json
    assert (answer["subscribed"], answer["invalid"]) == (1, 1)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"alice@example.org\n<html>\n", "text/plain"),
        (b"alice@example.org\nbob@example.org", "text/plain"),
        (b'["alice@example.org", "a;b"]', "application/json"),
        (b'"alice@example.org"\n', "text/plain"),
        (b"addresses=alice%40example.org%0Aa;b", "application/x-www-form-urlencoded"),
    ],
)
@pytest.mark.parametrize("query", ["", "?plan=1", "?plan=1&allow_empty=1", "?allow_empty=1"])
def test_a_body_that_cannot_be_read_is_a_422_that_names_the_lines_and_changes_nothing(
    api, cast, session, data, kind, query
):
    before = preferences(session)
    problem = api.post(f"/lists/members/init{query}", data, 422, kind).json
    assert problem["exit_code"] == 65
    assert "line " in problem["detail"]
    assert "skip_invalid=1" in problem["detail"]
    assert preferences(session) == before


def test_a_confirmation_that_cannot_be_read_leaves_the_planned_run_open(api, cast):
    api.post("/lists/members/init?plan=1", b"alice@example.org\n")
    api.post("/lists/members/init?confirm=1", b"<html>\n", 422)
    assert api.post("/lists/members/init?confirm=1", b"alice@example.org\n").json["refused"] >= 0


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"alice@example.org", "application/octet-stream"),
        (b"alice@example.org", "text/csv"),
        (b"alice@example.org", "text/plain; charset=utf-16"),
        (b"alice@example.org", "text/plain; charset=latin-1"),
        (b"alice@example.org", ""),
        (b"alice@example.org", "multipart/form-data"),
    ],
)
def test_another_type_is_a_415(api, cast, session, data, kind):
    before = preferences(session)
    api.post("/lists/members/init", data, 415, kind)
    assert preferences(session) == before


def test_a_form_without_the_field_is_no_empty_roster(api, cast):
    kind = "application/x-www-form-urlencoded"
    assert api.post("/lists/tech/init?plan=1&allow_empty=1", b"addresses=", 200, kind)
    api.post("/lists/tech/init?abandon=1", b"", 200, kind)
    api.post("/lists/tech/init?plan=1&allow_empty=1", b"adresses=alice@example.org", 422, kind)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "text/plain"),
        (b"# nobody\n\n", "text/plain"),
        (b"\0\0\0", "text/plain"),
        (b"\xff\xfe\0a", "text/plain"),
        (b"alice@example.org\0", "text/plain"),
        (b"a\xed\xa0\x80@example.org", "text/plain"),
        ("alice@example.org".encode("utf-16"), "text/plain"),
        (b"[]", "application/json"),
        (b"", "application/json"),
        (b"{}", "application/json"),
        (b"[1]", "application/json"),
        (b'["a', "application/json"),
        (b'["a\\ud800@example.org"]', "application/json"),
        (b'["\\u0000@example.org"]', "application/json"),
        (b'["alice@example.org\\nbob@example.org"]', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff", "application/json"),
        (b"alice@example.org", "application/x-www-form-urlencoded"),
        (b"", "application/x-www-form-urlencoded"),
        (b"addresses=", "application/x-www-form-urlencoded"),
        (b"addresses=%00&addresses=%ff%ZZ%", "application/x-www-form-urlencoded"),
        (b"=&=&%=%&&&", "application/x-www-form-urlencoded"),
    ],
)
def test_a_body_without_an_address_is_a_422_and_changes_nothing(api, cast, session, data, kind):
    before = preferences(session)
    api.post("/lists/members/init", data, 422, kind)
    api.post("/lists/members/init?plan=1", data, 422, kind)
    assert preferences(session) == before
    session.rollback()
    assert session.scalars(select(Lease)).all() == []


@settings(max_examples=60)
@given(
    data=st.binary(max_size=200),
    kind=st.sampled_from(["text/plain", "application/json", "application/x-www-form-urlencoded"]),
)
def test_no_body_is_a_500(api: Caller, data: bytes, kind: str) -> None:
    for raw in (data, b"addresses=" + data):
        response = api.client.post(
            "/api/v1/lists/tech/init", data=raw, content_type=kind, headers={"Authorization": f"Bearer {api.key}"}
        )
        assert response.status_code in {200, 409, 422}, response.text


# bounds


@pytest.mark.slow
def test_a_roster_of_100000_lines_is_accepted_in_every_form(api, cast, session):
    lines = [f"user{number}@example.org" for number in range(99_999)] + ["alice@example.org"]
    bodies = {
        "text/plain": "\n".join([*lines, ""]),
        "application/json": json.dumps(lines),
        "application/x-www-form-urlencoded": "addresses=" + "%0A".join(lines).replace("@", "%40"),
    }
    for number, (kind, data) in enumerate(bodies.items()):
        assert len(data) > portal().settings.max_body
        answer = api.post("/lists/tech/init", data, kind=kind).json
        assert answer["unknown"] == 99_999
        assert (answer["subscribed"], answer["kept"]) == ((1, 0) if number == 0 else (0, 4))


class Endless(io.RawIOBase):
    """A body that never ends, and that counts what was read of it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = b"a@example.org\n" * (len(buffer) // 14) + b"\n" * (len(buffer) % 14)
        self.taken += len(buffer)
        return len(buffer)


@pytest.fixture
def small(make_app: Callable[..., Flask], rosters: Rosters, key: str) -> Caller:
    """The API of a portal that takes rosters of 20,000 bytes."""
    app = make_app(PORTAL_MAX_ROSTER="20000", PORTAL_MAX_BODY="1024")
    app.test_client_class = Client
    return Caller(app.test_client(), key)


@pytest.mark.parametrize("path", ["/lists/tech/init", "/lists/tech/init?plan=1"])
@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_a_body_over_the_limit_is_a_413_of_which_nothing_is_read(small, session, path, kind):
    body = Endless()
    small.post(path, b"", 413, kind, environ_overrides={"wsgi.input": body, "CONTENT_LENGTH": "20001"})
    assert body.taken == 0
    session.rollback()
    assert session.scalars(select(Lease)).all() == []


@pytest.mark.parametrize("kind", ["text/plain", "application/json", "application/x-www-form-urlencoded"])
def test_a_body_that_does_not_say_how_long_it_is_ends_at_the_limit(small, session, kind):
    body = Endless()
    chunked = {"wsgi.input": body, "wsgi.input_terminated": True, "CONTENT_LENGTH": ""}
    small.post("/lists/tech/init", b"", 413, kind, environ_overrides=chunked)
    assert body.taken < 200_000
    session.rollback()
    assert (session.scalars(select(Lease)).all(), session.scalars(select(Run)).all()) == ([], [])


def test_a_body_as_large_as_the_limit_is_taken(small, session):
    make_user(session, "alice")
    small.post("/lists/tech/init", "alice@example.org\n" + "\n" * (20_000 - 18))
    small.post("/lists/tech/init", "alice@example.org\n" + "\n" * (20_001 - 18), 413)


@pytest.mark.parametrize("path", ["/lists/members/init", "/lists/members/init?plan=1"])
def test_a_roster_that_was_cut_off_on_its_way_is_none(api, cast, session, path):
    before = preferences(session)
    api.post(path, b"alice@example.org\n", 400, environ_overrides={"CONTENT_LENGTH": "1000"})
    assert preferences(session) == before
    session.rollback()
    assert session.scalars(select(Lease)).all() == []


# statuses


def test_an_unknown_list_is_a_404(api, cast):
    for path in ("subscribed", "unsubscribed", "passwords", "report"):
        assert "unknown list: nope" in api.get(f"/lists/nope/{path}", 404).json["detail"]
    api.post("/lists/nope/init", ROSTER, 404)
    api.post("/lists/nope/passwords", "x", 404)
    api.get("/runs?list=nope", 404)
    api.get("/nothing", 404)


@pytest.mark.parametrize("handle", ["%00", "%ED%A0%80", "%0d%0aX:y", "..", "%2e%2e", "MEMBERS", "members ", "x" * 999])
def test_a_list_that_cannot_be_is_a_404(api, handle):
    assert api.client.get(
        f"/api/v1/lists/{handle}/report", headers={"Authorization": f"Bearer {api.key}"}
    ).status_code in {404, 308}


@pytest.mark.parametrize("catalogue", [None, "enabled = 1"])
def test_a_facility_that_is_not_enabled_is_a_503(make_app, instance, key, catalogue):
    path = instance / "mailinglists.toml"
    path.unlink() if catalogue is None else path.write_text(catalogue)
    app = make_app()
    app.test_client_class = Client
    api = Caller(app.test_client(), key)
    for call in ("/lists", "/runs", "/lists/members/report", "/lists/members/subscribed", "/lists/members/passwords"):
        assert "not enabled" in api.get(call, 503).json["detail"]
    api.post("/lists/members/init", ROSTER, 503)


def test_an_invalid_catalogue_is_a_503(make_app, instance, key):
    (instance / "mailinglists.toml").write_text("enabled = true\n[lists.members]\nsurprise = 1\n")
    app = make_app()
    app.test_client_class = Client
    Caller(app.test_client(), key).get("/lists", 503)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "POST"])
def test_another_method_is_a_405(api, method):
    assert "GET" in api(method, "/lists", 405).headers["Allow"]


def test_exceeded_limits_are_a_409_with_the_id_that_lets_the_plan_through(api, many, session):
    refused = api.post("/lists/members/init?plan=1", MANY, 409).json
    assert (refused["exit_code"], refused["title"]) == (77, "Needs approval")
    api.post("/lists/members/init?plan=1&accept=0123456789abcdef", MANY, 409)
    begun = api.post(f"/lists/members/init?plan=1&accept={refused['plan']}", MANY).json
    assert (begun["plan"], begun["removals"]) == (refused["plan"], 8)


def test_a_roster_in_doubt_is_a_409_with_the_id_that_lets_the_plan_through(api, cast):
    api.post("/lists/members/init?plan=1", b"", 422)
    refused = api.post("/lists/members/init?plan=1&allow_empty=1", b"", 409).json
    assert (refused["exit_code"], refused["title"]) == (77, "Needs approval")
    api.post(f"/lists/members/init?plan=1&accept={refused['plan']}&allow_empty=1", b"")
    assert "plan" not in api.post("/lists/members/init?allow_empty=1", b"", 409).json  # the planned run holds the list


def test_a_list_that_another_run_holds_is_a_409(api, cast):
    api.post("/lists/members/init?plan=1", ROSTER)
    held = api.post("/lists/members/init?plan=1", ROSTER, 409).json
    assert (held["exit_code"], "planned run" in held["detail"]) == (75, True)


def test_no_planned_run_is_a_409(api, cast):
    api.get("/lists/members/subscribed?planned=1", 409)
    api.post("/lists/members/init?confirm=1", ROSTER, 409)
    api.post("/lists/members/init?abandon=1", ROSTER, 409)


@pytest.mark.parametrize(
    ("path", "told"),
    [
        ("/lists/members/init?plann=1", "there is no parameter plann here"),
        ("/lists/members/init?plan=1&plan=0", "given more than once"),
        ("/lists/members/init?plan=yes", "Invalid enum value"),
        ("/lists/members/init?plan=1&confirm=1", "use only one of plan, confirm and abandon"),
        ("/lists/members/init?accept=0123456789abcdef", "accept can only be used with plan"),
        ("/lists/members/init?plan=1&accept=nonsense", "`accept`"),
        ("/lists/members/init?format=xml", "Invalid enum value"),
    ],
)
def test_a_query_that_is_not_understood_is_a_400_and_no_list_init(api, cast, session, path, told):
    before = preferences(session)
    assert told in api.post(path, ROSTER, 400).json["detail"]
    assert preferences(session) == before


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "limit=",
        "before=0",
        "before=99999999999999999999",
        "list=..",
        "x=1",
        "%00=1",
    ],
)
def test_a_query_out_of_bounds_is_a_400(api, query):
    api.get(f"/runs?{query}", 400)


@settings(max_examples=60)
@given(
    word=st.text(alphabet=st.characters(), max_size=60),
    name=st.sampled_from(["plan", "accept", "format", "list", "limit", "before", "x"]),
)
def test_no_query_is_a_500(api: Caller, word: str, name: str) -> None:
    query = f"{name}={quoted(word.encode('utf-8', 'surrogatepass')).decode()}"
    for path in ("/lists", "/runs", "/lists/tech/subscribed", "/lists/tech/passwords", "/lists/tech/report"):
        response = api.client.get(f"/api/v1{path}", query_string=query, headers={"Authorization": f"Bearer {api.key}"})
        assert response.status_code < 500, path


# how it answers


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        (None, "text/plain"), ("*/*", "text/plain"), ("application/json", "application/json"),
        ("text/plain, application/problem+json", "text/plain"), ("application/json;q=0.5, text/plain", "text/plain"),
        ("image/png", "text/plain"), ("nonsense;;;", "text/plain"),
    ],
)  # fmt: skip
def test_exports_are_text_unless_json_is_asked_for(api, cast, accept, kind):
    headers = {} if accept is None else {"Accept": accept}
    assert api.get("/lists/members/subscribed", headers=headers).mimetype == kind


def test_counts_are_json_unless_text_is_asked_for(api, cast):
    assert api.post("/lists/members/init", ROSTER).mimetype == "application/json"
    assert api.post("/lists/members/init", ROSTER, headers={"Accept": "text/plain"}).text.startswith("subscribed: 0\n")
    assert api.post("/lists/members/init?format=json", ROSTER, headers={"Accept": "text/plain"}).json["kept"] == 4


def test_nobody_is_an_empty_answer(api):
    assert api.get("/lists/tech/subscribed").text == ""
    assert api.get("/lists/tech/subscribed?format=json").json == []


def test_a_large_answer_says_how_long_it_is(api, session, monkeypatch):
    monkeypatch.setattr(api_module, "_IN_MEMORY", 1000)
    monkeypatch.setattr(api_module, "_BLOCK", 700)
    addresses = [f"alice{number}@example.org" for number in range(200)]
    make_user(session, "alice", *addresses)
    api.post("/lists/tech/init", "".join(f"{each}\n" for each in addresses))
    for query, count in (("", "\n"), ("?format=json", "@")):
        response = api.get(f"/lists/tech/subscribed{query}")
        assert int(response.headers["Content-Length"]) == len(response.data) > 3000
        assert response.text.count(count) == 200
    head = api("HEAD", "/lists/tech/subscribed")
    assert (head.data, int(head.headers["Content-Length"]) > 3000) == (b"", True)


# list passwords


@pytest.fixture
def with_passwords(make_app: Callable[..., Flask], instance: Path, rosters: Rosters, key: str, cast: None) -> Caller:
    (instance / "mailinglists.toml").write_text(CATALOGUE.replace("syncpws = false", "syncpws = true", 1))
    app = make_app()
    app.test_client_class = Client
    return Caller(app.test_client(), key)


def test_passwords_are_answered_until_they_are_told_to_be_set(with_passwords, session):
    api = with_passwords
    first = api.get("/lists/members/passwords")
    assert first.mimetype == "text/plain"
    (line,) = first.text.splitlines()
    address, password = line.split("\t")
    assert (address, len(password)) == ("alice@example.org", list_passwords.LENGTH)
    assert api.get("/lists/members/passwords").text == first.text
    assert api.post("/lists/members/passwords", first.text).json == {"confirmed": 1, "invalid": 0}
    assert api.get("/lists/members/passwords").text == ""
    assert api.get("/lists/members/passwords?all=1").text == first.text


def test_lines_that_are_not_the_passwords_mark_nothing(with_passwords, session):
    api = with_passwords
    body = b"alice@example.org\twrong\nrubbish\n\xff\xfe\t\xff\n\0\t\0\nnobody@example.org\tx\n\n"
    assert api.post("/lists/members/passwords", body).json == {"confirmed": 0, "invalid": 2}
    assert api.get("/lists/members/passwords").text
    for empty in (b"", b"rubbish"):
        api.post("/lists/members/passwords", empty, 422)
    api.post("/lists/members/passwords", b"[]", 415, "application/json")
    answer = api.post("/lists/members/passwords", b"a@b.example\tx", headers={"Accept": "text/plain"})
    assert answer.text == "confirmed: 0\ninvalid: 0\n"


def test_a_list_without_password_sync_is_a_428(api, cast):
    for response in (api.get("/lists/members/passwords", 428), api.post("/lists/members/passwords", "x", 428)):
        assert "syncpws = false" in response.json["detail"]


# the security log


MEMBERS = "no,username,email,name\n1,ada,ada@example.org,Ada\n2,bob,bob@example.net,Bob\n"


def test_a_file_of_members_is_imported_as_the_command_does(api: Caller, session: Session) -> None:
    plan = api.post("/members?key=no&dry_run=1", MEMBERS, kind="text/csv").json
    assert (plan["import"], plan["counts"]["created"]) == (None, 2)
    assert [each["key"] for each in plan["lines"]] == ["1", "2"]
    done = api.post("/members?key=no", MEMBERS, kind="text/csv").json
    assert (done["plan"], done["counts"]["created"], done["lines"]) == (plan["plan"], 2, [])
    again = api.post("/members?key=no&leavers=deactivate", MEMBERS.partition("2,bob")[0], kind="text/csv").json
    assert again["counts"]["deactivated"] == 1
    history = log.recent(session, user_id=profiles.id_of(session, "bob"))
    assert history[0].actor == "dora, key list host (import 2)" or history[0].actor.endswith("(import 2)")


def test_a_file_of_members_beyond_the_limits_is_a_409_with_the_id_that_lets_it_through(api: Caller) -> None:
    people = [f"{n},user{n},user{n}@example.org,\n" for n in range(20)]
    header = "no,username,email,name\n"
    api.post("/members?key=no", header + "".join(people), kind="text/csv")
    query, body = "/members?key=no&leavers=deactivate", header + "".join(people[10:])
    plan = api.post(query, body, 409, kind="text/csv").json["plan"]
    api.post(f"{query}&accept={'0' * 16}", body, 409, kind="text/csv")
    assert api.post(f"{query}&accept={plan}", body, kind="text/csv").json["counts"]["deactivated"] == 10


@pytest.mark.parametrize(
    ("query", "body", "kind", "status"),
    [
        ("key=no", MEMBERS.rstrip("\n"), "text/csv", 422),
        ("key=no", "", "text/csv", 422),
        ("key=number", MEMBERS, "text/csv", 422),
        ("key=no", b"PK\x03\x04 rest\n", "text/csv", 422),
        ("key=no", MEMBERS, "text/plain", 415),
        ("dry_run=1&accept=0123456789abcdef", MEMBERS, "text/csv", 400),
        ("leavers=delete", MEMBERS, "text/csv", 400),
    ],
)
def test_a_file_of_members_that_cannot_be_used_changes_nothing(
    api: Caller, session: Session, query: str, body: str | bytes, kind: str, status: int
) -> None:
    before = [each.username for each in profiles.list_all(session)]
    api.post(f"/members?{query}", body, status, kind=kind)
    assert [each.username for each in profiles.list_all(session)] == before


def test_calls_are_told_in_the_security_log_by_numbers(api, key, instance, cast):
    api.get("/lists/members/subscribed")
    api.get("/lists", 401, headers={"Authorization": "Bearer canary-canary"})
    text = (instance / "security.log").read_text()
    found = [json.loads(line) for line in text.splitlines()]
    assert [each["event"] for each in found] == ["key made", "key used", "export", "key refused"]
    assert found[2] == found[2] | {"ip": "127.0.0.1", "api_key": 1, "list": "members", "of": "api.calls.subscribed"}
    assert "@" not in text
    assert "canary" not in text
    assert key[11:] not in text


def test_no_key_reaches_a_log_an_answer_or_the_database(api, key, session, caplog, cast):
    response = api.get("/lists")
    secret = key[12:]
    assert secret not in caplog.text + response.text + repr(dump(session)) + repr(response.headers)


def test_an_export_that_fails_is_an_error_and_not_a_short_list(api, cast, app, monkeypatch):
    """A list that ends early would look like people who left."""
    from sqlalchemy.exc import OperationalError

    from portal.services.sync import wanted

    def broken(*_args: Any, **_options: Any) -> Iterator[list[str]]:
        yield ["alice@example.org"]
        raise OperationalError("SELECT", {}, Exception("disk I/O error"))

    monkeypatch.setattr(wanted, "export", broken)
    api.get("/lists/members/subscribed", 503)
