"""What a member is shown, and what a tick does: SEMANTICS, "A subscription belongs to a mailbox"."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from threading import Barrier

import pytest
from sqlalchemy import event, select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.outlook import State
from portal.errors import BadInputError, DisabledError, NotOfferedError, UnknownUserError
from portal.extensions import db
from portal.models import Address, History, Preference, UserAddress
from portal.services.history import Actor
from portal.services.preferences import preferences
from tests.factories import NOW, make_address, make_preference, make_user

BOARD = ("board",)
CLERK = Actor(99, "clerk")


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def open_page(session, catalogue, clock):
    def load(user_id):
        return preferences.page(session, user_id, catalogue=catalogue, now=clock())

    return load


@pytest.fixture
def offer(open_page):
    def load(user_id, handle="members"):
        return next(each for each in open_page(user_id).offers if each.mailing_list.handle == handle)

    return load


@pytest.fixture
def save(session, catalogue, clock):
    """Save a form that had shown some boxes, ticked or not."""

    def post(user_id, shown, ticked=(), **values):
        return preferences.choose(
            session, user_id, shown=shown, ticked=ticked, catalogue=catalogue, now=clock(), **values
        )

    return post


@pytest.fixture
def tick(save):
    def post(user_id, handle="members", **values):
        return save(user_id, {handle: False}, {handle}, **values)

    return post


@pytest.fixture
def untick(save):
    def post(user_id, handle="members", **values):
        return save(user_id, {handle: True}, **values)

    return post


@pytest.fixture
def stored(session):
    """What is wanted for each address, by its local part."""

    def load(handle="members"):
        rows = session.execute(
            select(Address.canonical, Preference.subscribed)
            .join(Preference, Preference.address_id == Address.id)
            .where(Preference.list_handle == handle)
        ).all()
        session.rollback()
        return {canonical.partition("@")[0]: subscribed for canonical, subscribed in rows}

    return load


@pytest.fixture
def row(session):
    def load(spelling="alice@example.org", handle="members"):
        found = session.scalars(
            select(Preference)
            .join(Address, Address.id == Preference.address_id)
            .where(Address.canonical == spelling, Preference.list_handle == handle)
            .execution_options(populate_existing=True)
        ).one()
        session.expunge(found)
        session.rollback()
        return found

    return load


@pytest.fixture
def history(session):
    def load():
        lines = session.execute(
            select(History.list_handle, History.address, History.subscribed, History.source, History.actor).order_by(
                History.id
            )
        ).all()
        session.rollback()
        return [tuple(line) for line in lines]

    return load


@contextmanager
def statements():
    """The statements that are sent meanwhile, but for the beginning of a transaction."""
    sent = []

    def note(_connection, _cursor, statement, *_rest):
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


def id_of(session, spelling):
    address_id = make_address(session, spelling)
    session.commit()
    return address_id


# Only the boxes that the person changed.


def test_only_a_difference_from_what_was_shown_is_a_choice(session, save, stored):
    alice = make_user(session, "alice")
    choices = save(alice, {"members": False, "tech": False}, {"members"})
    assert [(each.handle, each.is_ticked, each.is_changed) for each in choices] == [("members", True, True)]
    assert (stored("members"), stored("tech")) == ({"alice": True}, {})


def test_an_unticked_box_where_nothing_was_ever_chosen_stays_no_preference(session, save, stored, history):
    alice = make_user(session, "alice")
    assert save(alice, {"members": False, "tech": False}) == ()
    assert (stored("members"), history()) == ({}, [])


def test_a_box_that_went_stale_in_another_tab_is_left_as_it_is(session, tick, save, stored):
    alice = make_user(session, "alice")
    tick(alice)  # in one tab; the other still shows an empty box
    save(alice, {"members": False, "tech": False}, {"tech"})
    assert (stored("members"), stored("tech")) == ({"alice": True}, {"alice": True})


def test_a_list_that_was_not_shown_is_left_as_it_is_whatever_is_ticked(session, save, stored):
    alice = make_user(session, "alice")
    make_preference(session, "tech", "alice@example.org", True)
    save(alice, {"members": False}, {"members", "board"})
    assert (stored("members"), stored("tech"), stored("board")) == ({"alice": True}, {"alice": True}, {})


def test_choosing_what_already_holds_is_no_change(session, tick, row, history):
    alice = make_user(session, "alice")
    tick(alice)
    before, lines = row(), history()
    (choice,) = tick(alice)  # in another tab, which did not know
    after = row()
    assert (choice.is_ticked, choice.is_changed) == (True, False)
    assert (after.version, after.changed_at, history()) == (before.version, before.changed_at, lines)


def test_a_choice_that_changes_nothing_leaves_a_refusal_as_it_is(session, tick, row):
    alice = make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, refusal="banned", refused_at=NOW)
    tick(alice)
    assert row().refusal == "banned"


def test_a_choice_raises_the_version_and_is_touched_until_a_good_run(session, tick, untick, row):
    alice = make_user(session, "alice")
    tick(alice)
    first = row()
    untick(alice)
    second = row()
    assert (first.touched, second.touched) == (True, True)
    assert second.version > first.version


def test_a_choice_forgets_a_refusal_and_a_move_but_not_what_was_seen_or_waits(session, untick, row):
    alice = make_user(session, "alice")
    make_preference(
        session, "members", "alice@example.org", True,
        seen=True, waiting_since=NOW, refusal="banned", refused_at=NOW,
        moved_from=make_address(session, "elsewhere@example.org"),
    )  # fmt: skip
    untick(alice)
    after = row()
    assert (after.refusal, after.refused_at, after.moved_from) == (None, None, None)
    assert (after.seen, after.waiting_since) == (True, NOW)


def test_a_preference_carries_its_source_its_time_and_who_set_it(session, catalogue, tick, row, clock):
    alice = make_user(session, "alice")
    tick(alice)
    own = row()
    assert (own.source, own.changed_by, own.changed_at) == ("user", alice, clock())
    clock.advance(hours=1)
    preferences.choose_for(
        session, catalogue.get("members"), username="ALICE", is_subscribed=False, actor=CLERK, now=clock()
    )
    theirs = row()
    assert (theirs.source, theirs.changed_by, theirs.changed_at) == ("superuser", 99, clock())


# History.


def test_each_change_writes_one_line_of_history(session, tick, untick, history):
    alice = make_user(session, "alice")
    tick(alice)
    untick(alice)
    assert history() == [
        ("members", "alice@example.org", True, "user", "alice"),
        ("members", "alice@example.org", False, "user", "alice"),
    ]


def test_a_superusers_choice_is_told_with_its_reason(session, catalogue):
    make_user(session, "alice")
    preferences.choose_for(
        session, catalogue.get("members"),
        username="alice", is_subscribed=True, actor=CLERK, now=NOW, reason="asked by telephone",
    )  # fmt: skip
    line = session.scalars(select(History)).one()
    assert (line.actor, line.actor_id, line.reason, line.source) == ("clerk", 99, "asked by telephone", "superuser")


def test_a_failure_after_the_preference_was_written_leaves_neither_it_nor_its_history(session, tick, stored, history):
    alice = make_user(session, "alice")

    def fail(_connection, _cursor, statement, *_rest):
        if statement.startswith("INSERT INTO history"):
            raise RuntimeError("the disk is full")

    event.listen(db.engine, "before_cursor_execute", fail)
    try:
        with pytest.raises(RuntimeError, match="the disk is full"):
            tick(alice)
    finally:
        event.remove(db.engine, "before_cursor_execute", fail)
    assert (stored(), history()) == ({}, [])


def test_a_failure_at_the_commit_leaves_neither_preference_nor_history(session, tick, stored, history):
    alice = make_user(session, "alice")

    def fail(_session):
        raise RuntimeError("gone")

    event.listen(session, "before_commit", fail)
    try:
        with pytest.raises(RuntimeError, match="gone"):
            tick(alice)
    finally:
        event.remove(session, "before_commit", fail)
    assert (stored(), history()) == ({}, [])


# A mailbox that several accounts hold.


def test_two_accounts_with_one_mailbox_show_and_change_the_same_preference(session, tick, untick, offer, stored):
    alice = make_user(session, "alice")
    charlie = make_user(session, "charlie", "Alice@Example.org")
    tick(alice)
    assert offer(charlie).is_ticked
    untick(charlie)
    assert not offer(alice).is_ticked
    assert stored() == {"alice": False}


def test_the_page_says_that_an_address_is_shared_and_what_another_holder_did(session, tick, open_page, offer):
    alice = make_user(session, "alice", "alice@example.org", "own@example.org")
    charlie = make_user(session, "charlie", "alice@example.org")
    tick(charlie)
    assert [(each.spelling, each.is_shared) for each in open_page(alice).addresses] == [
        ("alice@example.org", True),
        ("own@example.org", False),
    ]
    assert offer(alice).detail.by_other
    assert not offer(charlie).detail.by_other


@pytest.mark.parametrize("source", ["superuser", "init", "list", "rule", "import"])
def test_only_what_another_user_chose_was_done_by_another_holder(session, offer, source):
    alice = make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=True, source=source, changed_by=99)
    assert not offer(alice).detail.by_other


# Several addresses.


def test_a_tick_subscribes_the_main_address_and_unsubscribes_the_others(session, tick, stored):
    dora = make_user(session, "dora", "main@example.org", "other@example.org", "third@example.org")
    make_preference(session, "members", "other@example.org", True)
    tick(dora)
    assert stored() == {"main": True, "other": False, "third": False}


def test_a_tick_subscribes_the_address_that_was_chosen(session, tick, offer, stored):
    dora = make_user(session, "dora", "main@example.org", "other@example.org")
    tick(dora, addresses={"members": id_of(session, "other@example.org")})
    assert stored() == {"main": False, "other": True}
    assert (offer(dora).is_ticked, offer(dora).address) == (True, "other@example.org")


@pytest.fixture
def moved(session, save):
    """Save a form that had shown a list sent to one address, with another chosen for it."""

    def post(user_id, was, then):
        ids = {each: id_of(session, f"{each}@example.org") for each in (was, then)}
        (choice,) = save(user_id, {"members": ids[was]}, {"members"}, addresses={"members": ids[then]}) or (None,)
        return choice

    return post


def test_a_list_moves_to_another_address_in_one_save(session, moved, stored, offer):
    dora = make_user(session, "dora", "main@example.org", "other@example.org")
    make_preference(session, "members", "main@example.org", True)
    choice = moved(dora, "main", "other")
    assert (choice.is_changed, choice.moved_to) == (True, "other@example.org")
    assert stored() == {"main": False, "other": True}
    assert offer(dora).address_id == id_of(session, "other@example.org")
    assert moved(dora, "other", "other") is None


def test_a_list_that_somebody_else_moved_or_left_meanwhile_is_not_moved(session, moved, stored):
    dora = make_user(session, "dora", "main@example.org", "other@example.org", "third@example.org")
    make_preference(session, "members", "main@example.org", False)
    assert moved(dora, "main", "other").is_stale
    assert stored() == {"main": False}
    make_preference(session, "members", "third@example.org", True)
    choice = moved(dora, "main", "other")
    assert (choice.is_stale, choice.is_changed) == (True, False)
    assert stored() == {"main": False, "third": True}
    assert not moved(dora, "main", "third").is_stale


def test_a_tick_leaves_another_address_that_somebody_else_holds_too(session, tick, stored):
    dora = make_user(session, "dora", "main@example.org", "shared@example.org")
    make_user(session, "bob", "shared@example.org")
    make_preference(session, "members", "shared@example.org", True)
    tick(dora)
    assert stored() == {"main": True, "shared": True}


def test_a_tick_subscribes_a_shared_address_where_it_is_the_chosen_one(session, tick, stored):
    dora = make_user(session, "dora", "main@example.org", "shared@example.org")
    make_user(session, "bob", "shared@example.org")
    tick(dora, addresses={"members": id_of(session, "shared@example.org")})
    assert stored() == {"main": False, "shared": True}


def test_an_untick_ends_the_addresses_that_the_person_alone_holds_and_then_a_shared_one(session, untick, offer, stored):
    dora = make_user(session, "dora", "main@example.org", "other@example.org", "shared@example.org")
    make_user(session, "bob", "shared@example.org")
    make_preference(session, "members", "other@example.org", True)
    make_preference(session, "members", "shared@example.org", True)
    untick(dora)
    assert stored() == {"main": False, "other": False, "shared": True}
    assert offer(dora).is_ticked
    untick(dora)
    assert stored() == {"main": False, "other": False, "shared": False}
    assert not offer(dora).is_ticked


def test_an_untick_that_comes_with_a_tick_elsewhere_is_no_choice(session, tick, row):
    dora = make_user(session, "dora", "main@example.org", "other@example.org")
    make_preference(session, "members", "main@example.org", True, seen=True, touched=True)
    tick(dora, addresses={"members": id_of(session, "other@example.org")})
    assert (row("main@example.org").source, row("main@example.org").touched) == ("rule", True)
    assert (row("other@example.org").source, row("other@example.org").touched) == ("user", True)


def test_a_mailbox_that_a_deactivated_account_holds_too_is_not_shared(session, tick, stored, open_page):
    dora = make_user(session, "dora", "main@example.org", "other@example.org")
    make_user(session, "bob", "other@example.org", is_active=False)
    make_preference(session, "members", "other@example.org", True)
    tick(dora)
    assert stored() == {"main": True, "other": False}
    assert not any(each.is_shared for each in open_page(dora).addresses)


def test_the_box_is_ticked_when_any_address_is_subscribed(session, offer):
    dora = make_user(session, "dora", "main@example.org", "other@example.org")
    make_preference(session, "members", "main@example.org", False, seen=False)
    make_preference(session, "members", "other@example.org", True, seen=True)
    assert (offer(dora).is_ticked, offer(dora).state) == (True, State.SUBSCRIBED)


def test_an_address_of_somebody_else_is_refused_and_nothing_is_saved(session, tick, stored):
    alice = make_user(session, "alice")
    make_user(session, "bob")
    with pytest.raises(BadInputError, match="not one of your addresses"):
        tick(alice, addresses={"members": id_of(session, "bob@example.org")})
    assert stored() == {}


def test_somebody_without_an_address_is_told_so(session, tick, catalogue):
    alice = make_user(session, "alice")
    session.execute(UserAddress.__table__.delete())
    session.commit()
    with pytest.raises(BadInputError, match="no address"):
        tick(alice)
    with pytest.raises(BadInputError, match="no address"):
        preferences.choose_for(
            session, catalogue.get("members"), username="alice", is_subscribed=True, actor=CLERK, now=NOW
        )


# Who may choose what.


def test_a_list_outside_the_audience_is_neither_shown_nor_changed(session, tick, open_page, stored):
    alice = make_user(session, "alice")
    assert [each.mailing_list.handle for each in open_page(alice).offers] == ["members", "tech"]
    assert tick(alice, "board") == ()
    assert stored("board") == {}


def test_a_list_for_a_group_is_offered_to_the_group(session, tick, open_page, stored):
    dora = make_user(session, "dora", groups=("choir", *BOARD))
    assert [each.mailing_list.handle for each in open_page(dora).offers] == ["members", "tech", "board"]
    tick(dora, "board")
    assert stored("board") == {"dora": True}


def test_unknown_handles_are_passed_over(session, save, stored):
    alice = make_user(session, "alice")
    choices = save(alice, {"members": False, "gone": False, "": True}, {"members", "gone", "'; --"})
    assert [each.handle for each in choices] == ["members"]
    assert stored() == {"alice": True}


def test_a_facility_that_is_not_enabled_saves_nothing(session, stored):
    alice = make_user(session, "alice")
    with pytest.raises(DisabledError):
        preferences.choose(
            session, alice,
            shown={"members": False}, ticked={"members"}, catalogue=Catalogue(False, 12, {}, {}), now=NOW,
        )  # fmt: skip
    assert stored() == {}


def test_there_is_no_page_and_no_choice_for_nobody(open_page, tick):
    with pytest.raises(UnknownUserError):
        open_page(4711)
    with pytest.raises(UnknownUserError):
        tick(4711)


@pytest.mark.parametrize(
    ("username", "handle", "error"),
    [
        ("nobody", "members", UnknownUserError),
        ("al\x00ice", "members", UnknownUserError),
        ("bob", "members", NotOfferedError),  # inactive
        ("alice", "board", NotOfferedError),  # outside the audience
    ],
)
def test_nothing_is_chosen_for_somebody_who_may_not(session, catalogue, stored, username, handle, error):
    make_user(session, "alice")
    make_user(session, "bob", is_active=False)
    with pytest.raises(error):
        preferences.choose_for(
            session, catalogue.get(handle), username=username, is_subscribed=True, actor=CLERK, now=NOW
        )
    assert stored(handle) == {}


def test_a_reason_of_two_lines_is_refused(session, catalogue, stored):
    make_user(session, "alice")
    with pytest.raises(BadInputError, match="one line"):
        preferences.choose_for(
            session, catalogue.get("members"),
            username="alice", is_subscribed=True, actor=CLERK, now=NOW, reason="one\ntwo",
        )  # fmt: skip
    assert stored() == {}


def test_what_a_page_shows_for_a_list_without_a_preference(session, offer):
    alice = make_user(session, "alice")
    assert (offer(alice).is_ticked, offer(alice).state) == (False, State.NOT_CHOSEN)


def test_a_page_says_by_when_the_next_run_is_due(session, tick, offer, clock):
    alice = make_user(session, "alice")
    tick(alice)
    chosen = clock()
    assert offer(alice).detail.at == chosen + timedelta(hours=12)
    clock.advance(hours=12)
    assert offer(alice).detail.kind == "add_by"
    clock.advance(seconds=1)
    assert offer(alice).detail.kind == "add_overdue"


# What it costs.


def test_a_page_is_one_statement(session, open_page):
    dora = make_user(session, "dora", "main@example.org", "other@example.org", groups=BOARD)
    make_preference(session, "members", "other@example.org", True)
    with statements() as sent:
        open_page(dora)
    assert len(sent) == 1


def test_a_save_is_at_most_four_statements_however_many_boxes_and_addresses(session, save):
    dora = make_user(session, "dora", "a@example.org", "b@example.org", "c@example.org", groups=BOARD)
    with statements() as sent:
        save(dora, dict.fromkeys(["members", "tech", "board"], False), {"members", "tech", "board"})
    assert len(sent) == 4  # it locks the account, reads, writes, and tells the history


def test_a_save_without_a_change_asks_the_database_nothing(session, save):
    alice = make_user(session, "alice")
    with statements() as sent:
        save(alice, {"members": True, "tech": False}, {"members"})
    assert sent == []


# Two saves at once.


def at_once(app, *jobs):
    """Do jobs at the same time, each with a session of its own; they meet after each has begun."""
    barrier = Barrier(len(jobs))

    def work(job):
        with app.app_context(), Session(db.engine) as own:
            own.connection()  # connected, and with nothing begun that writes
            own.rollback()
            barrier.wait(10)
            return job(own)

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(work, jobs))


def saving(catalogue, user_id, shown, ticked):
    def job(own):
        return preferences.choose(own, user_id, shown=shown, ticked=ticked, catalogue=catalogue, now=NOW)

    return job


def test_two_saves_of_one_shared_mailbox_at_once_are_one_change(app, session, catalogue, history):
    alice = make_user(session, "alice")
    charlie = make_user(session, "charlie", "alice@example.org")
    for number in range(10):
        was_ticked = bool(number % 2)
        ticked = set() if was_ticked else {"members"}
        found = at_once(app, *(saving(catalogue, each, {"members": was_ticked}, ticked) for each in (alice, charlie)))
        assert sorted(choice.is_changed for (choice,) in found) == [False, True]
        assert len(history()) == number + 1


def test_saves_that_cross_over_two_shared_mailboxes_never_lock_each_other_out(app, session, catalogue, stored):
    alice = make_user(session, "alice", "x@example.org", "y@example.org")
    charlie = make_user(session, "charlie", "y@example.org", "x@example.org")
    for _round in range(10):
        for spelling in ("x@example.org", "y@example.org"):
            session.execute(Preference.__table__.delete().where(Preference.address_id == id_of(session, spelling)))
            session.commit()
            make_preference(session, "members", spelling, True)
            make_preference(session, "tech", spelling, True)
        shown = {"members": True, "tech": True}
        backwards = dict(reversed(shown.items()))
        for _untick in range(2):  # of two that are shared, each ends one at a time
            at_once(app, saving(catalogue, alice, shown, set()), saving(catalogue, charlie, backwards, set()))
        assert stored("members") == stored("tech") == {"x": False, "y": False}
