"""The columns of the tables that `flask mailinglist` prints."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from portal.services.reports.lists import HistoryLine, ListReport, RunReport
    from portal.services.reports.numbers import Period

Table = tuple[Sequence[str], list[Sequence[object]]]  # headings and rows


def report_table(reports: "Iterable[ListReport]") -> Table:
    """Return the table of reports of lists."""
    headings = (
        "LIST", "SUBSCRIBED", "UNSUBSCRIBED", "NOT CHOSEN", "TO ADD", "TO REMOVE", "WAITING", "UNCONFIRMED",
        "NOT ADDED", "REFUSED", "NO ACCOUNT", "LAST RUN", "STATE", "LATE",
    )  # fmt: skip
    return headings, [
        (
            each.handle, each.subscribed, each.unsubscribed, each.not_chosen, each.being_added,
            each.being_removed + each.departing,
            each.waiting, each.unconfirmed, each.not_added, each.refused, each.without_account,
            each.last_run and each.last_run.started_at,
            each.last_run and each.last_run.state, each.is_late,
        )
        for each in reports
    ]  # fmt: skip


def runs_table(runs: "Iterable[RunReport]") -> Table:
    """Return the table of runs."""
    headings = (
        "RUN", "LIST", "KIND", "STARTED", "STATE", "ADDED", "REMOVED", "JOINED", "LEFT", "TAKEN OVER", "HELD BACK",
        "REFUSED", "WAITING", "NO EFFECT", "ON LIST", "MESSAGE",
    )  # fmt: skip
    return headings, [
        (
            each.id, each.handle, each.kind, each.started_at, each.state, each.added, each.removed, each.joined,
            each.left, each.initialised, each.held, each.refused, each.waiting, each.no_effect,
            each.on_roster, each.message,
        )
        for each in runs
    ]  # fmt: skip


def numbers_table(periods: "Iterable[Period]") -> Table:
    """Return the table of periods."""
    return ("FROM", "SUBSCRIBERS", "JOINED", "LEFT", "PEOPLE MAKING CHANGES"), [
        (each.begins_on.isoformat(), *each[1:]) for each in periods
    ]


def history_table(lines: "Iterable[HistoryLine]") -> Table:
    """Return the table of changes of preferences."""
    return ("TIME", "LIST", "ADDRESS", "BECAME", "SOURCE", "BY", "REASON"), [
        (
            each.at,
            each.handle,
            each.address,
            "subscribed" if each.subscribed else "unsubscribed",
            each.source,
            each.actor,
            each.reason,
        )
        for each in lines
    ]
