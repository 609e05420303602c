"""The bars: which tasks are compared, and the minimum speed of each."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from measure import Cost, middle

Costs = Mapping[int, Mapping[str, Sequence[Cost]]]  # by number of members and task
Inside = Mapping[int, Mapping[str, Any]]


class Measured(NamedTuple):
    """The measurements of a run."""

    costs: Costs
    inside: Inside

    @property
    def sizes(self) -> list[int]:
        """The numbers of members, ascending."""
        return sorted(self.costs)

    def cost(self, count: int, task: str) -> Cost:
        """Return the median cost of a task."""
        return middle(self.costs[count][task])


class Bar(NamedTuple):
    """A line of the table. ``figure`` returns the figure at one size, or None if there is none."""

    number: int
    what: str
    limit: float
    aim: float | None
    unit: str
    tasks: tuple[str, ...]
    figure: Callable[[Measured, int], float | None]


_SMALL = 10_000  # up to this many members
_FIXED = 0.1  # seconds of processor time allowed besides a ratio of small numbers


def _export_overhead(measured: Measured, count: int) -> float:
    ours = measured.cost(count, "get-subscribed").cpu - measured.cost(count, "help").cpu
    return max(ours - _allowed(count), 0) / measured.cost(count, "select").cpu


def _allowed(count: int) -> float:
    return _FIXED if count <= _SMALL else 0.0


def _memory(task: str) -> Callable[[Measured, int], float | None]:
    def figure(measured: Measured, count: int) -> float | None:
        if count == measured.sizes[0]:
            return None
        return measured.cost(count, task).peak - measured.cost(measured.sizes[0], task).peak

    return figure


def _ratio(ours: str, theirs: str, *, is_start: bool = False) -> Callable[[Measured, int], float]:
    """Compare processor time; a start costs the same at any size."""

    def figure(measured: Measured, count: int) -> float:
        spent = measured.cost(count, ours).cpu - (0.0 if is_start else _allowed(count))
        return spent / measured.cost(count, theirs).cpu

    return figure


def _ratio_by_the_clock(ours: str, theirs: str) -> Callable[[Measured, int], float | None]:
    """Compare work that a separate server does for both. There is no figure without a server."""

    def figure(measured: Measured, count: int) -> float | None:
        if not {ours, theirs}.issubset(measured.costs[count]):
            return None
        return measured.cost(count, ours).wall / measured.cost(count, theirs).wall

    return figure


def _growth(task: str) -> Callable[[Measured, int], float | None]:
    def net(measured: Measured, count: int) -> float:
        return measured.cost(count, task).cpu - measured.cost(count, "help").cpu

    def figure(measured: Measured, count: int) -> float | None:
        """Return the cost of ten times the members, relative to fewer; below that the rest is noise."""
        smaller = measured.sizes[-2] if len(measured.sizes) > 1 else None
        if smaller is None or count != measured.sizes[-1]:
            return None
        return net(measured, count) / net(measured, smaller)

    return figure


def _inside(task: str, name: str) -> Callable[[Measured, int], float]:
    return lambda measured, count: float(measured.inside[count][task][name])


def _found(task: str, name: str) -> Callable[[Measured, int], float | None]:
    """Return a figure that some sizes have."""

    def figure(measured: Measured, count: int) -> float | None:
        value = measured.inside[count].get(task, {}).get(name)
        return None if value is None else float(value)

    return figure


def _page_at(lists: int) -> Callable[[Measured, int], float | None]:
    def figure(measured: Measured, count: int) -> float | None:
        spent = measured.inside[count].get("web", {}).get(str(lists))
        return None if spent is None else float(spent["page"] / spent["hello"])

    return figure


def _at(size: int, of: Callable[[Measured, int], float | None]) -> Callable[[Measured, int], float | None]:
    return lambda measured, count: of(measured, count) if count == size else None


def _years_of_runs(measured: Measured, count: int) -> float | None:
    inside = measured.inside[count]
    return inside["years"]["home"] / inside["grown"]["home"] if {"years", "grown"} <= inside.keys() else None


def _peak(measured: Measured, count: int) -> float:
    return measured.cost(count, "first-sync").peak


def _sync_overhead(task: str) -> Callable[[Measured, int], float | None]:
    def figure(measured: Measured, count: int) -> float | None:
        spent = measured.inside[count].get(task)
        return None if spent is None else float(max(spent["sync"] - _allowed(count), 0) / spent["read"])

    return figure


def _calls_too_many(measured: Measured, count: int) -> float:
    """Return calls and addresses beyond two rosters, one add and one remove, and one roster if nothing differs."""
    calls = measured.inside[count]["calls"]
    allowed = {"moves": ["roster", "add", "remove", "roster"], "nothing": ["roster"]}
    extra = sum(len(calls[name]) - len(allowed[name]) for name in allowed)
    passed = sum(number for name in allowed for _, number in calls[name])
    return float(extra + passed - calls["choices"])


_MORE = "… growth of its peak memory from the smallest size"

BARS = (
    Bar(
        1, "get-subscribed without start-up ÷ the same SELECT", 2.0, 1.3, "times",
        ("help", "get-subscribed", "select"), _export_overhead,
    ),
    Bar(2, _MORE, 10, 5, "MB", ("get-subscribed",), _memory("get-subscribed")),
    Bar(
        3, "list-init of all members ÷ `.import` and INSERT … SELECT", 1.3, 1.0, "times",
        ("list-init-all", "import"), _ratio("list-init-all", "import"),
    ),
    Bar(4, _MORE, 130, 80, "MB", ("list-init-all",), _memory("list-init-all")),
    *(
        Bar(
            5, f"growth of {task} without start-up: largest size ÷ next smaller one", 15, 10.5, "times",
            ("help", task), _growth(task),
        )
        for task in ("list-init", "get-subscribed", "get-unsubscribed", "sync")
    ),
    Bar(6, "rows written by a second list-init", 0, None, "rows", ("inside:second",), _inside("second", "rows")),
    Bar(
        7, "`flask mailinglist --help` ÷ importing Flask's extensions", 1.15, 1.05, "times",
        ("help", "extensions"), _ratio("help", "extensions", is_start=True),
    ),
    *(
        Bar(
            9, f"a member's page with {lists} lists ÷ hello world, both in gunicorn", 5.0, 3.3, "times",
            ("web",), _page_at(lists),
        )
        for lists in (5, 20, 100)
    ),
    Bar(10, "SQL statements to show the subscriptions page", 2, 1, "", ("inside:page",), _inside("page", "page")),
    Bar(10, "SQL statements to save it, without the commit", 4, 3, "", ("inside:page",), _inside("page", "save")),
    Bar(
        13, "unnecessary calls to the list manager, and addresses in calls", 0, None, "",
        ("inside:calls",), _calls_too_many,
    ),
    Bar(
        14, "sync without changes ÷ reading its input", 1.5, 1.2, "times",
        ("inside:sync",), _sync_overhead("sync"),
    ),
    Bar(
        15, "list-init of all members on PostgreSQL ÷ `\\copy` and INSERT … SELECT", 2.0, 1.1, "times",
        ("server:list-init", "server:copy"), _ratio_by_the_clock("server:list-init", "server:copy"),
    ),
    Bar(
        16, "sync without changes of 10,000 subscribers on Mailman 3 ÷ reading them by REST", 1.3, 1.1, "times",
        ("rest",), _sync_overhead("rest"),
    ),
    Bar(
        17, "the slowest page for superusers, 10,000 members on 5 lists", 300, 150, "ms",
        ("superusers",), _found("superusers", "most"),
    ),
    Bar(
        17, "… 100,000 members on 20 lists", 600, 300, "ms", ("grown",), _at(100_000, _found("grown", "most")),
    ),
    Bar(
        19, "`flask minutely` with nothing to do ÷ importing Flask and SQLAlchemy", 1.3, 1.0, "times",
        ("minutely", "bare"), _ratio("minutely", "bare", is_start=True),
    ),
    Bar(
        21, "the superusers' home page, 100,000 members on 20 lists", 500, 100, "ms",
        ("grown",), _at(100_000, _found("grown", "home")),
    ),
    Bar(
        21, "… a million members on 5 lists", 1000, 100, "ms", ("grown",), _at(1_000_000, _found("grown", "home")),
    ),
    Bar(21, "… after five years of hourly runs ÷ before", 1.2, None, "times", ("grown", "years"), _years_of_runs),
    Bar(
        22, "sync without changes of a list with an audience of ten, without start-up", 0.05, 0.01, "s",
        ("grown",), _found("committee", "seconds"),
    ),
    Bar(
        23, "first sync of all members ÷ list-init and a sync", 1.3, 1.0, "times",
        ("first-sync", "init-and-sync"), _ratio("first-sync", "init-and-sync"),
    ),
    Bar(23, "… its peak memory", 250, None, "MB", ("first-sync",), _peak),
    Bar(
        24, "an hour with 500 saves on 20 lists with runs at once, 10,000 members: all runs", 180, 60, "s",
        ("hour",), _found("hour", "seconds"),
    ),
    Bar(24, "… a save", 30, 15, "ms", ("hour",), _found("hour", "save")),
    *(
        Bar(18, f"100,000 new members: {what}", limit, None, unit, ("imports",), _found("imports", name))
        for name, what, limit, unit in (
            ("new", "`flask user import` ÷ only validating their addresses", 4.0, "times"),
            ("again", "importing the same file again, minus reading it", 1.5, "s"),
            ("wait", "the longest wait for a save in the meantime", 500, "ms"),
            ("peak", "peak memory of both imports", 150, "MB"),
        )
    ),
)  # fmt: skip
