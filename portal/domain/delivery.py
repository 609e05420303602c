"""How a list delivers its mail to a subscriber, where that is not each message by itself."""

from datetime import datetime
from enum import StrEnum
from typing import NamedTuple


class MailOff(StrEnum):
    """Why a subscriber gets no mail of a list."""

    CHOSEN = "chosen"  # by the subscriber or by an administrator
    BOUNCES = "bounces"  # too much mail to the address came back


class Delivery(NamedTuple):
    """What the list manager says of one subscriber; ``since`` is when mail was switched off, where it says so."""

    is_digest: bool = False
    mail_off: MailOff | None = None
    since: datetime | None = None

    @property
    def is_usual(self) -> bool:
        """Tell whether there is nothing to say."""
        return not self.is_digest and self.mail_off is None
