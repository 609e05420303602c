"""The errors that services, adapters and the configuration raise on purpose.

``portal.faults`` maps each to an HTTP status and an exit code.
"""

from collections.abc import Sequence


class PortalError(Exception):
    """An error whose message says in one line what is wrong, where, and what to do.

    ``words`` may contain ``%(name)s`` for each of ``values``, so that a page can translate it.
    """

    def __init__(self, words: str = "", /, **values: object) -> None:
        super().__init__(words % values if values else words)
        self.words, self.values = words, values


class BadInputError(PortalError):
    """Input that cannot be accepted as it is."""


class InvalidAddressError(BadInputError):
    """A text that is not an e-mail address."""


class NoAddressesError(BadInputError):
    """Roster input without a single address, as a broken pipe gives."""


class UnreadableRosterError(BadInputError):
    """Roster input with lines that are not addresses; the message reports the first of them."""


class UnknownUserError(BadInputError):
    """No account has that name."""


class DuplicateError(BadInputError):
    """A name that is already taken."""


class SharedMailboxError(DuplicateError):
    """An address that another account uses; ``holders`` are the usernames of all such accounts."""

    def __init__(self, spelling: str, holders: Sequence[str]) -> None:
        super().__init__(
            "%(spelling)s is already used by %(names)s; if they share it, it stays on its lists",
            spelling=spelling,
            names=", ".join(holders),
        )
        self.holders = tuple(holders)


class NotOfferedError(BadInputError):
    """The user may not see the list, or is inactive."""


class WeakPasswordError(BadInputError):
    """A new password that is too short, too long or too common."""


class WrongPasswordError(BadInputError):
    """The current password, required before a change, does not match."""


class NoPlannedRunError(BadInputError):
    """The list has no open planned run to print or confirm."""


class UnknownRunError(BadInputError):
    """No run has that number."""


class StaleFormError(BadInputError):
    """The signed state in a form was altered or belongs to another user."""


class ChangedMeanwhileError(BadInputError):
    """The change would no longer do what its preview showed."""


class LogInFailedError(PortalError):
    """A failed log-in: unknown, inactive and wrong password give the same message."""


class LinkRefusedError(PortalError):
    """A mailed link that is used, expired, unknown or no longer allowed for its account: one message for all."""


class KeyRefusedError(PortalError):
    """An API call without a key, or with one that is unknown, expired or revoked."""


class RateLimitedError(PortalError):
    """Too many attempts; ``retry_after`` is in seconds."""

    def __init__(self, message: str, *, retry_after: int, **values: object) -> None:
        super().__init__(message, **values)
        self.retry_after = retry_after


class ForbiddenError(PortalError):
    """The account is not allowed to do that."""


class UnavailableError(PortalError):
    """Something outside the portal failed."""


class ListManagerUnavailableError(UnavailableError):
    """The list manager failed, timed out, or gave an unreadable answer."""


class CallFailedError(ListManagerUnavailableError):
    """A call to the list manager failed, possibly because of one of its addresses.

    ``words`` is the list manager's message, as one line.
    """

    def __init__(self, message: str, *, words: str) -> None:
        super().__init__(message)
        self.words = words


class NoSuchListError(UnavailableError):
    """The list manager works, but has no list of that name."""


class MailUnavailableError(UnavailableError):
    """The mail server cannot be reached, or accepts no mail from the portal.

    ``may_have_arrived``: it had received the whole letter, but its answer was lost.
    """

    def __init__(self, message: str, *, may_have_arrived: bool = False) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class MailDeferredError(UnavailableError):
    """The mail server does not accept mail to this mailbox now, but may later."""


class MailRefusedError(UnavailableError):
    """The mail server permanently refuses this letter to this mailbox."""


class DatabaseUnavailableError(UnavailableError):
    """The database cannot be reached or is locked."""


class RosterInDoubtError(UnavailableError):
    """A roster that is empty although it should not be; ``plan_id`` names the plan that would follow from it."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class LeaseHeldError(PortalError):
    """Another run holds the list."""


class PausedError(PortalError):
    """The list is paused: nothing is read or pushed until an operator changes that."""


class SafetyLimitError(PortalError):
    """The plan exceeds the safety limits; ``plan_id`` names it."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class PlanChangedError(PortalError):
    """The plan is no longer the one that was approved; ``plan_id`` names the new plan."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class ConfigurationError(PortalError):
    """A setting, a file or a database that an operator must fix."""


class DisabledError(ConfigurationError):
    """The facility is not enabled in ``mailinglists.toml``."""


class UnknownListError(ConfigurationError):
    """The catalogue has no list with that handle."""


class NotMigratedError(ConfigurationError):
    """The database has no tables, or outdated ones."""
