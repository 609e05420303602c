"""What a change of many accounts means for the lists is foreseen as the next sync then plans it."""

import random
from dataclasses import replace

import pytest
from flask import Flask
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList, SafetyLimits
from portal.domain.merge import Action
from portal.domain.plan import Plan
from portal.models import Address, Preference
from portal.services.accounts import bulk, users
from portal.services.accounts.bulk import Asked, Change
from portal.services.accounts.directory import Wanted
from portal.services.history import Actor
from portal.services.reports.forecast import forecast
from portal.services.sync import plans
from portal.services.transaction import reading
from tests.factories import NOW, make_preference, make_user

BOB = Actor(None, "bob")
LIMITS = SafetyLimits(removals=2, removals_percent=20, additions=2, additions_percent=20)


@pytest.fixture
def lists(app: Flask) -> dict[str, MailingList]:
    known = app.extensions["portal"].catalogue().lists
    return {handle: replace(each, safety_limits=LIMITS) for handle, each in known.items()}


Planned = dict[str, tuple[int, int, bool]]  # additions, removals, and whether it needs approval


def planned(session: Session, lists: dict[str, MailingList]) -> Planned:
    """What a sync of each list would do where the roster is as the last run saw it."""
    found = {}
    for handle, each in lists.items():
        plan = plan_of(session, each)
        found[handle] = len(plan.of(Action.ADD)), len(plan.of(Action.REMOVE)), bool(plan.warning)
    return {handle: counts for handle, counts in found.items() if any(counts)}


def plan_of(session: Session, mailing_list: MailingList) -> Plan:
    with reading(session):
        seen = select(Address.canonical).join(Preference, Preference.address_id == Address.id)
        on_it = session.scalars(seen.where(Preference.list_handle == mailing_list.handle, Preference.seen.is_(True)))
        return plans.make_plan(session, mailing_list, {address: address for address in on_it}, now=NOW)


def furnish(session: Session, lists: dict[str, MailingList], dice: random.Random) -> None:
    """Make accounts with groups, own and shared mailboxes, some of them deactivated, and let the lists have followed."""
    for number in range(10):
        name = f"user{number}"
        addresses = [f"{name}@example.org", *dice.choice([[], [], ["family@example.org"]])]
        groups = tuple(each for each in ("board", "tech") if dice.random() < 0.5)
        make_user(session, name, *addresses, groups=groups, is_superuser=number == 9)
        for handle in ("members", "tech", "board"):
            for address in addresses:
                if dice.random() < 0.7 and not is_known(session, handle, address):
                    wanted = dice.random() < 0.8
                    make_preference(session, handle, address, wanted, seen=wanted)
    for number in dice.sample(range(9), 4):
        users.deactivate(session, f"user{number}", now=NOW)
    follow(session, lists)


def is_known(session: Session, handle: str, address: str) -> bool:
    known = select(Preference).join(Address, Address.id == Preference.address_id)
    found = session.scalar(known.where(Address.canonical == address, Preference.list_handle == handle))
    session.rollback()
    return found is not None


def follow(session: Session, lists: dict[str, MailingList]) -> None:
    """Have good runs carry out all that is open."""
    for handle, each in lists.items():
        plan = plan_of(session, each)
        for action, values in ((Action.ADD, {"seen": True}), (Action.REMOVE, {"seen": False, "departed": True})):
            ids = [decision.row.address_id for decision in plan.of(action)]
            there = Preference.address_id.in_(ids), Preference.list_handle == handle
            session.execute(update(Preference).where(*there).values(values))
            session.commit()


@pytest.mark.slow
@pytest.mark.parametrize("change", Change)
@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(each, marks=pytest.mark.slow) for each in range(2, 5))])
def test_what_is_foreseen_is_what_the_next_sync_plans(
    session: Session, lists: dict[str, MailingList], change: Change, seed: int
) -> None:
    dice = random.Random(f"{seed} {change}")
    furnish(session, lists, dice)
    ids = tuple(sorted(dice.sample(range(1, 11), dice.choice([1, 4, 10]))))
    assert planned(session, lists) == {}
    asked = Asked(change, Wanted(user_ids=ids), ("board",) if change in bulk.GROUP_CHANGES else ())

    foreseen = forecast(session, asked, lists=lists, now=NOW)
    bulk.do(session, asked, preview_id=bulk.preview(session, asked).id, actor=BOB, now=NOW, lists=lists)
    after = planned(session, lists)

    assert {each.handle: (each.additions, each.removals, each.needs_approval) for each in foreseen} == after


def test_nothing_is_foreseen_without_lists_or_without_a_change(session: Session, lists: dict[str, MailingList]) -> None:
    make_user(session, "alice")
    asked = Asked(Change.DEACTIVATE, Wanted())
    assert forecast(session, asked, lists={}, now=NOW) == ()
    assert forecast(session, asked, lists=lists, now=NOW) == ()


def test_as_many_lists_as_an_organisation_has_may_each_have_their_own_audience(
    session: Session, lists: dict[str, MailingList]
) -> None:
    """One statement with a term for each audience ends at 500 terms on SQLite."""
    board = next(iter(lists.values()))
    many = {name: replace(board, handle=name, audience=frozenset({name})) for name in (f"g{n}" for n in range(600))}
    user_id = make_user(session, "alice", groups=("g3", "g599"))
    for handle in ("g3", "g599"):
        make_preference(session, handle, "alice@example.org", True, seen=True)
    found = forecast(session, Asked(Change.DEACTIVATE, Wanted(user_ids=(user_id,))), lists=many, now=NOW)
    assert [(each.handle, each.removals) for each in found] == [("g3", 1), ("g599", 1)]
