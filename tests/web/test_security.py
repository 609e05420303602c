"""What the web must withstand; numbers are those of SECURITY."""

import logging
import re
from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from typing import Any

import pytest
from flask import Flask, request
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.services.accounts import api_keys
from portal.web.guards import is_local
from tests.conftest import Clock
from tests.test_routes import of_members, paths
from tests.web.conftest import PASSWORD, Client, Visitor

POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HOSTILE = [
    "\0",
    "\ud800",
    "%00",
    "'\"--",
    "<script>alert(1)</script>",
    "{{7*7}}",
    "\r\nX: y",
    "\u202e",
    "9" * 300,
    "=1+1",
]


# What forms of members and superusers take, and what they may look like.
FIELDS = {
    "username": "zed", "name": "Zed", "email": "zed@example.org", "groups": "a;b", "label": "x", "days": "3",
    "text": "username,email\nzed,zed@example.org\n", "reason": "moved", "handle": "members",
    "kind": "sync", "plan_id": "", "address": "1", "log_in": "1", "shown": "x", "lists": "members",
}  # fmt: skip
QUERIES = (
    "q", "state", "group", "sort", "page", "format", "bulk_action", "address", "handle", "before", "after", "action", "result",
    "superuser", "active",
)  # fmt: skip


def visit(app: Flask) -> Visitor:
    app.test_client_class = Client
    return Visitor(app.test_client())


@pytest.fixture
def broken(make_app: Callable[..., Flask], people: dict[str, int]) -> Flask:
    """An application with a page that fails."""
    app = make_app()
    app.config["PROPAGATE_EXCEPTIONS"] = False
    app.view_functions["health.alive"] = lambda: 1 / 0
    return app


# 8: cookies


def test_cookies_are_bound_to_the_host_behind_https(make_app: Callable[..., Flask], people: dict[str, int]) -> None:
    app = make_app(PORTAL_BASE_URL="https://portal.example.org")
    response = visit(app).client.get("/login", base_url="https://portal.example.org")
    assert re.fullmatch(r"__Host-portal=[^;]+; Secure; HttpOnly; Path=/; SameSite=Lax", response.headers["Set-Cookie"])


def test_cookies_are_httponly_and_lax_without_https_too(visitor: Visitor) -> None:
    assert re.fullmatch(
        r"portal=[^;]+; HttpOnly; Path=/; SameSite=Lax", visitor.client.get("/login").headers["Set-Cookie"]
    )


def test_logging_in_behind_https_works(make_app: Callable[..., Flask], people: dict[str, int]) -> None:
    client = visit(make_app(PORTAL_BASE_URL="https://portal.example.org")).client
    base = {"base_url": "https://portal.example.org", "headers": {"Referer": "https://portal.example.org/login"}}
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get("/login", **base).text)
    assert token
    data = {"csrf_token": token[1], "username": "alice", "password": PASSWORD}
    assert client.post("/login", data=data, **base).status_code == 303
    assert client.get("/subscriptions", **base).status_code == 200
    foreign = base | {"headers": {"Referer": "https://evil.example/login"}}
    assert client.post("/logout", data={"csrf_token": token[1]}, **foreign).status_code == 400


@pytest.mark.parametrize("cookie", ["x|\xe9", "x", "", "alice|0"])
def test_a_remember_cookie_of_anybodys_making_is_nothing(visitor: Visitor, cookie: str) -> None:
    for name in ("remember_token", "", "="):
        response = visitor.client.get("/account", headers={"Cookie": f"{name}={cookie}; portal=nonsense"})
        assert response.status_code == 302


# 9: other hosts


@pytest.mark.parametrize("host", ["evil.example", "portal.example.org.evil.example", "a b", "[", ""])
def test_behind_https_no_other_host_is_answered(make_app: Callable[..., Flask], host: str) -> None:
    client = make_app(PORTAL_BASE_URL="https://portal.example.org").test_client()
    response = client.get("/login", headers={"Host": host})
    assert response.status_code == 400
    assert host not in response.text or not host
    assert response.headers["Content-Security-Policy"] == POLICY


