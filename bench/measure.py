"""The cost of a child process, and medians over rounds in which competitors alternate.

This process stays small: on Linux a child's peak memory is at least its parent's when it was started.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple


class Cost(NamedTuple):
    """Elapsed seconds, seconds of processor time (user and system), and peak resident memory in MB."""

    wall: float
    cpu: float
    peak: float


def cost_of(
    command: Sequence[str | Path], *, env: Mapping[str, str], stdin: Path | None = None, stdout: Path | None = None
) -> Cost:
    """Run a command, with its output to a file or discarded. Raise CalledProcessError if it fails."""
    with Path(stdin or os.devnull).open("rb") as source, Path(stdout or os.devnull).open("wb") as sink:
        began = os.times().elapsed
        child = subprocess.Popen([str(each) for each in command], env=env, stdin=source, stdout=sink)
        _, status, usage = os.wait4(child.pid, 0)
        wall = os.times().elapsed - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode:
        raise subprocess.CalledProcessError(child.returncode, child.args)
    return Cost(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def alternate(tasks: Mapping[str, Callable[[], Cost]], rounds: int) -> dict[str, list[Cost]]:
    """Run every task once in each round, in a rotating order; return the costs."""
    costs: dict[str, list[Cost]] = {name: [] for name in tasks}
    names = list(tasks)
    for number in range(rounds if names else 0):
        print_message(f"  round {number + 1} of {rounds}")
        first = number % len(names)
        for name in names[first:] + names[:first]:
            costs[name].append(tasks[name]())
    return costs


def middle(costs: Sequence[Cost]) -> Cost:
    """Return the median of each figure."""
    return Cost(*(median(each) for each in zip(*costs, strict=True)))


def print_message(text: str) -> None:
    """Report progress on stderr."""
    print(text, file=sys.stderr, flush=True)
