"""An overview of the outbox, with counts and mail servers' messages but no letters."""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, and_, func, or_, select
from sqlalchemy.orm import Session

from portal.models import MailRequest, User
from portal.services.outbox import OPEN, MailState, Priority
from portal.services.transaction import reading

TOO_LONG = timedelta(minutes=15)  # for a person to wait for a mail


class Counts(NamedTuple):
    """The number of mails in each state; ended ones of the last 30 days only."""

    waiting: int
    bulk_waiting: int
    sent_today: int
    sent: int
    refused: int
    given_up: int
    dropped: int
    may_be_twice: int


class UndeliveredMail(NamedTuple):
    """A mail that the server did not accept: it waits for another try, or was refused or given up."""

    asked_at: datetime
    purpose: str
    mailbox: str
    username: str | None
    user_id: int | None
    state: str
    message: str
    tries: int
    due_at: datetime

    @property
    def is_over(self) -> bool:
        """Whether it will not be tried again."""
        return self.state in {MailState.REFUSED, MailState.GIVEN_UP}


class Overview(NamedTuple):
    """The overview for superusers; ``oldest_at`` is when the oldest waiting mail was requested."""

    counts: Counts
    oldest_at: datetime | None
    last_sent_at: datetime | None
    troubles: tuple[UndeliveredMail, ...]


def overview(session: Session, *, now: datetime, limit: int = 50) -> Overview:
    """Return counts, the oldest waiting mail, and the last undelivered mails, the newest first."""
    with reading(session):
        counts = _counts(session, now)
        oldest = session.scalar(select(func.min(MailRequest.asked_at)).where(MailRequest.state.in_(OPEN)))
        last = session.scalar(select(func.max(MailRequest.ended_at)).where(MailRequest.state == MailState.SENT))
        found = session.execute(_troubles().order_by(MailRequest.id.desc()).limit(limit))
        troubles = tuple(UndeliveredMail._make(row) for row in found)
    return Overview(counts, oldest, last, troubles)


def refusals(session: Session, user_id: int, mailboxes: Collection[str]) -> tuple[UndeliveredMail, ...]:
    """Return the last permanent refusal of mail to each of an account's canonical addresses, and to the account.

    A later mail that was accepted ends it.
    """
    whose = or_(MailRequest.user_id == user_id, MailRequest.mailbox.in_(sorted(mailboxes)))
    query = _troubles().where(whose, MailRequest.mailbox.in_(sorted(mailboxes)))
    last_sent = select(MailRequest.mailbox, func.max(MailRequest.id)).where(
        MailRequest.mailbox.in_(sorted(mailboxes)), MailRequest.state == MailState.SENT
    )
    with reading(session):
        sent: dict[str, int] = {row[0]: row[1] for row in session.execute(last_sent.group_by(MailRequest.mailbox))}
        query = query.where(MailRequest.state == MailState.REFUSED).add_columns(MailRequest.id)
        found = session.execute(query.order_by(MailRequest.id)).all()
    last = {row.mailbox: row for row in found if row.id > sent.get(row.mailbox, 0)}
    return tuple(UndeliveredMail._make(row[:-1]) for _, row in sorted(last.items()))


def waits_too_long(session: Session, *, now: datetime) -> UndeliveredMail | None:
    """Return the oldest mail that a person has been waiting for too long, or None."""
    late = and_(MailRequest.state.in_(OPEN), MailRequest.priority == int(Priority.INTERACTIVE))
    query = _selected().where(late, MailRequest.asked_at < now - TOO_LONG).order_by(MailRequest.id).limit(1)
    with reading(session):
        row = session.execute(query).one_or_none()
    return None if row is None else UndeliveredMail._make(row)


def _selected() -> Select[Any]:
    return (
        select(MailRequest.asked_at, MailRequest.purpose, MailRequest.mailbox)
        .add_columns(User.username, MailRequest.user_id, MailRequest.state, MailRequest.message)
        .add_columns(MailRequest.tries, MailRequest.due_at)
        .outerjoin(User, User.id == MailRequest.user_id)
    )


def _troubles() -> Select[Any]:
    ended = MailRequest.state.in_([MailState.REFUSED, MailState.GIVEN_UP])
    return _selected().where(or_(ended, and_(MailRequest.state.in_(OPEN), MailRequest.message != "")))


def _counts(session: Session, now: datetime) -> Counts:
    def count(*conditions: ColumnElement[bool]) -> ColumnElement[int]:
        return func.count().filter(*conditions)

    is_open, is_bulk = MailRequest.state.in_(OPEN), MailRequest.priority == int(Priority.BULK)
    is_sent = MailRequest.state == MailState.SENT
    row = session.execute(
        select(
            count(is_open, ~is_bulk),
            count(is_open, is_bulk),
            count(is_sent, MailRequest.ended_at > now - timedelta(days=1)),
            count(is_sent),
            count(MailRequest.state == MailState.REFUSED),
            count(MailRequest.state == MailState.GIVEN_UP),
            count(MailRequest.state == MailState.DROPPED),
            count(MailRequest.may_be_twice.is_(True)),
        )
    ).one()
    return Counts._make(row)
