"""The portal below a path of its host: the prefix in redirects, `next`, links and the name of the cookie."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient

from portal.config import Settings
from tests.web.conftest import PASSWORD, Client

HOST = "https://example.org"
STRIPPED = {"X-Forwarded-Prefix": "/portal"}  # what a web server says that took the prefix off the path


@pytest.fixture
def below(make_app: Callable[..., Flask], people: dict[str, int]) -> Callable[..., FlaskClient]:
    """A browser of a portal at a path, behind one web server."""

    def build(base_url: str = f"{HOST}/portal") -> FlaskClient:
        app = make_app(PORTAL_BASE_URL=base_url, PORTAL_TRUSTED_PROXIES="1")
        app.test_client_class = Client
        return app.test_client()

    return build


def log_in(client: FlaskClient, at: str, **base: Any) -> Any:
    token = re.search(r'name="csrf_token" value="([^"]+)"', client.get(at, base_url=HOST, **base).text)
    assert token
    form = {"csrf_token": token[1], "username": "alice", "password": PASSWORD}
    headers = {**base.pop("headers", {}), "Referer": f"{HOST}/portal/login"}
    return client.post(at, data=form, base_url=HOST, headers=headers, **base)


@pytest.mark.parametrize(("seen", "headers"), [("/portal", {}), ("", {}), ("", STRIPPED)])
def test_pages_links_and_redirects_carry_the_prefix_whether_the_web_server_strips_it_or_not(
    below: Callable[..., FlaskClient], seen: str, headers: dict[str, str]
) -> None:
    client = below()
    asked = client.get(f"{seen}/account?x=1", base_url=HOST, headers=headers)
    assert (asked.status_code, asked.headers["Location"]) == (302, "/portal/login?next=/portal/account?x%3D1")

    answer = log_in(client, f"{seen}/login?next=/portal/account?x%3D1", headers=headers)
    assert (answer.status_code, answer.headers["Location"]) == (303, "/portal/account?x=1")
    page = client.get(f"{seen}/account", base_url=HOST, headers=headers)
    assert page.status_code == 200
    places = re.findall(r'(?:href|action|src)="([^"#][^"]*)"', page.text)
    assert {each.partition("/portal/")[0] for each in places if each.startswith("/")} == {""}
    style = next(each for each in places if ".css" in each)
    with client.get(style.replace("/portal", seen, 1), base_url=HOST, headers=headers) as served:
        assert served.status_code == 200


def test_the_prefix_alone_leads_to_the_first_page(below: Callable[..., FlaskClient]) -> None:
    client = below()
    assert client.get("/portal", base_url=HOST).headers["Location"] == f"{HOST}/portal/"
    assert client.get("/portal/", base_url=HOST).headers["Location"] == "/portal/login"


@pytest.mark.parametrize("target", ["/", "/account", "/other/account", "/portals", "//evil/portal/", "/portal"])
def test_next_leads_nowhere_outside_the_prefix(below: Callable[..., FlaskClient], target: str) -> None:
    answer = log_in(below(), f"/portal/login?next={target}")
    assert answer.headers["Location"] == "/portal/subscriptions"


def test_a_path_that_is_also_a_page_is_served_where_the_web_server_says_that_it_strips(
    below: Callable[..., FlaskClient],
) -> None:
    client = below(f"{HOST}/account")
    asked = client.get("/account", base_url=HOST, headers={"X-Forwarded-Prefix": "/account"})
    assert asked.headers["Location"] == "/account/login?next=/account/account"


@pytest.mark.parametrize("forged", ["//evil.example", "/elsewhere", "/portal/login"])
def test_a_prefix_of_a_browsers_making_leads_nowhere(below: Callable[..., FlaskClient], forged: str) -> None:
    for base_url in (f"{HOST}/portal", HOST):
        prefix = base_url.removeprefix(HOST)
        asked = below(base_url).get("/account", base_url=HOST, headers={"X-Forwarded-Prefix": forged})
        assert asked.headers["Location"] == f"{prefix}/login?next={prefix}/account"


def test_two_portals_on_one_host_have_cookies_of_their_own(below: Callable[..., FlaskClient]) -> None:
    cookies = [
        below(url).get("/login", base_url=HOST).headers["Set-Cookie"]
        for url in (f"{HOST}/a", f"{HOST}/b", f"{HOST}/b/")
    ]
    names = [each.partition("=")[0] for each in cookies]
    assert names[0] != names[1] == names[2]
    assert all(re.fullmatch(r"__Host-portal-[0-9a-f]{8}", each) for each in names)
    assert all("; Path=/;" in each for each in cookies)


def test_the_api_is_described_where_it_is(below: Callable[..., FlaskClient]) -> None:
    document = below().get("/portal/api/v1/openapi.json", base_url=HOST).json
    assert document["servers"] == [{"url": "/portal/api/v1"}]


@pytest.mark.parametrize("path", ["/a b", "//evil", "/a//b", "/..", "/ä", "/a?b", "/a#b", "/%2e", "/a;b"])
def test_a_base_url_with_a_path_that_browsers_would_read_otherwise_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="base_url"):
        Settings(base_url=f"{HOST}{path}")
