"""CSV that a spreadsheet shows and never runs. SECURITY: cells that start with = + - @ TAB CR are neutralised."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.csv_text import line, neutral


@pytest.mark.parametrize(
    "hostile",
    ["=cmd|'/C'!A0@example.org", "-rf@example.org", "+1@example.org", "@SUM(A1)", "\t=1", "\r=1"],
)
def test_what_could_be_a_formula_gets_an_apostrophe(hostile: str) -> None:
    assert neutral(hostile) == f"'{hostile}"


@pytest.mark.parametrize("harmless", ["alice@example.org", "`id`@example.org", "$HOME@example.org", "a|b@c", "", "a=b"])
def test_all_else_stays(harmless: str) -> None:
    assert neutral(harmless) == harmless


@given(st.lists(st.none() | st.text(st.characters(codec="utf-8")), min_size=2))
def test_a_line_is_read_back_and_no_cell_starts_a_formula(cells: list[str | None]) -> None:
    (read,) = csv.reader(io.StringIO(line(cells), newline=""))
    assert [each.removeprefix("'") for each in read] == [(each or "").removeprefix("'") for each in cells]
    assert not any(each.startswith(("=", "+", "-", "@", "\t", "\r")) for each in read)
