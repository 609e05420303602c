"""Letters: what they say, what is in their headers, and what an operator may change."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import MailSettings, Settings
from portal.errors import ConfigurationError
from portal.models import MailedLink, MailRequest
from portal.services import outbox
from portal.services.mail import letters
from portal.services.mail.letters import LETTERS, Letter
from portal.services.mail.sending import Mailer, send_due
from portal.services.outbox import Mail
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer

SETTINGS = Settings(
    site_name="Verein für Ämter",
    base_url="https://portal.example.org/below",
    help_contact="office@example.org",
    mail=MailSettings(sender="portal@example.org", sendmail="sendmail", reply_to="office@example.org"),
)
NOW = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)


def sent(letter: Letter, *, to: str = "alice@example.org", settings: Settings = SETTINGS) -> EmailMessage:
    """Return what a reader's program makes of the bytes that are sent."""
    message = letters.as_message(letter, to=to, settings=settings, number="7.20261122", now=NOW)
    raw = message.as_bytes()
    assert max(map(len, raw.split(b"\r\n"))) <= 998
    assert raw.count(b"\n") == raw.count(b"\r\n")
    return cast(EmailMessage, message_from_bytes(raw, policy=policy.default))


@pytest.mark.parametrize("name", LETTERS)
def test_every_letter_has_the_headers_of_a_mail_that_nobody_typed(name: str, tmp_path: Path) -> None:
    message = sent(letters.preview(name, settings=SETTINGS, folder=tmp_path))

    assert message["From"] == "Verein für Ämter <portal@example.org>"
    assert (message["To"], message["Reply-To"]) == ("alice@example.org", "office@example.org")
    assert message["Date"] == "Sun, 22 Nov 2026 06:00:00 +0000"
    assert message["Message-ID"] == "<7.20261122@portal.example.org>"
    assert message["Auto-Submitted"] == "auto-generated"
    assert message.get_content_type() == "text/plain"
    assert "Verein für Ämter" in message["Subject"]


@pytest.mark.parametrize("name", LETTERS)
def test_every_letter_says_who_writes_whom_to_ask_and_is_narrow(name: str, tmp_path: Path) -> None:
    letter = letters.preview(name, settings=SETTINGS, folder=tmp_path)

    assert "Verein für Ämter" in letter.body
    assert ("office@example.org" in letter.body) == (name not in {"operators", "test"})
    assert [line for line in letter.body.splitlines() if len(line) > 76 and "://" not in line] == []
    assert "\n\n\n" not in letter.body
    assert "$" not in letter.body


@pytest.mark.parametrize("name", LETTERS)
def test_every_letter_is_on_the_page_of_operators_with_its_values(name: str) -> None:
    page = (Path(__file__).parents[3] / "docs" / "mail.md").read_text()
    (row,) = (line for line in page.splitlines() if line.startswith(f"| `{name}` | ") and "$" in line)

    assert set(re.findall(r"`\$(\w+)`", row)) == set(LETTERS[name])


def test_links_are_below_the_base_url_whatever_the_browser_called_the_host(
    session: Session, clock: Clock, mail_server: FakeMailServer, make_mailer: Callable[..., Mailer]
) -> None:
    make_user(session, "alice")
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "log-in", place="192.0.2.7")], now=clock())

    send_due(session, make_mailer('base_url = "https://a.example.org/b/"\n' + mail_server.toml()), sends_bulk=False)

    text = mail_server.taken[0].text
    assert set(re.findall(r"https?://\S*/", text)) == {"https://a.example.org/b/link/"}
    assert "192.0.2.7" in text


