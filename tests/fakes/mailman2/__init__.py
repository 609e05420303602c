"""A Mailman 2.1 for tests: its commands on a folder, with the real ones' outputs, exit codes and misreadings."""

import json
import shlex
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).parent


class Call(NamedTuple):
    """One call of a command: what it was given, and whether it felt SIGINT."""

    command: str
    argv: list[str]
    stdin: str
    environment: dict[str, str]
    was_interrupted: bool


class FakeMailman2:
    """Mailman 2.1 in a folder.

    Rosters, switches and the log of calls are files there, so that commands in other processes see them. Switches
    last until ``repair()``.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("lists", "locks"):
            (root / name).mkdir(parents=True, exist_ok=True)

    @property
    def cmds(self) -> dict[str, str]:
        """The ``cmds`` table of a manager of the kind mailman2."""
        options = {"list_members": "", "add_members": "-r - -w n -a n", "remove_members": "-f - -n -N"}
        options |= {each: f"-q -l -r {each}" for each in ("changepw", "memberoptions")}
        # -S -E -B: half the time to start
        return {
            name: f"{sys.executable} -SEB {shlex.quote(str(HERE / name))} --root {shlex.quote(str(self.root))} {each}"
            for name, each in options.items()
        }

    def toml(self, name: str = "mailman", **settings: Any) -> str:
        """Return the manager's tables for mailinglists.toml; further settings are numbers or texts."""
        more = "".join(f"{key} = {json.dumps(value)}\n" for key, value in settings.items())
        cmds = "".join(f"{key} = {json.dumps(value)}\n" for key, value in self.cmds.items())
        return f'[managers.{name}]\nkind = "mailman2"\n{more}[managers.{name}.cmds]\n{cmds}'

    def set_roster(self, name: str, addresses: Iterable[str], *, digest: Iterable[str] = ()) -> None:
        """Make the list, or replace its members."""
        members = {"regular": {a.lower(): a for a in addresses}, "digest": {a.lower(): a for a in digest}}
        members |= {"delivery": {}, "plain": {}}
        (self.root / "lists" / f"{name}.json").write_text(json.dumps(members))

    def roster(self, name: str) -> set[str]:
        """Return all members, in the case that they were added in (the domain in lower case)."""
        members = self._members(name)
        return {*members["regular"].values(), *members["digest"].values()}

    def digest_roster(self, name: str) -> set[str]:
        """Return the members who get digests."""
        return set(self._members(name)["digest"].values())

    def set_delivery(self, name: str, address: str, why: str) -> None:
        """Switch a member's mail off: ``why`` is BYUSER, BYADMIN, BYBOUNCE or UNKNOWN."""
        members = self._members(name)
        members["delivery"][address] = why
        (self.root / "lists" / f"{name}.json").write_text(json.dumps(members))

    def set_plain_digests(self, name: str, address: str) -> None:
        """Let a member who gets digests get them as plain text."""
        members = self._members(name)
        members["plain"][address] = True
        (self.root / "lists" / f"{name}.json").write_text(json.dumps(members))

    def delivery(self, name: str) -> dict[str, str]:
        """Return whose mail is off, and why."""
        return dict(self._members(name)["delivery"])

    def plain_digests(self, name: str) -> set[str]:
        """Return who would get digests as plain text."""
        return set(self._members(name)["plain"])

    def passwords(self, name: str) -> dict[str, str]:
        """Return the passwords that were set, by address in lower case."""
        path = self.root / "lists" / f"{name}.passwords"
        found: dict[str, str] = json.loads(path.read_text()) if path.exists() else {}
        return found

    def drop_list(self, name: str) -> None:
        """Forget the list: Mailman has no such list any more."""
        (self.root / "lists" / f"{name}.json").unlink()

    def calls(self, command: str | None = None) -> list[Call]:
        """Return the calls so far, the oldest first, of one command or of all."""
        return [call for call in self._calls() if command in (None, call.command)]

    def forget_calls(self) -> None:
        """Begin the log of calls anew."""
        (self.root / "calls.jsonl").unlink(missing_ok=True)

    def fail(self, command: str, *, exit_code: int = 1, stdout: str = "", stderr: str = "fake failure\n") -> None:
        """Let a command print and exit, doing nothing; with exit code 0 this is how it prints garbage."""
        self._switch(command, fail={"exit_code": exit_code, "stdout": stdout, "stderr": stderr})

    def flood(self, command: str) -> None:
        """Let a command print without end."""
        self._switch(command, flood=True)

    def hang(self, command: str, *, locked: bool = False, ignoring: Iterable[str] = ()) -> None:
        """Let a command hang, with the list's lock held or not, deaf to signals such as "SIGINT"."""
        self._switch(command, **{"hang_locked" if locked else "hang": list(ignoring)})

    def hold(self, command: str) -> None:
        """Let a command wait before it does what it does, until ``let_go`` is called."""
        self._switch(command, hold=True)

    def let_go(self) -> None:
        """Let the command that waits go on."""
        (self.root / "let-go").touch()

    def ban(self, *patterns: str) -> None:
        """Let add_members refuse addresses that match a regular expression."""
        self._switch("add_members", ban=list(patterns))

    def crash(self, *addresses: str) -> None:
        """Let add_members end in a traceback at some addresses; then it has saved nothing."""
        self._switch("add_members", crash=list(addresses))

    def lie(self, command: str, *patterns: str) -> None:
        """Let a command say that it did what it did not do, for addresses that match a regular expression."""
        self._switch(command, lie=list(patterns))

    def speak(self, subscribed: str) -> None:
        """Let add_members say "Subscribed" in the list's language."""
        self._switch("add_members", subscribed=subscribed)

    def meanwhile(self, command: str, name: str, *, leave: Iterable[str] = (), join: Iterable[str] = ()) -> None:
        """Let people leave and join by themselves at the end of each call of a command."""
        self._switch(command, meanwhile=[{"list": name, "leave": list(leave), "join": list(join)}])

    def repair(self) -> None:
        """Undo every switch."""
        (self.root / "switches.json").unlink(missing_ok=True)

    def leave_lock(self, name: str) -> None:
        """Leave the lock of a list behind, as a killed command does: whoever wants it hangs."""
        (self.root / "locks" / f"{name}.lock").touch()

    def is_locked(self, name: str) -> bool:
        """Return True if the list's lock is held, or was left behind."""
        return (self.root / "locks" / f"{name}.lock").exists()

    def _members(self, name: str) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = json.loads((self.root / "lists" / f"{name}.json").read_text())
        return found

    def _switch(self, command: str, **values: Any) -> None:
        path = self.root / "switches.json"
        switches = json.loads(path.read_text()) if path.exists() else {}
        switches.setdefault(command, {}).update(values)
        path.write_text(json.dumps(switches))

    def _calls(self) -> Iterator[Call]:
        path = self.root / "calls.jsonl"
        merged: dict[int, dict[str, Any]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            entry = json.loads(line)
            merged.setdefault(entry["pid"], {}).update(entry)
        for entry in merged.values():
            yield Call(entry["command"], entry["argv"], entry.get("stdin", ""), entry["environment"], "signal" in entry)
