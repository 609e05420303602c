"""Members change their own addresses: confirmed, told to the old one, undone. The attack stories of docs/security.md."""

import re
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.errors import BadInputError, LinkRefusedError, LogInFailedError, SharedMailboxError
from portal.models import AccountChange, Address, LoginSession, Preference, User, UserAddress
from portal.services.accounts import password_changes, profiles, sessions
from portal.services.accounts.addresses import checked
from portal.services.accounts.sessions import Origin
from portal.services.history import Actor
from portal.services.mail import links, own_addresses
from portal.services.mail.own_addresses import Who
from portal.services.mail.sending import Mailer, send_due
from portal.services.preferences import by_link
from portal.services.transaction import reading, transaction
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.fakes.mail_server import FakeMailServer
from tests.web.conftest import HASH, PASSWORD

ORIGIN = Origin("192.0.2.1")


@dataclass
class World:
    """A portal, its members at their browsers, and the mailboxes of everybody."""

    session: Session
    clock: Clock
    server: FakeMailServer
    mailer: Mailer
    catalogue: Catalogue

    def log_in(self, name: str, password: str = PASSWORD) -> Who:
        token = sessions.log_in(
            self.session, name=name, password=password, origin=ORIGIN, remember=False, now=self.clock(), rounds=4
        )
        member = sessions.member(self.session, token, now=self.clock())
        assert member is not None
        return Who(Actor(member.id, member.username), token, self.clock())

    def mails(self, mailbox: str) -> list[str]:
        """Send what waits; return the texts in a mailbox, the oldest first."""
        send_due(self.session, self.mailer, sends_bulk=True)
        return [each.text for each in self.server.taken if each.to.lower() == mailbox]

    def link(self, mailbox: str) -> str:
        """The token of the newest link in a mailbox."""
        found = re.findall(r"/link/(\S{43})", "\n".join(self.mails(mailbox)))
        assert found, f"no link in {mailbox}"
        return found[-1]

    def ask(self, who: Who, address: str, *, replaces_main: bool = False) -> None:
        own_addresses.request(self.session, checked(address), replaces_main=replaces_main, who=who, place="192.0.2.1")

    def confirm(self, who: Who, token: str, *, may_share: bool = False) -> Who:
        lists = self.catalogue.lists
        renewed = own_addresses.confirm(self.session, token, who=who, may_share=may_share, lists=lists)
        return who._replace(token=renewed)

    def take(self, who: Who, address: str, *, replaces_main: bool = False) -> Who:
        self.ask(who, address, replaces_main=replaces_main)
        return self.confirm(who, self.link(address))

    def undo(self, token: str) -> str:
        return own_addresses.undo(self.session, token, now=self.clock(), lists=self.catalogue.lists)

    def addresses(self, username: str) -> list[str]:
        """The addresses of an account, the main one first."""
        query = select(Address.canonical).join(UserAddress).join(User).where(User.username == username)
        with reading(self.session):
            return list(self.session.scalars(query.order_by(UserAddress.is_main.desc(), Address.canonical)))

    def is_logged_in(self, who: Who) -> bool:
        return sessions.member(self.session, who.token, now=self.clock()) is not None


@pytest.fixture
def world(session: Session, clock: Clock, mail_server: FakeMailServer, mailer: Mailer, app: Flask) -> World:
    make_user(session, "alice", password_hash=HASH)
    make_user(session, "bob", password_hash=HASH)
    return World(session, clock, mail_server, mailer, app.extensions["portal"].catalogue())


def test_an_address_is_added_once_its_link_was_used_and_not_before(world: World) -> None:
    alice = world.log_in("alice")
    world.ask(alice, "Alice@Home.example.org")
    token = world.link("alice@home.example.org")
    assert world.addresses("alice") == ["alice@example.org"]
    assert own_addresses.unconfirmed(world.session, alice.user_id, now=world.clock()) == ("alice@home.example.org",)

    renewed = world.confirm(alice, token)

    assert world.addresses("alice") == ["alice@example.org", "alice@home.example.org"]
    assert (world.is_logged_in(alice), world.is_logged_in(renewed)) == (False, True)
    assert own_addresses.unconfirmed(world.session, alice.user_id, now=world.clock()) == ()
    assert "Alice@home.example.org was added" in world.mails("alice@example.org")[-1].replace("Home", "home")
    with pytest.raises(LinkRefusedError):
        world.confirm(renewed, token)


