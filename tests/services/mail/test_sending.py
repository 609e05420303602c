"""Sending: nothing is lost, nobody is mailed twice but where that cannot be known, and each trouble has its words."""

import socket
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.errors import ConfigurationError, MailUnavailableError
from portal.models import MailedLink, MailRequest
from portal.services import outbox
from portal.services.mail import letter_folder
from portal.services.mail.sending import Mailer, SendingResult, check, send_due, send_test
from portal.services.outbox import CLAIM, KEEPS_TRYING, Mail, Priority
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer, make_certificate

SENT = SendingResult(sent=1, refused=0, deferred=0, dropped=0, trouble="")


def ask(session: Session, clock: Clock, mailbox: str = "alice@example.org", **values: object) -> None:
    wanted = {"purpose": "log-in", "place": "192.0.2.1", **values}
    with transaction(session):
        outbox.enqueue(session, [Mail(mailbox, **wanted)], now=clock())


def rows(session: Session) -> list[Any]:
    with reading(session):
        return list(session.execute(select(MailRequest.__table__).order_by(MailRequest.id)))


def states(session: Session) -> list[tuple[str, str]]:
    return [(row.state, row.message) for row in rows(session)]


@pytest.fixture
def alice(session: Session) -> int:
    return make_user(session, "alice", "Alice@example.org")


