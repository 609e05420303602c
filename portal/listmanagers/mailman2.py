"""GNU Mailman 2.1, by its own commands.

Their exit codes say nothing. The result for an address is in their output: a line for each address added and each that
could not be removed, in the order of the input. Lines about adds are in the list's language. Only English ones are
understood; others are passed on as messages, and the sync reads the roster again.
"""

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

from msgspec import Meta, Struct

from portal.domain.delivery import Delivery, MailOff
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import process
from portal.listmanagers.base import Outcome, Result, ShellSteps
from portal.listmanagers.call_limits import CallLimits, HasCallLimits
from portal.listmanagers.lines import as_lines, one_line, subscribers, why_unsendable

LEAVE_SUFFIX = "-leave"  # of the address to which members send mail to leave

_BIN = "/usr/local/mailman/bin"


class Commands(Struct, frozen=True, forbid_unknown_fields=True):
    """The command lines; in each, the list's name replaces ``{list}`` or is appended."""

    list_members: str = f"{_BIN}/list_members"
    add_members: str = f"{_BIN}/add_members -r - -w n -a n"
    remove_members: str = f"{_BIN}/remove_members -f - -n -N"
    changepw: str = f"{_BIN}/withlist -q -l -r changepw"
    memberoptions: str = f"{_BIN}/withlist -q -l -r memberoptions"

    def __post_init__(self) -> None:
        process.check_commands({key: getattr(self, key) for key in self.__struct_fields__})


