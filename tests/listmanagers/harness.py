"""A harness for each kind: how the contract suite sets up a list manager, breaks it, and sees its calls."""

import fcntl
import os
import shlex
import sqlite3
import tomllib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from portal.domain.subscriber_options import SubscriberOptions
from portal.listmanagers import registry
from portal.listmanagers.base import CarriesOptions, ListManager
from tests.fakes.mailman2 import FakeMailman2
from tests.fakes.mailman3 import DOMAIN, FakeMailman3
from tests.fakes.mlmmj import FakeMlmmj
from tests.fakes.plain import FakePlain
from tests.fakes.sympa import FakeSympa
from tests.real import mlmmj as real_mlmmj
from tests.real import programs

LIST = "ants"


class Harness:
    """What each kind overrides. ``refuses`` names hostile addresses that the list manager cannot take."""

    refuses: frozenset[str] = frozenset()
    has_digests = False
    carries_options = False
    can_break = True
    can_fail_at_one = False  # whether an address can make a whole call fail
    keeps_case = True  # whether an address comes back as it was typed
    many = 20_000  # as many as it adds and removes in some seconds
    has_batch = True  # whether there is a setting batch
    limit: str | None = "max_output"  # the setting that bounds what is read

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.set_roster()

    def table(self) -> dict[str, Any]:
        raise NotImplementedError

    def mails(self) -> list[str]:
        """Name the mails that the list manager would send by now, where it could send any."""
        return []

    def close(self) -> None:
        """Stop what a harness has started."""

    def open(self, name: str = LIST, **settings: Any) -> ListManager:
        kind, table = self.kind, {**self.table(), **settings}
        return registry.open_list(registry.read_settings(kind, table), name)


