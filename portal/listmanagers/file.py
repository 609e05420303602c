"""Rosters in text files: for the demo, and for the ``:include:`` lists of Postfix and the redirect lists of Exim.

Several addresses may be on a line. What these programs deliver to is read, and nothing is guessed: a line of which it
is not certain whom it reaches ends the run. Source: Postfix, deliver_token_stream() of local(8); Exim, "Items in
redirection lists".

A file is written beside the old one and put in its place, under a lock on the folder: a reader sees the old
roster or the new one, never half of either. What else is in it is kept byte for byte.
"""

import os
import re
import stat
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from io import BytesIO
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from portal.domain.address import canonical
from portal.domain.roster_text import RosterLine, read_line
from portal.errors import ConfigurationError, InvalidAddressError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers.base import Outcome, Result
from portal.listmanagers.lines import one_line, why_unsendable


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand in the table of a manager of this kind."""

    directory: Path
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 30.0  # seconds to wait for the lock
    max_size: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024  # bytes of one roster


# What is between two commas; a # that begins a word ends it.
_PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\([^()]*\)|<[^<>]*>|[^",()<>#\s]|(?<=[^\s,])#|\s(?!\s*(?:#|$)))*')
_TAIL = re.compile(r"\s*(?:#(?:\s.*)?)?", re.DOTALL)  # a comment and the line end
# What stands for a file or a command in an :include: list of Postfix or a redirect list of Exim.
_NO_MAILBOX = ("/", "|")


class Part(NamedTuple):
    """What is between two commas of a line, as it is in the file, and the address in it, if there is one."""

    text: str
    address: RosterLine | None


class Line(NamedTuple):
    """A line of a roster: its parts, and what follows them."""

    parts: tuple[Part, ...]
    tail: str

    @property
    def addresses(self) -> list[RosterLine]:
        """The addresses of the line."""
        return [part.address for part in self.parts if part.address]

    def without(self, unwanted: Collection[str]) -> "Line | None":
        """Return what is left of the line without some canonical addresses; None where it held no other."""
        kept = tuple(part for part in self.parts if not (part.address and part.address.canonical in unwanted))
        if len(kept) == len(self.parts):
            return self
        return Line(kept, self.tail) if any(part.address for part in kept) else None

    def __str__(self) -> str:
        return ",".join(part.text for part in self.parts) + self.tail


@dataclass(frozen=True, slots=True)
class TextFile:
    """One list's roster in a text file."""

    settings: Settings
    list_name: str

    @property
    def path(self) -> Path:
        """The file that holds the roster."""
        return self.settings.directory / f"{self.list_name}.txt"

    @property
    def batch(self) -> int:
        """A file is written once for as many addresses as there are."""
        return 100_000

    def timeout(self, count: int) -> float:  # noqa: ARG002 - the protocol's; a file takes no longer for more
        """Return the seconds after which a call gives up waiting for the lock."""
        return self.settings.timeout

    def check(self) -> str:
        """Read the roster, and see that the folder may be written."""
        count = len(self.roster())
        folder = Path(os.path.realpath(self.path)).parent
        if not os.access(folder, os.W_OK, effective_ids=True):
            raise ListManagerUnavailableError(f"{folder}: the portal's user may not write to this folder")
        return f"text file: {self.path} found, subscribers: {count}"

    def identity(self) -> str:
        """Return the file behind all links."""
        return str(self.path.resolve())

    def roster(self) -> Sequence[str]:
        """Return the addresses of the file as they are spelled there."""
        return [each.spelling for line in self._lines() for each in line.addresses]

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Append the addresses that the file does not hold in any spelling."""
        outcomes: dict[str, Outcome] = {}
        with self._locked():
            lines = list(self._lines())
            held = {each.canonical for line in lines for each in line.addresses}
            fresh = []
            for address in addresses:
                outcomes[address] = _refusal(address) or Outcome(Result.DONE)
                if outcomes[address].result is Result.REJECTED:
                    continue
                if canonical(address) in held:
                    outcomes[address] = Outcome(Result.ALREADY)
                    continue
                held.add(canonical(address))
                fresh.append(address)
            if fresh:
                self._replace(_appended("".join(map(str, lines)), fresh))
        return outcomes

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Drop every item that is one of the addresses, in whatever spelling, and a line that holds no other."""
        outcomes = {address: _refusal(address) or Outcome(Result.ALREADY) for address in addresses}
        wanted = {canonical(each): each for each, found in outcomes.items() if found.result is not Result.REJECTED}
        with self._locked():
            lines = list(self._lines())
            found = {each.canonical for line in lines for each in line.addresses} & wanted.keys()
            if found:
                kept = (line.without(found) for line in lines)
                self._replace("".join(str(line) for line in kept if line))
        return outcomes | {wanted[each]: Outcome(Result.DONE) for each in found}

    def _lines(self) -> Iterator[Line]:
        """Yield the lines of the file. Raise ListManagerUnavailableError for what is not certainly an address."""
        for number, raw in enumerate(BytesIO(self._read()), start=1):
            text = raw.decode("utf-8", "surrogateescape")
            try:
                yield _line(text)
            except InvalidAddressError:
                raise ListManagerUnavailableError(
                    f"{self.path}: line {number} is not a plain list of addresses: {one_line(text)}; write only "
                    "addresses, separated by commas, or put a # at the start of the line"
                ) from None

    def _read(self) -> bytes:
        limit = self.settings.max_size
        try:
            # without O_NONBLOCK a named pipe in the file's place would hang us
            with os.fdopen(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as stream:
                if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                    raise ListManagerUnavailableError(f"{self.path}: not a file")
                content = stream.read(limit + 1)
        except FileNotFoundError:
            if not self.settings.directory.is_dir():
                raise ListManagerUnavailableError(
                    f"{self.settings.directory}: the folder does not exist; create it, or correct `directory` in "
                    "mailinglists.toml"
                ) from None
            raise NoSuchListError(
                f"{self.path}: the file does not exist; to start the list, create an empty file"
            ) from None
        except OSError as error:
            raise _unavailable(self.path, "cannot be read", error) from None
        if len(content) > limit:
            raise ListManagerUnavailableError(
                f"{self.path}: larger than {limit} bytes; if the list is that large, raise `max_size`"
            )
        return content

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold the folder's lock: the file itself is another one after each write, so its lock would guard nothing."""
        folder = self.settings.directory
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise _unavailable(folder, "cannot be opened", error) from None
        try:
            _wait_for_lock(descriptor, folder, self.settings.timeout)
            yield
        finally:
            os.close(descriptor)

    def _replace(self, content: str) -> None:
        """Put new content in the file's place, with the old one's mode and owner; on any fault the old one stays."""
        target = Path(os.path.realpath(self.path))  # a link stays one
        fresh = target.with_name(f".{target.name}.new")  # one name, so that a crash leaves one file at most
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content.encode("utf-8", "surrogateescape"))
                    stream.flush()
                    _dress(descriptor, target.stat())
                    os.fsync(descriptor)
                fresh.replace(target)
            except BaseException:
                fresh.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
        except OSError as error:
            raise _unavailable(self.path, "cannot be written", error) from None


