"""The security log: one line of JSON for each event, and never a reason to fail. SECURITY 24, 26."""

import io
import json
import logging
import os
import re
import stat
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.errors import KeyRefusedError, LogInFailedError, RateLimitedError, SafetyLimitError
from portal.extensions import portal
from portal.services import security_log
from portal.services.accounts import api_keys, bulk, password_changes, sessions, users
from portal.services.accounts.bulk import Asked, Change
from portal.services.accounts.directory import Wanted
from portal.services.accounts.passwords import hash_password
from portal.services.history import COMMAND_LINE
from portal.services.membership import merging
from portal.services.membership.merging import Merge
from portal.services.sync import sync
from tests.factories import NOW, make_preference, make_user
from tests.web.conftest import Client

Events = Callable[[], list[dict[str, Any]]]


@pytest.fixture
def place(instance: Path) -> Path:
    return instance / "security.log"


@pytest.fixture
def events(app: Flask, place: Path) -> Events:
    """What has been told since the last call."""
    told = 0

    def read() -> list[dict[str, Any]]:
        nonlocal told
        lines = place.read_text("ascii").splitlines() if place.exists() else []
        fresh, told = lines[told:], len(lines)
        return [json.loads(line) for line in fresh]

    return read


def names(found: list[dict[str, Any]]) -> list[tuple[str, Any]]:
    return [(each["event"], each.get("user")) for each in found]


def test_nothing_is_opened_before_something_happens(app, place):
    assert not place.exists()


def test_an_event_is_one_line_with_its_time_in_utc(events, place):
    security_log.log("key made", user=3, api_key=None)
    (event,) = events()
    assert event.keys() == {"at", "event", "by", "user"}
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", event["at"])
    assert place.read_text().count("\n") == 1
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "word", ['x"}\n{"event": "log-in"', "\r\n", "\u2028", "\x1b[31m", "\0", "\ud800", "zoë", "\x85"]
)
def test_no_word_begins_a_line_of_its_own(events, place, word):
    security_log.log("export", list=word)
    assert events()[0]["list"] == word
    raw = place.read_bytes()
    assert raw.count(b"\n") == 1
    assert all(32 <= byte < 127 for byte in raw[:-1])


