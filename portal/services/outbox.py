"""The outbox: mails to send, each claimed by one sender at a time, in whatever process or host.

A row holds the mailbox and the purpose. The letter and its tokens are made when it is sent.
"""

import json
import secrets
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, and_, delete, exists, func, insert, or_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.models import MailedLink, MailRequest
from portal.services.transaction import reading, transaction

CLAIM = timedelta(minutes=5)  # longer than a letter takes with every timeout; then another sender may claim it
KEEPS_TRYING = timedelta(days=2)
PAUSES = tuple(timedelta(minutes=each) for each in (1, 2, 5, 10, 20, 30, 60))  # after each try; the last one repeats
KEPT = timedelta(days=30)  # ended mails, for questions about them
_FARTHEST = timedelta(days=1)  # no mail is deferred for longer; a later time was written by a wrong clock
_LONGEST_MESSAGE = 200


class Priority(IntEnum):
    """How urgent a mail is."""

    INTERACTIVE = 0  # a person is waiting for it
    BULK = 1  # one of many


class MailState(StrEnum):
    """The state of a mail."""

    WAITING = "waiting"
    SENDING = "sending"
    SENT = "sent"
    REFUSED = "refused"  # permanently, by the mail server
    GIVEN_UP = "given up"  # not accepted for two days
    DROPPED = "dropped"  # there was no recipient


OPEN = (MailState.WAITING, MailState.SENDING)


class Mail(NamedTuple):
    """A mail to send; ``mailbox`` is canonical, ``place`` the IP address of the request."""

    mailbox: str
    purpose: str
    user_id: int | None = None
    details: Mapping[str, str] = {}
    place: str = ""
    priority: Priority = Priority.INTERACTIVE


class ClaimedMail(NamedTuple):
    """A mail that one sender has claimed, until ``CLAIM`` has passed."""

    id: int
    claim: str
    mailbox: str
    purpose: str
    user_id: int | None
    details: Mapping[str, str]
    place: str
    asked_at: datetime
    tries: int


def enqueue(session: Session, mails: Iterable[Mail], *, now: datetime) -> None:
    """Queue mails for sending, in the caller's transaction."""
    rows = [
        {
            **each._asdict(),
            "details": as_text(each.details),
            "place": each.place[:45],
            "priority": int(each.priority),
            "asked_at": now,
            "due_at": now,
            "state": MailState.WAITING,
            "tries": 0,
        }
        for each in mails
    ]
    for block in database.chunked(rows, 1_000):
        session.execute(insert(MailRequest), block)


def as_text(details: Mapping[str, str]) -> str:
    """Return details in the form in which they are stored."""
    return json.dumps(dict(details), ensure_ascii=False) if details else ""


def as_details(text: str) -> dict[str, str]:
    """Return details from their stored form."""
    found: dict[str, str] = json.loads(text) if text else {}
    return found


def has_due(session: Session, *, now: datetime) -> bool:
    """Return True if there is a mail to send."""
    with reading(session):
        return bool(session.scalar(select(exists().where(_is_due(now)))))


def claim(session: Session, *, now: datetime, bulk_per_minute: int | None) -> ClaimedMail | None:
    """Claim the next mail: those that a person waits for first, then the longest due.

    ``bulk_per_minute`` is how many bulk mails may be tried within a minute; None excludes them. An expired claim
    belonged to a sender that is gone; its mail may have been sent.
    """
    with reading(session):  # mostly there is nothing, so do not block other writers
        if _next(session, now, bulk_per_minute) is None:
            return None
    with transaction(session):
        found = _next(session, now, bulk_per_minute)
        if found is None:
            return None
        was_sending = found.state == MailState.SENDING
        token = secrets.token_hex(16)
        session.execute(
            update(MailRequest)
            .where(MailRequest.id == found.id)
            .values(
                state=MailState.SENDING,
                claim=token,
                due_at=now + CLAIM,
                tried_at=now,
                tries=found.tries + 1,
                may_be_twice=found.may_be_twice or was_sending,
            )
        )
        return ClaimedMail(
            *(found.id, token, found.mailbox, found.purpose, found.user_id),
            *(as_details(found.details), found.place, found.asked_at, found.tries + 1),
        )


