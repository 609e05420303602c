"""Notices for members: who gets a mail about which change, once, and about whose change nobody does."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.models import AccountChange, MailRequest
from portal.services import outbox
from portal.services.accounts import address_changes, password_changes
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE, Actor
from portal.services.mail import notices
from portal.services.mail.sending import Mailer, send_due
from portal.services.preferences import preferences
from portal.services.transaction import reading
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer

Notice = Callable[..., list[tuple[str, str]]]


@pytest.fixture
def catalogue(app: Flask) -> Catalogue:
    return app.extensions["portal"].catalogue()


@pytest.fixture
def notice(session: Session, clock: Clock, catalogue: Catalogue) -> Notice:
    """Ask for notices a minute later; return to whom and what for the new ones are."""
    seen: set[int] = set()

    def ask(*, tells_members: bool = True) -> list[tuple[str, str]]:
        clock.advance(minutes=1)
        notices.ask_for(session, lists=catalogue.lists, tells_members=tells_members, now=clock())
        with reading(session):
            rows = session.execute(
                select(MailRequest.id, MailRequest.mailbox, MailRequest.purpose).order_by(MailRequest.id)
            ).all()
        new = [(mailbox, purpose) for number, mailbox, purpose in rows if number not in seen]
        seen.update(number for number, *_ in rows)
        return new

    return ask


def put_on(
    session: Session, catalogue: Catalogue, clock: Clock, username: str, *, actor: Actor, off: bool = False
) -> None:
    preferences.choose_for(
        session, catalogue.get("members"), username=username, is_subscribed=not off, actor=actor, now=clock()
    )


def test_a_member_is_mailed_once_when_somebody_else_put_them_on_or_took_them_off(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    make_user(session, "alice")
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE)

    assert notice() == [("alice@example.org", "lists-changed")]
    assert notice() == []
    send_due(session, mailer, sends_bulk=True)
    assert "  You will be added to Members\n" in mail_server.taken[0].text
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE, off=True)
    assert notice() == [("alice@example.org", "lists-changed")]


def test_one_mail_tells_of_all_lists_and_of_several_changes_the_last(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice
) -> None:
    make_user(session, "alice")
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE)
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE, off=True)
    notice()
    with reading(session):
        text = session.scalar(select(MailRequest.details))
    assert outbox.as_details(text or "") == {"changes": "off Members"}


def test_nobody_is_mailed_about_their_own_choice_or_where_members_are_not_to_be(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice
) -> None:
    bob = make_user(session, "bob", is_superuser=True)
    make_user(session, "alice")
    put_on(session, catalogue, clock, "bob", actor=Actor(bob, "bob"))
    assert notice() == []
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE)
    assert notice(tells_members=False) == []
    assert notice() == []


def test_a_change_of_the_password_is_told_whoever_made_it(session: Session, notice: Notice) -> None:
    make_user(session, "alice")
    password_changes.set_password(session, "alice", password="four words in a row", rounds=4)
    assert notice(tells_members=False) == [("alice@example.org", "password-changed")]


def test_an_address_that_somebody_else_changed_is_told_to_the_old_one(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    alice = make_user(session, "alice", "Alice@example.org")
    values = {"now": clock(), "lists": catalogue.lists}
    address_changes.change(session, alice, checked("new@example.org"), actor=COMMAND_LINE, **values)
    assert notice() == [("alice@example.org", "addresses")]
    address_changes.add(session, alice, checked("more@example.org"), actor=COMMAND_LINE, **values)
    assert notice() == [("new@example.org", "addresses")]

    send_due(session, mailer, sends_bulk=True)

    first, second = mail_server.taken
    assert (first.to, "new@example.org is the main address now" in " ".join(first.text.split())) == (
        "Alice@example.org", True,
    )  # fmt: skip
    assert "more@example.org was added" in " ".join(second.text.split())


def test_a_line_that_is_written_before_one_that_is_there_already_is_not_missed(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice
) -> None:
    """On PostgreSQL, where the transaction with the lower number may end later."""
    ids = [make_user(session, name) for name in ("alice", "bob")]
    lines = [
        {"id": number, "user_id": user_id, "username": "x", "at": clock(), "what": "password changed", "actor": "x"}
        for number, user_id in enumerate(ids, start=1_000)
    ]
    session.execute(insert(AccountChange), lines[1])
    session.commit()
    notices.ask_for(session, lists=catalogue.lists, tells_members=True, now=clock())
    session.execute(insert(AccountChange), lines[0])
    session.commit()
    assert notice() == [("alice@example.org", "password-changed"), ("bob@example.org", "password-changed")]


def test_what_changed_long_before_mail_was_switched_on_is_no_news(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice
) -> None:
    alice = make_user(session, "alice")
    put_on(session, catalogue, clock, "alice", actor=COMMAND_LINE)
    line = {"user_id": alice, "username": "alice", "at": clock(), "what": "password changed", "actor": "x"}
    session.execute(insert(AccountChange), line)
    session.commit()
    clock.advance(days=1)
    assert notice() == []


def test_a_long_history_is_read_in_parts(
    session: Session, clock: Clock, catalogue: Catalogue, notice: Notice, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(notices, "_LINES", 2)
    for name in ("alice", "bob", "dora", "erin", "frank"):
        make_user(session, name)
        put_on(session, catalogue, clock, name, actor=COMMAND_LINE)
    assert notices.has_unread(session)
    assert len(notice()) == 5
    assert not notices.has_unread(session)
