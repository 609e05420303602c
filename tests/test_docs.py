"""The documentation is true: commands, pages, settings and codes are described, and examples work."""

import ast
import os
import re
import shlex
import sqlite3
import stat
import struct
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import click
import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal import errors
from portal.config import Settings, load_catalogue, load_settings
from portal.extensions import db
from portal.faults import FAULTS, UNFORESEEN, Fault
from portal.listmanagers import registry
from portal.web.api import openapi
from tests.conftest import SERVER
from tests.factories import make_user
from tests.fakes.mailman2 import FakeMailman2

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
TEXTS = [*PAGES, *sorted((ROOT / "instance").glob("*.example"))]
READ = {path: path.read_text(encoding="utf-8") for path in TEXTS}
README, COMMANDS, INSTALL, OPERATE, ERRORS = (
    READ[ROOT / name]
    for name in ("README.md", "docs/commands.md", "docs/install.md", "docs/operate.md", "docs/errors.md")
)

every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: str(path.relative_to(ROOT)))


def blocks(text: str, *languages: str) -> list[tuple[str, str]]:
    """Return the code blocks of some languages as (language, text), in their order."""
    found = re.findall(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [(language, block) for language, block in found if language in languages]


def rows(text: str) -> list[str]:
    """Return the rows of all tables."""
    return [line for line in text.splitlines() if line.startswith("|") and not line.startswith("| ---")]


def prose(text: str) -> str:
    """Return a page without its code blocks."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def section(text: str, heading: str) -> str:
    """Return what stands beneath a heading, up to the next one of its level."""
    level = heading.split(maxsplit=1)[0]
    return re.split(rf"^{level} ", text.partition(f"\n{heading}")[2], maxsplit=1, flags=re.MULTILINE)[0]


# --- commands

GROUPS = ("mailinglist", "user", "apikey", "mail", "portal")


def commands(app: Flask, *groups: str) -> Iterator[tuple[str, click.Command]]:
    """Yield the commands of groups as ("mailinglist", command)."""
    for name in groups:
        group = app.cli.commands[name]
        assert isinstance(group, click.Group)
        yield from ((name, command) for command in group.commands.values())


def row_of(group: str, command: str) -> str:
    """Return the row of a command in the table of its group."""
    beneath = section(COMMANDS, f"## `flask {group}`")
    found = [row for row in rows(beneath) if re.search(rf"`{re.escape(command)}[ `]", row.split(" | ")[0])]
    assert len(found) == 1, f"flask {group} {command} has {len(found)} rows in docs/commands.md"
    return found[0]


def test_every_command_has_its_row_with_its_options_and_arguments_and_no_others(app: Flask) -> None:
    for group, command in commands(app, *GROUPS):
        row = row_of(group, command.name or "")
        usage = row.replace("\\|", "|").rpartition(" | ")[0]
        named = set(re.findall(r"(?<![\w-])(--?[a-z][a-z-]*)", usage))
        options = {name for each in command.params for name in (*each.opts, *each.secondary_opts) if name[0] == "-"}
        arguments = [each for each in command.params if isinstance(each, click.Argument)]

        assert named == options, f"flask {group} {command.name}"
        for each in arguments:
            assert re.search(rf"\b{(each.metavar or each.name or '').strip('[].').upper().removesuffix('S')}", usage), (
                row,
                each.name,
            )


def test_every_command_in_the_tables_is_one(app: Flask) -> None:
    for group in GROUPS:
        beneath = section(COMMANDS, f"## `flask {group}`").partition("\n\n**")[0].partition("\n### ")[0]
        firsts = [row.partition(" | ")[0] for row in rows(beneath)]
        told = {name for first in firsts for name in re.findall(r"`([a-z][a-z-]+)[^`]*`", first)}

        assert told == {command.name for _, command in commands(app, group)}


def test_commands_that_stand_alone_have_their_section(app: Flask) -> None:
    for name in ("db", "demo", "minutely"):
        assert name in app.cli.commands
        assert section(COMMANDS, f"## `flask {name}`").strip()


def test_no_page_calls_a_command_or_an_option_that_is_not_there(app: Flask) -> None:
    known = {f"{group} {command.name}": command for group, command in commands(app, *GROUPS)}
    calls = [
        (path.name, call)
        for path, text in READ.items()
        for call in re.findall(
            r"flask (?:--app portal )?((?:mailinglist|user|apikey|mail|portal) [a-z][^`|\n)>…]*)", text
        )
    ]
    assert len(calls) > 50

    for name, call in calls:
        group, command, *words = call.replace(",", " ").split()
        assert f"{group} {command}" in known, (name, call)
        options = {option for each in known[f"{group} {command}"].params for option in each.opts}
        assert {word for word in words if re.fullmatch(r"--[a-z-]+", word)} <= options, (name, call)


def test_every_make_goal_that_a_page_names_is_one() -> None:
    goals = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {goal for path in PAGES for goal in re.findall(r"(?:^|`)make ([a-z]+)", READ[path], re.MULTILINE)}

    assert {"run", "test"} <= set(re.findall(r"^make ([a-z]+)", README, re.MULTILINE))
    assert named <= goals
    assert {"run", "test"} <= named


# --- pages of the portal


def test_every_route_has_its_row_and_every_row_is_a_route(app: Flask) -> None:
    def plain(path: str) -> str:
        """Return a path without what its arguments may be."""
        return re.sub(r"<[^<>]*:(\w+)>", r"<\1>", path)

    routes = {plain(rule.rule) for rule in app.url_map.iter_rules() if rule.endpoint != "static"}
    told = {
        plain(path) for row in rows(READ[ROOT / "docs" / "pages.md"]) for path in re.findall(r"^\| `(/[^`]*)`", row)
    }

    assert told == routes


def test_every_call_of_the_api_has_its_row_on_its_page(app: Flask) -> None:
    routes = {
        f"{method} {rule.rule}"
        for rule in app.url_map.iter_rules()
        if rule.rule.startswith("/api/")
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    page = READ[ROOT / "docs" / "api.md"]
    told = {call for row in rows(page) for call in re.findall(r"^\| `([A-Z]+ /[^`]*)`", row)}

    assert told == routes
    assert {f"| {status} |" for status in openapi._ERRORS if f"| {status} |" not in page} == set()


# --- variables, exit codes


def test_the_variables_on_the_pages_are_those_that_are_read() -> None:
    sources = [*(ROOT / "portal").rglob("*.py"), ROOT / "tests" / "conftest.py"]
    read = {name for path in sources for name in re.findall(r'environ(?:\.get)?[(\[]"(PORTAL_\w+)"', path.read_text())}
    settings = {f"PORTAL_{key.upper()}" for key in Settings.__struct_fields__}
    scripts = (ROOT / "portal" / "templates" / "scripts").glob("*.sh")
    settings |= {name for path in scripts for name in re.findall(r"\$\{(PORTAL_\w+)", path.read_text())}
    told = {name for path in PAGES for name in re.findall(r"\bPORTAL_[A-Z_]*[A-Z]\b", READ[path])}

    assert read == {"PORTAL_INSTANCE", "PORTAL_TEST_DATABASE_URI"}
    assert read <= told
    assert told <= read | settings


def test_every_exit_code_is_explained_once() -> None:
    codes = {str(fault.exit_code) for fault in (*FAULTS.values(), UNFORESEEN)} | {"0", "2", "130", "141"}
    table = rows(section(ERRORS, "## Exit codes"))
    told = [code for row in table[1:] for code in re.findall(r"\d+", row.split(" | ")[0])]

    assert sorted(told) == sorted(codes)
    assert [path.name for path, text in READ.items() if table[0].split(" | ")[0] in text] == ["errors.md"]


# --- errors


def exit_and_status(fault: Fault) -> str:
    return f"Exit code {fault.exit_code}, status {fault.status}."


@pytest.mark.parametrize("fault", dict.fromkeys((*FAULTS.values(), UNFORESEEN)), ids=lambda fault: fault.title)
def test_an_error_leads_to_its_section(fault: Fault) -> None:
    place, _, anchor = fault.help.partition("#")
    headings = {slug(each): each for each in re.findall(r"^## (.*)", ERRORS, re.MULTILINE)}

    assert (READ[ROOT / place], headings[anchor]) == (ERRORS, fault.title)
    assert section(ERRORS, f"## {fault.title}\n").strip().startswith(exit_and_status(fault).removesuffix("."))


def test_every_section_of_an_error_is_that_of_one() -> None:
    titles = {fault.title for fault in (*FAULTS.values(), UNFORESEEN)}

    assert set(re.findall(r"^## (.*)\n\nExit code", ERRORS, re.MULTILINE)) == titles


def raised() -> dict[str, set[str]]:
    """Return the messages that each error is raised with in the sources, with … for each value."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "portal").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            match node:
                case ast.Call(func=ast.Name(id=name) | ast.Attribute(attr=name), args=[first, *_]) if hasattr(
                    errors, name
                ):
                    found.setdefault(name, set()).add(with_gaps(first))
    return found


def with_gaps(text: ast.expr) -> str:
    match text:
        case ast.Constant(value=str() as words):
            return re.sub(r"%\(\w+\)s", "…", words)
        case ast.JoinedStr(values=parts):
            return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.BinOp(left=left, right=right):
            return with_gaps(left) + with_gaps(right)
    return "…"


def test_every_message_of_the_errors_is_a_real_one_in_the_section_of_its_error() -> None:
    messages = raised()
    for title, told in {
        title: section(ERRORS, f"## {title}\n") for title in re.findall(r"^## (.*)", ERRORS, re.MULTILINE)
    }.items():
        kinds = [kind.__name__ for kind, fault in FAULTS.items() if fault.title == title]
        real = {message for kind in kinds for message in messages.get(kind, ())}
        listed = [row[2:].partition("` | ")[0].strip("`").strip() for row in rows(told) if row.startswith("| `")]
        assert not kinds or [each for each in listed if each not in real] == [], title


# Where each message is listed, since an operator meets it in the mail of cron.
LISTED = {
    "DatabaseUnavailableError", "LeaseHeldError", "RateLimitedError", "NoPlannedRunError", "NoSuchListError",
    "NotMigratedError", "NotOfferedError", "PausedError", "PlanChangedError", "RosterInDoubtError", "UnknownListError",
}  # fmt: skip


def test_every_message_that_cron_mails_is_explained() -> None:
    page = " ".join(ERRORS.split())
    missing = [
        message
        for kind, messages in raised().items()
        for message in messages
        if kind in LISTED
        and f"`{message}`" not in page
        and not re.search(re.escape(message).replace("…", ".+?"), ERRORS)
    ]

    assert missing == []


def advice() -> set[str]:
    """Return the texts of list managers and runs that end a message, with … for each value."""
    folders = (ROOT / "portal" / "listmanagers", ROOT / "portal" / "services" / "sync")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for folder in folders for path in folder.glob("*.py")]
    texts = {with_gaps(node) for tree in trees for node in ast.walk(tree) if isinstance(node, ast.expr)}
    return {text for text in texts if len(text.replace("…", "")) > 25}


