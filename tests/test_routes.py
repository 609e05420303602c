"""Default deny: who may open which path, tested against the URL map instead of the guard's own tables."""

from collections.abc import Callable

import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.routing import AnyConverter, BaseConverter

from portal.services.accounts import api_keys
from tests.conftest import Clock
from tests.web.conftest import Client, Visitor, alice, bob, client, open_visitor, people, visitor  # noqa: F401 - fixtures

DOCUMENT = "/api/v1/openapi.json"
PUBLIC = {
    "/demo/mail",
    "/healthz",
    "/readyz",
    "/leave",
    "/login",
    "/link",
    "/link/1",
    "/link/ask",
    "/static/1",
    DOCUMENT,
}


def logged_in(app: Flask, username: str) -> Visitor:
    """Return somebody who is logged in to an application of the test's own."""
    app.test_client_class = Client
    found = Visitor(app.test_client())
    found.log_in(username)
    return found


def paths(app: Flask, *below: str) -> list[tuple[str, str]]:
    """Return every method and path; given ``below``, of those that begin so."""
    found = []
    for rule in app.url_map.iter_rules():
        arguments = {name: value_for(converter) for name, converter in rule._converters.items()}
        _, path = rule.build(arguments) or ("", "")
        found += [(method, path) for method in sorted(rule.methods or ()) if path.startswith(below or "/")]
    assert found
    return found


def of_members(app: Flask) -> list[tuple[str, str]]:
    return [
        (method, path) for method, path in paths(app) if not path.startswith(("/admin", "/api")) and path not in PUBLIC
    ]


def calls(app: Flask) -> list[tuple[str, str]]:
    return [(method, path) for method, path in paths(app, "/api") if path != DOCUMENT]


def value_for(converter: BaseConverter) -> str:
    """What a path may hold there: nothing of that name exists."""
    return min(converter.items) if isinstance(converter, AnyConverter) else "1"


def test_no_path_is_public_but_those_named_here(app: Flask, client: FlaskClient) -> None:  # noqa: F811
    answers = {(method, path): client.open(path, method=method).status_code for method, path in paths(app)}
    assert {path for (_, path), status in answers.items() if status not in {302, 401}} == PUBLIC
    assert {path for (_, path), status in answers.items() if status in {302, 401}} & PUBLIC == set()


def test_anyone_who_is_logged_out_is_led_to_the_log_in(app: Flask, client: FlaskClient) -> None:  # noqa: F811
    for method, path in paths(app, "/admin") + of_members(app):
        response = client.open(path, method=method)
        assert response.status_code == 302, (method, path)
        assert response.headers["Location"].startswith("/login"), (method, path)


def test_a_member_without_a_role_reaches_nothing_below_admin(app: Flask, alice: Visitor) -> None:  # noqa: F811
    for method, path in paths(app, "/admin"):
        assert alice.client.open(path, method=method).status_code == 403, (method, path)


def test_members_and_superusers_reach_the_pages_of_members(
    app: Flask,
    alice: Visitor,  # noqa: F811
    bob: Visitor,  # noqa: F811
) -> None:
    for method, path in of_members(app):
        status = {400} if method == "POST" else {200, 302, 405}  # no token; a path that only takes a POST
        for each in (alice, bob):
            assert each.client.open(path, method=method).status_code in status, (method, path)


def test_superusers_reach_everything_below_admin(app: Flask, bob: Visitor) -> None:  # noqa: F811
    for method, path in paths(app, "/admin"):
        found = {400} if method == "POST" else {200, 302}
        found |= {404} if "/1" in path else set()  # there is no run 1, and no list of that name
        assert bob.client.open(path, method=method).status_code in found, (method, path)


def test_the_api_is_closed_without_a_key_for_superusers_at_a_browser_too(
    app: Flask,
    client: FlaskClient,  # noqa: F811
    bob: Visitor,  # noqa: F811
) -> None:
    for method, path in calls(app):
        for each in (client, bob.client):
            response = each.open(path, method=method)
            assert response.status_code == 401, (method, path)
            assert response.headers["WWW-Authenticate"].startswith("Bearer"), (method, path)
            assert "Set-Cookie" not in response.headers, (method, path)


def test_a_key_reaches_the_api_and_no_page(
    app: Flask,
    client: FlaskClient,  # noqa: F811
    people: dict[str, int],  # noqa: F811
    session: Session,
    clock: Clock,
) -> None:
    key = api_keys.create(session, "bob", label="x", expires_days=None, now=clock())
    headers = {"Authorization": f"Bearer {key}"}
    for method, path in calls(app):
        assert client.open(path, method=method, headers=headers).status_code in {200, 404, 415}, (method, path)
    for method, path in paths(app, "/admin") + of_members(app):
        assert client.open(path, method=method, headers=headers).status_code == 302, (method, path)


@pytest.mark.parametrize("endpoint", ["forgotten", "sign_in.forgotten", "health.forgotten", "static.forgotten"])
@pytest.mark.parametrize("path", ["/forgotten", "/admin/forgotten", "/login/forgotten"])
def test_an_endpoint_that_nobody_named_is_closed_wherever_it_is(
    make_app: Callable[..., Flask],
    people: dict[str, int],  # noqa: F811
    path: str,
    endpoint: str,
) -> None:
    app = make_app()
    plant(app, path, endpoint)
    member, superuser = logged_in(app, "alice"), logged_in(app, "bob")
    for method in ("GET", "HEAD", "POST"):
        assert app.test_client().open(path, method=method).status_code == 302
        for each in (member, superuser):
            assert each.client.open(path, method=method).status_code == 403


@pytest.mark.parametrize("endpoint", ["forgotten", "api.forgotten", "api.calls.forgotten"])
def test_a_call_that_nobody_named_is_a_401_and_no_redirect(make_app: Callable[..., Flask], endpoint: str) -> None:
    app = make_app()
    plant(app, "/api/v1/forgotten", endpoint)
    for method in ("GET", "HEAD", "POST"):
        response = app.test_client().open("/api/v1/forgotten", method=method)
        assert response.status_code == 401
        assert response.mimetype == "application/problem+json"


def test_a_page_that_registers_below_admin_is_for_superusers_from_the_start(
    make_app: Callable[..., Flask],
    people: dict[str, int],  # noqa: F811
) -> None:
    app = make_app()
    plant(app, "/admin/new", "admin.new.index")
    member, superuser = logged_in(app, "alice"), logged_in(app, "bob")
    assert member.client.get("/admin/new").status_code == 403
    assert superuser.client.get("/admin/new").status_code == 200


def plant(app: Flask, path: str, endpoint: str, view: Callable[[], str] = lambda: "open") -> None:
    """Add an endpoint to an application that has begun to answer."""
    app.view_functions[endpoint] = view
    app.url_map.add(app.url_rule_class(path, endpoint=endpoint, methods=["GET", "POST"]))
