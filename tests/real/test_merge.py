"""The merge against real list managers: one list, an address for every state there is, and one run over all of them.

The states are those that tests/domain/test_merge_space.py finds; what must come of each is said by the same rules.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.merge import Action, AddressState, PushResult, Rules, conclude, decide
from portal.extensions import Portal, db
from portal.models import Address, Preference
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.sync import sync_list
from tests.conftest import Clock
from tests.domain.test_merge_space import reachable
from tests.factories import NOW, change_main_addresses, make_preference, make_user
from tests.real.base import RealProgram

pytestmark = pytest.mark.slow

LIST = "ants"
EMAIL = f"{LIST}@lists.example.org"
RULES = {
    "remove": Rules(),
    "keep": Rules(remove_on_departure=False),
    "the portal wins": Rules(honour_list_changes=False),
}
Row = tuple[bool, bool | None, bool, bool]  # subscribed, seen, touched, waiting


@dataclass(frozen=True)
class State:
    """One address: what the portal knows, what is true at the list, and what becomes of it."""

    address: str
    state: AddressState
    on_roster: bool
    is_held: bool = False
    is_banned: bool = False

    def action(self, rules: Rules) -> Action:
        return decide(self.state, on_roster=self.on_roster, rules=rules)

    @property
    def is_withdrawn(self) -> bool:
        return self.is_held and self.state.waiting and not self.state.preference

    def after(self, rules: Rules) -> AddressState:
        action = self.action(rules)
        push = None
        if action in {Action.ADD, Action.REMOVE}:
            push = PushResult(self.ends_on(rules), is_refused=action is Action.ADD and self.is_banned)
        state = replace(self.state, waiting=False) if self.is_withdrawn else self.state
        return conclude(state, action, on_roster=self.on_roster, push=push)

    def ends_on(self, rules: Rules) -> bool:
        action = self.action(rules)
        if action is Action.ADD:
            return not (self.is_held or self.is_banned)
        return self.on_roster and action is not Action.REMOVE


def states(program: RealProgram, rules: Rules) -> list[State]:
    """Every state that can be reached with a list manager of this kind; those that are added once more as banned."""
    here = (world for world in reachable(rules) if not world.state.has_moved)
    found = {(world.state, world.on_roster, world.at_moderator) for world in here}
    ordered = [each for each in sorted(found, key=repr) if program.can_hold or not each[2]]
    plain = [State(f"s{number}@example.org", *each) for number, each in enumerate(ordered)]
    adds = [each for each in plain if each.action(rules) is Action.ADD and not each.is_held]
    banned = [replace(each, address=f"banned.{each.address}", is_banned=True) for each in adds]
    return plain + (banned if program.can_ban else [])


class Stage:
    """A portal, and a real list manager with one list."""

    def __init__(self, app: Flask, session: Session, program: RealProgram) -> None:
        self.portal: Portal = app.extensions["portal"]
        self.session, self.program = session, program
        self.mailing_list = self.portal.catalogue().get(LIST)

    def sync(self) -> SyncResult:
        manager = self.portal.open_list_manager(self.mailing_list)
        clock = self.portal.clock
        return sync_list(self.session, self.mailing_list, manager, clock=clock, request=Request())

    def roster(self) -> set[str]:
        return self.program.roster(LIST)

    def set_up(self, every: Iterable[State]) -> None:
        every = list(every)
        for each in every:
            _store(self.session, each.address, each.state)
        self.program.set_roster(LIST, [each.address for each in every if each.on_roster])
        for each in every:
            if each.is_held:
                self.program.hold(LIST, each.address)
            if each.is_banned:
                self.program.ban(LIST, each.address)

    def rows(self) -> dict[str, Row]:
        columns = (Preference.subscribed, Preference.seen, Preference.touched, Preference.waiting_since)
        found = self.session.execute(
            select(Address.canonical, *columns).join(Preference, Preference.address_id == Address.id)
        ).all()
        self.session.rollback()
        return {row.canonical: (*row[1:4], row.waiting_since is not None) for row in found}


@pytest.fixture(params=RULES)
def rules(request: pytest.FixtureRequest) -> Rules:
    return RULES[request.param]


@pytest.fixture
def stage(
    program: RealProgram, rules: Rules, instance: object, make_app: Callable[..., Flask], clock: Clock
) -> Iterator[Stage]:
    program.make_list(LIST)
    (instance / "mailinglists.toml").write_text(_catalogue(program, rules))
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        yield Stage(app, session, program)
    assert program.queued_mails() == []
    program.make_list(LIST)


def test_a_run_does_with_every_state_what_the_rules_say_and_the_next_one_does_nothing(stage, rules):
    every = states(stage.program, rules)
    assert len(every) > 60
    stage.set_up(every)
    assert stage.roster() == {each.address for each in every if each.on_roster}

    sync_result = stage.sync()

    assert stage.roster() == {each.address for each in every if each.ends_on(rules)}
    assert stage.rows() == {
        each.address: (after.preference, after.seen, after.touched, after.waiting)
        for each in every
        if (after := each.after(rules)).preference is not None
    }
    added = {each.address for each in every if each.action(rules) is Action.ADD}
    assert sync_result.tally["added"] == len(added & stage.roster())
    assert {address for _action, address, _result, _words in sync_result.new_failures} == added - stage.roster()
    assert all(words for _action, _address, _result, words in sync_result.new_failures)
    if stage.program.can_hold:
        assert stage.program.held(LIST) == {each.address for each in every if each.is_held and not each.is_withdrawn}

    roster, rows = stage.roster(), stage.rows()
    again = stage.sync()
    assert again.tally == {"added": 0, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 0}
    assert (stage.roster(), stage.rows()) == (roster, rows)


@pytest.mark.parametrize("is_left", [False, True])  # at the list, with the old address, before the move
@pytest.mark.parametrize("is_joined", [False, True])  # by hand, with the new address, before the move
def test_who_changed_their_address_is_on_the_list_with_the_new_one_alone(
    stage: Stage, rules: Rules, clock: Clock, is_left: bool, is_joined: bool
) -> None:
    people = {make_user(stage.session, f"u{number}", f"x{number}@example.org"): number for number in range(3)}
    for number in people.values():
        make_preference(stage.session, LIST, f"x{number}@example.org", True, seen=True)
    on_roster = [] if is_left else [f"x{number}@example.org" for number in people.values()]
    on_roster += [f"y{number}@example.org" for number in people.values()] if is_joined else []
    stage.program.set_roster(LIST, ["stranger@example.net", *on_roster])
    wanted = {user_id: f"y{number}@example.org" for user_id, number in people.items()}
    lists = {LIST: stage.mailing_list}
    change_main_addresses(stage.session, wanted, now=clock(), lists=lists)

    stage.sync()

    follows = is_joined or not (is_left and rules.honour_list_changes)
    moved = {f"y{number}@example.org" for number in people.values()} if follows else set()
    assert stage.roster() == {"stranger@example.net", *moved}
    assert stage.sync().tally == {"added": 0, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 0}
    assert stage.roster() == {"stranger@example.net", *moved}


def test_how_a_subscriber_gets_mail_and_who_is_a_stranger_is_left_alone(stage, rules):
    names = {"alice": "digest", "bob": "no mail", "charlie": "normal"}
    for name in names:
        _store(stage.session, f"{name}@example.org", AddressState(True, None, touched=True))
    stage.program.set_roster(
        LIST, ["bob@example.org", "stranger@example.net"], digest=["alice@example.org", "reader@example.net"]
    )
    if stage.program.has_no_mail:
        stage.program.set_no_mail(LIST, "bob@example.org")
        stage.program.set_no_mail(LIST, "stranger@example.net")

    assert stage.sync().tally == {"added": 1, "removed": 0, "refused": 0, "waiting": 0, "no_effect": 0}

    everybody = {f"{name}@example.org" for name in names} | {"stranger@example.net", "reader@example.net"}
    assert stage.roster() == everybody
    assert stage.program.digest_roster(LIST) == {"alice@example.org", "reader@example.net"}
    if stage.program.has_no_mail:
        assert stage.program.no_mail_roster(LIST) == {"bob@example.org", "stranger@example.net"}


def _store(session: Session, address: str, state: AddressState) -> None:
    """Write a state as rows: an account, active where the address is managed, and the preference if there is one."""
    make_user(session, address.replace("@", "."), address, is_active=state.is_managed)
    if state.preference is not None:
        make_preference(
            session,
            LIST,
            address,
            state.preference,
            seen=state.seen,
            touched=state.touched,
            waiting_since=NOW if state.waiting else None,
            departed=state.is_dealt_with,
        )


def _catalogue(program: RealProgram, rules: Rules) -> str:
    settings = "\n".join(f"{key} = {json.dumps(value)}" for key, value in program.manager_table().items())
    name = program.list_setting(LIST)
    return f"""
enabled = true
honour_list_changes = {json.dumps(rules.honour_list_changes)}
on_departure = "{"remove" if rules.remove_on_departure else "keep"}"
safety_limits = {{ removals = 1000, additions = 1000 }}

[lists.{LIST}]
name = "Ants"
email = "{EMAIL}"
syncpws = false
{"" if name in {LIST, EMAIL} else f'list = "{name}"'}

[managers.real]
kind = "{program.kind}"
{settings}
"""
