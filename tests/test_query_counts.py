"""How many statements, rows and calls are needed: the bars of docs/performance.md that are counts."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from portal.domain.roster_text import RosterText
from portal.domain.run import RunKind
from portal.errors import RosterInDoubtError, SafetyLimitError
from portal.extensions import Portal, db
from portal.services.accounts import api_keys
from portal.services.history import COMMAND_LINE
from portal.services.preferences.preferences import choose_for
from portal.services.sync import runs
from portal.services.sync.list_init import list_init
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock, Rosters
from tests.factories import give_name, make_preference, make_user
from tests.fakes.memory import MemoryList
from tests.web.conftest import HASH, Client, Visitor

_WRITTEN = re.compile(r"(?:INSERT INTO|UPDATE|DELETE FROM) (\w+)")


@dataclass
class Traffic:
    statements: list[str] = field(default_factory=list)
    commits: int = 0

    def written(self) -> set[str]:
        """The tables that a statement wrote to, even where no row differed."""
        return {found[1] for each in self.statements if (found := _WRITTEN.match(each))}


@contextmanager
def traffic() -> Iterator[Traffic]:
    seen = Traffic()

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith("BEGIN"):
            seen.statements.append(statement)

    def note_commit(_connection: object) -> None:
        seen.commits += 1

    event.listen(db.engine, "before_cursor_execute", note)
    event.listen(db.engine, "commit", note_commit)
    try:
        yield seen
    finally:
        event.remove(db.engine, "before_cursor_execute", note)
        event.remove(db.engine, "commit", note_commit)


@pytest.mark.parametrize(("users", "lists"), [(1, 1), (40, 30)])
def test_a_page_takes_one_statement_and_a_save_five_for_any_number_of_users_and_lists(
    users: int, lists: int, instance: Path, make_app: Callable[..., Flask]
) -> None:
    handles = [f"list{number}" for number in range(lists)]
    tables = "".join(f'[lists.{each}]\nname = "{each}"\nemail = "{each}@lists.example.org"\n' for each in handles)
    (instance / "mailinglists.toml").write_text(
        f'enabled = true\n{tables}[managers.files]\nkind="file"\ndirectory="."\n'
    )
    app = make_app()
    app.test_client_class = Client
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "alice", password_hash=HASH, groups=("board", "tech"))
        for number in range(users):
            make_user(session, f"member{number}", "alice@example.org", f"member{number}@example.org")
        for each in handles[::2]:
            make_preference(session, each, "alice@example.org", subscribed=True, seen=True)
        alice = Visitor(app.test_client())
        alice.log_in("alice")

        with traffic() as of_page:
            page = alice.get("/subscriptions")
        form = {
            "csrf_token": page.token,
            "shown": page.value("shown"),
            "lists": handles[1::2],
        }  # every box the other way
        with traffic() as of_save:
            saved = alice.client.post("/subscriptions", data=form)

        assert (len(of_page.statements), of_page.commits) == (1, 0), of_page.statements
        assert saved.status_code == 303
        # Who is logged in; then the account is locked, read, written, and the history is told.
        assert (len(of_save.statements), of_save.commits) == (5, 1), of_save.statements
        assert alice.get("/subscriptions").ticked() == set(handles[1::2])


def test_a_second_list_init_writes_nothing(app: Flask, session: Session, clock: Clock) -> None:
    for username in ("alice", "bob", "charlie"):
        make_user(session, username)
    make_preference(session, "members", "alice@example.org", subscribed=True)
    members = app.extensions["portal"].catalogue().get("members")
    roster = [b"alice@example.org\n", b"Bob@example.org\n", b"stranger@example.net\n"]

    with traffic() as first:
        list_init(session, members, RosterText(roster), now=clock())
    clock.advance(hours=1)
    with traffic() as second:
        list_init(session, members, RosterText(roster), now=clock())

    assert {"preferences", "history"} <= first.written()  # the measurement works
    kept = {each for each in second.written() if not each.startswith("portal_")}  # those are temporary tables
    assert kept == {"leases"}


def test_a_sync_tells_the_list_manager_the_difference_and_nothing_else(app: Flask, session: Session) -> None:
    portal: Portal = app.extensions["portal"]
    members = portal.catalogue().get("members")
    manager = MemoryList(batch=3)
    manager.join("stranger@example.net")
    for number in range(20):
        make_user(session, f"member{number:02}")
        if number % 2:
            manager.join(f"Member{number:02}@Example.org")

    def calls() -> list[tuple[str, tuple[str, ...]]]:
        manager.calls.clear()
        sync_list(session, members, manager, clock=portal.clock, request=Request())
        return manager.calls

    assert calls() == [("roster", ())]  # it takes over what the list says
    for number in range(8):
        choose_for(
            session, members, username=f"member{number:02}", is_subscribed=not number % 2,
            actor=COMMAND_LINE, now=portal.clock(),
        )  # fmt: skip

    told = calls()
    assert [name for name, _ in told] == ["roster", "remove", "remove", "add", "add", "roster"]
    assert sorted(each for name, batch in told if name == "add" for each in batch) == [
        f"member{number:02}@example.org" for number in (0, 2, 4, 6)
    ]
    assert sorted(each for name, batch in told if name == "remove" for each in batch) == [
        f"Member{number:02}@Example.org" for number in (1, 3, 5, 7)
    ]
    assert calls() == [("roster", ())]


def beneath_subqueries(rows: list[Any]) -> str:
    """Return what a plan does beneath its subqueries; SQLite numbers the lines of a plan, and names the one above."""
    if len(rows[0]) == 1:
        return "".join(re.split("SubPlan", "\n".join(row[0] for row in rows))[1:])
    inside: set[int] = set()
    for number, above, _, words in rows:
        if above in inside or "CORRELATED" in words:
            inside.add(number)
    return "\n".join(words for number, _, _, words in rows if number in inside)


def test_no_subquery_is_run_over_a_temporary_table_for_each_row(app: Flask, session: Session, clock: Clock) -> None:
    """What is quadratic once a roster no longer fits into memory: a subquery over it in each row's select list."""
    for number in range(30):
        make_user(session, f"user{number}", f"user{number}@example.org")
    plans: dict[str, str] = {}

    @event.listens_for(db.engine, "before_cursor_execute")
    def explain(connection, cursor, statement, parameters, context, executemany):
        if "portal_" in statement and " JOIN " in statement and not statement.startswith("EXPLAIN"):
            way = "EXPLAIN" if connection.dialect.name == "postgresql" else "EXPLAIN QUERY PLAN"
            cursor.execute(f"{way} {statement}", parameters)
            plans[statement] = beneath_subqueries(cursor.fetchall())

    try:
        members = app.extensions["portal"].catalogue().get("members")
        list_init(
            session, members, RosterText([f"user{number}@example.org\n".encode() for number in range(20)]), now=clock()
        )
    finally:
        event.remove(db.engine, "before_cursor_execute", explain)

    assert len(plans) >= 4
    for statement, beneath in plans.items():
        assert not re.search(r"portal_(roster|known|firsts|agreed)", beneath), (statement, beneath)


