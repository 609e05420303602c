"""Keys to the API: SECURITY 21."""

import contextlib
import hashlib
import threading
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Row, select, update
from sqlalchemy.orm import Session

from portal.errors import BadInputError, ForbiddenError, KeyRefusedError, RateLimitedError, UnknownUserError
from portal.extensions import db
from portal.models import ApiKey, Attempt, User
from portal.services.accounts import api_keys, users
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import NOW, make_user

HOME, OFFICE = "192.0.2.1", "198.51.100.7"


@pytest.fixture
def bob(session: Session) -> int:
    """Bob and Dora are superusers, so that either may go."""
    make_user(session, "dora", is_superuser=True)
    return make_user(session, "bob", is_superuser=True)


@pytest.fixture
def key(session: Session, bob: int) -> str:
    return api_keys.create(session, "bob", label="list host", expires_days=None, now=NOW)


def rows(session: Session) -> list[Row[Any]]:
    with reading(session):
        return list(session.execute(select(ApiKey.__table__).order_by(ApiKey.id)))


def tries(session: Session) -> int:
    with reading(session):
        return len(session.scalars(select(Attempt.id).where(Attempt.id != 0)).all())


def refused(session: Session, key: str, kind: type[Exception] = KeyRefusedError, *, ip: str = HOME, now=NOW) -> str:
    with pytest.raises(kind) as raised:
        api_keys.authenticate(session, key, ip=ip, now=now)
    return str(raised.value)


def test_a_key_holds_256_random_bits_and_none_of_them_is_stored(session, bob):
    made = [api_keys.create(session, "bob", label="x", expires_days=None, now=NOW) for _ in range(3)]
    secrets = [key.split("_", 2)[2] for key in made]
    assert len(set(secrets)) == 3
    assert all(len(secret) == 43 for secret in secrets)  # 256 bits, six a letter
    for key, row in zip(made, rows(session), strict=True):
        assert row.prefix == key[:11]
        assert row.key_hash == hashlib.sha256(key.encode()).hexdigest()
        assert key.removeprefix(row.prefix) not in repr(row)


def test_a_key_stands_for_its_owner(session, bob, key):
    caller = api_keys.authenticate(session, key, ip=HOME, now=NOW)
    assert (caller.user_id, caller.prefix) == (bob, key[:11])
    assert caller.actor.name == f"API key {key[:11]} of user {bob}"


@pytest.mark.parametrize("username", ["alice", "charlie"])
def test_only_active_superusers_may_have_one(session, bob, username):
    make_user(session, "alice")
    make_user(session, "charlie", is_superuser=True, is_active=False)
    with pytest.raises(BadInputError, match="not an active superuser"):
        api_keys.create(session, username, label="x", expires_days=None, now=NOW)
    assert rows(session) == []


def test_the_owner_must_exist(session):
    with pytest.raises(UnknownUserError):
        api_keys.create(session, "nobody", label="x", expires_days=None, now=NOW)


@pytest.mark.parametrize("label", ["", "  ", "x" * 81, "a\nb", "\0", "\ud800", "\u202e"])
def test_a_label_is_a_line_that_can_be_read(session, bob, label):
    with pytest.raises(BadInputError, match="not a valid label"):
        api_keys.create(session, "bob", label=label, expires_days=None, now=NOW)


@pytest.mark.parametrize("change", ["last", "first", "prefix", "longer", "shorter"])
def test_a_key_that_is_not_quite_right_is_refused(session, key, change):
    other = {
        "last": key[:-1] + ("A" if key[-1] != "A" else "B"),
        "first": key[:12] + ("A" if key[12] != "A" else "B") + key[13:],
        "prefix": "mp_22222222" + key[11:],
        "longer": key + "A",
        "shorter": key[:-1],
    }[change]
    assert "unknown API key" in refused(session, other)


@pytest.mark.parametrize("word", ["", "x", "\0", "\ud800", "é" * 55, "' OR 1=1 --", "mp_", "Bearer"])
def test_what_is_no_key_is_refused(session, key, word):
    refused(session, word)


def test_what_is_hashed_is_compared_in_constant_time():
    import inspect

    assert "hmac.compare_digest" in inspect.getsource(api_keys._found)


def test_an_expired_key_is_good_for_nothing(session, bob):
    key = api_keys.create(session, "bob", label="x", expires_days=30, now=NOW)
    api_keys.authenticate(session, key, ip=HOME, now=NOW + timedelta(days=30, seconds=-1))
    for late in (timedelta(0), timedelta(seconds=1), timedelta(days=400)):
        assert "has expired" in refused(session, key, now=NOW + timedelta(days=30) + late)


def test_a_revoked_key_is_good_for_nothing_at_once_and_for_good(session, key):
    assert api_keys.revoke(session, key[:11], now=NOW)
    assert "was revoked" in refused(session, key)
    assert not api_keys.revoke(session, key[:11], now=NOW + timedelta(days=1))
    assert [row.revoked_at for row in rows(session)] == [NOW]


def test_the_keys_of_a_superuser_are_revoked_with_the_role_and_stay_so_when_it_is_given_back(session, key):
    own = api_keys.create(session, "bob", label="backup host", expires_days=None, now=NOW)
    api_keys.revoke(session, own[:11], now=NOW)
    doras = api_keys.create(session, "dora", label="hers", expires_days=None, now=NOW)
    later = NOW + timedelta(days=1)
    assert users.revoke(session, "bob", now=later) == 1, "the other had been revoked before"
    users.grant(session, "bob")
    assert "was revoked" in refused(session, key)
    assert [row.revoked_at for row in rows(session)] == [later, NOW, None]
    api_keys.authenticate(session, doras, ip=HOME, now=later)


