"""`flask mailinglist check`: what it finds wrong, and how it ends."""

import json
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import event
from sqlalchemy.orm import Session

from portal.domain.roster_text import RosterText
from portal.extensions import db
from portal.services.sync import leases
from portal.services.sync.planned_runs import begin_planned_run
from portal.services.sync.run_steps import Request
from tests.conftest import CATALOGUE, Clock, Rosters
from tests.factories import make_user
from tests.fakes.mail_server import FakeMailServer
from tests.fakes.mailman2 import FakeMailman2
from tests.fakes.mailman3 import FakeMailman3

Check = Callable[..., tuple[int, dict[tuple[str | None, str], str | None]]]


@pytest.fixture
def check(make_app: Callable[..., Flask], rosters: Rosters, instance: Path, clock: Clock) -> Check:
    """Check, and return the exit code and what was wrong: None where it is in order."""
    with make_app(for_a_command=True).app_context():
        make_user(db.session(), "dora", groups=("board",))
    clock.now = datetime.now(UTC)
    (instance / "secret_key").parent.chmod(0o755)

    def run(**environ: str) -> tuple[int, dict[tuple[str | None, str], str | None]]:
        runner = make_app(for_a_command=True, **environ).test_cli_runner()
        result = runner.invoke(args=["mailinglist", "check", "--format", "json"])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        assert result.stderr == ""
        found = json.loads(result.stdout)
        assert result.exit_code == max(each["exit_code"] for each in found)
        assert all(each["words"] and each["ok"] == (each["exit_code"] == 0) for each in found)
        told = {(each["list"], each["what"]): None if each["ok"] else each["words"] for each in found}
        assert len(told) == len(found)
        return result.exit_code, told

    return run


@pytest.fixture
def synced(make_app: Callable[..., Flask], check: Check) -> None:
    """Every list has had a good run."""
    assert make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", "sync"]).exit_code == 0


def wrong(told: dict[tuple[str | None, str], str | None]) -> dict[tuple[str | None, str], str]:
    return {key: words for key, words in told.items() if words is not None}


def test_where_all_is_well_it_says_so_and_ends_with_0(check: Check, synced: None):
    code, told = check()
    assert (code, wrong(told)) == (0, {})
    of_lists = {(handle, what) for handle in ("members", "tech", "board") for what in ("list manager", "runs")}
    own = {
        (None, what)
        for what in (
            "portal.toml",
            "secret_key",
            "security.log",
            "mail",
            "database",
            "clock",
            "trusted_proxies",
            "mailinglists.toml",
        )
    }
    assert told.keys() - {(None, "portal.db"), (None, "list_password_key")} == own | of_lists | {("board", "audience")}


def test_mail_is_tried_and_its_faults_are_named(make_app, check: Check, synced: None, instance: Path):
    with FakeMailServer() as server:
        (instance / "portal.toml").write_text(server.toml())
        code, told = check()
        assert (code, wrong(told)) == (0, {})
        (instance / "mail").mkdir()
        (instance / "mail" / "log-in.txt").write_text("Subject: x\n\n$nothing\n")
        assert "unknown name $nothing" in wrong(check()[1])[None, "mail"]
        shutil.rmtree(instance / "mail")
        password = instance / "smtp_password"
        password.write_text("secret")
        password.chmod(0o644)
        more = 'user = "portal"\npassword_file = "smtp_password"\n'
        (instance / "portal.toml").write_text(server.toml() + more)
        instance.chmod(0o755)
        assert "smtp_password can be read by other users" in wrong(check()[1])[None, "mail"]
    password.chmod(0o600)
    code, told = check()
    assert (code, "Connection refused" in wrong(told)[None, "mail"]) == (69, True)