def test_the_messages_on_the_pages_of_list_managers_are_real_ones() -> None:
    known = [re.compile(re.escape(text).replace("…", ".*?") + "$") for text in advice()]
    quoted = [
        (path.name, line)
        for path in PAGES
        if path.parent.name == "list-managers"
        for line in re.findall(r"^ *(?:error: |ants: |/)(.*; .*?)(?: \(docs/errors.*)?$", READ[path], re.MULTILINE)
    ]

    assert len(quoted) > 8
    assert [(name, line) for name, line in quoted if not any(each.search(line) for each in known)] == []


def test_the_tables_on_the_pages_have_the_columns_that_commands_print() -> None:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in (ROOT / "portal" / "cli").glob("*.py")]
    printed = {
        tuple(each.value for each in node.elts if isinstance(each, ast.Constant))
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Tuple)
    }
    shown = [
        (path.name, tuple(re.split(" {2,}", line)))
        for path in PAGES
        for line in re.findall(r"^ *([A-Z]+(?: +[A-Z]+)* {2,}[A-Z ]+)$", READ[path], re.MULTILINE)
    ]

    assert len(shown) > 8
    assert [(name, columns) for name, columns in shown if columns not in printed] == []


# --- links, pictures, paths


def slug(heading: str) -> str:
    """Return the anchor that a heading gets."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@every_page
def test_every_link_leads_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", prose(READ[path])):
        if link.startswith(("https://", "mailto:")):
            continue
        place, _, anchor = link.partition("#")
        target = (path.parent / place).resolve() if place else path

        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert anchor in {slug(each) for each in re.findall(r"^#+ (.*)", prose(READ[target]), re.MULTILINE)}, link


@every_page
def test_a_page_can_be_reached_from_the_readme(path: Path) -> None:
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        at = waiting.pop()
        if at in reached or at not in READ:
            continue
        reached.add(at)
        links = re.findall(r"\]\(([^)\s#]+)[^)]*\)", READ[at])
        targets = [(at.parent / link).resolve() for link in links if not link.startswith("https:")]
        waiting += [each for each in targets if each.is_file()]
        waiting += [each for folder in targets if folder.is_dir() for each in folder.glob("*.md")]

    assert path in reached


def test_the_pages_and_sections_that_the_sources_name_exist() -> None:
    for path in (*(ROOT / "portal").rglob("*.py"), *(ROOT / "tests").rglob("*.py")):
        text = " ".join(path.read_text(encoding="utf-8").split())
        for page, heading in re.findall(r'\b(docs/[\w/-]+\.md)(?:, "([^"]+)")?', text):
            headings = re.findall(r"^#+ (.*)", READ.get(ROOT / page, ""), re.MULTILINE)
            assert headings, (path.name, page)
            assert heading in {"", *headings}, (path.name, page, heading)


ORDER = ["install", "go-live", "operate", "errors", "people", "superusers", "members", "commands", "configuration", "api",
         "pages", "languages", "semantics", "list-managers", "migrating-from-ixp-manager"]  # fmt: skip


def test_the_readme_leads_to_the_pages_in_the_order_in_which_they_are_needed() -> None:
    named = re.findall(r"docs/([\w-]+)\.md", section(README, "## Documentation"))

    assert [name for name in named if name in ORDER] == ORDER
    assert named[0] == "install"
    assert re.findall(r"^## (.*)", README, re.MULTILINE) == ["Have a look", "The first list", "Documentation"]


def test_installing_is_one_path_of_numbered_steps() -> None:
    steps = [int(number) for number in re.findall(r"^## (\d+)\. ", INSTALL, re.MULTILINE)]

    assert steps == list(range(1, len(steps) + 1))
    assert len(steps) == len(re.findall(r"^## ", INSTALL, re.MULTILINE))


def test_pictures_are_small_sharp_and_of_every_page_and_view() -> None:
    widths = {"wide": 1280, "narrow": 320, "dark": 1280}
    folder = ROOT / "docs" / "screenshots"

    names = ("log-in", "subscriptions", "account", "report", "list", "search", "users")
    pictures = {f"{name}-{view}.png" for name in names for view in widths}
    assert {path.name for path in folder.iterdir()} == pictures
    for path in folder.iterdir():
        start = path.read_bytes()[:24]
        assert start.startswith(b"\x89PNG\r\n\x1a\n")
        assert struct.unpack(">I", start[16:20])[0] == 2 * widths[path.stem.rpartition("-")[2]], path.name
        assert path.stat().st_size <= 250_000, path.name


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_path_of_somebodys_machine_is_on_a_page(path: Path) -> None:
    assert re.findall(r"(?<![\w.])/(?:work|root|home|Users|tmp/(?!renew))[/\w.]*", READ[path]) == []


# --- blocks of TOML


TOML = [(path.name, block) for path in PAGES for _, block in blocks(READ[path], "toml")]
OF_MANAGERS = {path.name for path in (ROOT / "docs" / "list-managers").iterdir()}
COMPLETE = [pytest.param(block, id=name) for name, block in TOML if "[lists." in block]
OF_THE_PORTAL = [  # settings without a table; on the pages of the list managers they are those of a manager
    pytest.param(block, id=name)
    for name, block in TOML
    if not re.search(r"^\[", block, re.MULTILINE) and name not in OF_MANAGERS
]


@pytest.mark.parametrize("block", [pytest.param(block, id=name) for name, block in TOML])
def test_every_block_of_toml_is_toml(block: str) -> None:
    assert tomllib.loads(block)


@pytest.mark.parametrize("block", COMPLETE)
def test_every_complete_catalogue_on_a_page_loads(block: str, tmp_path: Path) -> None:
    (tmp_path / "mailinglists.toml").write_text(block)

    catalogue = load_catalogue(tmp_path / "mailinglists.toml", registry.read_settings)
    assert catalogue.enabled
    assert catalogue.lists


@pytest.mark.parametrize("block", OF_THE_PORTAL)
def test_every_setting_of_the_portal_on_a_page_is_one(block: str, tmp_path: Path) -> None:
    (tmp_path / "portal.toml").write_text(block)

    assert load_settings(tmp_path, {}) != Settings()


def test_there_are_such_blocks() -> None:
    assert len(COMPLETE) >= 2
    assert len(OF_THE_PORTAL) >= 3


# --- what commands print


@pytest.fixture
def mailman(tmp_path: Path) -> FakeMailman2:
    return FakeMailman2(tmp_path / "mailman")


class Shell:
    """A shell in which /srv/portal/instance and /usr/local/mailman/bin are folders of the test."""

    def __init__(self, instance: Path, mailman: FakeMailman2) -> None:
        self.instance, self.mailman = instance, mailman
        self.bin = instance.parent / "bin"
        self.bin.mkdir(exist_ok=True)  # the instance folder is one for all tests of a worker
        programs = {**mailman.cmds, "flask": f"{shlex.quote(sys.executable)} -m flask"}
        for name, command in programs.items():
            (self.bin / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            (self.bin / name).chmod(0o755)

    def write(self, catalogue: str) -> None:
        """Write the catalogue of a page, with the test's list manager in the place of the real one."""
        text = catalogue.partition("[managers")[0] + self.mailman.toml()
        (self.instance / "mailinglists.toml").write_text(text)

    def __call__(self, line: str) -> str:
        """Run a line of a page; return what it prints on both, without what is never the same."""
        environ = {
            "PATH": f"{self.bin}:{os.environ['PATH']}", "FLASK_APP": "portal", "PYTHONPATH": str(ROOT),
            "PORTAL_INSTANCE": str(self.instance), "PORTAL_BCRYPT_ROUNDS": "4",
        }  # fmt: skip
        if SERVER:
            environ["PORTAL_SQLALCHEMY_DATABASE_URI"] = SERVER
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", line.replace("/usr/local/mailman/bin", str(self.bin))],
            cwd=self.instance.parent, env=environ, input="", capture_output=True, text=True, check=False, timeout=60,
        )  # fmt: skip
        return stable((done.stderr + done.stdout).replace(str(self.instance), "/srv/portal/instance"))


