"""Settings and catalogue: what is accepted, and how errors tell the operator what to fix."""

import re
import subprocess
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import make_url

from portal.config import Catalogue, Settings, load_catalogue, load_settings
from portal.domain.mailinglist import SafetyLimits
from portal.errors import ConfigurationError, DisabledError, UnknownListError
from portal.listmanagers import registry

ROOT = Path(__file__).parents[1]

A_LIST = '[lists.members]\nname = "Members"\nemail = "members@lists.example.org"\n'
A_MANAGER = '[managers.files]\nkind = "file"\ndirectory = "rosters"\n'


def settings_from(folder: Path, text: str = "", /, **environ: str) -> Settings:
    (folder / "portal.toml").write_text(text)
    return load_settings(folder, environ)


def catalogue_from(folder: Path, text: str) -> Catalogue:
    path = folder / "mailinglists.toml"
    path.write_text(text)
    return load_catalogue(path, partial(registry.read_settings, folder=folder))


def fault_of_settings(folder: Path, text: str = "", /, **environ: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        settings_from(folder, text, **environ)
    return str(raised.value)


def fault_of_catalogue(folder: Path, text: str) -> str:
    with pytest.raises(ConfigurationError) as raised:
        catalogue_from(folder, text)
    return str(raised.value).replace(str(folder / "mailinglists.toml"), "FILE")


# --- portal.toml and PORTAL_* variables


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {}) == Settings()


def test_a_folder_that_is_not_there_yet_is_no_fault(tmp_path: Path) -> None:
    assert load_settings(tmp_path / "instance", {}) == Settings()


def test_the_file_sets_and_a_variable_wins(tmp_path: Path) -> None:
    settings = settings_from(
        tmp_path,
        'site_name = "Example IX"\ntimezone = "Europe/Dublin"\nmax_body = 4096\n',
        PORTAL_TIMEZONE="Europe/Berlin",
        PORTAL_BCRYPT_ROUNDS="4",
        PORTAL_SITE_NAME="2026",
        PORTAL_ALLOWED_SPECIAL_DOMAINS="local, test,",
        PORTAL_SQLALCHEMY_DATABASE_URI="postgresql+psycopg://portal:geheim@db.example.org/portal",
    )

    assert settings == Settings(
        site_name="2026",
        timezone="Europe/Berlin",
        max_body=4096,
        bcrypt_rounds=4,
        allowed_special_domains=("local", "test"),
        sqlalchemy_database_uri="postgresql+psycopg://portal:geheim@db.example.org/portal",
    )


def test_other_variables_that_start_alike_are_none_of_ours(tmp_path: Path) -> None:
    assert load_settings(tmp_path, {"PORTAL_PORT": "tcp://10.0.0.1:80", "PORTAL_INSTANCE": "/x"}) == Settings()


def test_https_and_path_come_from_the_base_url() -> None:
    assert not Settings().is_https
    assert Settings(base_url="https://portal.example.org").is_https
    assert not Settings(base_url="http://[::1]:8000").is_https
    assert Settings(base_url="https://portal.example.org:8443/members/").path == "/members"


