"""The security log: one line of JSON for each event that whoever looks after the portal may have to look into.

It names users, keys and lists by their ids and never an e-mail address, so that an erased person is not in it.
"""

import json
import logging
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_LOGGER = logging.getLogger("portal.security")
_LOGGER.setLevel(logging.INFO)
_LOGGER.propagate = False  # what else is logged has other readers


def log(event: str, **fields: object) -> None:
    """Write an event down, once what it tells of is committed. Nothing is raised, whatever the disk says."""
    _LOGGER.info(event, extra={"fields": fields})


def read(place: Path) -> Iterator[dict[str, Any]]:
    """Yield the events of a file, the oldest first; a line that is none, and a file that is not there, hold nothing."""
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


def write_to(place: Path | None) -> None:
    """Have events written to a file, or to standard error; a process has one security log."""
    for handler in list(_LOGGER.handlers):
        if isinstance(handler, SecurityLog):
            _LOGGER.removeHandler(handler)
    _LOGGER.addHandler(SecurityLog(place))


class SecurityLog(logging.Handler):
    """Append a line for each event, in one write.

    The file is opened for each line: events are rare, a command without any opens nothing, and whoever rotates the
    file has to tell nobody.
    """

    def __init__(self, place: Path | None) -> None:
        super().__init__()
        self.place = place

    def emit(self, record: logging.LogRecord) -> None:
        """Write an event; where that fails, say so in the ordinary log and go on."""
        line = as_line(record)
        try:
            _append(self.place, line)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            logging.getLogger("portal").error("%s: cannot be written: %s: %s", self.place, reason, line.rstrip())


def as_line(record: logging.LogRecord) -> str:
    """Return an event as JSON in ASCII, so that no name and no path can begin a line of its own; the time is UTC."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    at = datetime.fromtimestamp(record.created, UTC)
    values = {"at": f"{at:%Y-%m-%dT%H:%M:%S}.{at.microsecond // 1000:03}Z", "event": record.getMessage(), **fields}
    return json.dumps({key: value for key, value in values.items() if value is not None}, default=str) + "\n"


def _append(place: Path | None, line: str) -> None:
    if place is None:
        os.write(2, line.encode("ascii"))
        return
    file = os.open(place, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.write(file, line.encode("ascii"))
    finally:
        os.close(file)
