"""`user delete --erase`: no trace of the address is left, once no roster holds it. SECURITY 26."""

import pytest
from sqlalchemy import select, update

from portal.domain.mailinglist import MailingList
from portal.domain.run import RunKind
from portal.errors import ListManagerUnavailableError
from portal.models import Address, Base, History, Preference, Run, RunLine
from portal.services import outbox
from portal.services.accounts import address_changes, profiles, users
from portal.services.accounts.addresses import checked
from portal.services.history import COMMAND_LINE, Actor
from portal.services.mail.links import accounts_at, make
from portal.services.outbox import Mail
from portal.services.preferences import preferences
from portal.services.reports import lists as list_reports
from portal.services.sync import runs
from portal.services.sync.requested import carry_out
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from portal.services.transaction import transaction
from tests.factories import NOW, give_name, make_preference, make_user
from tests.fakes.memory import MemoryList, breaking

ALICE = "alice@example.org"


@pytest.fixture
def catalogue(app):
    return app.extensions["portal"].catalogue()


@pytest.fixture
def members(catalogue) -> MailingList:
    return catalogue.get("members")


@pytest.fixture
def manager() -> MemoryList:
    return MemoryList()


@pytest.fixture
def sync(session, members, manager, clock):
    def run():
        return sync_list(session, members, manager, clock=clock, request=Request(allow_empty=True))

    return run


@pytest.fixture
def erase(session, catalogue):
    def delete(username="alice"):
        return users.delete(session, username, now=NOW, erase=True, lists=catalogue.lists)

    return delete


@pytest.fixture
def dump(session):
    """Every value of every table, in lower case."""

    def read():
        rows = [row for table in Base.metadata.sorted_tables for row in session.execute(select(table)).all()]
        session.rollback()
        return "\n".join(str(value) for row in rows for value in row).lower()

    return read


@pytest.fixture
def tick(session, catalogue, clock):
    def choose(user_id, is_ticked=True):
        preferences.choose(
            session, user_id,
            shown={"members": not is_ticked}, ticked={"members"} if is_ticked else set(),
            catalogue=catalogue, now=clock(),
        )  # fmt: skip

    return choose


def test_an_account_that_no_list_knows_is_gone_at_once(session, erase, dump):
    make_user(session, "alice")
    erase()
    assert "alice" not in dump()


def test_mails_and_links_to_the_address_or_about_it_forget_it(session, erase, dump, clock):
    user_id = make_user(session, "alice")
    make_user(session, "bob")
    with transaction(session):
        about = {"new": ALICE}
        outbox.enqueue(session, [Mail(ALICE, "log-in"), Mail("bob@example.org", "undo", details=about)], now=NOW)
    claimed = outbox.claim(session, now=NOW, bulk_per_minute=None)
    outbox.defer(session, claimed, now=NOW, message=f"450 <{ALICE}>: come back later")
    (account,) = accounts_at(session, ALICE, user_id=user_id)
    with transaction(session):
        make(session, "log-in", mailbox=ALICE, user_id=account.id, now=NOW)

    erase()

    assert ALICE not in dump()


def test_after_the_removal_and_the_purge_no_table_holds_the_address(session, tick, sync, erase, manager, dump):
    alice = make_user(session, "alice", "Alice@Example.org")
    tick(alice)
    sync()
    assert set(manager.members) == {ALICE}
    erase()
    sync()
    assert manager.members == {}
    assert "alice@" not in dump()


def test_nothing_goes_before_a_roster_has_let_go(session, tick, sync, erase, manager, dump):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    erase()
    assert ALICE in dump()
    manager.stubborn.add(ALICE)
    sync()
    assert ALICE in dump()


def test_nothing_goes_while_an_add_waits(session, tick, sync, erase, manager, dump, clock):
    alice = make_user(session, "alice")
    tick(alice)
    manager.is_moderated = True
    sync()
    erase()
    sync()
    assert ALICE in dump()
    clock.advance(days=90)
    sync()
    assert "alice@" not in dump()


def test_a_list_manager_that_is_down_keeps_the_address_until_it_is_back(session, tick, sync, erase, manager, dump):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    erase()
    manager.watcher = breaking("after remove", 0)
    with pytest.raises(ListManagerUnavailableError):
        sync()
    assert ALICE in dump()
    manager.watcher = lambda _moment: None
    sync()
    assert "alice@" not in dump()


