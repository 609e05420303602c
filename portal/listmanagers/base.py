"""The protocol between the portal and a list manager."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple, Protocol, runtime_checkable

from portal.domain.delivery import Delivery
from portal.domain.subscriber_options import SubscriberOptions


class Result(StrEnum):
    """The result of adding or removing one address."""

    DONE = "done"
    ALREADY = "already"  # an add of a subscriber, or a removal of an address that is not subscribed
    PENDING = "pending"  # held at the list manager until a moderator approves it
    CONFIRM = "confirm"  # held at the list manager until the member confirms it
    REJECTED = "rejected"  # refused
    UNDONE = "undone"  # not visible in the roster that is read afterwards; never reported by a list manager


class Outcome(NamedTuple):
    """A result with the list manager's message (without control characters, at most 200 characters)."""

    result: Result
    words: str = ""


class OddSubscriber(str):
    """A subscriber that is not an address, which no account can hold. It is counted but never touched."""

    __slots__ = ()


class ListManager(Protocol):
    """A list manager bound to one list.

    If one address fails, its ``Outcome`` says so; if the list manager fails as a whole, a method raises
    ListManagerUnavailableError or NoSuchListError. Methods are never called with an empty sequence, with more than
    ``batch`` addresses, or with an address that contains control characters.
    """

    @property
    def batch(self) -> int:
        """The maximum number of addresses in one call of ``add`` or ``remove``."""

    def timeout(self, count: int) -> float:
        """Return the timeout in seconds of a call with ``count`` addresses (0 for ``check`` and ``roster``)."""

    def check(self) -> str:
        """Reach the list manager and find the list; return one line that describes what answered."""

    def roster(self) -> Sequence[str]:
        """Return every subscriber's address, in every delivery variant, as the list manager spells it.

        An item that is neither an address nor an ``OddSubscriber`` shows that this is not a roster.
        """

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Subscribe addresses silently; return an outcome for each, keyed by the address as passed."""

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        """Unsubscribe addresses silently; return an outcome for each, keyed by the address as passed."""


@runtime_checkable
class Warns(Protocol):
    """Implemented by list managers that can find things that work, but not as they should."""

    def warnings(self, *, sets_passwords: bool) -> Iterable[str]:
        """Return problems found after a successful ``check``, each with its fix, one a line.

        ``sets_passwords`` says whether the portal sets list passwords here.
        """


@runtime_checkable
class HoldsRequests(Protocol):
    """Implemented by list managers that hold adds for approval."""

    def withdraw(self, addresses: Sequence[str]) -> Collection[str]:
        """Withdraw held requests silently; return the addresses that had one."""


@runtime_checkable
class IdentifiesList(Protocol):
    """Implemented by list managers that may know one list by several names."""

    def identity(self) -> str:
        """Return an id that two names share if and only if they mean the same list, on whatever host."""


@runtime_checkable
class KnowsOptions(Protocol):
    """Implemented by list managers whose subscribers can choose digests, or no mail."""

    def options(self, addresses: Sequence[str]) -> Mapping[str, SubscriberOptions] | None:
        """Return the options of the subscribers that have any, keyed by the address as passed.

        Return None if this installation cannot read and set them.
        """


@runtime_checkable
class CarriesOptions(KnowsOptions, Protocol):
    """Implemented by list managers that can also subscribe an address with options."""

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        """Subscribe addresses silently, with options from ``options``; at most ``batch`` of them.

        Return an outcome for each address. An address whose options cannot be set is not subscribed.
        """


@runtime_checkable
class KnowsDelivery(Protocol):
    """Implemented by list managers that may send a subscriber digests, or no mail."""

    @property
    def batch(self) -> int:
        """The maximum number of addresses in one call."""

    def deliveries(self, addresses: Sequence[str]) -> Mapping[str, Delivery] | None:
        """Return how the list delivers to subscribers who do not get every message one by one.

        They are keyed by the address as passed. Return None if this installation cannot report it.
        """


@runtime_checkable
class TakesPasswords(Protocol):
    """Implemented by list managers that keep a password for each subscriber."""

    def password_call(self) -> str:
        """Return a one-line description of the call in ``set_passwords``, quoted for a shell if it is a command."""

    def set_passwords(self, passwords: Sequence[tuple[str, str]]) -> dict[str, Outcome]:
        """Set the passwords of subscribers: pairs of address and password, at most ``batch`` of them.

        Return an outcome for each address: done, or rejected if the list manager does not know it.
        """


class ShellSteps(NamedTuple):
    """The steps of a generated script at the list manager: text for a POSIX shell, with everything quoted.

    A step may call ``limited COMMAND``, which ends a command that takes too long, and keep files in ``"$private"``. The
    names of its variables and files begin with ``step_``. It exits with 0 only if it succeeded.
    """

    roster: str  # prints addresses, one a line, as ``roster`` returns them
    add: str  # reads addresses, one a line, at least one
    remove: str  # likewise
    passwords: str | None = None  # reads lines of address, tab and password, at least one


@runtime_checkable
class HasShellSteps(Protocol):
    """Implemented by list managers that commands on their own host can drive, without the portal."""

    def shell_steps(self) -> ShellSteps:
        """Return the commands for the list, as shell text."""
