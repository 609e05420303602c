"""Rosters in text files: for the demo, and for the ``:include:`` lists of Postfix and the redirect lists of Exim.

A line may hold several addresses. The file is read as these programs read it, without guessing: a line whose recipients
are uncertain ends the run. Source: Postfix, deliver_token_stream() of local(8); Exim, "Items in redirection lists".

A new file is written beside the old one and replaces it under a lock on the folder, so that readers see either the old
or the new roster. Everything else in the file is kept byte for byte.
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
    """The settings of a manager of this kind."""

    directory: Path
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 30.0  # seconds to wait for the lock
    max_size: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024  # bytes of one roster


# An item between two commas; a # that begins a word ends it.
_PART = re.compile(r'(?:"(?:[^"\\]|\\.)*"|\([^()]*\)|<[^<>]*>|[^",()<>#\s]|(?<=[^\s,])#|\s(?!\s*(?:#|$)))*')
_TAIL = re.compile(r"\s*(?:#(?:\s.*)?)?", re.DOTALL)  # a comment and the line end
# Items that mean a file or a command in an :include: list of Postfix or a redirect list of Exim.
_NO_MAILBOX = ("/", "|")


class Part(NamedTuple):
    """An item between two commas, as in the file, and the address in it, if there is one."""

    text: str
    address: RosterLine | None


class Line(NamedTuple):
    """A line of a roster: its items, and what follows them."""

    parts: tuple[Part, ...]
    tail: str

    @property
    def addresses(self) -> list[RosterLine]:
        """The addresses of the line."""
        return [part.address for part in self.parts if part.address]

    def without(self, unwanted: Collection[str]) -> "Line | None":
        """Return the line without some canonical addresses, or None if it held no other."""
        kept = tuple(part for part in self.parts if not (part.address and part.address.canonical in unwanted))
        if len(kept) == len(self.parts):
            return self
        return Line(kept, self.tail) if any(part.address for part in kept) else None

    def __str__(self) -> str:
        return ",".join(part.text for part in self.parts) + self.tail


@dataclass(frozen=True, slots=True)
class TextFile:
    """A list's roster in a text file."""

    settings: Settings
    list_name: str

    @property
    def path(self) -> Path:
        """The path of the roster."""
        return self.settings.directory / f"{self.list_name}.txt"

    @property
    def batch(self) -> int:
        """The file is written once for any number of addresses."""
        return 100_000

    def timeout(self, count: int) -> float:  # noqa: ARG002 - part of the protocol
        """Return the seconds to wait for the lock."""
        return self.settings.timeout

    def check(self) -> str:
        """Read the roster, and check that the folder is writable."""
        count = len(self.roster())
        folder = Path(os.path.realpath(self.path)).parent
        if not os.access(folder, os.W_OK, effective_ids=True):
            raise ListManagerUnavailableError(f"{folder}: the portal's user may not write to this folder")
        return f"text file: {self.path} found, subscribers: {count}"

    def identity(self) -> str:
        """Return the path of the file with all links resolved."""
        return str(self.path.resolve())

    def roster(self) -> Sequence[str]:
        """Return the addresses as they are spelled in the file."""
        return [each.spelling for line in self._lines() for each in line.addresses]

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Append the addresses that the file does not contain in any spelling."""
        outcomes: dict[str, Outcome] = {}
        with self._locked():
            lines = list(self._lines())
            held = {each.canonical for line in lines for each in line.addresses}
            added = []
            for address in addresses:
                outcomes[address] = _refusal(address) or Outcome(Result.DONE)
                if outcomes[address].result is Result.REJECTED:
                    continue
                if canonical(address) in held:
                    outcomes[address] = Outcome(Result.ALREADY)
                    continue
                held.add(canonical(address))
                added.append(address)
            if added:
                self._replace(_appended("".join(map(str, lines)), added))
        return outcomes

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Remove every item that is one of the addresses, in any spelling, and lines that are then empty."""
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
            # without O_NONBLOCK, a named pipe in the file's place would block us
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
        """Lock the folder: each write replaces the file, so a lock on the file would protect nothing."""
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
        """Replace the file, keeping the mode and owner of the old one; if anything fails, the old one stays."""
        target = Path(os.path.realpath(self.path))  # keeps a link a link
        new_file = target.with_name(f".{target.name}.new")  # a fixed name, so that crashes leave at most one file
        try:
            new_file.unlink(missing_ok=True)
            descriptor = os.open(new_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content.encode("utf-8", "surrogateescape"))
                    stream.flush()
                    _copy_owner_and_mode(descriptor, target.stat())
                    os.fsync(descriptor)
                new_file.replace(target)
            except BaseException:
                new_file.unlink(missing_ok=True)
                raise
            _sync_folder(target.parent)
        except OSError as error:
            raise _unavailable(self.path, "cannot be written", error) from None


def open_list(settings: Settings, list_name: str) -> TextFile:
    """Return the roster of one list. Raise ConfigurationError if its name would leave the folder."""
    if not list_name or list_name[0] in ".-" or "/" in list_name or not list_name.isprintable():
        raise ConfigurationError(
            "the list name is used as a file name, so it must not be empty, start with a dot or a dash, or contain a "
            f"slash: {one_line(list_name)}"
        )
    return TextFile(settings, list_name)


def _line(text: str) -> Line:
    """Return a line, with no character lost. Raise InvalidAddressError."""
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
    """Return content followed by addresses, with the line ends that it uses."""
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


def _copy_owner_and_mode(descriptor: int, old: os.stat_result) -> None:
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
