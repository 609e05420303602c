"""List passwords: SEMANTICS, "Passwords of the list manager"."""

from dataclasses import dataclass, field, replace

import pytest
from sqlalchemy import select, update

from portal.config import Catalogue
from portal.domain.roster_text import RosterText
from portal.errors import BadInputError, LeaseHeldError, ListManagerUnavailableError
from portal.listmanagers.base import Outcome, Result
from portal.models import Address, Preference
from portal.services.preferences.preferences import choose
from portal.services.sync import leases
from portal.services.sync.list_init import list_init
from portal.services.sync.list_passwords import (
    ALPHABET,
    confirm,
    derive,
    mailboxes,
    pending,
    push,
    replace_password,
    show_password,
    takes,
    why_none,
)
from portal.services.sync.planned_runs import begin_planned_run
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.factories import make_address, make_preference, make_user
from tests.fakes.memory import MemoryList

KEY = b"a key of the tests"


@dataclass
class Keeper(MemoryList):
    """A list manager that keeps passwords, and refuses those of people who are no members."""

    passwords: dict[str, str] = field(default_factory=dict)
    batch: int = 2

    def password_call(self):
        return "changepw members"

    def set_passwords(self, passwords):
        self.watcher("before passwords")
        self.calls.append(("passwords", tuple(address for address, _ in passwords)))
        known = {address: password for address, password in passwords if address in self.members}
        self.passwords |= known
        self.watcher("after passwords")
        return {
            address: Outcome(Result.DONE) if address in known else Outcome(Result.REJECTED, "no such member")
            for address, _ in passwords
        }


@pytest.fixture
def members(app):
    return replace(app.extensions["portal"].catalogue().get("members"), sync_passwords=True)


@pytest.fixture
def board(app):
    return replace(app.extensions["portal"].catalogue().get("board"), sync_passwords=True)


def make_member(session, spelling, *, handle="members", groups=(), subscribed=True, seen=True, **columns):
    user_id = make_user(session, spelling.partition("@")[0], spelling, groups=groups)
    make_preference(session, handle, spelling, subscribed, seen=seen, **columns)
    return user_id


def due(session, mailing_list, **options):
    return [spelling for spelling, _ in pending(session, mailing_list, key=KEY, **options)]


def pushed_versions(session):
    rows = session.execute(
        select(Address.canonical, Preference.password_pushed).join(Preference, Preference.address_id == Address.id)
    ).all()
    session.rollback()
    return dict(rows)


@pytest.mark.parametrize(
    ("key", "address", "version", "expected"),
    [
        (b"a key of the tests", "alice@example.org", 0, "ruh7i8r7qmubzc4fcru2"),
        (b"a key of the tests", "alice@example.org", 1, "6nvdwuxc3nz4u9paqtgc"),
        (b"a key of the tests", "bob@example.org", 0, "cwx4889wzsm9nra23fvh"),
        (b"another key of the tests", "alice@example.org", 0, "ibhh6uw34rgxtxr9btg5"),
        (b"a key of the tests", "jürgen@xn--mnchen-3ya.example", 12, "xecxcvukpzd2ntkt5nxu"),
    ],
)
def test_a_list_password_is_derived_from_key_address_and_version(key, address, version, expected):
    assert derive(key, address, version) == expected


def test_a_list_password_has_a_hundred_bits_and_no_letter_that_a_shell_reads_or_an_eye_confuses():
    assert len(set(ALPHABET)) == 32
    assert ALPHABET.isalnum()
    assert not set("lo01O") & set(ALPHABET)
    made = [derive(KEY, "alice@example.org", version) for version in range(500)]
    assert len(set(made)) == 500
    assert {len(each) for each in made} == {20}
    assert set("".join(made)) == set(ALPHABET)


def test_addresses_that_are_managed_subscribed_and_seen_on_get_a_password(session, members):
    make_member(session, "bob@example.org")
    make_member(session, "alice@example.org")
    make_member(session, "charlie@example.org", subscribed=False)
    make_member(session, "dora@example.org", seen=False)
    make_member(session, "erin@example.org", seen=None)
    make_preference(session, "members", "stranger@example.org", True, seen=True)
    make_member(session, "frank@example.org", handle="tech")
    make_user(session, "grace", is_active=False)
    make_preference(session, "members", "grace@example.org", True, seen=True)
    assert list(pending(session, members, key=KEY)) == [
        ("alice@example.org", derive(KEY, "alice@example.org", 0)),
        ("bob@example.org", derive(KEY, "bob@example.org", 0)),
    ]


