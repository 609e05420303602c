"""Waiting for a condition: the only place where a test sleeps."""

import time
from collections.abc import Callable
from pathlib import Path


def wait_until(has_happened: Callable[[], object], *, seconds: float = 60) -> None:
    """Return as soon as a condition holds; fail if it does not within the time."""
    deadline = time.monotonic() + seconds
    while not has_happened():
        assert time.monotonic() < deadline, f"it has not happened within {seconds:g} seconds"
        time.sleep(0.02)


def is_gone(pid: int) -> bool:
    """Return True if a process has ended, including one that its parent has not waited for."""
    state = Path(f"/proc/{pid}/stat")
    return not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z"