def test_each_line_is_one_write_so_that_processes_do_not_mix_them(events):
    def log() -> None:
        for number in range(50):
            security_log.log("export", list="x" * 500, number=number)

    threads = [threading.Thread(target=log) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(events()) == 200


def test_a_file_that_was_moved_away_is_begun_anew(events, place):
    security_log.log("export", number=1)
    place.rename(place.with_suffix(".1"))
    security_log.log("export", number=2)
    assert json.loads(place.read_text())["number"] == 2


@pytest.mark.parametrize("way", ["folder", "full"])
def test_a_disk_that_takes_nothing_breaks_nothing(app, place, caplog, monkeypatch, way):
    if way == "folder":
        place.mkdir()
    else:
        security_log.write_to(Path("/dev/full"), instance=place.parent)
    security_log.log("export", list="members")
    assert "cannot be written" in caplog.text
    assert "members" in caplog.text


def test_a_dash_is_standard_error(make_app, capfd, place):
    make_app(PORTAL_SECURITY_LOG="-")
    security_log.log("export", list="members")
    assert json.loads(capfd.readouterr().err)["list"] == "members"
    assert not place.exists()


def test_another_place_can_be_set(make_app, tmp_path):
    make_app(PORTAL_SECURITY_LOG=str(tmp_path / "elsewhere.log"))
    security_log.log("export")
    assert json.loads((tmp_path / "elsewhere.log").read_text())["event"] == "export"


def test_it_does_not_reach_the_ordinary_log(app):
    ordinary = io.StringIO()
    handler = logging.StreamHandler(ordinary)
    for name in ("", "portal"):
        logging.getLogger(name).addHandler(handler)
    try:
        security_log.log("export")
    finally:
        for name in ("", "portal"):
            logging.getLogger(name).removeHandler(handler)
    assert ordinary.getvalue() == ""


def test_a_process_has_one_security_log(make_app, place):
    make_app()
    make_app()
    security_log.log("export")
    assert place.read_text().count("\n") == 1


def test_log_ins_are_told_by_number_and_never_by_name_or_password(session, events, place):
    user_id = make_user(session, "alice", password_hash=hash_password("correct horse battery", rounds=4))

    def log_in(name: str, password: str) -> None:
        sessions.log_in(
            session,
            name=name,
            password=password,
            origin=sessions.Origin("192.0.2.1"),
            remember=False,
            now=NOW,
            rounds=4,
        )

    log_in("alice@example.org", "correct horse battery")
    for name in ("alice@example.org", "stranger@example.net"):
        with pytest.raises(LogInFailedError):
            log_in(name, "canary")
    assert names(events()) == [("log-in", user_id), ("log-in failed", user_id), ("log-in failed", None)]
    assert not re.search("alice|stranger|canary|horse|@", place.read_text())


def test_changes_of_accounts_are_told(session, events):
    make_user(session, "bob", is_superuser=True)
    alice = make_user(session, "alice")
    users.grant(session, "alice")
    users.revoke(session, "alice", now=NOW)
    users.deactivate(session, "alice", now=NOW)
    users.activate(session, "alice", now=NOW, lists=None)
    password_changes.set_password(session, "alice", password="correct horse battery", rounds=4)
    users.delete(session, "alice", now=NOW, erase=True, lists=None)
    assert names(events()) == [
        (event, alice)
        for event in (
            "role granted", "role revoked", "user deactivated", "user activated", "password set", "user deleted",
        )
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "event"),
    [
        (Change.DEACTIVATE, "user deactivated"),
        (Change.ACTIVATE, "user activated"),
        (Change.ADD_GROUPS, "groups changed"),
    ],
)
def test_each_account_that_is_changed_with_many_others_is_told_of(session, events, change, event):
    ids = [make_user(session, name, is_active=change is not Change.ACTIVATE) for name in ("alice", "charlie")]
    asked = Asked(change, Wanted(), ("board",) if change is Change.ADD_GROUPS else ())
    preview_id = bulk.preview(session, asked).id
    bulk.do(session, asked, preview_id=preview_id, actor=COMMAND_LINE, now=NOW, lists=None)
    assert names(events()) == [(event, each) for each in ids]


def test_a_merge_tells_which_account_went_into_which(session, events):
    gone, kept = make_user(session, "ada2"), make_user(session, "ada")
    merging.merge(session, Merge("ada2", "ada"), now=NOW, lists=None, secret=b"secret")
    (event,) = events()
    assert (event["event"], event["user"], event["into"]) == ("user merged", gone, kept)


def test_what_did_not_happen_is_not_told(session, events):
    make_user(session, "bob", is_superuser=True)
    for change in (users.revoke, users.deactivate):
        with pytest.raises(Exception, match="last active superuser"):
            change(session, "bob", now=NOW)
    assert events() == []


def test_bad_keys_past_the_limit_are_told_of_once_a_minute(session, events):
    for _ in range(25):
        with pytest.raises((KeyRefusedError, RateLimitedError)):
            api_keys.authenticate(session, "x", ip="192.0.2.1", now=NOW)
    assert [each["event"] for each in events()] == ["key refused"] * 10 + ["limited"]


def test_keys_are_told_of_from_their_making_to_their_end(session, events):
    bob = make_user(session, "bob", is_superuser=True)
    key = api_keys.create(session, "bob", label="secret label", expires_days=None, now=NOW)
    for _ in range(3):
        api_keys.authenticate(session, key, ip="192.0.2.1", now=NOW)
    api_keys.revoke(session, key[:11], now=NOW)
    api_keys.revoke(session, key[:11], now=NOW)
    with pytest.raises(Exception, match="revoked"):
        api_keys.authenticate(session, key, ip="192.0.2.1", now=NOW)
    found = events()
    assert [each["event"] for each in found] == ["key made", "key used", "key revoked", "key refused"]
    assert {each["api_key"] for each in found} == {1}
    assert found[0]["user"] == bob
    assert key[11:] not in json.dumps(found)


