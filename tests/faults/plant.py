"""Plant one fault at a time in a copy of the sources and run the nearest tests, which must fail: `make faults`.

A fault that no near test notices is a rule, a guard or a limit that nothing holds. Names of faults, or parts of them,
choose some: `make faults ARGS='lease merge'`.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from tests.faults.faults import FAULTS, Fault  # noqa: E402 - the script may be started from anywhere

LONGEST = 300  # seconds that the tests of one fault may take
TESTS_FAILED = 1  # pytest's exit code


class Trial(NamedTuple):
    """What became of one fault."""

    fault: Fault
    result: str  # caught, survived, stale (its text is not in the file, or not once) or broken (no test ran)
    seconds: float


def main(words: Sequence[str]) -> int:
    """Try the faults whose names hold one of the words, or all; return the exit code."""
    chosen = [each for each in FAULTS if not words or any(word in each.name for word in words)]
    if not chosen:
        print("no fault has such a name", file=sys.stderr)
        return 2
    results = []
    for each in _trials(chosen):
        results.append(each)
        print(f"{each.result:8}  {each.seconds:5.1f} s  {each.fault.name}", flush=True)
    bad = [each for each in results if each.result != "caught"]
    print(f"{len(results) - len(bad)} passed, {len(bad)} failed")
    return 1 if bad else 0


def _trials(faults: Sequence[Fault]) -> Iterator[Trial]:
    workers = min(os.cpu_count() or 1, len(faults))
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch, ThreadPoolExecutor(workers) as pool:
        copies: Queue[Path] = Queue()
        for number in range(workers):
            copies.put(_copy(Path(scratch) / str(number)))
        yield from pool.map(lambda each: _try(each, copies), faults)


def _copy(place: Path) -> Path:
    """Copy what git tracks, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in filter(None, listed.decode().split("\0")):
        source = ROOT / name
        if source.is_file():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, place / name)
    return place


def _try(fault: Fault, copies: "Queue[Path]") -> Trial:
    started = time.monotonic()
    copy = copies.get()
    file = copy / fault.file
    text = file.read_text(encoding="utf-8")
    try:
        if text.count(fault.old) != 1:
            return Trial(fault, "stale", 0)
        file.write_text(text.replace(fault.old, fault.new), encoding="utf-8")
        return Trial(fault, _judged(copy, fault), time.monotonic() - started)
    finally:
        file.write_text(text, encoding="utf-8")
        copies.put(copy)


def _judged(copy: Path, fault: Fault) -> str:
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", *fault.tests]
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            command, cwd=copy, env=environ, capture_output=True, text=True, timeout=LONGEST, check=False
        )
    except subprocess.TimeoutExpired:
        return "caught"  # a fault may make something wait for ever
    if done.returncode == 0:
        return "survived"
    if done.returncode != TESTS_FAILED or "error during collection" in done.stdout:
        print(done.stdout[-2000:], file=sys.stderr)
        return "broken"
    return "caught"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