def test_another_main_address_takes_the_lists_along(world: World) -> None:
    make_preference(world.session, "members", "alice@example.org", subscribed=True, seen=True)
    world.take(world.log_in("alice"), "new@example.org", replaces_main=True)

    assert world.addresses("alice") == ["new@example.org"]
    with reading(world.session):
        query = select(Address.canonical).join(Preference).where(Preference.subscribed, Preference.moved_to.is_(None))
        assert world.session.scalars(query).all() == ["new@example.org"]


def test_several_addresses_are_confirmed_side_by_side(world: World) -> None:
    alice = world.log_in("alice")
    for name in ("one", "two"):
        world.ask(alice, f"{name}@example.org")
    first, second = world.link("one@example.org"), world.link("two@example.org")
    alice = world.confirm(alice, first)
    world.confirm(alice, second)
    assert world.addresses("alice") == ["alice@example.org", "one@example.org", "two@example.org"]


def test_main_address_and_removal_are_told_and_can_be_undone(world: World) -> None:
    lists = world.catalogue.lists
    alice = world.take(world.log_in("alice"), "home@example.org")
    own_addresses.make_main(world.session, "home@example.org", who=alice, lists=lists)
    assert world.addresses("alice") == ["home@example.org", "alice@example.org"]
    told = world.mails("alice@example.org")[-1]
    assert "home@example.org is the main address now" in " ".join(told.split())
    alice = world.log_in("alice")
    own_addresses.remove(world.session, "alice@example.org", who=alice, lists=lists)
    assert world.addresses("alice") == ["home@example.org"]

    world.undo(world.link("home@example.org"))

    assert world.addresses("alice") == ["home@example.org", "alice@example.org"]


@pytest.mark.parametrize("address", ["alice@example.org", "zoe@example.net"])
def test_the_main_address_and_those_of_others_are_not_removed(world: World, address: str) -> None:
    with pytest.raises(BadInputError):
        own_addresses.remove(world.session, address, who=world.log_in("alice"), lists=world.catalogue.lists)
    assert world.mails("alice@example.org") == []


def test_the_owner_of_a_mistyped_address_cannot_take_the_account(world: World) -> None:
    """Alice types bob@example.org; Bob opens the link, logged in as himself or not at all."""
    alice = world.log_in("alice")
    world.ask(alice, "stranger@example.org")
    token = world.link("stranger@example.org")
    with pytest.raises(LinkRefusedError):
        world.confirm(world.log_in("bob"), token)
    with pytest.raises(LinkRefusedError):
        links.log_in(world.session, token, origin=ORIGIN, now=world.clock())
    with pytest.raises(LinkRefusedError):
        world.undo(token)
    assert (world.addresses("alice"), world.addresses("bob")) == (["alice@example.org"], ["bob@example.org"])


def test_a_mailbox_of_another_account_is_shared_only_when_that_was_said(world: World) -> None:
    alice = world.log_in("alice")
    world.ask(alice, "bob@example.org")
    token = world.link("bob@example.org")
    with pytest.raises(SharedMailboxError):
        world.confirm(alice, token)
    assert world.addresses("alice") == ["alice@example.org"]
    world.confirm(alice, token, may_share=True)
    assert world.addresses("alice") == ["alice@example.org", "bob@example.org"]


def test_a_thief_who_changes_address_and_password_loses_both(world: World) -> None:
    thief = world.take(world.log_in("alice"), "thief@example.net", replaces_main=True)
    token = password_changes.change_password(
        world.session, thief.user_id, current=PASSWORD, new="mine all mine now", token=thief.token,
        now=world.clock(), rounds=4,
    )  # fmt: skip
    world.clock.advance(hours=1)
    assert world.is_logged_in(thief._replace(token=token))

    assert world.undo(world.link("alice@example.org")) == "alice@example.org"

    assert world.addresses("alice") == ["alice@example.org"]
    assert not world.is_logged_in(thief._replace(token=token))
    for password in (PASSWORD, "mine all mine now"):
        with pytest.raises(LogInFailedError):
            world.log_in("alice", password)
    links.request(world.session, "log-in", "alice@example.org", place="192.0.2.1", now=world.clock())
    assert links.log_in(world.session, world.link("alice@example.org"), origin=ORIGIN, now=world.clock())


