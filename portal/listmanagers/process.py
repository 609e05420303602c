"""Running a list manager's command: no shell, a minimal environment, a timeout, and an interrupt before a kill.

If SIGTERM or SIGKILL ends Mailman 2, its list stays locked for five hours; on SIGINT it releases the lock. So a command
that takes too long, or that we must abandon, is interrupted first and given time to clean up.
"""

import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, NamedTuple

from portal.errors import CallFailedError, ConfigurationError, ListManagerUnavailableError
from portal.listmanagers.call_limits import MAX_OUTPUT
from portal.listmanagers.lines import one_line

GRACE = 5.0  # seconds between one signal and the next
_LONGEST_WORDS = 16 * 1024  # bytes of stderr that are searched for secrets
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class CompletedCommand(NamedTuple):
    """The result of a command that ended without our intervention."""

    name: str  # its name in messages
    exit_code: int  # negative if a signal ended it
    stdout: bytes
    stderr: bytes


def environment() -> dict[str, str]:
    """Return the whole environment of a command.

    It is the same from cron, a terminal and a web server, and leaks nothing of ours. HOME is left out: list managers do
    not read it, and ssh uses the password file. Mailman 2 does not start in a locale that the host lacks.
    """
    has_utf8 = any(Path("/usr/lib/locale", name).is_dir() for name in ("C.utf8", "C.UTF-8"))
    return {"PATH": PATH, "LANG": "C.UTF-8" if has_utf8 else "C"}


def split(command: str) -> tuple[str, ...]:
    """Split a command as a shell would. Raise ValueError if it cannot be run."""
    import shlex  # needed only when settings are read

    if "\0" in command:
        raise ValueError("it contains a NUL character")
    argv = tuple(shlex.split(command))
    if not argv:
        raise ValueError("it is empty")
    if "/" in argv[0] and not argv[0].startswith("/"):
        raise ValueError(f"give the absolute path of the program: {argv[0]}")
    return argv


def check_commands(commands: Mapping[str, str | None]) -> None:
    """Raise ValueError, which names the key, unless each command can be split."""
    for key, command in commands.items():
        try:
            if command is not None:
                split(command)
        except ValueError as error:
            raise ValueError(f"{key} is not a valid command: {error}") from None


def with_list(command: str, list_name: str) -> tuple[str, ...]:
    """Return a command as argv for one list: its name replaces ``{list}``, or is appended. Raise ConfigurationError."""
    if not list_name or list_name.startswith("-") or not list_name.isprintable():
        raise ConfigurationError(
            f"a list name must not be empty, start with a dash or contain control characters: {one_line(list_name)}"
        )
    argv = split(command)
    if any("{list}" in part for part in argv):
        return tuple(part.replace("{list}", list_name) for part in argv)
    return (*argv, list_name)


def quoted(argv: Sequence[str]) -> str:
    """Return argv in one line, quoted for a shell."""
    import shlex

    return shlex.join(argv)


def require_program(program: str) -> None:
    """Raise ListManagerUnavailableError if a program is missing or not executable."""
    if shutil.which(program, path=PATH) is None:
        raise ListManagerUnavailableError(
            f"{program}: not found, or the portal's user may not run it; check its path in mailinglists.toml"
        )


def run(
    argv: Sequence[str],
    *,
    name: str = "",
    stdin: bytes = b"",
    timeout: float,
    max_output: int = MAX_OUTPUT,
    grace: float = GRACE,
) -> CompletedCommand:
    """Run a command to its end and return its result, whatever its exit code.

    Times are in seconds, ``max_output`` in bytes; ``name`` is the prefix of messages. If we are stopped, so is the
    command. Raise ListManagerUnavailableError if it cannot be started, takes too long, or prints too much.
    """
    name = name or argv[0]
    deadline = time.monotonic() + timeout
    with _as_file(stdin) as source:
        child = _start(argv, source, name)
    streams = _Streams(child, max_output, name)
    try:
        if not streams.read_until(deadline):
            raise ListManagerUnavailableError(
                f"{name}: did not finish within {timeout:.3g} seconds, so it was stopped; find out what is blocking "
                "it, such as a lock, or raise its timeout"
            )
    except BaseException:
        _stop(child, streams, grace)
        raise
    finally:
        streams.close()
    return CompletedCommand(name, child.returncode, bytes(streams.stdout), bytes(streams.stderr))


def require_success(finished: CompletedCommand, *, ok: Sequence[int] = (0,)) -> None:
    """Raise CallFailedError, with the command's message, unless it exited with one of the codes."""
    if finished.exit_code in ok:
        return
    code = finished.exit_code
    how = f"ended with exit code {code}" if code >= 0 else f"was killed by signal {-code}"
    said = error_line(finished)
    raise CallFailedError(
        f"{finished.name}: {how}: {said}" if said else f"{finished.name}: {how}, with no error message",
        words=said or f"the command {how}",
    )


