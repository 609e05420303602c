"""Wait until something has happened: the one place where a test sleeps."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(has_happened: Callable[[], object], *, seconds: float = 60) -> None:
    """Return as soon as a condition holds; fail where it does not within the time."""
    deadline = time.monotonic() + seconds
    while not has_happened():
        assert time.monotonic() < deadline, f"it has not happened within {seconds:g} seconds"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Return True if a process has ended; one of which nobody has asked what became of it has."""
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
