"""Accounts that an import deactivated long ago, and that the membership source names no more: they are deleted."""

from collections.abc import Callable
from datetime import datetime
from typing import Any

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from portal.models import AccountChange, User
from portal.services.accounts import users
from portal.services.accounts.moves import Lists
from portal.services.history import Actor
from portal.services.transaction import reading

_AUTHOR = Actor(None, "membership source")
_DEACTIVATED = "deactivated"  # in the history of an account


def months_before(now: datetime, months: int) -> datetime:
    """Return the same time of day some months ago, on the last day of a month that is shorter."""
    number = now.year * 12 + now.month - 1 - months
    for day in range(now.day, 0, -1):
        try:
            return now.replace(year=number // 12, month=number % 12 + 1, day=day)
        except ValueError:  # the month has no such day
            continue
    raise AssertionError("every month has a first day")


def count(session: Session, *, before: datetime) -> int:
    """Return how many accounts an import deactivated before a time, and nobody has changed that since."""
    with reading(session):
        return session.scalar(select(func.count()).select_from(_left(before).subquery())) or 0


def delete(session: Session, *, before: datetime, clock: Callable[[], datetime], lists: Lists) -> int:
    """Delete those accounts, each in a transaction of its own; return how many went.

    Their member keys are not remembered: who becomes a member again gets an account again.
    """
    with reading(session):
        ids = session.scalars(_left(before)).all()
    return sum(
        users.delete_leaver(session, user_id, now=clock(), lists=lists, actor=_AUTHOR) is not None for user_id in ids
    )


def _left(before: datetime) -> Select[Any]:
    """Return the ids of accounts; who has a role is not among them, whatever an import did before."""
    last = (
        select(func.max(AccountChange.at))
        .where(AccountChange.user_id == User.id, AccountChange.what == _DEACTIVATED)
        .scalar_subquery()
    )
    has_left = User.deactivated_by_import & User.is_active.is_(False) & User.is_superuser.is_(False)
    return select(User.id).where(has_left, User.member_key.is_not(None), last <= before).order_by(User.id)
