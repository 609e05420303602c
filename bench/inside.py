"""Measurements within one process; ``run.py`` calls it with a task and a number of rounds and gets JSON."""

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from contextvars import Context
from dataclasses import dataclass, field
from functools import partial
from html import unescape
from statistics import median
from typing import Any

import members
from flask import Flask
from sqlalchemy import event, select
from werkzeug.test import TestResponse

from portal import create_app, database
from portal.domain.mailinglist import MailingList
from portal.extensions import Portal, db
from portal.listmanagers.base import ListManager, Outcome
from portal.models import Address, Preference, User
from portal.services.accounts.passwords import hash_password
from portal.services.history import COMMAND_LINE
from portal.services.preferences.preferences import choose, choose_for
from portal.services.sync import requested, runs
from portal.services.sync.run_steps import Request
from portal.services.sync.runs import RequestedRun
from portal.services.sync.sync import read_roster, sync_list
from portal.services.transaction import reading, transaction

SAVES, MINUTES = 500, 10  # saves in an hour, and how many of its minutes are measured
MOVES = 10  # adds, and as many removals
HANDLE = "agreed"


def sync_and_read(app: Flask, rounds: int) -> dict[str, float]:
    """Return seconds of processor time, medians: a sync without changes, and reading its input."""
    return _sync_and_read(app, rounds, time.process_time)


def sync_and_read_by_rest(app: Flask, rounds: int) -> dict[str, float]:
    """Return the same in elapsed time, since the list manager is a separate process; only its roster is read."""
    return _sync_and_read(app, rounds, time.perf_counter, reads_preferences=False)


def _sync_and_read(
    app: Flask, rounds: int, clock: Callable[[], float], *, reads_preferences: bool = True
) -> dict[str, float]:
    portal: Portal = app.extensions["portal"]
    mailing_list = portal.catalogue().get(HANDLE)
    manager = portal.open_list_manager(mailing_list)

    def sync() -> None:
        sync_list(db.session(), mailing_list, manager, clock=portal.clock, request=Request())

    def read() -> None:
        read_roster(manager.roster())
        if reads_preferences:
            _read_preferences(mailing_list)

    spent: dict[str, list[float]] = {"sync": [], "read": []}
    for _ in range(rounds):
        for name, task in (("sync", sync), ("read", read)):
            spent[name].append(_seconds(task, clock))
    return {name: median(each) for name, each in spent.items()}


def _read_preferences(mailing_list: MailingList) -> None:
    """Stream the rows of a list: each with its address and all columns that the merge looks at."""
    query = (
        select(Address.id, Address.canonical, Preference.subscribed, Preference.seen, Preference.touched)
        .add_columns(Preference.departed, Preference.waiting_since, Preference.moved_to, Preference.refused_at)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == mailing_list.handle)
    )
    with reading(db.session()) as session:
        for block in database.stream(session.connection(), query):
            for row in block:
                del row


def _seconds(task: Callable[[], object], clock: Callable[[], float]) -> float:
    began = clock()
    task()
    return clock() - began


def statements_of_a_page(app: Flask, _rounds: int) -> dict[str, int]:
    """Return the number of SQL statements of a member's page and of saving it, without commits."""
    with transaction(db.session()) as session:
        session.get_one(User, 1).password_hash = hash_password(members.PASSWORD, rounds=4)
    client = app.test_client()

    def ask(path: str, **options: Any) -> TestResponse:
        """Send a request that shares nothing with this task's context."""
        return Context().run(lambda: client.open(path, **options))

    form = {"username": "member1", "password": members.PASSWORD}
    ask("/login", method="POST", data={**form, "csrf_token": _field("csrf_token", ask("/login").text)})
    with _counted() as of_page:
        page = ask("/subscriptions").text
    form = {name: _field(name, page) for name in ("csrf_token", "shown")}
    with _counted() as of_save:
        answer = ask("/subscriptions", method="POST", data={**form, "lists": ["members", "news"]})
    if answer.status_code != 303:
        raise RuntimeError(f"the form was not saved: {answer.status}")
    save = [each for each in of_save if "login_sessions" not in each]  # keeping the log-in is no part of it
    return {"page": len(of_page), "save": len(save)}


# What superusers open; each fills a page with as many rows as it shows.
_FOR_SUPERUSERS = (
    "/admin/",
    "/admin/lists/agreed",
    "/admin/lists/agreed?state=subscribed&sort=-since&page=50",
    "/admin/lists/agreed?q=member.f",
    "/admin/runs",
    "/admin/users",
    "/admin/users?q=member99&active=yes",
    "/admin/users/2",
    "/admin/users/2/delete",
    "/admin/search?q=member.0",
    "/admin/search?q=member.9e3779b1@example.org",
    "/admin/api-keys",
)


def slowest_page(app: Flask, rounds: int) -> dict[str, Any]:
    """Return the milliseconds of processor time, including SQLite's, of each page for superusers, and the maximum."""
    with transaction(db.session()) as session:
        user = session.get_one(User, 1)
        user.password_hash, user.is_superuser = hash_password(members.PASSWORD, rounds=4), True
    client = app.test_client()

    def ask(path: str, **options: Any) -> TestResponse:
        answer = Context().run(lambda: client.open(path, **options))
        if answer.status_code not in {200, 302, 303}:  # a whole address leads to its person
            raise RuntimeError(f"{path}: {answer.status}")
        return answer

    form = {"username": "member1", "password": members.PASSWORD}
    ask("/login", method="POST", data={**form, "csrf_token": _field("csrf_token", ask("/login").text)})
    spent: dict[str, float] = {}
    for path in _FOR_SUPERUSERS:
        ask(path)
        spent[path] = 1000 * median(_seconds(partial(ask, path), time.process_time) for _ in range(rounds))
    return {"pages": spent, "most": max(spent.values())}


