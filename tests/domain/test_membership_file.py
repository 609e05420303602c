"""Files of members as people have them: docs/people.md, "Files"."""

import pytest

from portal.domain.membership_file import Columns, Record, read_members, standard_columns
from portal.errors import BadInputError

COLUMNS = Columns(email="E-Mail", username="Login", key="No.", name="{First} {Last}", groups=("Status",))
ADA = Record(2, "7", "ada", ("ada@example.org",), "Ada Lovelace", ("full",))
HEADER = "No.,Login,E-Mail,First,Last,Status"
LINE = "7,ada,ada@example.org,Ada,Lovelace,full"

# The shapes in which programs export, all of the same person.
SHAPES = {
    "plain": f"{HEADER}\n{LINE}\n".encode(),
    "no line end": f"{HEADER}\n{LINE}".encode(),
    "Excel, CSV UTF-8": f"\ufeff{HEADER}\r\n{LINE}\r\n".encode(),
    "Excel, German": f"{HEADER}\r\n{LINE}\r\n".replace(",", ";").encode("cp1252"),
    "Excel, Unicode text": f"{HEADER}\r\n{LINE}\r\n".replace(",", "\t").encode("utf-16"),
    "big-endian": b"\xfe\xff" + f"{HEADER}\n{LINE}\n".encode("utf-16-be"),
    "old Macintosh": f"{HEADER}\r{LINE}\r".encode(),
    "LibreOffice, all quoted": ",".join(f'"{each}"' for each in HEADER.split(",")).encode()
    + b"\n"
    + ",".join(f'"{each}"' for each in LINE.split(",")).encode()
    + b"\n",
    "trailing commas": f"{HEADER},,\n{LINE},,\n".encode(),
    "more columns": f"Id,{HEADER},Phone\n1,{LINE},0049\n".encode(),
    "another order": b"Status,Last,First,E-Mail,Login,No.\nfull,Lovelace,Ada,ada@example.org,ada,7\n",
    "upper case": f"{HEADER.upper()}\n{LINE}\n".encode(),
    "blanks": f" {HEADER.replace(',', ' , ')} \n {LINE.replace(',', ' , ')} \n".encode(),
    "text marks": f"{HEADER}\n'7,ada,'ada@example.org,Ada,Lovelace,full\n".encode(),
    "blank lines": f"{HEADER}\n\n,,,,,\n{LINE}\n\n".encode(),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_one_person_is_read_alike_in_every_shape(shape: str) -> None:
    (found,) = read_members(SHAPES[shape], COLUMNS).records
    assert found == Record(found.line, *[getattr(ADA, name) for name in ADA._fields[1:]])


@pytest.mark.parametrize(
    ("content", "encoding"),
    [
        ("E-Mail,n\nx@example.org,Zoë\n".encode(), "UTF-8"),
        ("E-Mail,n\nx@example.org,Zoë\n".encode("cp1252"), "Windows-1252"),
        ("E-Mail,n\nx@example.org,Zoë\n".encode("utf-16"), "UTF-16"),
    ],
)
def test_the_encoding_is_found_out_and_named(content: bytes, encoding: str) -> None:
    found = read_members(content, Columns(email="E-Mail", name="n"))
    assert (found.records[0].name, found.encoding) == ("Zoë", encoding)


def test_an_encoding_can_be_set() -> None:
    found = read_members("email,n\nx@example.org,Łuk\n".encode("iso-8859-2"), Columns(name="n"), encoding="iso-8859-2")
    assert found.records[0].name == "Łuk"


def test_a_quoted_cell_may_hold_line_ends_and_the_lines_are_counted_right() -> None:
    content = b'email,note,name\na@example.org,"one\ntwo",A\nb@example.org,,"B\nB"\n'
    records = read_members(content, Columns(name="name")).records
    assert [(each.line, each.name) for each in records] == [(2, "A"), (4, "B B")]


@pytest.mark.parametrize("cell", ["a@x.org; b@x.org", '"a@x.org, b@x.org"', "a@x.org|b@x.org", '"a@x.org\nb@x.org"'])
def test_a_cell_may_hold_several_addresses(cell: str) -> None:
    assert read_members(f"email,z\n{cell},1\n".encode(), Columns()).records[0].addresses == ("a@x.org", "b@x.org")


def test_missing_trailing_cells_are_empty() -> None:
    (found,) = read_members(b"key,email,name,groups\n7\n", Columns(key="key", name="name", groups=("groups",))).records
    assert found == Record(2, "7", "7", (), "", ())


@pytest.mark.parametrize(("separator", "cell"), [(";", "a;b"), (",", '"a, b"'), ("|", "a | b|"), (";", "a; b;;a")])
def test_groups_are_separated_as_the_setting_says(separator: str, cell: str) -> None:
    columns = Columns(groups=("groups",), group_separator=separator)
    assert read_members(f"email,groups\nx@x.org,{cell}\n".encode(), columns).records[0].groups == ("a", "b")


@pytest.mark.parametrize("cell", ["yes", "Ja", "OUI", "1", "x", "true"])
def test_a_column_that_says_yes_gives_the_group_of_its_name(cell: str) -> None:
    columns = Columns(groups=("Status", "Board"))
    content = f"email,Status,Board\nx@x.org,full,{cell}\ny@x.org,full,no\nz@x.org,,\n".encode()
    assert [each.groups for each in read_members(content, columns).records] == [("full", "Board"), ("full",), ()]


def test_columns_that_nobody_reads_are_named() -> None:
    assert read_members(b"email,Phone,,Notes\nx@x.org,1,,n\n", Columns()).ignored == ("Phone", "Notes")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "empty"),
        (b"\n\n", "empty"),
        (b"email\n", "no member"),
        (
            b"mail,name\nx@x.org,X\n",
            "no column named 'email' (columns: mail, name): correct the first line, or name the columns under",
        ),
        (b"email,email\nx@x.org,y@x.org\n", "more than one column named 'email'"),
        (b"PK\x03\x04rest", "save it as CSV UTF-8"),
        (b"\xd0\xcf\x11\xe0rest", "save it as CSV UTF-8"),
        (b"email\nx\0y@x.org\n", "not text"),
        (b"\xff\xfee\x00m", "not text in UTF-16: save it as CSV UTF-8"),
        (b"email\n\x81\x8d\n", "not text in UTF-8 or Windows-1252: save it as CSV UTF-8"),
        (b'email\nx@x.org\n"' + b"a" * 200_000, "line 3: not CSV"),
        (
            b'email,note\nx@x.org,"a\ny@x.org,b\n',
            "line 2: the input ends inside quotation marks: close the quotation marks",
        ),
    ],
)
def test_a_file_that_cannot_be_understood_is_refused_whole(content: bytes, words: str) -> None:
    with pytest.raises(BadInputError) as refused:
        read_members(content, Columns())
    assert words in str(refused.value)


def test_a_line_that_cannot_be_understood_keeps_its_key_where_it_can() -> None:
    content = b"key,email\n7,a@x.org,extra\n,b@x.org\n8,c@x.org\n"
    found = read_members(content, Columns(key="key")).records
    assert [(each.line, each.key, bool(each.problem)) for each in found] == [
        (2, "7", True),
        (3, None, True),
        (4, "8", False),
    ]


def test_the_standard_columns_are_those_that_the_header_has() -> None:
    content = b"username,email,groups\nada,ada@x.org,full;board\n"
    (found,) = read_members(content, standard_columns(content)).records
    assert found == Record(2, None, "ada", ("ada@x.org",), None, ("full", "board"))