def test_the_key_of_a_deactivated_owner_stops_at_once_until_the_account_is_active_again(session, key):
    users.deactivate(session, "bob", now=NOW)
    assert "not an active superuser" in refused(session, key, ForbiddenError)
    assert not api_keys.find(session, key[:11]).is_owner_active
    users.activate(session, "bob", now=NOW, lists=None)
    api_keys.authenticate(session, key, ip=HOME, now=NOW)


def test_the_key_of_somebody_who_is_no_superuser_is_refused_whatever_made_it_so(session, bob, key):
    with transaction(session):
        session.execute(update(User).where(User.id == bob).values(is_superuser=False))
    assert "not an active superuser" in refused(session, key, ForbiddenError)


def test_no_key_that_is_made_while_the_role_is_taken_outlives_it(app, session, bob):
    barrier = threading.Barrier(2)

    def make() -> None:
        with app.app_context(), Session(db.engine) as own:
            barrier.wait(10)
            with contextlib.suppress(BadInputError):
                api_keys.create(own, "bob", label="x", expires_days=None, now=NOW)

    for _ in range(5):
        maker = threading.Thread(target=make)
        maker.start()
        barrier.wait(10)
        users.revoke(session, "bob", now=NOW)
        maker.join()
        assert all(row.revoked_at for row in rows(session))
        users.grant(session, "bob")


def test_the_key_of_a_deleted_owner_goes_with_the_account(session, key):
    users.delete(session, "bob", now=NOW, erase=False, lists=None)
    assert rows(session) == []
    refused(session, key)


@pytest.mark.parametrize("prefix", ["", "mp_22222222", "x", "\0", "\ud800"])
def test_no_other_prefix_can_be_revoked(session, key, prefix):
    with pytest.raises(BadInputError):
        api_keys.revoke(session, prefix, now=NOW)


def test_a_whole_key_given_for_its_prefix_is_not_repeated(session, key):
    with pytest.raises(BadInputError) as raised:
        api_keys.revoke(session, key, now=NOW)
    assert key[11:] not in str(raised.value)


def test_the_list_tells_nothing_that_a_key_could_be_made_from(session, key):
    (line,) = api_keys.list_keys(session)
    assert (line.prefix, line.username, line.label, line.created_at) == (key[:11], "bob", "list host", NOW)
    assert key[11:] not in repr(line)
    assert hashlib.sha256(key.encode()).hexdigest() not in repr(line)


def test_its_use_is_written_down_every_five_minutes_at_most(session, key):
    for minutes, written in [(0, 0), (4, 0), (5, 5), (9, 5), (10, 10)]:
        api_keys.authenticate(session, key, ip=HOME, now=NOW + timedelta(minutes=minutes))
        assert [row.last_used_at for row in rows(session)] == [NOW + timedelta(minutes=written)]


def test_a_use_at_a_clock_that_was_ahead_does_not_hide_the_next_one(session, key):
    api_keys.authenticate(session, key, ip=HOME, now=NOW + timedelta(days=3650))
    api_keys.authenticate(session, key, ip=HOME, now=NOW)
    assert [row.last_used_at for row in rows(session)] == [NOW]


def test_bad_keys_are_limited_by_where_they_come_from(session, key):
    for _ in range(10):
        refused(session, "mp_22222222_" + "A" * 43)
    with pytest.raises(RateLimitedError) as raised:
        api_keys.authenticate(session, "mp_33333333_" + "A" * 43, ip=HOME, now=NOW)
    assert 0 < raised.value.retry_after <= 60
    refused(session, "x", ip=OFFICE)
    refused(session, "x", now=NOW + timedelta(minutes=2))


def test_an_hour_of_bad_keys_is_limited_too(session):
    for minute in range(6):
        for _ in range(10):
            refused(session, "x", now=NOW + timedelta(minutes=minute))
    later = NOW + timedelta(minutes=10)
    refused(session, "x", RateLimitedError, now=later)


def test_a_good_key_is_never_stopped_by_the_bad_ones_of_others(session, key):
    for _ in range(12):
        with pytest.raises((KeyRefusedError, RateLimitedError)):
            api_keys.authenticate(session, "x", ip=OFFICE, now=NOW)
    for _ in range(100):
        api_keys.authenticate(session, key, ip=OFFICE, now=NOW)


def test_a_good_key_is_not_counted(session, key):
    for _ in range(3):
        api_keys.authenticate(session, key, ip=HOME, now=NOW)
    assert tries(session) == 0


def test_keys_that_were_good_once_are_counted_as_bad_ones(session, key):
    api_keys.revoke(session, key[:11], now=NOW)
    for _ in range(10):
        refused(session, key)
    refused(session, key, RateLimitedError)


def test_parallel_tries_are_all_counted(app, session, key, clock: Clock):
    answers: list[str] = []

    def attempt() -> None:
        with app.app_context(), Session(db.engine) as own:
            try:
                api_keys.authenticate(own, "x", ip=HOME, now=NOW)
            except (KeyRefusedError, RateLimitedError) as error:
                answers.append(type(error).__name__)

    threads = [threading.Thread(target=attempt) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(answers) == ["KeyRefusedError"] * 10 + ["RateLimitedError"] * 6