def test_a_mail_is_sent_once_to_the_address_as_its_holder_writes_it(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    ask(session, clock)

    assert send_due(session, mailer, sends_bulk=False) == SENT
    assert send_due(session, mailer, sends_bulk=True) == SendingResult(0, 0, 0, 0, "")

    (taken,) = mail_server.taken
    assert (taken.sender, taken.to) == ("portal@example.org", "Alice@example.org")
    assert states(session) == [("sent", "")]


@pytest.mark.parametrize("mailbox", ["zoe@example.org", "charlie@example.org"])
def test_a_mail_to_a_mailbox_without_an_active_account_is_dropped(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, mailbox: str
) -> None:
    make_user(session, "charlie", is_active=False)
    ask(session, clock, mailbox)

    assert send_due(session, mailer, sends_bulk=False).dropped == 1

    assert (mail_server.taken, mail_server.connections) == ([], 0)
    assert states(session) == [("dropped", "")]


def test_a_server_that_is_down_is_asked_again_after_growing_pauses_and_nothing_is_lost(
    session: Session, clock: Clock, make_mailer: Callable[..., Mailer], alice: int
) -> None:
    with FakeMailServer() as server:
        toml = server.toml()
    mailer = make_mailer(toml)
    ask(session, clock)
    waited = []
    for _ in range(4):
        found = send_due(session, mailer, sends_bulk=True)
        assert "Connection refused" in found.trouble
        (row,) = rows(session)
        waited.append(row.due_at - clock())
        assert send_due(session, mailer, sends_bulk=True) == SendingResult(0, 0, 0, 0, "")
        clock.now = row.due_at
    with FakeMailServer(port=server.port) as server:
        assert send_due(session, mailer, sends_bulk=True) == SENT

    assert waited == [timedelta(minutes=each) for each in (1, 2, 5, 10)]
    assert len(server.taken) == 1
    assert not rows(session)[0].may_be_twice


def test_the_pass_ends_where_the_server_is_down_and_the_others_keep_their_turn(
    session: Session, clock: Clock, make_mailer: Callable[..., Mailer]
) -> None:
    with FakeMailServer() as server:
        toml = server.toml()
    for name in ("alice", "bob", "dora"):
        make_user(session, name)
        ask(session, clock, f"{name}@example.org")

    send_due(session, make_mailer(toml), sends_bulk=True)

    assert [row.tries for row in rows(session)] == [1, 0, 0]


@pytest.mark.parametrize("said", ["450 come back later", "452 mailbox full", "421 too busy"])
def test_what_the_server_will_take_later_waits_and_keeps_no_other_mail_waiting(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int, said: str
) -> None:
    make_user(session, "bob")
    ask(session, clock)
    ask(session, clock, "bob@example.org")
    mail_server.answers["Alice@example.org"] = said

    assert send_due(session, mailer, sends_bulk=False) == SendingResult(1, 0, 1, 0, "")
    assert states(session) == [("waiting", said), ("sent", "")]
    mail_server.answers.clear()
    clock.advance(minutes=1)
    assert send_due(session, mailer, sends_bulk=False) == SENT

    assert [each.to for each in mail_server.taken] == ["bob@example.org", "Alice@example.org"]


def test_after_two_days_a_mail_is_given_up(session: Session, clock: Clock) -> None:
    ask(session, clock)
    begun = clock()
    while (row := rows(session)[0]).state == "waiting":
        assert row.tries < 100
        clock.now = row.due_at
        claimed = outbox.claim(session, now=clock(), bulk_per_minute=None)
        assert claimed is not None
        outbox.defer(session, claimed, now=clock(), message="450 greylisted")

    assert (row.state, row.message) == ("given up", "450 greylisted")
    assert KEEPS_TRYING <= clock() - begun < KEEPS_TRYING + timedelta(hours=2)
    assert row.tries < 60


@pytest.mark.parametrize(("at", "said"), [("rcpt", "550 no such user"), ("data", "554 we do not want this")])
def test_what_the_server_refuses_for_good_is_not_tried_again(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int, at: str, said: str
) -> None:
    ask(session, clock)
    if at == "rcpt":
        mail_server.answers["Alice@example.org"] = said
    else:
        mail_server.at_data = said

    assert send_due(session, mailer, sends_bulk=False).refused == 1
    clock.advance(days=1)
    assert send_due(session, mailer, sends_bulk=False) == SendingResult(0, 0, 0, 0, "")

    assert states(session) == [("refused", said)]


def test_a_server_that_refuses_the_sender_refuses_no_mailbox(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    ask(session, clock)
    mail_server.at_mail = "550 you may not send here"

    assert "550 you may not send here" in send_due(session, mailer, sends_bulk=False).trouble

    assert rows(session)[0].state == "waiting"


def test_a_server_that_hangs_is_given_up_after_its_time(
    session: Session, clock: Clock, mail_server: FakeMailServer, make_mailer: Callable[..., Mailer], alice: int
) -> None:
    ask(session, clock)
    mail_server.hang = True

    found = send_due(session, make_mailer(mail_server.toml(), timeout=0.3), sends_bulk=False)

    assert found.trouble == f"127.0.0.1:{mail_server.port}: no answer in time"
    assert (rows(session)[0].state, rows(session)[0].may_be_twice) == ("waiting", True)


def accept_and_close(server: socket.socket) -> None:
    connection, _ = server.accept()
    connection.close()


@pytest.mark.parametrize(("is_cut", "words"), [(False, "no answer in time"), (True, "Connection unexpectedly closed")])
def test_a_server_that_fails_before_it_has_the_letter_has_not_taken_it(
    session: Session, clock: Clock, make_mailer: Callable[..., Mailer], alice: int, is_cut: bool, words: str
) -> None:
    """It says nothing, or ends the connection at once: no second letter can come of that."""
    ask(session, clock)
    with socket.create_server(("127.0.0.1", 0)) as silent, ThreadPoolExecutor(1) as pool:
        port = silent.getsockname()[1]
        if is_cut:
            pool.submit(accept_and_close, silent)
        toml = f'[mail]\nsender = "portal@example.org"\n[mail.smtp]\nhost = "127.0.0.1"\nport = {port}\nsecurity = "none"\n'

        found = send_due(session, make_mailer(toml, timeout=0.2), sends_bulk=False)

    assert words in found.trouble
    assert (rows(session)[0].state, rows(session)[0].may_be_twice) == ("waiting", False)


def test_a_connection_that_ends_after_the_letter_is_the_case_in_which_somebody_may_be_mailed_twice(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    """The server may have taken it or not. Both letters have one Message-ID, and each has a link of its own."""
    ask(session, clock)
    mail_server.cut = True
    assert send_due(session, mailer, sends_bulk=False).deferred == 1
    assert rows(session)[0].may_be_twice
    mail_server.cut = False
    clock.advance(minutes=1)

    assert send_due(session, mailer, sends_bulk=False) == SENT

    first, second = mail_server.taken
    assert first.message["Message-ID"] == second.message["Message-ID"]
    assert first.text != second.text
    assert rows(session)[0].may_be_twice


def test_a_sender_that_is_killed_loses_its_claim_and_the_mail_is_sent_by_the_next(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    ask(session, clock)
    assert outbox.claim(session, now=clock(), bulk_per_minute=None)
    assert send_due(session, mailer, sends_bulk=True) == SendingResult(0, 0, 0, 0, "")
    clock.advance(seconds=CLAIM.total_seconds())

    assert send_due(session, mailer, sends_bulk=False) == SENT

    assert rows(session)[0].may_be_twice


def test_who_has_lost_the_claim_writes_nothing(
    session: Session, clock: Clock, mailer: Mailer, mail_server: FakeMailServer, alice: int
) -> None:
    ask(session, clock)
    late = outbox.claim(session, now=clock(), bulk_per_minute=None)
    assert late is not None
    clock.advance(seconds=CLAIM.total_seconds())
    send_due(session, mailer, sends_bulk=False)

    outbox.defer(session, late, now=clock(), message="too late")

    assert states(session) == [("sent", "")]


def test_several_senders_at_once_send_each_mail_once(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer
) -> None:
    names = [f"user{number}" for number in range(12)]
    for name in names:
        make_user(session, name)
        ask(session, clock, f"{name}@example.org")
    start = threading.Barrier(4)

    def send() -> int:
        with Session(session.get_bind()) as own:
            start.wait()
            return send_due(own, mailer, sends_bulk=True).sent

    with ThreadPoolExecutor(4) as pool:
        counts = [each.result() for each in [pool.submit(send) for _ in range(4)]]

    assert sum(counts) == 12
    assert sorted(each.to for each in mail_server.taken) == sorted(f"{name}@example.org" for name in names)


def test_invitations_keep_to_their_pace_and_nobody_waits_behind_them(
    session: Session, clock: Clock, mail_server: FakeMailServer, make_mailer: Callable[..., Mailer]
) -> None:
    mailer = make_mailer(mail_server.toml(more="mails_per_minute = 3"))
    for number in range(5):
        user_id = make_user(session, f"user{number}")
        ask(session, clock, f"user{number}@example.org", purpose="invite", user_id=user_id, priority=Priority.BULK)
    clock.advance(seconds=1)
    ask(session, clock, "user4@example.org")

    assert send_due(session, mailer, sends_bulk=False).sent == 1
    assert send_due(session, mailer, sends_bulk=True).sent == 3
    assert [each.message["Subject"][:9] for each in mail_server.taken] == ["Your link"] + ["Your acco"] * 3
    clock.advance(seconds=30)
    assert send_due(session, mailer, sends_bulk=True).sent == 0
    clock.advance(seconds=31)
    assert send_due(session, mailer, sends_bulk=True).sent == 2
    assert mail_server.connections == 3


def test_a_mail_that_a_wrong_clock_put_off_for_years_is_sent_all_the_same(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    clock.advance(days=3000)
    ask(session, clock)
    clock.advance(days=-3000)

    assert send_due(session, mailer, sends_bulk=False) == SENT


def test_no_token_and_no_letter_is_in_the_database(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    ask(session, clock)
    send_due(session, mailer, sends_bulk=False)
    (link,) = (line.strip() for line in mail_server.taken[0].text.splitlines() if "/link/" in line)
    token = link.removeprefix("https://portal.example.org/link/")
    assert len(token) == 43

    for table in (MailRequest.__table__, MailedLink.__table__):
        for row in session.execute(select(table)):
            assert not [value for value in row if token in str(value)]
    session.rollback()


def test_what_ended_long_ago_is_deleted(
    session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, alice: int
) -> None:
    ask(session, clock)
    send_due(session, mailer, sends_bulk=False)
    outbox.thin(session, now=clock())
    assert len(rows(session)) == 1
    clock.advance(days=30)
    ask(session, clock)

    outbox.thin(session, now=clock())

    assert states(session) == [("waiting", "")]
    assert session.scalars(select(MailedLink)).all() == []


# --- encryption and log-in


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_an_encrypted_connection_needs_a_certificate_that_is_trusted(
    certificate, security: str, make_mailer: Callable[..., Mailer], monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = certificate
    with FakeMailServer(tls=context, is_tls_from_the_start=security == "tls") as server:
        mailer = make_mailer(server.toml(security=security))
        with pytest.raises(MailUnavailableError, match="its certificate is not trusted: self-signed certificate"):
            check(mailer)
        monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
        assert check(mailer) == f"localhost:{server.port}, TLSv1.3"


def test_a_certificate_of_another_host_is_refused_and_no_mail_is_lost(
    session: Session, clock: Clock, alice: int,
    tmp_path: Path, make_mailer: Callable[..., Mailer], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    ask(session, clock)
    context, trusted = make_certificate(tmp_path, host="elsewhere.example.org")
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    mismatch = "its certificate is not trusted: Hostname mismatch"
    with FakeMailServer(tls=context) as server:
        mailer = make_mailer(server.toml(security="starttls"))
        with pytest.raises(MailUnavailableError, match=mismatch):
            check(mailer)
        assert mismatch in send_due(session, mailer, sends_bulk=False).trouble
    assert (server.taken, rows(session)[0].state, rows(session)[0].may_be_twice) == ([], "waiting", False)


def test_a_server_without_encryption_gets_nothing_where_it_is_asked_for(
    mail_server: FakeMailServer, make_mailer: Callable[..., Mailer]
) -> None:
    with pytest.raises(MailUnavailableError, match="it does not offer STARTTLS; set `security`"):
        check(make_mailer(mail_server.toml(security="starttls")))


def test_the_log_in_uses_the_password_of_the_file_and_says_when_it_is_refused(
    instance: Path, make_mailer: Callable[..., Mailer]
) -> None:
    steps: list[str] = []
    with FakeMailServer(password="correct horse") as server:
        toml = server.toml() + 'user = "portal"\npassword_file = "smtp_password"\n'
        mailer = make_mailer(toml)
        with pytest.raises(ConfigurationError, match=r"smtp_password, which holds the password for .*, cannot be read"):
            check(mailer)
        (instance / "smtp_password").write_text("wrong one\n")
        with pytest.raises(MailUnavailableError, match=r"refused the log-in of portal: 5\.7\.8") as refusal:
            check(mailer)
        assert "wrong one" not in str(refusal.value)
        (instance / "smtp_password").write_text("correct horse\n")
        send_test(mailer, to="alice@example.org", report=steps.append)

        assert steps == [
            f"connected to 127.0.0.1:{server.port}, not encrypted",
            "logged in as portal",
            f"127.0.0.1:{server.port} accepted the letter",
        ]


# --- a command


def test_a_command_gets_the_letter_on_stdin_and_the_recipient_after_two_dashes(
    session: Session, clock: Clock, tmp_path: Path, make_mailer: Callable[..., Mailer]
) -> None:
    make_user(session, "rf", "-rf@example.org")
    ask(session, clock, "-rf@example.org")
    mailer = make_mailer(sendmail(tmp_path, 'printf "%s\\n" "$@" > "$0.args"; cat > "$0.letter"'))

    assert send_due(session, mailer, sends_bulk=False) == SENT

    assert (tmp_path / "sendmail.args").read_text() == "-i\n--\n-rf@example.org\n"
    letter = (tmp_path / "sendmail.letter").read_bytes()
    assert b"\r" not in letter
    assert b"\nTo: -rf@example.org\n" in letter


def sendmail(folder: Path, script: str) -> str:
    program = folder / "sendmail"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    return f'[mail]\nsender = "portal@example.org"\nsendmail = "{program} -i"\n'


@pytest.mark.parametrize(
    ("script", "state", "words"),
    [
        (
            "cat > /dev/null; echo 'user unknown' >&2; exit 67",
            "refused",
            "ended with exit code 67: user unknown (does not know",
        ),
        ("cat > /dev/null; echo 'queue full' >&2; exit 75", "waiting", "ended with exit code 75: queue full"),
        ("exec sleep 60", "waiting", "did not finish within 0.5 seconds"),
    ],
)
def test_a_command_that_fails_says_what_becomes_of_the_mail(
    session: Session, clock: Clock, tmp_path: Path, make_mailer: Callable[..., Mailer], alice: int,
    script: str, state: str, words: str,
) -> None:  # fmt: skip
    ask(session, clock)

    send_due(session, make_mailer(sendmail(tmp_path, script), timeout=0.5), sends_bulk=False)

    ((found, message),) = states(session)
    assert (found, words in message) == (state, True), message


def test_a_command_that_is_not_there_is_reported_by_check_and_loses_nothing(
    session: Session, clock: Clock, make_mailer: Callable[..., Mailer], alice: int
) -> None:
    ask(session, clock)
    mailer = make_mailer('[mail]\nsender = "portal@example.org"\nsendmail = "/nowhere/sendmail -i"\n')

    assert "cannot be run: No such file" in send_due(session, mailer, sends_bulk=False).trouble
    with pytest.raises(ConfigurationError, match="/nowhere/sendmail cannot be run as a program"):
        check(mailer)

    assert rows(session)[0].state == "waiting"


# --- a folder


def test_letters_go_to_a_folder_one_file_each(
    session: Session, clock: Clock, instance: Path, make_mailer: Callable[..., Mailer], alice: int
) -> None:
    mailer = make_mailer('[mail]\nsender = "portal@example.org"\nfolder = "letters"\n')
    for _ in range(2):
        ask(session, clock)

    assert send_due(session, mailer, sends_bulk=False).sent == 2

    assert sorted(path.name for path in (instance / "letters").iterdir()) == ["000001.eml", "000002.eml"]
    newest, oldest = letter_folder.read(instance / "letters")
    assert newest.to == "Alice@example.org"
    assert newest.subject == "Your link to log in to Member portal"
    assert newest.paragraphs != oldest.paragraphs
    assert check(mailer) == f"letters are written to {instance / 'letters'}, and not sent"


def test_a_folder_that_cannot_be_written_loses_nothing(
    session: Session, clock: Clock, instance: Path, make_mailer: Callable[..., Mailer], alice: int
) -> None:
    (instance / "letters").write_text("a file")
    mailer = make_mailer('[mail]\nsender = "portal@example.org"\nfolder = "letters"\n')
    ask(session, clock)
    assert "cannot be written" in send_due(session, mailer, sends_bulk=False).trouble
    assert rows(session)[0].state == "waiting"
