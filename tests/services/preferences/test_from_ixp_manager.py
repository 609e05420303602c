"""Preferences from another system: what is taken over, what is not, and that a first run then waits for a yes."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.ixp_manager import PreferenceText
from portal.errors import BadInputError, DisabledError, SafetyLimitError
from portal.extensions import db
from portal.models import Address, History, Preference, UserAddress
from portal.services.preferences import from_ixp_manager
from portal.services.preferences.from_ixp_manager import Imported, ListCounts, import_preferences
from portal.services.sync.sync import Request, sync_list
from tests.conftest import Clock, Rosters
from tests.factories import NOW, make_address, make_preference, make_user

ROWS = "username,email,attribute,op,ix,value,expire\n"
Run = Callable[..., Imported]


@pytest.fixture
def run(app, session: Session, clock: Clock) -> Run:
    def run(content: str | bytes, *, overwrite: bool = False, is_dry: bool = False) -> Imported:
        raw = content.encode() if isinstance(content, str) else content
        catalogue = app.extensions["portal"].catalogue()
        return import_preferences(session, raw, catalogue=catalogue, now=clock(), overwrite=overwrite, is_dry=is_dry)

    return run


def row(user: str, handle: str, value: str, *, email: str = "") -> str:
    return f"{user},{email},mailinglist.{handle}.subscribed,=,0,{value},0\n"


def stored(session: Session, handle: str = "members") -> dict[str, bool]:
    rows = session.execute(
        select(Address.canonical, Preference.subscribed)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == handle)
    ).all()
    session.rollback()
    return {address.partition("@")[0]: subscribed for address, subscribed in rows}


def counts(found: Imported, handle: str = "members") -> dict[str, int]:
    (of_list,) = (each for each in found.lists if each.handle == handle)
    return {name: count for name, count in of_list._asdict().items() if count and name != "handle"}


def skipped(found: Imported) -> dict[str, int]:
    return {each.reason: each.times for each in found.skipped}


@pytest.fixture
def cast(session: Session) -> None:
    for name in ("alice", "bob", "charlie"):
        make_user(session, name)


def json_lines(*records: Any) -> str:
    return "".join(json.dumps(each) + "\n" for each in records)


OLD = ROWS + row("alice", "members", "1") + row("bob", "members", "0") + row("", "tech", "1", email="ALICE@example.org")
NEW = [
    {"username": "alice", "prefs": {"mailinglist": {"members": "1", "tech": 1}, "notes": {"all": 1}}},
    {"email": "bob@example.org", "prefs": {"mailinglist": {"members": 0, "tech": None}}},
    {"username": "charlie", "email": "charlie@example.org", "prefs": None},
]
QUOTED = (
    'Username,Prefs\nalice,"{""mailinglist"": {""members"": true, ""tech"": ""1""}}"\n'
    'bob,"{""mailinglist"": {""members"": ""0""}}"\ncharlie,"{""mailinglist"": []}"\n'
)


@pytest.mark.parametrize(
    "content",
    [
        OLD,
        "\ufeff\r\n" + OLD.replace("\n", "\r\n\r\n"),
        OLD.replace(",", ";"),
        OLD.replace(",", "\t"),
        json_lines(*({**each, "prefs": json.dumps(each["prefs"])} for each in NEW)),
        json_lines(*NEW),
        "\ufeff" + json.dumps(NEW, indent=2),
        QUOTED,
        QUOTED.replace('""', '\\"'),
        json_lines(
            {"username": "alice", "attribute": "mailinglist.members.subscribed", "value": "1"},
            {"username": "BOB", "attribute": "mailinglist.members.subscribed", "value": "0"},
            {"email": "alice@example.org", "attribute": "mailinglist.tech.subscribed", "value": 1},
        ),
    ],
)
def test_rows_and_json_of_all_spellings_are_read(session, cast, run, content):
    found = run(content)
    assert found.skipped == ()
    assert stored(session) == {"alice": True, "bob": False}
    assert stored(session, "tech") == {"alice": True}
    assert found.lists == (
        ListCounts("members", 1, 1, 0, 0, 0), ListCounts("tech", 1, 0, 0, 0, 0), ListCounts("board", 0, 0, 0, 0, 0)
    )  # fmt: skip


def test_a_preference_is_one_that_no_run_has_seen_and_nobody_has_just_chosen_and_history_tells_of_it(
    session, cast, run, clock
):
    run(OLD)
    alice = session.scalars(select(Preference).where(Preference.list_handle == "tech")).one()
    assert (alice.source, alice.changed_at, alice.changed_by) == ("import", clock(), None)
    assert (alice.seen, alice.touched, alice.departed, alice.waiting_since) == (None, False, False, None)
    lines = session.scalars(select(History).order_by(History.list_handle, History.address)).all()
    assert [(each.list_handle, each.address, each.subscribed, each.source, each.actor) for each in lines] == [
        ("members", "alice@example.org", True, "import", "command line"),
        ("members", "bob@example.org", False, "import", "command line"),
        ("tech", "alice@example.org", True, "import", "command line"),
    ]


def test_a_second_import_changes_nothing(session, cast, run):
    run(OLD)
    found = run(OLD, overwrite=True)
    assert counts(found) == {"kept": 2}
    assert len(session.scalars(select(History)).all()) == 3


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_stored_stays_but_a_yes_gives_way_to_a_no_where_that_is_asked_for(session, cast, run, overwrite):
    for name, subscribed in (("alice", True), ("bob", False), ("charlie", True)):
        make_preference(session, "members", f"{name}@example.org", subscribed, touched=True, refusal="banned")
    file = ROWS + row("alice", "members", "0") + row("bob", "members", "1") + row("charlie", "members", "1")
    found = run(file, overwrite=overwrite)
    assert stored(session) == {"alice": not overwrite, "bob": False, "charlie": True}
    assert counts(found) == ({"overwritten": 1, "refused": 1, "kept": 1} if overwrite else {"refused": 1, "kept": 2})
    changed = session.scalars(select(Preference).where(Preference.source == "import")).all()
    assert [(each.version, each.touched, each.refusal) for each in changed] == [(1, False, None)] * overwrite
    assert len(session.scalars(select(History)).all()) == overwrite


@pytest.mark.parametrize("overwrite", [False, True])
@given(before=st.sampled_from([None, True, False]), values=st.lists(st.sampled_from("01"), min_size=1, max_size=4))
def test_a_no_is_never_made_a_yes(app, overwrite, before, values):
    with app.app_context(), Session(db.engine) as session:
        for table in (Preference, UserAddress, Address):
            session.execute(table.__table__.delete())
        name = f"u{session.connection().exec_driver_sql('SELECT count(*) FROM users').scalar_one()}"
        session.commit()
        make_user(session, name)
        if before is not None:
            make_preference(session, "members", f"{name}@example.org", before)
        file = ROWS + "".join(row(name, "members", value) for value in values)
        catalogue = app.extensions["portal"].catalogue()
        import_preferences(session, file.encode(), catalogue=catalogue, now=NOW, overwrite=overwrite, is_dry=False)
        wants = "0" not in values
        expected = wants if before is None else before and (wants or not overwrite)
        assert stored(session) == {name: expected}


def test_of_two_who_share_a_mailbox_and_disagree_the_one_who_left_wins(session, run):
    make_user(session, "alice", "team@example.org")
    make_user(session, "bob", "team@example.org")
    found = run(ROWS + row("alice", "members", "0") + row("bob", "members", "1"))
    assert stored(session) == {"team": False}
    assert skipped(found) == {"both yes and no for one address, so no": 1}
    assert found.skipped[0].examples == ("line 3: team@example.org on members",)


def test_a_yes_is_for_the_main_address_and_a_no_for_all(session, run):
    make_user(session, "alice", "alice@example.org", "alice@home.example.org", "team@example.org")
    make_user(session, "bob", "bob@example.org", "team@example.org")
    run(ROWS + row("alice", "members", "1") + row("alice", "tech", "0"))
    rows = session.execute(
        select(Preference.list_handle, Address.canonical, Preference.subscribed)
        .join(Address, Address.id == Preference.address_id)
        .order_by(Preference.list_handle, Address.canonical)
    ).all()
    assert rows == [
        ("members", "alice@example.org", True),
        ("members", "alice@home.example.org", False),
        ("tech", "alice@example.org", False),
        ("tech", "alice@home.example.org", False),
        ("tech", "team@example.org", False),
    ]


def test_whoever_gets_the_list_at_another_address_already_keeps_it_there(session, run):
    make_user(session, "alice", "alice@example.org", "second@example.org")
    make_preference(session, "members", "second@example.org", True)
    found = run(ROWS + row("alice", "members", "1"))
    assert stored(session) == {"alice": False, "second": True}
    assert counts(found) == {"kept": 1, "unsubscribed": 1}


def test_a_row_with_an_address_alone_is_about_the_mailbox(session, run):
    make_user(session, "alice", "alice@example.org", "team@example.org")
    make_user(session, "bob", "bob@example.org", "team@example.org")
    run(ROWS + row("", "members", "0", email="Team@Example.ORG"))
    assert stored(session) == {"team": False}


def test_an_unknown_username_gives_way_to_the_address_beside_it(session, cast, run):
    run(ROWS + row("al", "members", "1", email="alice@example.org"))
    assert stored(session) == {"alice": True}


def test_what_cannot_be_taken_over_is_told_and_stops_nothing(session, cast, run):
    make_user(session, "dora", is_active=False)
    make_address(session, "nobodys@example.org")
    session.commit()
    found = run(
        (
            ROWS
            + row("eve", "members", "1")
            + row("", "members", "1", email="nobodys@example.org")
            + row("", "members", "1", email="no address")
            + row("alice", "gone", "1")
            + row("alice", "board", "1")
            + row("dora", "members", "1")
            + row("bob", "members", "maybe")
            + row("", "members", "1")
            + "alice,,theme,=,0,dark,0\n"
            + row("bob", "tech", "NULL")
            + "too,few\n"
        ).encode()
        + b"\xff\xfe\n"
        + row("bob", "members", "1").encode()
    )
    assert stored(session) == {"bob": True}
    assert {each.reason: (each.times, each.examples) for each in found.skipped} == {
        "unknown user": (1, ("line 2: eve",)),
        "no account holds the address": (2, ("line 3: nobodys@example.org", "line 4: no address")),
        "unknown list": (1, ("line 5: gone",)),
        "inactive, or outside the list's audience": (2, ("line 6: alice on board", "line 7: dora on members")),
        "cannot be read": (
            4,
            (
                "line 8: members: neither 1 nor 0: maybe",
                "line 9: it names no user: neither username nor email",
                "line 12: 2 cells, but the first line names 7 columns",
                "line 13: not UTF-8",
            ),
        ),
    }
    assert (found.ignored, found.undecided) == (1, 1)


def test_few_examples_are_told_however_many_there_are(session, cast, run):
    found = run(ROWS + "".join(row(f"user{number}", "members", "1") for number in range(50)))
    assert [(each.reason, each.times, len(each.examples)) for each in found.skipped] == [("unknown user", 50, 5)]


def test_a_dry_run_tells_the_same_and_writes_nothing(session, cast, run):
    make_preference(session, "members", "charlie@example.org", True)
    file = OLD + row("charlie", "members", "0")
    dry = run(file, overwrite=True, is_dry=True)
    assert stored(session) == {"charlie": True}
    assert session.scalars(select(History)).all() == []
    session.rollback()
    assert run(file, overwrite=True) == dry


@pytest.mark.parametrize(
    "content",
    [
        "", "\n \n", "\ufeff", "alice,members,1\n", "username\nalice\n", "username,attribute\n", "[", "[1, 2", "{bad}\n",
        "{bad}\n{worse}\n", b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\0\0", "[" * 100_000, "{" * 100_000, "[1]",
        ROWS + "only,two\n", "username,username,prefs\na,a,{}\n",
    ],
    ids=str,
)  # fmt: skip
def test_a_file_of_which_nothing_can_be_read_is_refused(session, cast, run, content):
    with pytest.raises(BadInputError) as told:
        run(content)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 400


@pytest.mark.parametrize("content", [ROWS, "[]", '{"username": "alice", "prefs": {}}'])
def test_a_file_without_a_preference_is_none_of_these(session, cast, run, content):
    assert run(content).skipped == ()


@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_content_leads_anywhere_else(content):
    text = PreferenceText(content)
    told = ""
    try:
        list(text)
    except BadInputError as error:
        told = str(error)
    assert told.isprintable()
    assert all(each.words.isprintable() for each in text.problems)


@given(st.recursive(st.none() | st.booleans() | st.floats() | st.text(), lambda some: st.lists(some) | st.dictionaries(
    st.sampled_from(["username", "email", "prefs", "mailinglist", "members", "attribute", "value"]), some)))  # fmt: skip
def test_no_json_leads_anywhere_else(value):
    list(PreferenceText(json.dumps([value]).encode()))


def test_where_the_lists_are_not_enabled_nothing_is_taken_over(make_app, session, instance, clock):
    (instance / "mailinglists.toml").write_text("")
    catalogue = make_app().extensions["portal"].catalogue()
    with pytest.raises(DisabledError):
        import_preferences(session, OLD.encode(), catalogue=catalogue, now=NOW, overwrite=False, is_dry=False)


def test_a_choice_made_meanwhile_stays_and_an_address_given_up_is_passed_over(session, cast, run, monkeypatch):
    make_preference(session, "members", "charlie@example.org", True)
    real = from_ixp_manager._write_all

    def meanwhile(*arguments: Any, **options: Any) -> Any:
        make_preference(session, "members", "alice@example.org", False)
        preference = session.scalars(select(Preference).where(Preference.subscribed)).one()
        preference.version += 1
        bob = session.scalars(select(Address.id).where(Address.canonical == "bob@example.org")).one()
        session.execute(UserAddress.__table__.delete().where(UserAddress.address_id == bob))
        session.execute(Address.__table__.delete().where(Address.__table__.c.id == bob))
        session.commit()
        return real(*arguments, **options)

    monkeypatch.setattr(from_ixp_manager, "_write_all", meanwhile)
    file = ROWS + row("alice", "members", "1") + row("bob", "members", "1") + row("charlie", "members", "0")
    found = run(file, overwrite=True)
    assert stored(session) == {"alice": False, "charlie": True}
    assert counts(found) == {"kept": 3}
    assert session.scalars(select(History)).all() == []


def test_the_number_of_statements_does_not_grow_with_the_file(session, run):
    for number in range(60):
        make_user(session, f"user{number}")
    statements: list[str] = []
    event.listen(db.engine, "before_cursor_execute", lambda *arguments: statements.append(arguments[2]))

    def size(first: int, last: int) -> int:
        statements.clear()
        run(ROWS + "".join(row(f"user{number}", "members", "1") for number in range(first, last)))
        return len(statements)

    assert size(0, 5) == size(5, 55)


def test_a_first_run_after_it_shows_its_plan_and_waits_for_a_yes(app, session, run, rosters: Rosters, clock):
    names = [f"user{number:02}" for number in range(40)]
    for name in names:
        make_user(session, name)
    rosters.set("members", "stranger@example.net", *(f"{name}@example.org" for name in names[:20]))
    # Ten are on the list and want it, ten are on it and do not, ten are not on it and want it, ten are not in the file.
    wanted = dict.fromkeys(names[:10], "1") | dict.fromkeys(names[10:20], "0") | dict.fromkeys(names[20:30], "1")
    run(ROWS + "".join(row(name, "members", value) for name, value in wanted.items()))
    portal = app.extensions["portal"]
    members = portal.catalogue().get("members")

    def sync(**request: Any) -> Any:
        return sync_list(session, members, portal.open_list_manager(members), clock=clock, request=Request(**request))

    before = rosters.get("members")
    with pytest.raises(SafetyLimitError) as refused:
        sync()
    assert rosters.get("members") == before
    sync_result = sync(accept=refused.value.plan_id)
    assert (sync_result.tally["added"], sync_result.tally["removed"]) == (10, 10)
    wanted_on = {f"{name}@example.org" for name in (*names[:10], *names[20:30])}
    assert rosters.get("members") == {"stranger@example.net", *wanted_on}
    assert stored(session) == {name: name in (*names[:10], *names[20:30]) for name in names}
    assert sync().plan.lines == ()


def test_a_save_and_an_import_that_meet_never_wait_for_each_other(app, session: Session, run: Run) -> None:
    """The save has one row and wants another; the import makes the other and overwrites the one."""
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, source="init")
    alice = make_address(session, "alice@example.org")
    session.commit()
    of_alice = update(Preference).where(Preference.address_id == alice, Preference.list_handle == "members")

    with app.app_context(), Session(db.engine) as save, ThreadPoolExecutor(1) as pool:
        save.execute(of_alice.values(version=1))

        def import_both() -> Imported:
            with app.app_context():
                return run(ROWS + row("alice", "members", "0") + row("alice", "tech", "1"), overwrite=True)

        importing = pool.submit(import_both)
        time.sleep(0.5)  # it waits for the save now, or has not begun
        later = database.insert(save, Preference).on_conflict_do_nothing()
        save.execute(
            later.values(list_handle="tech", address_id=alice, subscribed=False, source="user", changed_at=NOW)
        )
        save.commit()
        found = importing.result(timeout=30)
    assert counts(found) == {"kept": 1}  # chosen anew meanwhile
    assert set(stored(session, "tech")) == {"alice"}


def test_a_line_that_is_csv_in_no_dialect_is_told_and_the_others_are_read():
    text = PreferenceText(
        b'username,attribute,value\nalice,"mailinglist.tech.subscribed,1\nbob,mailinglist.tech.subscribed,1\n'
    )
    assert [wish.username for wish in text] == ["bob"]
    (problem,) = text.problems
    assert problem.place == "line 2"
    assert problem.words.startswith("not CSV: ")


def test_a_first_line_that_is_csv_in_no_dialect_is_refused():
    with pytest.raises(BadInputError, match="line 1: not CSV"):
        list(PreferenceText(b'username,attribute,"value\n'))


def test_preferences_that_are_no_object_are_told():
    text = PreferenceText(b'[{"username": "alice", "prefs": 7}, {"username": "bob", "prefs": "[1]"}]')
    assert list(text) == []
    assert [problem.place for problem in text.problems] == ["entry 1", "entry 2"]
    assert all("is no JSON object" in problem.words for problem in text.problems)


def test_json_that_cannot_be_read_is_told():
    for content in (b'{"username": ' + b"[" * 100_000, b'{"username": ' + b"9" * 5_000 + b"}"):
        text = PreferenceText(content)
        assert list(text) == []
        assert text.problems[0].words.startswith("not JSON")
