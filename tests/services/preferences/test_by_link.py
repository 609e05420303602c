"""Leaving by a mailed link: the holder of a mailbox needs no account, and can only untick."""

from collections.abc import Callable

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.errors import LinkRefusedError
from portal.models import Address, History, Preference
from portal.services import outbox
from portal.services.mail import drafts, links
from portal.services.outbox import ClaimedMail, Mail
from portal.services.preferences import by_link
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.fakes.memory import MemoryList

ALICE = "alice@example.org"


@pytest.fixture
def catalogue(app: Flask) -> Catalogue:
    return app.extensions["portal"].catalogue()


@pytest.fixture
def leave(session: Session, clock: Clock, catalogue: Catalogue) -> Callable[..., set[str]]:
    """Use a link of a mailbox for some lists; return those that it was taken off."""

    def use(mailbox: str, *handles: str, token: str | None = None) -> set[str]:
        token = token or links.make_for_mailbox(session, "leave", mailbox=mailbox, now=clock())
        found = by_link.leave(session, token, handles=handles, catalogue=catalogue, now=clock())
        return {each.handle for each in found}

    return use


def stored(session: Session) -> dict[tuple[str, str], tuple[bool, str, bool]]:
    columns = (Preference.list_handle, Address.canonical, Preference.subscribed, Preference.source, Preference.touched)
    with reading(session):
        rows = session.execute(select(*columns).join(Address, Address.id == Preference.address_id)).all()
    return {(row[0], row[1]): tuple(row[2:]) for row in rows}


def test_the_lists_that_are_unticked_are_left_and_no_other(
    session: Session, leave: Callable[..., set[str]], catalogue: Catalogue
) -> None:
    for handle in ("members", "tech"):
        make_preference(session, handle, ALICE, True, seen=True)
    make_preference(session, "members", "bob@example.org", True, seen=True)

    assert [each.handle for each in by_link.lists_of(session, ALICE, catalogue=catalogue)] == ["members", "tech"]
    assert leave(ALICE, "members", "board", "nonsense") == {"members"}

    assert stored(session) == {
        ("members", ALICE): (False, "link", True),
        ("tech", ALICE): (True, "user", False),
        ("members", "bob@example.org"): (True, "user", False),
    }
    with reading(session):
        (line,) = session.execute(select(History.source, History.actor, History.actor_id)).all()
    assert tuple(line) == ("link", "mailed link", None)


def test_a_list_outside_the_audience_and_an_address_without_account_can_be_left(
    session: Session, leave: Callable[..., set[str]]
) -> None:
    make_preference(session, "board", "zoe@example.net", True, seen=True)
    assert leave("zoe@example.net", "board") == {"board"}


def test_a_link_never_subscribes_and_makes_no_row(session: Session, leave: Callable[..., set[str]]) -> None:
    make_user(session, "alice")
    make_preference(session, "members", ALICE, False, seen=False)
    assert leave(ALICE, "members", "tech") == set()
    assert stored(session) == {("members", ALICE): (False, "user", False)}


def test_a_link_is_used_once(session: Session, clock: Clock, leave: Callable[..., set[str]]) -> None:
    for handle in ("members", "tech"):
        make_preference(session, handle, ALICE, True)
    first, second = (links.make_for_mailbox(session, "leave", mailbox=ALICE, now=clock()) for _ in range(2))
    assert leave(ALICE, "members", token=first) == {"members"}
    for token in (first, second):
        with pytest.raises(LinkRefusedError):
            leave(ALICE, "tech", token=token)


def test_a_link_to_leave_logs_nobody_in_and_one_to_log_in_leaves_nothing(
    session: Session, clock: Clock, leave: Callable[..., set[str]]
) -> None:
    make_user(session, "alice")
    make_preference(session, "members", ALICE, True)
    (account,) = links.accounts_at(session, ALICE)
    (token,) = links.make_all(session, "log-in", mailbox=ALICE, accounts=[account], now=clock())
    with pytest.raises(LinkRefusedError):
        leave(ALICE, "members", token=token)
    leaving = links.make_for_mailbox(session, "leave", mailbox=ALICE, now=clock())
    with pytest.raises(LinkRefusedError):
        links.log_in(session, leaving, origin=links.Origin("192.0.2.1"), now=clock())


def test_somebody_who_joined_again_after_their_account_went_is_taken_off_by_the_next_run(
    session: Session, clock: Clock, catalogue: Catalogue, leave: Callable[..., set[str]]
) -> None:
    make_preference(session, "members", ALICE, False, seen=True, departed=True)
    manager = MemoryList()
    manager.add([ALICE, "bob@example.org"])

    assert leave(ALICE, "members") == {"members"}
    sync_list(session, catalogue.get("members"), manager, clock=clock, request=Request())

    assert list(manager.members.values()) == ["bob@example.org"]


@pytest.mark.parametrize(
    ("preference", "is_sent"),
    [({"subscribed": True}, True), ({"subscribed": False, "seen": True}, True), ({"subscribed": False}, False)],
)
def test_a_letter_goes_to_a_mailbox_that_is_on_a_list_or_is_to_be(
    session: Session, clock: Clock, preference: dict[str, bool], is_sent: bool
) -> None:
    make_preference(session, "members", "Alice@example.org", **preference)
    draft = drafts.make(session, asked(session, clock, ALICE), base_url="https://portal.example.org", now=clock())
    assert (draft is not None and draft.to == "Alice@example.org") == is_sent


def test_no_letter_goes_to_a_mailbox_without_a_row(session: Session, clock: Clock) -> None:
    make_user(session, "alice")
    assert drafts.make(session, asked(session, clock, ALICE), base_url="https://x", now=clock()) is None


def asked(session: Session, clock: Clock, mailbox: str) -> ClaimedMail:
    with transaction(session):
        outbox.enqueue(session, [Mail(mailbox, "leave")], now=clock())
    claimed = outbox.claim(session, now=clock(), bulk_per_minute=None)
    assert claimed is not None
    assert claimed.mailbox == mailbox
    return claimed
