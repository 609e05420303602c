"""The vocabulary of refusal: every error that a service, an adapter or the configuration raises on purpose.

What each means to a browser, to the API and to a shell stands in one table, in ``portal.faults``.
"""

from collections.abc import Sequence


class PortalError(Exception):
    """Say what is wrong, where, and what to do, in one line.

    ``words`` may have ``%(name)s`` for each of ``values``, so that a page can say it in another language.
    """

    def __init__(self, words: str = "", /, **values: object) -> None:
        super().__init__(words % values if values else words)
        self.words, self.values = words, values


class BadInputError(PortalError):
    """Input that cannot be accepted as it is."""


class InvalidAddressError(BadInputError):
    """A text that is no e-mail address."""


class NoAddressesError(BadInputError):
    """Roster input without a single address, which a broken pipe looks like."""


class UnreadableRosterError(BadInputError):
    """Roster input with lines that are not addresses; the message reports the first of them."""


class UnknownUserError(BadInputError):
    """No account has that name."""


class DuplicateError(BadInputError):
    """A name that somebody has already."""


class SharedMailboxError(DuplicateError):
    """Another account uses an address that is to be taken; ``holders`` are the usernames of all that do."""

    def __init__(self, spelling: str, holders: Sequence[str]) -> None:
        super().__init__(
            "%(spelling)s is used by %(names)s, and stays on the lists that it is on",
            spelling=spelling,
            names=", ".join(holders),
        )
        self.holders = tuple(holders)


class NotOfferedError(BadInputError):
    """The user may not see the list, or is inactive."""


class WeakPasswordError(BadInputError):
    """A new password that is too short, too long or too well known."""


class WrongPasswordError(BadInputError):
    """The current password, asked for before a change, does not match."""


class NoPlannedRunError(BadInputError):
    """There is no open planned run for the list to print or to end."""


class UnknownRunError(BadInputError):
    """No run has that number."""


class StaleFormError(BadInputError):
    """The signed state in a form was altered, or belongs to somebody else."""


class ChangedMeanwhileError(BadInputError):
    """What was looked at before it is done is no longer what would be done."""


class LogInFailedError(PortalError):
    """Unknown, inactive and wrong are one answer."""


class LinkRefusedError(PortalError):
    """A mailed link that is used, expired or unknown, or whose account may not use it any more: one answer."""


class KeyRefusedError(PortalError):
    """A call of the API without a key, or with one that is unknown, expired or revoked."""


class LimitedError(PortalError):
    """Too many tries; ``retry_after`` says for how many seconds."""

    def __init__(self, message: str, *, retry_after: int, **values: object) -> None:
        super().__init__(message, **values)
        self.retry_after = retry_after


class ForbiddenError(PortalError):
    """The account may not do that."""


class UnavailableError(PortalError):
    """Something outside the portal did not do its part."""


class ListManagerUnavailableError(UnavailableError):
    """The list manager failed, timed out, or answered something that cannot be read."""


class CallFailedError(ListManagerUnavailableError):
    """The list manager failed at a call, which one of the addresses of that call may have caused.

    ``words`` are its own, as one line.
    """

    def __init__(self, message: str, *, words: str) -> None:
        super().__init__(message)
        self.words = words


class NoSuchListError(UnavailableError):
    """The list manager answers, but has no list of that name."""


class MailUnavailableError(UnavailableError):
    """The mail server cannot be used, or takes no mail from the portal.

    ``may_have_arrived``: it had the whole letter, and its answer was lost.
    """

    def __init__(self, message: str, *, may_have_arrived: bool = False) -> None:
        super().__init__(message)
        self.may_have_arrived = may_have_arrived


class MailPutOffError(UnavailableError):
    """The mail server takes a letter to this mailbox later, but not now."""


class MailRefusedError(UnavailableError):
    """The mail server will never take this letter to this mailbox."""


class DatabaseUnavailableError(UnavailableError):
    """The database cannot be reached or is locked."""


class RosterInDoubtError(UnavailableError):
    """A roster that is empty where it should not be; ``plan_id`` names the plan that would follow from it."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class LeaseHeldError(PortalError):
    """Another run holds the list."""


class PausedError(PortalError):
    """The list is paused: nothing is read or pushed until an operator says otherwise."""


class SafetyLimitError(PortalError):
    """The plan exceeds the safety limits; ``plan_id`` names it."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class PlanChangedError(PortalError):
    """The plan is not any more the one that was looked at and approved; ``plan_id`` names what it is now."""

    def __init__(self, message: str, *, plan_id: str) -> None:
        super().__init__(message)
        self.plan_id = plan_id


class ConfigurationError(PortalError):
    """A setting, a file or a database that must be put right by an operator."""


class DisabledError(ConfigurationError):
    """The facility is not enabled in ``mailinglists.toml``."""


class UnknownListError(ConfigurationError):
    """The catalogue has no list of that handle."""


class NotMigratedError(ConfigurationError):
    """The database has no tables, or old ones."""
