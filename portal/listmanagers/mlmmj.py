"""mlmmj, by its own commands, on the host and as the user of its lists.

Its commands take one address and always exit with 0; a list that they cannot read looks empty. So the files are checked
first, and the roster is read before and after. Calls are never concurrent, because mlmmj then loses removals.
Subscribers are never added again, because that would turn digest subscribers into normal ones.
"""

import os
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from portal.domain.address import canonical
from portal.domain.delivery import Delivery, MailOff
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import process
from portal.listmanagers.base import OddSubscriber, Outcome, Result, ShellSteps
from portal.listmanagers.call_limits import CallLimits, HasCallLimits
from portal.listmanagers.disk_space import require_room
from portal.listmanagers.lines import one_line, subscribers, why_unsendable

# Normal, digest and no-mail subscribers: the folder, and the option of mlmmj-list.
LEAVE_SUFFIX = "+unsubscribe"  # of the address to which members send mail to leave

_ROSTERS = {"subscribers.d": "-s", "digesters.d": "-d", "nomailsubs.d": "-n"}
_NORMAL, _NO_MAIL = "-s", "-n"
_SILENT = {"mlmmj-sub": ("-f", "-q", "-s"), "mlmmj-unsub": ("-q", "-s")}


class Settings(CallLimits, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings of a manager of this kind."""

    spool: Path = Path("/var/spool/mlmmj")
    bin: Path = Path("/usr/bin")


# The checks before a roster is read, in shell. mlmmj-list does not report what it cannot read.
_READABLE = """    for step_folder in {folders}; do
        if ! [ -r "$step_folder" ] || ! [ -x "$step_folder" ]; then
            echo "$step_folder cannot be read" >&2
            return 1
        fi
        for step_file in "$step_folder"/*; do
            case $step_file in *'/*' | *.new) continue ;; esac
            if ! [ -r "$step_file" ] || [ -n "$(tail -c 1 "$step_file")" ]; then
                echo "$step_file cannot be read, or its last line is cut off" >&2
                return 1
            fi
        done
    done
"""
# Addresses that mlmmj fails at, and existing subscribers: an add would turn a digest subscriber into a normal one.
_PASSED_OVER = """        case $step_address in
            /* | *[!\\ -~]*) continue ;;
            *@*.*) ;;
            *) continue ;;
        esac
        if grep -q -i -x -F -e "$step_address" "$private/step_before"; then continue; fi
"""


@dataclass(frozen=True, slots=True)
class Mlmmj(HasCallLimits):
    """A list of mlmmj: a folder in its spool."""

    settings: Settings
    list_name: str

    @property
    def folder(self) -> Path:
        """The list's folder."""
        return self.settings.spool / self.list_name

    def check(self) -> str:
        """Find the programs, and check that the list can be read and changed."""
        deadline = self._deadline(0)
        for program in _SILENT:
            process.require_program(str(self.settings.bin / program))
        count = len(self._read(deadline))
        self._require_writable()
        finished = self._run("mlmmj-list", "-V", deadline=deadline)
        process.require_success(finished)
        version = one_line(finished.stdout.decode("utf-8", "replace")).rpartition(" ")[2]
        return f"mlmmj {version}: {self.folder} found, subscribers: {count}"

    def identity(self) -> str:
        """Return the list's folder with all links resolved."""
        return str(self.folder.resolve())

    def roster(self) -> Sequence[str]:
        """Return the normal, digest and no-mail subscribers."""
        return self._read(self._deadline(0))

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses that are not on the list in any variant."""
        reasons = {address: why_unsendable(address) or _why_misread(address) for address in addresses}
        return self._push("mlmmj-sub", reasons)

    def options(self, addresses: Sequence[str]) -> dict[str, SubscriberOptions]:
        """Return the variant of digest and no-mail subscribers who are not normal subscribers as well."""
        deadline = self._deadline(len(addresses))
        self._require_readable()
        rosters = {option: _canonical(self._variant(option, deadline)) for option in _ROSTERS.values()}
        found = {}
        for address in addresses:
            variants = [option for option, roster in rosters.items() if canonical(address) in roster]
            if variants and variants[0] != _NORMAL:
                found[address] = SubscriberOptions(variants[0], is_mail_off=variants[0] == _NO_MAIL)
        return found

    def deliveries(self, addresses: Sequence[str]) -> dict[str, Delivery]:
        """Return digest and no-mail subscribers; mlmmj removes subscribers whose mail bounces."""
        return {
            address: Delivery(found.words != _NO_MAIL, MailOff.CHOSEN if found.is_mail_off else None)
            for address, found in self.options(addresses).items()
        }

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses to the variant in their options."""
        reasons = {address: why_unsendable(address) or _why_misread(address) for address, _ in subscribers}
        return self._push("mlmmj-sub", reasons, {address: options.words for address, options in subscribers})

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses from all variants, including odd ones."""
        return self._push("mlmmj-unsub", {address: why_unsendable(address) for address in addresses})

    def shell_steps(self) -> ShellSteps:
        """Return mlmmj's commands as shell text."""
        from portal.listmanagers import shell  # only generated scripts need it

        folder, programs = str(self.folder), self.settings.bin
        lists = [shell.command((f"{programs}/mlmmj-list", "-L", folder, each)) for each in _ROSTERS.values()]
        add, remove = ((f"{programs}/{each}", "-L", folder, *_SILENT[each], "-a", "{address}") for each in _SILENT)
        read = _READABLE.format(folders=shell.words(f"{folder}/{each}" for each in _ROSTERS))
        return ShellSteps(
            roster=read + " &&\n".join(lists),
            add='    roster </dev/null >"$private/step_before" || return\n'
            + shell.line_by_line(add, passed_over=_PASSED_OVER),
            remove=shell.line_by_line(remove),
        )

    def _push(
        self, program: str, reasons: dict[str, str], variants: Mapping[str, str] | None = None
    ) -> dict[str, Outcome]:
        """Call a program for each address without a reason against it, and read the results from the roster."""
        outcomes = {each: Outcome(Result.REJECTED, reason) for each, reason in reasons.items() if reason}
        sendable = [address for address, reason in reasons.items() if not reason]
        if not sendable:
            return outcomes
        deadline = self._deadline(len(sendable))
        before = _canonical(self._read(deadline))
        self._require_writable()
        adds = program == "mlmmj-sub"
        failures: dict[str, str] = {}
        pushed = []
        for address in sendable:
            if (canonical(address) in before) is adds:
                outcomes[address] = Outcome(Result.ALREADY, "already subscribed" if adds else "not subscribed")
                continue
            failures |= self._call(program, address, (variants or {}).get(address), deadline)
            before ^= {canonical(address)}
            pushed.append(address)
        after = _canonical(self._read(deadline)) if pushed else before
        failed = [address for address in pushed if (canonical(address) in after) is not adds]
        if 1 < len(failed) == len(pushed):
            raise ListManagerUnavailableError(
                f"{self.list_name}: {program}: changed none of {len(failed)} addresses; run the program by hand, and "
                f"check whether the disk of {self.folder} is full"
            )
        outcomes |= dict.fromkeys(pushed, Outcome(Result.DONE))
        return outcomes | {each: Outcome(Result.REJECTED, failures.get(each) or _SILENCE[adds]) for each in failed}

    def _call(self, program: str, address: str, variant: str | None, deadline: float) -> dict[str, str]:
        """Call a program for one address; return the error, if there was one."""
        require_room(self.folder)  # mlmmj writes incomplete lines to a full disk
        options = (*_SILENT[program], *([variant] if variant else []))
        finished = self._run(program, *options, "-a", address, deadline=deadline)
        if finished.exit_code < 0:
            process.require_success(finished)
        if finished.exit_code == 0:
            return {}
        return {address: process.error_line(finished) or f"{program} ended with exit code {finished.exit_code}"}

    def _read(self, deadline: float) -> list[str]:
        """Return the addresses of all three rosters, each once."""
        self._require_readable()
        output = b"\n".join(self._printed(option, deadline) for option in _ROSTERS.values())
        return list(dict.fromkeys(subscribers(output, source=f"{self.list_name}: mlmmj-list")))

    def _variant(self, option: str, deadline: float) -> list[str]:
        return subscribers(self._printed(option, deadline), source=f"{self.list_name}: mlmmj-list {option}")

    def _printed(self, option: str, deadline: float) -> bytes:
        finished = self._run("mlmmj-list", option, deadline=deadline)
        process.require_success(finished)
        return finished.stdout

    def _run(self, program: str, *options: str, deadline: float) -> process.CompletedCommand:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ListManagerUnavailableError(
                f"{self.list_name}: {program}: did not finish in time; raise `timeout_per_address`"
            )
        # the whole path, which mlmmj requires
        return process.run(
            [str(self.settings.bin / program), "-L", str(self.folder), *options],
            name=f"{self.list_name}: {program}",
            timeout=left,
            max_output=self.settings.max_output,
        )

    def _deadline(self, count: int) -> float:
        return time.monotonic() + self.timeout(count)

    def _require_readable(self) -> None:
        """Raise unless all files of the rosters can be read to the end; mlmmj-list skips those that cannot.

        A full disk leaves an incomplete line, to which mlmmj would append the next address.
        """
        if not _is_there(self.settings.spool):
            raise ListManagerUnavailableError(
                f"{self.settings.spool}: the folder does not exist; correct `spool` in mailinglists.toml"
            )
        if not _is_there(self.folder / "subscribers.d"):
            raise NoSuchListError(
                f"{self.folder}: mlmmj has no list in this folder; if the list has another name there, set `list` in "
                "mailinglists.toml"
            )
        for path in self._files():
            if _last_byte(path) not in {b"", b"\n"} and path.suffix != ".new":  # one that mlmmj is just writing
                raise ListManagerUnavailableError(
                    f"{path}: the last line is cut off, perhaps because the disk was full; complete or remove that "
                    "line by hand"
                )

    def _require_writable(self) -> None:
        """Raise unless mlmmj-sub would work, which it does only for root and the owner of the list's folder."""
        try:
            owner = self.folder.stat().st_uid
        except OSError as error:
            raise _unreadable(self.folder, error) from None
        if os.geteuid() not in {0, owner}:
            raise ListManagerUnavailableError(
                f"{self.folder}: belongs to user {_name(owner)}, and mlmmj lets only that user and root change the "
                "list; run the sync as that user"
            )
        require_room(self.folder)

    def _files(self) -> Iterator[Path]:
        for name in _ROSTERS:
            folder = self.folder / name
            try:
                yield from list(folder.iterdir())
            except OSError as error:
                raise _unreadable(folder, error) from None


def _name(user: int) -> str:
    import pwd  # only for this message

    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return str(user)


_SILENCE = {
    True: "mlmmj reported success, but the address is not on the list",
    False: "mlmmj reported success, but the address is still on the list",
}


def open_list(settings: Settings, list_name: str) -> Mlmmj:
    """Return the list manager bound to one list. Raise ConfigurationError if its name would leave the spool."""
    if not list_name or list_name[0] in ".-" or "/" in list_name or not list_name.isprintable():
        raise ConfigurationError(
            "the list name is the name of a folder in `spool`, so it must not be empty, start with a dot or a dash, "
            f"or contain a slash: {one_line(list_name)}"
        )
    return Mlmmj(settings, list_name)


def _canonical(roster: Sequence[str]) -> set[str]:
    return {canonical(each) for each in roster if not isinstance(each, OddSubscriber)}


def _why_misread(address: str) -> str:
    """Return why mlmmj, which stores nearly anything, would fail at an address or never reach it by mail."""
    if not address.isascii():
        return "mlmmj accepts only ASCII addresses"
    if address.startswith("/"):
        return "mlmmj does not accept an address that starts with /"
    if "." not in address.rpartition("@")[2]:
        return "mlmmj accepts only domains with at least one dot"
    return ""


def _is_there(path: Path) -> bool:
    """Return True if a folder exists; raise if the parent folder cannot be read."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise _unreadable(path, error) from None


def _last_byte(path: Path) -> bytes:
    """Return the last byte of a file, or nothing if it is empty or was just deleted. Raise unless readable."""
    try:
        # without O_NONBLOCK, a named pipe would block us
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise _unreadable(path, error) from None
    try:
        found = os.fstat(descriptor)
        return os.pread(descriptor, 1, found.st_size - 1) if stat.S_ISREG(found.st_mode) and found.st_size else b""
    except OSError as error:
        raise _unreadable(path, error) from None
    finally:
        os.close(descriptor)


def _unreadable(path: Path, error: OSError) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(
        f"{path}: cannot be read: {os.strerror(error.errno or 0)}; run the sync as the owner of the list's folder"
    )
