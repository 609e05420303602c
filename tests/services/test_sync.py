"""The sync against a list manager on text files, and the real database."""

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.errors import BrakeError, RosterInDoubtError
from portal.extensions import Portal
from portal.models import Preference
from portal.services.list_init import list_init
from portal.services.sync import Outturn, Request, sync_list
from tests.conftest import Clock, Rosters
from tests.factories import make_preference, make_user


@pytest.fixture
def portal(app: Flask) -> Portal:
    return app.extensions["portal"]


@pytest.fixture
def members(portal: Portal) -> MailingList:
    return portal.catalogue().get("members")


class Sync:
    def __init__(self, session: Session, portal: Portal) -> None:
        self.session, self.portal = session, portal

    def __call__(self, handle: str = "members", **request: object) -> Outturn:
        mailing_list = self.portal.catalogue().get(handle)
        manager = self.portal.open_list_manager(mailing_list)
        return sync_list(
            self.session, mailing_list, manager, clock=self.portal.clock, request=Request(**request)
        )


@pytest.fixture
def sync(session: Session, portal: Portal) -> Sync:
    return Sync(session, portal)


def preferences(session: Session, handle: str = "members") -> dict[int, tuple[bool, bool | None, str]]:
    rows = session.execute(
        select(Preference.address_id, Preference.subscribed, Preference.seen, Preference.source)
        .where(Preference.list_handle == handle)
        .order_by(Preference.address_id)
    ).all()
    session.rollback()
    return {row.address_id: (row.subscribed, row.seen, row.source) for row in rows}


def test_a_first_run_takes_over_what_the_roster_says(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "Alice@Example.org", "stranger@example.net")
    outturn = sync()
    assert list(preferences(session).values()) == [(True, True, "init"), (False, False, "init")]
    assert rosters.get("members") == {"Alice@Example.org", "stranger@example.net"}
    assert outturn.plan.strangers == 1


def test_a_tick_is_added_and_an_untick_removed(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", "alice@example.org", True, touched=True)
    make_preference(session, "members", "bob@example.org", False, touched=True, seen=True)
    rosters.set("members", "Bob@example.org", "stranger@example.net")
    outturn = sync()
    assert rosters.get("members") == {"alice@example.org", "stranger@example.net"}
    assert outturn.tally == {"added": 1, "removed": 1, "refused": 0}
    again = sync()
    assert again.tally == {"added": 0, "removed": 0, "refused": 0}
    assert not again.plan.lines


def test_whoever_leaves_at_the_list_is_not_added_again(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "alice@example.org", "bob@example.org")
    sync()
    rosters.set("members", "bob@example.org")
    sync()
    assert rosters.get("members") == {"bob@example.org"}
    assert next(iter(preferences(session).values())) == (False, False, "list")


def test_an_empty_roster_is_in_doubt(session: Session, sync: Sync, rosters: Rosters) -> None:
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    sync()
    rosters.set("members")
    with pytest.raises(RosterInDoubtError, match="--allow-empty$"):
        sync()
    assert list(preferences(session).values()) == [(True, True, "init")]
    sync(allow_empty=True)
    assert list(preferences(session).values()) == [(False, False, "list")]


def test_the_brake_stops_a_large_plan_and_its_id_lets_it_through(
    session: Session, sync: Sync, rosters: Rosters
) -> None:
    names = [f"user{number}" for number in range(40)]
    for name in names:
        make_user(session, name)
    rosters.set("members", *(f"{name}@example.org" for name in names))
    sync()
    for row in session.scalars(select(Preference).limit(8)):
        row.subscribed, row.touched, row.version = False, True, 1
    session.commit()
    with pytest.raises(BrakeError, match=r"run again with: --accept [0-9a-f]{16}$") as refusal:
        sync()
    assert len(rosters.get("members")) == 40
    sync(accept=refusal.value.plan_id)
    assert len(rosters.get("members")) == 32


def test_list_init_twice_changes_nothing(session: Session, members: MailingList, clock: Clock) -> None:
    make_user(session, "alice")
    make_user(session, "bob")
    counts = list_init(session, members, [b"ALICE@example.org\r\n", b"x@y.org\n", b"rubbish\n"], now=clock())
    assert (counts.subscribed, counts.unsubscribed, counts.kept, counts.unknown, counts.invalid) == (1, 1, 0, 1, 1)
    again = list_init(session, members, [b"alice@example.org"], now=clock())
    assert (again.subscribed, again.unsubscribed, again.kept, again.unknown, again.invalid) == (0, 0, 2, 0, 0)
