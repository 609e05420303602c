"""Any sequence of ticks, joins, leaves, account and address changes, runs, refusals, held adds and crashes keeps the
promises of SEMANTICS: a state machine against the real services and a list manager in memory.
"""

import socket
from collections.abc import Collection
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from flask import Flask
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete, func, not_, select, text, update
from sqlalchemy.orm import Session, aliased

from portal.config import Catalogue
from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList, SafetyLimits
from portal.domain.roster_text import RosterText
from portal.errors import ListManagerUnavailableError, SafetyLimitError
from portal.extensions import db
from portal.models import (
    Address,
    Base,
    DisplacedPreference,
    History,
    Lease,
    Preference,
    Run,
    RunLine,
    User,
    UserAddress,
    UserGroup,
)
from portal.services.accounts import address_changes, addresses
from portal.services.accounts.addresses import Checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.sync import leases, requested, runs
from portal.services.sync.planned_runs import begin_planned_run, confirm_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.transaction import transaction
from tests.conftest import Clock, is_nightly
from tests.factories import change_main_addresses, make_user
from tests.fakes.memory import Killed, MemoryList, WithdrawingList, breaking
from tests.services.sync.member_moves import MemberMoves

GONE = 2**22 + 1  # more than Linux ever numbers a process
EXAMPLES = 400 if is_nightly() else 30

LISTS = ("members", "board")
PEOPLE = ("alice", "bob", "charlie", "dora", "erin")
MAILBOXES = tuple(f"{name}@example.org" for name in ("alice", "bob", "dora", "dora2", "erin", "new1", "new2"))
STRANGER = "stranger@example.net"

KINDS = ("subscribes_new_members", "can_leave", "is_listed", "is_applied_at_once")

people = st.sampled_from(PEOPLE)
mailboxes = st.sampled_from(MAILBOXES)
handles = st.sampled_from(LISTS)


def make_list(handle: str) -> MailingList:
    return MailingList(
        handle=handle,
        name=handle.title(),
        description="",
        email=f"{handle}@lists.example.org",
        archive=None,
        sync_passwords=False,
        manager="memory",
        list_name=handle,
        audience=frozenset({"board"}) if handle == "board" else None,
        honour_list_changes=True,
        remove_on_departure=True,
        safety_limits=SafetyLimits(),
        subscribes_new_members=handle == "members",
        is_applied_at_once=handle == "members",
    )


