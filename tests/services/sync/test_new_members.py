"""Lists that subscribe new members: rule 1 of the merge, against text files and the real database."""

from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.domain.plan import Reason
from portal.domain.roster_text import RosterText
from portal.errors import SafetyLimitError
from portal.extensions import Portal
from portal.models import Address, History, Preference, User, UserAddress
from portal.services.accounts import address_changes, addresses, users
from portal.services.accounts.addresses import Checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import own_history, preferences
from portal.services.reports.why import explain
from portal.services.sync.list_init import list_init
from portal.services.sync.planned_runs import begin_planned_run, confirm_planned_run
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import sync_list
from portal.services.transaction import transaction
from tests.conftest import CATALOGUE, Clock, Rosters
from tests.factories import make_preference, make_user
from tests.fakes.memory import Killed, MemoryList, breaking

ALICE, NINA, OTHER = "alice@example.org", "nina@example.org", "other@example.org"


class Office:
    """Members and Board subscribe new members; both have had their first good run, when Alice was there already."""

    def __init__(self, session: Session, app: Flask, instance: Path, rosters: Rosters, clock: Clock) -> None:
        self.session, self.rosters, self.clock = session, rosters, clock
        self.portal: Portal = app.extensions["portal"]
        self.configure("members", "board")
        clock.now = clock.now.replace(year=2026, month=10)  # the factories' accounts are made on 1 November
        make_user(session, "alice")
        with session.begin():
            session.scalars(select(User)).one().created_at = clock.now
        for handle in ("members", "board"):
            self.sync(handle)
        clock.now = clock.now.replace(month=11)

    def configure(self, *handles: str, **more: str) -> None:
        text = CATALOGUE
        for handle in handles:
            text = text.replace(f"[lists.{handle}]", f'[lists.{handle}]\nnew_members = "subscribed"')
        (self.rosters.folder.parent / "mailinglists.toml").write_text(text)
        self.portal.catalogue.cache_clear()

    def sync(self, handle: str = "members", **request: str) -> SyncResult:
        mailing_list = self.portal.catalogue().get(handle)
        manager = self.portal.open_list_manager(mailing_list)
        return sync_list(self.session, mailing_list, manager, clock=self.clock, request=Request(**request))

    def join(self, username: str, *spellings: str, **values: object) -> int:
        return make_user(self.session, username, *spellings, **values)

    def stored(self, spelling: str, handle: str = "members") -> tuple[bool, bool | None, str] | None:
        query = select(Preference.subscribed, Preference.seen, Preference.source).join(Address)
        found = self.session.execute(
            query.where(Preference.list_handle == handle, Address.canonical == canonical(spelling))
        ).one_or_none()
        self.session.rollback()
        return None if found is None else tuple(found)

    def move(self, user_id: int, spelling: str) -> None:
        address_changes.change(
            self.session,
            user_id,
            Checked(canonical(spelling), spelling),
            actor=COMMAND_LINE,
            now=self.clock(),
            lists=self.portal.catalogue().lists,
        )

    def page(self, user_id: int) -> preferences.Offer:
        catalogue = self.portal.catalogue()
        return preferences.page(self.session, user_id, catalogue=catalogue, now=self.clock()).offers[0]

    def choose(self, user_id: int, *ticked: str) -> None:
        offer = self.page(user_id)
        preferences.choose(
            self.session,
            user_id,
            shown={"members": offer.address_id or 0},
            ticked=ticked,
            catalogue=self.portal.catalogue(),
            now=self.clock(),
        )


@pytest.fixture
def office(session: Session, app: Flask, instance: Path, rosters: Rosters, clock: Clock) -> Office:
    return Office(session, app, instance, rosters, clock)


def test_a_new_member_is_put_on_the_list_once_and_reads_why(office: Office, session: Session) -> None:
    nina = office.join("nina", "Nina@Example.org", OTHER)
    explained = explain(
        session,
        office.portal.catalogue().get("members"),
        NINA,
        now=office.clock(),
        moment=lambda at: f"{at:%d %b}",
        list_name="members",
    )
    assert explained.sentences[-1] == (
        "The next run adds it, unless it is there already: its holder is new, and the list subscribes new members."
    )
    plan = office.sync().plan
    assert [(each.spelling, each.reason) for each in plan.lines] == [("Nina@Example.org", Reason.NEW_MEMBER)]
    assert office.rosters.get("members") == {"Nina@Example.org"}
    assert office.stored(NINA) == (True, True, "rule")
    assert office.stored(OTHER) == (False, False, "init"), "to the main address alone"
    assert office.stored(ALICE) == (False, False, "init"), "who was there already is not added"
    offer = office.page(nina)
    assert (offer.state.value, offer.detail.kind, offer.is_ticked) == ("subscribed", "new_member", True)
    assert [each.by for each in own_history.page(session, nina, handles=["members"]).rows][:2] == [
        "init",
        "new member",
    ]
    assert not office.sync().plan.lines


