"""Lists that are paused: choices are kept, nothing is read or pushed. SEMANTICS, "Safety"."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.errors import PausedError
from portal.models import Run
from portal.services.preferences import preferences
from portal.services.sync import list_passwords
from tests.conftest import CATALOGUE, Rosters
from tests.factories import make_user

FOR_ALL = CATALOGUE.replace("enabled = true", "enabled = true\npaused = true")
FOR_ONE = CATALOGUE.replace('name = "Members"', 'name = "Members"\npaused = true')
NOT_FOR_ONE = FOR_ALL.replace('name = "Members"', 'name = "Members"\npaused = false')


@pytest.fixture
def paused(make_app: Callable[..., Flask], rosters: Rosters, instance: Path) -> Callable[..., Flask]:
    """Return an application whose catalogue is a text."""

    def make(catalogue: str = FOR_ALL, **environ: str) -> Flask:
        (instance / "mailinglists.toml").write_text(catalogue)
        return make_app(**environ)

    return make


@pytest.mark.parametrize(
    ("catalogue", "environ", "handles"),
    [
        (CATALOGUE, {}, set()),
        (FOR_ALL, {}, {"members", "tech", "board"}),
        (FOR_ONE, {}, {"members"}),
        (NOT_FOR_ONE, {}, {"tech", "board"}),
        (NOT_FOR_ONE, {"PORTAL_PAUSED": "true"}, {"members", "tech", "board"}),
    ],
)
def test_lists_are_paused_one_by_one_all_together_or_by_the_portal(paused, catalogue, environ, handles):
    lists = paused(catalogue, **environ).extensions["portal"].catalogue().lists
    assert {handle for handle, each in lists.items() if each.is_paused} == handles


def test_a_sync_passes_over_a_paused_list_says_so_and_ends_with_0(paused, session: Session, rosters: Rosters):
    make_user(session, "alice")
    rosters.set("members", "alice@example.org")
    runner = paused(FOR_ONE).test_cli_runner()
    done = runner.invoke(args=["mailinglist", "sync", "-v", "members"])
    assert (done.exit_code, done.stdout) == (0, "members: paused, so nothing was read or pushed\n")
    records = json.loads(runner.invoke(args=["mailinglist", "sync", "--format", "json"]).stdout)
    assert [each.get("paused", False) for each in records] == [True, False, False]
    assert session.scalars(select(Run.list_handle).where(Run.list_handle == "members")).all() == []


@pytest.mark.parametrize(
    "words",
    [
        ["list-init", "members"],
        ["list-init", "--plan", "members"],
        ["report", "--without-account", "members"],
    ],
)
def test_what_reads_or_plans_is_75(paused, words):
    done = paused().test_cli_runner().invoke(args=["mailinglist", *words], input="alice@example.org\n")
    assert (done.exit_code, done.stderr.startswith("error: members is paused")) == (75, True)


def test_no_list_password_is_pushed(paused, session: Session):
    members = paused().extensions["portal"].catalogue().lists["members"]
    with pytest.raises(PausedError):
        list_passwords.push(session, members, None, key=b"")


def test_what_members_choose_is_kept(paused, session: Session, clock):
    catalogue = paused().extensions["portal"].catalogue()
    user_id = make_user(session, "alice")
    shown = {"members": False}
    choices = preferences.choose(session, user_id, shown=shown, ticked={"members"}, catalogue=catalogue, now=clock())
    assert [each.is_changed for each in choices] == [True]