def stable(text: str) -> str:
    """Return output without plan ids, passwords and the prompts for them."""
    lines = re.sub(r"\b[0-9a-f]{16}\b", "ID", text).splitlines()
    return "\n".join(
        line for line in lines if not re.fullmatch(r"Password \(.*|Repeat password:|[A-Za-z0-9]{20}", line)
    )


@pytest.fixture
def shell(make_app: Callable[..., Flask], instance: Path, mailman: FakeMailman2) -> Shell:
    make_app()  # an empty database
    return Shell(instance, mailman)


def follow(shell: Shell, text: str) -> int:
    """Run the commands of a text; see that they print what is beneath them, and return how many they are."""
    steps = [step for _, block in blocks(text, "console") for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    for step in steps:
        command, _, output = step.partition("\n")
        printed = shell(command)  # on both; at a terminal what is on stderr here comes last
        assert sorted(printed.splitlines()) == sorted(stable(output).splitlines()), command
    return len(steps)


@pytest.mark.slow
def test_going_live_comes_about_as_written(shell: Shell, mailman: FakeMailman2) -> None:
    text = READ[ROOT / "docs" / "go-live.md"]
    shell.write(next(block for _, block in blocks(README, "toml")))
    (members,) = (block for _, block in blocks(text, "csv"))
    (shell.instance.parent / "members.csv").write_text(members)
    mailman.set_roster("members", ["alice@example.org", "charlie@example.org", "zoe@example.net"])
    shell("flask user create --superuser alice alice@example.org")

    assert follow(shell, text) >= 5
    assert mailman.roster("members") == {"alice@example.org", "charlie@example.org", "zoe@example.net"}


@pytest.mark.slow
def test_the_first_list_of_the_readme_comes_about_as_written(shell: Shell, mailman: FakeMailman2) -> None:
    text = section(README, "## The first list")
    (catalogue,) = (block for _, block in blocks(text, "toml"))
    (members,) = (block for _, block in blocks(text, "csv"))
    shell.write(catalogue)
    (shell.instance.parent / "members.csv").write_text(members)
    mailman.set_roster("members", ["alice@example.org", "charlie@example.org", "zoe@example.net"])

    assert follow(shell, text) >= 6

    assert mailman.roster("members") == {
        "alice@example.org", "bob@example.org", "charlie@example.org", "zoe@example.net",
    }  # fmt: skip
    (cron,) = (block for _, block in blocks(text, "cron"))
    assert shell(cron.split(maxsplit=5)[5].replace("/srv/portal/.venv/bin/", "").replace("/srv/portal", "$PWD")) == ""


@pytest.mark.slow
def test_the_move_from_ixp_manager_comes_about_as_written(shell: Shell, mailman: FakeMailman2) -> None:
    text = READ[ROOT / "docs" / "migrating-from-ixp-manager.md"]
    (catalogue,) = (block for _, block in blocks(text, "toml"))
    users, preferences = (block for _, block in blocks(text, "csv"))
    shell.write(catalogue)
    (shell.instance.parent / "users.csv").write_text(users)
    (shell.instance.parent / "preferences.csv").write_text(preferences)
    mailman.set_roster("members", ["alice@example.org", "bob@example.org", "charlie@example.org", "s@example.net"])

    steps = [step for _, block in blocks(text, "console") for step in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]]
    for step in steps:
        command, _, output = step.partition("\n")
        printed = shell(command)  # on both; at a terminal what is on stderr here comes last
        assert "check" in command or sorted(printed.splitlines()) == sorted(stable(output).splitlines()), command

    assert mailman.roster("members") == {
        "alice@example.org",
        "charlie@example.org",
        "dora@example.org",
        "s@example.net",
    }


