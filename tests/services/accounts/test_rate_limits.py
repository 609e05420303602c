"""Limits: tries are counted before they are made, once, in whatever process or thread."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.errors import RateLimitedError
from portal.models import Attempt
from portal.services.accounts import rate_limits
from portal.services.transaction import transaction
from tests.conftest import Clock
from tests.factories import NOW

KEY = rate_limits.key("current password", "7")


def let_through(session: Session, tries: int, clock: Clock, keys: list[rate_limits.Key] | None = None) -> int:
    """Return how many tries are let through."""
    through = 0
    for _ in range(tries):
        try:
            rate_limits.count(session, keys or [KEY], now=clock())
            through += 1
        except RateLimitedError:
            pass
    return through


def rows(session: Session) -> int:
    """Return how many tries are counted; that refusals are logged once a minute is no try."""
    logged = rate_limits.key("refusal", KEY.digest).digest
    found = session.scalar(select(func.count()).select_from(Attempt).where(Attempt.id > 0, Attempt.key != logged))
    session.rollback()
    return found


@pytest.mark.parametrize("key", [KEY, rate_limits.account_and_ip(1, "192.0.2.1")], ids=["own password", "log-in"])
def test_five_a_minute_and_twenty_an_hour_are_let_through(session, clock, key):
    let = []
    for _ in range(7):
        let.append(let_through(session, 10, clock, [key]))
        clock.advance(seconds=60)
    assert let == [5, 5, 5, 5, 0, 0, 0]
    clock.advance(minutes=53)
    assert let_through(session, 10, clock, [key]) == 5


def test_the_refusal_says_how_long(session, clock):
    let_through(session, 3, clock)
    clock.advance(seconds=20)
    let_through(session, 2, clock)
    clock.advance(seconds=10.5)
    with pytest.raises(RateLimitedError, match="wait 30 seconds") as caught:
        rate_limits.count(session, [KEY], now=clock())
    assert caught.value.retry_after == 30
    clock.advance(seconds=caught.value.retry_after)
    assert let_through(session, 5, clock) == 3


def test_a_refused_try_is_not_counted_and_writes_nothing(session, clock):
    let_through(session, 50, clock)
    assert rows(session) == 5


def test_every_key_of_a_try_counts_and_any_may_refuse_it(session, clock):
    place = rate_limits.by_ip("192.0.2.1")
    names = [rate_limits.account_and_ip(f"user{number}", "192.0.2.1") for number in range(20)]
    assert sum(let_through(session, 4, clock, [name, place]) for name in names) == 60
    assert let_through(session, 1, clock, [rate_limits.account_and_ip("another", "192.0.2.2")]) == 1


def test_forgiving_takes_back_the_try_and_clears_only_what_it_is_told(session, clock):
    place, name = rate_limits.by_ip("192.0.2.1"), rate_limits.account_and_ip("alice", "192.0.2.1")
    let_through(session, 3, clock, [name, place])
    counted = rate_limits.count(session, [name, place], now=clock())
    with transaction(session):
        rate_limits.forgive(session, counted, cleared=[name])
    assert rows(session) == 3
    assert let_through(session, 10, clock, [name]) == 5


def test_old_rows_are_taken_away(session, clock):
    let_through(session, 5, clock)
    clock.advance(days=1)
    let_through(session, 1, clock)
    assert rows(session) == 1


def test_no_name_and_no_address_can_be_read(session, clock):
    rate_limits.count(
        session, [rate_limits.account_and_ip("alice", "192.0.2.1"), rate_limits.by_ip("192.0.2.1")], now=clock()
    )
    for digest in session.scalars(select(Attempt.key)):
        assert len(digest) == 64
        assert set(digest) <= set("0123456789abcdef")


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff:ffff:ffff:ffff"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("fe80::1%eth0", "fe80::2%eth1"),
        ("192.0.2.1:50123", "192.0.2.1"),
        ("192.0.2.1:50123", "192.0.2.1:50124"),
        ("[2001:db8::1]:50123", "[2001:db8::1]"),
        ("[2001:db8::1]:50123", "2001:db8::2"),
        ("[::ffff:192.0.2.1]:443", "192.0.2.1"),
    ],
)
def test_these_are_one_place(one, other):
    assert rate_limits.by_ip(one) == rate_limits.by_ip(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:3::1"),
        ("192.0.2.1", "192.0.2.2"),
        ("", "192.0.2.2"),
        ("unix:", "\ud800"),
    ],
)
def test_these_are_two_places(one, other):
    assert rate_limits.by_ip(one) != rate_limits.by_ip(other)


def test_kinds_of_tries_are_counted_apart():
    assert rate_limits.key("ip", "x") != rate_limits.key("current password", "x")


CHILD = """
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from sqlalchemy import create_engine
from sqlalchemy.orm import Session
from portal import database
from portal.errors import RateLimitedError
from portal.services.accounts import rate_limits