def slowest_and_home(app: Flask, rounds: int) -> dict[str, Any]:
    """Return the result of ``slowest_page``, and the milliseconds of the superusers' start page."""
    found = slowest_page(app, rounds)
    return {**found, "home": found["pages"]["/admin/"]}


def sync_of_a_committee(app: Flask, rounds: int) -> dict[str, float]:
    """Return the seconds of processor time that a sync without changes takes, of a list that ten may see."""
    portal: Portal = app.extensions["portal"]
    committee = portal.catalogue().get("committee")
    manager = portal.open_list_manager(committee)

    def sync() -> None:
        sync_list(db.session(), committee, manager, clock=portal.clock, request=Request())

    sync()  # the first takes over what the roster says
    return {"seconds": median(_seconds(sync, time.process_time) for _ in range(rounds))}


def hour_of_saves(app: Flask, _rounds: int) -> dict[str, float]:
    """Return what an hour of saves takes on lists that apply changes at once, minute by minute as cron does.

    Seconds of processor time of all runs in an hour, how many, and milliseconds of a save; some minutes are measured.
    """
    portal: Portal = app.extensions["portal"]
    handles = [handle for handle, each in portal.catalogue().lists.items() if each.is_applied_at_once]
    spent, number = {"saves": 0.0, "runs": 0.0}, 0

    def save(member: int) -> None:
        handle, is_on = handles[member * 7 % len(handles)], member % 2 == 1
        choose(
            db.session(),
            member,
            shown={handle: member if is_on else 0},  # an address has the number of its member
            ticked=() if is_on else {handle},
            catalogue=portal.catalogue(),
            now=portal.clock(),
        )

    for minute in range(MINUTES):
        for member in range(SAVES * minute // 60, SAVES * (minute + 1) // 60):
            spent["saves"] += _seconds(partial(save, member + 1), time.process_time)
        asked = runs.due(db.session(), now=portal.clock())
        number += len(asked)
        spent["runs"] += sum(_seconds(partial(_carry_out, portal, each), time.process_time) for each in asked)
    hours = MINUTES / 60
    return {"seconds": spent["runs"] / hours, "runs": number / hours, "save": 1000 * spent["saves"] / (SAVES * hours)}


def _carry_out(portal: Portal, asked: RequestedRun) -> None:
    runs.claim(db.session(), asked, now=portal.clock())
    requested.carry_out(
        db.session(),
        asked,
        catalogue=portal.catalogue(),
        open_list_manager=portal.open_list_manager,
        clock=portal.clock,
    )


def _field(name: str, page: str) -> str:
    found = re.search(rf'name="{name}"[^>]*value="([^"]*)"', page) or re.search(
        rf'value="([^"]*)"[^>]*name="{name}"', page
    )
    if found is None:
        raise RuntimeError(f"the page has no field {name}")
    return unescape(found[1])


@contextmanager
def _counted() -> Any:
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            statements.append(statement)

    event.listen(db.engine, "before_cursor_execute", note)
    try:
        yield statements
    finally:
        event.remove(db.engine, "before_cursor_execute", note)


@dataclass
class _Listening:
    """A list manager that counts its calls."""

    manager: ListManager
    calls: list[tuple[str, int]] = field(default_factory=list)
    batch = 100_000

    def timeout(self, count: int) -> float:
        return self.manager.timeout(count)

    def check(self) -> str:
        return self.manager.check()

    def roster(self) -> Sequence[str]:
        self.calls.append(("roster", 0))
        return self.manager.roster()

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        self.calls.append(("add", len(addresses)))
        return self.manager.add(addresses)

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        self.calls.append(("remove", len(addresses)))
        return self.manager.remove(addresses)


def calls_of_a_sync(app: Flask, _rounds: int) -> dict[str, Any]:
    """Return the calls and the number of addresses in each: of a sync of twice MOVES choices, and of the next."""
    portal: Portal = app.extensions["portal"]
    mailing_list = portal.catalogue().get(HANDLE)
    for number in range(1, 2 * MOVES + 1):
        choose_for(
            db.session(),
            mailing_list,
            username=f"member{number}",
            is_subscribed=number % 2 == 0,  # the other way round
            actor=COMMAND_LINE,
            now=portal.clock(),
        )
    answer = {}
    for name in ("moves", "nothing"):
        manager = _Listening(portal.open_list_manager(mailing_list))
        sync_list(db.session(), mailing_list, manager, clock=portal.clock, request=Request())
        answer[name] = manager.calls
    return {**answer, "choices": 2 * MOVES}


TASKS: dict[str, Callable[[Flask, int], Any]] = {
    "sync": sync_and_read,
    "rest": sync_and_read_by_rest,
    "superusers": slowest_page,
    "grown": slowest_and_home,
    "committee": sync_of_a_committee,
    "hour": hour_of_saves,
    "page": statements_of_a_page,
    "calls": calls_of_a_sync,
}

if __name__ == "__main__":
    application = create_app()
    with application.app_context():
        print(json.dumps(TASKS[sys.argv[1]](application, int(sys.argv[2]))))
