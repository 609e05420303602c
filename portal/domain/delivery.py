"""How a list delivers its mail to a subscriber, if not message by message."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class MailOff(StrEnum):
    """Why a subscriber gets no mail of a list."""

    CHOSEN = "chosen"  # by the subscriber or by an administrator
    BOUNCES = "bounces"  # too much mail to the address bounced


class Delivery(NamedTuple):
    """The delivery to one subscriber, as the list manager reports it.

    ``since`` is when mail was switched off, if the list manager reports that.
    """

    is_digest: bool = False
    mail_off: MailOff | None = None
    since: datetime | None = None

    @property
    def is_usual(self) -> bool:
        """Whether the subscriber gets every message, one by one."""
        return not self.is_digest and self.mail_off is None