def test_log_ins_through_a_web_server_that_is_not_trusted_are_78(make_app, check: Check, synced: None):
    app = make_app()
    create = ["user", "create", "--password-stdin", "alice", "alice@example.org"]
    assert app.test_cli_runner().invoke(args=create, input="correct horse battery\n").exit_code == 0
    app.config["WTF_CSRF_ENABLED"] = False

    def log_in(password: str) -> int:
        form, headers = {"username": "alice", "password": password}, {"X-Forwarded-For": "198.51.100.7"}
        return app.test_client().post("/login", data=form, headers=headers).status_code

    assert log_in("wrong") == 401
    assert check()[0] == 0, "anyone can send a header"
    assert log_in("correct horse battery") == 303
    code, told = check()
    assert (code, wrong(told).keys()) == (78, {(None, "trusted_proxies")})
    assert wrong(check(PORTAL_TRUSTED_PROXIES="1")[1]) == {}


def test_it_prints_a_table_that_a_tired_person_can_read(make_app, check: Check, synced: None, instance: Path):
    (instance / "rosters" / "tech.txt").unlink()
    result = make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", "check"])
    assert result.exit_code == 69
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["LIST", "WHAT", "STATE", "DETAILS"]
    (bad,) = (line for line in lines if " WRONG " in line)
    assert bad.split()[:4] == ["tech", "list", "manager", "WRONG"]
    assert "tech.txt: the file does not exist; to start the list, create an empty file" in bad
    assert all(" ok " in line for line in lines[1:] if line != bad)


def test_it_writes_nothing(check: Check, synced: None, session: Session, instance: Path):
    def dump() -> list[object]:
        tables = ("runs", "run_lines", "leases", "preferences", "history", "addresses", "users", "attempts")
        rows = [session.connection().exec_driver_sql(f"SELECT * FROM {table}").all() for table in tables]
        session.rollback()
        return [*rows, {path: path.read_bytes() for path in sorted((instance / "rosters").iterdir())}]

    before = dump()
    check()
    assert dump() == before


def test_a_list_without_a_run_is_78_and_says_what_to_do(check: Check):
    code, told = check()
    assert code == 78
    assert told["members", "runs"] == "no run yet; check the plan first: flask mailinglist sync --dry-run members"


def test_a_run_too_long_ago_is_78(check: Check, synced: None, clock: Clock):
    clock.advance(hours=13)
    code, told = check()
    assert code == 78
    assert told["tech", "runs"] == (
        "the last run was 13 hours ago, but members are promised 12 hours; check that cron still runs the sync, and "
        "run: "
        "flask mailinglist sync tech"
    )


def test_a_run_that_failed_or_was_refused_is_69_with_its_words(make_app, check: Check, synced: None, instance, rosters):
    (instance / "rosters" / "tech.txt").rename(instance / "kept")
    make_app(for_a_command=True).test_cli_runner().invoke(args=["mailinglist", "sync"])
    (instance / "kept").rename(instance / "rosters" / "tech.txt")
    code, told = check()
    assert code == 69
    assert set(wrong(told)) == {("tech", "runs")}
    assert "failed: " in told["tech", "runs"]
    assert "tech.txt: the file does not exist" in told["tech", "runs"]


def test_a_plan_that_waits_for_a_yes_is_told_with_its_id(make_app, check: Check, synced: None, session, rosters):
    for number in range(30):
        make_user(session, f"user{number}")
    runner = make_app(for_a_command=True).test_cli_runner()
    assert runner.invoke(args=["mailinglist", "sync"]).exit_code == 0
    for number in range(30):
        assert runner.invoke(args=["mailinglist", "subscribe", "tech", f"user{number}"]).exit_code == 0
    refused = runner.invoke(args=["mailinglist", "sync"])
    assert refused.exit_code == 77
    code, told = check()
    assert (code, set(wrong(told))) == (69, {("tech", "runs")})
    assert re.search(r"--accept [0-9a-f]{16}", refused.stderr)[0] in told["tech", "runs"]


def test_a_run_at_work_is_in_order_and_an_interrupted_one_is_not(make_app, check: Check, synced, session, clock):
    make_user(session, "alice")
    members = make_app().extensions["portal"].catalogue().get("members")
    begin_planned_run(session, members, RosterText([b"alice@example.org\n"]), clock=clock, request=Request())
    assert check()[0] == 0
    lease = leases.of_planned_run(session, "members")
    session.rollback()
    leases.release(session, lease)
    code, told = check()
    assert code == 69
    assert told["members", "runs"].endswith("was interrupted; to repair it, run: flask mailinglist sync members")


