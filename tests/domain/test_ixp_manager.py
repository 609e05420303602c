"""The export of IXP Manager: CSV and JSON, and records that cannot be read."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.ixp_manager import COLUMNS, Problem, Record, read
from portal.errors import BadInputError

HEADER = "username,email,attribute,value"
LINE = "alice,alice@example.org,mailinglist.members.subscribed,1"
ENTRY = {"username": "alice", "email": "alice@example.org", "attribute": "mailinglist.members.subscribed", "value": "1"}


def text(*lines: str) -> bytes:
    return "\n".join([HEADER, *lines, ""]).encode()


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (text(LINE), "line 2"),
        (b"\xef\xbb\xbf" + text("", LINE).replace(b"\n", b"\r\n"), "line 3"),
        (text('"alice", alice@example.org ,"mailinglist.members.subscribed","1"'), "line 2"),
        (json.dumps([ENTRY]).encode(), "entry 1"),
        (json.dumps([ENTRY | {"value": 1, "id": 7}], indent=2).encode(), "entry 1"),
        (json.dumps([ENTRY | {"value": True}]).encode(), "entry 1"),
    ],
)
def test_a_record_names_a_user_a_list_and_a_choice(content, place):
    assert read(content) == ([Record(place, "alice", "alice@example.org", "members", True)], [])


@pytest.mark.parametrize(("value", "subscribed"), [("1", True), ("0", False), ("true", True), ("FALSE", False)])
def test_a_value_is_yes_or_no(value, subscribed):
    ((record,), _) = read(text(LINE.replace(",1", f",{value}")))
    assert record.subscribed is subscribed


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (",,mailinglist.members.subscribed,1", "no user is named; fill in username or email"),
        ("alice,,theme,dark", "attribute must be mailinglist.HANDLE.subscribed, not theme"),
        ("alice,,,1", "attribute must be mailinglist.HANDLE.subscribed, not empty"),
        ("alice,,mailinglist.members.subscribed,maybe", "value must be 1 or 0, not maybe"),
        ("alice,,mailinglist.members.subscribed,NULL", "value must be 1 or 0, not NULL"),
        ("alice,,mailinglist.members.subscribed,", "value must be 1 or 0, not empty"),
        ("too,few", "2 cells instead of 4: too,few"),
        ('"alice,,mailinglist.members.subscribed,1', "not CSV: unexpected end of data"),
    ],
)
def test_a_line_that_cannot_be_read_is_a_problem_and_the_others_are_read(line, words):
    records, problems = read(text(line, LINE))
    assert problems == [Problem("line 2", words)]
    assert [each.place for each in records] == ["line 3"]


@pytest.mark.parametrize("entry", [7, None, "text", [], {}, ENTRY | {"value": None}, ENTRY | {"attribute": {}}])
def test_an_entry_that_cannot_be_read_is_a_problem_and_the_others_are_read(entry):
    records, problems = read(json.dumps([entry, ENTRY]).encode())
    assert [each.place for each in problems] == ["entry 1"]
    assert [each.place for each in records] == ["entry 2"]


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\n \n", b"\xef\xbb\xbf", b"alice,members,1\n", b"username,attribute,value\n", b"[", b"[1, 2", b"{bad}\n",
        b"\xff\xfe\x00", b"\x89PNG\r\n\x1a\n\0\0", b"[" * 100_000, b"{" * 100_000, b"{}",
        b"[" + b"9" * 5_000 + b"]", HEADER.replace(",", ";").encode(), text(LINE) + b"\xff\n",
    ],
    ids=lambda content: content[:20].hex(),
)  # fmt: skip
def test_a_file_that_is_no_export_is_refused_in_one_line(content):
    with pytest.raises(BadInputError) as refused:
        read(content)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 400


@given(st.binary(max_size=200) | st.text(max_size=200).map(text))
def test_whatever_the_bytes_are_it_ends_in_an_answer(content):
    words = ""
    try:
        words = "".join(each.words for each in read(content)[1])
    except BadInputError as error:
        words = str(error)
    assert words.isprintable()


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda some: st.lists(some) | st.dictionaries(st.sampled_from(COLUMNS), some),
    )
)
def test_whatever_the_json_is_it_ends_in_an_answer(value):
    records, problems = read(json.dumps([value]).encode())
    assert len(records) + len(problems) == 1
    assert all(each.words.isprintable() for each in problems)
