"""list-init by its rules: SEMANTICS, "list-init"."""

from dataclasses import astuple

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.roster_text import RosterText
from portal.errors import LeaseHeldError, NoAddressesError, RosterInDoubtError, SafetyLimitError, UnreadableRosterError
from portal.extensions import db
from portal.models import Address, Base, History, Lease, Preference
from portal.services.accounts import address_changes
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE
from portal.services.preferences import preferences
from portal.services.sync import leases, wanted
from portal.services.sync.list_init import list_init
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.factories import NOW, make_address, make_preference, make_user
from tests.fakes.memory import MemoryList

ALICE, BOB, CHARLIE, DORA = (f"{name}@example.org" for name in ("alice", "bob", "charlie", "dora"))


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def members(catalogue) -> MailingList:
    return catalogue.get("members")


@pytest.fixture
def init(session, members, clock):
    """Feed lines to list-init; return its counts: subscribed, unsubscribed, kept, unknown, invalid."""

    def feed(*lines, mailing_list=members, skip_invalid=False, **options):
        raw = (line if isinstance(line, bytes) else f"{line}\n".encode() for line in lines)
        return astuple(
            list_init(session, mailing_list, RosterText(raw, skip_invalid=skip_invalid), now=clock(), **options)
        )

    return feed


@pytest.fixture
def rows(session):
    """Wanted, seen and source by address."""

    def load(handle="members"):
        found = session.execute(
            select(Address.canonical, Preference.subscribed, Preference.seen, Preference.source)
            .join(Preference, Preference.address_id == Address.id)
            .where(Preference.list_handle == handle)
        ).all()
        session.rollback()
        return {each[0]: tuple(each[1:]) for each in found}

    return load


@pytest.fixture
def exported(session, members):
    """What get-unsubscribed prints."""
    return lambda: [each for block in wanted.unsubscribed(session, members) for each in block]


def dump(session):
    rows = {table.name: session.execute(select(table)).all() for table in Base.metadata.sorted_tables}
    session.rollback()
    return {name: sorted(map(repr, found)) for name, found in rows.items()}


def test_every_managed_address_without_a_preference_gets_what_the_roster_says(session, init, rows):
    make_user(session, "alice")
    make_user(session, "bob", "Bob@Example.org", "bob2@example.org")
    make_user(session, "charlie", is_active=False)
    assert init("ALICE@example.org", "bob2@example.org", CHARLIE) == (2, 1, 0, 0, 0)
    assert rows() == {
        ALICE: (True, True, "init"),
        BOB: (False, False, "init"),
        "bob2@example.org": (True, True, "init"),
    }


def test_only_the_audience_is_managed(session, catalogue, init, rows):
    make_user(session, "alice", groups=("board",))
    make_user(session, "bob")
    assert init(ALICE, BOB, mailing_list=catalogue.get("board")) == (1, 0, 0, 0, 0)
    assert rows("board") == {ALICE: (True, True, "init")}


def test_each_first_preference_is_told_in_history_once(session, init, clock):
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", BOB, False)
    init(ALICE)
    line = session.scalars(select(History)).one()
    assert (line.address, line.subscribed, line.source, line.actor, line.at) == (ALICE, True, "init", "", clock())


# Rule 1.


@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("source", ["user", "superuser", "init", "list", "rule", "import"])
@pytest.mark.parametrize("on_roster", [True, False])
def test_a_preference_that_exists_is_never_changed(session, init, rows, subscribed, source, on_roster):
    make_user(session, "alice")
    make_preference(session, "members", ALICE, subscribed, source=source, version=4)
    assert init(ALICE if on_roster else DORA) == (0, 0, 1, int(not on_roster), 0)
    (after,) = rows().values()
    assert (after[0], after[2]) == (subscribed, source)
    assert session.scalar(select(Preference.version)) == 4
    assert session.scalar(select(History.id)) is None


# Rule 2.


def test_addresses_that_no_user_holds_are_counted_as_unknown_and_left_alone(session, init, rows):
    make_user(session, "alice")
    make_address(session, "former@example.org")
    session.commit()
    assert init("stranger@example.net", "Stranger@Example.net", "former@example.org") == (0, 1, 0, 2, 0)
    assert rows() == {ALICE: (False, False, "init")}


# Rule 3.


@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("seen", [None, True, False])
def test_seen_is_brought_up_to_date_where_preference_and_roster_agree(session, init, rows, subscribed, seen):
    make_user(session, "alice")
    make_preference(session, "members", ALICE, subscribed, seen=seen, touched=True)
    init(ALICE if subscribed else DORA)
    assert rows() == {ALICE: (subscribed, subscribed, "user")}
    assert session.scalar(select(Preference.touched)) is True


@pytest.mark.parametrize("subscribed", [True, False])
@pytest.mark.parametrize("seen", [None, True, False])
def test_seen_stays_where_they_differ(session, init, rows, subscribed, seen):
    make_user(session, "alice")
    make_preference(session, "members", ALICE, subscribed, seen=seen)
    init(DORA if subscribed else ALICE)
    assert rows() == {ALICE: (subscribed, seen, "user")}