@pytest.mark.parametrize("catalogue", [None, "enabled = false\n", "", CATALOGUE.replace("enabled = true", "")])
def test_lists_that_are_not_enabled_are_78(check: Check, instance: Path, catalogue: str | None):
    path = instance / "mailinglists.toml"
    path.unlink() if catalogue is None else path.write_text(catalogue)
    code, told = check()
    assert code == 78
    assert told[None, "mailinglists.toml"].startswith("mailing lists are not enabled: set enabled = true")
    assert told[None, "database"] is None
    assert (("members", "list manager") in told) == bool(catalogue and "members" in catalogue)


def test_a_catalogue_without_a_list_is_78(check: Check, instance: Path):
    (instance / "mailinglists.toml").write_text("enabled = true\n")
    code, told = check()
    assert code == 78
    assert wrong(told) == {
        (None, "mailinglists.toml"): "mailinglists.toml contains no list; add a table [lists.HANDLE] for each list"
    }


def test_an_invalid_catalogue_is_78_and_the_rest_is_looked_at(check: Check, instance: Path):
    (instance / "mailinglists.toml").write_text("enabled = true\n[lists.members]\nsurprise = 1\n")
    code, told = check()
    assert code == 78
    assert "lists.members" in told[None, "mailinglists.toml"]
    assert told[None, "database"] is None


def test_an_invalid_portal_toml_is_78_whatever_is_asked(make_app, instance: Path):
    (instance / "portal.toml").write_text("surprise = 1\n")
    with pytest.raises(Exception, match=r"portal\.toml") as told:
        make_app()
    assert told.value.exit_code == 78


def test_a_database_without_tables_is_78_and_the_lists_are_looked_at(check: Check, synced: None, tmp_path: Path):
    code, told = check(PORTAL_SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'new.db'}")
    assert code == 78
    assert set(wrong(told)) == {(None, "database")}
    assert told[None, "database"].endswith("run: flask db upgrade")
    assert ("members", "list manager") in told
    assert ("members", "runs") not in told


def test_a_database_that_cannot_be_reached_is_69(check: Check, synced: None, tmp_path: Path):
    code, told = check(PORTAL_SQLALCHEMY_DATABASE_URI=f"sqlite:///{tmp_path / 'no' / 'folder' / 'new.db'}")
    assert code == 69
    assert set(wrong(told)) == {(None, "database")}
    assert told[None, "database"].startswith("the database is unavailable: ")


@pytest.mark.parametrize(("minutes", "way"), [(2, "ahead of"), (-2, "behind")])
def test_a_clock_that_is_not_the_databases_is_78(check: Check, synced: None, clock: Clock, minutes: int, way: str):
    clock.advance(minutes=minutes)
    code, told = check()
    assert code == 78
    assert told[None, "clock"].startswith("this host's clock is 1")
    assert f"seconds {way} the database's" in told[None, "clock"]


def test_a_key_that_others_can_read_is_78(check: Check, synced: None, instance: Path):
    path = instance / "secret_key"
    path.chmod(0o640)
    code, told = check()
    assert code == 78
    assert wrong(told) == {
        (None, "secret_key"): f"{path} can be read by other users (mode 0640); run: chmod 600 {path}"
    }


@pytest.mark.parametrize(("folder", "code"), [(0o755, 78), (0o700, 0)])
def test_a_database_that_everybody_can_read_is_78_unless_its_folder_is_shut(
    check: Check, synced: None, instance: Path, folder: int, code: int
):
    (instance / "portal.db").touch()  # there is none where the tests run on PostgreSQL
    (instance / "portal.db").chmod(0o644)
    instance.chmod(folder)
    assert check()[0] == code


