"""Sympa 6.2, by its own command on its own host.

Its only report about an address is a line on stderr; it exits with 1 if any address needed no change. The roster comes
from ``dump``, since ``review`` hides concealed subscribers. ``dump`` writes a file and reports success even if the list
is closed, the disk full or the database down. So the file must be new and complete and, if it is empty, empty a second
time while the database answers.
"""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, NamedTuple
from urllib.parse import parse_qsl

from msgspec import Meta

from portal.domain.delivery import Delivery, MailOff
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import CallFailedError, ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import member_dump, process
from portal.listmanagers.base import Outcome, Result, ShellSteps
from portal.listmanagers.call_limits import CallLimits, HasCallLimits
from portal.listmanagers.disk_space import require_room
from portal.listmanagers.lines import as_lines, one_line, subscribers, why_unsendable


class Settings(CallLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a manager of this kind."""

    domain: str = ""
    program: str = "/usr/bin/sympa"
    data: Path = Path("/var/lib/sympa/list_data")
    timeout_per_address: Annotated[float, Meta(ge=0, le=60)] = 0.5
    batch: Annotated[int, Meta(ge=1)] = 200

    def __post_init__(self) -> None:
        process.check_commands({"program": self.program})


# The messages of add and del about an address. Source: mail_tt2/report.tt2 and Sympa::Request::Handler of 6.2.70.
LEAVE_SUFFIX = "-unsubscribe"  # of the address to which members send mail to leave

_ANSWERS = (
    (re.compile(r"add \[notice\] User (.+) is now subscriber of list .*"), Result.DONE),
    (re.compile(r"add \[user\] The User '(.+)' is already subscriber of list .*"), Result.ALREADY),
    (re.compile(r'add \[user\] Address "(.+)" is .*'), Result.REJECTED),
    (re.compile(r"del \[notice\] The user (.+) has been removed from the list .*"), Result.DONE),
    (re.compile(r"del \[user\] E-mail address (.+) was not found in list .*"), Result.ALREADY),
)
_NO_MAIL = "mail was switched off at the old address"
_NO_SUCH_LIST = re.compile(rb"^Invalid argument '.*' \(list\b", re.MULTILINE)
_NAME = re.compile(r"[a-z0-9][a-z0-9._+-]*@[a-z0-9][a-z0-9.-]*")


# In shell: ``dump`` writes a file, which must be new and complete. File times may count only seconds.
_DUMP = """    : >"$private/step_mark"
    sleep 1
{dump} || return
    step_dump=$(find {dumps} -newer "$private/step_mark" 2>/dev/null | head -n 1)
    if [ -z "$step_dump" ] || [ -n "$(tail -c 2 "$step_dump" | tr -d '\\n')" ]; then
        echo "sympa wrote no new and whole member.dump" >&2
        return 1
    fi
    sed -n 's/^email //p' "$step_dump\""""
_ONLY_WHAT_SYMPA_READS = """    grep -v -e '[^ -~]' -e '^#' >"$private/step_sendable"
    [ $? -le 1 ] || return
    [ -s "$private/step_sendable" ] || return 0
"""


class Dump(NamedTuple):
    """A file that ``dump`` writes, and its identity, None if it does not exist."""

    path: Path
    identity: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Sympa(HasCallLimits):
    """A list of Sympa, ``LIST@DOMAIN`` in lower case."""

    settings: Settings
    list_name: str

    def check(self) -> str:
        """Request the version, and read the roster."""
        deadline = time.monotonic() + self.timeout(0)
        finished = self._run(("version",), deadline=deadline)
        process.require_success(finished)
        version = one_line(finished.stdout.decode("utf-8", "replace"))
        return f"{version}: {self.list_name} found, subscribers: {len(self._read(deadline))}"

    def roster(self) -> Sequence[str]:
        """Return all subscribers, including concealed ones and those without mail."""
        return self._read(time.monotonic() + self.timeout(0))

    def options(self, addresses: Sequence[str]) -> dict[str, SubscriberOptions]:
        """Return reception modes other than every message, and suspensions."""
        _, content = self._dumped(time.monotonic() + self.timeout(len(addresses)))
        found = member_dump.options(content, now=time.time())
        return {each: found[each.lower()] for each in addresses if each.lower() in found}

    def deliveries(self, addresses: Sequence[str]) -> dict[str, Delivery]:
        """Return subscribers with digests, summaries or no mail; Sympa itself does not switch off mail that bounces."""
        modes = {address: dict(parse_qsl(found.words)) for address, found in self.options(addresses).items()}
        found = {address: _delivery(chosen) for address, chosen in modes.items()}
        return {address: each for address, each in found.items() if not each.is_usual}

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses with their reception modes, by ``restore``, which adds the subscribers of a member.dump.

        It reports nothing about addresses, and sets the default mode if the list does not allow the requested one. An
        address that would then get mail is removed again.
        """
        deadline = time.monotonic() + self.timeout(len(subscribers))
        reasons = {address: why_unsendable(address) or _why_misread(address) for address, _ in subscribers}
        outcomes = {address: Outcome(Result.REJECTED, reason) for address, reason in reasons.items() if reason}
        path, content = self._dumped(deadline)
        known = member_dump.addresses(content)
        already = {address for address in reasons if address.lower() in known} - outcomes.keys()
        outcomes |= dict.fromkeys(already, Outcome(Result.ALREADY, "already subscribed"))
        fresh = [(address, found) for address, found in subscribers if address not in outcomes]
        if not fresh:
            return outcomes
        if not os.access(path, os.W_OK):
            return outcomes | self._add_without_options(path, fresh)
        self._restore(path, fresh, deadline)
        outcomes |= {address: Outcome(Result.DONE) for address, _ in fresh}
        return outcomes | self._removed_again(fresh, deadline)

    def _restore(self, path: Path, subscribers: Sequence[tuple[str, SubscriberOptions]], deadline: float) -> None:
        """Add subscribers by a member.dump of their own, which the next dump overwrites."""
        try:
            path.write_bytes(member_dump.records(subscribers))
        except OSError as error:
            raise _unreadable(path, error, "written") from None
        finished = self._run(("restore", "--roles=member", self.list_name), deadline=deadline)
        if finished.exit_code or f"{self.list_name}: Restored list users (member)" not in _text(finished.stderr):
            raise _failure(finished, "nobody was added")

    def _removed_again(
        self, subscribers: Sequence[tuple[str, SubscriberOptions]], deadline: float
    ) -> dict[str, Outcome]:
        """Remove subscribers who had switched mail off and would now get it."""
        _, content = self._dumped(deadline)
        on_list, modes = member_dump.addresses(content), member_dump.options(content, now=time.time())
        mailed = on_list - modes.keys()
        unwanted = [address for address, found in subscribers if found.is_mail_off and address.lower() in mailed]
        if unwanted:
            self._push("del", dict.fromkeys(unwanted, ""))
        return dict.fromkeys(unwanted, Outcome(Result.REJECTED, f"{_NO_MAIL}, and this list no longer allows that"))

    def _add_without_options(
        self, path: Path, subscribers: Sequence[tuple[str, SubscriberOptions]]
    ) -> dict[str, Outcome]:
        """Subscribe digest subscribers with the default mode, and nobody who had switched mail off."""
        refusal = Outcome(
            Result.REJECTED, f"{_NO_MAIL}, and this cannot be carried over, because {path} cannot be written"
        )
        refused = {address: refusal for address, found in subscribers if found.is_mail_off}
        others = [address for address, found in subscribers if not found.is_mail_off]
        return refused | (self.add(others) if others else {})

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses."""
        return self._push("add", {each: why_unsendable(each) or _why_misread(each) for each in addresses})

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses."""
        return self._push("del", {each: why_unsendable(each) or _why_misread(each) for each in addresses})

    def shell_steps(self) -> ShellSteps:
        """Return Sympa's commands as shell text. The portal checks an empty roster."""
        from portal.listmanagers import shell  # only generated scripts need it

        program = process.split(self.settings.program)

        def push(action: str) -> str:
            call = shell.command((*program, action, "--force", "--quiet", self.list_name))
            return _ONLY_WHAT_SYMPA_READS + shell.tolerating(f'{call} <"$private/step_sendable"', ok_exit_codes=(0, 1))

        dumps = shell.words(str(dump.path) for dump in self._dumps())
        return ShellSteps(
            roster=_DUMP.format(dump=shell.command((*program, "dump", self.list_name)), dumps=dumps),
            add=push("add"),
            remove=push("del"),
        )

    def _push(self, action: str, reasons: dict[str, str]) -> dict[str, Outcome]:
        outcomes = {each: Outcome(Result.REJECTED, reason) for each, reason in reasons.items() if reason}
        sendable = [address for address, reason in reasons.items() if not reason]
        if not sendable:
            return outcomes
        finished = self._run(
            (action, "--force", "--quiet", self.list_name),
            stdin=as_lines(sendable),
            deadline=time.monotonic() + self.timeout(len(sendable)),
        )
        said = {answer.address: answer.outcome for answer in _answers(finished)}
        if not any(each.lower() in said for each in sendable) or finished.exit_code not in {0, 1}:
            raise _failure(finished, "it reported nothing about any address")
        silence = Outcome(Result.REJECTED, "Sympa reported nothing about this address")
        return outcomes | {each: said.get(each.lower(), silence) for each in sendable}

    def _read(self, deadline: float) -> list[str]:
        """Return the roster; an empty one only if it is empty twice and the database answers in between.

        Without its database, Sympa dumps nobody and reports success. Trying to remove the list's own address, which
        Sympa never allows on a list, changes nothing and shows whether the database answers.
        """
        roster = self._dump(deadline)
        if roster:
            return roster
        finished = self._run(
            ("del", "--force", "--quiet", self.list_name), stdin=as_lines([self.list_name]), deadline=deadline
        )
        if not any(answer.address == self.list_name for answer in _answers(finished)):
            raise _failure(finished, "the roster is empty, and Sympa does not report whether its database works")
        return self._dump(deadline)

    def _dump(self, deadline: float) -> list[str]:
        _, content = self._dumped(deadline)
        found = subscribers(member_dump.emails(content), source=f"{self.list_name}: member.dump")
        return list(dict.fromkeys(found))

    def _dumped(self, deadline: float) -> tuple[Path, bytes]:
        """Let Sympa dump the roster; return the path and the content."""
        before = {dump.path: dump.identity for dump in self._dumps()}
        finished = self._run(("dump", self.list_name), deadline=deadline)
        done = f"{self.list_name}: Dumped list users (member)"
        if finished.exit_code or done not in _text(finished.stderr):
            raise _failure(finished, "the roster was not dumped; check whether the list is open")
        fresh = [dump.path for dump in self._dumps() if dump.identity not in {None, before.get(dump.path)}]
        if not fresh:
            raise ListManagerUnavailableError(
                f"{finished.name}: Sympa wrote no new member.dump for {self.list_name} below {self.settings.data}; set "
                "`data` to Sympa's folder list_data"
            )
        content = self._content(fresh[0])
        require_room(fresh[0].parent)
        if content and not (b"email " in content and content.endswith(b"\n\n")):
            raise ListManagerUnavailableError(f"{fresh[0]}: the roster is incomplete; check whether the disk is full")
        return fresh[0], content

    def _dumps(self) -> list[Dump]:
        """Return the possible paths of the dump: below the domain or, for Sympa's first domain, without it."""
        name, _, domain = self.list_name.partition("@")
        paths = [self.settings.data / domain / name / "member.dump", self.settings.data / name / "member.dump"]
        return [Dump(path, _identity(path)) for path in paths]

    def _content(self, path: Path) -> bytes:
        try:
            with path.open("rb") as stream:
                content = stream.read(self.settings.max_output + 1)
        except OSError as error:
            raise _unreadable(path, error) from None
        if len(content) > self.settings.max_output:
            raise ListManagerUnavailableError(
                f"{path}: larger than {self.settings.max_output} bytes; if the list is that large, raise `max_output`"
            )
        return content

    def _run(self, arguments: Sequence[str], *, stdin: bytes = b"", deadline: float) -> process.CompletedCommand:
        finished = process.run(
            [*process.split(self.settings.program), *arguments],
            name=f"{self.list_name}: sympa {arguments[0]}",
            stdin=stdin,
            timeout=max(0.1, deadline - time.monotonic()),
            max_output=self.settings.max_output,
        )
        if finished.exit_code and _NO_SUCH_LIST.search(finished.stderr):
            raise NoSuchListError(
                f"{finished.name}: Sympa has no list of that name; if the list has another name there, set `list` in "
                "mailinglists.toml"
            )
        return finished


def _delivery(chosen: Mapping[str, str]) -> Delivery:
    mode = chosen.get("reception", "")
    is_off = mode == "nomail" or "suspend" in chosen
    return Delivery(mode in {"digest", "digestplain", "summary"}, MailOff.CHOSEN if is_off else None)


def open_list(settings: Settings, list_name: str) -> Sympa:
    """Return the list manager bound to one list. Raise ConfigurationError unless its name is LIST@DOMAIN."""
    name = list_name if "@" in list_name or not settings.domain else f"{list_name}@{settings.domain}"
    if not _NAME.fullmatch(name.lower()):
        raise ConfigurationError(
            f"a list name at Sympa has the form LIST@DOMAIN: {one_line(name)}; set `list` for this list, or `domain` "
            "for all, in mailinglists.toml"
        )
    return Sympa(settings, name.lower())


class Answer(NamedTuple):
    """Sympa's message about an address, which it spells in lower case."""

    address: str
    outcome: Outcome


def _answers(finished: process.CompletedCommand) -> Iterator[Answer]:
    for line in _text(finished.stderr):
        for pattern, result in _ANSWERS:
            if found := pattern.fullmatch(line):
                yield Answer(found[1].lower(), Outcome(result, one_line(line.partition("] ")[2])))


def _why_misread(address: str) -> str:
    if not address.isascii():
        return "Sympa accepts only ASCII addresses"
    return "Sympa treats a line that starts with # as a comment" if address[0] == "#" else ""


def _text(output: bytes) -> list[str]:
    return [line.strip() for line in output.decode("utf-8", "replace").split("\n")]


def _failure(finished: process.CompletedCommand, otherwise: str) -> CallFailedError:
    """Return an error with the line that gives the reason; Sympa always complains about a missing syslog."""
    words = [line for line in _text(finished.stderr) if line and not line.startswith(("setlogsock()", "Failed to "))]
    relevant = [line for line in words if "[intern]" in line] or words
    said = one_line(relevant[0]) if relevant else ""
    how = f"{finished.name}: ended with exit code {finished.exit_code}"
    return CallFailedError(f"{how}: {said}; {otherwise}" if said else f"{how}; {otherwise}", words=said)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return values that change when a file is rewritten, or None if it does not exist."""
    try:
        found = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise _unreadable(path, error) from None
    return found.st_ino, found.st_ctime_ns


def _unreadable(path: Path, error: OSError, done: str = "read") -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{path}: cannot be {done}: {os.strerror(error.errno or 0)}; run the sync as root or as Sympa's user"
    )