def test_a_byte_order_mark_is_no_fault(tmp_path: Path) -> None:
    assert settings_from(tmp_path, '\ufeffsite_name = "Example IX"\r\n').site_name == "Example IX"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('bcrypt_rounds = "12"', "expected a whole number, got text - at `bcrypt_rounds`"),
        ("bcrypt_rounds = 3", "expected a whole number >= 4 - at `bcrypt_rounds`"),
        ("bcrypt_rounds = true", "expected a whole number, got true or false - at `bcrypt_rounds`"),
        ("max_body = 1", "expected a whole number >= 1024 - at `max_body`"),
        ("site_nam = 'x'", "unknown setting `site_nam`"),
        ("site_name = ''", "expected text of length >= 1 - at `site_name`"),
        ('site_name = "two\\nlines"', "expected text without control characters - at `site_name`"),
        ('site_name = "a line\\n"', "expected text without control characters - at `site_name`"),
        (
            "timezone = 'Europe/Atlantis'",
            "`timezone` is not in the IANA time zone database; use a name such as Europe/Dublin",
        ),
        ("timezone = 'Europe'", "`timezone` is not in the IANA time zone database; use a name such as Europe/Dublin"),
        (
            "timezone = '../../etc/passwd'",
            "`timezone` is not in the IANA time zone database; use a name such as Europe/Dublin",
        ),
        ("base_url = 'portal.example.org'", "that starts with http:// or https:// and a host - at `base_url`"),
        ("base_url = 'ftp://portal.example.org'", "that starts with http:// or https:// and a host - at `base_url`"),
        ("base_url = 'https://'", "that starts with http:// or https:// and a host - at `base_url`"),
        ("base_url = 'https://me:pw@host'", "that starts with http:// or https:// and a host - at `base_url`"),
        ("base_url = 'https://host?x'", "that starts with http:// or https:// and a host - at `base_url`"),
        ("base_url = 'https://host:99999'", "`base_url` has an invalid host or port"),
        ("base_url = 'https://[::1'", "`base_url` has an invalid host or port"),
        (
            "base_url = 'https://[2001:db8::7]:8443'",
            "has an IPv6 address as its host; with https, use a host name",
        ),
        ("allowed_special_domains = 'local'", "expected a list, got text - at `allowed_special_domains`"),
        (
            "sqlalchemy_database_uri = 'mysql://portal:geheim@db/portal'",
            "expected text that starts with sqlite:/// or postgresql+psycopg:// (write %40 for each @ in the "
            "password) - at `sqlalchemy_database_uri`",
        ),
        ("site_name = ", "not valid TOML: Invalid value (at end of document)"),
        ("site_name = 'a'\nsite_name = 'b'", "not valid TOML: Cannot overwrite a value (at end of document)"),
    ],
)
def test_a_fault_in_the_file_names_file_and_key(tmp_path: Path, text: str, words: str) -> None:
    fault = fault_of_settings(tmp_path, text)

    assert fault.startswith(f"{tmp_path / 'portal.toml'}: ")
    assert fault.endswith(words)
    assert "geheim" not in fault


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("PORTAL_BCRYPT_ROUNDS", "many", "expected a whole number, got text - at `bcrypt_rounds`"),
        ("PORTAL_BCRYPT_ROUNDS", "", "expected a whole number, got text - at `bcrypt_rounds`"),
        ("PORTAL_MAX_BODY", "-1", "expected a whole number >= 1024 - at `max_body`"),
        (
            "PORTAL_TIMEZONE",
            "Berlin",
            "`timezone` is not in the IANA time zone database; use a name such as Europe/Dublin",
        ),
        ("PORTAL_BASE_URL", "12", "expected text that starts with http:// or https:// and a host - at `base_url`"),
        ("PORTAL_SITE_NAME", "", "expected text of length >= 1 - at `site_name`"),
        (
            "PORTAL_SQLALCHEMY_DATABASE_URI",
            "null",
            "expected text that starts with sqlite:/// or postgresql+psycopg:// (write %40 for each @ in the "
            "password) - at `sqlalchemy_database_uri`",
        ),
    ],
)
def test_a_fault_in_a_variable_names_the_variable(tmp_path: Path, name: str, value: str, words: str) -> None:
    assert fault_of_settings(tmp_path, **{name: value}) == f"{name}: {words}"


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "portal.toml").mkdir()
    with pytest.raises(ConfigurationError, match=r"portal\.toml: cannot be read: Is a directory"):
        load_settings(tmp_path, {})

    (tmp_path / "mailinglists.toml").write_bytes(b"enabled = true\nname = '\xff'")
    with pytest.raises(ConfigurationError, match=r"mailinglists\.toml: line 2 is not in UTF-8; save the file as UTF-8"):
        load_catalogue(tmp_path / "mailinglists.toml", registry.read_settings)


@pytest.mark.parametrize("text", ["a = " + "1" * 5_000, "a = " + "[" * 5_000, "a = " + "{a = " * 5_000])
def test_a_file_that_the_parser_gives_up_on_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "portal.toml").write_text(text)
    with pytest.raises(ConfigurationError, match=r"portal\.toml: not valid TOML: "):
        load_settings(tmp_path, {})


