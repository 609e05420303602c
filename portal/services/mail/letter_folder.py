"""Letters in a folder instead of at a mail server, so that the demo can show every letter."""

import os
import tempfile
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import NamedTuple

from portal import ownership
from portal.errors import MailUnavailableError


class FoundLetter(NamedTuple):
    """A letter in the folder."""

    to: str
    subject: str
    date: str
    lines: tuple[str, ...]


def write(folder: Path, message: EmailMessage) -> None:
    """Write a letter to a file of its own, whole or not at all. Raise MailUnavailableError."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=folder, prefix=".", delete=False) as file:
            file.write(message.as_bytes())
            ownership.hand_over(file.fileno(), folder=folder)
        Path(file.name).rename(folder / f"{_next(folder):06}.eml")
    except OSError as error:
        raise MailUnavailableError(f"{folder}: cannot be written: {os.strerror(error.errno or 0)}") from None


def _next(folder: Path) -> int:
    return max((int(path.stem) for path in folder.glob("*.eml") if path.stem.isdecimal()), default=0) + 1


def read(folder: Path, *, limit: int = 50) -> tuple[FoundLetter, ...]:
    """Return the letters in a folder, the newest first."""
    paths = sorted(folder.glob("*.eml"), reverse=True)[:limit]
    return tuple(_letter(path.read_bytes()) for path in paths)


def _letter(raw: bytes) -> FoundLetter:
    message = message_from_bytes(raw, policy=policy.default)
    lines = tuple(message.get_content().splitlines())
    return FoundLetter(str(message["To"]), str(message["Subject"]), str(message["Date"]), lines)