def test_only_the_audience_of_a_list_gets_passwords(session, board):
    make_member(session, "alice@example.org", handle="board", groups=("board",))
    make_member(session, "bob@example.org", handle="board")
    assert due(session, board) == ["alice@example.org"]


def test_passwords_go_to_addresses_as_spelled_sorted_by_code_points_of_the_canonical_form(session, members):
    for spelling in ("b_@example.org", "B@Example.ORG", "ä@example.org", "a.z@example.org", "-rf@example.org"):
        make_member(session, spelling)
    assert due(session, members) == [
        "-rf@example.org", "a.z@example.org", "B@Example.ORG", "b_@example.org", "ä@example.org",
    ]  # fmt: skip


def test_a_version_that_was_set_before_is_not_set_again_unless_all_are(session, members):
    make_member(session, "alice@example.org", password_pushed=0)
    make_member(session, "bob@example.org", password_pushed=0)
    assert due(session, members) == []
    assert due(session, members, everyone=True) == ["alice@example.org", "bob@example.org"]
    session.execute(update(Address).where(Address.canonical == "bob@example.org").values(password_version=1))
    session.commit()
    assert list(pending(session, members, key=KEY)) == [("bob@example.org", derive(KEY, "bob@example.org", 1))]


def test_what_was_set_is_marked_and_only_where_it_is_still_the_address_own(session, members):
    for name in ("alice", "bob", "charlie"):
        make_member(session, f"{name}@example.org")
    given = list(pending(session, members, key=KEY))
    session.execute(update(Address).where(Address.canonical == "bob@example.org").values(password_version=1))
    session.commit()
    others = [("nobody@example.org", "x"), ("no address", "x"), ("charlie@example.org", "pä\udcff\0")]
    assert confirm(session, members, [*given[:2], *others], key=KEY) == 1
    assert pushed_versions(session) == {"alice@example.org": 0, "bob@example.org": None, "charlie@example.org": None}
    assert due(session, members) == ["bob@example.org", "charlie@example.org"]


def test_marking_is_of_one_list_alone(session, members):
    make_member(session, "alice@example.org")
    make_preference(session, "tech", "alice@example.org", True, seen=True)
    assert confirm(session, members, list(pending(session, members, key=KEY)), key=KEY) == 1
    assert due(session, replace(members, handle="tech")) == ["alice@example.org"]


def test_a_push_sets_what_is_due_in_batches_and_marks_it(session, members):
    people = [f"{name}@example.org" for name in ("alice", "bob", "charlie")]
    for each in people:
        make_member(session, each)
    keeper = Keeper(members={each: each for each in people})
    found = push(session, members, keeper, key=KEY)
    assert found.done == tuple(people)
    assert found.refused == ()
    assert keeper.passwords == {each: derive(KEY, each, 0) for each in people}
    assert [addresses for _, addresses in keeper.calls] == [tuple(people[:2]), tuple(people[2:])]
    assert push(session, members, keeper, key=KEY).done == ()
    assert len(keeper.calls) == 2
    assert push(session, members, keeper, key=KEY, everyone=True).done == tuple(people)


def test_a_password_that_the_list_manager_refused_is_not_marked_and_told(session, members):
    make_member(session, "alice@example.org")
    make_member(session, "bob@example.org")
    keeper = Keeper(members={"bob@example.org": "bob@example.org"})
    found = push(session, members, keeper, key=KEY)
    assert found.done == ("bob@example.org",)
    assert found.refused == (("alice@example.org", "no such member"),)
    assert due(session, members) == ["alice@example.org"]


def test_nothing_of_a_call_that_failed_is_marked(session, members):
    people = [f"{name}@example.org" for name in ("alice", "bob", "charlie")]
    for each in people:
        make_member(session, each)

    def fail_with_charlie(moment):
        if moment == "after passwords" and "charlie@example.org" in keeper.passwords:
            raise ListManagerUnavailableError("it broke down")

    keeper = Keeper(members={each: each for each in people}, watcher=fail_with_charlie)
    with pytest.raises(ListManagerUnavailableError):
        push(session, members, keeper, key=KEY)
    assert due(session, members) == ["charlie@example.org"]


def test_no_transaction_is_open_while_the_list_manager_works_and_a_replacement_meanwhile_is_set_again(session, members):
    alice = make_member(session, "alice@example.org")
    address_id = mailboxes(session, alice)[0].address_id

    def replace_it(moment):
        if moment == "after passwords":
            replace_password(session, alice, address_id, key=KEY)

    keeper = Keeper(members={"alice@example.org": "alice@example.org"}, watcher=replace_it)
    push(session, members, keeper, key=KEY)
    assert list(pending(session, members, key=KEY)) == [("alice@example.org", derive(KEY, "alice@example.org", 1))]