@pytest.mark.parametrize(
    "uri", ["postgresql+psycopg://u:s3cret@host:x/db", "postgresql+psycopg://u:s3cret#@[::1/db", "postgresql+psycopg://u:s3@cret@host/db"]
)  # fmt: skip
def test_a_database_that_cannot_be_read_is_told_without_its_password(tmp_path: Path, uri: str) -> None:
    fault = fault_of_settings(tmp_path, PORTAL_SQLALCHEMY_DATABASE_URI=uri)
    assert fault.startswith("PORTAL_SQLALCHEMY_DATABASE_URI: ")
    assert "cret" not in fault


@pytest.mark.parametrize(
    "rest",
    ["", "/db", "host/db", "host:5432/db", "u@/db", "u:p/#:[x@[::1]:5432/db", "u:p%40@host", "/db?host=/run/postgresql", "?user=a@b"],
)  # fmt: skip
def test_a_database_is_told_as_sqlalchemy_reads_it(tmp_path: Path, rest: str) -> None:
    uri = f"postgresql+psycopg://{rest}"
    assert "@" not in (make_url(uri).host or "")
    assert settings_from(tmp_path, "", PORTAL_SQLALCHEMY_DATABASE_URI=uri).sqlalchemy_database_uri == uri


@given(st.sampled_from(Settings.__struct_fields__), st.text(max_size=30))
def test_no_variable_ends_in_anything_but_a_named_fault(key: str, value: str) -> None:
    try:
        load_settings(Path("/nowhere"), {f"PORTAL_{key.upper()}": value})
    except ConfigurationError as error:
        assert str(error).startswith(f"PORTAL_{key.upper()}: ")  # noqa: PT017 - most texts are no fault


# --- mailinglists.toml


def test_a_missing_catalogue_means_disabled(tmp_path: Path) -> None:
    catalogue = load_catalogue(tmp_path / "mailinglists.toml", registry.read_settings)

    assert not catalogue.enabled
    assert not catalogue.lists
    with pytest.raises(DisabledError, match=r"set enabled = true in /.*/mailinglists\.toml, which does not exist$"):
        catalogue.require_enabled()


@pytest.mark.parametrize("line", ["", "enabled = false", 'enabled = "yes"', 'enabled = "true"', "enabled = 1"])
def test_anything_but_true_means_disabled(tmp_path: Path, line: str) -> None:
    catalogue = catalogue_from(tmp_path, f"{line}\n{A_LIST}{A_MANAGER}")

    assert not catalogue.enabled
    with pytest.raises(DisabledError, match=r"set enabled = true in /.*/mailinglists\.toml$"):
        catalogue.get("members")


def test_a_list_says_little_and_inherits_the_rest(tmp_path: Path) -> None:
    catalogue = catalogue_from(tmp_path, f"enabled = true\n{A_LIST}{A_MANAGER}")
    members = catalogue.get("members")

    assert catalogue.applied_within_hours == 12
    assert (members.handle, members.list_name, members.manager) == ("members", "members", "files")
    assert (members.description, members.archive, members.audience) == ("", None, None)
    assert (members.sync_passwords, members.honour_list_changes, members.remove_on_departure) == (True, True, True)
    assert members.safety_limits == SafetyLimits(removals=5, removals_percent=10, additions=25, additions_percent=25)


def test_a_list_overrides_what_stands_above_and_what_is_absent_keeps_its_value(tmp_path: Path) -> None:
    catalogue = catalogue_from(
        tmp_path,
        f"""
        enabled = true
        honour_list_changes = false
        on_departure = "keep"
        safety_limits = {{ removals_percent = 20, additions = 0 }}
        {A_LIST}
        list = "members@lists.example.org"
        manager = "files"
        audience = ["full", "associate"]
        honour_list_changes = true
        on_departure = "remove"
        safety_limits = {{ removals = 1, additions = 7 }}
        [lists.tech]
        name = "Tech"
        email = "tech@lists.example.org"
        syncpws = false
        {A_MANAGER}
        [managers.others]
        kind = "file"
        directory = "others"
        """.replace('email = "tech@lists.example.org"', 'email = "tech@lists.example.org"\nmanager = "others"'),
    )
    members, tech = catalogue.get("members"), catalogue.get("tech")

    assert members.list_name == "members@lists.example.org"
    assert members.audience == frozenset({"full", "associate"})
    assert (members.honour_list_changes, members.remove_on_departure) == (True, True)
    assert members.safety_limits == SafetyLimits(removals=1, removals_percent=20, additions=7, additions_percent=25)
    assert (tech.manager, tech.sync_passwords) == ("others", False)
    assert (tech.honour_list_changes, tech.remove_on_departure) == (False, False)
    assert tech.safety_limits == SafetyLimits(removals=5, removals_percent=20, additions=0, additions_percent=25)
    assert catalogue.audiences == frozenset({"full", "associate"})


