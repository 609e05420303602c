"""A mail server on the loopback, and what letters are sent to it with."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from portal.config import load_settings
from portal.services.mail.sending import Mailer
from tests.conftest import Clock
from tests.fakes.mail_server import FakeMailServer


@pytest.fixture
def mail_server() -> Iterator[FakeMailServer]:
    with FakeMailServer() as server:
        yield server


@pytest.fixture
def make_mailer(instance: Path, clock: Clock) -> Callable[..., Mailer]:
    """Return what sends as a portal.toml says; the server has little time to answer."""

    def make(toml: str, *, timeout: float = 10) -> Mailer:
        (instance / "portal.toml").write_text(toml)
        return Mailer(load_settings(instance, {}), instance, clock, timeout)

    return make


@pytest.fixture
def mailer(mail_server: FakeMailServer, make_mailer: Callable[..., Mailer]) -> Mailer:
    return make_mailer('site_name = "Portál"\nbase_url = "https://portal.example.org/"\n' + mail_server.toml())
