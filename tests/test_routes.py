"""Default deny: every endpoint stands in the guard's table, and the table is what happens."""

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.routing import AnyConverter, BaseConverter

from portal.web.guards import ACCESS, Access
from tests.web.conftest import Visitor, alice, bob, client, open_visitor, people, visitor  # noqa: F401 - fixtures


def paths(app: Flask, access: Access) -> list[tuple[str, str]]:
    """Every method and path of the endpoints that stand so in the table."""
    found = []
    for rule in app.url_map.iter_rules():
        if ACCESS[rule.endpoint] is access and rule.endpoint != "static":
            arguments = {name: value_for(converter) for name, converter in rule._converters.items()}
            path = app.url_map.bind("localhost").build(rule.endpoint, arguments, method=None)
            found += [(method, path) for method in sorted((rule.methods or set()) - {"OPTIONS"})]
    return found


def value_for(converter: BaseConverter) -> str:
    """What a path may hold there: nothing of that name exists."""
    return min(converter.items) if isinstance(converter, AnyConverter) else "1"


def test_the_table_names_every_endpoint_and_no_other(app: Flask) -> None:
    assert {rule.endpoint for rule in app.url_map.iter_rules()} == set(ACCESS)


def test_an_endpoint_that_is_not_in_the_table_is_closed(app: Flask, bob: Visitor) -> None:  # noqa: F811
    app.view_functions["forgotten"] = lambda: "open"
    app.url_map.add(app.url_rule_class("/forgotten", endpoint="forgotten", methods=["GET"]))
    assert bob.client.get("/forgotten").status_code == 403
    assert app.test_client().get("/forgotten").status_code == 302


def test_public_pages_ask_nobody_to_log_in(app: Flask, client: FlaskClient) -> None:  # noqa: F811
    for method, path in paths(app, Access.PUBLIC):
        assert client.open(path, method=method).status_code in {200, 400}, (method, path)


@pytest.mark.parametrize("access", [Access.USER, Access.SUPERUSER])
def test_anonymous_people_are_led_to_the_log_in(app: Flask, client: FlaskClient, access: Access) -> None:  # noqa: F811
    for method, path in paths(app, access):
        response = client.open(path, method=method)
        assert response.status_code == 302, (method, path)
        assert response.headers["Location"].startswith("/login"), (method, path)


def test_members_are_kept_from_the_pages_of_superusers(app: Flask, alice: Visitor) -> None:  # noqa: F811
    checked = paths(app, Access.SUPERUSER)
    assert checked
    for method, path in checked:
        assert alice.client.open(path, method=method).status_code == 403, (method, path)


def test_superusers_reach_everything(app: Flask, bob: Visitor) -> None:  # noqa: F811
    for method, path in paths(app, Access.USER) + paths(app, Access.SUPERUSER):
        if method in {"GET", "HEAD"}:
            found = {200, 302, 404} if "/1" in path else {200, 302}  # there is no run 1, and no list of that name
            assert bob.client.open(path, method=method).status_code in found, (method, path)


def test_the_api_is_closed_to_whoever_has_no_key_superusers_at_a_browser_included(
    app: Flask,
    client: FlaskClient,  # noqa: F811
    bob: Visitor,  # noqa: F811
) -> None:
    checked = paths(app, Access.KEY)
    assert checked
    assert all(path.startswith("/api/v1/") for _, path in checked)
    for method, path in checked:
        for each in (client, bob.client):
            response = each.open(path, method=method)
            assert response.status_code == 401, (method, path)
            assert response.headers["WWW-Authenticate"].startswith("Bearer"), (method, path)
            assert "Set-Cookie" not in response.headers, (method, path)


def test_the_api_answers_401_and_no_redirect(app: Flask) -> None:
    app.view_functions["forgotten"] = lambda: "open"
    app.url_map.add(app.url_rule_class("/api/v1/forgotten", endpoint="forgotten", methods=["GET"]))
    response = app.test_client().get("/api/v1/forgotten")
    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