@pytest.mark.parametrize("host", ["portal.example.org", "portal.example.org:8443", "localhost:8000", "127.0.0.1:8000"])
def test_the_portals_own_host_is_answered(make_app: Callable[..., Flask], host: str) -> None:
    client = make_app(PORTAL_BASE_URL="https://portal.example.org:8443").test_client()
    assert client.get("/login", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["10.0.0.7:8000", "pod-3.example.internal", "a b", "..", ""])
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/portal/readyz"])
def test_what_watches_the_portal_is_answered_by_whatever_name_it_asks(
    make_app: Callable[..., Flask], host: str, path: str
) -> None:
    client = make_app(PORTAL_BASE_URL="https://portal.example.org/portal").test_client()
    assert client.get(path, headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["..", "a..b", "x" * 300])
def test_a_host_that_cannot_be_is_a_400_with_the_headers(visitor: Visitor, host: str) -> None:
    response = visitor.client.get("/login", headers={"Host": host})
    assert response.status_code == 400
    assert response.headers["Content-Security-Policy"] == POLICY


# 11: writes


def dump(session: Session, *, without: tuple[str, ...] = ()) -> dict[str, list[Any]]:
    """Every row of every table, but for columns that may change."""
    session.rollback()
    found = {}
    for table in db.metadata.sorted_tables:
        columns = [column for column in table.columns if f"{table.name}.{column.name}" not in without]
        found[table.name] = sorted(repr(tuple(row)) for row in session.execute(db.select(*columns)))
    session.rollback()
    return found


@pytest.mark.parametrize("who", ["anonymous", "alice", "bob", "key"])
def test_a_get_or_head_of_any_route_changes_no_row(
    app: Flask, people: dict[str, int], session: Session, clock: Clock, who: str
) -> None:
    visitor, headers = visit(app), {}
    if who == "key":
        key = api_keys.create(session, "bob", label="x", expires_days=None, now=clock())
        headers["Authorization"] = f"Bearer {key}"
    elif who != "anonymous":
        visitor.log_in(who)
    clock.advance(hours=1)
    may_change = ("login_sessions.seen_at", "api_keys.last_used_at")
    before = dump(session, without=may_change)
    for path in {path for _, path in paths(app)}:
        for there in {path, path.replace("/lists/1/", "/lists/members/")}:
            visitor.client.get(there, headers=headers)
            visitor.client.head(there, headers=headers)
    assert dump(session, without=may_change) == before


@pytest.mark.parametrize("token", [None, "", "x", "é", "\0"])
@pytest.mark.parametrize("path", ["/subscriptions", "/account", "/logout"])
def test_a_post_without_its_token_does_nothing(alice: Visitor, session: Session, path: str, token: str | None) -> None:
    shown = alice.get("/subscriptions").value("shown")
    before = dump(session)
    data = {"shown": shown, "lists": ["members"], "current": PASSWORD, "new": "x" * 20, "again": "x" * 20}
    response = alice.client.post(path, data=data if token is None else {**data, "csrf_token": token})
    assert response.status_code == 400
    assert dump(session) == before
    alice.get("/account")


def test_no_post_of_any_route_does_anything_without_its_token(app: Flask, bob: Visitor, session: Session) -> None:
    before = dump(session)
    for method, path in paths(app, "/admin") + of_members(app):
        if method == "POST":
            there = path.replace("/lists/1/", "/lists/members/")
            assert bob.client.post(f"{there}?bulk_action=subscribe", data=FIELDS).status_code == 400, there
    assert dump(session) == before


def test_a_log_in_without_its_token_does_nothing(visitor: Visitor, people: dict[str, int]) -> None:
    response = visitor.client.post("/login", data={"username": "alice", "password": PASSWORD})
    assert response.status_code == 400
    assert visitor.client.get("/account").status_code == 302


def test_a_form_is_good_for_as_long_as_the_log_in(alice: Visitor, clock: Clock) -> None:
    assert alice.client.application.config["WTF_CSRF_TIME_LIMIT"] is None


# 12: where a log-in leads


