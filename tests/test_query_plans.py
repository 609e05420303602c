"""Queries about one list or one address use an index, because these tables grow for years."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.orm import Session

from portal.extensions import portal
from portal.services import outbox
from portal.services.accounts import directory
from portal.services.accounts import log as account_log
from portal.services.accounts.directory import Wanted
from portal.services.preferences import own_history, preferences
from portal.services.reports import counting, person_history, trends
from portal.services.reports import lists as list_reports
from portal.services.reports import runs as run_reports
from portal.services.sync import plans
from tests.factories import NOW, make_user

GROWING = ("history", "runs", "run_lines", "account_changes")

QUERIES: dict[str, Callable[[Session], Any]] = {
    "history of an address": lambda session: list_reports.history(session, address="alice@example.org"),
    "history of an address on a list": lambda session: list_reports.history(
        session, handle="members", address="alice@example.org"
    ),
    "a member's own history": lambda session: own_history.page(session, 1, handles=["members"]),
    "a person's history": lambda session: person_history.page(session, 1),
    "changes of an account": lambda session: account_log.page(session, user_id=1),
    "a page of runs of a list": lambda session: list_reports.page_of_runs(session, handle="members"),
    "runs of a list": lambda session: list_reports.runs(session, handle="members"),
    "lines of a run": lambda session: run_reports.lines(session, 1),
    "unfinished acts on a list": lambda session: plans.unfinished_acts(session, "members"),
    "accepted lines of a list": lambda session: plans.accepted_lines(session, "members"),
    "lists that need a look": lambda session: list_reports.alarms(session, catalogue=portal().catalogue(), now=NOW),
    "reports of all lists": lambda session: list_reports.lists(session, catalogue=portal().catalogue(), now=NOW),
    "the weeks of all lists": lambda session: trends.weeks(session, ["members", "tech"], now=NOW),
    "recent lines of a list": lambda session: plans.recent_lines(session, "members", now=NOW),
}


@pytest.mark.parametrize("query", QUERIES.values(), ids=QUERIES)
def test_no_question_about_one_list_or_address_reads_a_whole_table(
    session: Session, query: Callable[[Session], Any]
) -> None:
    make_user(session, "alice")
    asked = [each for each in statements_of(session, query) if re.search(rf"FROM ({'|'.join(GROWING)})\b", each[0])]

    assert asked
    assert [scan for each in asked for scan in whole_tables(session, *each)] == []


PEOPLE = ("addresses", "users", "user_addresses")


def test_a_plan_for_an_audience_begins_with_its_groups(session: Session) -> None:
    make_user(session, "alice", groups=("board",))
    board = portal().catalogue().get("board")
    roster = {"alice@example.org": "alice@example.org", "eve@example.net": "eve@example.net"}

    def ask(session: Session) -> None:
        plans.make_plan(session, board, roster, now=NOW)
        for query in (
            plans.with_preference(board),
            plans.without_preference(board),
        ):  # the plan has the driver stream them
            session.execute(query)

    asked = statements_of(session, ask)

    assert any("user_groups" in statement for statement, _ in asked)
    assert [scan for each in asked for scan in whole_tables(session, *each, tables=PEOPLE)] == []


def test_a_members_page_finds_all_that_it_needs_by_indexes(session: Session) -> None:
    make_user(session, "alice", groups=("board",))
    asked = statements_of(session, lambda session: preferences.logged_in(session, "no such token", now=NOW))

    assert len(asked) == 1
    tables = (*PEOPLE, "login_sessions", "user_groups", "preferences", "member_deliveries")
    assert [scan for each in asked for scan in whole_tables(session, *each, tables=tables)] == []


@pytest.mark.parametrize("index", ["ix_preferences_list_handle", "ix_users_is_active", "ix_addresses_let_go_at"])
def test_the_counts_of_lists_find_by_an_index_what_is_rare(session: Session, index: str) -> None:
    """Preferences that differ from the list, deactivated accounts, and addresses that were let go."""
    make_user(session, "alice")
    lists = list(portal().catalogue().lists.values())
    asked = statements_of(session, lambda session: counting.count_states(session, lists))

    assert [step for each in asked for step in steps_of(session, *each) if index in step]


def test_the_next_mail_is_found_without_sorting_those_that_wait(session: Session) -> None:
    asked = statements_of(session, lambda session: outbox.claim(session, now=NOW, bulk_per_minute=60))

    steps = [step for each in asked if "FROM outbox" in each[0] for step in steps_of(session, *each)]
    assert steps
    assert [each for each in steps if re.search("Sort|B-TREE", each)] == []


def test_a_page_of_people_by_name_is_read_in_the_order_of_an_index(session: Session) -> None:
    make_user(session, "alice", groups=("board",))
    asked = statements_of(session, lambda session: directory.page(session, Wanted(group="board"), lists={}))

    held = ("addresses", "user_addresses", "user_groups")
    assert [scan for each in asked for scan in whole_tables(session, *each, tables=held)] == []
    (ids,) = [each for each in asked if re.match(r"SELECT users\.id \s*FROM users", each[0]) and "LIMIT" in each[0]]
    # Among those of one name alone something is left to be sorted.
    assert [step for step in steps_of(session, *ids) if re.search("(->  |')Sort |B-TREE FOR ORDER BY", step)] == []


def steps_of(session: Session, statement: str, values: Any) -> list[str]:
    """Return the steps of a statement's plan, where nothing is sorted that an index could have in its order."""
    connection = session.connection()
    is_postgresql = connection.dialect.name == "postgresql"
    for switch in ("seqscan", "bitmapscan", "sort") if is_postgresql else ():
        connection.execute(text(f"SET LOCAL enable_{switch} = off"))  # a small table is sorted where that is allowed
    explain = "EXPLAIN" if is_postgresql else "EXPLAIN QUERY PLAN"
    return [str(row) for row in connection.exec_driver_sql(f"{explain} {statement}", values)]


def statements_of(session: Session, query: Callable[[Session], Any]) -> list[tuple[str, Any]]:
    """Return the statements that are run, each with its values; what is streamed among them."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: object, _cursor: object, statement: str, values: object, *_: object) -> None:
        statements.append((statement, values))

    bind: Any = session.get_bind()
    event.listen(bind, "before_cursor_execute", note)
    try:
        query(session)
    finally:
        event.remove(bind, "before_cursor_execute", note)
    return statements


def whole_tables(session: Session, statement: str, values: Any, *, tables: Sequence[str] = GROWING) -> list[str]:
    """Return the steps of a statement's plan that read one of some tables from end to end."""
    connection = session.connection()
    if connection.dialect.name == "postgresql":
        connection.execute(text("SET LOCAL enable_seqscan = off"))  # few rows are read whole where that is allowed
        steps = connection.exec_driver_sql(f"EXPLAIN {statement}", values).scalars().all()
        return [step for step in steps if re.search(rf"Seq Scan on ({'|'.join(tables)})\b", step)]
    steps = [row[3] for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values)]
    return [step for step in steps if re.match(rf"SCAN ({'|'.join(tables)})\b", step)]
