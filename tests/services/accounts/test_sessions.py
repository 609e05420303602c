"""Log-ins: what opens a session, what ends it, and what a stranger can tell from the answer."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import bcrypt
import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from portal.errors import LogInFailedError, RateLimitedError, WrongPasswordError
from portal.models import LoginSession, User
from portal.services.accounts import password_changes, passwords, profiles, sessions, users
from portal.services.accounts.sessions import Origin
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import make_user

PASSWORD = "canary battery staple"
HASH = passwords.hash_password(PASSWORD, rounds=4)


@pytest.fixture
def alice(session: Session) -> int:
    return make_user(session, "alice", password_hash=HASH)


@pytest.fixture
def log_in(session: Session, clock: Clock) -> Callable[..., str]:
    def call(name: str = "alice", password: str = PASSWORD, **changed: Any) -> str:
        values = {"origin": Origin("192.0.2.1"), "remember": False, "now": clock(), "rounds": 4, **changed}
        return sessions.log_in(session, name=name, password=password, **values)

    return call


@pytest.fixture
def bcrypt_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls of bcrypt, counted where the outside begins."""
    calls: list[str] = []

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(bcrypt, name)

        def call(*arguments: Any) -> Any:
            calls.append(name)
            return real(*arguments)

        return call

    for name in ("checkpw", "hashpw"):
        monkeypatch.setattr(bcrypt, name, counted(name))
    return calls


def who(session: Session, token: str, clock: Clock) -> str | None:
    found = sessions.member(session, token, now=clock())
    return found.username if found else None


def test_a_log_in_gives_a_token_that_stands_for_the_member(session, alice, log_in, clock):
    token = log_in()
    found = sessions.member(session, token, now=clock())
    assert found == sessions.Member(alice, "alice", "Alice", is_superuser=False, token=token)
    assert found.get_id() == token
    assert (found.is_authenticated, found.is_active, found.is_anonymous) == (True, True, False)
    assert profiles.by_id(session, alice).last_login_at == clock()


def test_the_database_holds_a_hash_of_the_token_only(session, alice, log_in):
    token = log_in()
    stored = session.scalars(select(LoginSession.token_hash)).one()
    assert len(token) >= 43
    assert token not in stored


def test_each_log_in_gets_a_token_of_its_own(session, alice, log_in, clock):
    first, second = log_in(), log_in()
    assert first != second
    assert who(session, first, clock) == who(session, second, clock) == "alice"


@pytest.mark.parametrize("name", ["ALICE", " alice ", "alice@example.org", "Alice@EXAMPLE.org"])
def test_a_member_logs_in_by_username_or_address_whatever_the_case(session, alice, log_in, clock, name):
    assert who(session, log_in(name), clock) == "alice"


def test_tries_count_together_however_the_address_is_spelled(session, log_in):
    for name in (
        "bob@exämple.org",
        "BOB@EXÄMPLE.ORG",
        "bob@xn--exmple-cua.org",
        "bob@\uff45xämple.org",
        "bob@exa\u0308mple.org",
    ):
        with pytest.raises(LogInFailedError):
            log_in(name, "wrong")
    with pytest.raises(RateLimitedError):
        log_in("Bob@Exämple.org", "wrong")


def test_an_address_of_two_accounts_logs_nobody_in(session, log_in, clock):
    for username in ("alice", "bob"):
        make_user(session, username, "both@example.org", password_hash=HASH)
    with pytest.raises(LogInFailedError):
        log_in("both@example.org")
    assert who(session, log_in("bob"), clock) == "bob"


def test_a_username_that_is_its_users_address_comes_before_another_holder(session, log_in, clock):
    make_user(session, "bob@example.org", "other@example.org", "bob@example.org", password_hash=HASH)
    make_user(session, "bob", "bob@example.org", password_hash=HASH)
    assert who(session, log_in("Bob@example.org"), clock) == "bob@example.org"


def test_the_successor_logs_in_with_an_address_and_the_predecessor_who_is_called_so_does_not(session, log_in, clock):
    predecessors = passwords.hash_password("the predecessor's own", rounds=4)
    make_user(session, "chair@example.org", "former@example.org", password_hash=predecessors)
    with pytest.raises(LogInFailedError):
        log_in("chair@example.org", "the predecessor's own")
    make_user(session, "dora", "chair@example.org", password_hash=HASH)
    with pytest.raises(LogInFailedError):
        log_in("chair@example.org", "the predecessor's own")
    assert who(session, log_in("chair@example.org"), clock) == "dora"
    assert who(session, log_in("former@example.org", "the predecessor's own"), clock) == "chair@example.org"


