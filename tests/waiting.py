"""Wait until something has happened: the one place where a test sleeps."""

import time
from collections.abc import Callable


def wait_until(has_happened: Callable[[], object], *, seconds: float = 60) -> None:
    """Return as soon as a condition holds; fail where it does not within the time."""
    deadline = time.monotonic() + seconds
    while not has_happened():
        assert time.monotonic() < deadline, f"it has not happened within {seconds:g} seconds"
        time.sleep(0.02)
