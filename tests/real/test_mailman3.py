"""What only the real Mailman 3 can tell: what it keeps, whom it writes to, and what it makes of odd requests."""

import pytest

from portal.listmanagers import registry
from portal.listmanagers.base import Result
from portal.listmanagers.mailman3 import Mailman3
from tests.real import programs
from tests.real.mailman3 import Program

pytestmark = pytest.mark.slow

ODD = [f"a{sign}{number}@example.org" for number, sign in enumerate("!#$%&'*+/=?_`{}~.-")]


@pytest.fixture
def mailman() -> Program:
    program = programs.started("mailman3")
    program.make_list("ants")
    yield program
    assert program.queued_mails() == []
    program.make_list("ants")


def opened(mailman: Program, **settings) -> Mailman3:
    table = {**mailman.manager_table(), **settings}
    return registry.open_list(registry.read_settings("mailman3", table), mailman.list_setting("ants"))


def test_the_version_is_known(mailman):
    assert "Mailman 3" in mailman.version
    assert opened(mailman).check() == f"{mailman.version}: ants.lists.example.org found, subscribers: 0"


def test_an_address_is_kept_as_it_was_typed(mailman):
    opened(mailman).add(["Typed.Like.This@Example.ORG"])
    assert mailman.typed("typed.like.this@example.org") == "Typed.Like.This@Example.ORG"


def test_every_character_that_is_not_refused_arrives_and_goes_again(mailman):
    manager = opened(mailman)
    assert {each.result for each in manager.add(ODD).values()} == {Result.DONE}
    assert mailman.roster("ants") == set(ODD) == set(manager.roster())
    assert {each.result for each in manager.remove(ODD).values()} == {Result.DONE}
    assert mailman.roster("ants") == set()


@pytest.mark.parametrize("sign", list('^|":;<>()[]\\'))
def test_what_the_portal_refuses_mailman_would_refuse(mailman, sign):
    with pytest.raises(AssertionError, match="400"):
        mailman.set_roster("ants", [f"a{sign}b@example.org"])
    assert opened(mailman).add([f"a{sign}b@example.org"]).popitem()[1].result is Result.REJECTED


def test_whoever_is_banned_or_held_is_told_apart(mailman):
    mailman.ban("ants", "banned@example.org")
    mailman.hold("ants", "held@example.org")
    mailman.hold("ants", "asked@example.org", policy="confirm")
    addresses = ["banned@example.org", "held@example.org", "asked@example.org", mailman.list_setting("ants")]
    outcomes = opened(mailman).add(addresses)
    assert [tuple(each) for each in outcomes.values()] == [
        (Result.REJECTED, "Membership is banned"),
        (Result.PENDING, "Subscription request already pending"),
        (Result.CONFIRM, "Subscription request already pending"),
        (Result.REJECTED, "List posting address cannot subscribe"),
    ]


def test_a_held_request_is_withdrawn_and_nobody_is_told(mailman):
    mailman.hold("ants", "held@example.org")
    mailman.hold("ants", "other@example.org")
    assert opened(mailman).withdraw(["Held@example.org", "nobody@example.org"]) == {"Held@example.org"}
    assert mailman.held("ants") == {"other@example.org"}
    assert opened(mailman).add(["held@example.org"])["held@example.org"].result is Result.DONE


def test_a_moderated_list_takes_the_portals_adds_and_lets_removals_go(mailman):
    mailman.call("PATCH", "lists/ants.lists.example.org/config", subscription_policy="moderate")
    mailman.call("PATCH", "lists/ants.lists.example.org/config", unsubscription_policy="moderate")
    try:
        manager = opened(mailman)
        assert manager.add(["bob@example.org"])["bob@example.org"].result is Result.DONE
        assert manager.remove(["bob@example.org"])["bob@example.org"].result is Result.DONE
        assert mailman.roster("ants") == mailman.held("ants") == set()
    finally:
        mailman.call("PATCH", "lists/ants.lists.example.org/config", subscription_policy="open")
        mailman.call("PATCH", "lists/ants.lists.example.org/config", unsubscription_policy="open")


def test_a_password_opens_mailmans_door(mailman):
    manager = opened(mailman)
    manager.add(["pass+word%@example.org"])
    outcomes = manager.set_passwords([("Pass+Word%@example.org", "pä ss&=+%"), ("nobody@example.org", "x")])
    assert [each.result for each in outcomes.values()] == [Result.DONE, Result.REJECTED]
    assert mailman.knows_password("pass+word%@example.org", "pä ss&=+%")
    assert not mailman.knows_password("pass+word%@example.org", "x")


def test_a_roster_of_more_than_a_page_is_whole(mailman, monkeypatch):
    monkeypatch.setattr("portal.listmanagers.mailman3._PAGE", 7)  # pages of a thousand would take minutes to fill
    everybody = {f"user{number}@example.org" for number in range(21)}
    mailman.set_roster("ants", everybody)
    assert set(opened(mailman).roster()) == everybody


def test_owners_and_moderators_are_left_alone(mailman):
    for role in ("owner", "moderator"):
        options = {"list_id": "ants.lists.example.org", "subscriber": f"{role}@example.org", "role": role}
        mailman.call("POST", "members", **options, pre_verified="true", pre_confirmed="true", pre_approved="true")
    manager = opened(mailman)
    assert manager.roster() == []
    assert manager.remove(["owner@example.org"])["owner@example.org"].result is Result.ALREADY
    for role in ("owner", "moderator"):
        found = mailman.call("GET", f"lists/ants.lists.example.org/roster/{role}")
        assert [each["email"] for each in found["entries"]] == [f"{role}@example.org"]


def test_a_wrong_password_and_a_wrong_list_are_said_so(mailman):
    with pytest.raises(Exception, match=r"refused the log-in \(401\)"):
        opened(mailman, password="wrong").roster()
