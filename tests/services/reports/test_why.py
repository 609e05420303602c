"""Why: the sentences agree with what is stored, and with what the next run then does."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.merge import Action
from portal.domain.plan import Reason
from portal.domain.roster_text import RosterText
from portal.domain.subscriber_options import SubscriberOptions
from portal.extensions import Portal
from portal.models import Address, Preference
from portal.services.accounts import address_changes, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.reports.why import Explanation, explain
from portal.services.sync.planned_runs import begin_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock, Rosters
from tests.factories import make_address, make_preference, make_user
from tests.fakes.memory import OptionsList


class Story:
    """What a test does to one list, and asks of it."""

    def __init__(self, session: Session, portal: Portal, clock: Clock) -> None:
        self.session, self.portal, self.clock = session, portal, clock
        self.lists = portal.catalogue().lists

    def sync(self, handle: str = "members") -> None:
        mailing_list = self.lists[handle]
        manager = self.portal.open_list_manager(mailing_list)
        sync_list(self.session, mailing_list, manager, clock=self.clock, request=Request(allow_empty=True))

    def choose(self, username: str, ticked: bool, handle: str = "members") -> None:
        user_id = profiles.id_of(self.session, username)
        shown, boxes = {handle: not ticked}, {handle} if ticked else set()
        catalogue = self.portal.catalogue()
        preferences.choose(self.session, user_id, shown=shown, ticked=boxes, catalogue=catalogue, now=self.clock())

    def explain(self, address: str = "alice@example.org", handle: str = "members") -> Explanation:
        def moment(at: datetime) -> str:
            return f"{at.astimezone(ZoneInfo('Europe/Dublin')):%Y-%m-%d %H:%M %Z}"

        return explain(self.session, self.lists[handle], address, now=self.clock(), moment=moment, list_name=handle)

    def last(self, address: str = "alice@example.org", handle: str = "members") -> str:
        return self.explain(address, handle).sentences[-1]


@pytest.fixture
def story(session: Session, app: Flask, clock: Clock) -> Story:
    return Story(session, app.extensions["portal"], clock)


def test_an_address_that_nobody_knows_is_said_to_be_unknown(story):
    found = story.explain("nobody@example.net")
    assert not found.is_known
    assert found.sentences[0].startswith("nobody@example.net is not known here")
    assert (found.seen, found.preference, found.holders, found.next_action) == (None, None, (), None)


def test_before_the_first_run_nothing_is_known_but_the_holder(session, story):
    make_user(session, "alice")
    found = story.explain()
    assert found.sentences == (
        "It is not known whether alice@example.org is on members: no run has looked for it yet.",
        "It is held by alice.",
        "Nothing has been chosen for it.",
        "The next run takes over the state at the list: subscribed if it is on the list, otherwise unsubscribed.",
    )
    assert found.next_action is Action.INIT


def test_agreement_is_told_with_its_time_in_the_zone_of_the_portal(session, story, rosters, clock):
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    clock.advance(days=-120)  # summer
    story.sync()
    assert story.explain().sentences == (
        "alice@example.org is on members, as last seen (last good run: 2026-07-25 07:00 IST).",
        "It is held by alice.",
        "Preference: subscribed, taken over from the list, 2026-07-25 07:00 IST.",
        "The next run does nothing: the list agrees with the preference.",
    )


def test_a_choice_is_told_with_who_made_it_and_that_no_run_has_read_it(session, story, rosters):
    make_user(session, "alice")
    make_user(session, "bob", "alice@example.org")
    story.sync()
    story.choose("bob", True)
    found = story.explain()
    assert "It is a shared mailbox, held by alice and bob." in found.sentences
    assert "Preference: subscribed, chosen by bob, 2026-11-22 06:00 GMT." in found.sentences
    assert "No run has read that choice yet." in found.sentences
    assert found.sentences[-1] == "The next run adds it: it should be on the list."
    assert [line.source for line in found.history] == ["user", "init"]


def test_a_choice_made_for_somebody_is_told_with_its_reason(session, story):
    make_user(session, "alice")
    preferences.choose_for(
        session, story.lists["members"], username="alice", is_subscribed=True, actor=COMMAND_LINE,
        now=story.clock(), reason="asked by phone",
    )  # fmt: skip
    told = story.explain().sentences
    when = "2026-11-22 06:00 GMT"
    assert (
        f"Preference: subscribed, chosen for its holder by command line, {when}. Reason given: asked by phone." in told
    )
    assert told[-1] == "The next run adds it, unless it is there already: it should be on the list."


def test_who_left_and_who_joined_at_the_list_is_told_so(session, story, rosters):
    make_user(session, "alice")
    make_user(session, "bob")
    rosters.set("members", "alice@example.org")
    story.sync()
    rosters.set("members", "bob@example.org")
    story.sync()
    assert "because they left at the list" in story.explain().sentences[2]
    assert "because they joined at the list" in story.explain("bob@example.org").sentences[2]


def test_a_refused_address_is_told_with_the_words_and_the_time_of_the_next_try(session, story, clock):
    make_user(session, "alice", "#alice@example.org")
    story.choose("alice", True)
    story.sync()
    found = story.explain("#alice@example.org")
    assert found.held_back
    assert found.sentences[-2:] == (
        "The list manager refused it on 2026-11-22 06:00 GMT: a line that starts with # is a comment.",
        "The next run does not add it before 2026-11-23 06:00 GMT, a day after the last attempt, unless the choice "
        "changes.",
    )
    clock.advance(days=1)
    assert story.last("#alice@example.org") == "The next run adds it: it should be on the list."


def test_an_add_that_waits_is_told_so(session, story):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=False, waiting_since=story.clock())
    assert "The add has been waiting for approval at the list since 2026-11-22 06:00 GMT." in story.explain().sentences


@pytest.mark.parametrize(
    ("push_result", "words"),
    [("confirm", "waiting for the member's confirmation since"), ("undone", "The add had no effect on")],
)
def test_what_did_not_take_is_not_called_refused(session, story, push_result, words):
    make_user(session, "alice")
    make_preference(
        session, "members", "alice@example.org", True, seen=False, waiting_since=story.clock(),
        refusal="words", refused_at=story.clock(), push_result=push_result,
    )  # fmt: skip
    sentences = " ".join(story.explain().sentences)
    assert words in sentences
    assert "refused" not in sentences


def test_a_departure_is_told_before_and_after_it_was_dealt_with(session, story, rosters):
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    story.sync()
    users.deactivate(session, "alice", now=story.clock())
    found = story.explain()
    assert found.sentences[1] == (
        "It is held by alice (inactive): no active user who may see the list, so it is not managed."
    )
    assert (found.next_action, found.next_reason) == (Action.REMOVE, Reason.DEPARTED)
    assert found.sentences[-1] == "The next run removes it: no active user who may see the list holds it any more."
    story.sync()
    assert "there is nothing left to do" in story.last()


def test_a_user_outside_the_audience_is_told_to_be(session, story):
    make_user(session, "alice")
    found = story.explain(handle="board")
    assert "alice (outside the audience)" in found.sentences[1]
    assert found.sentences[-1] == "The next run does nothing: it is not managed, and nothing was chosen."


def test_a_move_is_told_at_both_addresses(session, story, rosters, clock):
    user_id = make_user(session, "alice", "alice@example.org")
    rosters.set("members", "alice@example.org")
    story.sync()
    new = checked("new@example.org")
    address_changes.change(session, user_id, new, actor=COMMAND_LINE, now=clock(), lists=story.lists)
    told = story.explain().sentences
    assert "No account holds it." in told
    assert "Its holder changed to new@example.org." in told
    assert told[-1] == "The next run removes it: its holder changed to new@example.org, after that one was added."
    told = story.explain("new@example.org").sentences
    assert "subscribed, by rule, because an address was changed by command line" in told[2]
    assert told[-1] == "The next run adds it: it should be on the list."


def test_a_removal_waits_for_a_successor_that_was_refused(session, story, clock):
    make_user(session, "alice", "new@example.org")
    new = make_address(session, "new@example.org")
    make_preference(session, "members", "old@example.org", False, source="rule", seen=True, moved_to=new)
    words = {"refusal": "banned", "refused_at": clock()}
    make_preference(session, "members", "new@example.org", True, source="rule", seen=False, **words)
    found = story.explain("old@example.org")
    assert found.held_back
    assert found.sentences[-1] == ("The next run does not remove it yet: new@example.org has to be on the list first.")


def test_a_planned_run_that_is_open_is_told(session, story, clock):
    make_user(session, "alice")
    story.choose("alice", True)
    request = Request(allow_empty=True)
    begin_planned_run(session, story.lists["members"], RosterText([]), clock=clock, request=request)
    told = story.explain().sentences
    assert any(each.startswith("An unfinished run was going to add it") for each in told)
    assert any(each.startswith("The planned run 1 is open") for each in told)


def test_history_outlives_the_address(session, story, rosters, clock):
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    story.sync()
    users.delete(session, "alice", now=story.clock(), erase=False, lists=story.lists)
    clock.advance(hours=91 * 24)
    story.sync()
    assert session.scalars(select(Address)).all() == []
    session.rollback()
    found = story.explain()
    assert not found.is_known
    assert [line.source for line in found.history] == ["init"]


def test_an_add_that_was_put_off_since_mail_was_switched_off_before_is_explained(session, story):
    make_user(session, "bob")
    user_id = make_user(session, "alice")
    for name in ("alice", "bob"):
        make_preference(session, "members", f"{name}@example.org", True, seen=True)
    listed = OptionsList(chosen={"alice@example.org": SubscriberOptions("no mail", is_mail_off=True)})
    for name in ("alice", "bob"):
        listed.join(f"{name}@example.org")
    new = checked("alice@new.example.org")
    address_changes.change(session, user_id, new, actor=COMMAND_LINE, now=story.clock(), lists=story.lists)
    assert story.last("alice@new.example.org").startswith("The next run adds it")
    sync_list(session, story.lists["members"], listed, clock=story.clock, request=Request())
    assert "mail was switched off at the holder's old address" in story.last("alice@new.example.org")
    listed.chosen.clear()
    sync_list(session, story.lists["members"], listed, clock=story.clock, request=Request())
    assert "mail was switched off" not in story.last("alice@new.example.org")


@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("seen", [True, False, None])
@pytest.mark.parametrize("touched", [True, False])
@pytest.mark.parametrize("is_active", [True, False])
def test_the_next_run_does_what_was_said(session, story, rosters: Rosters, clock, subscribed, seen, touched, is_active):
    make_user(session, "alice", is_active=is_active)
    make_preference(session, "members", "alice@example.org", subscribed, seen=seen, touched=touched)
    rosters.set("members", *(["alice@example.org"] if seen else []))
    said = story.explain().next_action
    manager = story.portal.open_list_manager(story.lists["members"])
    sync_result = sync_list(session, story.lists["members"], manager, clock=clock, request=Request(allow_empty=True))
    assert {each.row.canonical: each.action for each in sync_result.plan.decisions}.get(
        "alice@example.org", Action.NOTHING
    ) is said


def test_explaining_writes_nothing(session, story):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=False)
    before = session.execute(select(Preference.__table__)).all()
    session.rollback()
    story.explain()
    assert not session.in_transaction()
    assert session.execute(select(Preference.__table__)).all() == before
