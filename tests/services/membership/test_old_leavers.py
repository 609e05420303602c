"""Leavers are deleted after a time, unless a person has had a say since."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.orm import Session

from portal import database
from portal.services.accounts import users
from portal.services.membership import old_leavers
from tests.services.membership.conftest import Membership

LEAVERS = [f"{number},{name},{name}@example.org,," for number, name in enumerate(("ada", "bob", "cleo", "dan"), 1)]
STAY = [f"{number},stays{number},stays{number}@example.org,," for number in range(10, 15)]


@pytest.mark.parametrize(
    ("now", "months", "then"),
    [
        ((2026, 11, 26), 24, (2024, 11, 26)),
        ((2026, 1, 15), 1, (2025, 12, 15)),
        ((2026, 12, 31), 10, (2026, 2, 28)),
        ((2024, 2, 29), 12, (2023, 2, 28)),
        ((2026, 3, 31), 999, (1942, 12, 31)),
    ],
)
def test_months_are_counted_as_a_calendar_does(now: tuple[int, ...], months: int, then: tuple[int, ...]) -> None:
    assert old_leavers.months_before(datetime(*now, 6, tzinfo=UTC), months) == datetime(*then, 6, tzinfo=UTC)


def test_leavers_are_deleted_after_their_time_and_nobody_else(membership: Membership, session: Session) -> None:
    def delete_those_before(time: datetime) -> int:
        found = old_leavers.count(session, before=time)
        assert old_leavers.delete(session, before=time, clock=membership.clock, lists={}) == found
        return found

    membership.run(*LEAVERS, *STAY)
    membership.run(*STAY)
    left = database.clock(session)  # which is what the history of accounts goes by
    session.rollback()
    users.deactivate(session, "bob", now=membership.clock())  # a person has decided about them, who stay
    membership.run(LEAVERS[2], *STAY)  # back
    users.activate(session, "dan", now=membership.clock(), lists={})
    assert delete_those_before(left - timedelta(hours=1)) == 0
    assert delete_those_before(left + timedelta(minutes=1)) == 1
    assert membership.usernames() == ["bob", "cleo", "dan", *(f"stays{number}" for number in range(10, 15))]
    assert delete_those_before(left + timedelta(days=9_999)) == 0
    assert membership.run(*LEAVERS, *STAY).counts["created"] == 1, "a member again, by the key of then"