def test_an_unknown_list_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    catalogue = catalogue_from(tmp_path, f"enabled = true\n{A_LIST}{A_MANAGER}")

    with pytest.raises(UnknownListError, match=r"unknown list: membrs \(lists in mailinglists\.toml: members\)"):
        catalogue.get("membrs")
    with pytest.raises(UnknownListError) as raised:
        catalogue.get("x\x1b" * 5000)
    assert str(raised.value).isprintable()
    assert len(str(raised.value)) < 150


def _list(**entries: str) -> str:
    values = {"name": '"Members"', "email": '"members@lists.example.org"', **entries}
    return "[lists.members]\n" + "".join(f"{key} = {value}\n" for key, value in values.items() if value) + A_MANAGER


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("enabld = true", "FILE: unknown setting `enabld`"),
        ("applied_within_hours = 0", "FILE: expected a whole number >= 1 - at `applied_within_hours`"),
        ('honour_list_changes = "no"', "FILE: expected true or false, got text - at `honour_list_changes`"),
        ('on_departure = "drop"', "FILE: Invalid enum value 'drop' - at `on_departure`"),
        ("safety_limits = { removals_percent = 101 }", "FILE: expected a whole number <= 100 - at `safety_limits.removals_percent`"),
        ("safety_limits = { removals = -1 }", "FILE: expected a whole number >= 0 - at `safety_limits.removals`"),
        ("safety_limits = { count = 1 }", "FILE: unknown setting `count` - at `safety_limits`"),
        ("safety_limits = 5", "FILE: expected a table, got a whole number - at `safety_limits`"),
        ("lists = []", "FILE: expected a table, got a list - at `lists`"),
        ("[lists]\nmembers = 1\n" + A_MANAGER, "FILE: lists.members: expected a table, got a whole number"),
        ("[managers]\nmailman = 1", 'FILE: managers.mailman: set `kind`, for example kind = "mailman2"'),
        ("[managers.mailman]", 'FILE: managers.mailman: set `kind`, for example kind = "mailman2"'),
        (_list(name=""), "FILE: lists.members: missing setting `name`"),
        (_list(email=""), "FILE: lists.members: missing setting `email`"),
        (_list(email='"members"'), "FILE: lists.members: `email`: not an e-mail address: members"),
        (_list(name='"two\\nlines"'), "FILE: lists.members: expected text without control characters - at `name`"),
        (_list(desc='"a\\u0000b"'), "FILE: lists.members: expected text without control characters - at `desc`"),
        (_list(syncpws='"no"'), "FILE: lists.members: expected true or false, got text - at `syncpws`"),
        (_list(sync_pws="false"), "FILE: lists.members: unknown setting `sync_pws`"),
        (_list(audience='"full"'), "FILE: lists.members: expected a list, got text - at `audience`"),
        (_list(safety_limits="{ additions_percent = 1.5 }"), "FILE: lists.members: expected a whole number, got a fraction - at `safety_limits.additions_percent`"),
        (
            _list(archive='"javascript:alert(1)"'),
            "FILE: lists.members: expected text that starts with http:// or https:// and a host - at `archive`",
        ),
        *(
            (_list(settings_url=f'"{url}"'), "FILE: lists.members: `settings_url` may contain {address} once, after the host, and no other braces")
            for url in ("https://{address}.example.org/", "https://example.org/{handle}", "https://example.org/{address}/{address}")
        ),
        (_list(settings_url='"lists.example.org/{address}"'), "FILE: lists.members: expected text that starts with http:// or https:// and a host - at `settings_url`"),
        (_list(manager='"mailman"'), "FILE: lists.members: `manager` is mailman, which is not defined under [managers]; defined: files"),
        (
            _list() + "[managers.mailman]\nkind = 'mailman2'\n",
            "FILE: lists.members: set `manager` to one of those under [managers]: files, mailman",
        ),
        (
            A_LIST,
            "FILE: lists.members: the file defines no list manager; add a table such as [managers.mailman]",
        ),
        (
            _list() + "applied_within_hours = 6\n",
            'FILE: managers.files: kind = "file": unknown setting `applied_within_hours`; move it to the top of the file, above the first [table]',
        ),
    ],
)  # fmt: skip
def test_a_fault_in_the_catalogue_names_file_and_key(tmp_path: Path, text: str, fault: str) -> None:
    assert fault_of_catalogue(tmp_path, text) == fault