def test_a_backup_holds_what_is_worth_keeping_and_comes_back_as_it_was(tmp_path: Path) -> None:
    """The blocks of the page, with folders of the test and without the change of user."""
    make_folder, backup, _, restore, *_ = (
        block for _, block in blocks(section(OPERATE, "## Backup and restore"), "sh")
    )
    instance, kept, cron = tmp_path / "instance", tmp_path / "kept", tmp_path / "cron"
    for folder in (instance / "rosters", cron):
        folder.mkdir(parents=True)
    files = {"rosters/members.txt": 0o644, "mailinglists.toml": 0o640, "secret_key": 0o600, "mailman_password": 0o600}
    for name, mode in files.items():
        (instance / name).write_text(name)
        (instance / name).chmod(mode)
    (cron / "member-portal").touch()
    with closing(sqlite3.connect(instance / "portal.db")) as database:
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("CREATE TABLE a AS SELECT 1 AS b")
        run(make_folder + backup, tmp_path)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in kept.iterdir()}
    assert (kept.stat().st_mode & 0o777, modes) == (0o700, {"portal.db": 0o600, "instance.tar.gz": 0o600})

    for name in (*files, "portal.db"):
        (instance / name).unlink()
    (instance / "security.log").write_text("what happened since")
    run(restore, tmp_path)

    found = {name: (instance / name).read_text() for name in files}
    assert found == {name: name for name in files}
    assert {name: stat.S_IMODE((instance / name).stat().st_mode) for name in files} == files
    assert (instance / "security.log").read_text() == "what happened since"
    assert stat.S_IMODE((instance / "portal.db").stat().st_mode) == 0o600
    with closing(sqlite3.connect(instance / "portal.db")) as database:
        assert database.execute("SELECT b FROM a").fetchall() == [(1,)]
    assert [path.name for path in cron.iterdir()] == ["member-portal.off"]


