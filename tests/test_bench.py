"""The benchmarks run with few members and return figures."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]

# Bar 3 needs the sqlite3 program, which not every machine has.
BARS = "3,6,13,14" if shutil.which("sqlite3") else "6,13,14"


def test_the_benchmarks_give_figures(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "performance.md").read_text()
    done = subprocess.run(
        [sys.executable, ROOT / "bench" / "run.py", "--users=200", "--rounds=1", "--only", BARS, "--results", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    rows = [line.strip("| ").split(" | ") for line in done.stdout.splitlines() if line.startswith("|")]
    assert rows[0] == ["bar", "what", "limit", "aim", "200", "met"]
    assert [row[0] for row in rows[2:]] == BARS.split(",")
    (results,) = tmp_path.glob("*.json")
    inside = json.loads(results.read_text())["inside"]["200"]
    assert inside["second"] == {"rows": 0}
    assert [name for name, _ in inside["calls"]["nothing"]] == ["roster"]
    assert (ROOT / "docs" / "performance.md").read_text() == page  # written by a whole run alone
