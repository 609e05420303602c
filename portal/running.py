"""The running portal: the objects that the composition root provides for views and commands."""

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


class CatalogueLoader:
    """Loads ``mailinglists.toml`` on the first call; each call returns it in the current language."""

    def __init__(self, load: Callable[[], Catalogue]) -> None:
        self._load = cache(load)

    def __call__(self) -> Catalogue:
        """Return the catalogue. Raise ConfigurationError."""
        return self._load().in_language(translation.in_use())

    def cache_clear(self) -> None:
        """Forget the file, so that the next call reads it again."""
        self._load.cache_clear()


@dataclass(frozen=True)
class Portal:
    """The arguments of services: settings, catalogue, clock, list managers and the key of the list passwords.

    ``catalogue`` reads ``mailinglists.toml`` on the first call and raises ConfigurationError if it is invalid.
    ``list_password_key`` reads its file at each call, and creates it at the first. ``membership_source`` reads the
    configured source. ``leave_address`` returns the address to unsubscribe from a list by mail, if it has one.
    """

    settings: Settings
    catalogue: Callable[[], Catalogue]
    clock: Callable[[], datetime]
    open_list_manager: Callable[[MailingList], ListManager]
    list_password_key: Callable[[], bytes]
    membership_source: Callable[[], SourceText]
    leave_address: Callable[[MailingList], str | None]

    def readable_catalogue(self) -> Catalogue | None:
        """Return the catalogue, or None if ``mailinglists.toml`` is invalid: accounts can be managed without it."""
        try:
            return self.catalogue()
        except ConfigurationError:
            return None

    def known_lists(self) -> Mapping[str, MailingList] | None:
        """Return the lists of the catalogue, or None if it is invalid or empty."""
        catalogue = self.readable_catalogue()
        return catalogue.lists or None if catalogue else None


def portal() -> Portal:
    """Return the Portal of the current application."""
    found: Portal = current_app.extensions["portal"]
    return found
