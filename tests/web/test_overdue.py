"""A list that is overdue is noticed by what still runs: a monitor that asks, and the pages that somebody uses."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from flask.testing import FlaskClient

from tests.conftest import Clock, Rosters
from tests.fakes.mail_server import FakeMailServer
from tests.waiting import wait_until
from tests.web.conftest import Client


@pytest.fixture
def mail_server() -> Iterator[FakeMailServer]:
    with FakeMailServer() as server:
        yield server


def test_a_monitor_that_asks_about_lists_is_told_while_one_is_overdue(
    app: Flask, client: FlaskClient, rosters: Rosters, clock: Clock
) -> None:
    def ready(query: str = "?lists=1") -> tuple[int, str]:
        answer = client.get(f"/readyz{query}")
        return answer.status_code, answer.get_data(as_text=True)

    assert (ready(), ready("")) == ((503, "overdue\n"), (200, "ready\n"))
    assert app.test_cli_runner().invoke(args=["mailinglist", "sync"]).exit_code == 0
    assert ready() == (200, "ready\n")
    clock.advance(hours=13)
    assert ready() == (503, "overdue\n")


def test_where_cron_has_stopped_the_pages_mail_the_operators(
    instance: Path, make_app: Callable[..., Flask], mail_server: FakeMailServer, rosters: Rosters, clock: Clock
) -> None:
    (instance / "portal.toml").write_text(mail_server.toml(more='operators = ["root@example.org"]'))
    app = make_app()
    app.test_client_class = Client
    assert app.test_cli_runner().invoke(args=["mailinglist", "sync"]).exit_code == 0
    clock.advance(hours=13)

    app.test_client().get("/login")

    wait_until(lambda: len(mail_server.taken) == 3)
    wait_until(lambda: app.extensions["sender"].is_idle)
    assert {each.to for each in mail_server.taken} == {"root@example.org"}
    assert any("Members has had no good run" in str(each.message["Subject"]) for each in mail_server.taken)
    assert "http://localhost:8000/admin/lists/" in mail_server.taken[0].text
