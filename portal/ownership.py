"""New files belong to the user whom their folder belongs to, also where root makes them."""

import os
from pathlib import Path


def create(path: Path, *, folder: Path | None = None) -> int:
    """Make a file that its owner alone can read, and return it open for appending. Raise FileExistsError.

    Root makes it for the owner of ``folder``, its own folder unless another is given: a command that root's cron runs
    must not leave files that the pages cannot write.
    """
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    hand_over(file, folder=folder or path.parent)
    return file


def hand_over(file: int, *, folder: Path) -> None:
    """Give an open file of root's to the owner of a folder; where another user asks, it stays that user's."""
    if os.geteuid() == 0:
        owner = folder.stat()
        os.fchown(file, owner.st_uid, owner.st_gid)
