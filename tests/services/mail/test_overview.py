"""What superusers see of mail: numbers and what servers said, never a letter."""

from datetime import timedelta

from sqlalchemy.orm import Session

from portal.services import outbox
from portal.services.mail.overview import Counts, overview, refusals, waits_too_long
from portal.services.mail.sending import Mailer, send_due
from portal.services.outbox import Mail, Priority
from portal.services.transaction import transaction
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer


def ask(session: Session, clock: Clock, *wanted: Mail) -> None:
    with transaction(session):
        outbox.enqueue(session, wanted, now=clock())


def test_it_counts_what_waits_what_was_sent_and_what_was_not_taken(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    alice, bob = make_user(session, "alice"), make_user(session, "bob")
    make_user(session, "dora")
    mail_server.answers |= {"bob@example.org": "550 no such user", "dora@example.org": "450 later"}
    begun = clock()
    ask(
        session, clock,
        Mail("alice@example.org", "log-in"), Mail("zoe@example.net", "log-in"),
        Mail("bob@example.org", "invite", bob), Mail("dora@example.org", "log-in"),
    )  # fmt: skip
    send_due(session, mailer, sends_bulk=True)
    ask(session, clock, Mail("alice@example.org", "invite", alice, priority=Priority.BULK))

    found = overview(session, now=clock())

    assert found.counts == Counts(
        waiting=1, bulk_waiting=1, sent_today=1, sent=1, refused=1, given_up=0, dropped=1, may_be_twice=0
    )
    assert (found.oldest_at, found.last_sent_at) == (begun, begun)
    assert [(each.mailbox, each.username, each.state, each.message) for each in found.troubles] == [
        ("dora@example.org", None, "waiting", "450 later"),
        ("bob@example.org", "bob", "refused", "550 no such user"),
    ]


def test_a_refusal_is_shown_until_a_later_mail_is_taken(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    bob = make_user(session, "bob")
    mail_server.answers["bob@example.org"] = "550 no such user"
    for _ in range(2):
        ask(session, clock, Mail("bob@example.org", "log-in"))
        send_due(session, mailer, sends_bulk=True)
    assert [each.message for each in refusals(session, bob, {"bob@example.org"})] == ["550 no such user"]
    assert refusals(session, bob, set()) == ()
    mail_server.answers.clear()
    ask(session, clock, Mail("bob@example.org", "log-in"))
    send_due(session, mailer, sends_bulk=True)
    assert refusals(session, bob, {"bob@example.org"}) == ()


def test_a_mail_that_somebody_waits_for_is_late_after_a_quarter_of_an_hour(session: Session, clock: Clock) -> None:
    ask(session, clock, Mail("alice@example.org", "invite", priority=Priority.BULK))
    clock.advance(hours=1)
    ask(session, clock, Mail("alice@example.org", "log-in"))
    begun = clock()
    clock.now += timedelta(minutes=15)
    assert waits_too_long(session, now=clock()) is None
    clock.advance(seconds=1)
    late = waits_too_long(session, now=clock())
    assert late is not None
    assert (late.purpose, late.asked_at) == ("log-in", begun)
