"""Letters in a folder instead of at a mail server, so that the demo can show every letter."""

import os
import re
import tempfile
from collections.abc import Iterator
from datetime import datetime
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
    date: datetime
    paragraphs: tuple[str, ...]


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
    paragraphs = tuple(_paragraphs(message.get_content()))
    return FoundLetter(str(message["To"]), str(message["Subject"]), message["Date"].datetime, paragraphs)


def _paragraphs(text: str) -> Iterator[str]:
    """Yield the paragraphs of a letter, each on one line; indented lines are paragraphs of their own."""
    for block in re.split(r"\n\s*\n", text.strip("\r\n")):
        lines = block.splitlines()
        if any(line.startswith(" ") for line in lines):
            yield from (line.strip() for line in lines)
        else:
            yield " ".join(lines)
