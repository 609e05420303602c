"""A year of monthly files for 5,000 people: accounts, groups and lists follow, and nobody does anything by hand."""

from collections.abc import Callable

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList, SafetyLimits
from portal.domain.membership_file import Columns
from portal.errors import SafetyLimitError
from portal.models import Address, Preference, User
from portal.services.accounts import profiles, users
from portal.services.membership.importing import Report
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.factories import NOW, give_name, make_user
from tests.fakes.memory import MemoryList
from tests.services.membership.conftest import Membership
from tests.services.membership.year import LISTS, Club

PEOPLE = 5_000
COLUMNS = Columns("E-Mail", "Login", "No.", "{First} {Last}", ("Status",), "|")
STRANGER = "stranger@example.net"


def make_list(handle: str) -> MailingList:
    return MailingList(
        handle=handle, name=handle.title(), description="", email=f"{handle}@lists.example.org", archive=None,
        sync_passwords=False, manager="memory", list_name=handle,
        audience=frozenset({"board"}) if handle == "board" else None,
        honour_list_changes=True, remove_on_departure=True, safety_limits=SafetyLimits(),
    )  # fmt: skip


class Year:
    """The club's months, and the portal that follows."""

    def __init__(self, club: Club, membership: Membership, session: Session) -> None:
        self.club, self.membership, self.session = club, membership, session
        self.lists = {handle: make_list(handle) for handle in LISTS}
        self.managers = {handle: MemoryList({STRANGER: STRANGER}, batch=500) for handle in LISTS}
        membership.lists = self.lists
        membership.options = {"columns": COLUMNS}

    def run(self, content: bytes, accept: str | None = None) -> Report:
        self.membership.clock.advance(days=30)
        return self.membership.run(content=content, accept=accept)

    def follow(self, content: bytes, *, is_held: bool = False) -> Report:
        """Import a file, approve what the limits hold, and let the lists be synced."""
        try:
            report = self.run(content)
            assert not is_held
        except SafetyLimitError as error:
            assert is_held
            report = self.run(content, accept=error.plan_id)
        self.club.follow(self.membership.clock.now)
        self.sync()
        self.compare()
        return report

    def sync(self) -> None:
        for handle in LISTS:
            clock = self.membership.clock
            try:
                sync_list(self.session, self.lists[handle], self.managers[handle], clock=clock, request=Request())
            except SafetyLimitError as error:
                request = Request(accept=error.plan_id)
                sync_list(self.session, self.lists[handle], self.managers[handle], clock=clock, request=request)

    def subscribe(self) -> None:
        """Let most be on the lists, as if they had chosen so."""
        ids = dict(iter(self.session.execute(select(Address.canonical, Address.id))))
        for handle in LISTS:
            for email in sorted(self.club.managed(handle)):
                self.club.wanted[handle][email] = self.club.chance.random() < 0.6
            rows = [
                {
                    "list_handle": handle, "address_id": ids[email], "subscribed": wanted, "source": "user",
                    "changed_at": NOW, "touched": False, "seen": wanted, "version": 1, "departed": False,
                }
                for email, wanted in self.club.wanted[handle].items()
            ]  # fmt: skip
            if rows:
                self.session.execute(insert(Preference), rows)
            self.managers[handle].members |= {each: each for each in self.club.roster(handle)}
        self.session.commit()

    def compare(self) -> None:
        """Accounts, groups and lists are what the model says."""
        found = {
            each.member_key: (each.username, each.name, each.email.lower(), set(each.groups), each.is_active)
            for each in profiles.list_all(self.session)
            if each.member_key
        }
        assert found == {
            key: (f"m{key}", each.name, each.email, each.groups, each.active)
            for key, each in self.club.accounts.items()
        }
        for handle in LISTS:
            assert set(self.managers[handle].members) == self.club.roster(handle) | {STRANGER}


def a_month(club: Club) -> Callable[[], None]:
    """Let a month pass; what is returned corrects a typo in the next."""
    club.correct()
    for happens, times in (
        (club.join, PEOPLE // 40), (club.leave, PEOPLE // 60), (club.move, PEOPLE // 100), (club.marry, PEOPLE // 250),
        (club.swap, 3), (club.change_groups, PEOPLE // 60), (club.mistype, 4),
    ):  # fmt: skip
        for _ in range(times):
            happens()
    for _ in range(min(len(club.gone) // 4, PEOPLE // 200)):
        club.come_back()
    return club.take_a_colleagues_address()


@pytest.mark.slow
def test_a_year_of_monthly_files_ends_as_a_model_says(membership: Membership, session: Session) -> None:
    club = Club(PEOPLE)
    year = Year(club, membership, session)
    make_user(session, "treasurer")  # a local account
    year.run(club.write())
    club.follow(membership.clock.now)
    year.subscribe()
    year.compare()

    # What people decide in the portal stays, until the database says something new.
    own, banned = "1010", "1020"
    give_name(session, f"m{own}", "Own Name")
    club.accounts[own].name = "Own Name"
    users.set_groups(session, f"m{own}", groups=[*club.accounts[own].groups, "choir"], lists=year.lists, now=NOW)
    club.accounts[own].groups.add("choir")
    club.accounts[own].own_groups.add("choir")
    users.deactivate(session, f"m{banned}", now=membership.clock())
    club.accounts[banned].active, club.accounts[banned].by_hand = False, True

    shapes = {
        3: {"encoding": "utf-16", "separator": "\t", "end": "\r\n"},
        8: {"encoding": "cp1252", "separator": ";", "end": "\r\n"},
        10: {"encoding": "utf-8-sig", "separator": ";"},
    }
    for month in range(1, 13):
        correct = a_month(club)
        if month == 5:  # the export broke off: nothing happens, and next month's file is whole
            with pytest.raises(SafetyLimitError):
                year.run(club.write()[: PEOPLE * 20])
            year.compare()
            correct()
            continue
        if month == 7:  # a provider closes down: a third have another address, which waits for approval
            for each in club.some(PEOPLE // 3, but=club.guests):
                club.move_of(each)
        report = year.follow(club.write(**shapes.get(month, {})), is_held=month == 7)
        assert report.counts["problems"] == len(club.unreadable)
        assert report.encoding == {3: "UTF-16", 8: "Windows-1252"}.get(month, "UTF-8")
        correct()

    club.correct()
    content = club.write()
    year.follow(content)
    again = year.run(content)
    assert again.counts == {**dict.fromkeys(again.counts, 0), "rows": len(club.people), "unchanged": len(club.people)}
    local = session.scalars(select(User).where(User.username == "treasurer")).one()
    assert (local.member_key, local.is_active, local.name) == (None, True, "Treasurer")