class File(Harness):
    kind = "file"
    limit = "max_size"
    has_batch = False
    refuses = frozenset({"/etc/passwd@example.org"})

    def table(self) -> dict[str, Any]:
        return {"directory": str(self.folder)}

    @property
    def path(self) -> Path:
        return self.folder / f"{LIST}.txt"

    def set_roster(self, *addresses: str) -> None:
        self.path.write_text("".join(f"{each}\n" for each in addresses))

    def roster(self) -> set[str]:
        return set(self.path.read_text().splitlines())

    def sent(self) -> str:
        return self.path.read_text()

    def break_down(self) -> None:
        self.path.unlink()
        self.path.mkdir()

    def hang(self) -> None:
        self.lock = os.open(self.folder, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    def assert_let_go(self) -> None:
        os.close(self.lock)
        assert [each.name for each in self.folder.iterdir()] == [self.path.name]

    def flood(self) -> None:
        self.path.write_text("x" * 100_000)

    def print_garbage(self) -> None:
        self.path.write_text("<html>Service for admin@example.org is down</html>\n")


class Commands(Harness):
    kind = "commands"
    can_fail_at_one = True

    def __init__(self, folder: Path) -> None:
        self.fake = FakePlain(folder)
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return {"cmds": self.fake.cmds()}

    def set_roster(self, *addresses: str) -> None:
        self.fake.set_roster(LIST, addresses)

    def roster(self) -> set[str]:
        return self.fake.roster(LIST)

    def sent(self) -> str:
        return "".join(call["stdin"] for call in self.fake.calls())

    def fail_at(self, address: str) -> None:
        self.fake.act(refuse=[address])

    def break_down(self) -> None:
        self.fake.act(down=True)

    def hang(self) -> None:
        self.fake.act(hang=True)

    def assert_let_go(self) -> None:
        self.fake.act()

    def flood(self) -> None:
        self.fake.act(flood=True)

    def print_garbage(self) -> None:
        self.fake.act(garbage=True)


class Mailman2(Harness):
    kind = "mailman2"
    can_fail_at_one = True
    has_digests = True
    carries_options = True
    refuses = frozenset({"a|b@example.org", "=cmd|'/C'!A0@example.org"})

    def __init__(self, folder: Path) -> None:
        self.fake = FakeMailman2(folder)
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return {"cmds": self.fake.cmds}

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.fake.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.fake.roster(LIST)

    def digest_roster(self) -> set[str]:
        return self.fake.digest_roster(LIST)

    def set_no_mail(self, address: str) -> None:
        self.fake.set_delivery(LIST, address, "BYUSER")

    def no_mail_roster(self) -> set[str]:
        return {each for each, why in self.fake.delivery(LIST).items() if why == "BYUSER"}

    def sent(self) -> str:
        return "".join(call.stdin for call in self.fake.calls())

    def fail_at(self, address: str) -> None:
        self.fake.crash(address)

    def break_down(self) -> None:
        for command in self.fake.cmds:
            self.fake.fail(command, stderr="Traceback (most recent call last):\n  line\nIOError: \x1b[31mno space\n")

    def hang(self) -> None:
        self.fake.hang("list_members")
        for command in ("add_members", "remove_members"):
            self.fake.hang(command, locked=True)

    def assert_let_go(self) -> None:
        assert all(call.was_interrupted for call in self.fake.calls())
        assert not self.fake.is_locked(LIST)

    def flood(self) -> None:
        for command in self.fake.cmds:
            self.fake.flood(command)

    def print_garbage(self) -> None:
        for command in self.fake.cmds:
            self.fake.fail(command, exit_code=0, stdout="<html>Service for admin@example.org is down</html>\n")


class RealMailman2(Harness):
    """The installation that MAILMAN2_PREFIX names, with a list ``ants``, which is emptied."""

    kind = "mailman2"
    refuses = Mailman2.refuses
    can_break = False

    def table(self) -> dict[str, Any]:
        bin_folder = Path(os.environ["MAILMAN2_PREFIX"]) / "bin"
        options = {"list_members": "", "add_members": "-r - -w n -a n", "remove_members": "-f - -n -N"}
        return {"cmds": {name: f"{bin_folder / name} {each}" for name, each in options.items()}}

    def set_roster(self, *addresses: str) -> None:
        manager = self.open()
        if held := manager.roster():
            manager.remove(held)
        if addresses:
            manager.add(addresses)

    def roster(self) -> set[str]:
        table = self.table()
        table["cmds"]["list_members"] += " -p"
        settings = registry.read_settings("mailman2", table)
        return set(registry.open_list(settings, LIST).roster())


class Mlmmj(Harness):
    kind = "mlmmj"
    can_fail_at_one = True
    has_digests = True
    carries_options = True
    keeps_case = False
    many = 10  # a process an address
    refuses = frozenset({"/etc/passwd@example.org"})

    def __init__(self, folder: Path) -> None:
        self.fake = FakeMlmmj(folder)
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return self.fake.table()

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.fake.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.fake.everybody(LIST)

    def digest_roster(self) -> set[str]:
        return self.fake.roster(LIST, "-d")

    def set_no_mail(self, address: str) -> None:
        self.fake.set_no_mail(LIST, address)

    def no_mail_roster(self) -> set[str]:
        return self.fake.roster(LIST, "-n")

    def sent(self) -> str:
        return "".join(call[-1] for call in self.fake.calls("mlmmj-sub", "mlmmj-unsub"))

    def fail_at(self, address: str) -> None:
        self.fake.act(kill=[address])

    def break_down(self) -> None:
        self.fake.act(down=True)

    def hang(self) -> None:
        self.fake.act(hang=True)

    def assert_let_go(self) -> None:
        assert self.fake.was_interrupted()

    def flood(self) -> None:
        self.fake.act(flood=True)

    def print_garbage(self) -> None:
        self.fake.act(garbage=True)


class Mailman3(Harness):
    kind = "mailman3"
    can_fail_at_one = True
    has_digests = True
    carries_options = True
    many = 1500  # more than a page
    refuses = frozenset({"a|b@example.org", "=cmd|'/C'!A0@example.org"})

    def __init__(self, folder: Path) -> None:
        self.fake = FakeMailman3()
        super().__init__(folder)

    def close(self) -> None:
        self.fake.close()

    def table(self) -> dict[str, Any]:
        return self.fake.table()

    def open(self, name: str = LIST, **settings: Any) -> ListManager:
        return super().open(f"{name}@{DOMAIN}", **settings)

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.fake.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.fake.roster(LIST)

    def digest_roster(self) -> set[str]:
        return {each for each, mode in self.fake.get_list(LIST).members.items() if mode == "mime_digests"}

    def set_no_mail(self, address: str) -> None:
        self.fake.get_list(LIST).statuses[address] = "by_user"

    def no_mail_roster(self) -> set[str]:
        found = self.fake.get_list(LIST)
        return {each for each, status in found.statuses.items() if status == "by_user" and each in found.members}

    def sent(self) -> str:
        return "".join(value for call in self.fake.calls for _key, value in call.form)

    def fail_at(self, address: str) -> None:
        self.fake.get_list(LIST).poison.add(address)

    def break_down(self) -> None:
        self.fake.act("error")

    def hang(self) -> None:
        self.fake.act("hang")

    def assert_let_go(self) -> None:
        self.fake.act()

    def flood(self) -> None:
        self.fake.act("huge")

    def print_garbage(self) -> None:
        self.fake.act("garbage")

    def mails(self) -> list[str]:
        return self.fake.mails


class RealMailman3(Harness):
    """A real one, started once for all tests, with the list emptied before each."""

    kind = "mailman3"
    has_digests = True
    carries_options = True
    can_break = False
    keeps_case = False  # it does, but it does not say
    many = 50  # a request each
    refuses = Mailman3.refuses

    def __init__(self, folder: Path) -> None:
        self.program = programs.started("mailman3")
        self.program.make_list(LIST)
        self.folder = folder

    def table(self) -> dict[str, Any]:
        return self.program.manager_table()

    def open(self, name: str = LIST, **settings: Any) -> ListManager:
        return super().open(self.program.list_setting(name), **settings)

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.program.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.program.roster(LIST)

    def digest_roster(self) -> set[str]:
        return self.program.digest_roster(LIST)

    def set_no_mail(self, address: str) -> None:
        self.program.set_no_mail(LIST, address)

    def no_mail_roster(self) -> set[str]:
        return self.program.no_mail_roster(LIST)

    def mails(self) -> list[str]:
        return self.program.queued_mails()


class RealMlmmj(Harness):
    """The mlmmj of the system."""

    kind = "mlmmj"
    has_digests = True
    carries_options = True
    can_break = False
    keeps_case = False
    many = 500
    refuses = Mlmmj.refuses

    def __init__(self, folder: Path) -> None:
        if why := real_mlmmj.why_missing():
            pytest.skip(why)
        folder.mkdir()
        self.program = real_mlmmj.Program(folder)
        self.program.make_list(LIST)
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return self.program.manager_table()

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.program.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.program.roster(LIST)

    def digest_roster(self) -> set[str]:
        return self.program.digest_roster(LIST)

    def set_no_mail(self, address: str) -> None:
        self.program.set_no_mail(LIST, address)

    def no_mail_roster(self) -> set[str]:
        return self.program.no_mail_roster(LIST)

    def mails(self) -> list[str]:
        return self.program.queued_mails()


class Sympa(Harness):
    kind = "sympa"
    can_fail_at_one = True
    has_digests = True
    carries_options = True
    keeps_case = False

    def __init__(self, folder: Path) -> None:
        self.fake = FakeSympa(folder)
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return self.fake.table()

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        self.fake.set_roster(LIST, addresses, digest=digest)

    def roster(self) -> set[str]:
        return self.fake.roster(LIST)

    def digest_roster(self) -> set[str]:
        return self.fake.digest_roster(LIST)

    def set_no_mail(self, address: str) -> None:
        self.fake.set_options(LIST, address, reception="nomail")

    def no_mail_roster(self) -> set[str]:
        return self.fake.no_mail_roster(LIST)

    def sent(self) -> str:
        return "".join(call["stdin"] for call in self.fake.calls())

    def fail_at(self, address: str) -> None:
        self.fake.act(crash=[address])

    def break_down(self) -> None:
        self.fake.act(down=True)

    def hang(self) -> None:
        self.fake.act(hang=True)

    def assert_let_go(self) -> None:
        assert self.fake.was_interrupted()

    def flood(self) -> None:
        self.fake.act(flood=True)

    def print_garbage(self) -> None:
        self.fake.act(garbage=True)


class RealSympa(Harness):
    """The Sympa of the system, with a list ``ants`` of the domain SYMPA_DOMAIN, which is emptied. Slow."""

    kind = "sympa"
    can_break = False
    has_digests = True
    carries_options = True
    keeps_case = False
    many = 5

    def table(self) -> dict[str, Any]:
        named = {name: os.environ.get(f"SYMPA_{name.upper()}", "") for name in ("program", "data")}
        domain = os.environ.get("SYMPA_DOMAIN", "lists.example.com")
        return {"domain": domain, **{name: value for name, value in named.items() if value}}

    def set_roster(self, *addresses: str, digest: Iterable[str] = ()) -> None:
        manager = self.open()
        if held := manager.roster():
            manager.remove(held)
        if addresses:
            manager.add(addresses)
        self._add_with("reception=digest", digest)

    def roster(self) -> set[str]:
        return set(self.open().roster())

    def digest_roster(self) -> set[str]:
        return self._with("reception=digest")

    def set_no_mail(self, address: str) -> None:
        self.open().remove([address])
        self._add_with("reception=nomail", [address])

    def no_mail_roster(self) -> set[str]:
        return self._with("reception=nomail")

    def _add_with(self, words: str, addresses: Iterable[str]) -> None:
        if those := [(each, SubscriberOptions(words, words.endswith("nomail"))) for each in addresses]:
            manager = self.open()
            assert isinstance(manager, CarriesOptions)
            manager.add_with_options(those)

    def _with(self, words: str) -> set[str]:
        manager = self.open()
        assert isinstance(manager, CarriesOptions)
        return {each for each, found in (manager.options(manager.roster()) or {}).items() if found.words == words}

    def mails(self) -> list[str]:
        return [str(mail) for mail in Path("/var/spool/sympa/bulk").rglob("*") if mail.is_file()]


class BehindSsh(Harness):
    """The script of docs/list-managers/commands.md, behind an ssh that does what a forced command makes of it."""

    kind = "commands"
    can_break = False
    shell = "/bin/sh"

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        page = _page("commands")
        (folder / "roster").write_text(_block(page, "sh"))
        (folder / "lists").mkdir()
        self.path = folder / "lists" / LIST
        self.ssh = folder / "ssh"
        self.ssh.write_text(
            f'#!/bin/sh\nwhile [ "${{1#lists@}}" = "$1" ]; do shift; done; shift\n'
            f'export SSH_ORIGINAL_COMMAND="$*" ROSTERS={shlex.quote(str(folder / "lists"))}\n'
            f"exec {self.shell} {shlex.quote(str(folder / 'roster'))}\n"
        )
        self.ssh.chmod(0o755)
        block = next(each for each in page.split("```toml\n") if each.startswith("[managers.mailserver]"))
        self.cmds = tomllib.loads(block.partition("```")[0])["managers"]["mailserver"]["cmds"]
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return {"cmds": {key: command.replace("ssh", str(self.ssh), 1) for key, command in self.cmds.items()}}

    def set_roster(self, *addresses: str) -> None:
        self.path.write_text("\n".join(addresses))  # without an end, as hand-made files are

    def roster(self) -> set[str]:
        return set(self.path.read_text().splitlines())


class OwnKind(Harness):
    """The worked example of docs/list-managers/own-kind.md, once ``install_own_kind`` has installed it."""

    kind = "table"
    limit = None
    has_batch = False

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.path = folder / "lists.db"
        with closing(sqlite3.connect(self.path)) as connection:
            connection.executescript(_example("python").split("\n\n")[1].partition('"""')[0])
            connection.execute("INSERT INTO lists VALUES (?)", (LIST,))
            connection.commit()
        super().__init__(folder)

    def table(self) -> dict[str, Any]:
        return {"database": str(self.path)}

    def set_roster(self, *addresses: str) -> None:
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute("DELETE FROM subscribers")
            connection.executemany("INSERT INTO subscribers VALUES (?, ?)", ((LIST, each) for each in addresses))

    def roster(self) -> set[str]:
        with closing(sqlite3.connect(self.path)) as connection:
            return {address for (address,) in connection.execute("SELECT address FROM subscribers")}

    def sent(self) -> str:
        return "".join(sorted(self.roster()))

    def break_down(self) -> None:
        self.path.write_bytes(b"no database" * 100)

    def hang(self) -> None:
        self.lock = sqlite3.connect(self.path, isolation_level=None)
        self.lock.execute("BEGIN EXCLUSIVE")

    def assert_let_go(self) -> None:
        self.lock.close()


def install_own_kind(folder: Path) -> None:
    """Install the worked example into a folder that stands on ``sys.path``."""
    (folder / "table_lists.py").write_text(_example("python"))
    points = tomllib.loads(_example("toml"))["project"]["entry-points"]
    info = folder / "table_lists-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: table-lists\nVersion: 1.0\n")
    lines = [f"[{group}]\n{name} = {value}\n" for group, each in points.items() for name, value in each.items()]
    (info / "entry_points.txt").write_text("".join(lines))


def _example(language: str) -> str:
    return _block(_page("own-kind"), language)


def _page(name: str) -> str:
    return (Path(__file__).parents[2] / "docs" / "list-managers" / f"{name}.md").read_text()


def _block(page: str, language: str) -> str:
    """Return the first code block of a language on a page."""
    return page.partition(f"```{language}\n")[2].partition("```")[0]
