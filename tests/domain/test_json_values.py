"""Values as JSON: named, in UTC, only texts, numbers, lists and objects."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from enum import StrEnum
from typing import NamedTuple

from portal.domain.json_values import plain


class Colour(StrEnum):
    RED = "red"


class Line(NamedTuple):
    at: datetime | None
    colour: Colour


@dataclass(frozen=True)
class Report:
    handle: str
    lines: tuple[Line, ...]


def test_named_values_become_tables_all_the_way_down():
    at = datetime(2026, 11, 22, 13, 30, 15, 999, tzinfo=timezone(timedelta(hours=1)))
    report = Report("members", (Line(at, Colour.RED), Line(None, Colour.RED)))
    assert plain(report) == {
        "handle": "members",
        "lines": [{"at": "2026-11-22T12:30:15Z", "colour": "red"}, {"at": None, "colour": "red"}],
    }


def test_tables_and_lists_keep_their_shape():
    assert plain({"a": [1, True, None, "x"], "b": (datetime(2026, 1, 2, tzinfo=UTC),)}) == {
        "a": [1, True, None, "x"],
        "b": ["2026-01-02T00:00:00Z"],
    }
