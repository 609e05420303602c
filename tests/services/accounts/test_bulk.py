"""What is done to many accounts at once: exactly what was shown, in chunks, each with a line in its history."""

from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.errors import ChangedMeanwhileError
from portal.models import Preference, User
from portal.services.accounts import bulk, profiles, sessions, users
from portal.services.accounts import log as account_log
from portal.services.accounts.bulk import Asked, Change, Eligibility
from portal.services.accounts.directory import Wanted
from portal.services.accounts.passwords import hash_password
from portal.services.accounts.sessions import Origin
from portal.services.history import Actor
from tests.factories import NOW, make_preference, make_user

BOB = Actor(None, "bob")
PASSWORD = "correct horse battery"


@pytest.fixture
def team(session: Session) -> dict[str, int]:
    return {
        "alice": make_user(session, "alice", groups=("board",)),
        "bob": make_user(session, "bob", is_superuser=True, groups=("board", "tech")),
        "charlie": make_user(session, "charlie", is_active=False),
        "dora": make_user(session, "dora", groups=("tech",)),
    }


def done(session: Session, asked: Asked, **values: Any) -> int:
    preview = bulk.preview(session, asked)
    values = {"preview_id": preview.id, "actor": BOB, "now": NOW, "lists": None, **values}
    return bulk.do(session, asked, **values)


def groups(session: Session) -> dict[str, str]:
    return {each.username: " ".join(each.groups) for each in profiles.list_all(session)}


@pytest.mark.parametrize(
    ("change", "names", "count", "after"),
    [
        (Change.ADD_GROUPS, ("board", "new"), 4, "alice=board new|bob=board new tech|charlie=board new|dora=board new tech"),
        (Change.ADD_GROUPS, ("tech",), 2, "alice=board tech|bob=board tech|charlie=tech|dora=tech"),
        (Change.REMOVE_GROUPS, ("tech", "new"), 2, "alice=board|bob=board|charlie=|dora="),
        (Change.SET_GROUPS, ("board",), 3, "alice=board|bob=board|charlie=board|dora=board"),
        (Change.SET_GROUPS, (), 3, "alice=|bob=|charlie=|dora="),
    ],
)  # fmt: skip
def test_groups_of_many_are_added_removed_or_set(
    session: Session, team: dict[str, int], change: Change, names: tuple[str, ...], count: int, after: str
) -> None:
    before = groups(session)
    asked = Asked(change, Wanted(), names)
    assert bulk.preview(session, asked).count == count
    assert done(session, asked) == count
    assert groups(session) == dict(each.split("=") for each in after.split("|"))
    changed = [name for name in before if groups(session)[name] != before[name]]
    lines = account_log.recent(session)
    assert sorted(each.username for each in lines) == sorted(changed)
    for line in lines:
        assert (line.what, line.actor) == ("groups changed", "bob")
        assert (line.old, line.new) == tuple(
            "; ".join(values[line.username].split()) for values in (before, groups(session))
        )
    assert done(session, asked) == 0


def test_many_are_deactivated_and_activated_but_for_those_with_a_role(session: Session, team: dict[str, int]) -> None:
    asked = Asked(Change.DEACTIVATE, Wanted())
    preview = bulk.preview(session, asked)
    assert preview.passed_over == {Eligibility.SO_ALREADY: 1, Eligibility.HAS_ROLE: 1}
    assert [each.username for each in preview.first] == ["alice", "dora"]
    assert done(session, asked) == 2
    assert session.scalars(select(User.username).where(User.is_active)).all() == ["bob"]
    session.rollback()
    assert [(each.username, each.what) for each in account_log.recent(session)] == [
        ("dora", "deactivated"),
        ("alice", "deactivated"),
    ]
    assert done(session, Asked(Change.ACTIVATE, Wanted(user_ids=(team["alice"], team["bob"])))) == 1
    assert profiles.by_username(session, "alice").is_active


def test_who_is_deactivated_is_logged_out_at_once(session: Session, team: dict[str, int]) -> None:
    make_user(session, "erin", password_hash=hash_password(PASSWORD, rounds=4))
    values: dict[str, Any] = {"origin": Origin("192.0.2.1"), "remember": False, "now": NOW, "rounds": 4}
    token = sessions.log_in(session, name="erin", password=PASSWORD, **values)
    assert sessions.member(session, token, now=NOW) is not None
    done(session, Asked(Change.DEACTIVATE, Wanted("erin")))
    assert sessions.member(session, token, now=NOW) is None
    done(session, Asked(Change.ACTIVATE, Wanted("erin")))
    assert sessions.member(session, token, now=NOW) is None, "and stays so"


def test_what_many_left_is_theirs_again_as_with_one(session: Session) -> None:
    """The same rows as after one account at a time, whether they share mailboxes or not."""
    for name in ("alice", "dora", "erin"):
        make_user(session, name, f"{name}@example.org", "family@example.org")
    for address in ("alice@example.org", "dora@example.org", "family@example.org"):
        make_preference(session, "members", address, True, seen=True)
    before = stored_preferences(session)
    done(session, Asked(Change.DEACTIVATE, Wanted()))
    at_once = stored_preferences(session)
    assert len({each[2] for each in at_once}) == 3, "each mailbox knows who was the last to leave it"
    done(session, Asked(Change.ACTIVATE, Wanted()))
    returned = stored_preferences(session)
    for name in ("alice", "dora", "erin"):
        users.deactivate(session, name, now=NOW)
    assert stored_preferences(session) == at_once
    for name in ("alice", "dora", "erin"):
        users.activate(session, name, now=NOW, lists=None)
    assert stored_preferences(session) == returned == before


def stored_preferences(session: Session) -> list[tuple[Any, ...]]:
    columns = (Preference.address_id, Preference.subscribed, Preference.left_by, Preference.moved_to, Preference.source)
    found = [tuple(row) for row in session.execute(select(*columns).order_by(Preference.address_id))]
    session.rollback()
    return found


@pytest.mark.parametrize("change", Change)
def test_only_what_was_shown_is_done(session: Session, team: dict[str, int], change: Change) -> None:
    asked = Asked(change, Wanted(), ("board",) if change in bulk.GROUP_CHANGES else ())
    shown = bulk.preview(session, asked)
    make_user(session, "erin", groups=("board", "other"), is_active=change in {Change.DEACTIVATE, Change.INVITE})
    if change is Change.ADD_GROUPS:
        users.set_groups(session, "erin", groups=[], now=NOW, lists=None)
    with pytest.raises(ChangedMeanwhileError):
        done(session, asked, preview_id=shown.id)
    assert len({bulk.preview(session, Asked(each, Wanted(), asked.groups)).id for each in Change}) == len(Change)


def test_groups_that_somebody_else_changed_since_are_not_written_over(session: Session, team: dict[str, int]) -> None:
    asked = Asked(Change.SET_GROUPS, Wanted(), ("new",))
    shown = bulk.preview(session, asked)
    users.set_groups(session, "alice", groups=["treasurers"], now=NOW, lists=None)
    with pytest.raises(ChangedMeanwhileError):
        done(session, asked, preview_id=shown.id)
    assert groups(session)["alice"] == "treasurers"


def test_many_are_changed_in_chunks_and_each_once(
    session: Session, team: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk, "_CHUNK", 3)
    for number in range(8):
        make_user(session, f"member{number}")
    assert done(session, Asked(Change.ADD_GROUPS, Wanted("member"), ("new",))) == 8
    assert len(account_log.recent(session)) == 8