def open_list(settings: Settings, list_name: str) -> TextFile:
    """Return the roster of one list. Raise ConfigurationError where its name would leave the folder."""
    if not list_name or list_name[0] in ".-" or "/" in list_name or not list_name.isprintable():
        raise ConfigurationError(
            "the list name is used as a file name, so it must not be empty, start with a dot or a dash, or contain a "
            f"slash: {one_line(list_name)}"
        )
    return TextFile(settings, list_name)


def _line(text: str) -> Line:
    """Return a line, of which no character is lost. Raise InvalidAddressError."""
    if text.lstrip("\ufeff").lstrip().startswith("#"):
        return Line((), text)
    parts = [_part_at(text, 0)]
    end = len(parts[0].text)
    while text[end : end + 1] == ",":
        parts.append(_part_at(text, end + 1))
        end += 1 + len(parts[-1].text)
    if not _TAIL.fullmatch(text, end):
        raise InvalidAddressError("not a list of addresses")
    return Line(tuple(parts), text[end:])


def _part_at(text: str, start: int) -> Part:
    found = _PART.match(text, start)
    part = found[0] if found else ""
    address = read_line(part)
    if address and address.canonical.startswith(_NO_MAILBOX):
        raise InvalidAddressError("a file or a command")
    return Part(part, address)


def _appended(content: str, addresses: Sequence[str]) -> str:
    """Return content with addresses after it, in the line ends that it has."""
    end = "\r\n" if "\r\n" in content else "\n"
    start = content if not content or content.endswith("\n") else content + end
    return start + "".join(address + end for address in addresses)


def _refusal(address: str) -> Outcome | None:
    reason = why_unsendable(address)
    if not reason and address[0] == "#":
        reason = "a line that starts with # is a comment"
    if not reason and address.startswith(_NO_MAILBOX):
        reason = "Postfix and Exim treat an entry that starts with / or | as a file or a command"
    return Outcome(Result.REJECTED, reason) if reason else None


def _wait_for_lock(descriptor: int, folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ListManagerUnavailableError(
                    f"{folder}: another program has held the lock for {seconds:.3g} seconds; find that program and end "
                    "it"
                ) from None
            time.sleep(0.02)
        except OSError as error:
            raise _unavailable(folder, "cannot be locked", error) from None
        else:
            return


def _dress(descriptor: int, old: os.stat_result) -> None:
    """Give a new file the owner and the mode of the old one."""
    new = os.fstat(descriptor)
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        os.fchown(descriptor, old.st_uid, old.st_gid)
    os.fchmod(descriptor, stat.S_IMODE(old.st_mode))


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unavailable(path: Path, what: str, error: OSError) -> ListManagerUnavailableError:
    return ListManagerUnavailableError(f"{path}: {what}: {os.strerror(error.errno or 0)}")
