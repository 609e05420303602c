"""Roster lines as list managers print them and people edit them: SEMANTICS, list-init, rule 4."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.roster_text import RosterLine, RosterText


def read(*lines: str | bytes) -> tuple[list[str], int]:
    """Return the spellings that are read from lines, and how many lines were none."""
    text = RosterText(lines)  # type: ignore[arg-type]
    return [line.spelling for line in text], text.invalid


@pytest.mark.parametrize(
    ("line", "spelling"),
    [
        ("alice@example.org", "alice@example.org"),
        ("alice@example.org\n", "alice@example.org"),
        ("alice@example.org\r\n", "alice@example.org"),
        ("  Alice@Example.org  \n", "Alice@Example.org"),
        ("\ufeffalice@example.org\n", "alice@example.org"),
        ("\ufeff  alice@example.org\n", "alice@example.org"),
        ("Alice <Alice@example.org>\n", "Alice@example.org"),
        ('"Smith, Alice" <alice@example.org>', "alice@example.org"),
        ("A < B <alice@example.org >", "alice@example.org"),
        ("<alice@example.org>", "alice@example.org"),
        ("josé@exämple.org\n", "josé@exämple.org"),
        ("-rf@example.org", "-rf@example.org"),
    ],
)
def test_an_address_is_found_in_its_line(line: str, spelling: str) -> None:
    assert read(line) == ([spelling], 0)
    assert read(line.encode()) == ([spelling], 0)


@pytest.mark.parametrize(
    "line", ["", "\n", "\r\n", "   \t\n", "# alice@example.org\n", "  # a comment\n", "\ufeff\n", "\ufeff# x\n"]
)
def test_blank_lines_and_comments_are_not_lines_at_all(line: str) -> None:
    assert read(line) == ([], 0)
    assert read(line.encode()) == ([], 0)


@pytest.mark.parametrize(
    "line",
    [
        "alice\n",
        "No such list: members\n",
        "alice@example.org bob@example.org\n",
        "alice@example.org, bob@example.org\n",
        "Alice <alice@example.org> (digest)\n",
        "Alice <>\n",
        ">\n",
        "al\0ice@example.org\n",
        "a" * 10_000 + "@example.org\n",
        "x" * 10_000,
        "<" * 10_000 + ">",
        "\ud800@example.org",
        b"al\xffice@example.org\n",
        b"alice@ex\xe4mple.org\n",
        b"\xff\xfea\0l\0i\0c\0e\0@\0",
        b"alice@example.org\rbob@example.org\r",
    ],
)
def test_a_line_that_is_no_address_is_counted_and_stops_nothing(line: str | bytes) -> None:
    good = "bob@example.org\n" if isinstance(line, str) else b"bob@example.org\n"

    assert read(good, line, good) == (["bob@example.org"] * 2, 1)


def test_a_line_is_compared_by_its_canonical_form_and_sent_as_spelled() -> None:
    assert list(RosterText(["ALICE@EXÄMPLE.org"])) == [RosterLine("alice@xn--exmple-cua.org", "ALICE@EXÄMPLE.org")]


def test_lines_are_read_one_at_a_time() -> None:
    taken = []

    def lines() -> object:
        for number in range(3):
            taken.append(number)
            yield f"member{number}@example.org\n"

    next(iter(RosterText(lines())))  # type: ignore[arg-type]
    assert taken == [0]


def test_a_line_that_appears_twice_is_read_twice() -> None:
    assert read("alice@example.org\n", "Alice@example.org\n") == (["alice@example.org", "Alice@example.org"], 0)


@given(st.binary(max_size=300))
def test_any_bytes_are_read_to_their_end(data: bytes) -> None:
    text = RosterText(io.BytesIO(data))
    found = list(text)

    assert len(found) + text.invalid <= data.count(b"\n") + 1
    for line in found:
        (line.canonical + line.spelling).encode()  # fit to be stored


@given(st.lists(st.text(max_size=40), max_size=10))
def test_any_text_is_read_to_its_end(lines: list[str]) -> None:
    text = RosterText(lines)

    assert len(list(text)) + text.invalid <= len(lines)