def test_tries_count_for_the_account_whatever_name_of_it_is_typed(session, log_in, clock):
    make_user(session, "alice", "alice@example.org", "a.liddell@example.org", password_hash=HASH)
    for name in ("alice", "ALICE", "alice@example.org", "a.liddell@example.org", "A.Liddell@EXAMPLE.org"):
        with pytest.raises(LogInFailedError):
            log_in(name, "wrong")
    with pytest.raises(RateLimitedError):
        log_in("alice")


def test_the_tries_of_one_place_have_a_limit_that_can_be_set(session, log_in):
    for number in range(3):
        with pytest.raises(LogInFailedError):
            log_in(f"unknown{number}", "wrong", tries_per_hour=3)
    with pytest.raises(RateLimitedError):
        log_in("another", "wrong", tries_per_hour=3)


def test_a_log_in_is_listed_with_its_browser_system_and_place(session, alice, log_in, clock):
    firefox = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
    token = log_in(origin=Origin("2001:db8::1", firefox))
    log_in(origin=Origin("x" * 500, "<b>" * 5_000))
    found = sessions.log_ins(session, sessions.member(session, token, now=clock()), now=clock())
    assert [(each.browser, each.system, each.place) for each in found] == [
        ("Firefox", "Linux", "2001:db8::1"),
        ("Other", "Other", "x" * 45),
    ]


def test_a_password_is_confirmed_for_fifteen_minutes(session, alice, log_in, clock):
    token = log_in()
    assert sessions.is_confirmed(session, token, now=clock())
    clock.advance(minutes=15)
    assert not sessions.is_confirmed(session, token, now=clock())
    with pytest.raises(WrongPasswordError):
        password_changes.confirm_password(session, alice, password="wrong", token=token, now=clock(), rounds=4)
    assert not sessions.is_confirmed(session, token, now=clock())
    password_changes.confirm_password(session, alice, password=PASSWORD, token=token, now=clock(), rounds=4)
    assert sessions.is_confirmed(session, token, now=clock())
    clock.advance(days=-1)
    assert not sessions.is_confirmed(session, token, now=clock()), "the clock was ahead"
    assert not sessions.is_confirmed(session, "another", now=clock())


@pytest.mark.parametrize("remember", [False, True])
def test_a_clock_years_ahead_leaves_no_log_in_for_years(session, alice, log_in, clock, remember):
    right = clock()
    clock.advance(days=3650)
    token = log_in(remember=remember)
    assert who(session, token, clock) == "alice"
    clock.now = right
    assert sessions.member(session, token, now=right) is None
    assert who(session, log_in(), clock) == "alice"


def test_a_log_in_that_a_clock_ahead_has_seen_is_idle_and_is_seen_again(session, alice, log_in, clock):
    token, seen = log_in(remember=True), select(LoginSession.seen_at)
    sessions.member(session, token, now=clock() + timedelta(days=20))
    assert who(session, token, clock) == "alice"
    with reading(session):
        assert session.scalars(seen).all() == [clock()]
    token = log_in()
    sessions.member(session, token, now=clock() + timedelta(hours=11))
    sessions.member(session, token, now=clock() + timedelta(hours=22))
    assert sessions.member(session, token, now=clock()) is None


def test_a_session_that_ended_while_its_password_was_compared_confirms_nothing(session, alice, log_in, clock):
    token = log_in()
    sessions.log_out(session, token)
    with pytest.raises(WrongPasswordError):
        password_changes.confirm_password(session, alice, password=PASSWORD, token=token, now=clock(), rounds=4)