def test_one_list_manager_that_fails_keeps_no_other_from_being_looked_at(
    check: Check, synced: None, instance: Path, tmp_path: Path
):
    mailman = FakeMailman2(tmp_path / "mailman")
    mailman.set_roster("tech", ["alice@example.org"])
    shared = CATALOGUE.replace("[lists.tech]", '[lists.tech]\nmanager = "mailman"')
    shared = shared.replace("[lists.members]", '[lists.members]\nmanager = "files"')
    shared = shared.replace("[lists.board]", '[lists.board]\nmanager = "mailman"')
    (instance / "mailinglists.toml").write_text(shared + mailman.toml())
    code, told = check()
    assert code == 69
    assert set(wrong(told)) == {("board", "list manager")}  # Mailman has tech, and has no board
    mailman.fail("list_members", stderr="Traceback: disk on fire\n")
    code, told = check()
    assert code == 69
    assert set(wrong(told)) == {("tech", "list manager"), ("board", "list manager")}
    assert "disk on fire" in told["tech", "list manager"]


# Audiences.


def test_audiences_without_an_active_account_and_groups_spelled_otherwise_are_78(
    check: Check, synced: None, instance: Path
):
    (instance / "mailinglists.toml").write_text(CATALOGUE.replace('["board"]', '["Board", "committee"]'))
    code, told = check()
    assert (code, wrong(told).keys()) == (78, {("board", "audience")})
    words = wrong(told)["board", "audience"]
    assert "no active account is in its audience" in words
    assert "its audience includes the group committee, but no account is in that group" in words
    assert "the group board differs from the group Board in its audience only in case or spaces" in words


def test_an_audience_that_is_nobody_on_purpose_is_in_order(check: Check, synced: None, instance: Path):
    (instance / "mailinglists.toml").write_text(CATALOGUE.replace('["board"]', "[]"))
    assert check()[0] == 0


# One list by two names, and lists that are paused.


def test_two_handles_of_one_list_that_only_the_list_manager_can_tell_are_78(check: Check, synced: None, instance: Path):
    (instance / "rosters" / "tech.txt").unlink()
    (instance / "rosters" / "tech.txt").symlink_to("members.txt")
    code, told = check()
    assert code == 78
    assert "members and tech are the same list" in wrong(told)["tech", "list manager"]


def test_a_paused_list_is_said_to_be_so_and_is_not_reached(check: Check, synced: None, instance: Path):
    (instance / "rosters" / "tech.txt").unlink()
    pausing = CATALOGUE.replace('name = "Tech"', 'name = "Tech"\npaused = true')
    (instance / "mailinglists.toml").write_text(pausing)
    code, told = check()
    assert (code, ("tech", "runs") in told) == (0, False)


@pytest.mark.parametrize(("folder", "code"), [(0o755, 78), (0o700, 0)])
@pytest.mark.parametrize("where", ["portal.toml", "mailinglists.toml", "password"])
def test_a_password_that_everybody_can_read_is_78_unless_its_folder_is_shut(
    check: Check, synced: None, instance: Path, folder: int, code: int, where: str
):
    secret = 'password = "canary"' if where == "mailinglists.toml" else 'password_file = "password"'
    unused = f'[managers.unused]\nkind = "mailman3"\nurl = "http://127.0.0.1:1/3.1"\nuser = "admin"\n{secret}\n'
    if where == "portal.toml":
        uri = "postgresql+psycopg://portal:canary@127.0.0.1:1/portal"
        (instance / where).write_text(f'sqlalchemy_database_uri = "{uri}"\n')
    else:
        named = CATALOGUE.replace("syncpws = false", 'syncpws = false\nmanager = "files"')
        (instance / "mailinglists.toml").write_text(named + unused)
        (instance / "password").write_text("canary")
    for path in instance.iterdir():
        path.chmod(0o644 if path.name == where else 0o600) if path.is_file() else None
    instance.chmod(folder)

    wrong_ones = wrong(check()[1])

    found = {what for _, what in wrong_ones if what != "database"}
    assert found == ({"password of unused" if where == "password" else where} if code else set())
    assert "canary" not in str(wrong_ones)