def run(script: str, folder: Path) -> None:
    """Run commands of a page as who we are, in a folder that stands for the machine."""
    for theirs, ours in (
        ("/srv/portal/instance", f"{folder}/instance"), ("/var/backups/portal", f"{folder}/kept"),
        ("/etc/cron.d", f"{folder}/cron"), ("runuser -u portal -- ", ""), (" -o portal -g portal", ""),
    ):  # fmt: skip
        script = script.replace(theirs, ours)
    subprocess.run(["bash", "-euc", f"systemctl() {{ :; }}; {script}"], check=True, timeout=60)


@pytest.mark.parametrize("page", [INSTALL, OPERATE], ids=["install", "operate"])
def test_every_command_that_changes_the_portal_says_as_whom(page: str) -> None:
    """Root's git and pip in a folder that is not root's fail, or leave files that the portal cannot write."""
    for _, block in blocks(page, "sh"):
        for line in block.splitlines():
            assert not re.match(r"\s*(\.venv/bin/)?(flask|git|pip|pg_restore|createdb|createuser)\b", line), line


def test_the_web_server_lets_through_what_the_settings_do() -> None:
    (server, below) = (block for _, block in blocks(INSTALL, "nginx"))
    sizes = {f"{Settings().max_body >> 20}m", f"{Settings().max_roster >> 20}m"}
    assert set(re.findall(r"client_max_body_size (\w+);", server)) == sizes
    for place in ("/api/", "/admin/users/imports"):  # what takes rosters and files of members
        large = rf"{place} \{{[^}}]*client_max_body_size {Settings().max_roster >> 20}m;"
        assert re.search(f"location {large}", server)
        assert re.search(f"location /portal{large}", below)
    assert "proxy_set_header Host $http_host;" in server