class Promises(MemberMoves, RuleBasedStateMachine):
    """``acts`` remembers what a person visibly did last with a mailbox on a list: "join" or "leave".

    ``began`` is when a list had its first good run, ``ever_held`` what each account holds or has held.
    """

    app: Flask

    def __init__(self) -> None:
        super().__init__()
        self.context = self.app.app_context()
        self.context.push()
        self.session = Session(db.engine)
        self.clock = Clock()
        self.catalogue = Catalogue(True, 12, {handle: make_list(handle) for handle in LISTS}, {})
        self.acts: dict[tuple[str, str], str] = {}
        self.began: dict[str, datetime] = {}
        self.ever_held: dict[int, set[str]] = {}
        self.lists = {"members": WithdrawingList(), "board": MemoryList()}
        self._empty()

    def teardown(self) -> None:
        self.session.close()
        self.context.pop()

    def _empty(self) -> None:
        with self.session.begin():
            for table in reversed(Base.metadata.sorted_tables):
                self.session.execute(delete(table))

    @initialize(are_running=st.booleans())
    def cast(self, are_running: bool) -> None:
        """Make accounts, and where lists are running already, whoever comes later is new to them."""
        make_user(self.session, "alice", groups=("board",))
        make_user(self.session, "bob")
        make_user(self.session, "charlie", "alice@example.org")  # shares Alice's mailbox
        make_user(self.session, "dora", "dora@example.org", "dora2@example.org", groups=("board",))
        for handle, each in self.lists.items():
            each.join(STRANGER)
            if are_running:
                self._sync(handle)
        self.clock.advance(hours=1)
        self._make("erin")

    def _make(self, name: str, *spellings: str) -> int:
        user_id = make_user(self.session, name, *spellings)
        with self.session.begin():
            self.session.execute(update(User).where(User.id == user_id).values(created_at=self.clock()))
        return user_id

    # What people do in the portal.

    def _user_id(self, name: str) -> int | None:
        with self.session.begin():
            return self.session.scalar(select(User.id).where(User.username == name, User.is_active))

    @rule(name=people, handle=handles)
    def toggle_a_box(self, name: str, handle: str) -> None:
        user_id = self._user_id(name)
        if user_id is not None:
            self._toggle(user_id, handle)

    def _toggle(self, user_id: int, handle: str, mailbox: str | None = None) -> bool:
        """Turn a box over, or send a list to one address of a person; return whether the page showed something else."""
        page = preferences.page(self.session, user_id, catalogue=self.catalogue, now=self.clock())
        shown = {offer.mailing_list.handle: offer.address_id or 0 for offer in page.offers}
        ids = {canonical(each.spelling): each.id for each in page.addresses}
        before = self._stored(handle)
        self._check_offer(user_id, handle, is_offered=handle in shown)
        if handle in shown:
            is_ticked = mailbox is not None or not shown[handle]
            preferences.choose(
                self.session,
                user_id,
                shown={handle: shown[handle]},
                ticked={handle} if is_ticked else (),
                addresses={handle: ids[mailbox]} if mailbox else {},
                catalogue=self.catalogue,
                now=self.clock(),
            )
            if not (is_ticked or self.catalogue.lists[handle].can_leave):
                assert self._stored(handle) == before, "members cannot leave it here"
            if self.catalogue.lists[handle].is_applied_at_once and self._stored(handle) != before:
                assert [each.handle for each in runs.due(self.session, now=self.clock())].count(handle) == 1
        self.clock.advance(seconds=1)
        self._remember_choices(handle, before)
        return handle in shown and (mailbox is None or ids[mailbox] != shown[handle])

    def _check_offer(self, user_id: int, handle: str, *, is_offered: bool) -> None:
        rows, held = self._stored(handle), self._held(user_id)
        is_on = any(rows[each]["subscribed"] or rows[each]["seen"] for each in held if each in rows)
        is_shown = is_on or self.catalogue.lists[handle].is_listed
        assert is_offered == (is_shown and self._may_see(user_id, handle)), "who is on it sees it, and nobody else"

    def _remember_choices(self, handle: str, before: dict[str, dict[str, Any]]) -> None:
        """Note who joined or left by what was just stored; an untick that came with a tick elsewhere is neither."""
        for mailbox, row in self._stored(handle).items():
            if mailbox not in before or before[mailbox]["subscribed"] != row["subscribed"]:
                act = "join" if row["subscribed"] else "leave"
                self.acts[mailbox, handle] = "" if row["source"] == "rule" else act

    @rule(name=people, handle=handles, mailbox=mailboxes)
    def choose_an_address(self, name: str, handle: str, mailbox: str) -> None:
        user_id = self._user_id(name)
        if user_id is not None and mailbox in self._held(user_id):
            is_choice = self._toggle(user_id, handle, mailbox)
            stored = self._stored(handle)
            if is_choice:
                assert stored[mailbox]["subscribed"]
                alone = {each for each in self._held(user_id) if len(self._holders(each)) == 1} - {mailbox}
                assert not any(stored[each]["subscribed"] for each in alone), "it sends to one of theirs"

    def _may_see(self, user_id: int, handle: str) -> bool:
        with self.session.begin():
            groups = select(UserGroup.name).where(UserGroup.user_id == user_id)
            return self.catalogue.lists[handle].is_offered_to(frozenset(self.session.scalars(groups)))

    # Several addresses of one person.

    def _held(self, user_id: int) -> list[str]:
        """The addresses of an account, the main one first."""
        with self.session.begin():
            mine = select(Address.canonical).join(UserAddress).where(UserAddress.user_id == user_id)
            return list(self.session.scalars(mine.order_by(UserAddress.is_main.desc(), Address.id)))

    def _change_addresses(self, user_id: int, what: str, mailbox: str) -> None:
        values: dict[str, Any] = {"actor": COMMAND_LINE, "now": self.clock(), "lists": self.catalogue.lists}
        if what == "add":
            address_changes.add(self.session, user_id, Checked(mailbox, mailbox), **values)
        elif what == "remove":
            address_changes.remove(self.session, user_id, mailbox, **values)
        else:
            address_changes.make_main(self.session, user_id, mailbox, **values)
        self.clock.advance(seconds=1)

    @rule(name=people, mailbox=mailboxes)
    def add_an_address(self, name: str, mailbox: str) -> None:
        user_id = self._user_id(name)
        if user_id is None or mailbox in self._held(user_id):
            return
        before = {handle: self._stored(handle) for handle in LISTS}
        self._change_addresses(user_id, "add", mailbox)
        for handle in LISTS:
            self.acts[mailbox, handle] = ""
            self._remember_choices(handle, before[handle])
        self._check_that_lists_send_to_one(user_id)

    @rule(name=people, mailbox=mailboxes)
    def remove_an_address(self, name: str, mailbox: str) -> None:
        user_id = self._user_id(name)
        held = self._held(user_id) if user_id is not None else []
        if user_id is None or mailbox not in held[1:]:
            return
        before, acts = {handle: self._stored(handle) for handle in LISTS}, dict(self.acts)
        self._change_addresses(user_id, "remove", mailbox)
        for handle in LISTS:
            old, new = before[handle].get(held[0]), self._stored(handle).get(held[0])
            if new is not None and (old is None or old["subscribed"] != new["subscribed"]):
                self.acts[held[0], handle] = acts.get((mailbox, handle), "")

    @rule(name=people, mailbox=mailboxes)
    def make_another_address_the_main_one(self, name: str, mailbox: str) -> None:
        user_id = self._user_id(name)
        if user_id is not None and mailbox in self._held(user_id):
            before = [self._stored(handle) for handle in LISTS]
            self._change_addresses(user_id, "make main", mailbox)
            assert self._held(user_id)[0] == mailbox
            assert [self._stored(handle) for handle in LISTS] == before, "the lists stay where they are"

    @rule(name=people, mailbox=mailboxes)
    def add_an_address_by_mistake_and_remove_it(self, name: str, mailbox: str) -> None:
        """It is as if nothing had happened, with everybody, but that a list may be sent to one address of theirs."""
        user_id = self._user_id(name)
        if user_id is None or mailbox in self._held(user_id) or self._had_left(user_id, mailbox):
            return
        before = {handle: self._wanted(handle) for handle in LISTS}
        self._change_addresses(user_id, "add", mailbox)
        self._change_addresses(user_id, "remove", mailbox)
        for handle in LISTS:
            own = set(self._held(user_id))
            after = self._wanted(handle)
            assert {each: row for each, row in after.items() if each not in own} == {
                each: row for each, row in before[handle].items() if each not in own
            }
            assert any(after.get(each) for each in own) is any(before[handle].get(each) for each in own)

    def _had_left(self, user_id: int, mailbox: str) -> bool:
        """Return True if an account would come back to a mailbox."""
        with self.session.begin():
            left = select(func.count()).select_from(Preference).join(Address, Address.id == Preference.address_id)
            return bool(self.session.scalar(left.where(Address.canonical == mailbox, Preference.left_by == user_id)))

    def _wanted(self, handle: str) -> dict[str, bool]:
        return {mailbox: row["subscribed"] for mailbox, row in self._stored(handle).items()}

    @rule(name=people, mailbox=mailboxes)
    def change_address(self, name: str, mailbox: str) -> None:
        user_id = self._user_id(name)
        if user_id is not None:
            self._move({user_id: mailbox})

    @rule(name=people, mailbox=mailboxes)
    def mistype_an_address_and_correct_it(self, name: str, mailbox: str) -> None:
        """A typo undone before a run is as if nothing had happened, for everybody who has arrived where they are."""
        user_id = self._user_id(name)
        old = self._main(user_id) if user_id is not None else None
        if user_id is None or old in {None, mailbox} or self._is_on_the_way(user_id):
            return
        before = self._everything()
        self._move({user_id: mailbox})
        self._move({user_id: str(old)})
        after = self._everything()
        assert (after - before, before - after) == (set(), set())

    @rule(one=people, other=people)
    def trade_places(self, one: str, other: str) -> None:
        ids = [self._user_id(each) for each in (one, other)]
        if one != other and None not in ids:
            mains = {each: self._main(each) for each in ids if each is not None}
            self._move({each: str(mains[again]) for each, again in zip(mains, reversed(mains), strict=True)})

    def _main(self, user_id: int | None) -> str | None:
        with self.session.begin():
            mine = select(Address.canonical).join(UserAddress)
            return self.session.scalar(mine.where(UserAddress.user_id == user_id, UserAddress.is_main))

    def _is_on_the_way(self, user_id: int) -> bool:
        """Return True if a move of an account could still be undone, or it holds more than one address."""
        with self.session.begin():
            displaces = self.session.scalar(
                select(func.count()).where(DisplacedPreference.taken_by == user_id).select_from(DisplacedPreference)
            )
            moved_in = select(func.count()).where(UserAddress.user_id == user_id, UserAddress.moved_in_at.is_not(None))
            held = select(func.count()).where(UserAddress.user_id == user_id)
            left = select(func.count()).where(Preference.left_by == user_id)
            return bool(
                displaces
                or self.session.scalar(moved_in)
                or self.session.scalar(left)
                or self.session.scalar(held) != 1
            )

    def _everything(self) -> set[Any]:
        """Return what is stored of addresses and preferences, as far as it makes a difference."""
        with self.session.begin():
            seats = select(Address.canonical, UserAddress.user_id, UserAddress.is_main, UserAddress.is_guest)
            held = set(map(tuple, self.session.execute(seats.join(UserAddress))))
        # A mark that somebody who may see the list cleared by coming stays cleared.
        forgotten = {"version", "refusal", "refused_at", "departed"}
        return held | {
            (handle, mailbox, name, value)
            for handle in LISTS
            for mailbox, row in self._stored(handle).items()
            for name, value in row.items()
            if name not in forgotten
        }

    def _move(self, wanted: dict[int, str]) -> None:
        olds = {user_id: self._main(user_id) for user_id in wanted}
        managed = {handle: self._managed(handle) for handle in LISTS}
        change_main_addresses(self.session, wanted, now=self.clock(), lists=self.catalogue.lists)
        self.clock.advance(seconds=1)
        acts = dict(self.acts)
        for handle, (user_id, mailbox) in product(LISTS, wanted.items()):
            after = self._stored(handle).get(mailbox)
            if olds[user_id] == mailbox:
                continue
            brought = after is not None and after["moved_from"] is not None and mailbox not in managed[handle]
            on = mailbox in self.lists[handle].members
            joined = on and after is not None and (after["subscribed"] or after["seen"] is not True)
            # Somebody who brought nothing, shares the mailbox, or comes back, left or joined there themselves if at all.
            if len(wanted) > 1 or joined or not brought:
                self.acts[mailbox, handle] = ""
            else:
                self.acts[mailbox, handle] = acts.get((olds[user_id] or "", handle), "")

    # What administrators do.

    @rule(name=people)
    def switch_off_or_on(self, name: str) -> None:
        with transaction(self.session) as session:
            user = session.scalar(select(User).where(User.username == name))
            if user is not None:
                is_given = not user.is_active and self._unsettled_seats(user.id)
                if user.is_active:
                    addresses.deactivate(session, [user.id], actor=COMMAND_LINE, now=self.clock())
                    user.is_active = False
                    session.flush()
                else:
                    lists = self.catalogue.lists
                    addresses.activate(session, [user.id], actor=COMMAND_LINE, now=self.clock(), lists=lists)
                for handle, mailbox in product(LISTS, MAILBOXES):
                    if self._is_held_by(user.id, mailbox):
                        self.acts[mailbox, handle] = ""
                user_id = user.id
        if user is not None and is_given:
            self._check_that_lists_send_to_one(user_id, is_given)

    def _unsettled_seats(self, user_id: int) -> set[str]:
        """Return the lists that an account could not see when it was given an address."""
        unsettled = select(UserAddress.unsettled_lists).where(UserAddress.user_id == user_id)
        return {handle for each in self.session.scalars(unsettled) if each for handle in each.split("\n")}

    def _check_that_lists_send_to_one(self, user_id: int, handles: Collection[str] = LISTS) -> None:
        alone = [each for each in self._held(user_id) if len(self._holders(each)) == 1]
        for handle in handles:
            stored = self._stored(handle)
            on = [each for each in alone if each in stored and stored[each]["subscribed"]]
            if self._may_see(user_id, handle):
                assert len(on) <= 1, "a list sends to one address of theirs"

    @rule(name=people, mailbox=mailboxes)
    def give_an_address_to_a_deactivated_account(self, name: str, mailbox: str) -> None:
        with self.session.begin():
            user_id = self.session.scalar(select(User.id).where(User.username == name, not_(User.is_active)))
        if user_id is not None and mailbox not in self._held(user_id):
            self._change_addresses(user_id, "add", mailbox)
            for handle in LISTS:
                self.acts[mailbox, handle] = ""

    def _is_held_by(self, user_id: int, mailbox: str) -> bool:
        mine = select(Address.id).join(UserAddress).where(UserAddress.user_id == user_id)
        return self.session.scalar(mine.where(Address.canonical == mailbox)) is not None

    @rule(name=people)
    def let_in_or_out_of_the_board(self, name: str) -> None:
        with transaction(self.session) as session:
            user = session.scalar(select(User).where(User.username == name))
            if user is not None:
                group = session.get(UserGroup, (user.id, "board"))
                if group:
                    session.delete(group)
                else:
                    session.add(UserGroup(user_id=user.id, name="board"))
                session.flush()
                user_id, was_unsettled = user.id, self._unsettled_seats(user.id)
                lists = self.catalogue.lists
                addresses.admit(session, [user.id], actor=COMMAND_LINE, now=self.clock(), lists=lists)
                ended = "board" in was_unsettled and "board" not in self._unsettled_seats(user.id)
        if user is not None and ended:
            for mailbox in self._held(user_id):
                self.acts[mailbox, "board"] = ""
            self._check_that_lists_send_to_one(user_id, ["board"])

    @rule(name=people, erase=st.booleans())
    def delete_the_account_or_make_it_again(self, name: str, erase: bool) -> None:
        with transaction(self.session) as session:
            user_id = session.scalar(select(User.id).where(User.username == name))
            if user_id is not None:
                addresses.release(
                    session, user_id, erase=erase, actor=COMMAND_LINE, now=self.clock(), lists=self.catalogue.lists
                )
                session.execute(delete(User).where(User.id == user_id))
                return
        user_id = self._make(name, f"spare-{name}@example.org")
        with transaction(self.session) as session:
            spelling = f"{name}@example.org"
            addresses.give(
                session,
                user_id,
                Checked(spelling, spelling),
                actor=COMMAND_LINE,
                now=self.clock(),
                lists=self.catalogue.lists,
            )

    @rule(handle=handles, kind=st.sampled_from(KINDS))
    def change_the_kind_of_a_list(self, handle: str, kind: str) -> None:
        mailing_list = self.catalogue.lists[handle]
        changed = replace(mailing_list, **{kind: not getattr(mailing_list, kind)})
        self.catalogue = replace(self.catalogue, lists={**self.catalogue.lists, handle: changed})

    # What happens at the list.

    @rule(handle=handles, mailbox=mailboxes, loud=st.booleans())
    def join_at_the_list(self, handle: str, mailbox: str, loud: bool) -> None:
        if mailbox not in self.lists[handle].members:
            self.lists[handle].join(mailbox.upper() if loud else mailbox)
            self.acts[mailbox, handle] = "join"

    @rule(handle=handles, mailbox=mailboxes)
    def leave_at_the_list(self, handle: str, mailbox: str) -> None:
        if mailbox not in self.lists[handle].members:
            return
        rows = self._stored(handle)
        row = rows.get(mailbox)
        visible = row is not None and row["seen"] is True and mailbox not in self._unsettled(handle)
        self.lists[handle].leave(mailbox)
        self.acts[mailbox, handle] = "leave" if visible else ""
        successor = row["moved_to"] if row and visible else None
        if row and successor and successor != mailbox and self._holders(successor) == {row["left_by"]}:
            is_on = successor in self.lists[handle].members
            self.acts[successor, handle] = "" if is_on else "leave"

    def _holders(self, mailbox: str) -> set[int]:
        """Return the active accounts that hold a mailbox."""
        with self.session.begin():
            holders = select(User.id).join(UserAddress).join(Address).where(Address.canonical == mailbox)
            return set(self.session.scalars(holders.where(User.is_active)))

    @rule(handle=handles, mailbox=mailboxes, approves=st.booleans())
    def moderate(self, handle: str, mailbox: str, approves: bool) -> None:
        if mailbox in self.lists[handle].held:
            if approves:
                self.lists[handle].approve(mailbox)
            else:
                del self.lists[handle].held[mailbox]

    @rule(handle=handles, mailbox=mailboxes, what=st.sampled_from(["banned", "stubborn", "moderated"]))
    def change_the_manners_of_the_list(self, handle: str, mailbox: str, what: str) -> None:
        each = self.lists[handle]
        if what == "moderated":
            each.is_moderated = not each.is_moderated
        elif what == "banned":
            each.banned ^= {mailbox}
        else:
            each.stubborn ^= {mailbox}

    @rule(hours=st.sampled_from([1, 25, 91 * 24]))
    def time_passes(self, hours: int) -> None:
        self.clock.advance(hours=hours)

    # Runs.

    @rule(handle=handles)
    def a_run(self, handle: str) -> None:
        before = self._before(handle)
        self._sync(handle)
        self._check_calls(handle, before)
        self._check_good_run(handle, before)
        self.lists[handle].calls.clear()
        self._sync(handle)
        assert [name for name, _ in self.lists[handle].calls] == ["roster"], "a second run in a row does nothing"

    @rule()
    def a_minute(self) -> None:
        """The minute's cron carries out what saves have asked for; what needs approval waits, and nothing else."""
        for asked in runs.due(self.session, now=self.clock()):
            before = self._before(asked.handle)
            assert runs.claim(self.session, asked, now=self.clock())
            try:
                requested.carry_out(
                    self.session,
                    asked,
                    catalogue=self.catalogue,
                    open_list_manager=lambda mailing_list: self.lists[mailing_list.handle],
                    clock=self.clock,
                )
            except SafetyLimitError:
                pass
            else:
                self.began.setdefault(asked.handle, self.clock())
                self._check_good_run(asked.handle, before)
            self._check_calls(asked.handle, before)
        assert not runs.due(self.session, now=self.clock())

    @rule(
        handle=handles,
        moment=st.sampled_from(
            [f"{when} {what}" for when in ("before", "after") for what in ("roster", "add", "remove")]
        ),
        count=st.integers(0, 1),
        is_killed=st.booleans(),
    )
    def a_run_that_breaks(self, handle: str, moment: str, count: int, is_killed: bool) -> None:
        before = self._before(handle)
        self.lists[handle].watcher = breaking(moment, count, Killed() if is_killed else None)
        broke = False
        try:
            self._sync(handle)
        except (Killed, ListManagerUnavailableError):
            self.session.rollback()
            broke = True
        self.lists[handle].watcher = lambda _moment: None
        if is_killed and broke:
            self._forget_the_tidying(handle)
        self._check_calls(handle, before)

    def _forget_the_tidying(self, handle: str) -> None:
        """Put back what a killed process leaves: an open run, and a lease that its host knows to be nobody's."""
        with self.session.begin():
            last = select(func.max(Run.id)).where(Run.list_handle == handle).scalar_subquery()
            self.session.execute(
                update(Run)
                .where(Run.id == last, Run.state == "failed", Run.plan_id.is_not(None))
                .values(state="open", finished_at=None)
            )
            self.session.add(
                Lease(
                    list_handle=handle,
                    token="dead",
                    holder="a dead process",
                    host=socket.gethostname(),
                    pid=GONE,
                    pid_space=leases.pid_space(),
                    expires_at=datetime.now(UTC) + timedelta(hours=1),
                )
            )

    @rule(
        handle=handles, name=people, moment=st.sampled_from(["after roster", "before add", "after add", "after remove"])
    )
    def a_run_during_which_a_box_is_changed(self, handle: str, name: str, moment: str) -> None:
        before = self._before(handle)
        user_id = self._user_id(name)
        done: list[bool] = []

        def choose(now: str) -> None:
            if now == moment and not done and user_id is not None:
                done.append(True)
                self._toggle(user_id, handle)
                if now == "after roster":  # the plan has not been made yet: it reads this choice
                    before["rows"], before["new"] = self._stored(handle), self._new_members(handle)

        self.lists[handle].watcher = choose
        self._sync(handle)
        self.lists[handle].watcher = lambda _moment: None
        self._check_calls(handle, before)

    @rule(handle=handles, is_confirmed=st.booleans(), pushes=st.booleans())
    def a_planned_run(self, handle: str, is_confirmed: bool, pushes: bool) -> None:
        before = self._before(handle)
        each, mailing_list = self.lists[handle], self.catalogue.lists[handle]
        sync_result = self._begin_planned(handle)
        adds = [line.spelling for line in sync_result.plan.lines if line.is_pushed and line.action == "add"]
        removals = [line.spelling for line in sync_result.plan.lines if line.is_pushed and line.action == "remove"]
        each.calls.clear()
        for address in adds if pushes else ():
            each.add([address])
        for address in removals if pushes else ():
            each.remove([address])
        self._check_calls(handle, before)
        if is_confirmed:
            request = Request(allow_empty=True)
            confirm_planned_run(
                self.session, mailing_list, RosterText(self._lines(handle)), clock=self.clock, request=request
            )
            self.began.setdefault(handle, self.clock())
        else:  # abandoned after an hour
            with self.session.begin():
                self.session.execute(text("DELETE FROM leases"))

    def _begin_planned(self, handle: str) -> Any:
        accept = None
        for _attempt in range(2):
            try:
                sync_result, _invalid = begin_planned_run(
                    self.session,
                    self.catalogue.lists[handle],
                    RosterText(self._lines(handle)),
                    clock=self.clock,
                    request=Request(accept=accept, allow_empty=True),
                )
            except SafetyLimitError as refusal:
                accept = refusal.plan_id
            else:
                return sync_result
        raise AssertionError("an accepted plan is let through")

    def _lines(self, handle: str) -> list[bytes]:
        return [address.encode() for address in self.lists[handle].members.values()]

    def _sync(self, handle: str) -> None:
        """Run as an operator does who approves whatever waits for approval."""
        accept = None
        for _attempt in range(3):
            try:
                request = Request(accept=accept)
                sync_list(
                    self.session, self.catalogue.lists[handle], self.lists[handle], clock=self.clock, request=request
                )
            except SafetyLimitError as refusal:
                accept = refusal.plan_id
            else:
                self.began.setdefault(handle, self.clock())
                return
        raise AssertionError("an accepted plan is let through")

    # What is promised.

    def _stored(self, handle: str) -> dict[str, dict[str, Any]]:
        other = aliased(Address)
        successor = select(other.canonical).where(other.id == Preference.moved_to).scalar_subquery()
        with self.session.begin():
            rows = self.session.execute(
                select(Address.canonical, successor.label("successor"), *Preference.__table__.c)
                .join(Preference, Preference.address_id == Address.id)
                .where(Preference.list_handle == handle)
            ).mappings()
            return {row["canonical"]: {**row, "moved_to": row["successor"]} for row in rows}

    def _unsettled(self, handle: str) -> set[str]:
        with self.session.begin():
            return set(
                self.session.scalars(
                    select(RunLine.address).where(RunLine.list_handle == handle, RunLine.settled.is_(False))
                )
            )

    def _managed(self, handle: str) -> set[str]:
        condition = addresses.is_managed(self.catalogue.lists[handle])
        with self.session.begin():
            return set(self.session.scalars(select(Address.canonical).where(condition)))

    def _before(self, handle: str) -> dict[str, Any]:
        self.lists[handle].calls.clear()
        return {
            "rows": self._stored(handle),
            "managed": self._managed(handle),
            "members": set(self.lists[handle].members),
            "unsettled": self._unsettled(handle),
            "new": self._new_members(handle),
        }

    def _new_members(self, handle: str) -> set[str]:
        """The main addresses that the next run may subscribe, since it is the first that sees their holders."""
        mailing_list, began = self.catalogue.lists[handle], self.began.get(handle)
        if began is None or not mailing_list.subscribes_new_members:
            return set()
        with self.session.begin():
            told = set(self.session.scalars(select(History.address).where(History.list_handle == handle)))
            later = self.session.scalars(select(User.id).where(User.is_active, User.created_at > began)).all()
        seen_before = told | set(self._stored(handle)) | set(self.lists[handle].members)
        return {
            self._held(user_id)[0]
            for user_id in later
            if self._may_see(user_id, handle) and seen_before.isdisjoint(self.ever_held[user_id])
        }

    def _check_calls(self, handle: str, before: dict[str, Any]) -> None:
        for name, told in self.lists[handle].calls:
            for address in map(canonical, told):
                row = before["rows"].get(address)
                if name == "add" and row is None and address in before["new"]:
                    continue  # once
                assert row is not None, "an address without a row is never touched"
                if name == "add":
                    assert row["subscribed"], "nobody is added without a standing yes"
                    assert address in before["managed"], "nobody without an account is added"
                    assert row["seen"] is not True or address in before["members"] or address in before["unsettled"], (
                        "nobody who was on the roster at the last run and is off it now is added"
                    )

    def _check_good_run(self, handle: str, before: dict[str, Any]) -> None:
        each = self.lists[handle]
        rows = self._stored(handle)
        for (mailbox, on), act in self.acts.items():
            row = before["rows"].get(mailbox)
            if on == handle and act == "leave" and row and mailbox not in before["unsettled"]:
                refused = mailbox in rows and rows[mailbox]["refused_at"] is not None
                assert mailbox not in each.members or refused, f"{mailbox} had left"
        for mailbox in before["new"]:
            found = rows[mailbox]["subscribed"], rows[mailbox]["source"]
            assert found == (True, "rule"), "new members are subscribed"
        for mailbox, row in rows.items():
            if mailbox in self._managed(handle) and row["refused_at"] is None:
                assert row["subscribed"] == (mailbox in each.members), "the list agrees"
            assert row["seen"] is (mailbox in each.members), "seen is what the roster said"

    @invariant()
    def what_accounts_hold_is_remembered(self) -> None:
        with self.session.begin():
            held = select(UserAddress.user_id, Address.canonical).join(Address)
            for user_id, mailbox in self.session.execute(held):
                self.ever_held.setdefault(user_id, set()).add(mailbox)

    @invariant()
    def those_without_an_account_stay(self) -> None:
        for each in self.lists.values():
            assert STRANGER in each.members

    @invariant()
    def history_tells_what_is_stored(self) -> None:
        for handle in LISTS:
            with self.session.begin():
                newest = select(func.max(History.id)).where(History.list_handle == handle).group_by(History.address_id)
                told = dict(
                    iter(
                        self.session.execute(
                            select(History.address_id, History.subscribed).where(History.id.in_(newest))
                        )
                    )
                )
            for row in self._stored(handle).values():
                assert told[row["address_id"]] == row["subscribed"]


@pytest.mark.slow
def test_any_sequence_keeps_the_promises(app: Flask) -> None:
    Promises.app = app
    run_state_machine_as_test(Promises, settings=settings(max_examples=EXAMPLES, stateful_step_count=40))
