"""Whether the command that cron runs every minute has anything to do, using the driver alone; mostly it has not.

Each part of the command has a query here, in SQL that both databases accept. A query may find a row although that part
then finds nothing to do, but never the other way round.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from typing import NamedTuple

from portal import driver


class DueQuery(NamedTuple):
    """A query that finds a row if there is something to do; ``times`` are added to now for each ``{}``."""

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
    """Return True if a list is due to be read."""
    return has_work(uri, now=now, without=QUESTIONS.keys() - {"readings", "deliveries"})


def has_work(uri: str, *, now: datetime, without: Collection[str] = ()) -> bool:
    """Return True if a part of the command has something to do, not counting the parts in ``without``.

    Return True also if the database does not answer, so that the part itself reports the error.
    """
    asked = [question for name, question in QUESTIONS.items() if name not in without]
    try:
        return driver.has_any(uri, [(each.query, [now + time for time in each.times]) for each in asked])
    except Exception:  # noqa: BLE001 - the part itself reports it
        return True
