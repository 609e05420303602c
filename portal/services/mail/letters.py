"""Letters: plain text in the current language, from templates that an operator can replace in ``instance/mail/``.

``invite.txt`` is in the first language of the settings, ``invite.de.txt`` in German. Ours have the same names, and
those without a language are in English. A template begins with ``Subject: …`` and an empty line. ``$name`` and
``${name}`` are replaced by values, ``$$`` by a dollar sign.
"""

import re
import textwrap
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP
from email.utils import format_datetime
from pathlib import Path
from string import Template
from typing import NamedTuple
from urllib.parse import urlsplit

from portal import translation
from portal.config import Settings
from portal.errors import ConfigurationError
from portal.translation import gettext

_OWN = Path(__file__).parents[2] / "templates" / "letters"
_WIDTH = 72  # of a line of prose; links and indented lines are not wrapped
_LONGEST_SUBJECT = 200
_LONGEST_TEMPLATE = 20_000
_EXAMPLE = "https://portal.example.org"
_BOTH = {"site_name": "Member portal", "base_url": _EXAMPLE, "help": "Questions? Write to us."}
_LINK = f"{_EXAMPLE}/link/" + "x" * 43
_ASKED = {"links": f"  {_LINK}", "good_for": "20 minutes", "place": "192.0.2.1"}
_CHANGE = "alice@home.example.org was added"

# Every letter, with example values. A template may use only these names.
LETTERS: Mapping[str, Mapping[str, str]] = {
    "addresses-changed": {"username": "alice", "change": _CHANGE},
    "confirm": {"link": _LINK, "good_for": "24 hours", "place": "192.0.2.1"},
    "invite": {"username": "alice", "link": _LINK, "good_for": "14 days"},
    "lists-changed": {"changes": "You will be added to Members"},
    "operators": {"what": "a run of Members needs approval", "page": f"{_EXAMPLE}/admin/runs/12"},
    "password-changed": {"username": "alice"},
    "leave": {"link": _LINK, "good_for": "24 hours", "place": "192.0.2.1"},
    "log-in": _ASKED,
    "undo": {"username": "alice", "change": _CHANGE, "link": _LINK, "good_for": "72 hours"},
    "test": {"sent_at": "2026-11-01 12:00 UTC"},
}


class Letter(NamedTuple):
    """A letter as its recipient reads it."""

    subject: str
    body: str


def write(name: str, values: Mapping[str, str], *, settings: Settings, folder: Path) -> Letter:
    """Return a letter in the current language, from the operator's template or else from ours.

    Values are one line each, except ``links``. Raise ConfigurationError, which names the template and the fault.
    """
    path = next(each for each in _templates(name, folder / "mail", first=settings.languages[0]) if each.exists())
    try:
        text = _read(path)
    except (OSError, UnicodeDecodeError):
        raise ConfigurationError(f"{path}: cannot be read as UTF-8") from None
    header, _, body = text.lstrip("\ufeff").replace("\r\n", "\n").partition("\n\n")
    if not header.lower().startswith("subject:") or "\n" in header or not body.strip():
        raise ConfigurationError(
            f'{path}: the file must begin with a line "Subject: …" and an empty line; the text follows'
        )
    everything = {**_common(settings), **{key: _clean(value) for key, value in values.items()}}
    subject = _fill(path, header.partition(":")[2].strip(), {key: _one_line(each) for key, each in everything.items()})
    return Letter(subject[:_LONGEST_SUBJECT], _laid_out(_fill(path, body, everything)))


def _templates(name: str, folder: Path, *, first: str) -> Iterator[Path]:
    """Yield the paths where a letter may be: the operator's, then ours, which always exists in English."""
    language = translation.in_use()
    yield folder / f"{name}.{language}.txt"
    if language == first:
        yield folder / f"{name}.txt"
    yield _OWN / f"{name}.{language}.txt"
    yield _OWN / f"{name}.txt"


def preview(name: str, *, settings: Settings, folder: Path) -> Letter:
    """Return a letter with example values and links to this portal. Raise ConfigurationError."""
    values = {key: value.replace(_EXAMPLE, settings.base_url or _EXAMPLE) for key, value in LETTERS[name].items()}
    return write(name, values, settings=settings, folder=folder)


def as_message(letter: Letter, *, to: str, settings: Settings, number: str, now: datetime) -> EmailMessage:
    """Return a letter as a message by RFC 5322, marked as automatic by RFC 3834.

    ``number`` makes the Message-ID: a letter that is sent again has the same one, by which mail servers recognise it.
    """
    mail = settings.mail
    if mail is None:
        raise ConfigurationError("mail is not configured: add a table [mail] to portal.toml")
    message = EmailMessage(policy=SMTP.clone(utf8=not to.isascii()))
    message["From"] = _address(mail.sender, settings.site_name)
    message["To"] = _address(to)
    if mail.reply_to:
        message["Reply-To"] = _address(mail.reply_to)
    message["Subject"] = letter.subject
    message["Date"] = format_datetime(now)
    message["Message-ID"] = f"<{number}@{urlsplit(settings.base_url).hostname}>"
    message["Auto-Submitted"] = "auto-generated"
    message.set_content(letter.body, cte="7bit" if letter.body.isascii() else "quoted-printable")
    return message


def _address(address: str, name: str = "") -> Address:
    local, _, domain = address.rpartition("@")
    return Address(name, local, domain)


def in_words(good_for: timedelta) -> str:
    """Return how long a link is valid, in words."""
    if good_for < timedelta(hours=1):
        return gettext("%(count)s minutes", count=good_for // timedelta(minutes=1))
    if good_for <= timedelta(hours=72):
        return gettext("%(count)s hours", count=good_for // timedelta(hours=1))
    return gettext("%(count)s days", count=good_for.days)


def _read(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.read(_LONGEST_TEMPLATE)


def _common(settings: Settings) -> dict[str, str]:
    contact = settings.help_contact
    return {
        "site_name": settings.site_name,
        "base_url": settings.base_url.rstrip("/"),
        "help": gettext("Questions? %(contact)s", contact=contact) if contact else "",
    }


def _fill(path: Path, text: str, values: Mapping[str, str]) -> str:
    template = Template(text)
    if not template.is_valid():
        raise ConfigurationError(f"{path}: a $ is not followed by a name; write $$ for a dollar sign")
    unknown = [name for name in template.get_identifiers() if name not in values]
    if unknown:
        known = ", ".join(f"${name}" for name in sorted(values))
        raise ConfigurationError(f"{path}: unknown name ${unknown[0]}; known names: {known}")
    return template.substitute(values)


def _clean(text: str) -> str:
    """Return a value without characters that could start a new line; only our own value has several lines."""
    return "\n".join(_one_line(line) for line in text.split("\n"))


def _one_line(text: str) -> str:
    return "".join(letter if letter.isprintable() else " " for letter in text)


def _laid_out(body: str) -> str:
    """Return a text with long lines of prose wrapped, and without the gaps that empty values leave."""
    lines = [_wrapped(line.rstrip()) for line in body.strip().split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _wrapped(line: str) -> str:
    if len(line) <= _WIDTH or line.startswith(" ") or "://" in line:
        return line
    return textwrap.fill(line, _WIDTH, break_long_words=False, break_on_hyphens=False)
