"""What every real list manager of the tests can do, whichever program it is.

One object is one running program with a folder of its own, for a whole session of tests; lists are told apart by name.
Nothing of it goes through the portal: it is what the portal is judged by.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any


class RealProgram(ABC):
    """A real list manager. ``kind`` is the portal's word for it; addresses come back in lower case."""

    kind: str
    can_hold = False  # whether an add can be held for a moderator
    can_ban = False  # whether an address can be banned
    has_no_mail = False  # whether a subscriber can be kept without mail

    def __init__(self, folder: Path) -> None:
        """Start the program, or make ready what it needs, in an empty folder."""
        self.folder = folder

    @property
    @abstractmethod
    def version(self) -> str:
        """The program's own words for its version."""

    @abstractmethod
    def manager_table(self) -> dict[str, Any]:
        """Return what stands in the table of the manager in mailinglists.toml, without ``kind``."""

    def list_setting(self, name: str) -> str:
        """Return what stands as ``list`` in the list's table in mailinglists.toml."""
        return name

    @abstractmethod
    def make_list(self, name: str) -> None:
        """Make a list, or empty the one that there is: no subscriber, no held request, no ban, no mail queued."""

    @abstractmethod
    def set_roster(self, name: str, normal: Iterable[str], *, digest: Iterable[str] = ()) -> None:
        """Let exactly these be the list's subscribers, quietly; those of ``digest`` by digest."""

    @abstractmethod
    def roster(self, name: str) -> set[str]:
        """Return all subscribers, in every delivery variant."""

    @abstractmethod
    def digest_roster(self, name: str) -> set[str]:
        """Return those who get digests."""

    @abstractmethod
    def queued_mails(self) -> list[str]:
        """Return a word for each mail that the program would send by now; the tests want none."""

    def set_no_mail(self, name: str, address: str) -> None:
        """Keep a subscriber without mail."""
        raise NotImplementedError

    def no_mail_roster(self, name: str) -> set[str]:
        """Return those who are kept without mail."""
        raise NotImplementedError

    def hold(self, name: str, address: str) -> None:
        """Let an add of an address be held for the moderator, quietly."""
        raise NotImplementedError

    def held(self, name: str) -> set[str]:
        """Return the addresses whose adds are held."""
        raise NotImplementedError

    def ban(self, name: str, address: str) -> None:
        """Let the list refuse an address."""
        raise NotImplementedError

    def stop(self) -> None:  # noqa: B027 - some start nothing
        """End what was started."""