def test_a_thief_who_adds_an_address_cannot_come_back_by_a_link_to_it(world: World) -> None:
    world.take(world.log_in("alice"), "thief@example.net")
    links.request(world.session, "log-in", "thief@example.net", place="192.0.2.1", now=world.clock())
    back_door = world.link("thief@example.net")

    world.undo(world.link("alice@example.org"))

    assert world.addresses("alice") == ["alice@example.org"]
    with pytest.raises(LinkRefusedError):
        links.log_in(world.session, back_door, origin=ORIGIN, now=world.clock())


def test_a_thief_who_goes_on_and_goes_back_does_not_end_the_owners_link(world: World) -> None:
    thief = world.take(world.log_in("alice"), "thief@example.net", replaces_main=True)
    owners = world.link("alice@example.org")
    world.take(thief, "other@example.net", replaces_main=True)
    world.undo(world.link("thief@example.net"))
    assert world.addresses("alice") == ["thief@example.net"]

    world.undo(owners)

    assert world.addresses("alice") == ["alice@example.org"]


def test_an_undo_ends_the_later_ones(world: World) -> None:
    thief = world.take(world.log_in("alice"), "thief@example.net", replaces_main=True)
    owners = world.link("alice@example.org")
    world.take(thief, "other@example.net", replaces_main=True)
    thiefs = world.link("thief@example.net")
    world.undo(owners)
    with pytest.raises(LinkRefusedError):
        world.undo(thiefs)
    assert world.addresses("alice") == ["alice@example.org"]


def test_an_undo_ends_addresses_that_were_not_confirmed_yet(world: World) -> None:
    thief = world.take(world.log_in("alice"), "thief@example.net")
    world.ask(thief, "later@example.net")
    later = world.link("later@example.net")
    world.undo(world.link("alice@example.org"))
    links.request(world.session, "log-in", "alice@example.org", place="192.0.2.2", now=world.clock())
    back = links.log_in(world.session, world.link("alice@example.org"), origin=ORIGIN, now=world.clock())
    with pytest.raises(LinkRefusedError):
        world.confirm(Who(Actor(back.user_id, "alice"), back.token, world.clock()), later)


def test_an_undo_is_refused_where_the_mailbox_was_handed_on(world: World) -> None:
    world.take(world.log_in("alice"), "new@example.org", replaces_main=True)
    token = world.link("alice@example.org")
    make_user(world.session, "zoe", "alice@example.org")
    with pytest.raises(LinkRefusedError):
        world.undo(token)
    assert world.addresses("alice") == ["new@example.org"]


def test_who_shares_the_old_mailbox_is_told_and_cannot_undo(world: World) -> None:
    make_user(world.session, "dora", "office@example.org", password_hash=HASH)
    make_user(world.session, "erin", "office@example.org", password_hash=HASH)
    world.take(world.log_in("dora"), "dora@example.org", replaces_main=True)
    (letter,) = world.mails("office@example.org")
    assert "dora@example.org was added" in " ".join(letter.split())
    assert "/link/" not in letter


def test_an_undo_is_good_for_72_hours(world: World) -> None:
    world.take(world.log_in("alice"), "new@example.org")
    token = world.link("alice@example.org")
    world.clock.advance(hours=72)
    with pytest.raises(LinkRefusedError):
        world.undo(token)


def test_an_undo_gives_no_address_back_that_another_account_uses_now(world: World) -> None:
    lists = world.catalogue.lists
    alice = world.take(world.log_in("alice"), "home@example.org")
    own_addresses.remove(world.session, "home@example.org", who=alice, lists=lists)
    token = world.link("alice@example.org")
    make_user(world.session, "zoe", "home@example.org")
    world.undo(token)
    assert (world.addresses("alice"), world.addresses("zoe")) == (["alice@example.org"], ["home@example.org"])


