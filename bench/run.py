"""The benchmarks: ``make bench``, or ``python bench/run.py --users 10000,100000 --rounds 3 --only 1,3``.

Only ratios of competitors that alternate in one run are meaningful. If all bars were run at the usual sizes, the table
is written to docs/performance.md. All figures are written to bench/results/.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import imports
import members
import report
import rest
import server
import theirs
import web
from bars import BARS, Bar, Measured
from measure import Cost, alternate, cost_of, print_message
from members import ROOT, Instance

USERS = (10_000, 100_000, 1_000_000)
ROUNDS = 5
_OFTEN = 3  # times the rounds where they are quick
_QUICK = 100_000
_LISTS = {100_000: 20, 1_000_000: 5}  # of an instance that has grown, by number of members
_FLASK = (sys.executable, "-m", "flask", "mailinglist")
_EXTENSIONS = (sys.executable, "-c", "import flask_sqlalchemy, flask_login, flask_wtf")
_BARE = (sys.executable, "-c", "import flask, sqlalchemy")
_YEARS = 5 * 365 * 24  # hourly runs of five years
_COUNTED = ("users", "user_groups", "addresses", "user_addresses", "preferences", "history", "runs", "run_lines")


def main() -> None:
    """Measure, print the table, and store the figures."""
    wanted = _arguments()
    bars = [each for each in BARS if not wanted.only or each.number in wanted.only]
    if any({"select", "import"}.intersection(each.tasks) for each in bars) and not shutil.which("sqlite3"):
        raise SystemExit("bars 1 and 3 compare with the sqlite3 program: apt-get install sqlite3")
    with tempfile.TemporaryDirectory(prefix="bench-", dir=wanted.folder) as folder:
        measured = _measure(Path(folder), bars, users=sorted(wanted.users), rounds=wanted.rounds)
    table = report.table(bars, measured)
    print(table)
    is_whole = len(bars) == len(BARS) and sorted(wanted.users) == list(USERS)
    report.keep(measured, table, into=wanted.results, page=ROOT / "docs" / "performance.md" if is_whole else None)


def _arguments() -> argparse.Namespace:
    def numbers(text: str) -> list[int]:
        return [int(part.replace("_", "")) for part in text.split(",")]

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--users", type=numbers, default=list(USERS), metavar="N,N", help="numbers of members")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="rounds; three times as many where they are quick")
    parser.add_argument("--only", type=numbers, default=[], metavar="BAR,BAR", help="numbers of bars")
    parser.add_argument("--folder", type=Path, help="where to make the databases, about 2 GB (a temporary folder)")
    parser.add_argument("--results", type=Path, default=ROOT / "bench" / "results", help="where to keep the figures")
    return parser.parse_args()


def _measure(folder: Path, bars: list[Bar], *, users: list[int], rounds: int) -> Measured:
    tasks = {task for bar in bars for task in bar.tasks}
    began = datetime.now(UTC)
    costs: dict[int, Any] = {}
    inside: dict[int, Any] = {}
    for count in users:
        instance = members.make(folder / "made", count)
        turns = _turns(instance, folder / "copy")
        if count == users[0] and {"select", "import"} & tasks:
            _require_the_same_work(instance, folder / "copy")
        often = rounds * (_OFTEN if count <= _QUICK else 1)
        costs[count] = alternate({name: turn for name, turn in turns.items() if name in tasks}, often)
        if any(name.startswith("server:") for name in tasks):
            costs[count] |= _on_server(instance, folder, rounds=rounds)
        inside[count] = _inside(instance, folder / "copy", tasks, rounds=often)
        if count == users[-1]:
            inside[count] |= _once(folder, tasks, rounds=rounds)
        if count in _LISTS:
            inside[count] |= _grown(instance, folder / "grown", tasks, rounds=rounds)
        shutil.rmtree(instance.folder)
        print_message(f"  {(datetime.now(UTC) - began).total_seconds():.0f} s so far")
    return Measured(costs, inside)


def _once(folder: Path, tasks: set[str], *, rounds: int) -> dict[str, Any]:
    """Return the figures that have a size of their own."""
    found: dict[str, Any] = {}
    if "rest" in tasks:
        found |= _by_rest(folder, rounds=rounds)
    if "superusers" in tasks:
        found["superusers"] = _asked(members.make_lists(folder / "lists"), "superusers", rounds)
    if "hour" in tasks:
        instance = members.make_lists(folder / "hour", lists=22)
        members.apply_at_once(instance)
        found["hour"] = _asked(instance, "hour", rounds)
    if "imports" in tasks:
        found["imports"] = imports.compare(folder / "imports", rounds=rounds)
    if "web" in tasks:
        found["web"] = web.compare(folder / "web", rounds=rounds)
    return found


def _grown(made: Instance, folder: Path, tasks: set[str], *, rounds: int) -> dict[str, Any]:
    """Return the figures of an instance that has more lists, and of one that has been running for five years."""
    found: dict[str, Any] = {}
    for name, hours in (("grown", 200), ("years", _YEARS)):
        if name not in tasks or (name == "years" and made.count > _QUICK):
            continue
        print_message(f"  {name}")
        instance = made.copy_to(folder)
        members.grow(instance, lists=_LISTS[made.count], hours=hours)
        found[name] = _asked(instance, "grown", rounds)
        if name == "grown":
            found["committee"] = _asked(instance, "committee", rounds)
    shutil.rmtree(folder, ignore_errors=True)
    return found


def _turns(made: Instance, scratch: Path) -> dict[str, Callable[[], Cost]]:
    """Return the competitors by name; those that write use a copy made before the measurement."""
    run = partial(cost_of, env=made.env)
    return {
        "extensions": lambda: run(_EXTENSIONS),
        "help": lambda: run([*_FLASK, "--help"]),
        "bare": lambda: run(_BARE),
        "minutely": lambda: run([sys.executable, "-m", "flask", "minutely"]),
        "first-sync": lambda: _first_sync(made.copy_to(scratch)),
        "init-and-sync": lambda: _init_and_sync(made.copy_to(scratch)),
        "get-subscribed": lambda: run([*_FLASK, "get-subscribed", "members"]),
        "select": lambda: run(["sqlite3", made.database, ".mode list", theirs.SELECT_SUBSCRIBED]),
        "get-unsubscribed": lambda: run([*_FLASK, "get-unsubscribed", "members"]),
        "sync": lambda: run([*_FLASK, "sync", "agreed"]),
        "list-init": lambda: _list_init(made.copy_to(scratch), "members"),
        "list-init-all": lambda: _list_init(made.copy_to(scratch), "news"),
        "import": lambda: _import(made.copy_to(scratch)),
    }


def _on_server(instance: Instance, folder: Path, *, rounds: int) -> dict[str, list[Cost]]:
    """Return the costs of the tasks on PostgreSQL; none if it is not installed."""
    with server.running(folder) as found:
        if found is None:
            return {}
        found.fill(instance)
        ours = [*_FLASK, "list-init", "news"]
        return alternate(
            {
                "server:list-init": lambda: found.list_init(instance, ours),
                "server:copy": lambda: found.copied(instance),
            },
            rounds,
        )


def _list_init(instance: Instance, handle: str) -> Cost:
    return cost_of([*_FLASK, "list-init", handle], env=instance.env, stdin=instance.roster)


def _first_sync(instance: Instance) -> Cost:
    shutil.copy(instance.roster, instance.roster.with_name("news.txt"))
    return cost_of([*_FLASK, "sync", "news"], env=instance.env)


def _init_and_sync(instance: Instance) -> Cost:
    of_both = _list_init(instance, "news"), _first_sync(instance)
    return Cost(
        sum(each.wall for each in of_both), sum(each.cpu for each in of_both), max(each.peak for each in of_both)
    )


def _import(instance: Instance) -> Cost:
    script = instance.folder / "import.sql"
    script.write_text(theirs.list_init(instance.roster))
    return cost_of(["sqlite3", "-bail", instance.database], env=instance.env, stdin=script)


def _require_the_same_work(made: Instance, scratch: Path) -> None:
    """Check that both competitors print and write the same. Raise RuntimeError."""
    ours, theirs_ = scratch.with_name("ours"), scratch.with_name("theirs")
    cost_of([*_FLASK, "get-subscribed", "members"], env=made.env, stdout=ours)
    cost_of(["sqlite3", made.database, ".mode list", theirs.SELECT_SUBSCRIBED], env=made.env, stdout=theirs_)
    if ours.read_bytes() != theirs_.read_bytes() or not ours.stat().st_size:
        raise RuntimeError("get-subscribed and its competitor do not print the same")
    for output, write in ((ours, lambda copy: _list_init(copy, "news")), (theirs_, _import)):
        copy = made.copy_to(scratch)
        write(copy)
        cost_of(["sqlite3", copy.database, theirs.MADE], env=made.env, stdout=output)
    if ours.read_bytes() != theirs_.read_bytes() or not ours.stat().st_size:
        raise RuntimeError("list-init and its competitor do not write the same")


def _inside(made: Instance, scratch: Path, tasks: set[str], *, rounds: int) -> dict[str, Any]:
    """Return the figures that a child's cost does not show."""
    found: dict[str, Any] = {}
    for name in ("page", "calls", "sync"):
        if f"inside:{name}" in tasks:
            print_message(f"  {name}")
            copy = made.copy_to(scratch)
            found[name] = _asked(copy, name, rounds)
    if "inside:second" in tasks:
        print_message("  a second list-init")
        found["second"] = {"rows": _rows_written_twice(made.copy_to(scratch))}
    return found


def _by_rest(folder: Path, *, rounds: int) -> dict[str, Any]:
    """Return the cost of a sync with Mailman 3 for a list of one length; none without Mailman 3."""
    instance = members.make(folder / "listed", rest.MEMBERS)
    (folder / "mailman").mkdir()
    with rest.running(folder / "mailman", instance) as is_there:
        return {"rest": _asked(instance, "rest", rounds)} if is_there else {}


def _asked(instance: Instance, name: str, rounds: int) -> Any:
    command = [sys.executable, str(Path(__file__).with_name("inside.py")), name, str(rounds)]
    done = subprocess.run(command, env=instance.env, check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def _rows_written_twice(instance: Instance) -> int:
    """Return how many rows a second list-init writes, except the lease, counted by triggers."""
    _list_init(instance, "news")
    with closing(theirs.connect(instance.database)) as connection:
        connection.executescript(theirs.counting(_COUNTED))
    _list_init(instance, "news")
    with closing(theirs.connect(instance.database)) as connection:
        (written,) = connection.execute("SELECT count(*) FROM written").fetchone()
    return int(written)


if __name__ == "__main__":
    main()