def test_another_holder_keeps_the_address(session, tick, sync, erase, manager, dump):
    alice = make_user(session, "alice")
    make_user(session, "charlie", ALICE)
    tick(alice)
    erase()
    sync()
    assert set(manager.members) == {ALICE}
    users.delete(session, "charlie", now=NOW, erase=False, lists=None)
    sync()
    assert ALICE in dump(), "charlie did not ask for it"


@pytest.mark.parametrize("how", ["created", "moved"])
def test_an_address_that_somebody_holds_again_is_not_erased(session, catalogue, tick, sync, erase, dump, how):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    erase()
    if how == "created":
        users.create(
            session, username="alice2", address=checked("ALICE@example.org"), now=NOW, rounds=4, lists=catalogue.lists
        )
    else:
        bob = make_user(session, "bob")
        address_changes.change(session, bob, checked(ALICE), actor=COMMAND_LINE, now=NOW, lists=catalogue.lists)
    sync()
    users.delete(session, "bob" if how == "moved" else "alice2", now=NOW, erase=False, lists=catalogue.lists)
    sync()
    assert f"\n{ALICE}\n" in dump()


def test_the_address_that_the_account_had_before_goes_with_it(session, catalogue, tick, sync, erase, manager, dump):
    alice = make_user(session, "alice", "former@example.org")
    tick(alice)
    sync()
    address_changes.change(session, alice, checked(ALICE), actor=COMMAND_LINE, now=NOW, lists=catalogue.lists)
    erase()
    sync()
    assert manager.members == {}
    assert "former@" not in dump()
    assert "alice@" not in dump()


def test_the_history_of_accounts_forgets_what_was_changed_to_what(session, catalogue, erase, dump):
    alice = make_user(session, "alice")
    for number in (1, 2):
        address = checked(f"alice{number}@example.org")
        address_changes.change(session, alice, address, actor=COMMAND_LINE, now=NOW, lists=catalogue.lists)
    give_name(session, "alice", "Alice Liddell")
    users.rename(session, "alice", to="al")
    erase("al")
    assert "alice" not in dump()
    assert "liddell" not in dump()


def test_the_history_of_another_account_forgets_a_mailbox_that_both_had(session, catalogue, erase, dump):
    make_user(session, "alice")
    alfred = make_user(session, "alfred", "Alice@example.org")
    address = checked("alfred@example.org")
    address_changes.change(session, alfred, address, actor=COMMAND_LINE, now=NOW, lists=catalogue.lists)
    erase()
    assert "alice" not in dump(), "though alfred may come back there"
    assert "alfred@example.org" in dump()
    address_changes.change(session, alfred, checked(ALICE), actor=COMMAND_LINE, now=NOW, lists=catalogue.lists)
    assert profiles.by_id(session, alfred).addresses == (ALICE,)


def test_an_account_made_again_takes_the_traces_of_the_first_with_it(
    session, tick, sync, erase, catalogue, dump, clock
):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    users.delete(session, "alice", now=NOW, erase=False, lists=catalogue.lists)
    sync()
    clock.advance(hours=91 * 24)
    sync()  # purged: nothing is left but history, which keeps the address
    make_user(session, "filler")
    assert ALICE in dump()
    make_user(session, "alice")
    erase()
    assert "alice@" not in dump()


def test_the_history_of_others_stays_whoever_had_the_number_before(session, tick, sync, erase, catalogue, dump):
    bob = make_user(session, "bob")
    tick(bob)
    sync()
    users.delete(session, "bob", now=NOW, erase=False, lists=catalogue.lists)
    sync()
    alice = make_user(session, "alice")  # SQLite gives her address the number that Bob's had
    tick(alice)
    sync()
    erase()
    sync()
    assert "alice@" not in dump()
    told = session.scalars(select(History.address)).all()
    assert told.count("bob@example.org") == 1
    assert "bob@example.org" in session.scalars(select(RunLine.address)).all()


def test_history_still_tells_that_something_was_changed_and_when(session, tick, sync, erase):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    number = session.scalar(select(Address.id))
    session.rollback()
    erase()
    sync()
    lines = session.execute(select(History.address, History.subscribed, History.list_handle).order_by(History.id))
    name = f"erased-{number}"
    assert [tuple(line) for line in lines] == [(name, True, "members"), (name, False, "members")]


def test_lists_that_have_left_the_catalogue_keep_nothing(session, tick, erase, dump):
    make_user(session, "alice")
    make_preference(session, "former", ALICE, True, seen=True)
    erase()
    assert "alice@" not in dump()
    assert session.scalars(select(Preference)).all() == []