def test_passwords_wait_for_nobody_who_syncs_the_list(session, members):
    make_member(session, "alice@example.org")
    with leases.held(session, "members"), pytest.raises(LeaseHeldError):
        push(session, members, Keeper(), key=KEY)
    push(session, members, Keeper(), key=KEY)


def test_passwords_are_a_step_of_a_planned_run_which_keeps_its_lease(session, members, clock):
    make_member(session, "alice@example.org")
    keeper = Keeper(members={"alice@example.org": "alice@example.org"})
    begin_planned_run(session, members, RosterText([b"alice@example.org\n"]), clock=clock, request=Request())
    before = leases.of_planned_run(session, "members")
    session.rollback()
    assert push(session, members, keeper, key=KEY).done == ("alice@example.org",)
    assert leases.of_planned_run(session, "members") == before is not None


def test_who_left_the_list_and_is_added_again_gets_the_password_again(session, members, clock):
    alice = make_member(session, "alice@example.org")
    make_member(session, "bob@example.org")
    keeper = Keeper(members={f"{name}@example.org": f"{name}@example.org" for name in ("alice", "bob")})
    push(session, members, keeper, key=KEY)
    keeper.leave("alice@example.org")
    sync_list(session, members, keeper, clock=clock, request=Request())
    assert pushed_versions(session) == {"alice@example.org": None, "bob@example.org": 0}
    choose_again = {"shown": {"members": False}, "ticked": ["members"]}
    catalogue = Catalogue(enabled=True, applied_within_hours=12, lists={"members": members}, managers={})
    choose(session, alice, **choose_again, catalogue=catalogue, now=clock())
    sync_list(session, members, keeper, clock=clock, request=Request())
    assert due(session, members) == ["alice@example.org"]


def test_a_member_sees_and_replaces_the_list_password_of_their_own_addresses_alone(session):
    alice = make_user(session, "alice", "alice@example.org", "shared@example.org")
    make_user(session, "bob", "bob@example.org", "shared@example.org")
    own, shared = mailboxes(session, alice)
    assert [own[1:], shared[1:]] == [("alice@example.org", False), ("shared@example.org", True)]
    assert show_password(session, alice, own.address_id, key=KEY) == derive(KEY, "alice@example.org", 0)
    assert replace_password(session, alice, own.address_id, key=KEY) == derive(KEY, "alice@example.org", 1)
    assert show_password(session, alice, own.address_id, key=KEY) == derive(KEY, "alice@example.org", 1)
    bobs = make_address(session, "bob@example.org")
    session.rollback()
    for refused in (bobs, 999):
        with pytest.raises(BadInputError):
            show_password(session, alice, refused, key=KEY)
        with pytest.raises(BadInputError):
            replace_password(session, alice, refused, key=KEY)


def test_lists_and_list_managers_without_passwords_say_why(members):
    assert takes(Keeper(), members)
    assert not takes(MemoryList(), members)
    assert "has no list passwords" in why_none(members)
    silent = replace(members, sync_passwords=False)
    assert not takes(Keeper(), silent)
    assert "syncpws = false" in why_none(silent)


def test_the_key_is_made_at_its_first_use_apart_from_the_session_key_and_for_its_owner_alone(app, instance):
    path = instance / "list_password_key"
    assert not path.exists()
    key = app.extensions["portal"].list_password_key()
    assert path.stat().st_mode & 0o777 == 0o600
    assert key == app.extensions["portal"].list_password_key() == path.read_bytes().strip()
    assert key != (instance / "secret_key").read_bytes().strip()
    assert len(key) >= 32


def test_who_was_off_a_list_that_pipes_keep_gets_the_password_again(session, app, members, clock):
    catalogue = app.extensions["portal"].catalogue()
    alice = make_member(session, "alice@example.org", password_pushed=0)
    make_member(session, "bob@example.org", password_pushed=0)
    choose(session, alice, shown={"members": True}, ticked=set(), catalogue=catalogue, now=clock())
    list_init(session, members, RosterText([b"bob@example.org\n"]), now=clock())
    choose(session, alice, shown={"members": False}, ticked={"members"}, catalogue=catalogue, now=clock())
    list_init(session, members, RosterText([b"bob@example.org\n", b"alice@example.org\n"]), now=clock())
    assert due(session, members) == ["alice@example.org"]
