"""CSV in which a spreadsheet runs no formula. SECURITY: cells that start with = + - @ TAB CR are neutralised."""

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.csv_text import line, neutral

SIGNS = "=+-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"


@pytest.mark.parametrize(
    "hostile",
    [
        *("=cmd|'/C'!A0@example.org", "-rf@example.org", "+1@example.org", "@SUM(A1)", "\tx", "\rx"),
        *(f"{sign}1+1" for sign in SIGNS),
        *(" =1", '"=1', "'=1"),
    ],
)
def test_what_could_be_a_formula_gets_an_apostrophe(hostile: str) -> None:
    assert neutral(hostile) == f"'{hostile}"


@pytest.mark.parametrize(("hostile", "neutralised"), [("\t=1", "'\t'=1"), ("a\t\t=1", "a\t'\t'=1"), (",=1", ",'=1")])
def test_each_place_at_which_a_cell_could_begin_gets_its_own(hostile: str, neutralised: str) -> None:
    assert neutral(hostile) == neutralised


@pytest.mark.parametrize("separator", [",", ";", "|", "\t", "\r", "\n"])
@pytest.mark.parametrize("sign", SIGNS)
def test_so_does_what_another_separator_would_make_a_cell_of(separator: str, sign: str) -> None:
    assert neutral(f"a{separator}{sign}1") == f"a{separator}'{sign}1"
    assert neutral(f'a{separator} "{sign}1{separator}b') == f"a{separator}' \"{sign}1{separator}b"


@pytest.mark.parametrize(
    "harmless", ["alice@example.org", "`id`@example.org", "$HOME@example.org", "a|b@c", "", "a=b", "a; b", "O'Neill"]
)
def test_all_else_stays(harmless: str) -> None:
    assert neutral(harmless) == harmless


def test_every_cell_is_quoted() -> None:
    assert line(["alice", None, 'a "b"']) == '"alice","","a ""b"""\r\n'


@given(
    st.lists(st.none() | st.text(st.sampled_from(SIGNS + ",;|\t\r\n\"' a") | st.characters(codec="utf-8")), min_size=1)
)
def test_a_line_is_read_back_and_no_separator_starts_a_formula(cells: list[str | None]) -> None:
    text = line(cells)
    (read,) = csv.reader(io.StringIO(text, newline=""))
    assert [each.replace("'", "") for each in read] == [(each or "").replace("'", "") for each in cells]
    assert not any(each.startswith(("\t", "\r")) for each in read)
    for other in ",;|\t\r\n":  # read by a program that takes another separator, and no quotes
        assert not any(re.match(rf'[\s"]*[{re.escape(SIGNS)}]', each) for each in re.split(f"[{other}]", text))
