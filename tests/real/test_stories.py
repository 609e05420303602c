"""What people, superusers and list administrators do in turn, told as it happens, on text files, mlmmj and Mailman 3.

Each story ends as the person who tells it would expect. Nobody who is a stranger to the portal is ever touched.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.domain.roster_text import RosterText
from portal.errors import PausedError, SafetyLimitError
from portal.extensions import Portal, db
from portal.models import Address, Base, Preference
from portal.services.accounts import address_changes, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE, Actor
from portal.services.preferences import preferences
from portal.services.preferences.on_behalf import take_off
from portal.services.sync.planned_runs import abandon_planned_run, begin_planned_run
from portal.services.sync.restore import mark_restored
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import sync_list
from tests.conftest import Clock
from tests.factories import change_main_addresses, make_user
from tests.real import programs
from tests.real.base import RealProgram

pytestmark = pytest.mark.slow

LIST = "ants"
STRANGER = "stranger@example.net"
STEADY = tuple(f"steady{number}@example.org" for number in range(4))
ALICE, BOB, NEW, THIRD, CHAIR = (f"{name}@example.org" for name in ("alice", "bob", "new", "third", "chair"))


class Story:
    """A portal, a real list manager, and what happens to them. Some stay on the list whatever happens."""

    def __init__(self, app: Flask, session: Session, program: RealProgram, clock: Clock) -> None:
        self.portal: Portal = app.extensions["portal"]
        self.session, self.program, self.clock = session, program, clock
        self.list = self.portal.catalogue().get(LIST)
        self.lists = {LIST: self.list}
        self.ids: dict[str, int] = {}
        for address in STEADY:
            self.account(address.partition("@")[0], address)
        self.at_the_list(*STEADY, STRANGER)

    # At the list.

    def at_the_list(self, *on: str, off: tuple[str, ...] = ()) -> None:
        self.program.set_roster(LIST, (self.program.roster(LIST) | {*on}) - {*off})

    def on(self) -> set[str]:
        """Return who is on the list, besides those who always are; these must be."""
        found = self.program.roster(LIST)
        assert {*STEADY, STRANGER} <= found
        return found - {*STEADY, STRANGER}

    # In the portal.

    def account(self, name: str, *held: str, groups: tuple[str, ...] = ("hall",)) -> None:
        self.ids[name] = make_user(self.session, name, *held, groups=groups)

    def box(self, name: str, *, ticked: bool, address: str | None = None) -> None:
        """Tick or untick the list on the page of a member."""
        catalogue = self.portal.catalogue()
        page = preferences.page(self.session, self.ids[name], catalogue=catalogue, now=self.clock())
        shown = {offer.mailing_list.handle: offer.address_id or 0 for offer in page.offers}
        sent_to = next((each.id for each in page.addresses if canonical(each.spelling) == address), None)
        preferences.choose(
            self.session, self.ids[name], shown=shown, ticked={LIST} if ticked else set(), addresses={LIST: sent_to} if sent_to else {},
            catalogue=catalogue, now=self.clock(),
        )  # fmt: skip

    def tick(self, name: str, address: str | None = None) -> None:
        self.box(name, ticked=True, address=address)

    def untick(self, name: str) -> None:
        self.box(name, ticked=False)

    def is_ticked(self, name: str) -> bool:
        page = preferences.page(self.session, self.ids[name], catalogue=self.portal.catalogue(), now=self.clock())
        return any(offer.is_ticked for offer in page.offers)

    def move(self, **to: str) -> None:
        """Let accounts change their main address, all at once."""
        wanted = {self.ids[name]: address for name, address in to.items()}
        change_main_addresses(self.session, wanted, now=self.clock(), lists=self.lists)

    def give_up(self, name: str, address: str) -> None:
        address_changes.remove(
            self.session, self.ids[name], address, actor=COMMAND_LINE, now=self.clock(), lists=self.lists
        )

    def put_into(self, name: str, *groups: str) -> None:
        users.set_groups(self.session, name, groups=groups, now=self.clock(), lists=self.lists)

    def deactivate(self, name: str) -> None:
        users.deactivate(self.session, name, now=self.clock())

    def activate(self, name: str) -> None:
        users.activate(self.session, name, now=self.clock(), lists=self.lists)

    def delete(self, name: str, *, erase: bool = False) -> None:
        users.delete(self.session, name, erase=erase, now=self.clock(), lists=self.lists)

    def take_off(self, address: str) -> None:
        take_off(self.session, self.list, address, actor=Actor(1, "op"), now=self.clock())

    def preference(self, address: str) -> bool | None:
        found = self.session.scalar(
            select(Preference.subscribed)
            .join(Address)
            .where(Preference.list_handle == LIST, Address.canonical == address)
        )
        self.session.rollback()
        return found

    # Runs.

    def run(self, **request: str) -> SyncResult:
        self.clock.advance(minutes=30)
        manager = self.portal.open_list_manager(self.list)
        return sync_list(self.session, self.list, manager, clock=self.clock, request=Request(**request))

    def run_until_quiet(self) -> set[str]:
        """Run twice; return who is on the list. The second run must find nothing to do."""
        self.run()
        found = self.on()
        again = self.run()
        assert not any(again.counts.values()), again.counts
        assert self.on() == found
        return found

    @contextmanager
    def down(self) -> Iterator[None]:
        """Let the list manager be out of reach."""
        reachable = self.list
        self.list = replace(reachable, list_name=f"no-such-{LIST}", email=f"no-such-{LIST}@lists.example.org")
        yield
        self.list = reachable


@pytest.fixture(params=list(programs.PROGRAMS))
def program(request: pytest.FixtureRequest) -> RealProgram:
    return programs.started(request.param)


@pytest.fixture
def tell(
    program: RealProgram, instance: object, make_app: Callable[..., Flask], clock: Clock
) -> Iterator[Callable[..., Story]]:
    """Begin a story; further settings of the list are lines of TOML. The first run is over."""
    program.make_list(LIST)
    contexts = []

    def begin(*settings: str) -> Story:
        (instance / "mailinglists.toml").write_text(_catalogue(program, settings))
        app = make_app()
        context = app.app_context()
        context.push()
        session = Session(db.engine)
        contexts.append((context, session))
        story = Story(app, session, program, clock)
        story.run()
        return story

    yield begin
    for context, session in contexts:
        session.close()
        context.pop()
    assert program.queued_mails() == []
    program.make_list(LIST)


def _catalogue(program: RealProgram, settings: tuple[str, ...]) -> str:
    table = "\n".join(f"{key} = {json.dumps(value)}" for key, value in program.manager_table().items())
    name, email = program.list_setting(LIST), f"{LIST}@lists.example.org"
    return "\n".join(
        [
            "enabled = true",
            f'[lists.{LIST}]\nname = "Ants"\nemail = "{email}"\nsyncpws = false',
            "" if name in {LIST, email} else f'list = "{name}"',
            *settings,
            f'[managers.real]\nkind = "{program.kind}"\n{table}\n',
        ]
    )


def member(story: Story, name: str = "alice", address: str = ALICE) -> None:
    """Let somebody have ticked the list, and be on it."""
    story.account(name, address)
    story.tick(name)
    assert address in story.run_until_quiet()


# --- moves


def test_an_administrator_of_the_list_who_changes_an_address_after_the_office_did_is_not_undone(tell):
    story = tell()
    member(story)
    story.move(alice=NEW)
    story.at_the_list(NEW, off=(ALICE,))
    assert story.run_until_quiet() == {NEW}
    assert story.is_ticked("alice")


def test_an_office_that_follows_a_change_made_at_the_list_days_ago_keeps_the_member_on_it(tell):
    """For the portal she had left, and somebody without an account had joined."""
    story = tell()
    member(story)
    story.at_the_list(NEW, off=(ALICE,))
    assert story.run_until_quiet() == {NEW}
    assert not story.is_ticked("alice")
    story.move(alice=NEW)
    assert story.run_until_quiet() == {NEW}
    assert story.is_ticked("alice")
    story.untick("alice")
    assert story.run_until_quiet() == set()


def test_three_moves_with_runs_in_between_end_where_the_person_began(tell):
    story = tell()
    member(story)
    for address in (NEW, THIRD, ALICE):
        story.move(alice=address)
        assert story.run_until_quiet() == {address}


def test_three_moves_without_a_run_leave_one_address(tell):
    story = tell()
    member(story)
    for address in (NEW, BOB, THIRD):
        story.move(alice=address)
    assert story.run_until_quiet() == {THIRD}


def test_a_trade_of_addresses_takes_the_yes_and_the_no_along(tell):
    story = tell()
    member(story)
    story.account("bob", BOB)
    story.run()
    story.untick("bob")
    story.move(alice=BOB, bob=ALICE)
    assert story.run_until_quiet() == {BOB}
    assert (story.is_ticked("alice"), story.is_ticked("bob")) == (True, False)
    story.move(alice=ALICE, bob=BOB)
    assert story.run_until_quiet() == {ALICE}


def test_who_moves_and_unticks_before_the_run_is_off_with_both_addresses(tell):
    story = tell()
    member(story)
    story.move(alice=NEW)
    story.untick("alice")
    assert story.run_until_quiet() == set()


def test_who_unticks_and_moves_is_not_subscribed_with_the_new_address(tell):
    story = tell()
    member(story)
    story.untick("alice")
    story.move(alice=NEW)
    assert story.run_until_quiet() == set()
    story.move(alice=ALICE)
    assert story.run_until_quiet() == set()


def test_a_typo_onto_a_subscriber_without_an_account_takes_nobody_off(tell):
    story = tell()
    member(story)
    story.move(alice=STRANGER)
    story.run_until_quiet()
    story.move(alice=ALICE)
    assert story.run_until_quiet() == {ALICE}


def test_a_typo_onto_a_colleague_who_is_not_on_the_list_does_not_put_them_on_it(tell):
    story = tell()
    member(story)
    story.account("bob", BOB)
    story.run()
    story.untick("bob")
    story.move(alice=BOB)
    assert story.run_until_quiet() == set()
    story.move(alice=ALICE)
    assert story.run_until_quiet() == {ALICE}
    assert story.preference(BOB) is False


def test_a_shared_mailbox_that_one_of_two_leaves_obeys_the_one_who_stays(tell):
    story = tell()
    member(story, "alice", CHAIR)
    story.account("bob", CHAIR)
    story.move(alice=ALICE)
    assert story.run_until_quiet() == {CHAIR, ALICE}
    story.untick("bob")
    assert story.run_until_quiet() == {ALICE}
    story.move(alice=CHAIR)
    assert story.run_until_quiet() == set(), "the mailbox of somebody who said no is kept as it is"


def test_a_move_that_is_undone_while_the_list_manager_is_down_leaves_no_trace(tell):
    story = tell()
    member(story)
    with story.down():
        story.move(alice=NEW)
        with pytest.raises(Exception, match="no-such"):
            story.run()
        story.move(alice=ALICE)
    assert story.run_until_quiet() == {ALICE}


# --- several addresses


def test_an_address_that_a_list_sends_to_and_that_is_given_up_hands_the_list_to_the_main_one(tell):
    story = tell()
    story.account("alice", ALICE, NEW)
    story.tick("alice", NEW)
    assert story.run_until_quiet() == {NEW}
    story.give_up("alice", NEW)
    assert story.run_until_quiet() == {ALICE}


def test_an_account_of_two_addresses_that_ends_leaves_the_list_with_both(tell):
    story = tell()
    story.account("alice", ALICE, NEW)
    story.tick("alice", NEW)
    story.run()
    story.at_the_list(ALICE)
    story.run()
    story.delete("alice", erase=True)
    assert story.run_until_quiet() == set()


# --- accounts that end, rest and return


def test_who_was_deactivated_joins_by_hand_and_returns_is_a_member_like_others(tell):
    story = tell()
    member(story)
    story.deactivate("alice")
    assert story.run_until_quiet() == set()
    story.at_the_list(ALICE)
    assert story.run_until_quiet() == {ALICE}, "whoever joins again by hand is not touched again"
    story.activate("alice")
    assert story.run_until_quiet() == {ALICE}
    story.untick("alice")
    assert story.run_until_quiet() == set()


def test_deactivated_and_activated_between_two_runs_nothing_happens(tell):
    story = tell()
    member(story)
    story.deactivate("alice")
    story.activate("alice")
    assert story.run_until_quiet() == {ALICE}


def test_a_new_account_with_a_deleted_ones_address_is_not_subscribed_by_what_that_one_wanted(tell):
    story = tell()
    member(story)
    story.delete("alice")
    assert story.run_until_quiet() == set()
    users.create(
        story.session, username="alice", address=checked(ALICE), now=story.clock(), rounds=4, lists=story.lists
    )
    assert story.run_until_quiet() == set()


def test_an_erased_address_that_joins_by_mail_months_later_is_a_stranger(tell):
    story = tell()
    member(story)
    story.delete("alice", erase=True)
    assert story.run_until_quiet() == set()
    story.clock.advance(days=100)
    story.at_the_list(ALICE)
    assert story.run_until_quiet() == {ALICE}


def test_of_two_accounts_with_one_mailbox_the_last_one_takes_it_off(tell):
    story = tell()
    member(story, "alice", CHAIR)
    story.account("bob", CHAIR)
    story.delete("alice")
    assert story.run_until_quiet() == {CHAIR}
    story.deactivate("bob")
    assert story.run_until_quiet() == set()


def test_who_leaves_the_audience_and_returns_before_the_run_has_not_been_away(tell):
    story = tell('audience = ["hall"]')
    member(story)
    story.put_into("alice")
    story.put_into("alice", "hall")
    assert story.run_until_quiet() == {ALICE}


def test_who_returns_to_the_audience_has_the_list_again_unless_they_left_it_meanwhile(tell):
    story = tell('audience = ["hall"]', 'on_departure = "keep"')
    member(story)
    member(story, "bob", BOB)
    for name in ("alice", "bob"):
        story.put_into(name)
    assert story.run_until_quiet() == {ALICE, BOB}
    story.at_the_list(off=(BOB,))
    assert story.run_until_quiet() == {ALICE}
    for name in ("alice", "bob"):
        story.put_into(name, "hall")
    assert story.run_until_quiet() == {ALICE}
    assert not story.is_ticked("bob")


# --- the list and the portal at the same time


def test_who_unticks_here_and_leaves_and_joins_there_before_the_run_is_off(tell):
    story = tell()
    member(story)
    story.untick("alice")
    story.at_the_list(off=(ALICE,))
    story.at_the_list(ALICE)
    assert story.run_until_quiet() == set()


def test_who_left_at_the_list_and_ticks_twice_before_the_run_has_left(tell):
    story = tell()
    member(story)
    story.at_the_list(off=(ALICE,))
    story.untick("alice")
    story.tick("alice")
    assert story.run_until_quiet() == set()
    story.tick("alice")
    assert story.run_until_quiet() == {ALICE}


def test_who_joins_at_the_list_and_ticks_here_is_on_it_once(tell):
    story = tell()
    story.account("alice", "Alice@Example.org")
    story.run()
    story.at_the_list(ALICE)
    story.tick("alice")
    assert story.run_until_quiet() == {ALICE}
    story.at_the_list(off=(ALICE,))
    assert story.run_until_quiet() == set()
    assert not story.is_ticked("alice")


def test_a_paused_list_takes_note_of_what_happened_meanwhile_when_it_goes_on(tell):
    story = tell()
    member(story)
    member(story, "bob", BOB)
    story.list = replace(story.list, is_paused=True)
    story.at_the_list(off=(ALICE,))
    story.untick("bob")
    with pytest.raises(PausedError):
        story.run()
    assert story.on() == {BOB}
    story.list = replace(story.list, is_paused=False)
    assert story.run_until_quiet() == set()


def test_choices_of_days_without_a_list_manager_are_carried_out_in_one_run(tell):
    story = tell()
    names = [f"user{number}" for number in range(12)]
    for name in names:
        story.account(name, f"{name}@example.org")
    story.run()
    with story.down():
        for name in names:
            story.tick(name)
            with pytest.raises(Exception, match="no-such"):
                story.run()
        for name in names[::2]:
            story.untick(name)
    assert story.run_until_quiet() == {f"{name}@example.org" for name in names[1::2]}


# --- mistakes of administrators


def test_a_roster_that_was_emptied_by_mistake_and_restored_is_as_if_nothing_had_happened(tell):
    story = tell()
    member(story)
    before = story.program.roster(LIST)
    story.program.set_roster(LIST, ())
    with pytest.raises(SafetyLimitError):
        story.run()
    story.program.set_roster(LIST, before)
    assert story.run_until_quiet() == {ALICE}
    assert story.is_ticked("alice")


def test_a_roster_of_another_list_changes_nothing_until_somebody_says_that_it_is_right(tell):
    story = tell()
    member(story)
    before = story.program.roster(LIST)
    story.program.set_roster(LIST, [f"other{number}@example.net" for number in range(8)])
    with pytest.raises(SafetyLimitError):
        story.run()
    assert story.is_ticked("alice")
    story.program.set_roster(LIST, before)
    assert story.run_until_quiet() == {ALICE}


def test_a_subscriber_without_an_account_who_is_taken_off_may_join_again(tell):
    story = tell('on_departure = "keep"')
    story.at_the_list("guest@example.net")
    assert story.run_until_quiet() == {"guest@example.net"}
    story.take_off("guest@example.net")
    assert story.run_until_quiet() == set()
    story.at_the_list("guest@example.net")
    assert story.run_until_quiet() == {"guest@example.net"}


def test_a_member_of_before_whom_their_list_keeps_can_be_taken_off(tell):
    story = tell('on_departure = "keep"')
    member(story)
    story.delete("alice")
    assert story.run_until_quiet() == {ALICE}
    story.take_off(ALICE)
    assert story.run_until_quiet() == set()


def test_an_opt_out_that_a_restored_backup_has_forgotten_is_not_undone(tell):
    story = tell()
    member(story)
    tables = {each: story.session.execute(select(each)).mappings().all() for each in Base.metadata.sorted_tables}
    story.session.rollback()
    story.untick("alice")
    assert story.run_until_quiet() == set()
    with db.engine.begin() as connection:
        for table in reversed(tables):
            connection.execute(delete(table))
        for table, rows in tables.items():
            if rows:
                connection.execute(insert(table), [dict(row) for row in rows])
    mark_restored(story.session, log=None, now=story.clock())
    with pytest.raises(SafetyLimitError) as held:
        story.run()
    story.run(accept=held.value.plan_id)
    assert story.run_until_quiet() == set()
    assert not story.is_ticked("alice")


# --- scripts that stop half way


def test_a_planned_run_of_which_half_was_pushed_is_ours_for_the_next_run(tell):
    story = tell()
    member(story)
    story.account("bob", BOB)
    story.account("charlie", THIRD)
    story.run()
    story.untick("alice")
    story.tick("bob")
    story.tick("charlie")
    lines = [each.encode() for each in sorted(story.program.roster(LIST))]
    begin_planned_run(story.session, story.list, RosterText(lines), clock=story.clock, request=Request())
    story.at_the_list(BOB, off=(ALICE,))
    abandon_planned_run(story.session, story.list, clock=story.clock)
    assert story.run_until_quiet() == {BOB, THIRD}
    assert (story.is_ticked("alice"), story.is_ticked("bob")) == (False, True)


def test_who_changes_their_mind_after_a_script_that_died_is_obeyed(tell):
    story = tell()
    member(story)
    story.account("bob", BOB)
    story.run()
    story.untick("alice")
    story.tick("bob")
    lines = [each.encode() for each in sorted(story.program.roster(LIST))]
    begin_planned_run(story.session, story.list, RosterText(lines), clock=story.clock, request=Request())
    story.at_the_list(BOB, off=(ALICE,))
    abandon_planned_run(story.session, story.list, clock=story.clock)
    story.tick("alice")
    story.untick("bob")
    assert story.run_until_quiet() == {ALICE}


# --- spellings


def test_a_domain_beyond_ascii_comes_and_goes(tell):
    story = tell()
    story.account("anna", "Anna@bücher.example")
    story.tick("anna")
    assert story.run_until_quiet() == {"anna@xn--bcher-kva.example"}
    story.move(anna=ALICE)
    assert story.run_until_quiet() == {ALICE}
    story.move(anna="Anna@bücher.example")
    assert story.run_until_quiet() == {"anna@xn--bcher-kva.example"}
    story.untick("anna")
    assert story.run_until_quiet() == set()


def test_a_change_of_spelling_is_no_change_of_address(tell):
    story = tell()
    member(story)
    story.move(alice="ALICE@Example.ORG")
    assert story.run_until_quiet() == {ALICE}