engine = create_engine(sys.argv[1])
database.prepare(engine)
now = datetime.fromisoformat(sys.argv[2])
keys = [rate_limits.account_and_ip("alice", "192.0.2.1"), rate_limits.by_ip("192.0.2.1")]

def attempt(_number):
    with Session(engine) as session:
        try:
            rate_limits.count(session, keys, now=now)
            return 1
        except RateLimitedError:
            return 0

with Session(engine) as session:
    session.connection()
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(5) as pool:
    print(sum(pool.map(attempt, range(5))))
engine.dispose()
"""


@pytest.mark.slow
def test_of_25_tries_in_five_processes_of_five_threads_five_are_let_through(app):
    uri, argv = app.config["SQLALCHEMY_DATABASE_URI"], [sys.executable, "-W", "error", "-c", CHILD]
    children = [
        subprocess.Popen([*argv, uri, NOW.isoformat()], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
    for child in children:
        assert child.stdout.readline() == "ready\n"
    for child in children:
        child.stdin.write("go\n")
        child.stdin.flush()
    through = [int(child.communicate(timeout=60)[0]) for child in children]
    assert [child.returncode for child in children] == [0] * 5
    assert sum(through) == 5


def test_of_25_tries_in_threads_of_one_process_five_are_let_through(app, session, clock):
    engine = session.get_bind()

    def attempt(_number: int) -> int:
        with Session(engine) as own:
            return let_through(own, 1, clock, [KEY])

    with ThreadPoolExecutor(25) as pool:
        assert sum(pool.map(attempt, range(25))) == 5
    assert rows(session) == 5


@pytest.mark.parametrize("ahead", [timedelta(minutes=2), timedelta(days=1), timedelta(days=3650)])
def test_tries_that_a_clock_ahead_has_left_lock_nobody(session, clock, ahead):
    clock.now += ahead
    let_through(session, 5, clock)
    clock.now -= ahead
    assert (let_through(session, 5, clock), let_through(session, 1, clock)) == (5, 0)
    assert rows(session) == 5, "the wrong ones are gone, and do not count when their time comes"


def test_hosts_whose_clocks_differ_by_seconds_count_together(session, clock):
    clock.advance(seconds=30)
    let_through(session, 5, clock)
    clock.advance(seconds=-30)
    assert let_through(session, 1, clock) == 0


def test_a_place_may_have_a_limit_of_its_own(session, clock):
    place = rate_limits.by_ip("192.0.2.1", per_hour=7)
    assert let_through(session, 10, clock, [place]) == 7
    clock.advance(minutes=59)
    assert let_through(session, 1, clock, [place]) == 0


def test_an_account_is_no_name_that_looks_like_its_number():
    assert rate_limits.account_and_ip(7, "192.0.2.1") != rate_limits.account_and_ip("7", "192.0.2.1")


def test_what_is_refused_is_logged_once_a_minute_and_place(session, clock, caplog):
    place, other = rate_limits.by_ip("192.0.2.1"), rate_limits.by_ip("192.0.2.2")
    let_through(session, 60, clock, [place])
    let_through(session, 60, clock, [other])
    logged = []
    for _ in range(3):
        let_through(session, 20, clock, [place])
        logged.append([each.getMessage() for each in caplog.records].count("limited"))
        clock.advance(seconds=30)
    assert logged == [1, 1, 2]
    let_through(session, 1, clock, [other])
    assert caplog.records[-1].fields["tries"] == "ip"
    assert len(caplog.records) == 3