def test_where_the_catalogue_cannot_be_read_nothing_is_given_up(session, sync, manager, dump):
    make_user(session, "alice")
    make_preference(session, "members", ALICE, True, seen=True)
    manager.join(ALICE)
    users.delete(session, "alice", now=NOW, erase=True, lists=None)
    assert ALICE in dump()
    sync()
    assert manager.members == {}
    assert "alice@" not in dump()


def test_what_a_list_manager_or_a_reason_said_of_it_is_erased_in_any_spelling(session, erase, dump):
    make_user(session, "alice", "Alice@Exämple.org")
    make_user(session, "bob")
    run = Run(
        list_handle="members", kind="sync", asked_by="", host="", started_at=NOW, state="failed",
        message="add_members: <ALICE@EXÄMPLE.ORG>: no such host. alice@xn--exmple-cua.org.",
    )  # fmt: skip
    session.add(run)
    session.flush()
    session.add(
        RunLine(
            run_id=run.id, address_id=99, list_handle="members", address="bob@example.org",
            spelling="bob@example.org", action="add", reason="chosen", version=0, settled=True,
            words="'alice@Exämple.org' is on the list with this name",
        )
    )  # fmt: skip
    session.add(
        RunLine(
            run_id=run.id, address_id=98, list_handle="members", address="alice@xn--exmple-cua.org",
            spelling="Alice@Exämple.org", action="left", reason="list", version=0, settled=True,
            replaced='{"refusal": "Alice@Exämple.org may not leave"}',
        )
    )  # fmt: skip
    session.add(
        History(
            at=NOW, list_handle="members", address_id=99, address="bob@example.org", subscribed=True,
            source="superuser", reason="the same person as Alice@xn--exmple-cua.org",
        )
    )  # fmt: skip
    make_preference(session, "members", "bob@example.org", True, refusal="not while alice@Exämple.org is on the list")
    session.commit()
    erase()
    session.expire_all()
    found = dump()
    assert "alice@" not in found
    assert ": no such host." in found
    assert "is on the list with this name" in found
    assert "the same person as erased-" in found
    assert "not while erased-" in found


def test_longer_addresses_that_end_or_begin_like_it_stay(session, erase, dump):
    make_user(session, "ann", "ann@example.org")
    others = "joann@example.org, jo.ann@example.org, jo-ann@example.org, ann@example.org.uk and ann@example.org-x.net"
    make_user(session, "bob")
    session.add(
        History(
            at=NOW, list_handle="members", address_id=99, address="bob@example.org", subscribed=True,
            source="superuser", reason=f"{others} ...ann@example.org",
        )
    )  # fmt: skip
    session.commit()
    erase("ann")
    assert f"{others} ...erased-" in dump()


def test_a_text_that_the_name_makes_too_long_is_cut(session, erase):
    make_user(session, "a", "a@b.org")
    session.add(
        History(
            at=NOW, list_handle="members", address_id=99, address="bob@example.org", subscribed=True,
            source="superuser", reason=("a@b.org " * 25).strip(),
        )
    )  # fmt: skip
    session.commit()
    erase("a")
    assert len(session.scalars(select(History.reason)).one()) == 200


def test_the_mark_alone_changes_nothing(session, tick, sync, erase, dump):
    alice = make_user(session, "alice")
    tick(alice)
    sync()
    session.execute(update(Address).values(erase=True))
    session.commit()
    sync()
    assert ALICE in dump(), "it is held"


def test_a_run_does_not_name_whoever_asked_by_an_erased_address(
    session, erase, dump, members, manager, sync, clock, app
):
    make_user(session, "bob", is_superuser=True)
    alice = make_user(session, ALICE, ALICE, is_superuser=True)
    portal = app.extensions["portal"]
    runs.request(session, "members", kind=RunKind.SYNC, actor=Actor(alice, ALICE), now=clock())
    (asked,) = runs.due(session, now=clock())
    assert runs.claim(session, asked, now=clock())
    carry_out(session, asked, catalogue=portal.catalogue(), open_list_manager=lambda _list: manager, clock=clock)
    runs.request(session, "tech", kind=RunKind.SYNC, actor=Actor(alice, ALICE), now=clock())
    erase(ALICE)
    sync()
    assert ALICE not in dump()
    by_alice = {each.asked_by for each in list_reports.runs(session) if each.asked_at}
    assert by_alice == {f"user {alice}"}
