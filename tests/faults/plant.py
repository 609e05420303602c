"""Plant one fault at a time in a copy of the sources and run the nearest tests, which must fail: `make faults`.

A fault that no near test notices shows a rule, a guard or a limit without a test. Arguments select faults by parts of
their names: `make faults ARGS='lease merge'`.
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
PASSED, TESTS_FAILED = 0, 1  # pytest's exit codes
# Of all that is installed beside pytest only what the tests need: to load the rest takes longer than most faults.
PYTEST = [
    *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "pytest_socket"),
    *("-p", "_hypothesis_pytestplugin", "--hypothesis-profile=faults"),
]


class Trial(NamedTuple):
    """The result of one fault."""

    fault: Fault
    result: str  # caught, survived, stale (its text is not in the file, or not once) or broken (no test ran)
    seconds: float


def main(words: Sequence[str]) -> int:
    """Try the faults whose names hold one of the words, or all; return the exit code."""
    chosen = [each for each in FAULTS if not words or any(word in each.name for word in words)]
    if not chosen:
        print("no fault has such a name", file=sys.stderr)
        return 2
    workers = min(os.cpu_count() or 1, len(chosen))
    with tempfile.TemporaryDirectory(prefix="faults-") as scratch:
        copies = [_copy(Path(scratch) / str(number)) for number in range(workers)]
        caught = sum(each.result == "caught" for each in _trials(chosen, copies))
    print(f"{caught} passed, {len(chosen) - caught} failed")
    return 0 if caught == len(chosen) else 1


def _trials(faults: Sequence[Fault], copies: Sequence[Path]) -> Iterator[Trial]:
    """Yield the result of each fault, but none for tests that fail without a fault."""
    tests = sorted({test for fault in faults for test in fault.tests})
    done = _run(copies[0], ["-p", "xdist.plugin", "-n", str(len(copies)), *tests], timeout=None)
    if done.returncode != PASSED:
        print(f"{done.stdout[-4000:]}\nThe tests fail without a fault.", file=sys.stderr)
        return
    free: Queue[Path] = Queue()
    for each in copies:
        free.put(each)
    with ThreadPoolExecutor(len(copies)) as pool:
        for trial in pool.map(lambda fault: _try(fault, free), faults):
            print(f"{trial.result:8}  {trial.seconds:5.1f} s  {trial.fault.name}", flush=True)
            yield trial


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
    try:
        done = _run(copy, ["-x", *fault.tests])
    except subprocess.TimeoutExpired:
        return "caught"  # a fault may make something wait for ever
    if done.returncode == PASSED:
        return "survived"
    if done.returncode != TESTS_FAILED or "error during collection" in done.stdout:
        print(done.stdout[-2000:], file=sys.stderr)
        return "broken"
    return "caught"


def _run(
    copy: Path, arguments: Sequence[str], *, timeout: float | None = LONGEST
) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    environ.pop("PORTAL_TEST_DATABASE_URI", None)  # tests that run at a time would meet there
    return subprocess.run(
        [*PYTEST, *arguments], cwd=copy, env=environ, capture_output=True, text=True, timeout=timeout, check=False
    )


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
