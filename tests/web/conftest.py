"""A browser that checks every page it fetches, and members with a password."""

import re
from collections.abc import Callable
from contextvars import Context
from html.parser import HTMLParser
from typing import Any

import html5lib
import pytest
from flask import Flask
from flask.testing import FlaskClient
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.services.accounts.passwords import hash_password
from tests.factories import make_user

PASSWORD = "correct horse battery"
HASH = hash_password(PASSWORD, rounds=4)


class Client(FlaskClient):
    """A client whose requests share nothing with the test: neither its application context nor its ``g``."""

    def open(self, *args: Any, **kwargs: Any) -> TestResponse:
        return Context().run(super().open, *args, **kwargs)


class Page(HTMLParser):
    """A page that is valid HTML, has a title, one h1 and no inline style or script, and whose labels lead somewhere."""

    def __init__(self, response: TestResponse) -> None:
        super().__init__()
        self.response = response
        self.status = response.status_code
        source = response.get_data(as_text=True)
        self.html = source.replace("<wbr>", "")  # where a line may break, nothing is read
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.forms: list[tuple[str | None, dict[str, str]]] = []
        self.feed(self.html)
        html5lib.HTMLParser(strict=True).parse(source)
        self._check()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.tags.append((tag, values))
        if tag == "form":
            self.forms.append((values.get("action"), {}))
        elif tag == "input" and values.get("type") == "hidden" and self.forms:
            self.forms[-1][1][values["name"] or ""] = values["value"] or ""

    def _check(self) -> None:
        ids = [each["id"] for _, each in self.tags if "id" in each]
        assert len(ids) == len(set(ids)), f"an id twice: {ids}"
        for tag, each in self.tags:
            assert tag not in {"script", "style"}, f"inline {tag}"
            assert not any(name == "style" or name.startswith("on") for name in each), f"inline style or script: {each}"
            for name in ("for", "aria-describedby", "aria-labelledby"):
                assert set((each.get(name) or "").split()) <= set(ids), f"{name} leads nowhere: {each}"
            if tag == "a" and (each["href"] or "").startswith("#"):
                assert (each["href"] or "")[1:] in ids, f"a link leads nowhere: {each}"
        assert self.title
        assert sum(tag == "h1" for tag, _ in self.tags) == 1
        assert "None" not in self.text
        assert "{{" not in self.html

    @property
    def title(self) -> str:
        found = re.search(r"<title>(.*?)</title>", self.html, re.DOTALL)
        return found[1].strip() if found else ""

    @property
    def text(self) -> str:
        """The words between the tags."""
        body = self.html.partition("<body>")[2]
        return " ".join(re.sub(r"<[^>]*>", " ", body).split())

    def hidden(self, path: str) -> dict[str, str]:
        """What the form that posts to a path carries; the page's own path goes without saying."""
        return next((fields for action, fields in self.forms if action in {None, path} and fields), {})

    @property
    def token(self) -> str:
        return self.value("csrf_token")

    def value(self, name: str) -> str:
        """The value of the first field of a name."""
        return next(each["value"] or "" for tag, each in self.tags if tag == "input" and each.get("name") == name)

    def ticked(self) -> set[str]:
        boxes = [each for tag, each in self.tags if tag == "input" and each.get("name") == "lists"]
        return {each["value"] or "" for each in boxes if "checked" in each}


class Visitor:
    """Somebody at a browser: fetches pages, fills in forms with the token of the page, follows redirects."""

    def __init__(self, client: FlaskClient) -> None:
        self.client = client

    def get(self, path: str, status: int = 200) -> Page:
        response = self.client.get(path)
        assert response.status_code == status, response.get_data(as_text=True)
        return Page(response)

    def post(
        self, path: str, form: dict[str, Any], *, page: str | None = None, status: int = 303
    ) -> Page | TestResponse:
        """Post a form with what its page carries; a redirect is returned, not followed."""
        shown = self.get(page or path)
        data = {"csrf_token": shown.token, **shown.hidden(path), **form}
        response = self.client.post(path, data=data)
        assert response.status_code == status, response.get_data(as_text=True)
        return response if 300 <= status < 400 else Page(response)

    def follow(self, path: str, form: dict[str, Any], *, page: str | None = None) -> Page:
        """Post a form that succeeds, and return the page that it leads to."""
        response = self.post(path, form, page=page)
        assert isinstance(response, TestResponse)
        return self.get(response.headers["Location"])

    def log_in(self, username: str, password: str = PASSWORD, **form: str) -> None:
        response = self.post("/login", {"username": username, "password": password, **form})
        assert isinstance(response, TestResponse)

    def cookie(self) -> str:
        """The raw value of the portal's cookie."""
        found = next(iter(self.client._cookies.values()))
        return found.value


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    app.test_client_class = Client
    return app.test_client()


@pytest.fixture
def visitor(client: FlaskClient) -> Visitor:
    return Visitor(client)


@pytest.fixture
def open_visitor(app: Flask, client: FlaskClient) -> Callable[[], Visitor]:
    """Somebody else's visitor."""
    return lambda: Visitor(app.test_client())


@pytest.fixture
def people(session: Session) -> dict[str, int]:
    """Alice is a member, Bob a superuser, Charlie is inactive; all with the same password. Ids by username."""
    return {
        "alice": make_user(session, "alice", "alice@example.org", password_hash=HASH),
        "bob": make_user(session, "bob", "bob@example.org", is_superuser=True, password_hash=HASH),
        "charlie": make_user(session, "charlie", "charlie@example.org", is_active=False, password_hash=HASH),
    }


@pytest.fixture
def alice(visitor: Visitor, people: dict[str, int]) -> Visitor:
    """A browser in which Alice, a member, is logged in."""
    visitor.log_in("alice")
    return visitor


@pytest.fixture
def bob(open_visitor: Callable[[], Visitor], people: dict[str, int]) -> Visitor:
    """A browser in which Bob, a superuser, is logged in."""
    visitor = open_visitor()
    visitor.log_in("bob")
    return visitor
