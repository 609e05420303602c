"""Limits of a call that most kinds share: its addresses, its time and its output."""

from typing import Annotated

from msgspec import Meta, Struct

MAX_OUTPUT = 64 * 1024 * 1024  # bytes of stdout, of stderr, or of a response


class CallLimits(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The settings. Times are in seconds, ``max_output`` in bytes; kinds may change the defaults."""

    timeout: Annotated[float, Meta(gt=0, le=3600)] = 60.0
    timeout_per_address: Annotated[float, Meta(ge=0, le=60)] = 0.2
    batch: Annotated[int, Meta(ge=1)] = 500
    max_output: Annotated[int, Meta(ge=1024)] = MAX_OUTPUT


class HasCallLimits:
    """A list whose settings contain call limits."""

    __slots__ = ()
    settings: CallLimits

    @property
    def batch(self) -> int:
        """The maximum number of addresses in one call."""
        return self.settings.batch

    def timeout(self, count: int) -> float:
        """Return the timeout in seconds of a call with ``count`` addresses."""
        return self.settings.timeout + count * self.settings.timeout_per_address