@pytest.mark.parametrize(
    "target",
    ["//evil.example", "/\\evil.example", "/\t/evil.example", "///evil.example", "https://evil.example", "\\\\evil.example",
     "javascript:alert(1)", "/\r\n/evil.example", "/\n/evil.example", " //evil.example", "/\u2028/evil.example", "", "evil",
     "/a\r\nSet-Cookie: a=b", "/\0", "http:evil.example", "//evil.example/%2f..", "/" + "a" * 3000, "/\x85/evil"],
)  # fmt: skip
def test_a_log_in_never_leads_elsewhere(visitor: Visitor, people: dict[str, int], target: str) -> None:
    token = visitor.get("/login").token
    data = {"csrf_token": token, "username": "alice", "password": PASSWORD}
    response = visitor.client.post("/login", query_string={"next": target}, data=data)
    assert response.status_code == 303
    assert response.headers["Location"] == "/subscriptions"
    again = visitor.client.get("/login", query_string={"next": target})
    assert again.headers["Location"] == "/subscriptions"


@pytest.mark.parametrize("target", ["//evil.example", "/\\evil.example", "/\t/evil.example", "evil", "/" + "a" * 2000])
def test_what_browsers_may_take_for_another_host_is_not_local(target: str) -> None:
    assert not is_local(target)


def test_a_log_in_leads_to_the_page_that_was_asked_for(visitor: Visitor, people: dict[str, int]) -> None:
    asked = visitor.client.get("/admin/runs?handle=tech&page=3").headers["Location"]
    assert asked.startswith("/login?next=/admin/runs")
    data = {"csrf_token": visitor.get(asked).token, "username": "bob", "password": PASSWORD}
    assert visitor.client.post(asked, data=data).headers["Location"] == "/admin/runs?handle=tech&page=3"


@given(st.text())
def test_whatever_is_local_is_a_path(target: str) -> None:
    from urllib.parse import urljoin, urlsplit

    if is_local(target):
        assert urlsplit(urljoin("https://portal.example.org/login", target)).netloc == "portal.example.org"


# 13: headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/login", 200), ("GET", "/subscriptions", 302), ("GET", "/nowhere", 404), ("GET", "/api/v1/nowhere", 404),
        ("DELETE", "/login", 405), ("POST", "/login", 400), ("GET", "/static/nothing.css", 404), ("GET", "/admin", 308),
        ("GET", "/readyz", 200), ("OPTIONS", "/login", 200), ("GET", "/%00", 404), ("GET", "/healthz", 500),
    ],
)  # fmt: skip
def test_the_headers_are_on_every_answer(broken: Flask, method: str, path: str, status: int) -> None:
    response = visit(broken).client.open(path, method=method)
    assert response.status_code == status
    check_headers(response.headers)


def check_headers(headers: Any) -> None:
    assert headers["Content-Security-Policy"] == POLICY
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


def test_the_headers_are_on_refusals_of_members_too(alice: Visitor) -> None:
    check_headers(alice.get("/admin/", 403).response.headers)
    for _ in range(6):
        response = alice.client.post(
            "/account",
            data={
                "csrf_token": alice.get("/account").token,
                "current": "wrong",
                "new": "a b c d e f g h",
                "again": "a b c d e f g h",
            },
        )
    assert response.status_code == 429
    check_headers(response.headers)


def test_the_stylesheet_may_be_kept_and_is_protected_too(visitor: Visitor) -> None:
    link = re.search(r'href="(/static/portal\.css\?v=[0-9a-f]+)"', visitor.get("/login").html)
    assert link
    with visitor.client.get(link[1]) as response:
        assert "max-age=31536000" in response.headers["Cache-Control"]
        assert response.headers["Content-Security-Policy"] == POLICY


def test_a_failure_tells_nothing_and_the_log_everything(broken: Flask, caplog: pytest.LogCaptureFixture) -> None:
    page = visit(broken).get("/healthz", 500)
    assert "division" not in page.html
    assert "ZeroDivisionError" in caplog.text


def test_error_pages_are_pages(alice: Visitor) -> None:
    assert alice.get("/nowhere", 404).title.startswith("Not found")
    assert "Log out" in alice.get("/nowhere", 404).text
    response = alice.client.delete("/subscriptions")
    assert response.status_code == 405
    assert "GET" in response.headers["Allow"]


