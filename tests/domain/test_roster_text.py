"""Roster lines as list managers print them and people edit them: SEMANTICS, list-init, rules 4 and 5."""

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.roster_text import RosterLine, RosterText
from portal.errors import UnreadableRosterError
from tests.roster_lines import READABLE, SKIPPED, UNREADABLE

ENDS = ["", "\n", "\r\n"]


def read(*lines: str | bytes) -> tuple[list[str], int]:
    """Return the spellings that are read from lines, and how many lines were passed over."""
    text = RosterText(lines, skip_invalid=True)  # type: ignore[arg-type]
    return [line.spelling for line in text], text.invalid


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize(("line", "spelling"), READABLE)
def test_an_address_is_found_in_its_line(line: str, spelling: str, end: str) -> None:
    assert read(line + end) == ([spelling], 0)
    assert read((line + end).encode()) == ([spelling], 0)


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("line", SKIPPED)
def test_blank_lines_and_comments_are_not_lines_at_all(line: str, end: str) -> None:
    assert read(line + end) == ([], 0)
    assert read((line + end).encode()) == ([], 0)


OTHER_ENCODINGS: list[str | bytes] = [
    "\ud800@example.org",
    b"al\xffice@example.org\n",
    b"alice@ex\xe4mple.org\n",
    b"\xff\xfea\0l\0i\0c\0e\0@\0",
]


@pytest.mark.parametrize("line", UNREADABLE + OTHER_ENCODINGS)
def test_a_line_that_cannot_be_read_puts_all_of_the_input_in_doubt(line: str | bytes) -> None:
    good = "bob@example.org\n" if isinstance(line, str) else b"bob@example.org\n"
    text = RosterText([good, line, good])  # type: ignore[list-item]

    with pytest.raises(UnreadableRosterError, match=r"1 line of the input cannot be read: line 2:.*--skip-invalid"):
        list(text)
    assert text.invalid == 1


@pytest.mark.parametrize("line", UNREADABLE + OTHER_ENCODINGS)
def test_what_somebody_has_looked_at_is_counted_and_passed_over(line: str | bytes) -> None:
    good = "bob@example.org\n" if isinstance(line, str) else b"bob@example.org\n"

    assert read(good, line, good) == (["bob@example.org"] * 2, 1)


def test_the_first_five_lines_are_reported_by_number_cut_and_harmless() -> None:
    lines = ["# first\n", *[f"bad line {number} \x1b[31m{'x' * 1000}\n" for number in range(9)]]

    with pytest.raises(UnreadableRosterError) as raised:
        list(RosterText(lines))
    message = str(raised.value)
    assert re.findall(r"line (\d+):", message) == ["2", "3", "4", "5", "6"]
    assert "9 lines of the input" in message
    assert "and 4 more" in message
    assert message.isprintable()
    assert len(message) < 1_000


@pytest.mark.parametrize("last", [b"carol@example.org", b"carol@exam", b"# com", b" "])
def test_piped_input_whose_last_line_has_no_end_was_cut_off(last: bytes) -> None:
    lines = [b"bob@example.org\n", last]

    with pytest.raises(UnreadableRosterError, match="line 2: the last line does not end with a newline"):
        list(RosterText(lines, ends_with_newline=True))
    text = RosterText(lines, ends_with_newline=True, skip_invalid=True)
    assert ([line.spelling for line in text], text.invalid) == (["bob@example.org"], 1)


def test_piped_input_that_ends_with_a_line_end_is_whole_and_so_is_none() -> None:
    assert len(list(RosterText([b"bob@example.org\r\n", b"\n"], ends_with_newline=True))) == 1
    assert list(RosterText([], ends_with_newline=True)) == []


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
    text = RosterText(io.BytesIO(data), skip_invalid=True)
    found = list(text)

    assert len(found) + text.invalid <= data.count(b"\n") + 1
    for line in found:
        (line.canonical + line.spelling).encode()  # fit to be stored


@given(st.lists(st.text(max_size=40), max_size=10))
def test_any_text_is_read_to_its_end(lines: list[str]) -> None:
    text = RosterText(lines, skip_invalid=True)

    assert len(list(text)) + text.invalid <= len(lines)
