"""The expected plan of the next run, which a sync would make of the last seen roster."""

from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.safety import Excess, Limited
from portal.models import Preference
from portal.services.history import Actor
from portal.services.preferences import on_behalf
from portal.services.preferences.on_behalf import BulkAction
from portal.services.reports.subscribers import Filter
from portal.services.sync.expected_plans import approve, next_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import dry_run, sync_list
from tests.conftest import Clock
from tests.factories import make_user
from tests.fakes.memory import MemoryList

BOB = Actor(1, "bob")
STAFF = Filter(group="staff")


class Desk:
    """A list of forty people, ten of them staff; two more wait to be taken off, who are not active any more."""

    def __init__(self, app: Any, session: Session, clock: Clock) -> None:
        self.session, self.clock = session, clock
        self.members: MailingList = app.extensions["portal"].catalogue().get("members")
        names = [f"user{number:02}" for number in range(42)]
        for number, name in enumerate(names):
            make_user(session, name, groups=("staff",) if number < 10 else (), is_active=number < 40)
        self.manager = MemoryList({address: address for name in names[:40] for address in [f"{name}@example.org"]})
        sync_list(session, self.members, self.manager, clock=clock, request=Request())
        session.execute(update(Preference).values(source="user"))  # they had chosen it themselves
        session.commit()
        self.clock.advance(days=1)

    def preview(self, action: BulkAction, wanted: Filter = STAFF) -> on_behalf.BulkPreview:
        return on_behalf.preview(self.session, self.members, action, wanted, now=self.clock())

    def do(self, action: BulkAction, wanted: Filter = STAFF) -> None:
        preview_id = self.preview(action, wanted).id
        on_behalf.do(
            self.session, self.members, action, wanted, preview_id=preview_id, actor=BOB, now=self.clock(), reason="x"
        )


@pytest.fixture
def desk(app: Any, session: Session, clock: Clock) -> Desk:
    return Desk(app, session, clock)


def test_what_is_expected_is_what_a_sync_plans_afterwards(desk: Desk) -> None:
    expected = desk.preview(BulkAction.UNSUBSCRIBE).next_run
    assert expected is not None
    assert expected.excess == Excess(Limited.REMOVALS, 10, 5, 40)
    desk.do(BulkAction.UNSUBSCRIBE)
    plan = dry_run(desk.session, desk.members, desk.manager, clock=desk.clock).plan
    assert (plan.id, len(plan.lines), bool(plan.warning)) == (expected.plan_id, expected.removed, True)
    assert next_run(desk.session, desk.members, {}, now=desk.clock()) == expected


def test_what_exceeds_no_limit_needs_no_approval_until_it_is_together_with_what_ran_before(desk: Desk) -> None:
    few, more = Filter(text="user0", group="staff"), Filter(text="user1")
    ids = sorted(desk.preview(BulkAction.UNSUBSCRIBE, few).first)[:4]
    some = Filter(text=ids[0])
    expected = desk.preview(BulkAction.UNSUBSCRIBE, some).next_run
    assert expected is not None
    assert (expected.plan_id, expected.excess, expected.removed) == (None, None, 1)
    desk.do(BulkAction.UNSUBSCRIBE, some)
    sync_list(desk.session, desk.members, desk.manager, clock=desk.clock, request=Request())
    again = desk.preview(BulkAction.UNSUBSCRIBE, more).next_run
    assert again is not None
    assert again.excess == Excess(Limited.REMOVALS, 11, 5, 39), "ten now and one in the last twelve hours"


def test_only_the_plan_that_was_shown_is_approved(desk: Desk) -> None:
    shown = desk.preview(BulkAction.UNSUBSCRIBE).next_run
    assert shown is not None
    assert shown.plan_id
    desk.do(BulkAction.UNSUBSCRIBE)
    desk.do(BulkAction.UNSUBSCRIBE, Filter(text="user39"))
    approve(desk.session, desk.members, shown.plan_id, actor=BOB, now=desk.clock())
    (asked,) = _asked(desk)
    assert (asked.kind, asked.plan_id) == ("show", None), "it is another by now, so it is shown"


def _asked(desk: Desk) -> list[Any]:
    from portal.services.sync import runs

    return list(runs.due(desk.session, now=desk.clock()))
