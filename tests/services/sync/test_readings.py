"""Readings of lists outside their runs: how they deliver to members, and subscribers without an account."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.delivery import Delivery, MailOff
from portal.errors import ListManagerUnavailableError
from portal.models import ListReading, Preference, UnknownSubscriber
from portal.services.preferences import preferences
from portal.services.reports import deliveries
from portal.services.reports.deliveries import ListDelivery
from portal.services.sync import readings
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock
from tests.factories import make_address, make_user
from tests.fakes.memory import MemoryList

ALICE, BOUNCED = "alice@example.org", Delivery(mail_off=MailOff.BOUNCES)


@dataclass
class Delivering(MemoryList):
    """A list that says how it delivers, where it can."""

    delivered: dict[str, Delivery] | None = field(default_factory=dict)
    asked: list[Sequence[str]] = field(default_factory=list)

    def deliveries(self, addresses: Sequence[str]) -> dict[str, Delivery] | None:
        if self.is_down:
            raise ListManagerUnavailableError("it is down")
        self.asked.append(list(addresses))
        known = self.delivered
        return None if known is None else {each: known[each] for each in addresses if each in known}


class Desk:
    def __init__(self, app: Any, session: Session, clock: Clock) -> None:
        self.session, self.clock = session, clock
        self.catalogue: Catalogue = app.extensions["portal"].catalogue()
        self.members = self.catalogue.get("members")
        self.ids = {name: make_user(session, name) for name in ("alice", "bob", "dora", "erin")}
        names = [*(f"{name}@example.org" for name in self.ids), "Stranger@example.net"]
        self.manager = Delivering({each.lower(): each for each in names})
        sync_list(session, self.members, self.manager, clock=clock, request=Request())
        readings.enrol(session, ["members"], now=clock())
        readings.enrol(session, ["members"], now=clock())

    def read(self) -> None:
        """What cron does."""
        for each in readings.due(self.session, ["members"], now=self.clock()):
            readings.carry_out(self.session, each, self.members, lambda: self.manager, clock=self.clock)

    def of(self, name: str) -> tuple[ListDelivery, ...]:
        page = preferences.page(self.session, self.ids[name], catalogue=self.catalogue, now=self.clock())
        return (*page.deliveries, *deliveries.lost(self.session, self.ids[name], ["members", "tech"]))


@pytest.fixture
def desk(app: Any, session: Session, clock: Clock) -> Desk:
    return Desk(app, session, clock)


def test_a_list_is_asked_about_its_members_once_a_day_in_batches(desk: Desk, clock: Clock) -> None:
    desk.read()
    assert desk.manager.asked == [], "not with the roster"
    clock.advance(days=1)
    desk.manager.delivered = {ALICE: Delivery(True), "dora@example.org": BOUNCED}
    desk.read()
    desk.read()
    assert [len(each) for each in desk.manager.asked] == [3, 1]
    assert desk.of("alice") == (ListDelivery("members", ALICE, True, None, None, False),)
    assert desk.of("dora")[0][3:] == ("bounces", clock(), False)
    assert desk.of("bob") == ()
    assert deliveries.counts(desk.session, "members") == {"digest": 1, "bounces": 1}
    clock.advance(days=1)
    since, desk.manager.delivered = clock() - timedelta(days=1), {"dora@example.org": BOUNCED}
    desk.read()
    assert desk.of("alice") == ()
    assert desk.of("dora")[0].since == since, "as it was read first"


def test_a_page_asks_about_one_person_alone(desk: Desk, clock: Clock) -> None:
    at = datetime(2026, 11, 3, tzinfo=UTC)
    desk.manager.delivered = {ALICE: Delivery(mail_off=MailOff.BOUNCES, since=at), "bob@example.org": BOUNCED}
    alice = make_address(desk.session, ALICE)
    desk.session.rollback()
    assert readings.request_deliveries(desk.session, [alice], ["members", "tech"], now=clock()) == 1
    assert desk.of("alice") == ()
    desk.read()
    desk.read()
    assert desk.manager.asked == [[ALICE]]
    assert desk.of("alice")[0].since == at, "as the list says"
    desk.manager.delivered = {ALICE: Delivery(mail_off=MailOff.CHOSEN)}
    readings.request_deliveries(desk.session, [alice], ["members"], now=clock())
    desk.read()
    assert desk.of("alice")[0][3:5] == ("chosen", clock())
    nobody = make_address(desk.session, "nobody@example.org")
    desk.session.rollback()
    assert readings.request_deliveries(desk.session, [nobody], ["members"], now=clock()) == 0


def test_what_cannot_be_said_or_read_leaves_what_was_known(desk: Desk, clock: Clock) -> None:
    desk.manager.delivered = {ALICE: BOUNCED}
    clock.advance(days=1)
    desk.read()
    desk.manager.is_down = True
    clock.advance(days=1)
    with pytest.raises(ListManagerUnavailableError):
        desk.read()
    desk.read()  # not before an hour has gone by
    desk.manager.is_down, desk.manager.delivered = False, None
    clock.advance(hours=1)
    desk.read()
    assert [each.mail_off for each in desk.of("alice")] == ["bounces"]
    assert desk.session.scalars(select(ListReading.due_at)).one() == clock() + timedelta(days=1)
    desk.session.rollback()


def test_who_has_no_account_is_read_when_asked_and_kept_for_a_day(desk: Desk, clock: Clock) -> None:
    def found() -> deliveries.UnknownSubscribers:
        return deliveries.without_account(desk.session, "members", now=clock(), number=1, size=10)

    assert found() == ((), 0, None, False, "")
    readings.request_unknown(desk.session, "members", now=clock())
    assert found().is_asked
    desk.read()
    assert found() == (("Stranger@example.net",), 1, clock(), False, "")
    readings.thin(desk.session, ["members"], now=clock())
    assert found().total == 1
    clock.advance(days=1)
    assert found() == ((), 0, None, False, "")
    readings.thin(desk.session, ["members"], now=clock())
    assert desk.session.scalars(select(UnknownSubscriber)).all() == []
    desk.session.rollback()
    desk.manager.is_down = True
    readings.request_unknown(desk.session, "members", now=clock())
    with pytest.raises(ListManagerUnavailableError):
        desk.read()
    assert found().message == "it is down"


def test_lists_that_an_earlier_address_had_lost_by_bouncing_are_named(desk: Desk, clock: Clock) -> None:
    desk.manager.delivered = {ALICE: BOUNCED}
    clock.advance(days=1)
    desk.read()
    alice = make_address(desk.session, ALICE)
    left = desk.session.scalars(select(Preference).where(Preference.address_id == alice)).one()
    left.subscribed, left.seen, left.source, left.left_by, left.moved_to = False, False, "list", desk.ids["alice"], 99
    desk.session.commit()
    assert [(each.handle, each.address, each.is_lost) for each in desk.of("alice")] == [("members", ALICE, True)]
    clock.advance(days=91)
    readings.thin(desk.session, ["members"], now=clock())
    assert desk.of("alice") == ()