def test_before_the_first_good_run_nobody_is_new(session: Session, office: Office) -> None:
    office.configure("tech")
    office.join("nina")
    assert not office.sync("tech").plan.lines
    assert office.stored(NINA, "tech") == (False, False, "init")


def test_who_is_on_the_list_already_is_taken_over_as_ever(office: Office) -> None:
    office.join("nina", NINA, OTHER)
    office.rosters.set("members", OTHER)
    assert not office.sync().plan.lines
    assert (office.stored(NINA), office.stored(OTHER)) == ((False, False, "init"), (True, True, "init"))


def test_who_has_a_preference_at_another_address_is_not_new(office: Office, session: Session) -> None:
    office.join("nina", NINA, OTHER)
    make_preference(session, "members", OTHER, False, seen=False, source="import")  # of which no history is kept
    assert not office.sync().plan.lines
    assert office.stored(NINA) == (False, False, "init")


def test_only_who_may_see_the_list_is_added_and_as_soon_as_they_first_may(office: Office, session: Session) -> None:
    office.join("nina")
    office.join("inactive", groups=("board",), is_active=False)
    assert not office.sync("board").plan.lines
    assert office.stored(NINA, "board") is None
    lists = office.portal.catalogue().lists
    users.set_groups(session, "nina", groups=["board"], now=office.clock(), lists=lists)
    office.sync("board")
    assert office.rosters.get("board") == {NINA}


@pytest.mark.parametrize("when", ["before the run", "after the run"])
def test_an_untick_stays(office: Office, when: str) -> None:
    nina = office.join("nina")
    if when == "before the run":
        offer = office.page(nina)
        assert (offer.state.value, offer.detail.kind, offer.is_ticked) == ("being_added", "new_member_due", True)
    else:
        office.sync()
        assert office.rosters.get("members") == {NINA}
    office.choose(nina)
    for _ in range(2):
        office.sync()
        assert office.rosters.get("members") == set()
    assert office.stored(NINA) == (False, False, "user")


def test_keeping_the_tick_is_no_choice(office: Office) -> None:
    nina = office.join("nina")
    office.choose(nina, "members")
    assert office.stored(NINA) is None
    office.sync()
    assert office.stored(NINA) == (True, True, "rule")


def test_who_left_at_the_list_is_not_added_again(office: Office) -> None:
    office.join("nina")
    office.sync()
    office.rosters.set("members")
    office.sync(accept=_approval(office))
    office.sync()
    assert office.stored(NINA) == (False, False, "list")
    assert office.rosters.get("members") == set()


def _approval(office: Office) -> str:
    """The id of a plan that needs approval: the only address of the list is gone."""
    with pytest.raises(SafetyLimitError) as raised:
        office.sync()
    return raised.value.plan_id


# --- once for each person: what was theirs before counts


def _moved_away(office: Office, session: Session) -> int:
    nina = office.join("nina")
    office.sync()
    office.choose(nina)
    office.sync()
    office.join("owner", OTHER, is_active=True)  # a mailbox that another keeps, so that nothing goes along
    office.configure()
    with session.begin():
        session.execute(delete(Preference).where(Preference.list_handle == "members", _is(OTHER)))
    office.move(nina, OTHER)
    office.configure("members")
    return nina


def _is(spelling: str) -> object:
    return Preference.address_id.in_(select(Address.id).where(Address.canonical == spelling))


def test_who_moved_to_a_mailbox_of_which_nothing_is_known_is_not_added_a_second_time(
    office: Office, session: Session
) -> None:
    _moved_away(office, session)
    with session.begin():  # the other holder is not new
        session.scalars(select(User).where(User.username == "owner")).one().created_at = office.clock().replace(
            year=2025
        )
    office.sync()
    assert office.rosters.get("members") == set()


def test_who_moved_before_the_first_run_is_added_where_they_are(office: Office) -> None:
    nina = office.join("nina", "nian@example.org")
    office.move(nina, NINA)
    office.sync()
    assert office.rosters.get("members") == {NINA}


