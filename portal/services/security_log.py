"""The security log: one line of JSON for each event that an operator may have to investigate.

It identifies users, keys and lists by id and never contains an e-mail address, so that erased people do not appear in
it.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from portal import ownership

_APPENDING = os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC
_LOGGER = logging.getLogger("portal.security")
_LOGGER.setLevel(logging.INFO)
_LOGGER.propagate = False  # these events must not appear in the other logs


def log(event: str, **fields: object) -> None:
    """Log an event; call this after the commit. No exception is raised, even if the disk is full."""
    _LOGGER.info(event, extra={"fields": fields})


def read(place: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file, the oldest first; skip lines that are not events. A missing file has none."""
    try:
        file = place.open(encoding="ascii", errors="replace")
    except OSError:
        return
    with file:
        for line in file:
            try:
                found = json.loads(line)
            except ValueError:
                continue
            if isinstance(found, dict) and isinstance(found.get("at"), str) and isinstance(found.get("event"), str):
                yield found


def write_to(place: Path | None, *, instance: Path) -> None:
    """Log events to a file or to standard error; a process has one security log.

    A new file belongs to the owner of the instance folder.
    """
    for handler in list(_LOGGER.handlers):
        if isinstance(handler, SecurityLog):
            _LOGGER.removeHandler(handler)
    _LOGGER.addHandler(SecurityLog(place, instance))


class SecurityLog(logging.Handler):
    """Append a line for each event, in one write.

    The file is opened for each line: events are rare, a command without events opens nothing, and log rotation needs no
    signal.
    """

    def __init__(self, place: Path | None, instance: Path) -> None:
        super().__init__()
        self.place, self.instance = place, instance

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event. If that fails, report it in the ordinary log and continue."""
        line = as_line(record)
        try:
            _append(self.place, self.instance, line)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            logging.getLogger("portal").error("%s: cannot be written: %s: %s", self.place, reason, line.rstrip())


def as_line(record: logging.LogRecord) -> str:
    """Return an event as JSON in ASCII, so that no name or path can start a new line; times are in UTC."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    at = datetime.fromtimestamp(record.created, UTC)
    values = {"at": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z", "event": record.getMessage(), **fields}
    return json.dumps({key: value for key, value in values.items() if value is not None}, default=str) + "\n"


def _append(place: Path | None, instance: Path, line: str) -> None:
    if place is None:
        os.write(2, line.encode("ascii"))
        return
    file = _open(place, instance)
    try:
        os.write(file, line.encode("ascii"))
    finally:
        os.close(file)


def _open(place: Path, instance: Path) -> int:
    with suppress(FileNotFoundError):
        return os.open(place, _APPENDING)
    try:
        return ownership.create(place, folder=instance)
    except FileExistsError:  # another process was first
        return os.open(place, _APPENDING)