def test_keys_that_end_with_the_role_of_their_owner_are_told_of(session, events):
    make_user(session, "alice", is_superuser=True)
    bob = make_user(session, "bob", is_superuser=True)
    api_keys.create(session, "bob", label="list host", expires_days=None, now=NOW)
    users.revoke(session, "bob", now=NOW)
    found = events()
    assert [each["event"] for each in found] == ["key made", "role revoked", "key revoked"]
    assert (found[-1]["api_key"], found[-1]["user"]) == (1, bob)


def test_a_limit_that_is_hit_is_told_of_pages(app, session, events):
    from portal.services.accounts import rate_limits

    client = app.test_client()
    for _ in range(60):
        rate_limits.count(session, [rate_limits.by_ip("127.0.0.1")], now=portal().clock())
    app.config["WTF_CSRF_ENABLED"] = False
    assert client.post("/login", data={"username": "alice", "password": "x"}).status_code == 429
    (event,) = events()
    assert (event["event"], event["ip"], event["tries"]) == ("limited", "127.0.0.1", "ip")
    with pytest.raises(RateLimitedError):
        rate_limits.count(session, [rate_limits.by_ip("127.0.0.1")], now=portal().clock())


@pytest.fixture
def members(app: Flask, session: Session) -> MailingList:
    for number in range(8):
        make_user(session, f"user{number}")
        make_preference(session, "members", f"user{number}@example.org", False, seen=True, source="superuser")
    return portal().catalogue().lists["members"]


def test_a_refused_sync_is_told_with_its_plan_and_no_address(session, members, events, rosters, place):
    rosters.set("members", *(f"user{number}@example.org" for number in range(8)))
    with pytest.raises(SafetyLimitError) as raised:
        sync.sync_list(
            session, members, portal().open_list_manager(members), clock=portal().clock, request=sync.Request()
        )
    (event,) = events()
    assert (event["event"], event["list"], event["plan"]) == ("sync held", "members", raised.value.plan_id)
    assert "@" not in place.read_text()


def test_a_roster_in_doubt_is_told(session, app, events, rosters):
    make_user(session, "alice")
    make_preference(session, "members", "alice@example.org", True, seen=True)
    members = portal().catalogue().lists["members"]
    with pytest.raises(SafetyLimitError):
        sync.sync_list(
            session, members, portal().open_list_manager(members), clock=portal().clock, request=sync.Request()
        )
    assert [each["event"] for each in events()] == ["sync held"]


def test_the_log_is_private_whatever_the_umask(events, place):
    before = os.umask(0)
    try:
        security_log.log("export")
    finally:
        os.umask(before)
    assert stat.S_IMODE(place.stat().st_mode) == 0o600


def test_what_is_forbidden_is_told_with_who_asked(app, session, events, clock):
    alice = make_user(session, "alice", password_hash=hash_password("correct horse battery", rounds=4))
    app.config["WTF_CSRF_ENABLED"] = False
    app.test_client_class = Client
    client = app.test_client()
    client.post("/login", data={"username": "alice", "password": "correct horse battery"})
    assert client.get("/admin/").status_code == 403
    logged_in, forbidden = events()
    assert (logged_in["event"], logged_in["user"], logged_in["ip"]) == ("log-in", alice, "127.0.0.1")
    assert (forbidden["event"], forbidden["by"], forbidden["endpoint"]) == ("forbidden", alice, "admin.lists.index")


def test_the_command_line_is_nobody_with_a_number(runner, session, events):
    make_user(session, "alice")
    assert runner.invoke(args=["user", "grant", "alice"]).exit_code == 0
    assert [each["by"] for each in events()] == ["command line"]