def test_a_shared_mailbox_gets_a_link_for_each_account_by_username(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    for name in ("dora", "erin"):
        make_user(session, name, "office@example.org")
    make_user(session, "charlie", "office@example.org", is_active=False)
    make_user(session, "bob", "office@example.org", is_superuser=True)
    with transaction(session):
        outbox.enqueue(session, [Mail("office@example.org", "log-in")], now=clock())

    send_due(session, mailer, sends_bulk=False)

    text = mail_server.taken[0].text
    assert re.findall(r"^As (\w+):\n\n  https://\S+$", text, re.MULTILINE) == ["dora", "erin"]
    assert text.count("/link/") == 2


@pytest.mark.parametrize(
    ("addresses", "others", "is_sent"),
    [
        (("bob@example.org",), (), True),
        (("main@example.org", "bob@example.org"), (), False),  # a further address
        (("bob@example.org",), (("dora", True),), False),  # shared with an active account
        (("bob@example.org",), (("charlie", False),), True),
    ],
)
def test_an_account_with_a_role_gets_links_at_its_main_address_alone_if_nobody_else_holds_it(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer,
    addresses: tuple[str, ...], others: tuple[tuple[str, bool], ...], is_sent: bool,
) -> None:  # fmt: skip
    bob = make_user(session, "bob", *addresses, is_superuser=True)
    for name, is_active in others:
        make_user(session, name, "bob@example.org", is_active=is_active)
    with transaction(session):
        outbox.enqueue(session, [Mail("bob@example.org", "log-in")], now=clock())

    send_due(session, mailer, sends_bulk=False)

    with reading(session):
        assert (bob in session.scalars(select(MailedLink.user_id)).all()) == is_sent
    assert len(mail_server.taken) == (is_sent or others != ())


@given(st.text(max_size=60), st.text(max_size=60))
def test_no_value_adds_a_header_or_a_line(home: Path, username: str, place: str) -> None:
    values = {"username": username, "link": "https://portal.example.org/link/x", "good_for": place}
    letter = letters.write("invite", values, settings=SETTINGS, folder=home / "nowhere")
    message = sent(letter)

    written = ["From", "To", "Reply-To", "Subject", "Date", "Message-ID", "Auto-Submitted"]
    assert sorted(message.keys()) == sorted([*written, "MIME-Version", "Content-Type", "Content-Transfer-Encoding"])
    assert message.get_content().replace("\r\n", "\n") == letter.body


HOSTILE = "a\r\nBcc: zoe@example.net\r\n\r\nbuy this"


def test_a_name_with_line_ends_stays_in_its_line(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "invite.txt").write_text("Subject: For $username\n\nHello $username,\n$link $good_for\n")
    values = {"username": HOSTILE, "link": "x", "good_for": "y"}
    message = sent(letters.write("invite", values, settings=SETTINGS, folder=tmp_path))

    assert message["Bcc"] is None
    assert "Bcc: zoe" in message["Subject"]
    assert message["Subject"].isprintable()


@pytest.mark.parametrize("address", ["`id`@example.org", "-rf@example.org", "a|b@example.org", "o'neil@example.org"])
def test_valid_addresses_that_look_odd_are_written_to_as_they_are(address: str) -> None:
    assert sent(Letter("x", "y\n"), to=address)["To"] == address


def test_an_address_beyond_ascii_is_written_to_in_utf_8() -> None:
    message = letters.as_message(Letter("x", "y\n"), to="zoë@example.org", settings=SETTINGS, number="1", now=NOW)
    assert "To: zoë@example.org".encode() in message.as_bytes()


def test_an_operators_letter_replaces_ours(tmp_path: Path) -> None:
    (tmp_path / "mail").mkdir()
    (tmp_path / "mail" / "invite.txt").write_bytes(
        "\ufeffSubject: Grüezi $username\r\n\r\nLos: $link\r\n\r\n5 $$\r\n".encode()
    )
    letter = letters.preview("invite", settings=SETTINGS, folder=tmp_path)

    assert letter.subject == "Grüezi alice"
    assert letter.body.startswith("Los: https://")
    assert letter.body.endswith("\n\n5 $\n")


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("Hello\n", 'the file must begin with a line "Subject: …"'),
        ("Subject: x\n", 'the file must begin with a line "Subject: …"'),
        ("Subject: x\nBcc: y\n\nz\n", 'the file must begin with a line "Subject: …"'),
        ("Subject: x\n\nHello $usrname\n", r"unknown name \$usrname; known names: \$base_url, \$good_for"),
        ("Subject: x\n\n5 $ a year\n", "a \\$ is not followed by a name"),
        (b"Subject: x\n\nGr\xfcezi\n", "cannot be read as UTF-8"),
    ],
)
def test_a_fault_in_an_operators_letter_is_named(tmp_path: Path, text: str | bytes, fault: str) -> None:
    (tmp_path / "mail").mkdir()
    path = tmp_path / "mail" / "invite.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    with pytest.raises(ConfigurationError, match=f"{re.escape(str(path))}: {fault}"):
        letters.preview("invite", settings=SETTINGS, folder=tmp_path)


def test_a_letter_with_a_fault_keeps_no_other_letter_waiting(
    session: Session, clock: Clock, instance: Path, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    (instance / "mail").mkdir()
    (instance / "mail" / "invite.txt").write_text("Subject: x\n\n$nothing\n")
    user_id = make_user(session, "alice")
    with transaction(session):
        outbox.enqueue(session, [Mail("alice@example.org", "invite", user_id=user_id)], now=clock())
        outbox.enqueue(session, [Mail("alice@example.org", "log-in")], now=clock())

    found = send_due(session, mailer, sends_bulk=True)

    assert (found.sent, found.deferred, found.trouble) == (1, 1, "")
    with reading(session):
        states = session.scalars(select(MailRequest.state).order_by(MailRequest.id)).all()
    assert states == ["waiting", "sent"]
    (instance / "mail" / "invite.txt").unlink()
    clock.advance(minutes=1)
    assert send_due(session, mailer, sends_bulk=True).sent == 1