def _next(session: Session, now: datetime, bulk_per_minute: int | None) -> Any:
    """Return the next mail. Each query reads one end of an index, however many mails wait."""
    for priority in Priority:
        if priority is Priority.BULK and (bulk_per_minute is None or _bulk_begun(session, now) >= bulk_per_minute):
            return None
        for state in (MailState.SENDING, MailState.WAITING):
            query: Any = select(MailRequest.__table__).where(
                MailRequest.state == state, MailRequest.priority == int(priority), _is_time(now)
            )
            query = query.order_by(MailRequest.due_at).limit(1)  # no other key: an import's mails have the same time
            found = session.execute(query.with_for_update(skip_locked=True)).one_or_none()
            if found is not None:
                return found
    return None


def _is_due(now: datetime) -> ColumnElement[bool]:
    return and_(MailRequest.state.in_(OPEN), _is_time(now))


def _is_time(now: datetime) -> ColumnElement[bool]:
    return or_(MailRequest.due_at <= now, MailRequest.due_at > now + _FARTHEST)


def _bulk_begun(session: Session, now: datetime) -> int:
    within = MailRequest.tried_at.between(now - timedelta(minutes=1), now + timedelta(minutes=1))
    query = select(func.count()).where(MailRequest.priority == int(Priority.BULK), within)
    return session.scalar(query) or 0


def end(session: Session, claimed: ClaimedMail, state: MailState, *, now: datetime, message: str = "") -> None:
    """Store the final state of a mail, unless another sender has taken it over."""
    with transaction(session):
        _settle(session, claimed, {"state": state, "ended_at": now, "message": message[:_LONGEST_MESSAGE]})


def defer(
    session: Session, claimed: ClaimedMail, *, now: datetime, message: str, may_have_arrived: bool = False
) -> None:
    """Let a mail that the server did not accept wait for its next try, or give it up after two days."""
    with transaction(session):
        values: dict[str, Any] = {"message": message[:_LONGEST_MESSAGE]}
        if now - claimed.asked_at >= KEEPS_TRYING:
            values |= {"state": MailState.GIVEN_UP, "ended_at": now}
        else:
            pause = PAUSES[min(claimed.tries, len(PAUSES)) - 1]
            values |= {"state": MailState.WAITING, "due_at": now + pause}
        if may_have_arrived:
            values["may_be_twice"] = True
        _settle(session, claimed, values)


def _settle(session: Session, claimed: ClaimedMail, values: Mapping[str, Any]) -> None:
    own = and_(MailRequest.id == claimed.id, MailRequest.claim == claimed.claim)
    session.execute(update(MailRequest).where(own).values(claim=None, **values))


# The functions below run inside the caller's transaction.


def forget_address(session: Session, address: str) -> None:
    """Delete waiting mails to a canonical address, and links that were mailed to it."""
    session.execute(delete(MailRequest).where(MailRequest.mailbox == address))
    session.execute(delete(MailedLink).where(MailedLink.mailbox == address))


def clear(session: Session) -> int:
    """Delete all mails and links after a restored backup; return how many mails were still to be sent."""
    waiting = session.scalar(select(func.count()).where(MailRequest.state.in_(OPEN))) or 0
    session.execute(delete(MailRequest))
    session.execute(delete(MailedLink))
    return waiting


def thin(session: Session, *, now: datetime) -> None:
    """Delete mails that ended a month ago and links that expired a day ago, in transactions of its own."""
    mails = MailRequest.ended_at <= now - KEPT
    links = MailedLink.expires_at <= now - timedelta(days=1)
    with reading(session):
        is_needed = session.scalar(select(or_(exists().where(mails), exists().where(links))))
    if is_needed:
        with transaction(session):
            session.execute(delete(MailRequest).where(mails))
            session.execute(delete(MailedLink).where(links))