@pytest.fixture
def spent(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What bcrypt has cost, in rounds, counted where the outside begins."""
    costs: list[int] = []
    check, make = bcrypt.checkpw, bcrypt.hashpw

    def checkpw(password: bytes, stored: bytes) -> bool:
        costs.append(2 ** int(stored[4:6]))
        return check(password, stored)

    def hashpw(password: bytes, salt: bytes) -> bytes:
        costs.append(2 ** int(salt[4:6]))
        return make(password, salt)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)
    monkeypatch.setattr(bcrypt, "hashpw", hashpw)
    return costs


@pytest.mark.parametrize("highest", [6, 7])
def test_what_is_refused_takes_the_same_cpu_whatever_is_stored(session, log_in, spent, highest):
    rounds = 6
    imported = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    make_user(session, "imported", password_hash=imported)
    make_user(session, "inactive", password_hash=passwords.hash_password(PASSWORD, rounds=4), is_active=False)
    make_user(session, "without", password_hash=passwords.UNUSABLE)
    for cost in {4, 5, 6, highest}:
        make_user(session, f"cost{cost}", password_hash=passwords.hash_password(PASSWORD, rounds=cost))
    tries = {("inactive", PASSWORD), ("unknown", PASSWORD), ("nobody@example.org", PASSWORD), ("imported", "nul \0")}
    tries |= {(name, "wrong") for name in ("imported", "without", "inactive", "cost4", "cost5", "cost6", "unknown")}
    tries |= {(f"cost{highest}", "wrong")}
    found = set()
    for name, password in tries:
        spent.clear()
        refusal(log_in, name=name, password=password, rounds=rounds)
        found.add(sum(spent))
    assert found == {2**highest}


def test_what_is_not_typed_in_nfc_costs_twice_whoever_it_is_for(session, alice, log_in, spent):
    for name in ("alice", "unknown"):
        spent.clear()
        refusal(log_in, name=name, password="cafe\u0301 au lait")
        assert spent == [2**4, 2**4]


@pytest.mark.parametrize("cost", [4, 6, 7])
def test_a_hash_of_another_cost_is_replaced_once_by_a_log_in(session, log_in, clock, spent, cost):
    alice = make_user(session, "alice", password_hash=passwords.hash_password(PASSWORD, rounds=cost))
    spent.clear()
    log_in(rounds=6)
    assert sum(spent) == (2**6 if cost == 6 else 2**cost + 2**6)
    stored = session.scalars(select(User.password_hash).where(User.id == alice)).one()
    session.rollback()
    assert stored.startswith("v1$$2b$06$")
    spent.clear()
    log_in(rounds=6)
    assert spent == [2**6]


def refusal(log_in: Callable[..., str], **values: Any) -> tuple[type, str]:
    with pytest.raises(LogInFailedError) as caught:
        log_in(**values)
    return type(caught.value), str(caught.value)


def test_unknown_inactive_wrong_and_unusable_are_one_answer_after_one_bcrypt(session, alice, log_in, bcrypt_calls):
    make_user(session, "bob", password_hash=HASH, is_active=False)
    make_user(session, "charlie", password_hash="!")
    make_user(session, "dora", password_hash="v1$$2b$04$garbage")
    make_user(session, "eve", password_hash=bcrypt.hashpw(b"something else", bcrypt.gensalt(4)).decode())
    bcrypt_calls.clear()
    tries = [
        {"name": "nobody"},
        {"name": "nobody@example.org"},
        {"name": "@"},
        {"name": "x" * 10_000},
        {"name": "nul\0"},
        {"name": "lone \ud800"},
        {"name": ""},
        {"name": "bob"},
        {"name": "charlie"},
        {"name": "dora"},
        {"name": "eve"},
        {"name": "eve", "password": "x" * 100},
        {"name": "alice", "password": "wrong"},
        {"name": "alice", "password": ""},
        {"name": "alice", "password": "lone \ud800"},
        {"name": "eve", "password": "lone \udcff"},
        {"name": "alice", "password": "nul \0"},
        {"name": "eve", "password": "nul \0"},
    ]
    answers = {refusal(log_in, **values) for values in tries}
    assert len(answers) == 1
    assert bcrypt_calls == ["checkpw"] * len(tries)


def test_a_log_in_runs_bcrypt_once(session, alice, log_in, bcrypt_calls):
    log_in()
    assert bcrypt_calls == ["checkpw"]


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_an_imported_hash_opens_once_and_is_replaced(session, log_in, clock, prefix):
    imported = prefix + bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()[4:]
    alice = make_user(session, "alice", password_hash=imported)
    assert who(session, log_in(), clock) == "alice"
    stored = session.scalars(select(User.password_hash).where(User.id == alice)).one()
    session.rollback()
    assert stored.startswith("v1$")
    assert who(session, log_in(), clock) == "alice"


def test_two_log_ins_with_an_imported_hash_at_once_both_succeed(session, log_in, clock, monkeypatch):
    imported = bcrypt.hashpw(PASSWORD.encode(), bcrypt.gensalt(4)).decode()
    alice = make_user(session, "alice", password_hash=imported)
    overtake_once(monkeypatch, lambda: set_columns(session, alice, password_hash=HASH))
    assert who(session, log_in(), clock) == "alice"


@pytest.mark.parametrize("columns", [{"is_active": False}, {"password_hash": passwords.hash_password("x", rounds=4)}])
def test_who_is_locked_out_while_bcrypt_works_does_not_get_in(session, alice, log_in, monkeypatch, columns):
    overtake_once(monkeypatch, lambda: set_columns(session, alice, **columns))
    with pytest.raises(LogInFailedError):
        log_in()
    assert session.scalar(select(func.count()).select_from(LoginSession)) == 0


def overtake_once(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Do something while the next comparison is under way."""
    real, acts = bcrypt.checkpw, [act]

    def checkpw(*arguments: Any) -> bool:
        while acts:
            acts.pop()()
        return real(*arguments)

    monkeypatch.setattr(bcrypt, "checkpw", checkpw)


def set_columns(session: Session, user_id: int, **columns: Any) -> None:
    with transaction(session):
        session.execute(update(User).where(User.id == user_id).values(**columns))


def test_a_session_ends_after_twelve_hours_without_use(session, alice, log_in, clock):
    token = log_in()
    clock.advance(hours=11, minutes=59)
    assert who(session, token, clock) == "alice"
    clock.advance(hours=11, minutes=59)
    assert who(session, token, clock) == "alice"
    token = log_in()
    clock.advance(hours=12)
    assert who(session, token, clock) is None


def test_a_session_ends_after_a_day_however_much_it_is_used(session, alice, log_in, clock):
    token = log_in()
    for _ in range(23):
        clock.advance(hours=1)
        assert who(session, token, clock) == "alice"
    clock.advance(hours=1)
    assert who(session, token, clock) is None


def test_a_member_is_remembered_for_thirty_days(session, alice, log_in, clock):
    token = log_in(remember=True)
    clock.advance(days=29, hours=23)
    assert who(session, token, clock) == "alice"
    clock.advance(hours=1)
    assert who(session, token, clock) is None


def test_a_superuser_is_never_remembered(session, log_in, clock):
    make_user(session, "alice", password_hash=HASH, is_superuser=True)
    token = log_in(remember=True)
    clock.advance(hours=12)
    assert who(session, token, clock) is None


def test_whoever_becomes_a_superuser_is_remembered_no_longer(session, alice, log_in, clock):
    token = log_in(remember=True)
    users.grant(session, "alice")
    assert sessions.member(session, token, now=clock()).is_superuser
    clock.advance(hours=12)
    assert who(session, token, clock) is None


def test_a_log_out_ends_the_session_at_once_remembered_or_not(session, alice, log_in, clock):
    for remember in (False, True):
        token = log_in(remember=remember)
        sessions.log_out(session, token)
        assert who(session, token, clock) is None
        sessions.log_out(session, token)


def test_the_other_sessions_end_and_the_kept_one_stays(session, alice, log_in, clock):
    make_user(session, "bob", password_hash=HASH)
    kept, other, bobs = log_in(), log_in(remember=True), log_in("bob")
    sessions.end_others(session, alice, keep_token=kept)
    assert [who(session, each, clock) for each in (kept, other, bobs)] == ["alice", None, "bob"]
    sessions.end_others(session, alice, keep_token=None)
    assert [who(session, each, clock) for each in (kept, bobs)] == [None, "bob"]


@pytest.mark.parametrize("token", ["", "x", "\0", "\ud800", "x" * 10_000])
def test_a_token_that_nobody_was_given_stands_for_nobody(session, alice, log_in, clock, token):
    log_in()
    assert who(session, token, clock) is None


def test_looking_up_a_member_is_one_select_and_leaves_nothing_open(session, alice, log_in, clock):
    token = log_in()
    statements: list[str] = []
    engine = session.get_bind()
    listener = lambda _c, _cursor, statement, *_: statements.append(statement)  # noqa: E731
    event.listen(engine, "before_cursor_execute", listener)
    try:
        who(session, token, clock)
        clock.advance(minutes=4)
        who(session, token, clock)
    finally:
        event.remove(engine, "before_cursor_execute", listener)
    assert [each.split()[0] for each in statements if not each.startswith("BEGIN")] == ["SELECT"] * 2
    assert not session.in_transaction()


def test_use_is_written_down_every_five_minutes_at_most(session, alice, log_in, clock):
    token, start = log_in(), clock()
    seen = []
    for _ in range(4):
        clock.advance(minutes=4)
        assert who(session, token, clock) == "alice"
        seen.append((session.scalars(select(LoginSession.seen_at)).one() - start) // timedelta(minutes=1))
        session.rollback()
    assert seen == [0, 8, 8, 16]


def test_a_log_in_takes_expired_sessions_away(session, alice, log_in, clock):
    log_in(), log_in(remember=True)
    clock.advance(hours=24)
    log_in()
    assert session.scalar(select(func.count()).select_from(LoginSession)) == 2


def test_the_sixth_try_within_a_minute_is_refused_even_with_the_right_password(session, alice, log_in, bcrypt_calls):
    for _ in range(5):
        refusal(log_in, password="wrong")
    with pytest.raises(RateLimitedError) as caught:
        log_in()
    assert caught.value.retry_after == 60
    assert len(bcrypt_calls) == 5


def test_a_stranger_locks_nobody_out_elsewhere(session, alice, log_in, clock):
    for _ in range(5):
        refusal(log_in, password="wrong", origin=Origin("203.0.113.9"))
    assert who(session, log_in(origin=Origin("192.0.2.1")), clock) == "alice"


def test_a_log_in_clears_the_accounts_tries_but_not_the_places(session, alice, log_in, clock):
    make_user(session, "mallory", password_hash=HASH)
    for number in range(60):  # an account of one's own does not buy tries at others
        log_in("mallory")
        refusal(log_in, name=f"victim{number}", password="wrong")
    with pytest.raises(RateLimitedError) as caught:
        log_in("victim61", password="wrong")
    assert caught.value.retry_after == 3600
    clock.advance(hours=1)
    assert who(session, log_in(), clock) == "alice"


def test_an_office_may_log_in_as_often_as_it_likes(session, alice, log_in):
    for _ in range(61):
        log_in()


def test_neither_password_nor_token_is_in_what_is_printed_or_raised(session, alice, log_in, clock, caplog):
    caplog.set_level("DEBUG")
    token = log_in()
    shown = [repr(sessions.member(session, token, now=clock()))]
    with pytest.raises(LogInFailedError) as caught:
        log_in("alice", "canary but wrong")
    shown += [str(caught.value), caplog.text]
    assert not any("canary" in text or token in text for text in shown)


def test_a_superuser_who_asked_to_be_remembered_is_not_so_without_the_role_either(session, log_in, clock):
    make_user(session, "root", is_superuser=True)
    make_user(session, "bob", is_superuser=True, password_hash=HASH)
    token = log_in("bob", remember=True)
    users.revoke(session, "bob", now=clock())
    clock.advance(hours=11)
    assert who(session, token, clock) == "bob"
    clock.advance(hours=13)
    assert who(session, token, clock) is None


def test_a_member_ends_their_own_log_ins_alone(session, alice, log_in, clock):
    token, bob = log_in(), make_user(session, "bob")
    (own,) = sessions.log_ins(session, sessions.member(session, token, now=clock()), now=clock())
    sessions.end_one(session, bob, own.id)
    assert who(session, token, clock) == "alice"
    sessions.end_one(session, alice, own.id)
    assert who(session, token, clock) is None


def test_somebody_who_is_not_active_is_not_logged_in_whatever_made_it_so(session, alice, log_in, clock):
    token = log_in()
    with transaction(session):
        session.execute(update(User).where(User.id == alice).values(is_active=False))
    assert who(session, token, clock) is None


def test_the_session_of_a_new_password_has_another_token(session, alice, log_in, clock):
    token, new = log_in(), "a dozen green hats"
    renewed = password_changes.change_password(
        session, alice, current=PASSWORD, new=new, token=token, now=clock(), rounds=4
    )
    assert who(session, token, clock) is None
    assert who(session, renewed, clock) == "alice"
