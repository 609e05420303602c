"""A list that gets another handle: `flask mailinglist rename`."""

import pytest
from sqlalchemy import event, func, select, update
from sqlalchemy.orm import Session

from portal.config import load_catalogue
from portal.domain.roster_text import RosterText
from portal.errors import BadInputError, DuplicateError, LeaseHeldError, UnknownListError
from portal.extensions import db
from portal.listmanagers import registry
from portal.models import History, Lease, Preference, Run, RunLine, UserAddress
from portal.services.preferences.rename import RenameResult, rename
from portal.services.sync import leases
from portal.services.sync.list_init import list_init
from portal.services.sync.planned_runs import begin_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import CATALOGUE, Rosters
from tests.factories import make_preference, make_user

TABLES = (Preference, History, Run, RunLine)


@pytest.fixture
def members(app):
    return app.extensions["portal"].catalogue().get("members")


@pytest.fixture
def catalogue(members, instance):
    """The catalogue after the change: what was members is everybody."""
    path = instance / "mailinglists.toml"
    path.write_text(CATALOGUE.replace("[lists.members]", '[lists.everybody]\nlist = "members"'))
    return load_catalogue(path, lambda kind, table: registry.read_settings(kind, table, folder=instance))


@pytest.fixture
def open_manager(app):
    return app.extensions["portal"].open_list_manager


def used(session: Session) -> dict[str, int]:
    """Return how many rows each handle has."""
    counts: dict[str, int] = {}
    for table in TABLES:
        for handle, count in session.execute(select(table.list_handle, func.count()).group_by(table.list_handle)):
            counts[handle] = counts.get(handle, 0) + count
    session.rollback()
    return counts


def test_everything_is_carried_over_and_the_next_run_goes_on_as_if_nothing_had_been(
    session: Session, catalogue, members, open_manager, rosters: Rosters, clock
):
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "alice@example.org", "stranger@example.net")
    make_preference(session, "tech", "alice@example.org", True)
    sync_list(session, members, open_manager(members), clock=clock, request=Request())
    make_user(session, "charlie")
    make_preference(session, "members", "charlie@example.org", True)
    sync_list(session, members, open_manager(members), clock=clock, request=Request())
    before = used(session)
    assert rename(session, "members", "everybody", catalogue=catalogue) == RenameResult(3, 2, 2, 1)
    assert used(session) == {"tech": 1, "everybody": before["members"]}
    rosters.set("members", "bob@example.org", "stranger@example.net", "charlie@example.org")
    everybody = catalogue.get("everybody")
    sync_result = sync_list(session, everybody, open_manager(members), clock=clock, request=Request())
    told = {(each.row.canonical, str(each.action)) for each in sync_result.plan.lines}
    assert told == {("alice@example.org", "left"), ("bob@example.org", "joined")}
    assert session.scalars(select(Lease)).all() == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("members", "everybody"),
        ("board\nmembers\ntech", "board\neverybody\ntech"),
        ("members-old", "members-old"),
        (None, None),
    ],
)
def test_what_is_to_be_settled_later_is_carried_over(
    session: Session, catalogue, before: str | None, after: str | None
):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    session.execute(update(UserAddress).values(unsettled_lists=before))
    session.commit()
    rename(session, "members", "everybody", catalogue=catalogue)
    assert session.scalar(select(UserAddress.unsettled_lists)) == after


def test_an_interrupted_run_is_repaired_under_the_new_handle(
    session: Session, catalogue, members, open_manager, rosters: Rosters, clock
):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True)
    begin_planned_run(session, members, RosterText([b"stranger@example.net\n"]), clock=clock, request=Request())
    lease = leases.of_planned_run(session, "members")
    session.rollback()
    leases.release(session, lease)
    rename(session, "members", "everybody", catalogue=catalogue)
    everybody = catalogue.get("everybody")
    sync_result = sync_list(session, everybody, open_manager(members), clock=clock, request=Request())
    assert len(sync_result.repaired) == 1
    assert rosters.get("members") == {"alice@example.org"}


@pytest.mark.parametrize("held", ["members", "everybody"])
def test_a_list_that_is_being_synced_is_not_renamed(session: Session, catalogue, held):
    make_preference(session, "members", "alice@example.org", True)
    with leases.held(session, held), pytest.raises(LeaseHeldError, match=f"{held} is held by process"):
        rename(session, "members", "everybody", catalogue=catalogue)
    assert used(session) == {"members": 1}
    assert session.scalars(select(Lease)).all() == []


def test_nor_is_one_with_an_open_planned_run(session: Session, catalogue, members, clock):
    make_user(session, "alice")
    begin_planned_run(session, members, RosterText([b"alice@example.org\n"]), clock=clock, request=Request())
    with pytest.raises(LeaseHeldError, match="planned run"):
        rename(session, "members", "everybody", catalogue=catalogue)
    assert "everybody" not in used(session)


def test_a_list_that_still_is_in_the_catalogue_is_not_renamed(session: Session, catalogue):
    make_preference(session, "tech", "alice@example.org", True)
    with pytest.raises(BadInputError, match=r"^tech is still in mailinglists\.toml"):
        rename(session, "tech", "everybody", catalogue=catalogue)


def test_a_handle_that_is_not_in_the_catalogue_takes_nothing_over(session: Session, catalogue):
    make_preference(session, "members", "alice@example.org", True)
    with pytest.raises(UnknownListError):
        rename(session, "members", "nobody", catalogue=catalogue)


def test_a_handle_that_was_used_takes_nothing_over(session: Session, catalogue, members, clock):
    make_user(session, "alice")
    list_init(session, members, RosterText([b"alice@example.org\n"]), now=clock())
    list_init(session, catalogue.get("everybody"), RosterText([b"bob@example.org\n"]), now=clock())
    before = used(session)
    with pytest.raises(DuplicateError, match=r"^everybody has already been used \(preferences: 1, runs: 0\)"):
        rename(session, "members", "everybody", catalogue=catalogue)
    assert used(session) == before


@pytest.mark.parametrize("old", ["nothing", "", "MEMBERS", "a\0b", "x" * 65, "everybody"])
def test_a_handle_under_which_nothing_is_stored_is_refused(session: Session, catalogue, old):
    with pytest.raises(BadInputError):
        rename(session, old, "everybody", catalogue=catalogue)
    assert session.scalars(select(Lease)).all() == []


def test_it_is_all_or_nothing(session: Session, catalogue, members, open_manager, clock):
    make_user(session, "alice")
    sync_list(session, members, open_manager(members), clock=clock, request=Request())
    before = used(session)

    def fail(_connection, _cursor, statement, *_rest):
        if statement.startswith("UPDATE run_lines"):
            raise RuntimeError("the plug is pulled")

    event.listen(db.engine, "before_cursor_execute", fail)
    with pytest.raises(RuntimeError):
        rename(session, "members", "everybody", catalogue=catalogue)
    event.remove(db.engine, "before_cursor_execute", fail)
    assert used(session) == before
    assert rename(session, "members", "everybody", catalogue=catalogue).preferences == 1
