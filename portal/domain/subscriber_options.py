"""How a subscriber gets the mail of a list, where that is not the list's default."""

from typing import NamedTuple


class SubscriberOptions(NamedTuple):
    """Options of one subscriber.

    ``words`` are understood by the list manager that they were read from, and by no other. ``is_mail_off``: the
    subscriber or an administrator had switched mail off; never because mail to the address bounced.
    """

    words: str
    is_mail_off: bool = False