CATALOGUE = """
{enabled}
[lists.members]
name = "Members"
email = "members@lists.example.org"
"""


@pytest.mark.slow
def test_the_refusals_that_operators_read_about_are_the_real_ones(
    make_app: Callable[..., Flask], instance: Path, mailman: FakeMailman2
) -> None:
    def told(*args: str) -> str:
        done = make_app().test_cli_runner().invoke(args=["mailinglist", *args], input="")
        text = (done.stderr + done.stdout).replace(str(instance), "/srv/portal/instance")
        lines.append(stable(text).partition("\n")[0])
        return text

    def write(enabled: str) -> None:
        (instance / "mailinglists.toml").write_text(CATALOGUE.format(enabled=enabled) + mailman.toml())

    lines: list[str] = []
    names = [f"user{number}" for number in range(10, 50)]
    with make_app().app_context(), Session(db.engine) as session:
        for name in names:
            make_user(session, name)
    mailman.set_roster("members", ["zoe@example.net", *(f"{name}@example.org" for name in names)])
    write("enabled = true")
    told("sync")
    for name in names[:8]:
        told("unsubscribe", "members", name)
    lines.clear()

    refused = told("sync")
    told("sync", "--dry-run", "members")
    told("sync", "-v", "--accept", refused.split()[-2])
    mailman.set_roster("members", [])
    told("sync")
    mailman.fail("list_members", stderr="Traceback: cannot open lists/members/config.pck\n")
    told("sync")
    mailman.repair()
    mailman.drop_list("members")
    told("sync")
    told("sync", "board")
    told("list-init", "members")
    write('enabled = "yes"')
    told("sync")
    write("enable = true")
    told("sync")

    page = stable(ERRORS).splitlines()
    assert [line for line in lines if line not in page] == []
    assert len(set(lines)) == 10
