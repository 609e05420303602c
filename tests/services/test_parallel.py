"""Members save while bulk work goes on: none fails, none is lost. SECURITY 28."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier, Event, get_ident

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import SafetyLimits
from portal.domain.roster_text import RosterText
from portal.extensions import db
from portal.models import Address, History, Preference, Run, User, UserAddress
from portal.services.preferences import preferences
from portal.services.sync.list_init import list_init
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.factories import NOW, make_preference, make_user
from tests.fakes.memory import MemoryList
from tests.listening import listening
from tests.waiting import wait_until

MANY = 100_000
SAVES = 50


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


def make_many(session, count):
    """Make accounts with an address each, in a few statements; the first of them are ids 1, 2 and so on."""
    numbers = range(1, count + 1)
    session.execute(
        insert(User.__table__),
        [
            {
                "id": number, "username": f"u{number}", "username_key": f"u{number}", "name": "", "password_hash": "!",
                "is_superuser": False, "is_active": True, "created_at": NOW,
            }
            for number in numbers
        ],
    )  # fmt: skip
    session.execute(
        insert(Address.__table__),
        [
            {"id": number, "canonical": mailbox(number), "spelling": mailbox(number), "erase": False}
            for number in numbers
        ],
    )
    session.execute(
        insert(UserAddress.__table__),
        [{"address_id": number, "user_id": number, "is_main": True} for number in numbers],
    )
    session.commit()


def mailbox(number):
    return f"u{number}@example.org"


def saver(app, catalogue, chunks):
    """Return what saves a member's form in a thread of its own: a tick, once so many chunks of the bulk work are done."""

    def save(user_id, after):
        with app.app_context(), Session(db.engine) as own:
            wait_until(lambda: len(chunks) >= after)
            return preferences.choose(
                own, user_id, shown={"members": False}, ticked={"members"}, catalogue=catalogue, now=NOW
            )

    return save


@pytest.mark.slow
def test_50_saves_during_a_list_init_of_100_000_addresses_none_fails_and_none_is_lost(app, session, catalogue, clock):
    make_many(session, MANY)
    lines = [mailbox(number).encode() for number in range(2, MANY + 1, 2)]
    chunks = []

    def init():
        thread = get_ident()

        def committed(connection):
            if get_ident() == thread:
                chunks.append(connection)

        with app.app_context(), Session(db.engine) as own, listening(db.engine, "commit", committed):
            return list_init(own, catalogue.get("members"), RosterText(lines), now=clock())

    members = [1 + number * (MANY // SAVES) for number in range(SAVES)]  # none of them on the roster
    with ThreadPoolExecutor(SAVES + 1) as pool:
        counts = pool.submit(init)
        choices = list(pool.map(saver(app, catalogue, chunks), members, (number // 10 for number in range(SAVES))))
    assert all(choice.is_changed for (choice,) in choices)
    chosen = set(session.scalars(select(Preference.address_id).where(Preference.subscribed, Preference.touched)))
    assert chosen == set(members)
    assert session.scalar(select(func.count()).select_from(Preference)) == MANY
    told = session.execute(select(History.source, func.count()).group_by(History.source)).all()
    by_source = dict(told)
    assert by_source["user"] == SAVES
    found = counts.result()
    assert found.subscribed == MANY // 2
    # Whoever was counted as a first preference and chose meanwhile has the line of the choice alone, or both.
    assert MANY - SAVES <= by_source["init"] <= found.subscribed + found.unsubscribed


def test_choices_during_a_sync_are_made_at_once_and_carried_out_by_the_next(app, session, catalogue, clock):
    """In the middle of the push many members change their minds, about what is pushed and about what is not."""
    members = replace(catalogue.get("members"), safety_limits=SafetyLimits(removals=100))
    users = [make_user(session, f"u{number}") for number in range(20)]
    for number in range(20):
        make_preference(session, "members", mailbox(number), number % 2 == 0, seen=number % 4 >= 2)
    manager = MemoryList(batch=50)
    for number in range(20):
        if number % 4 >= 2:
            manager.join(mailbox(number))
    barrier = Barrier(20)

    def toggle(number):
        with app.app_context(), Session(db.engine) as own:
            is_ticked = number % 2 == 0
            barrier.wait(10)
            (choice,) = preferences.choose(
                own,
                users[number],
                shown={"members": is_ticked},
                ticked=set() if is_ticked else {"members"},
                catalogue=catalogue,
                now=clock(),
            )
            return choice.is_changed

    done = []

    def all_at_once(moment):
        if moment == "after add" and not done:
            with ThreadPoolExecutor(20) as pool:
                done.extend(pool.map(toggle, range(20)))

    manager.watcher = all_at_once
    sync_list(session, members, manager, clock=clock, request=Request())
    manager.watcher = lambda _moment: None
    assert done == [True] * 20
    wanted = {mailbox(number) for number in range(20) if number % 2}
    for _run in range(2):
        sync_list(session, members, manager, clock=clock, request=Request())
        assert set(manager.members) == wanted
    assert session.scalar(select(func.count()).select_from(History).where(History.source == "user")) == 20
    assert session.scalar(select(func.count()).select_from(History)) == 20


@pytest.mark.slow
def test_members_who_change_their_minds_again_and_again_and_syncs_get_along(app, session, catalogue, clock):
    members = catalogue.get("members")
    users = [make_user(session, f"u{number}") for number in range(4)]
    manager = MemoryList(batch=50)
    over = Event()

    def toggle_on_and_on(user_id):
        ticked = False
        saved = 0
        with app.app_context(), Session(db.engine) as own:
            while not over.is_set() or saved % 2:
                preferences.choose(
                    own, user_id,
                    shown={"members": ticked}, ticked=set() if ticked else {"members"},
                    catalogue=catalogue, now=clock(),
                )  # fmt: skip
                ticked = not ticked
                saved += 1
                over.wait(0.01)  # a pause for the others, cut short at the end
        return saved

    with ThreadPoolExecutor(4) as pool:
        savers = [pool.submit(toggle_on_and_on, user_id) for user_id in users]
        for _run in range(8):
            sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True))
        over.set()
        assert all(each.result() > 0 for each in savers)
    sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True))
    assert set(manager.members) == set(), "all of them ended unticked"
    assert set(session.scalars(select(Run.state))) == {"done"}
    session.rollback()
    for user_id in users:
        found = session.scalars(
            select(History.subscribed).where(History.actor_id == user_id, History.source == "user").order_by(History.id)
        ).all()
        assert found == [number % 2 == 0 for number in range(len(found))]
