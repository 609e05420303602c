"""The running portal: what the composition root leaves for views and commands to find."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache

from flask import current_app

from portal import translation
from portal.config import Catalogue, Settings
from portal.domain.mailinglist import MailingList
from portal.errors import ConfigurationError
from portal.listmanagers.base import ListManager
from portal.membership_source import SourceText


class Catalogues:
    """Reads ``mailinglists.toml`` on the first call; each call returns it in the language in use."""

    def __init__(self, load: Callable[[], Catalogue]) -> None:
        self._load = cache(load)

    def __call__(self) -> Catalogue:
        """Return the catalogue. Raise ConfigurationError."""
        return self._load().in_language(translation.in_use())

    def cache_clear(self) -> None:
        """Read the file again at the next call."""
        self._load.cache_clear()


@dataclass(frozen=True)
class Portal:
    """What a service is handed: settings, catalogue, clock, list managers and the key of the list passwords.

    ``catalogue`` reads ``mailinglists.toml`` on the first call and raises ConfigurationError where it is invalid.
    ``list_password_key`` reads its file at each call, and makes it at the first. ``membership_source`` returns what the
    configured source says now, ``leave_address`` a list's own way out.
    """

    settings: Settings
    catalogue: Callable[[], Catalogue]
    clock: Callable[[], datetime]
    open_list_manager: Callable[[MailingList], ListManager]
    list_password_key: Callable[[], bytes]
    membership_source: Callable[[], SourceText]
    leave_address: Callable[[MailingList], str | None]

    def readable_catalogue(self) -> Catalogue | None:
        """Return the catalogue, or None where ``mailinglists.toml`` is invalid: accounts can be managed without it."""
        try:
            return self.catalogue()
        except ConfigurationError:
            return None

    def known_lists(self) -> Mapping[str, MailingList] | None:
        """Return the lists of the catalogue, or None where it cannot be read or has none."""
        catalogue = self.readable_catalogue()
        return catalogue.lists or None if catalogue else None


def portal() -> Portal:
    """Return the running application's Portal."""
    found: Portal = current_app.extensions["portal"]
    return found
