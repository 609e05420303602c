"""Mail by way of a real mail server: what arrives, what it refuses, and what becomes of mail while it is away."""

import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import load_settings
from portal.models import MailRequest
from portal.services import outbox
from portal.services.mail import overview
from portal.services.mail.sending import Mailer, check, send_due
from portal.services.outbox import Mail
from portal.services.transaction import transaction
from tests.conftest import Clock
from tests.factories import make_user
from tests.real.postfix import Postfix, running
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

NAMES = [f"user{number}" for number in range(40)]


@pytest.fixture
def postfix() -> Iterator[Postfix]:
    with running(["alice", *NAMES]) as found:
        yield found


@pytest.fixture
def mailer(postfix: Postfix, instance: Path, clock: Clock) -> Mailer:
    (instance / "portal.toml").write_text(f'site_name = "Portál člena"\n{postfix.toml()}')
    return Mailer(load_settings(instance, {}), instance, clock)


def ask(session: Session, clock: Clock, *mailboxes: str) -> None:
    with transaction(session):
        outbox.enqueue(session, [Mail(each, "log-in", place="192.0.2.1") for each in mailboxes], now=clock())


def test_a_letter_arrives_whole_and_once(postfix: Postfix, session: Session, clock: Clock, mailer: Mailer) -> None:
    make_user(session, "alice", "Alice@Example.org")
    ask(session, clock, "alice@example.org")
    assert check(mailer) == f"127.0.0.1:{postfix.port}, not encrypted"
    assert send_due(session, mailer, sends_bulk=False).sent == 1

    assert "http://localhost:8000/link/" in postfix.wait_for("alice@example.org")
    (letter,) = postfix.letters("alice@example.org")
    assert letter["Subject"] == "Your link to log in to Portál člena"
    assert letter["To"] == "Alice@Example.org"
    assert letter["Return-Path"] == "<portal@example.org>"
    assert letter["Auto-Submitted"] == "auto-generated"
    assert letter["Message-ID"].endswith("@localhost>")
    assert all(len(line) <= 78 for line in letter.get_content().splitlines() if "/link/" not in line)


def test_an_address_that_the_server_does_not_know_is_refused_and_shown_at_the_account(
    postfix: Postfix, session: Session, clock: Clock, mailer: Mailer
) -> None:
    zoe = make_user(session, "zoe", "zoe@example.org", "-rf@example.org")
    ask(session, clock, "zoe@example.org", "-rf@example.org")
    assert send_due(session, mailer, sends_bulk=False).refused == 2
    found = overview.refusals(session, zoe, ["zoe@example.org", "-rf@example.org"])
    assert {each.mailbox: each.message[:9] for each in found} == {
        "zoe@example.org": "550 5.1.1",
        "-rf@example.org": "501 5.1.3",
    }


def test_a_server_that_is_killed_amid_many_letters_loses_none(
    postfix: Postfix, session: Session, clock: Clock, mailer: Mailer, make_killer: Callable[[int], Callable[[], bool]]
) -> None:
    for name in NAMES:
        make_user(session, name)
    ask(session, clock, *(f"{name}@example.org" for name in NAMES))
    killer = make_killer(15)

    first = send_due(session, mailer, sends_bulk=True, is_time_up=killer)
    assert (first.sent, first.deferred) == (15, 1)
    assert "127.0.0.1" in first.trouble
    postfix.start()
    clock.advance(minutes=1)
    assert send_due(session, mailer, sends_bulk=True).sent == 25

    boxes = [f"{name}@example.org" for name in NAMES]
    wait_until(lambda: all(postfix.letters(each) for each in boxes))
    with transaction(session):
        twice = set(session.scalars(select(MailRequest.mailbox).where(MailRequest.may_be_twice)))
    counts = Counter({each: len(postfix.letters(each)) for each in boxes})
    assert {each for each, count in counts.items() if count > 1} <= twice
    assert len(twice) <= 1


@pytest.fixture
def make_killer(postfix: Postfix) -> Callable[[int], Callable[[], bool]]:
    """Return what a pass asks before each letter, and what kills the server before the letter of a number."""

    def make(number: int) -> Callable[[], bool]:
        asked = 0

        def is_time_up() -> bool:
            nonlocal asked
            if asked == number:
                postfix.stop(signal.SIGKILL)
            asked += 1
            return False

        return is_time_up

    return make
