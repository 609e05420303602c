"""Links: one purpose, one mailbox, one use, whoever tries what."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import delete, func, select, update
from sqlalchemy.orm import Session

from portal.errors import InvalidAddressError, LinkRefusedError, LogInFailedError, WeakPasswordError
from portal.models import Attempt, LoginSession, MailRequest, User, UserAddress
from portal.services.accounts import invitations, password_changes, sessions
from portal.services.accounts.sessions import Origin
from portal.services.history import COMMAND_LINE
from portal.services.mail import links
from portal.services.transaction import reading
from tests.conftest import Clock
from tests.factories import make_address, make_user
from tests.listening import listening

ORIGIN = Origin("192.0.2.1")
ALICE = "alice@example.org"


@pytest.fixture
def alice(session: Session) -> int:
    return make_user(session, "alice")


@pytest.fixture
def make_link(session: Session, clock: Clock) -> Callable[..., str]:
    """Return the token of a link to a mailbox, for the first account that may have one."""

    def make(mailbox: str = ALICE, purpose: str = "log-in", user_id: int | None = None) -> str:
        account = links.accounts_at(session, mailbox, user_id=user_id)[0]
        return links.make_all(session, purpose, mailbox=mailbox, accounts=[account], now=clock())[0]

    return make


def count(session: Session, table: type) -> int:
    with reading(session):
        return session.scalar(select(func.count()).select_from(table)) or 0


def log_in(session: Session, token: str, clock: Clock) -> links.LinkLogIn:
    return links.log_in(session, token, origin=ORIGIN, now=clock())


def assert_refused(session: Session, token: str, clock: Clock) -> None:
    for use in (lambda: links.look_up(session, token, now=clock()), lambda: log_in(session, token, clock)):
        with pytest.raises(LinkRefusedError, match="is not valid"):
            use()
    assert count(session, LoginSession) == 0


@pytest.mark.parametrize("purpose", ["log-in", "invite"])
def test_a_link_logs_in_once(session: Session, clock: Clock, alice: int, make_link, purpose: str) -> None:
    token = make_link(purpose=purpose)

    found = log_in(session, token, clock)

    member = sessions.member(session, found.token, now=clock())
    assert (found.user_id, member and member.username, found.purpose) == (alice, "alice", purpose)
    assert not sessions.is_confirmed(session, found.token, now=clock())
    with pytest.raises(LinkRefusedError):
        log_in(session, token, clock)
    assert count(session, LoginSession) == 1


def test_two_who_use_one_link_at_the_same_time_are_one(session: Session, clock: Clock, alice: int, make_link) -> None:
    token, start = make_link(), threading.Barrier(8)

    def use() -> bool:
        with Session(session.get_bind()) as own:
            start.wait()
            try:
                log_in(own, token, clock)
            except LinkRefusedError:
                return False
            return True

    with ThreadPoolExecutor(8) as pool:
        results = [each.result() for each in [pool.submit(use) for _ in range(8)]]

    assert sorted(results) == [False] * 7 + [True]
    assert count(session, LoginSession) == 1


def test_looking_at_a_link_changes_nothing(session: Session, clock: Clock, alice: int, make_link) -> None:
    token = make_link()
    for _ in range(3):
        assert links.look_up(session, token, now=clock()).username == "alice"
    assert log_in(session, token, clock)


@pytest.mark.parametrize(("purpose", "good_for"), [("log-in", timedelta(minutes=20)), ("invite", timedelta(days=14))])
def test_a_link_expires(session: Session, clock: Clock, alice: int, make_link, purpose: str, good_for) -> None:
    token = make_link(purpose=purpose)
    clock.now += good_for - timedelta(seconds=1)
    assert links.look_up(session, token, now=clock())
    clock.advance(seconds=1)
    assert_refused(session, token, clock)


def test_a_link_of_a_clock_that_was_wrong_is_not_good_for_years(session, clock: Clock, alice: int, make_link) -> None:
    clock.advance(days=3000)
    token = make_link()
    clock.advance(days=-3000)
    assert_refused(session, token, clock)


@pytest.mark.parametrize("token", ["", "x", "x" * 43, "x" * 100_000, "\0", "\ud800", "é"])
def test_a_forged_token_opens_nothing(session: Session, clock: Clock, alice: int, make_link, token: str) -> None:
    make_link()
    assert_refused(session, token, clock)


def deactivate(session: Session, user_id: int) -> None:
    session.execute(update(User).values(is_active=False))


def change_password(session: Session, user_id: int) -> None:
    session.execute(update(User).values(password_hash="another"))


def lose_mailbox(session: Session, user_id: int) -> None:
    session.execute(delete(UserAddress))


def delete_account(session: Session, user_id: int) -> None:
    session.execute(delete(UserAddress))
    session.execute(delete(User))


@pytest.mark.parametrize("what", [deactivate, change_password, lose_mailbox, delete_account])
@pytest.mark.parametrize("purpose", ["log-in", "invite"])
def test_a_link_ends_with_what_it_is_bound_to(
    session: Session, clock: Clock, alice: int, make_link, purpose: str, what: Callable[[Session, int], None]
) -> None:
    token = make_link(purpose=purpose)
    what(session, alice)
    session.commit()
    assert_refused(session, token, clock)


def test_a_mailbox_that_was_handed_on_opens_the_account_of_nobody_else(
    session: Session, clock: Clock, alice: int, make_link
) -> None:
    """Alice moved out, Bob moved in: her link is no good, and his opens his account."""
    hers = make_link()
    session.execute(delete(UserAddress))
    bob = make_user(session, "bob", ALICE)

    assert_refused(session, hers, clock)
    assert log_in(session, make_link(), clock).user_id == bob


def test_a_link_to_a_superuser_ends_when_somebody_else_holds_the_mailbox_too(
    session: Session, clock: Clock, make_link
) -> None:
    make_user(session, "alice", is_superuser=True)
    token = make_link()
    make_user(session, "zoe", ALICE)
    assert_refused(session, token, clock)


def test_a_link_ends_when_its_account_gets_a_role_that_its_mailbox_is_not_good_enough_for(
    session: Session, clock: Clock, make_link
) -> None:
    make_user(session, "alice", "main@example.org", ALICE)
    token = make_link()
    session.execute(update(User).values(is_superuser=True))
    session.commit()
    assert_refused(session, token, clock)


def test_links_live_side_by_side_until_one_is_used(session: Session, clock: Clock, alice: int, make_link) -> None:
    first, second, invitation = make_link(), make_link(), make_link(purpose="invite")
    assert links.look_up(session, first, now=clock())
    log_in(session, second, clock)

    with pytest.raises(LinkRefusedError):
        log_in(session, first, clock)
    assert log_in(session, invitation, clock)


def test_at_a_shared_mailbox_each_link_opens_its_own_account(session: Session, clock: Clock, make_link) -> None:
    dora, erin = (make_user(session, name, "office@example.org") for name in ("dora", "erin"))
    tokens = [make_link("office@example.org", user_id=each) for each in (dora, erin)]
    assert [log_in(session, token, clock).user_id for token in tokens] == [dora, erin]


# --- asking


def test_asking_writes_one_row_whatever_the_mailbox_is(session: Session, clock: Clock, alice: int) -> None:
    for typed in ("Alice@Example.org", "zoe@example.net"):
        links.request(session, "log-in", typed, place="192.0.2.1", now=clock())
    with reading(session):
        rows = session.execute(select(MailRequest.mailbox, MailRequest.place, MailRequest.user_id)).all()
    assert [tuple(row) for row in rows] == [(ALICE, "192.0.2.1", None), ("zoe@example.net", "192.0.2.1", None)]


def test_what_is_no_address_is_refused_by_its_text_alone(session: Session, clock: Clock) -> None:
    with pytest.raises(InvalidAddressError):
        links.request(session, "log-in", "alice", place="192.0.2.1", now=clock())
    assert (count(session, MailRequest), count(session, Attempt)) == (0, 0)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mailboxes", "places", "most"),
    [(1, 1, 3), (1, 100, 20), (100, 1, 30)],
    ids=["a mailbox from a place", "a mailbox", "a place"],
)
def test_who_asks_a_hundred_times_is_refused_without_a_word(
    session: Session, clock: Clock, mailboxes: int, places: int, most: int
) -> None:
    for number in range(100):
        mailbox, place = f"user{number % mailboxes}@example.org", f"192.0.2.{number % places}"
        links.request(session, "log-in", mailbox, place=place, now=clock())

    assert count(session, MailRequest) == most


def test_a_limit_ends_with_its_hour(session: Session, clock: Clock) -> None:
    for hours in range(5):
        for _ in range(4):
            links.request(session, "log-in", ALICE, place="192.0.2.1", now=clock())
        assert count(session, MailRequest) == 3 * (hours + 1)
        clock.advance(hours=1)


def test_who_asks_too_often_bars_nobody_elses_mailbox(session: Session, clock: Clock) -> None:
    for _ in range(40):
        links.request(session, "log-in", ALICE, place="198.51.100.1", now=clock())
    links.request(session, "log-in", ALICE, place="192.0.2.1", now=clock())
    assert count(session, MailRequest) == 4


# --- a password, after a link


def test_after_a_link_a_password_can_be_chosen_once_and_other_log_ins_end(
    session: Session, clock: Clock, alice: int, make_link
) -> None:
    other = log_in(session, make_link(purpose="invite"), clock).token
    token = log_in(session, make_link(), clock).token
    left_over = make_link()
    renewed = password_changes.choose_password(
        session, alice, new="four words in a row", token=token, now=clock(), rounds=4
    )

    assert [bool(sessions.member(session, each, now=clock())) for each in (other, token, renewed)] == [0, 0, 1]
    assert sessions.is_confirmed(session, renewed, now=clock())
    assert not sessions.may_choose_password(session, renewed, now=clock())
    with pytest.raises(LogInFailedError):
        password_changes.choose_password(
            session, alice, new="five words in a row", token=renewed, now=clock(), rounds=4
        )
    with pytest.raises(LinkRefusedError):
        log_in(session, left_over, clock)
    assert sessions.log_in(
        session, name="alice", password="four words in a row", origin=ORIGIN, remember=False, now=clock(), rounds=4
    )


def test_a_password_can_be_chosen_for_20_minutes_and_a_weak_one_not_at_all(
    session: Session, clock: Clock, alice: int, make_link
) -> None:
    token = log_in(session, make_link(), clock).token
    with pytest.raises(WeakPasswordError):
        password_changes.choose_password(session, alice, new="short", token=token, now=clock(), rounds=4)
    clock.advance(minutes=20)
    with pytest.raises(LogInFailedError):
        password_changes.choose_password(session, alice, new="four words in a row", token=token, now=clock(), rounds=4)


# --- invitations


def test_people_are_invited_once_while_an_invitation_waits_and_again_later(
    session: Session, clock: Clock, alice: int
) -> None:
    charlie = make_user(session, "charlie", is_active=False)
    bob = make_user(session, "bob", "main@example.org", "further@example.org", groups=("full",))
    everybody = invitations.find_uninvited(session)

    assert everybody == [alice, bob]
    assert invitations.find_uninvited(session, groups=["full"]) == [bob]
    assert invitations.invite(session, [alice], actor=COMMAND_LINE, now=clock()) == 1
    assert invitations.invite(session, [*everybody, charlie, 99], actor=COMMAND_LINE, now=clock()) == 1
    with reading(session):
        rows = session.execute(select(MailRequest.mailbox, MailRequest.user_id, MailRequest.priority)).all()
    assert [tuple(row) for row in rows] == [(ALICE, alice, 1), ("main@example.org", bob, 1)]
    session.execute(update(MailRequest).values(state="sent"))
    session.commit()
    assert invitations.invite(session, [alice], actor=COMMAND_LINE, now=clock()) == 1


def test_a_hundred_thousand_invitations_are_asked_for_in_a_few_statements_a_thousand(
    session: Session, clock: Clock
) -> None:
    address_id = make_address(session, "office@example.org")
    session.commit()
    ids = [make_user(session, f"user{number}", "office@example.org") for number in range(30)]
    assert address_id
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        statements.append(statement)

    with listening(session.get_bind(), "before_cursor_execute", note):
        assert invitations.invite(session, ids, actor=COMMAND_LINE, now=clock()) == 30
    assert len(statements) <= 6
