"""The protocol between the portal and a list manager."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from portal.domain.delivery import Delivery
from portal.domain.subscriber_options import SubscriberOptions


class Result(StrEnum):
    """What became of one address that was added or removed."""

    DONE = "done"
    ALREADY = "already"  # an add of a subscriber, a removal of somebody who is none
    PENDING = "pending"  # held at the list manager until a moderator approves it
    CONFIRM = "confirm"  # held at the list manager until the member confirms it
    REJECTED = "rejected"  # plainly refused
    UNDONE = "undone"  # the roster read afterwards does not show it; no list manager says that


class Outcome(NamedTuple):
    """A result with the list manager's own words for it (cleaned of control characters, at most 200 characters)."""

    result: Result
    words: str = ""


class OddSubscriber(str):
    """A subscriber that is not an address, which no account can hold. It is counted, and otherwise left alone."""

    __slots__ = ()


class ListManager(Protocol):
    """A list manager bound to one list.

    One address that fails is an ``Outcome``; the list manager failing as a whole is an exception:
    ListManagerUnavailableError or NoSuchListError. No method is ever called with an empty sequence, nor with more
    than ``batch`` addresses, nor with an address that holds control characters.
    """

    @property
    def batch(self) -> int:
        """The most addresses that one call of ``add`` or ``remove`` takes."""

    def timeout(self, count: int) -> float:
        """Return the seconds after which a call with ``count`` addresses gives up (0: ``check`` and ``roster``)."""

    def check(self) -> str:
        """Reach the list manager and find the list; return one line that says what answered."""

    def roster(self) -> Sequence[str]:
        """Return every subscriber's address, in every delivery variant, as the list manager spells it.

        A text that is not an address, unless it is an ``OddSubscriber``, shows that this is not a roster.
        """

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses, silently; return an outcome for each, keyed by the address as it was passed."""

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses, silently; return an outcome for each, keyed by the address as it was passed."""


@runtime_checkable
class Warns(Protocol):
    """What a list manager can do besides that finds out what works, but not as it should."""

    def warnings(self, *, sets_passwords: bool) -> Iterable[str]:
        """Return after a good ``check`` what is wrong and what to do about it, a line for each.

        ``sets_passwords`` says whether the portal sets list passwords here.
        """


@runtime_checkable
class HoldsRequests(Protocol):
    """What a list manager can do besides that holds adds until somebody approves them."""

    def withdraw(self, addresses: Sequence[str]) -> Collection[str]:
        """Take back held requests, silently; return the addresses of which one was held and is no more."""


@runtime_checkable
class IdentifiesList(Protocol):
    """What a list manager can do besides that may know one list by several names."""

    def identity(self) -> str:
        """Return what is the same, and the same only, for two names of one list, on whatever host it is."""


@runtime_checkable
class KnowsOptions(Protocol):
    """What a list manager can do besides that lets subscribers choose digests, or no mail."""

    def options(self, addresses: Sequence[str]) -> Mapping[str, SubscriberOptions] | None:
        """Return the options of those subscribers that have any, keyed by the address as it was passed.

        None: this installation lacks what it takes to read and to set them.
        """


@runtime_checkable
class CarriesOptions(KnowsOptions, Protocol):
    """What such a list manager can do besides that subscribes with options, too."""

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses, silently, with options that ``options`` returned; at most ``batch`` of them.

        Return an outcome for each address. One whose options cannot be set is not subscribed.
        """


@runtime_checkable
class KnowsDelivery(Protocol):
    """What a list manager can do besides that may send a subscriber digests, or no mail."""

    @property
    def batch(self) -> int:
        """The most addresses that one call takes."""

    def deliveries(self, addresses: Sequence[str]) -> Mapping[str, Delivery] | None:
        """Return how the list delivers to those subscribers who do not get each message by itself.

        They are keyed by the address as it was passed. None: this installation lacks what it takes to find out.
        """


@runtime_checkable
class TakesPasswords(Protocol):
    """What a list manager can do besides that keeps a password for each subscriber."""

    def password_call(self) -> str:
        """Return in one line, quoted for a shell where it is a command, what ``set_passwords`` calls."""

    def set_passwords(self, passwords: Sequence[tuple[str, str]]) -> dict[str, Outcome]:
        """Set the passwords of subscribers: pairs of address and password, at most ``batch`` of them.

        Return an outcome for each address: done, or rejected where the list manager does not know it.
        """


class ShellSteps(NamedTuple):
    """What a generated script does at the list manager: text for a POSIX shell, with everything quoted.

    A step may call ``limited COMMAND``, which ends a command that takes too long, and keep files in ``"$private"``;
    the names of its variables and files begin with ``step_``. Its exit code is 0 only where it did its part.
    """

    roster: str  # prints addresses, one a line, as ``roster`` returns them
    add: str  # reads addresses, one a line, never none
    remove: str  # likewise
    passwords: str | None = None  # reads address, tab and password, a line for each, never none


@runtime_checkable
class HasShellSteps(Protocol):
    """What a list manager can do besides that can be driven by commands on its own host, without the portal."""

    def shell_steps(self) -> ShellSteps:
        """Return the commands for the list, as shell text."""