def test_a_security_log_that_the_pages_cannot_write_is_78(check: Check, synced: None, instance: Path):
    log = instance / "security.log"
    log.unlink(missing_ok=True)
    assert check()[0] == 0
    assert not log.exists()
    assert set(wrong(check(PORTAL_SECURITY_LOG="no/folder/security.log")[1])) == {(None, "security.log")}
    log.touch(mode=0o600)
    assert check()[0] == 0
    if os.geteuid() == 0:
        os.chown(log, 65534, -1)
    else:
        log.chmod(0o400)
    code, told = check()
    assert (code, set(wrong(told))) == (78, {(None, "security.log")})
    assert told[None, "security.log"].endswith(f"run: chown --reference={instance} {log}")


def test_a_database_that_can_only_be_read_is_named(make_app, check: Check, synced: None):
    app = make_app()
    with app.app_context():
        is_sqlite = db.engine.dialect.name == "sqlite"

        @event.listens_for(db.engine, "connect")
        def only_read(connection, _record) -> None:
            with closing(connection.cursor()) as cursor:
                cursor.execute("PRAGMA query_only = ON" if is_sqlite else "SET default_transaction_read_only = on")
            connection.commit()

    result = app.test_cli_runner().invoke(args=["mailinglist", "check", "--format", "json"])
    assert [each["what"] for each in json.loads(result.stdout) if not each["ok"]] == ["database"]
    assert result.exit_code == 69


def test_mailman2_without_the_helper_that_sets_passwords_is_78(
    check: Check, synced: None, instance: Path, tmp_path: Path
):
    mailman = FakeMailman2(tmp_path / "mailman")
    for handle in ("members", "tech", "board"):
        mailman.set_roster(handle, ["alice@example.org"])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "withlist").touch()
    named = CATALOGUE.replace("syncpws = false", 'manager = "mailman"', 1).replace(
        "syncpws = false", 'manager = "mailman"\nsyncpws = false'
    )
    table = re.sub(r"changepw = .*", f'changepw = "{programs}/withlist -q -l -r changepw"', mailman.toml())
    (instance / "mailinglists.toml").write_text(named + table)
    code, told = check()
    assert (code, set(wrong(told))) == (78, {("members", "list manager")})
    assert f"flask mailinglist changepw-script > {programs}/changepw.py" in told["members", "list manager"]
    (programs / "changepw.py").touch()
    assert check()[0] == 0


def test_mailman2_without_the_helper_that_carries_options_along_is_78(
    check: Check, synced: None, instance: Path, tmp_path: Path
):
    mailman = FakeMailman2(tmp_path / "mailman")
    for handle in ("members", "tech", "board"):
        mailman.set_roster(handle, ["alice@example.org"])
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "withlist").touch()
    named = CATALOGUE.replace("syncpws = false", 'manager = "mailman"\nsyncpws = false')
    command = f'memberoptions = "{programs}/withlist -q -l -r memberoptions"'
    (instance / "mailinglists.toml").write_text(named + re.sub(r"memberoptions = .*", command, mailman.toml()))
    code, told = check()
    assert (code, {what for _, what in wrong(told)}) == (78, {"list manager"})
    assert told["members", "list manager"].endswith(
        f"flask mailinglist memberoptions-script > {programs}/memberoptions.py"
    )
    (programs / "memberoptions.py").touch()
    assert check()[0] == 0


def test_a_mailman3_list_that_mails_its_owner_about_each_change_is_78(check: Check, synced: None, instance: Path):
    with FakeMailman3() as mailman:
        for handle in ("members", "tech", "board"):
            mailman.make_list(handle).tells_owner = handle == "tech"
        named = CATALOGUE.replace("syncpws = false", 'manager = "mailman"\nsyncpws = false')
        table = "".join(f'{key} = "{value}"\n' for key, value in mailman.table().items())
        (instance / "mailinglists.toml").write_text(f'{named}\n[managers.mailman]\nkind = "mailman3"\n{table}')
        (instance / "mailinglists.toml").chmod(0o600)
        code, told = check()
    assert (code, set(wrong(told))) == (78, {("tech", "list manager")})
    assert "admin_notify_mchanges" in told["tech", "list manager"]
