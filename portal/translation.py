"""The translation of every text that people read.

A catalogue is ``locale/LANGUAGE/LC_MESSAGES/portal.po``, which a build compiles to ``.mo``. English has none: a message
is its own translation. Commands, logs and the API are in English.
"""

import re
from collections import UserString
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from gettext import NullTranslations, translation
from pathlib import Path

ENGLISH = "en"
LOCALE = Path(__file__).parent / "locale"
_ENGLISH = NullTranslations()
_in_use: ContextVar[str] = ContextVar("language", default=ENGLISH)


@cache
def available() -> tuple[str, ...]:
    """Return the available languages: English, and one for each catalogue."""
    return ENGLISH, *sorted(path.parents[1].name for path in LOCALE.glob("*/LC_MESSAGES/portal.[mp]o"))


def in_use() -> str:
    """Return the language of the current page or letter."""
    return _in_use.get()


def use(language: str) -> None:
    """Set the language for the rest of the request; English if its catalogue has not been built."""
    _in_use.set(language if _is_built(language) else ENGLISH)


@contextmanager
def using(language: str) -> Iterator[None]:
    """Set the language within a ``with`` block."""
    token = _in_use.set(language if _is_built(language) else ENGLISH)
    try:
        yield
    finally:
        _in_use.reset(token)


def translations() -> NullTranslations:
    """Return the catalogue of the language in use."""
    language = in_use()
    return _ENGLISH if language == ENGLISH else _catalogue(language)


@cache
def _is_built(language: str) -> bool:
    return language == ENGLISH or (LOCALE / language / "LC_MESSAGES" / "portal.mo").exists()


@cache
def _catalogue(language: str) -> NullTranslations:
    return translation("portal", LOCALE, [language], fallback=True)


def own_names(languages: Sequence[str]) -> dict[str, str]:
    """Return the languages' own names for themselves."""
    found = {}
    for each in languages:
        with using(each):
            found[each] = gettext("English") if each != ENGLISH else "English"
    return found


def gettext(message: str, /, **values: object) -> str:
    """Translate a text, and fill in ``%(name)s``."""
    text = translations().gettext(message) if message else ""  # the empty text is the key of a catalogue's header
    return text % values if values else text


def ngettext(singular: str, plural: str, count: int, /, **values: object) -> str:
    """Translate a text in its form for a count, and fill in ``%(name)s``."""
    text = translations().ngettext(singular, plural, count)
    return text % values if values else text


def gettext_stored(text: str, /, made_from: Iterable[str]) -> str:
    """Return a text that was stored in English, in the current language; ``made_from`` are the messages it may be of.

    A text of another origin is returned as it is.
    """
    for message in made_from:
        pattern = re.sub(r"%\\\((\w+)\\\)s", r"(?P<\1>.+)", re.escape(message))
        if match := re.fullmatch(pattern, text):
            return gettext(message, **match.groupdict())
    return text


def marked(message: str, /) -> str:
    """Return a text unchanged, marked for the catalogues; it is translated where it is displayed."""
    return message


class LazyText(UserString):
    """A text defined at import time and translated each time it is read."""

    def __init__(self, message: str) -> None:
        self._message = message

    @property
    def data(self) -> str:  # type: ignore[override]
        """The text in the language in use."""
        return gettext(self._message)


def lazy_gettext(message: str, /) -> LazyText:
    """Return a lazily translated label, validator message or table entry."""
    return LazyText(message)
