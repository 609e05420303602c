"""Mail on the pages of superusers: numbers, refusals at the account, invitations to many."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import MailRequest
from portal.services import outbox
from portal.services.outbox import Mail
from portal.services.transaction import transaction
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer
from tests.web.conftest import HASH, Client, Page, Visitor


@pytest.fixture
def mail_server() -> Iterator[FakeMailServer]:
    with FakeMailServer(answers={"alice@example.org": "550 5.1.1 <b>no</b> such user"}) as server:
        yield server


@pytest.fixture
def app(instance: Path, make_app: Callable[..., Flask], mail_server: FakeMailServer, clock: Clock) -> Flask:
    """A portal in which a mail to Alice was refused."""
    (instance / "portal.toml").write_text(mail_server.toml())
    app = make_app()
    app.test_client_class = Client
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "alice")
        make_user(session, "bob", is_superuser=True, password_hash=HASH)
        make_user(session, "charlie", is_active=False)
        make_user(session, "dora", groups=("full",))
        with transaction(session):
            outbox.enqueue(session, [Mail("alice@example.org", "log-in")], now=clock())
    app.test_cli_runner().invoke(args=["minutely"])
    return app


@pytest.fixture
def bob(app: Flask) -> Visitor:
    visitor = Visitor(app.test_client())
    visitor.log_in("bob")
    return visitor


def test_the_page_of_mail_shows_numbers_and_what_the_server_said(bob: Visitor) -> None:
    page = bob.get("/admin/mail")
    assert "Refused by a mail server 1" in page.text
    assert "550 5.1.1 &lt;b&gt;no&lt;/b&gt; such user" in page.html
    assert "/link/" not in page.html.replace("/link/ask", "")


def test_a_refused_mail_is_shown_at_the_account_of_the_person(bob: Visitor) -> None:
    assert "An e-mail to alice@example.org was refused" in bob.get("/admin/users/1").text
    assert "was refused" not in bob.get("/admin/users/2").text


def invited(app: Flask) -> list[str]:
    with app.app_context(), Session(db.engine) as session:
        return sorted(session.scalars(select(MailRequest.mailbox).where(MailRequest.purpose == "invite")))


def test_many_are_invited_from_the_page_of_people(bob: Visitor, app: Flask) -> None:
    """Those whom the filter finds: a filter, the action, and the button of its page."""
    page = bob.get("/admin/users/change?change=invite&of=all")
    assert "Invite 3 people?" in page.text
    assert "1 person will not be invited: they are deactivated" in page.text
    page = bob.follow("/admin/users/change?change=invite&of=all", {})
    assert "3 people will get an invitation by e-mail." in page.text
    assert invited(app) == ["alice@example.org", "bob@example.org", "dora@example.org"]
    page = bob.get("/admin/users/change?change=invite&of=all&group=full")
    assert "There is nothing to do." in page.text


def test_a_person_is_invited_on_their_own_page(bob: Visitor, session: Session) -> None:
    path = "/admin/users/1"
    shown = bob.get(path).text
    assert "“Invite by e-mail” immediately requests an e-mail to alice@example.org" in shown
    assert "last invited" not in shown
    done = bob.follow(f"{path}/invite", {}, page=path)
    assert "An invitation to alice@example.org will be sent within a minute." in done.text
    assert re.search(r"last invited \d+ \w+", done.text)
    assert "an invitation is about to be sent" in bob.follow(f"{path}/invite", {}, page=path).text
    assert "out of date" in bob.follow(f"{path}/invite", {"shown": "x"}, page=path).text
    mailboxes = session.scalars(select(MailRequest.mailbox).where(MailRequest.purpose == "invite")).all()
    session.rollback()
    assert mailboxes == ["alice@example.org"]


def test_without_mail_nobody_is_offered_an_invitation(
    instance: Path, make_app: Callable[..., Flask], app: Flask
) -> None:
    (instance / "portal.toml").unlink()
    app = make_app()
    app.test_client_class = Client
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    assert "Invite by e-mail" not in bob.get("/admin/users").text
    assert bob.client.get("/admin/users/change?change=invite&of=all").status_code in {302, 400}
    page = bob.get("/admin/mail")
    assert "Mail is not configured" in page.text
    assert isinstance(page, Page)