def test_all_of_it_is_in_the_history_of_the_account(world: World) -> None:
    world.take(world.log_in("alice"), "new@example.org", replaces_main=True)
    world.undo(world.link("alice@example.org"))
    with reading(world.session):
        lines = world.session.execute(select(AccountChange.what, AccountChange.actor)).all()
    assert [tuple(each) for each in lines] == [
        ("address changed", "alice"), ("address changed", "alice"), ("change of address undone", "alice"),
    ]  # fmt: skip


def test_many_addresses_are_remembered_as_far_as_they_fit(world: World) -> None:
    alice = world.log_in("alice")
    for number in range(12):
        make = f"{'x' * 60}{number}@{'y' * 60}.example.org"
        world.clock.advance(hours=1)
        alice = world.take(alice._replace(now=world.clock()), make)
        links_left = world.session.scalars(select(LoginSession.id)).all()
        world.session.rollback()
        assert links_left
    world.undo(world.link("alice@example.org"))
    assert world.addresses("alice")[0] == "alice@example.org"


def test_a_deactivated_member_confirms_nothing(world: World) -> None:
    alice = world.log_in("alice")
    world.ask(alice, "new@example.org")
    world.session.execute(update(User).values(is_active=False))
    world.session.commit()
    assert world.mails("new@example.org") == []
    assert not world.is_logged_in(alice)


# --- every purpose of a link


PURPOSES = ("confirm", "invite", "leave", "log-in", "undo")


@pytest.fixture
def tokens(world: World) -> dict[str, str]:
    """A link of Alice's for each purpose, each in a mailbox of its own."""
    session, now = world.session, world.clock()
    make_preference(session, "members", "alice@example.org", True, seen=True)
    alice = profiles.id_of(session, "alice")
    account = links.accounts_at(session, "alice@example.org")
    found = {
        purpose: links.make_all(session, purpose, mailbox="alice@example.org", accounts=account, now=now)[0]
        for purpose in ("invite", "log-in")
    }
    found["leave"] = links.make_for_mailbox(session, "leave", mailbox="alice@example.org", now=now)
    with transaction(session):
        details = {"spelling": "new@example.org", "wish": "replace"}
        found["confirm"] = links.make(
            session, "confirm", mailbox="new@example.org", now=now, user_id=alice, details=details
        )
        details = {"main": "old@example.org", "held": "old@example.org"}
        found["undo"] = links.make(session, "undo", mailbox="old@example.org", now=now, user_id=alice, details=details)
    return found


def acts(world: World) -> dict[str, Callable[[Session, str], object]]:
    """What the button of each purpose does."""
    who, now, lists = world.log_in("alice"), world.clock(), world.catalogue.lists

    def log_in(session: Session, token: str) -> object:
        return links.log_in(session, token, origin=ORIGIN, now=now)

    return {
        "confirm": lambda session, token: own_addresses.confirm(session, token, who=who, may_share=True, lists=lists),
        "invite": log_in,
        "leave": lambda session, token: by_link.leave(
            session, token, handles=["members"], catalogue=world.catalogue, now=now
        ),
        "log-in": log_in,
        "undo": lambda session, token: own_addresses.undo(session, token, now=now, lists=lists),
    }


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_link_for_one_purpose_does_nothing_else(world: World, tokens: dict[str, str], purpose: str) -> None:
    does = acts(world)
    own = {"invite", "log-in"} if purpose in {"invite", "log-in"} else {purpose}
    for other in does.keys() - own:
        with pytest.raises(LinkRefusedError):
            does[other](world.session, tokens[purpose])
    assert links.look_up(world.session, tokens[purpose], now=world.clock()).purpose == purpose


@pytest.mark.parametrize("purpose", PURPOSES)
def test_a_link_is_used_once_by_those_who_use_it_at_the_same_time(
    world: World, tokens: dict[str, str], purpose: str
) -> None:
    act, start = acts(world)[purpose], threading.Barrier(5)

    def use() -> bool:
        with Session(world.session.get_bind()) as own:
            start.wait()
            try:
                act(own, tokens[purpose])
            except (LinkRefusedError, LogInFailedError):
                return False
            return True

    with ThreadPoolExecutor(5) as pool:
        results = [each.result() for each in [pool.submit(use) for _ in range(5)]]

    assert sorted(results) == [False] * 4 + [True]
    with pytest.raises(LinkRefusedError):
        links.look_up(world.session, tokens[purpose], now=world.clock())
