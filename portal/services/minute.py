"""What the minute's command has to do, found out by the driver alone: mostly it is nothing.

Each part of the command has its question here, under its name, in SQL that both databases take. It may say yes where
the part then finds nothing to do, and must never say no where there is something.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from portal import driver


class DueQuery(NamedTuple):
    """A query that finds a row where there is something to do; times are what is added to now for each ``{}``."""

    query: str
    times: tuple[timedelta, ...] = ()


QUESTIONS = {
    "runs": DueQuery(
        "SELECT 1 FROM runs WHERE state IN ('asked', 'taken')"
        " OR (state IN ('shown', 'changed', 'dropped') AND asked_at < {})",
        (-timedelta(days=90),),
    ),
    "mail": DueQuery(
        "SELECT 1 FROM outbox WHERE state IN ('waiting', 'sending') AND (due_at <= {} OR due_at > {})",
        (timedelta(), timedelta(days=1)),
    ),
    "changes of accounts": DueQuery(
        "SELECT 1 FROM account_changes WHERE id >"
        " coalesce((SELECT number FROM notice_marks WHERE name = 'accounts'), 0)"
    ),
    "changes of lists": DueQuery(
        "SELECT 1 FROM history WHERE id > coalesce((SELECT number FROM notice_marks WHERE name = 'lists'), 0)"
    ),
    "readings": DueQuery(
        "SELECT 1 FROM list_readings WHERE asked_at IS NOT NULL OR due_at <= {} OR due_at > {}",
        (timedelta(), timedelta(days=2)),
    ),
    "deliveries": DueQuery("SELECT 1 FROM member_deliveries WHERE asked_at IS NOT NULL"),
    "old readings": DueQuery("SELECT 1 FROM unknown_subscribers WHERE read_at <= {}", (-timedelta(days=1),)),
    "old mail": DueQuery("SELECT 1 FROM outbox WHERE ended_at <= {}", (-timedelta(days=30),)),
    "old links": DueQuery("SELECT 1 FROM mailed_links WHERE expires_at <= {}", (-timedelta(days=1),)),
}


def has_readings(uri: str, *, now: datetime) -> bool:
    """Return True if something is to be read of a list."""
    return has_work(uri, now=now, without=QUESTIONS.keys() - {"readings", "deliveries"})


def has_work(uri: str, *, now: datetime, without: Collection[str] = ()) -> bool:
    """Return True if a part of the command has something to do, ``without`` those that are not asked about.

    Where the database does not answer it says yes: the part then says what is wrong.
    """
    asked = [question for name, question in QUESTIONS.items() if name not in without]
    try:
        return driver.has_any(uri, [(each.query, [now + time for time in each.times]) for each in asked])
    except Exception:  # noqa: BLE001 - whatever it is, the ordinary way reports it
        return True