def test_who_is_made_again_with_the_same_mailbox_is_not_added_a_second_time(office: Office, session: Session) -> None:
    nina = office.join("nina")
    office.sync()
    office.choose(nina)
    office.sync()
    values = {"actor": COMMAND_LINE, "now": office.clock(), "lists": office.portal.catalogue().lists}
    with transaction(session):
        addresses.release(session, nina, erase=False, **values)
        session.execute(delete(User).where(User.id == nina))
    office.clock.advance(days=91)
    office.sync()  # the purge
    assert office.stored(NINA) is None
    with session.begin():
        assert session.scalar(select(Address.id).where(Address.canonical == NINA)) is None
        assert session.scalars(select(History.id).where(History.address == NINA)).all()
    office.join("nina")
    assert not office.sync().plan.lines
    assert office.stored(NINA) == (False, False, "init")


# --- the safety limits, planned runs and breakdowns


def test_many_new_members_need_approval_and_until_then_nothing_is_written(office: Office, session: Session) -> None:
    for number in range(26):
        office.join(f"new{number}")
    with pytest.raises(SafetyLimitError, match="it adds 26 addresses to the 0 on the list") as raised:
        office.sync()
    assert office.stored("new0@example.org") is None
    office.sync(accept=raised.value.plan_id)
    assert len(office.rosters.get("members")) == 26
    assert office.stored("new0@example.org") == (True, True, "rule")


def test_what_members_chose_is_carried_out_while_new_members_wait(office: Office, session: Session) -> None:
    for number in range(26):
        office.join(f"new{number}")
    make_user(session, "tim")
    make_preference(session, "members", "tim@example.org", True, touched=True)
    with pytest.raises(SafetyLimitError):
        office.sync()
    assert office.rosters.get("members") == {"tim@example.org"}
    assert office.stored("new0@example.org") is None


def test_new_members_among_a_thousand_first_preferences_are_found(
    office: Office, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("portal.services.sync.plans.FEW", 1)
    office.join("nina", NINA, OTHER, "third@example.org", "fourth@example.org")
    assert office.sync().plan.first_preferences.off_roster == 3
    assert office.rosters.get("members") == {NINA}
    assert office.stored(OTHER) == (False, False, "init")


def test_a_planned_run_adds_new_members_too(office: Office, session: Session) -> None:
    office.join("nina")
    members = office.portal.catalogue().get("members")
    request = Request(allow_empty=True)
    result, _ = begin_planned_run(session, members, RosterText([]), clock=office.clock, request=request)
    assert [each.row.canonical for each in result.plan.lines] == [NINA]
    assert office.stored(NINA) == (True, False, "rule")
    roster = RosterText([f"{NINA}\n".encode()])
    confirm_planned_run(session, members, roster, clock=office.clock, request=request)
    assert office.stored(NINA) == (True, True, "rule")


def test_list_init_takes_over_the_roster_of_new_members_as_of_others(office: Office, session: Session) -> None:
    office.join("nina")
    members = office.portal.catalogue().get("members")
    list_init(session, members, RosterText([b"other@example.org\n"]), now=office.clock())
    assert office.stored(NINA) == (False, False, "init")


@pytest.mark.parametrize("moment", ["before add", "after add"])
def test_a_run_that_is_killed_leaves_nobody_half_added(office: Office, session: Session, moment: str) -> None:
    office.join("nina")
    members, manager = office.portal.catalogue().get("members"), MemoryList()
    manager.watcher = breaking(moment, 0, Killed())
    with pytest.raises(Killed):
        sync_list(session, members, manager, clock=office.clock, request=Request())
    session.rollback()
    manager.watcher = lambda _moment: None
    sync_list(session, members, manager, clock=office.clock, request=Request())
    assert set(manager.members) == {NINA}
    assert office.stored(NINA) == (True, True, "rule")


@pytest.mark.parametrize("act", ["chooses", "gives the address up"])
def test_who_acts_while_a_run_plans_is_left_out_of_it(
    office: Office, session: Session, act: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    nina = office.join("nina", NINA, OTHER)
    tim = office.join("tim")
    from portal.services.sync import sync

    def meanwhile(*args: object) -> object:
        if act == "chooses":
            office.choose(nina)
        else:
            with session.begin():
                session.execute(delete(UserAddress).where(UserAddress.user_id.in_([nina])))
        return subscribe(*args)

    subscribe = sync.subscribe_new_members
    monkeypatch.setattr(sync, "subscribe_new_members", meanwhile)
    office.sync()
    assert office.rosters.get("members") == {"tim@example.org"}, tim
    assert office.stored(NINA) == ((False, None, "user") if act == "chooses" else None)