def test_seen_is_brought_up_to_date_for_the_departed_too(session, init, exported):
    """Where pipes do the work, nothing else would ever tell get-unsubscribed that they are on the list."""
    make_user(session, "alice", is_active=False)
    make_preference(session, "members", ALICE, True)
    assert exported() == []
    init(ALICE)
    assert exported() == [ALICE]


# Rule 4.


def test_dirty_input_is_read_to_its_end(session, init, rows):
    for name in ("alice", "bob", "charlie", "dora"):
        make_user(session, name)
    lines = [
        b"\xef\xbb\xbfalice@example.org\r\n",
        b"\r\n",
        b"   \n",
        b"# bob@example.org\n",
        b'"Charlie, the Third" <CHARLIE@example.org>\r\n',
        b"\xff\xfe@\x00\n",
        b"not an address\n",
        b"bob@\n",
        b"a" * 300 + b"@example.org\n",
        b"alice@example.org\n",
        b"DORA@EXAMPLE.ORG",
    ]
    with pytest.raises(UnreadableRosterError, match="4 lines of the input"):
        init(*lines)
    assert rows() == {}
    assert init(*lines, skip_invalid=True) == (3, 1, 0, 0, 4)
    assert {address: each[0] for address, each in rows().items()} == {
        ALICE: True, BOB: False, CHARLIE: True, DORA: True,
    }  # fmt: skip


# Rules 5 and 6.


@pytest.mark.parametrize("lines", [(), ("",), ("# nobody",)])
def test_input_without_an_address_is_refused_and_nothing_changed(session, init, rows, lines):
    make_user(session, "alice")
    with pytest.raises(NoAddressesError):
        init(*lines)
    assert rows() == {}
    assert session.scalars(select(Lease)).all() == []


def test_an_announced_empty_roster_is_taken(session, init, rows):
    make_user(session, "alice")
    assert init("# nobody yet", allow_empty=True) == (0, 1, 0, 0, 0)
    assert rows() == {ALICE: (False, False, "init")}


def test_input_of_nothing_but_rubbish_is_refused_even_when_announced(session, init, rows):
    make_user(session, "alice")
    with pytest.raises(NoAddressesError, match="only 2 lines"):
        init("rubbish", "more", allow_empty=True, skip_invalid=True)
    assert rows() == {}


def test_an_announced_empty_roster_is_in_doubt_where_subscribed_addresses_were_on_it(session, init, rows):
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", ALICE, True, seen=True)
    with pytest.raises(RosterInDoubtError, match="1 subscribed"):
        init(allow_empty=True)
    assert rows() == {ALICE: (True, True, "user")}
    session.execute(update(Preference).values(seen=False))
    session.commit()
    init(allow_empty=True)
    assert BOB in rows()


# Rule 6.


def test_running_it_twice_changes_nothing_the_second_time(session, init, clock):
    for name in ("alice", "bob", "charlie"):
        make_user(session, name)
    make_preference(session, "members", CHARLIE, True, seen=False, touched=True)
    assert init(ALICE, CHARLIE, "stranger@example.net") == (1, 1, 1, 1, 0)
    before = dump(session)
    clock.advance(hours=1)
    assert init(ALICE, CHARLIE, "stranger@example.net") == (0, 0, 3, 1, 0)
    assert dump(session) == before


# Meanwhile.


class Pausing:
    """Stands where bulk work pauses between two chunks of one row each, and does something else there once."""

    def __init__(self, monkeypatch, act):
        self.act = act
        for name in ("sqlite", "postgresql"):
            monkeypatch.setitem(database._CHUNK, name, 1)
        monkeypatch.setattr(database, "pause", self)

    def __call__(self, _session):
        act, self.act = self.act, lambda _own: None
        with Session(db.engine) as own:
            act(own)


def test_a_choice_made_meanwhile_wins_and_has_the_only_line_of_history(
    session, catalogue, clock, init, rows, monkeypatch
):
    make_user(session, "alice")
    bob = make_user(session, "bob")

    def choose(own):
        preferences.choose(own, bob, shown={"members": False}, ticked={"members"}, catalogue=catalogue, now=clock())

    Pausing(monkeypatch, choose)
    init(ALICE)
    assert rows() == {ALICE: (True, True, "init"), BOB: (True, None, "user")}
    told = session.execute(select(History.address, History.source).order_by(History.address)).all()
    assert told == [(ALICE, "init"), (BOB, "user")]


def test_an_untick_made_meanwhile_is_not_taken_for_seen(session, catalogue, clock, init, rows, monkeypatch):
    make_user(session, "alice")
    bob = make_user(session, "bob")
    make_preference(session, "members", BOB, True, seen=False)

    def choose(own):
        preferences.choose(own, bob, shown={"members": True}, ticked=set(), catalogue=catalogue, now=clock())

    Pausing(monkeypatch, choose)
    init(ALICE, BOB)
    assert rows()[BOB] == (False, False, "user")


