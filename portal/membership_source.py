"""The membership source: a file, or a command that prints the list of current members."""

import os
from pathlib import Path
from typing import NamedTuple

from portal.config import MembershipSettings
from portal.errors import ConfigurationError, UnavailableError

MAX_BYTES = 256 * 1024**2


class SourceText(NamedTuple):
    """The content of a membership source, and a description of the source."""

    content: bytes
    source: str


def read(settings: MembershipSettings | None, *, folder: Path) -> SourceText:
    """Read the configured source; a path is in the instance folder unless it is absolute.

    Raise ConfigurationError if none is configured, or UnavailableError if it cannot be read completely.
    """
    if settings is None or not settings.has_source:
        raise ConfigurationError(
            "no membership source is configured; name a file, or set `file` or `command` under [membership]"
        )
    if settings.command is not None:
        return SourceText(_output(settings.command, settings.timeout), f"command {settings.command}")
    path = folder / (settings.file or "")
    try:
        return SourceText(path.read_bytes(), f"file {path}")
    except OSError as error:
        raise UnavailableError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from None


def _output(command: str, timeout: float) -> bytes:
    """Return the output of a command. Raise UnavailableError if it failed or may have been cut off."""
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
        raise UnavailableError(f"{name}: the output ends in the middle of a line, so it may have been cut off")
    return finished.stdout
