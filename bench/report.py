"""The results of a run, as a table for people and as JSON."""

import json
import os
import platform
import sqlite3
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

from bars import Bar, Measured

_BEGIN, _END = "<!-- measured: begin, written by bench/run.py -->", "<!-- measured: end -->"


def table(bars: Iterable[Bar], measured: Measured) -> str:
    """Return a Markdown table: the bars, and what was measured at each size; the largest counts."""
    sizes = measured.sizes
    heads = ["bar", "what", "limit", "aim", *(f"{each:,}" for each in sizes), "met"]
    lines = [heads, ["---:", "---", "---:", "---:", *["---:"] * len(sizes), "---"]]
    for bar in bars:
        figures = [bar.figure(measured, each) for each in sizes]
        lines.append([
            str(bar.number), bar.what, f"≤ {_figure_text(bar, bar.limit)}",
            "" if bar.aim is None else f"≤ {_figure_text(bar, bar.aim)}",
            *(_figure_text(bar, each) for each in figures), _whether_met(bar, figures),
        ])  # fmt: skip
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + f"\n\n{_machine()}\n"


def _figure_text(bar: Bar, figure: float | None) -> str:
    if figure is None:
        return ""
    if bar.unit == "times":
        return f"{figure:.2f}"
    if bar.unit == "s":
        return f"{figure:.3f} s"
    return f"{figure:.0f} {bar.unit}".strip()


def _whether_met(bar: Bar, figures: Iterable[float | None]) -> str:
    """Return whether the bar is met at every size."""
    measured = [each for each in figures if each is not None]
    if not measured:
        return ""
    if max(measured) > bar.limit:
        return "**no**"
    return "yes" if bar.aim is None or max(measured) > bar.aim else "yes, and the aim"


def _machine() -> str:
    try:
        info = Path("/proc/cpuinfo").read_text()
        names = {line.partition(": ")[2] for line in info.splitlines() if line.startswith("model name")}
    except OSError:
        names = set()
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores ({', '.join(sorted(names)) or platform.machine()}), "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}."
    )


def keep(measured: Measured, table: str, *, into: Path, page: Path | None) -> None:
    """Write all figures as JSON, and the table between the two marks of a page."""
    into.mkdir(parents=True, exist_ok=True)
    costs = {
        count: {task: [each._asdict() for each in turns] for task, turns in tasks.items()}
        for count, tasks in measured.costs.items()
    }
    figures = {"machine": _machine(), "costs": costs, "inside": measured.inside}
    (into / f"{datetime.now(UTC):%Y%m%dT%H%M%S}.json").write_text(json.dumps(figures, indent=1))
    if page is not None:
        text = page.read_text()
        before, after = text[: text.index(_BEGIN)], text[text.index(_END) :]
        page.write_text(f"{before}{_BEGIN}\n\n{table}\n{after}")
