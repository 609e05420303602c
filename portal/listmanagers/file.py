"""Rosters in text files: one address a line, for the demo and for the ``:include:`` lists of Postfix and Exim.

A file is written anew beside the old one and put in its place, under a lock on the folder: a reader sees the old
roster or the new one, never half of either. What is no address in it is kept byte for byte.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import Annotated, NamedTuple

from msgspec import Meta, Struct

from portal.domain.address import canonical
from portal.errors import ConfigurationError, InvalidAddressError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers.base import Outcome, Result
from portal.listmanagers.lines import address_in, one_line, why_unsendable


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """What may stand in the table of a manager of this kind."""

    directory: Path
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 30.0  # seconds to wait for the lock
    max_size: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024  # bytes of one roster


class Line(NamedTuple):
    """A line of a roster as it stands in the file; without an address both texts are empty."""

    raw: bytes
    canonical: str
    spelling: str


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
            raise ListManagerUnavailableError(f"{folder}: the portal's user may not write there")
        return f"text file: {self.path} is there, subscribers: {count}"

    def roster(self) -> Sequence[str]:
        """Return the addresses of the file as they are spelled there."""
        return [line.spelling for line in _lines(self._read()) if line.canonical]

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Append the addresses that the file does not hold in any spelling."""
        outcomes: dict[str, Outcome] = {}
        with self._locked():
            content = self._read()
            held = {line.canonical for line in _lines(content)}
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
                self._replace(_appended(content, fresh))
        return outcomes

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Drop every line that holds one of the addresses, in whatever spelling."""
        outcomes = {address: _refusal(address) or Outcome(Result.ALREADY) for address in addresses}
        wanted = {canonical(each): each for each, found in outcomes.items() if found.result is not Result.REJECTED}
        with self._locked():
            lines = _lines(self._read())
            kept = [line.raw for line in lines if line.canonical not in wanted]
            if len(kept) < len(lines):
                self._replace(b"".join(kept))
        for line in lines:
            if line.canonical in wanted:
                outcomes[wanted[line.canonical]] = Outcome(Result.DONE)
        return outcomes

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
                raise ListManagerUnavailableError(f"{self.settings.directory}: there is no such folder") from None
            raise NoSuchListError(f"{self.path}: no such file; make an empty one to begin the list") from None
        except OSError as error:
            raise _unavailable(self.path, "cannot be read", error) from None
        if len(content) > limit:
            raise ListManagerUnavailableError(f"{self.path}: larger than {limit} bytes; raise max_size if it should be")
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

    def _replace(self, content: bytes) -> None:
        """Put new content in the file's place, with the old one's mode and owner; on any fault the old one stays."""
        target = Path(os.path.realpath(self.path))  # a link stays one
        fresh = target.with_name(f".{target.name}.new")  # one name, so that a crash leaves one file at most
        try:
            fresh.unlink(missing_ok=True)
            descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                with os.fdopen(descriptor, "wb") as stream:
                    stream.write(content)
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
            "a list's name becomes a file's name, so it must not be empty, start with a dot or a dash, "
            f"or hold a slash: {one_line(list_name)}"
        )
    return TextFile(settings, list_name)


def _lines(content: bytes) -> list[Line]:
    return [_line(raw) for raw in content.splitlines(keepends=True)]


def _line(raw: bytes) -> Line:
    text = raw.decode("utf-8", "surrogateescape").lstrip("\ufeff").strip()
    if not text or text[0] == "#":
        return Line(raw, "", "")
    spelling = address_in(text)
    try:
        return Line(raw, canonical(spelling), spelling)
    except InvalidAddressError:
        return Line(raw, "", "")


def _appended(content: bytes, addresses: Sequence[str]) -> bytes:
    """Return content with addresses after it, in the line ends that it has."""
    end = b"\r\n" if b"\r\n" in content else b"\n"
    start = content if not content or content.endswith((b"\n", b"\r")) else content + end
    return start + b"".join(address.encode() + end for address in addresses)


def _refusal(address: str) -> Outcome | None:
    reason = why_unsendable(address)
    if not reason and address[0] == "#":
        reason = "a line that starts with # is a comment"
    return Outcome(Result.REJECTED, reason) if reason else None


def _wait_for_lock(descriptor: int, folder: Path, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        try:
            flock(descriptor, LOCK_EX | LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                raise ListManagerUnavailableError(
                    f"{folder}: another program has held its lock for {seconds:.3g} seconds"
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