def without_secrets(finished: CompletedCommand, secrets: Sequence[str]) -> CompletedCommand:
    """Return a result with the given secrets hidden and stderr shortened, because messages are passed on."""
    said = finished.stderr
    if len(said) > _LONGEST_WORDS:
        said = said[:_LONGEST_WORDS].rpartition(b"\n")[0]  # whole lines, so that no secret is cut in two
    for secret in secrets:
        said = said.replace(secret.encode(), b"...")
    return finished._replace(stderr=said)


def error_line(finished: CompletedCommand) -> str:
    """Return the most informative line of stderr: the first, or the last of a Python traceback."""
    lines = [line for line in finished.stderr.decode("utf-8", "replace").splitlines() if line.strip()]
    if not lines:
        return ""
    return one_line(lines[-1] if lines[0].startswith("Traceback (") else lines[0])


@contextmanager
def _as_file(data: bytes) -> Iterator[IO[bytes] | int]:
    """Yield input as a file that is complete before the command starts.

    With a pipe, if we were killed while writing, the command would read part of an address as an address. The file is
    in memory if the system supports that, because it may contain passwords.
    """
    if not data:
        yield subprocess.DEVNULL
        return
    if sys.platform == "linux":
        stream: IO[bytes] = os.fdopen(os.memfd_create("stdin"), "w+b")
    else:
        import tempfile  # only for systems without files in memory

        stream = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the with below
    with stream:
        stream.write(data)
        stream.seek(0)
        yield stream


def _start(argv: Sequence[str], source: IO[bytes] | int, name: str) -> subprocess.Popen[bytes]:
    try:
        with _interrupts_inherited():
            # A separate session: a group to signal, and no terminal on which sudo or ssh could ask for a password.
            return subprocess.Popen(
                argv,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=environment(),
                cwd="/",
                start_new_session=True,
            )
    except OSError as error:
        raise ListManagerUnavailableError(
            f"{name}: {argv[0]} cannot be run: {os.strerror(error.errno or 0)}; check its path in mailinglists.toml"
        ) from None


@contextmanager
def _interrupts_inherited() -> Iterator[None]:
    """Let a child receive SIGINT even if we ignore it, as background jobs of a shell do; children inherit that."""
    is_ignored = (
        threading.current_thread() is threading.main_thread() and signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    )
    if is_ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        yield
    finally:
        if is_ignored:
            signal.signal(signal.SIGINT, signal.SIG_IGN)


class _Streams:
    """The output of a child, read from both of its streams as it comes."""

    def __init__(self, child: subprocess.Popen[bytes], limit: int, name: str) -> None:
        assert child.stdout is not None  # noqa: S101 - both are pipes, see _start
        assert child.stderr is not None  # noqa: S101
        self._child, self._limit, self._name = child, limit, name
        self.stdout, self.stderr = bytearray(), bytearray()
        self._pipes = (child.stdout, child.stderr)
        self._selector = selectors.DefaultSelector()
        for pipe, kept in zip(self._pipes, (self.stdout, self.stderr), strict=True):
            self._selector.register(pipe, selectors.EVENT_READ, kept)

    def read_until(self, deadline: float) -> bool:
        """Read both streams to the end and wait for the child; return False if the deadline came first."""
        while self._selector.get_map():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            for kept in self._read(left):
                if len(kept) > self._limit:
                    raise ListManagerUnavailableError(
                        f"{self._name}: printed more than {self._limit} bytes, so it was stopped; if the list is that "
                        "large, raise `max_output`"
                    )
        try:
            self._child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return False
        return True

    def drain(self, deadline: float) -> bool:
        """Discard output until the child's whole group has ended; return False if the deadline came first.

        A child that cannot write its last output would block instead of cleaning up.
        """
        while self._child.poll() is None or _group_lives(self._child):
            if time.monotonic() >= deadline:
                return False
            for kept in self._read(0.02):
                kept.clear()
        return True

    def _read(self, seconds: float) -> list[bytearray]:
        if not self._selector.get_map():
            time.sleep(min(seconds, 0.02))
        changed = []
        for key, _ in self._selector.select(seconds) if self._selector.get_map() else ():
            chunk = os.read(key.fd, 65536)
            if chunk:
                key.data.extend(chunk)
                changed.append(key.data)
            else:
                self._selector.unregister(key.fileobj)
        return changed

    def close(self) -> None:
        self._selector.close()
        for pipe in self._pipes:
            pipe.close()


def _stop(child: subprocess.Popen[bytes], streams: _Streams, grace: float) -> None:
    """Stop a child and its group by SIGINT, SIGTERM and SIGKILL. Ctrl-C only shortens the grace period."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):  # it has ended, or runs as another user under sudo
            os.killpg(child.pid, number)
        with suppress(KeyboardInterrupt, SystemExit):
            if streams.drain(time.monotonic() + grace):
                return


def _group_lives(child: subprocess.Popen[bytes]) -> bool:
    """Return True if processes of the child's group still run: a wrapper may end before its command."""
    try:
        os.killpg(child.pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