class Settings(CallLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a manager of this kind."""

    cmds: Commands = Commands()
    timeout_per_address: Annotated[float, Meta(ge=0, le=60)] = 0.01
    batch: Annotated[int, Meta(ge=1)] = 10_000  # large, because Mailman reads and writes the whole list each time


# The texts that add_members prints before or after an address. Source: bin/add_members of 2.1, addall().
_ANSWERS = {
    "Subscribed": Result.DONE,
    "Already a member": Result.ALREADY,
    "Bad/Invalid email address": Result.REJECTED,
    "Hostile address (illegal characters)": Result.REJECTED,
}
_BANNED = "Banned address"
_NO_SUCH_LIST = (b"No such list", b"Unknown list")  # the latter is withlist's
_NO_HELPER = re.compile(rb"^ImportError: No module named \S*memberoptions", re.MULTILINE)
_MAIL_OFF = {"by-user", "by-admin"}  # as the helper prints them

# Characters that Mailman refuses in an address. Source: _badchars and ValidateEmail() of Mailman/Utils.py in 2.1.
_MISREAD = re.compile(r"[|^]")
_DOMAIN = re.compile(r"[a-z0-9][-a-z0-9]*(\.[a-z0-9][-a-z0-9]*)+", re.IGNORECASE)

# The same in shell, without the domain, which Mailman does not misread. If no address is left, nothing is done.
_ONLY_WHAT_MAILMAN_READS_RIGHT = r"""    grep -v -e '[^ -~]' -e '[|^]' >"$private/step_sendable"
    [ $? -le 1 ] || return
    [ -s "$private/step_sendable" ] || return 0
"""


@dataclass(frozen=True, slots=True)
class Mailman2(HasCallLimits):
    """A list of a Mailman 2.1."""

    settings: Settings
    list_name: str

    def check(self) -> str:
        """List the members, and find the programs that add and remove."""
        for command in (self.settings.cmds.add_members, self.settings.cmds.remove_members):
            process.require_program(process.split(command)[0])
        return f"Mailman 2: {self.list_name} found, subscribers: {len(self.roster())}"

    def warnings(self, *, sets_passwords: bool) -> Iterable[str]:
        """Look for the helpers that the portal generates, next to the ``withlist`` that loads them."""
        cmds = self.settings.cmds
        if sets_passwords and (helper := _missing_helper(cmds.changepw, "changepw.py")):
            yield (
                f"{helper}, which sets list passwords, is missing; create it with: flask mailinglist changepw-script > "
                f"{helper}"
                " (or set syncpws = false)"
            )
        if helper := _missing_helper(cmds.memberoptions, "memberoptions.py"):
            yield (
                f"{helper}, which keeps digest and no-mail settings when members change their address, is missing; "
                f"create it with: flask mailinglist memberoptions-script > {helper}"
            )

    def roster(self) -> Sequence[str]:
        """Return the regular and the digest members."""
        finished = self._run("list_members")
        return subscribers(finished.stdout, source=finished.name)

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses as regular members."""
        refused = _refused(addresses, {each: why_unsendable(each) or _why_misread(each) for each in addresses})
        sendable = [address for address in dict.fromkeys(addresses) if address not in refused]
        if not sendable:
            return refused
        finished = self._run("add_members", sendable)
        return refused | _added(finished, sendable)

    def options(self, addresses: Sequence[str]) -> dict[str, SubscriberOptions] | None:
        """Return the options of members with digests or no mail; None without the memberoptions helper."""
        found = self._member_options(addresses)
        if found is None:
            return None
        return {address: _options(words) for address, (words, _) in found.items() if words}

    def deliveries(self, addresses: Sequence[str]) -> dict[str, Delivery] | None:
        """Return members with digests or no mail, bounces included; None without the helper."""
        found = self._member_options(addresses)
        return None if found is None else {address: _delivery(*told) for address, told in found.items()}

    def _member_options(self, addresses: Sequence[str]) -> dict[str, tuple[str, str]] | None:
        """Return the helper's words for members, and the time since which mail has bounced, in seconds since 1970."""
        sendable = [each for each in addresses if not why_unsendable(each)]
        if not sendable:
            return {}
        finished = self._finished("memberoptions", sendable)
        if finished.exit_code == 1 and _NO_HELPER.search(finished.stderr):
            return None
        process.require_success(finished)
        lines = [[*line.split("\t"), "", ""] for line in _text(finished.stdout)]
        for address, words, bounced, *_ in lines:
            if address not in sendable or not (words or bounced.isdecimal()):
                raise _unreadable(finished, address)
        return {address: (words, bounced) for address, words, bounced, *_ in lines}

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses as ``add`` does, with their options, saving the list only once."""
        reasons = {each: why_unsendable(each) or _why_misread(each) for each, _ in subscribers}
        refused = _refused(list(reasons), reasons)
        lines = {address: f"{address}\t{found.words}" for address, found in subscribers if address not in refused}
        if not lines:
            return refused
        return refused | _added(self._run("memberoptions", list(lines.values())), list(lines))

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses, including odd ones."""
        refused = _refused(addresses, {each: why_unsendable(each) for each in addresses})
        sendable = [address for address in dict.fromkeys(addresses) if address not in refused]
        if not sendable:
            return refused
        finished = self._run("remove_members", sendable)
        if finished.stdout.startswith(b"Error opening list"):
            self.roster()  # raises NoSuchListError if that is the reason
            raise ListManagerUnavailableError(
                f"{finished.name}: {_text(finished.stdout)[0]} Mailman can still list its members, so look for the "
                "reason in Mailman's own logs/error"
            )
        return refused | _removed(finished, sendable)

    def shell_steps(self) -> ShellSteps:
        """Return Mailman's commands as shell text."""
        from portal.listmanagers import shell  # only generated scripts need it

        cmds = self.settings.cmds
        roster, add, remove, passwords = (
            shell.command(process.with_list(each, self.list_name))
            for each in (cmds.list_members, cmds.add_members, cmds.remove_members, cmds.changepw)
        )
        return ShellSteps(roster, f'{_ONLY_WHAT_MAILMAN_READS_RIGHT}{add} <"$private/step_sendable"', remove, passwords)

    def password_call(self) -> str:
        """Return the command that takes passwords on stdin."""
        return process.quoted(process.with_list(self.settings.cmds.changepw, self.list_name))

    def set_passwords(self, passwords: Sequence[tuple[str, str]]) -> dict[str, Outcome]:
        """Set the passwords of members with the helper that ``flask mailinglist changepw-script`` prints."""
        refused = _refused([each for each, _ in passwords], {each: why_unsendable(each) for each, _ in passwords})
        sendable = [pair for pair in passwords if pair[0] not in refused]
        if not sendable:
            return refused
        finished = self._run("changepw", ["\t".join(pair) for pair in sendable], secrets=[pair[1] for pair in sendable])
        outcomes = {address: Outcome(Result.DONE) for address, _ in sendable}
        for line in _text(finished.stdout):
            said, _, address = line.rpartition(": ")
            if said == "No such member" and address in outcomes:
                outcomes[address] = Outcome(Result.REJECTED, said)
        return refused | outcomes

    def _run(self, key: str, lines: Sequence[str] = (), *, secrets: Sequence[str] = ()) -> process.CompletedCommand:
        finished = self._finished(key, lines, secrets=secrets)
        process.require_success(finished)
        return finished

    def _finished(
        self, key: str, lines: Sequence[str] = (), *, secrets: Sequence[str] = ()
    ) -> process.CompletedCommand:
        finished = process.run(
            process.with_list(getattr(self.settings.cmds, key), self.list_name),
            name=f"{self.list_name}: {key}",
            stdin=as_lines(lines),
            timeout=self.timeout(len(lines)),
            max_output=self.settings.max_output,
        )
        if secrets:
            finished = process.without_secrets(finished, secrets)
        if finished.exit_code == 1 and any(words in finished.stderr for words in _NO_SUCH_LIST):
            raise NoSuchListError(
                f"{finished.name}: Mailman has no list of that name; if the list has another name there, set `list` in "
                "mailinglists.toml"
            )
        return finished


def open_list(settings: Settings, list_name: str) -> Mailman2:
    """Return the list manager bound to one list. Raise ConfigurationError if a command would misread its name."""
    process.with_list(settings.cmds.list_members, list_name)
    return Mailman2(settings, list_name)


def _refused(addresses: Sequence[str], reasons: dict[str, str]) -> dict[str, Outcome]:
    return {each: Outcome(Result.REJECTED, reasons[each]) for each in addresses if reasons[each]}


def _options(words: str) -> SubscriberOptions:
    return SubscriberOptions(words, is_mail_off=not _MAIL_OFF.isdisjoint(words.split()))


def _delivery(words: str, bounced: str) -> Delivery:
    chosen = set(words.split())
    since = datetime.fromtimestamp(int(bounced), UTC) if bounced.strip("0") else None
    off = MailOff.BOUNCES if bounced else MailOff.CHOSEN if chosen & _MAIL_OFF else None
    return Delivery(bool(chosen - _MAIL_OFF), off, since)


def _missing_helper(command: str, name: str) -> Path | None:
    """Return the path of a missing helper, or None; the ``withlist`` of a command may be behind ssh."""
    withlist = next((each for each in process.split(command) if each.endswith("/withlist")), None)
    if withlist is None or not os.access(withlist, os.F_OK):
        return None
    helper = Path(withlist).with_name(name)
    return None if os.access(helper, os.F_OK) else helper


def _why_misread(address: str) -> str:
    if not address.isascii():
        return "Mailman 2 accepts only ASCII addresses"
    if found := _MISREAD.search(address):
        return f"Mailman 2 does not accept the character {found[0]}"
    if not _DOMAIN.fullmatch(address.partition("@")[2]):
        return "Mailman 2 accepts only domains of letters, digits and dashes, with at least one dot"
    return ""


def _added(finished: process.CompletedCommand, sent: Sequence[str]) -> dict[str, Outcome]:
    """Read one line for each address, in order."""
    outcomes = {}
    for address, line in zip_longest(sent, _text(finished.stdout)):
        if address is None or line is None or address not in line:
            raise _unreadable(finished, line or f"nothing about {address}")
        said = _without(line, address)
        result = Result.REJECTED if said.startswith(_BANNED) else _ANSWERS.get(said, Result.DONE)
        outcomes[address] = Outcome(result, one_line(said))
    return outcomes


def _removed(finished: process.CompletedCommand, sent: Sequence[str]) -> dict[str, Outcome]:
    """Read the lines about addresses that were not members; nothing is printed about members."""
    outcomes = dict.fromkeys(sent, Outcome(Result.DONE))
    for line in _text(finished.stdout):
        said, _, address = line.rpartition(": ")
        if address not in outcomes:
            raise _unreadable(finished, line)
        outcomes[address] = Outcome(Result.ALREADY if said == "No such member" else Result.DONE, one_line(said))
    return outcomes


def _text(stdout: bytes) -> list[str]:
    return [line.strip() for line in stdout.decode("utf-8", "replace").split("\n") if line.strip()]


def _without(line: str, address: str) -> str:
    """Return the message in a line that begins or ends with an address."""
    if line.startswith(f"{address}: "):
        return line[len(address) + 2 :]
    return line.removesuffix(address).removesuffix(": ")


def _unreadable(finished: process.CompletedCommand, line: str) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{finished.name}: unexpected output: {one_line(line)}; compare the options of the command in "
        "mailinglists.toml with docs/list-managers/mailman2.md"
    )