# Every page, with what it takes to have one of each of its rows. A page that is new has to be put here.
PAGES = {
    "account.show": "/account",
    "account.history": "/account/history",
    "subscriptions.show": "/subscriptions",
    "subscriptions.ask_to_leave": "/subscriptions/leave",
    "admin.lists.index": "/admin/",
    "admin.one_list.show": "/admin/lists/members",
    "admin.one_list.preview": "/admin/lists/members/change?bulk_action=unsubscribe",
    "admin.one_list.export": "/admin/lists/members/export?format=csv",
    "admin.one_list.why": "/admin/lists/members/why?q=member001@example.org",
    "admin.person.history": "/admin/users/2/history",
    "admin.person.ask_to_take_off": "/admin/users/2/off-all-lists",
    "admin.readings.without_account": "/admin/lists/members/without-account",
    "admin.numbers.index": "/admin/numbers",
    "admin.numbers.export": "/admin/numbers/export",
    "admin.runs.index": "/admin/runs",
    "admin.runs.show": "/admin/runs/1",
    "admin.mail.index": "/admin/mail",
    "demo_mail.show": "/demo/mail",
    "admin.people.index": "/admin/users",
    "admin.people.export": "/admin/users/export",
    "admin.people.preview": "/admin/users/change?change=deactivate&of=all",
    "admin.users.history": "/admin/users/history",
    "admin.users.new": "/admin/users/new",
    "admin.user_addresses.new": "/admin/users/2/addresses/new",
    "admin.user_addresses.ask_to_change": "/admin/users/2/addresses/2/main",
    "own_addresses.show": "/account/addresses",
    "links.ask": "/link/ask",
    "links.leave": "/leave",
    "links.receive": "/link/unknown",
    "links.show": "/link",
    "links.choose_password": "/link/password",
    "admin.linking.ask_to_link": "/admin/users/1/link",
    "admin.linking.ask_to_unlink": "/admin/users/1/unlink",
    "admin.linking.ask_to_merge": "/admin/users/1/merge",
    "admin.imports.index": "/admin/users/imports",
    "admin.imports.show": "/admin/users/imports/1",
    "admin.imports.problems": "/admin/users/imports/1/problems",
    "admin.users.show": "/admin/users/1",
    "admin.users.ask_to_change": "/admin/users/2/deactivate",
    "admin.users.ask_to_reset_password": "/admin/users/2/password",
    "admin.users.show_password": "/admin/users/2/new-password",
    "admin.users.delete": "/admin/users/1/delete",
    "admin.search.index": "/admin/search?q=member",
    "admin.api_keys.index": "/admin/api-keys",
    "admin.api_keys.show_new": "/admin/api-keys/00000000/new",
}


