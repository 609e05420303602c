"""Any list manager that three commands can drive: one that lists, one that adds, one that removes.

It only sees exit codes; the sync reads the roster again to find what did not take.
"""

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Annotated

from msgspec import Meta, Struct

from portal.errors import ListManagerUnavailableError
from portal.listmanagers import process
from portal.listmanagers.base import Outcome, Result, ShellSteps
from portal.listmanagers.call_limits import CallLimits, HasCallLimits
from portal.listmanagers.lines import as_lines, one_line, printed_roster, why_unsendable


class Commands(Struct, frozen=True, forbid_unknown_fields=True):
    """The command lines; in each, the list's name replaces ``{list}`` or is appended."""

    list_members: str
    add_members: str
    remove_members: str
    check: str | None = None
    changepw: str | None = None

    def __post_init__(self) -> None:
        process.check_commands({key: getattr(self, key) for key in self.__struct_fields__})


class Settings(CallLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a manager of this kind. ``ok_exit_codes`` applies only to adding and removing."""

    cmds: Commands
    skip_lines: Annotated[int, Meta(ge=0)] = 0
    ok_exit_codes: Annotated[tuple[int, ...], Meta(min_length=1)] = (0,)
    one_address_per_call: bool = False

    def __post_init__(self) -> None:
        for key in ("list_members", "check", "changepw"):
            if "{address}" in (getattr(self.cmds, key) or ""):
                raise ValueError(f"cmds.{key} is not called for a single address, so it cannot contain {{address}}")
        for key in ("add_members", "remove_members"):
            _check_address_place(key, getattr(self.cmds, key), is_wanted=self.one_address_per_call)


@dataclass(frozen=True, slots=True)
class ThreeCommands(HasCallLimits):
    """A list driven by three commands."""

    settings: Settings
    list_name: str

    def check(self) -> str:
        """Run the check command or list the members, and find the programs that add and remove."""
        cmds = self.settings.cmds
        for command in (cmds.add_members, cmds.remove_members):
            process.require_program(process.split(command)[0])
        if cmds.check is None:
            return f"commands: {self.list_name} found, subscribers: {len(self.roster())}"
        finished = self._run("check", process.with_list(cmds.check, self.list_name))
        process.require_success(finished)
        said = finished.stdout.decode("utf-8", "replace").strip().partition("\n")[0]
        return one_line(said) or f"commands: {self.list_name} found"

    def roster(self) -> Sequence[str]:
        """Return the output of the list command, without the lines to skip."""
        finished = self._run("list_members", process.with_list(self.settings.cmds.list_members, self.list_name))
        process.require_success(finished)
        lines = finished.stdout.split(b"\n", self.settings.skip_lines)
        if len(lines) <= self.settings.skip_lines:
            raise ListManagerUnavailableError(
                f"{finished.name}: printed fewer lines than `skip_lines` skips: {self.settings.skip_lines}"
            )
        return printed_roster(lines[-1], source=finished.name)

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Pass the addresses to the add command."""
        return self._push("add_members", addresses)

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Pass the addresses to the remove command."""
        return self._push("remove_members", addresses)

    def shell_steps(self) -> ShellSteps:
        """Return the commands as shell text."""
        from portal.listmanagers import shell  # only generated scripts need it

        settings, changepw = self.settings, self.settings.cmds.changepw
        roster = shell.command(process.with_list(settings.cmds.list_members, self.list_name))
        return ShellSteps(
            roster=shell.without_first_lines(roster, count=settings.skip_lines),
            add=self._shell_step(settings.cmds.add_members),
            remove=self._shell_step(settings.cmds.remove_members),
            passwords=changepw and shell.command(process.with_list(changepw, self.list_name)),
        )

    def _shell_step(self, command: str) -> str:
        from portal.listmanagers import shell

        argv, ok_exit_codes = process.with_list(command, self.list_name), self.settings.ok_exit_codes
        if self.settings.one_address_per_call:
            return shell.line_by_line(argv, ok_exit_codes=ok_exit_codes)
        return shell.tolerating(shell.command(argv), ok_exit_codes=ok_exit_codes)

    def _push(self, key: str, addresses: Sequence[str]) -> dict[str, Outcome]:
        argv = process.with_list(getattr(self.settings.cmds, key), self.list_name)
        one_each = self.settings.one_address_per_call
        refused = {
            address: Outcome(Result.REJECTED, reason)
            for address in addresses
            if (reason := why_unsendable(address) or (_why_option(argv, address) if one_each else ""))
        }
        sendable = [address for address in addresses if address not in refused]
        if not sendable:
            return refused
        if one_each:
            return refused | self._push_each(key, argv, sendable)
        finished = self._run(key, argv, stdin=as_lines(sendable), seconds=self.timeout(len(sendable)))
        process.require_success(finished, ok=self.settings.ok_exit_codes)
        return refused | dict.fromkeys(sendable, Outcome(Result.DONE))

    def _push_each(self, key: str, argv: tuple[str, ...], addresses: Sequence[str]) -> dict[str, Outcome]:
        """Call the command for each address; one that fails is refused, so that others do not wait for it.

        If several fail and none succeeds, or the list cannot be read either, the list manager itself has failed.
        """
        deadline = time.monotonic() + self.timeout(len(addresses))
        outcomes = {}
        for address in addresses:
            call = [part.replace("{address}", address) for part in argv]
            left = deadline - time.monotonic()
            if left <= 0:
                raise ListManagerUnavailableError(
                    f"{self.list_name}: {key}: did not finish in time; raise `timeout_per_address`"
                )
            finished = self._run(key, call, seconds=left)
            if finished.exit_code in self.settings.ok_exit_codes:
                outcomes[address] = Outcome(Result.DONE)
            else:
                words = process.error_line(finished) or f"exit code {finished.exit_code}"
                outcomes[address] = Outcome(Result.REJECTED, words)
                failed = finished
        refused = sum(outcome.result is Result.REJECTED for outcome in outcomes.values())
        if 1 < refused == len(outcomes):
            process.require_success(failed, ok=self.settings.ok_exit_codes)
        if refused:
            self.check()
        return outcomes

    def _run(
        self, key: str, argv: Sequence[str], *, stdin: bytes = b"", seconds: float | None = None
    ) -> process.CompletedCommand:
        return process.run(
            argv,
            name=f"{self.list_name}: {key}",
            stdin=stdin,
            timeout=self.timeout(0) if seconds is None else seconds,
            max_output=self.settings.max_output,
        )


class WithPasswords(ThreeCommands):
    """A list that also has a command for passwords."""

    __slots__ = ()

    def password_call(self) -> str:
        """Return the command that takes passwords on stdin."""
        return process.quoted(process.with_list(self.settings.cmds.changepw or "", self.list_name))

    def set_passwords(self, passwords: Sequence[tuple[str, str]]) -> dict[str, Outcome]:
        """Pass a line of address, tab and password for each subscriber to the command."""
        refused = {each: Outcome(Result.REJECTED, why) for each, _ in passwords if (why := why_unsendable(each))}
        sendable = [pair for pair in passwords if pair[0] not in refused]
        if not sendable:
            return refused
        argv = process.with_list(self.settings.cmds.changepw or "", self.list_name)
        lines = as_lines(["\t".join(pair) for pair in sendable])
        finished = self._run("changepw", argv, stdin=lines, seconds=self.timeout(len(sendable)))
        process.require_success(process.without_secrets(finished, [password for _, password in sendable]))
        return refused | {address: Outcome(Result.DONE) for address, _ in sendable}


def open_list(settings: Settings, list_name: str) -> ThreeCommands:
    """Return the list manager bound to one list. Raise ConfigurationError if a command would misread its name."""
    process.with_list(settings.cmds.list_members, list_name)
    return (ThreeCommands if settings.cmds.changepw is None else WithPasswords)(settings, list_name)


def _check_address_place(key: str, command: str, *, is_wanted: bool) -> None:
    """Raise ValueError if ``{address}`` is missing, unwanted, or where a shell on any host could read it."""
    argv = process.split(command)
    places = [part for part in argv if "{address}" in part]
    if is_wanted != bool(places):
        raise ValueError(f"cmds.{key}: one_address_per_call = true and {{address}} must be used together")
    if not all(re.fullmatch(r"(-[^\s={}]+=)?\{address\}", place) for place in places):
        raise ValueError(f"cmds.{key}: {{address}} must be a separate argument, or --option={{address}}")
    if places and PurePath(argv[0]).name == "ssh":
        raise ValueError(
            f"cmds.{key}: ssh passes its arguments to a shell on the other host; send the addresses on standard input "
            "instead"
        )


def _why_option(argv: tuple[str, ...], address: str) -> str:
    """Return why an address would be taken for an option, unless it follows one, or ``--``."""
    bare = any(part == "{address}" and not argv[index - 1].startswith("-") for index, part in enumerate(argv))
    return "the command would treat it as an option" if bare and address.startswith("-") else ""
