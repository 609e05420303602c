"""A mailing list of the catalogue, and the limits of a plan."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from urllib.parse import quote

from portal.errors import PausedError

HANDLE = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class SafetyLimits:
    """How much one plan may do without approval: the larger of a count and a percentage, for each direction.

    ``removals`` and ``removals_percent`` limit removals and take-overs as "they left", out of the addresses seen on;
    ``additions`` and ``additions_percent`` limit adds, out of the roster. Source: docs/semantics.md, "What a run does
    not trust".
    """

    removals: int = 5
    removals_percent: int = 10
    additions: int = 25
    additions_percent: int = 25


def in_language(text: str | Mapping[str, str], language: str) -> str:
    """Return a text of the configuration in a language. Fall back to English, then to the first one given."""
    if isinstance(text, str):
        return text
    return text.get(language) or text.get("en") or next(iter(text.values()))


@dataclass(frozen=True, slots=True)
class MailingList:
    """A list as the catalogue describes it, with inherited settings filled in.

    ``is_listed`` and ``can_leave`` only affect members' pages, never who is managed. Source: docs/configuration.md.
    """

    handle: str
    name: str
    description: str
    email: str
    archive: str | None
    sync_passwords: bool
    manager: str
    list_name: str  # its name at the list manager
    audience: frozenset[str] | None  # groups; None if it is offered to everybody
    honour_list_changes: bool
    remove_on_departure: bool
    safety_limits: SafetyLimits
    is_paused: bool = False
    never_added: frozenset[str] = frozenset()  # canonical addresses of all lists of the catalogue
    section: str | None = None  # its heading on members' pages
    is_listed: bool = True  # if not, only its subscribers see it
    can_leave: bool = True  # if not, members cannot untick it
    names: Mapping[str, str] = field(default_factory=dict)  # by language, if there are several
    descriptions: Mapping[str, str] = field(default_factory=dict)
    subscribes_new_members: bool = False
    is_applied_at_once: bool = False  # each save requests a run
    settings_url: str | None = None  # at the list manager; {address} stands for the subscriber's address

    def __hash__(self) -> int:
        return hash(self.handle)  # hashing all fields would take ten times as long

    def in_language(self, language: str) -> "MailingList":
        """Return the list with its name and description in a language."""
        if not self.names and not self.descriptions:
            return self
        return replace(
            self,
            name=in_language(self.names or self.name, language),
            description=in_language(self.descriptions or self.description, language),
        )

    def is_offered_to(self, groups: frozenset[str]) -> bool:
        """Return True if a user in these groups may see the list."""
        return self.audience is None or not self.audience.isdisjoint(groups)

    def settings_of(self, address: str) -> str | None:
        """Return the URL of a subscriber's settings at the list manager, if the list has one."""
        return self.settings_url and self.settings_url.replace("{address}", quote(address, safe=""))

    def require_running(self) -> None:
        """Raise PausedError if nothing may be read from the list manager or pushed to it."""
        if self.is_paused:
            raise PausedError(
                f"{self.handle} is paused, so nothing was read or pushed; to resume, remove paused = true from the "
                "configuration"
            )
