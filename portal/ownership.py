"""The ownership of new files: the owner of the folder, even if root creates them."""

import os
from pathlib import Path


def create(path: Path, *, folder: Path | None = None) -> int:
    """Create a file with mode 0600 and return it open for appending. Raise FileExistsError.

    If root creates it, it belongs to the owner of ``folder``, by default its own folder: a command that root's cron
    runs must not leave files that the web server cannot write.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    hand_over(file, folder=folder or path.parent)
    return file


def hand_over(file: int, *, folder: Path) -> None:
    """Give an open file to the owner of a folder, if this process runs as root."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