@pytest.mark.parametrize("handle", ["Members", "-members", "mem bers", "a/b", "../x", "é", "a" * 65, "", "x\\u0007"])
def test_a_bad_handle_is_refused_by_name(tmp_path: Path, handle: str) -> None:
    fault = fault_of_catalogue(tmp_path, A_LIST.replace("members]", f'"{handle}"]') + A_MANAGER)

    assert fault.startswith("FILE: lists.")
    assert "a handle may contain a-z, 0-9, dots, dashes and underscores" in fault
    assert fault.isprintable()


@pytest.mark.parametrize(
    "name", ["-members", ".", "..", "../other", "a/b", "/etc/passwd", "two words", "a\\nb", "a\\n"]
)
def test_a_list_name_that_is_an_option_or_a_path_is_refused(tmp_path: Path, name: str) -> None:
    fault = fault_of_catalogue(tmp_path, _list(list=f'"{name}"'))

    assert fault.startswith("FILE: lists.members: expected text without white space or slashes, and without a dash")
    assert fault.endswith("- at `list`")


@pytest.mark.parametrize("name", ["members", "Members", "members@lists.example.org", "ops.tech-2", "members_old"])
def test_other_list_names_are_the_list_managers_business(tmp_path: Path, name: str) -> None:
    assert catalogue_from(tmp_path, "enabled = true\n" + _list(list=f'"{name}"')).get("members").list_name == name


def test_a_fault_in_a_managers_table_names_the_manager(tmp_path: Path) -> None:
    def read(kind: str, table: Mapping[str, Any]) -> Any:
        raise ConfigurationError(f"{kind} has no {next(iter(table))}")

    (tmp_path / "lists.toml").write_text("[managers.files]\nkind = 'file'\nfolder = 'x'\n")
    with pytest.raises(ConfigurationError, match=r"lists\.toml: managers\.files: file has no folder"):
        load_catalogue(tmp_path / "lists.toml", read)


def test_an_unknown_kind_of_manager_is_told(tmp_path: Path) -> None:
    fault = fault_of_catalogue(tmp_path, "[managers.main]\nkind = 'majordomo'\n")

    assert fault.startswith("FILE: managers.main: ")
    assert "majordomo" in fault


@pytest.mark.parametrize("other", ["main", "alias"])
def test_two_handles_that_lead_to_one_list_at_one_manager_are_refused(tmp_path: Path, other: str) -> None:
    managers = "".join(f"[managers.{name}]\nkind = 'file'\ndirectory = 'rosters'\n" for name in ("main", "alias"))
    lists = f"""
[lists.members]
name = "Members"
email = "members@lists.example.org"
manager = "main"
[lists.everybody]
name = "Everybody"
email = "everybody@lists.example.org"
manager = "{other}"
"""
    assert set(catalogue_from(tmp_path, lists + managers).lists) == {"members", "everybody"}
    fault = fault_of_catalogue(tmp_path, f'{lists}list = "members"\n{managers}')
    assert "lists.members and lists.everybody are the same list" in fault


# --- the documentation


def test_a_file_that_may_not_be_read_is_reported_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise PermissionError(13, "")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(ConfigurationError, match="Permission denied; let the portal's user read the file and enter"):
        load_settings(tmp_path, {})


