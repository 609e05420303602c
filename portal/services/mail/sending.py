"""Sending: mails are claimed from the outbox one at a time, their letters written and handed to a server."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from sqlalchemy.orm import Session

from portal import translation
from portal.config import Settings
from portal.errors import ConfigurationError, MailDeferredError, MailRefusedError, MailUnavailableError
from portal.services import outbox
from portal.services.mail import delivery, drafts, letters
from portal.services.mail.delivery import Report, Server
from portal.services.outbox import ClaimedMail, MailState

Clock = Callable[[], datetime]


@dataclass(frozen=True)
class Mailer:
    """What is needed to write and send letters; ``timeout`` is in seconds for each answer of the server."""

    settings: Settings
    folder: Path
    clock: Clock
    timeout: float = delivery.TIMEOUT

    def open_server(self, *, report: Report = lambda _step: None) -> Server:
        """Return the mail server; ``report`` is called with each step. Raise ConfigurationError."""
        return delivery.open_server(self.settings, self.folder, timeout=self.timeout, report=report)


class SendingResult(NamedTuple):
    """The result of one pass over the outbox; ``trouble`` is the reason if it ended early."""

    sent: int
    refused: int
    deferred: int
    dropped: int
    trouble: str


def send_due(
    session: Session, mailer: Mailer, *, sends_bulk: bool, is_time_up: Callable[[], bool] = lambda: False
) -> SendingResult:
    """Send waiting mails, bulk mail only with ``sends_bulk``. Raise ConfigurationError without ``[mail]``.

    If the server cannot be used the pass ends, and the mails wait for the next one. No transaction is open while a
    letter is handed over.
    """
    ends: Counter[MailState] = Counter()
    trouble = ""
    with mailer.open_server() as server:
        while not trouble and not is_time_up():
            claimed = outbox.claim(session, now=mailer.clock(), bulk_per_minute=_pace(mailer, sends_bulk=sends_bulk))
            if claimed is None:
                break
            end, trouble = _send(session, claimed, mailer, server)
            ends[end] += 1
    return SendingResult(
        sent=ends[MailState.SENT],
        refused=ends[MailState.REFUSED],
        deferred=ends[MailState.WAITING],
        dropped=ends[MailState.DROPPED],
        trouble=trouble,
    )


def _pace(mailer: Mailer, *, sends_bulk: bool) -> int | None:
    return mailer.settings.mail.mails_per_minute if sends_bulk and mailer.settings.mail else None


def _send(session: Session, claimed: ClaimedMail, mailer: Mailer, server: Server) -> tuple[MailState, str]:
    """Send one mail and store the result; return it, and the reason if no more can be sent."""
    state, message, trouble = MailState.SENT, "", ""
    may_have_arrived = False
    try:
        if not _hand_over(session, claimed, mailer, server):
            state = MailState.DROPPED
    except MailRefusedError as error:
        state, message = MailState.REFUSED, str(error)
    except (MailDeferredError, _LetterFault) as error:
        state, message = MailState.WAITING, str(error)
    except (MailUnavailableError, ConfigurationError) as error:
        state, message, trouble = MailState.WAITING, str(error), str(error)
        may_have_arrived = isinstance(error, MailUnavailableError) and error.may_have_arrived
    except Exception as error:  # else it would fail first in each pass
        outbox.defer(session, claimed, now=mailer.clock(), message=type(error).__name__)
        raise
    now = mailer.clock()
    if state is MailState.WAITING:
        outbox.defer(session, claimed, now=now, message=message, may_have_arrived=may_have_arrived)
    else:
        outbox.end(session, claimed, state, now=now, message=message)
    return state, trouble


class _LetterFault(Exception):  # noqa: N818 - caught in this module
    """A template that an operator must fix; mails with other letters do not wait for that."""


def _hand_over(session: Session, claimed: ClaimedMail, mailer: Mailer, server: Server) -> bool:
    """Write the letter and hand it over; return whether there was a recipient."""
    now = mailer.clock()
    with translation.using(drafts.language_of(session, claimed, mailer.settings.languages)):
        draft = drafts.make(session, claimed, base_url=mailer.settings.base_url, now=now)
        if draft is None:
            return False
        try:
            letter = letters.write(draft.name, draft.values, settings=mailer.settings, folder=mailer.folder)
        except ConfigurationError as error:
            raise _LetterFault(str(error)) from None
    number = f"{claimed.id}.{claimed.asked_at:%Y%m%d%H%M%S%f}"
    message = letters.as_message(letter, to=draft.to, settings=mailer.settings, number=number, now=now)
    server.deliver(message, to=draft.to)
    return True


def send_test(mailer: Mailer, *, to: str, report: Report) -> None:
    """Send a test letter immediately, in the first language, and report each step.

    Raise ConfigurationError, MailRefusedError, MailDeferredError or MailUnavailableError.
    """
    now = mailer.clock()
    values = {"sent_at": f"{now:%Y-%m-%d %H:%M} UTC"}
    with translation.using(mailer.settings.languages[0]):
        letter = letters.write("test", values, settings=mailer.settings, folder=mailer.folder)
    number = f"test.{now:%Y%m%d%H%M%S%f}"
    message = letters.as_message(letter, to=to, settings=mailer.settings, number=number, now=now)
    with mailer.open_server(report=report) as server:
        server.deliver(message, to=to)


def check(mailer: Mailer) -> str:
    """Check the connection and every template. Raise ConfigurationError or MailUnavailableError."""
    for language in mailer.settings.languages:
        with translation.using(language):
            for name in letters.LETTERS:
                letters.preview(name, settings=mailer.settings, folder=mailer.folder)
    with mailer.open_server() as server:
        return server.check()
