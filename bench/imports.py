"""An import of new members, then of the same file again, and how long a concurrent save waits.

``python bench/imports.py --validate FILE`` and ``--read FILE`` are what it is compared with.
"""

import csv
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

from measure import Cost, cost_of, print_message
from members import ROOT, Instance

MEMBERS = 100_000
_PAUSE = 0.05  # seconds between two saves
_COLUMNS = ("number", "username", "email", "name", "groups")
_IMPORT = (sys.executable, "-m", "flask", "user", "import", "--key", "number")


def compare(folder: Path, *, rounds: int, count: int = MEMBERS) -> dict[str, float]:
    """Return the medians of a ratio, seconds of processor time, milliseconds of waiting, and megabytes."""
    print_message("  imports of members")
    folder.mkdir()
    file = folder / "members.csv"
    _write(file, count)
    found: dict[str, list[float]] = {"new": [], "again": [], "wait": [], "peak": []}
    for number in range(rounds):
        instance = _empty(folder / f"round{number}")
        compared = {name: _ours(instance, f"--{name}", file) for name in ("validate", "read")}
        with _Saver(instance.database) as saver:
            new = cost_of([*_IMPORT, file], env=instance.env)
        again = cost_of([*_IMPORT, file], env=instance.env)
        found["new"].append(new.cpu / compared["validate"].cpu)
        found["again"].append(again.cpu - compared["read"].cpu)
        found["wait"].append(1000 * saver.longest)
        found["peak"].append(max(new.peak, again.peak))
    return {name: median(each) for name, each in found.items()}


def _write(file: Path, count: int) -> None:
    with file.open("w", newline="") as sink:
        rows = csv.writer(sink)
        rows.writerow(_COLUMNS)
        for n in range(count):
            mailbox = f"Member.{n * 2654435761 % 4294967296:08x}@example{n % 1000}.org"
            rows.writerow([n, f"member{n}", mailbox, f"Member No {n}", "full" if n % 3 else "associate"])


def _empty(folder: Path) -> Instance:
    instance = Instance(folder, 0)
    folder.mkdir()
    (folder / "mailinglists.toml").write_text("enabled = false\n")
    upgrade = [sys.executable, "-m", "flask", "db", "upgrade"]
    subprocess.run(upgrade, env=instance.env, cwd=ROOT, check=True, capture_output=True)
    return instance


def _ours(instance: Instance, task: str, file: Path) -> Cost:
    return cost_of([sys.executable, __file__, task, file], env=instance.env)


class _Saver:
    """A user who saves again and again, with the longest wait."""

    def __init__(self, database: Path) -> None:
        self.database, self.longest = database, 0.0
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._save)

    def __enter__(self) -> "_Saver":
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._is_over.set()
        self._thread.join()

    def _save(self) -> None:
        with closing(sqlite3.connect(self.database, timeout=30, isolation_level=None)) as connection:
            while not self._is_over.wait(_PAUSE):
                began = time.perf_counter()
                connection.execute("BEGIN IMMEDIATE")
                connection.execute("COMMIT")
                self.longest = max(self.longest, time.perf_counter() - began)


def _validate(file: Path) -> None:
    from portal.services.accounts.addresses import checked

    with file.open(newline="") as source:
        for row in csv.DictReader(source):
            checked(row["email"])


def _read(file: Path) -> None:
    from portal.domain.membership_file import read_members, standard_columns

    content = file.read_bytes()
    read_members(content, standard_columns(content, key="number"))


if __name__ == "__main__":
    {"--validate": _validate, "--read": _read}[sys.argv[1]](Path(sys.argv[2]))