@pytest.mark.usefixtures("mends_the_database")
def test_a_database_that_is_gone_is_a_calm_page(make_app: Callable[..., Flask], alice: Visitor) -> None:
    with alice.client.application.app_context(), db.engine.begin() as connection:
        connection.execute(text("DROP TABLE login_sessions"))
    page = alice.get("/subscriptions", 503)
    assert "login_sessions" not in page.html
    alice.get("/nowhere", 503)


# 15: bounds


def test_a_form_that_does_not_say_how_long_it_is_is_not_read(alice: Visitor) -> None:
    form = {"csrf_token": alice.get("/account").token}
    headers = {"Transfer-Encoding": "chunked"}
    assert alice.client.post("/account/log-ins/end-others", data=form, headers=headers).status_code == 411
    assert alice.client.post("/account/log-ins/end-others", data=form).status_code == 303


def test_a_body_over_the_limit_is_a_413(make_app: Callable[..., Flask], people: dict[str, int]) -> None:
    alice = visit(make_app(PORTAL_MAX_BODY="2048"))
    alice.log_in("alice")
    page = alice.post("/subscriptions", {"shown": "x" * 3000}, page="/account", status=413)
    assert page.title.startswith("Too large")
    check_headers(page.response.headers)


@pytest.mark.parametrize("word", HOSTILE)
def test_a_hostile_word_in_any_field_is_never_a_500(
    alice: Visitor, open_visitor: Callable[[], Visitor], word: str
) -> None:
    raw = word.encode("utf-8", "surrogatepass")
    token = alice.get("/account").token.encode()
    forms = {
        "/login": ("username", "password", "remember"),
        "/account": ("current", "new", "again"),
        "/subscriptions": ("shown", "lists", "addresses"),
    }
    for path, fields in forms.items():
        who, proof = alice, token
        if path == "/login":
            who = open_visitor()
            proof = who.get("/login").token.encode()
        body = b"&".join([b"csrf_token=" + proof, *(name.encode() + b"=" + quoted(raw) for name in fields)])
        response = who.client.post(path, data=body, content_type="application/x-www-form-urlencoded")
        assert response.status_code < 500, path
        response = who.client.post(f"{path}?{quoted(raw).decode()}", data=body[: len(body) // 2])
        assert response.status_code < 500, path


@pytest.mark.slow
@pytest.mark.parametrize("word", ["\0", "\ud800", "\u2028", "9" * 19])
def test_a_hostile_word_in_any_field_of_a_superuser_is_never_a_500(app: Flask, bob: Visitor, word: str) -> None:
    """One field at a time is hostile: a form that is refused for one says nothing of the others."""
    token, raw = bob.get("/account").token.encode(), quoted(word.encode("utf-8", "surrogatepass"))
    for method, path in paths(app, "/admin"):
        if method in {"HEAD", "OPTIONS"}:
            continue
        there = path.replace("/lists/1", "/lists/members")
        for name in FIELDS if method == "POST" else QUERIES:
            if method == "POST":
                values = {**{key: quoted(value.encode()) for key, value in FIELDS.items()}, name: raw}
                body = b"&".join([b"csrf_token=" + token, *(key.encode() + b"=" + values[key] for key in values)])
                kind = "application/x-www-form-urlencoded"
                response = bob.client.post(f"{there}?bulk_action=subscribe", data=body, content_type=kind)
            else:
                bulk_action = "" if name == "bulk_action" else "bulk_action=subscribe&"
                response = bob.client.open(f"{there}?{bulk_action}{name}={raw.decode()}", method=method)
            response.get_data()
            assert response.status_code < 500, (method, there, name)


def quoted(raw: bytes) -> bytes:
    return b"".join(b"%%%02X" % byte for byte in raw)


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(word=st.text(alphabet=st.characters(), max_size=80), name=st.sampled_from(["next", "handle", "before", "x"]))
def test_no_query_is_a_500(bob: Visitor, word: str, name: str) -> None:
    query = f"{name}={quoted(word.encode('utf-8', 'surrogatepass')).decode()}"
    for path in ("/login", "/subscriptions", "/account", "/admin/", "/admin/runs", "/healthz", "/readyz", "/"):
        assert bob.client.get(path, query_string=query).status_code < 500, path


@pytest.mark.slow
@settings(max_examples=60, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.text(alphabet=st.characters(), max_size=60), min_size=3, max_size=3))
def test_no_text_in_a_form_is_a_500(alice: Visitor, words: list[str]) -> None:
    token = alice.get("/account").token.encode()
    raw = [quoted(word.encode("utf-8", "surrogatepass")) for word in words]
    for path, fields in {
        "/account": ("current", "new", "again"),
        "/subscriptions": ("shown", "lists", "addresses"),
    }.items():
        pairs = [name.encode() + b"=" + word for name, word in zip(fields, raw, strict=True)]
        body = b"&".join([b"csrf_token=" + token, *pairs])
        response = alice.client.post(path, data=body, content_type="application/x-www-form-urlencoded")
        assert response.status_code < 500, path


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(words=st.lists(st.text(alphabet=st.characters(), max_size=60), min_size=2, max_size=2))
def test_no_name_or_password_is_a_500(visitor: Visitor, words: list[str]) -> None:
    raw = [quoted(word.encode("utf-8", "surrogatepass")) for word in words]
    body = b"csrf_token=%s&username=%s&password=%s" % (visitor.get("/login").token.encode(), *raw)
    response = visitor.client.post("/login", data=body, content_type="application/x-www-form-urlencoded")
    assert response.status_code in {400, 401, 422, 429}


@pytest.mark.parametrize(
    ("path", "name"),
    [("/login", "username"), ("/login", "password"), ("/account", "current"), ("/account", "new")]
    + [("/subscriptions", name) for name in ("shown", "lists", "addresses")],
)
def test_a_file_in_the_place_of_a_text_is_never_a_500(
    visitor: Visitor, people: dict[str, int], path: str, name: str
) -> None:
    if path != "/login":
        visitor.log_in("alice")
    form = {"username": "alice", "password": "x", "current": "x", "new": "x" * 20, "again": "x" * 20}
    form |= {"csrf_token": visitor.get(path).token, name: (BytesIO(b"x"), "x.txt")}
    assert visitor.client.post(path, data=form, content_type="multipart/form-data").status_code in {303, 400, 422}


@pytest.mark.parametrize("body", [{"username": 1, "password": [2]}, [1, 2], "x", None])
def test_json_in_the_place_of_a_form_is_never_a_500(visitor: Visitor, body: object) -> None:
    token = visitor.get("/login").token
    assert visitor.client.post("/login", json=body, headers={"X-CSRFToken": token}).status_code in {400, 422}


@settings(max_examples=40, suppress_health_check=list(HealthCheck))
@given(path=st.text(alphabet=st.characters(), max_size=40))
def test_no_path_is_a_500(alice: Visitor, path: str) -> None:
    raw = b"/" + quoted(path.encode("utf-8", "surrogatepass"))
    assert alice.client.get(raw.decode()).status_code < 500


# 16 and 19: what is shown, and what reaches a header


def test_names_and_addresses_are_shown_as_text(visitor: Visitor, people: dict[str, int], session: Session) -> None:
    from tests.factories import make_user
    from tests.web.conftest import HASH

    hostile = '"><img src=x onerror=alert(1)>'
    make_user(
        session, hostile, "`id`@example.org", "/etc/passwd@example.org", groups=("<b>full</b>",), password_hash=HASH
    )
    visitor.log_in(hostile)
    for path in ("/account", "/subscriptions"):
        assert "<img" not in visitor.get(path).html


# 22: secrets


def test_secrets_reach_neither_log_nor_page_nor_database(
    visitor: Visitor, people: dict[str, int], session: Session, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    visitor.post("/login", {"username": "alice", "password": "canary-one-canary"}, status=401)
    visitor.log_in("alice")
    with visitor.client.session_transaction() as kept:
        token = kept["_user_id"]
    form = {"current": PASSWORD, "new": "canary two canary", "again": "canary two canary"}
    page = visitor.follow("/account", form)
    everything = caplog.text + page.html + repr(dump(session)) + visitor.get("/subscriptions").html
    for secret in ("canary-one-canary", "canary two canary", PASSWORD, token):
        assert secret not in everything


@pytest.mark.usefixtures("mends_the_database")
def test_ready_tells_of_a_database_without_tables_and_nothing_more(
    make_app: Callable[..., Flask], visitor: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    assert visitor.client.get("/readyz").text == "ready\n"
    with visitor.client.application.app_context(), db.engine.begin() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '0000'"))
    response = visitor.client.get("/readyz")
    assert (response.status_code, response.text) == (503, "not ready\n")
    assert "not ready: the tables do not match this version of the portal" in caplog.text
    with visitor.client.application.app_context(), db.engine.begin() as connection:
        connection.execute(text("DROP TABLE alembic_version"))
    assert visitor.client.get("/readyz").status_code == 503
    assert visitor.client.get("/healthz").text == "alive\n"


def only_reads(app: Flask) -> None:
    """Let an application's database be read alone from now on."""
    with app.app_context():
        db.engine.dispose()

        @event.listens_for(db.engine, "connect")
        def only_read(connection: Any, _record: object) -> None:
            with closing(connection.cursor()) as cursor:
                is_sqlite = db.engine.dialect.name == "sqlite"
                cursor.execute("PRAGMA query_only = ON" if is_sqlite else "SET default_transaction_read_only = on")
            connection.commit()


def test_ready_tells_of_a_database_that_can_only_be_read(make_app: Callable[..., Flask]) -> None:
    app = make_app()
    only_reads(app)
    visitor = visit(app)
    assert visitor.client.get("/readyz").status_code == 503
    assert visitor.client.get("/healthz").status_code == 200


def test_what_a_database_that_can_only_be_read_holds_is_shown(
    make_app: Callable[..., Flask], people: dict[str, int], session: Session, clock: Clock
) -> None:
    app = make_app()
    visitor = visit(app)
    visitor.log_in("bob")
    key = api_keys.create(session, "bob", label="x", expires_days=None, now=clock())
    before = dump(session)
    clock.advance(minutes=6)
    only_reads(app)
    pages = {path for method, path in paths(app) if method == "GET" and path != "/readyz"}
    assert {path for path in sorted(pages) if visitor.client.get(path).status_code >= 500} == set()
    for sent, status in ((key, 200), (f"{key[:-1]}-", 401)):
        assert visitor.client.get("/api/v1/lists", headers={"X-API-Key": sent}).status_code == status
    assert visitor.client.post("/logout", data={"csrf_token": visitor.get("/account").token}).status_code == 503
    assert visitor.client.get("/account").status_code == 302, "the browser has no log-in any more"
    assert dump(session) == before


def test_the_newest_migration_is_what_alembic_says() -> None:
    from portal.services.reports.readiness import VERSIONS, newest

    text = next(VERSIONS.glob(f"{newest()}_*.py")).read_text()
    assert f'revision = "{newest()}"' in text
    assert all(f'down_revision = "{newest()}"' not in path.read_text() for path in VERSIONS.glob("*.py"))


@pytest.mark.parametrize(
    ("proxies", "chain", "origin"),
    [
        ("0", "203.0.113.9", "127.0.0.1"),
        ("1", "203.0.113.9", "203.0.113.9"),
        ("1", "198.51.100.1, 203.0.113.9", "203.0.113.9"),  # what the browser wrote is not believed
        ("2", "203.0.113.9, 10.0.0.1", "203.0.113.9"),
    ],
)
def test_an_origin_is_believed_from_as_many_proxies_as_are_trusted(
    make_app: Callable[..., Flask], proxies: str, chain: str, origin: str
) -> None:
    app = make_app(PORTAL_TRUSTED_PROXIES=proxies)
    seen: list[tuple[str | None, str]] = []
    app.before_request_funcs[None].insert(0, lambda: seen.append((request.remote_addr, request.host)))
    app.test_client().get("/login", headers={"X-Forwarded-For": chain, "X-Forwarded-Host": "evil.example"})
    assert seen == [(origin, "localhost")], "no proxy names the host"
