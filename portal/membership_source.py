"""The membership source: a file, or a command whose standard output is the list of today's members."""

import os
from pathlib import Path
from typing import NamedTuple

from portal.config import MembershipSettings
from portal.errors import ConfigurationError, UnavailableError

MAX_BYTES = 256 * 1024**2


class SourceText(NamedTuple):
    """What a membership source said, and which one it was."""

    content: bytes
    source: str


def read(settings: MembershipSettings | None, *, folder: Path) -> SourceText:
    """Read the configured source; a path is in the instance folder unless it is absolute.

    Raise ConfigurationError where none is configured, or UnavailableError where it cannot be read whole.
    """
    if settings is None or not settings.has_source:
        raise ConfigurationError("no membership source: name a file, or set `file` or `command` under [membership]")
    if settings.command is not None:
        return SourceText(_output(settings.command, settings.timeout), f"command {settings.command}")
    path = folder / (settings.file or "")
    try:
        return SourceText(path.read_bytes(), f"file {path}")
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from None


def _output(command: str, timeout: float) -> bytes:
    """Return what a command prints. Raise UnavailableError where it fails, or may have been cut off."""
    from portal.errors import ListManagerUnavailableError
    from portal.listmanagers import process

    argv, name = process.split(command), "membership.command"
    try:
        process.require_program(argv[0])
        finished = process.run(argv, name=name, timeout=timeout, max_output=MAX_BYTES)
        process.require_success(finished)
    except ListManagerUnavailableError as error:
        raise UnavailableError(str(error)) from None
    if finished.stdout and not finished.stdout.endswith((b"\n", b"\r", b"\n\0", b"\r\0")):
        raise UnavailableError(f"{name}: what it printed ends in the middle of a line, so it may have been cut off")
    return finished.stdout