@pytest.mark.slow
def test_no_page_takes_more_statements_for_more_rows(
    app: Flask, session: Session, clock: Clock, rosters: Rosters
) -> None:
    app.test_client_class = Client
    portal: Portal = app.extensions["portal"]
    members = portal.catalogue().get("members")
    make_user(session, "bob", is_superuser=True, password_hash=HASH)
    bob = Visitor(app.test_client())
    bob.log_in("bob")

    def grow(numbers: range) -> None:
        for number in numbers:
            name = f"member{number:03}"
            make_user(session, name, groups=(f"group{number}",))
            make_preference(session, "members", f"{name}@example.org", number % 2 == 0, seen=number % 3 == 0)
            session.commit()
            give_name(session, name, f"Member {number}")
            choose_for(session, members, username="bob", is_subscribed=number % 2 == 0, actor=COMMAND_LINE, now=clock())
            api_keys.create(session, "bob", label=name, expires_days=None, now=clock())
            runs.request(
                session, "members", kind=RunKind.SYNC, actor=COMMAND_LINE, now=clock(), plan_id=f"{number:016}"
            )
            with suppress(SafetyLimitError, RosterInDoubtError):
                sync_list(session, members, portal.open_list_manager(members), clock=clock, request=Request())

    def statements() -> dict[str, int]:
        found = {}
        for name, path in PAGES.items():
            with traffic() as of_page:
                assert bob.client.get(path).status_code in {200, 302, 303, 404, 410}, path
            found[name] = len(of_page.statements)
        return found

    shown = {rule.endpoint for rule in app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    aside = ("static", "health.", "api.", "sign_in.log_in", "subscriptions.home")
    assert {each for each in shown if not each.startswith(aside)} == set(PAGES)
    grow(range(3))
    few = statements()
    grow(range(3, 70))
    assert statements() == few