def test_an_address_that_is_given_up_meanwhile_is_passed_over(session, catalogue, clock, init, rows, monkeypatch):
    make_user(session, "alice")
    bob = make_user(session, "bob")

    def move(own):
        new = checked("new@example.org")
        address_changes.change(own, bob, new, actor=COMMAND_LINE, now=clock(), lists=catalogue.lists)

    Pausing(monkeypatch, move)
    init(ALICE, BOB)
    assert rows() == {ALICE: (True, True, "init")}


def test_work_in_chunks_is_work_as_a_whole(session, init, rows, monkeypatch):
    for name in ("alice", "bob", "charlie", "dora"):
        make_user(session, name)
    make_preference(session, "members", DORA, True)
    Pausing(monkeypatch, lambda _own: None)
    assert init(ALICE, DORA) == (1, 2, 1, 0, 0)
    assert {address: each[:2] for address, each in rows().items()} == {
        ALICE: (True, True), BOB: (False, False), CHARLIE: (False, False), DORA: (True, True),
    }  # fmt: skip


# The lease.


def test_a_list_that_a_run_holds_is_refused_and_nothing_changed(session, members, init, rows):
    make_user(session, "alice")
    with leases.held(session, "members"), pytest.raises(LeaseHeldError):
        init(ALICE)
    assert rows() == {}


def test_the_list_is_held_while_it_works_and_free_afterwards(session, members, clock):
    make_user(session, "alice")

    def lines():
        with Session(db.engine) as own, pytest.raises(LeaseHeldError):
            leases.acquire(own, "members")
        yield b"alice@example.org"

    list_init(session, members, RosterText(lines()), now=clock())
    with leases.held(session, "members"):
        pass


def test_a_lease_that_was_lost_while_the_input_came_in_stops_it(session, members, clock, rows):
    make_user(session, "alice")

    def lines():
        yield b"alice@example.org"
        with Session(db.engine) as own:  # it took too long: another run has taken the list over
            own.execute(update(Lease).values(token="another"))
            own.commit()

    with pytest.raises(LeaseHeldError):
        list_init(session, members, RosterText(lines()), now=clock())
    assert rows() == {}


# What sync's rule 1 does.


def state_of(number):
    mailbox = f"u{number}@example.org"
    return st.fixed_dictionaries(
        {
            "mailbox": st.just(mailbox),
            "on_roster": st.booleans(),
            "preference": st.sampled_from([None, True, False]),
            "seen": st.sampled_from([None, True, False]),
            "touched": st.booleans(),
            "waiting": st.booleans(),
        }
    )


def build(session, states):
    session.rollback()
    for table in reversed(Base.metadata.sorted_tables):
        session.execute(delete(table))
    session.commit()
    manager = MemoryList(members={"stranger@example.net": "stranger@example.net"})
    for number, state in enumerate(states):
        mailbox = state["mailbox"]
        make_user(session, f"user{number}", mailbox)
        if state["on_roster"]:
            manager.join(mailbox)
        if state["preference"] is not None:
            make_preference(
                session, "members", mailbox, state["preference"],
                seen=state["seen"],
                touched=state["touched"],
                waiting_since=NOW if state["waiting"] else None,
            )  # fmt: skip
    return manager


def ending(session):
    found = session.execute(
        select(
            Address.canonical, Preference.subscribed, Preference.seen, Preference.touched, Preference.departed,
            Preference.waiting_since.is_not(None), Preference.source, Preference.refusal,
        ).join(Preference, Preference.address_id == Address.id)
    ).all()  # fmt: skip
    told = session.execute(select(History.address, History.subscribed, History.source)).all()
    session.rollback()
    return sorted(map(tuple, found), key=repr), sorted(map(tuple, told))


def sync_approved(session, members, manager, clock):
    try:
        sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True))
    except SafetyLimitError as held:
        sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True, accept=held.plan_id))


# What a seed found: a list that lost everybody who had been seen on it.
_LOST = {"preference": True, "seen": True, "on_roster": False, "touched": False, "waiting": True}
_NEW = {"preference": None, "seen": None, "on_roster": True, "touched": False, "waiting": False}


@pytest.mark.slow
@given(states=st.tuples(*(state_of(number) for number in range(4))))
@example(states=tuple({**state, "mailbox": f"u{at}@example.org"} for at, state in enumerate([_LOST, _LOST, _NEW])))
@settings(max_examples=60)
def test_a_sync_after_list_init_ends_as_a_sync_alone_for_managed_addresses(session, members, clock, states):
    endings = []
    for has_init in (False, True):
        manager = build(session, states)
        if has_init:
            list_init(session, members, RosterText([each.encode() for each in manager.members]), now=clock())
        sync_approved(session, members, manager, clock)
        endings.append((set(manager.members), *ending(session)))
    assert endings[0] == endings[1]
