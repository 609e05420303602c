"""A check of disk space, for list managers that write incomplete files without an error when the disk is full."""

import os
from pathlib import Path

from portal.errors import ListManagerUnavailableError

_ROOM = 1024 * 1024  # bytes


def require_room(folder: Path) -> None:
    """Raise ListManagerUnavailableError if the disk of a folder is nearly full."""
    try:
        disk = os.statvfs(folder)
    except OSError as error:
        raise ListManagerUnavailableError(f"{folder}: cannot be read: {os.strerror(error.errno or 0)}") from None
    if disk.f_blocks and disk.f_bavail * disk.f_frsize < _ROOM:
        raise ListManagerUnavailableError(
            f"{folder}: the disk is full, which the list manager does not check; free some space"
        )
