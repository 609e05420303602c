"""Where every text that people read passes through on its way to them, so that one place decides its language.

There is no catalogue yet: a text is its own translation. Commands, logs and the API are in English.
"""

from collections import UserString
from gettext import NullTranslations

_ENGLISH = NullTranslations()


def translations() -> NullTranslations:
    """Return the catalogue of the language in use."""
    return _ENGLISH


def gettext(message: str, /, **values: object) -> str:
    """Return a text in the language in use, with values in the place of ``%(name)s``."""
    text = translations().gettext(message)
    return text % values if values else text


def ngettext(singular: str, plural: str, count: int, /, **values: object) -> str:
    """Return a text in its form for a count, with values in the place of ``%(name)s``."""
    text = translations().ngettext(singular, plural, count)
    return text % values if values else text


class LazyText(UserString):
    """A text that is written where a module is imported, and translated each time that it is read."""

    def __init__(self, message: str) -> None:
        self._message = message

    @property
    def data(self) -> str:  # type: ignore[override]
        """The text in the language in use."""
        return gettext(self._message)


def lazy_gettext(message: str, /) -> LazyText:
    """Return a text of a label, a message of a validator, or a table of words."""
    return LazyText(message)
