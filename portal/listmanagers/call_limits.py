"""How many addresses one call takes, how long it may take and how much it may say: settings that most kinds share."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_OUTPUT = 64 * 1024 * 1024  # bytes, of stdout and of stderr each, or of one answer


class Pace(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings. Times are in seconds, ``max_output`` in bytes; a kind changes the defaults."""

    timeout: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    timeout_per_address: Annotated[float, Meta(ge=0, le=60)] = 0.2
    batch: Annotated[int, Meta(ge=1)] = 500
    max_output: Annotated[int, Meta(ge=1024)] = MAX_OUTPUT


class Paced:
    """A list whose settings hold its pace."""

    __slots__ = ()
    settings: Pace

    @property
    def batch(self) -> int:
        """The most addresses for one call."""
        return self.settings.batch

    def timeout(self, count: int) -> float:
        """Return the seconds after which a call with that many addresses gives up."""
        return self.settings.timeout + count * self.settings.timeout_per_address