def test_the_faults_on_the_page_are_real_ones(tmp_path: Path) -> None:
    faults = [
        fault_of_settings(tmp_path, "site_nam = 'x'"),
        fault_of_settings(tmp_path, "bcrypt_rounds = '12'"),
        fault_of_settings(tmp_path, PORTAL_TIMEZONE="Dublin"),
        fault_of_catalogue(tmp_path, _list(manager='"mailman"')).replace("FILE", "instance/mailinglists.toml"),
    ]
    page = (ROOT / "docs" / "configuration.md").read_text()

    told = re.findall(r"^error: (.*) \(docs/errors\.md#configuration-error\)$", page, re.MULTILINE)
    assert told == [fault.replace(str(tmp_path), "instance") for fault in faults]


# --- mail


MAIL = """
[mail]
sender = "portal@example.org"
"""


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        ("", "`mail` needs exactly one of `smtp`, `sendmail` and `folder`"),
        ('sendmail = "s"\nsmtp = { host = "h" }', "`mail` needs exactly one of `smtp`, `sendmail` and `folder`"),
        ('sendmail = "\'"', "`sendmail` is not a valid command"),
        ('sendmail = " "', "`sendmail` is not a valid command"),
        ('sendmail = "s"\nreply_to = "nobody"', "`reply_to` is not an e-mail address"),
        (
            'sendmail = "s"\noperators = ["a@example.org", "Bob <b@example.org>"]',
            "`operators` is not an e-mail address",
        ),
        ('sendmail = "s"\nmails_per_minute = 0', "`mail.mails_per_minute`"),
        ('smtp = { host = "a b" }', "a host name or an IP address"),
        ('smtp = { host = "h", user = "u" }', "`user` and `password_file` must be set together"),
        ('smtp = { host = "h", security = "none", user = "u", password_file = "p" }', "send the password unencrypted"),
        ('smtp = { host = "h", security = "ssl" }', "`mail.smtp.security`"),
        ('smtp = { host = "h", password = "canary" }', "unknown setting `password`"),
    ],
)
def test_a_fault_in_how_mail_is_sent_is_named(tmp_path: Path, more: str, fault: str) -> None:
    found = fault_of_settings(tmp_path, MAIL + more)
    assert fault in found
    assert "canary" not in found


@pytest.mark.parametrize(("security", "port"), [("none", 25), ("starttls", 587), ("tls", 465)])
def test_the_port_of_the_mail_server_is_the_usual_one(tmp_path: Path, security: str, port: int) -> None:
    mail = settings_from(tmp_path, f'{MAIL}smtp = {{ host = "h", security = "{security}" }}').mail
    assert mail is not None
    assert mail.smtp is not None
    assert mail.smtp.port_in_use == port


def test_mail_of_the_file_stays_where_variables_set_something_else(tmp_path: Path) -> None:
    settings = settings_from(tmp_path, f'{MAIL}sendmail = "s -i"', PORTAL_SITE_NAME="x", PORTAL_MAIL="y")
    assert settings.mail is not None
    assert (settings.site_name, settings.mail.sendmail_argv) == ("x", ["s", "-i"])


@pytest.mark.parametrize(
    ("table", "kind"),
    [
        ({"membership": {"file": "members.csv"}}, "Settings"),
        ({"name": "Members", "email": "members@lists.example.org"}, "_ListEntry"),
    ],
)
def test_what_was_read_can_be_let_go_of(table: dict[str, object], kind: str) -> None:
    """msgspec frees memory twice where a text with a pattern may also be a list or a table."""
    program = (
        "import gc, msgspec, portal.config as config\n"
        f"msgspec.convert({table!r}, config.{kind})\n"
        "config.__dict__.clear()\n"
        "gc.collect()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_nobody_is_invited_without_mail(tmp_path: Path) -> None:
    (tmp_path / "portal.toml").write_text("[membership]\ninvite = true\n")
    with pytest.raises(
        ConfigurationError, match=r"portal\.toml: `membership\.invite` needs mail; add a table \[mail\]"
    ):
        load_settings(tmp_path, {})


@pytest.mark.parametrize("groups", ['""', '"a\\u0007"', '["a", ""]', f'"{"x" * 121}"'])
def test_columns_of_groups_are_lines(tmp_path: Path, groups: str) -> None:
    (tmp_path / "portal.toml").write_text(
        f'[membership]\nfile = "members.csv"\n[membership.columns]\ngroups = {groups}\n'
    )
    with pytest.raises(ConfigurationError, match="groups"):
        load_settings(tmp_path, {})
