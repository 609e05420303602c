"""Exports of the programs in which organisations keep their members: the shapes of the files, with invented people.

Those of CiviCRM, hitobito and Admidio follow the source code of their exports.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from portal.domain.membership_file import Columns, read_members

ADA = ("7", "ada", ("ada@example.org", "ada@work.example.org"), "Ada Lovelace", ("Full", "Board"))
ZOE = ("12", "zoe", ("zoe@example.org",), "Zoë Müller", ("Associate",))


class Export(NamedTuple):
    """The file that a program writes, the columns to read, and the members in it, if they are not ADA and ZOE."""

    content: bytes
    columns: Columns
    people: tuple[Any, ...] = (ADA, ZOE)


def of(*lines: str, end: str = "\n", encoding: str = "utf-8") -> bytes:
    return "".join(f"{line}{end}" for line in lines).encode(encoding)


def without_usernames(*people: tuple[Any, ...]) -> tuple[Any, ...]:
    """Return people whose file has no usernames: the keys serve as such."""
    return tuple((person[0], person[0], *person[2:]) for person in people)


GERMAN = Columns("E-Mail", "Login", "Nr.", "{Vorname} {Nachname}", ("Status",))
ADMIDIO = Columns("E-Mail", "Benutzername", "Mitgliedsnummer", "{Vorname} {Nachname}", ("Full", "Board", "Associate"))
EXPORTS = {
    # A line break in a cell is LF there, at the end of a line CRLF; columns that once were used leave commas behind.
    "Excel, CSV UTF-8": Export(
        of(
            "Member No,Login,E-Mail,First,Last,Notes,Status,,",
            '7,ada,"ada@example.org; ada@work.example.org",Ada,Lovelace,"likes\nmathematics, and ""engines""",Full;Board,,',
            "12,zoe,zoe@example.org,Zoë,Müller,,Associate,,",
            ",,,,,,,,",
            end="\r\n", encoding="utf-8-sig",
        ),
        Columns("E-Mail", "Login", "Member No", "{First} {Last}", ("Status",)),
    ),
    "Excel in German, CSV": Export(
        of(
            "Nr.;Login;E-Mail;Vorname;Nachname;Status",
            '7;ada;"ada@example.org; ada@work.example.org";Ada;Lovelace;"Full;Board"',
            "12;zoe;zoe@example.org;Zoë;Müller;Associate",
            end="\r\n", encoding="cp1252",
        ),
        GERMAN,
    ),
    "Excel, Unicode text": Export(
        of(
            "Nr.\tLogin\tE-Mail\tVorname\tNachname\tStatus",
            "7\tada\tada@example.org; ada@work.example.org\tAda\tLovelace\tFull;Board",
            "12\tzoe\tzoe@example.org\tZoë\tMüller\tAssociate",
            end="\r\n", encoding="utf-16",
        ),
        GERMAN,
    ),
    # Numbers stay bare where text is quoted; a number that is to stay text begins with an apostrophe.
    "LibreOffice, all text quoted": Export(
        of(
            '"Nr.","Login","E-Mail","Vorname","Nachname","Status"',
            '7,"ada","ada@example.org, ada@work.example.org","Ada","Lovelace","Full;Board"',
            "'12,\"zoe\",\"'zoe@example.org\",\"Zoë\",\"Müller\",\"Associate\"",
        ),
        GERMAN,
    ),
    # Empty cells are not quoted, all others are; groups come from one column, without spaces after the commas.
    "CiviCRM": Export(
        of(
            '"Contact ID","Contact Type","First Name","Last Name","Email","Home-Email","Group(s)","Phone"',
            '"7","Individual","Ada","Lovelace","ada@example.org",,"Full,Board",',
            '"12","Individual","Zoë","Müller","zoe@example.org",,"Associate","+43 1 000"',
            end="\r\n",
        ),
        Columns("Email", None, "Contact ID", "{First Name} {Last Name}", ("Group(s)",), ","),
        without_usernames((*ADA[:2], ADA[2][:1], *ADA[3:]), ZOE),
    ),
    # The status of a membership, and whether somebody is on the board, are columns of their own.
    "Wild Apricot": Export(
        of(
            '"User ID","First name","Last name","Organization","Email","Membership level","Board","Archived"',
            '7,"Ada","Lovelace","","ada@example.org","Full","yes","no"',
            '12,"Zoë","Müller","","zoe@example.org","Associate","no","no"',
            end="\r\n", encoding="utf-8-sig",
        ),
        Columns("Email", None, "User ID", "{First name} {Last name}", ("Membership level", "Board")),
        without_usernames((*ADA[:2], ADA[2][:1], *ADA[3:]), ZOE),
    ),
    # There is no column with an id, so the address is the key; a role comes with its group and layer.
    "hitobito": Export(
        of(
            "Vorname;Nachname;Übername;Firmenname;Firma;Haupt-E-Mail;Adresse;PLZ;Ort;Land;Hauptebene;Rollen",
            "Ada;Lovelace;ada;;nein;ada@example.org;;3000;Bern;CH;Verband;Full Verband, Board Vorstand / Verband",
            "Zoë;Müller;zoe;;nein;zoe@example.org;;;;;Verband;Associate Verband",
            encoding="iso-8859-1",
        ),
        Columns("Haupt-E-Mail", "Übername", "Haupt-E-Mail", "{Vorname} {Nachname}", ("Rollen",), ","),
        (
            ("ada@example.org", "ada", ADA[2][:1], "Ada Lovelace", ("Full Verband", "Board Vorstand / Verband")),
            ("zoe@example.org", "zoe", *ZOE[2:4], ("Associate Verband",)),
        ),
    ),
    # "Nr." counts the rows of the list and is not a member's number.
    "Admidio up to 4, for Excel": Export(
        of(
            '"Nr.";"Mitgliedsnummer";"Nachname";"Vorname";"Benutzername";"E-Mail";"Full";"Board";"Associate"',
            '"1";"7";"Lovelace";"Ada";"ada";"ada@example.org";"Ja";"1";"Nein"',
            '"2";"12";"Müller";"Zoë";"zoe";"zoe@example.org";"Nein";"0";"Ja"',
            end="\r\n", encoding="cp1252",
        ),
        ADMIDIO,
        ((*ADA[:2], ADA[2][:1], *ADA[3:]), ZOE),
    ),
    "Admidio 5": Export(
        of(
            '"Mitgliedsnummer","Nachname","Vorname","Benutzername","E-Mail","Full","Board","Associate"',
            '"7","Lovelace","Ada","ada","ada@example.org","Ja","1","Nein"',
            '"12","Müller","Zoë","zoe","zoe@example.org","Nein","0","Ja"',
        ),
        ADMIDIO,
        ((*ADA[:2], ADA[2][:1], *ADA[3:]), ZOE),
    ),
    # mysql --batch: tabs, no quotes, and \\n, \\t and \\\\ for what would break a line.
    "IXP Manager's database": Export(
        of(
            "id\tusername\temail\tname\tcustomers\tnotes",
            "7\tada\tada@example.org\tAda Lovelace\tFull|Board\tone\\ntwo\\tthree",
            "12\tzoe\tzoe@example.org\tZoë Müller\tAssociate\t",
        ),
        Columns("email", "username", "id", "name", ("customers",), "|"),
        ((*ADA[:2], ADA[2][:1], *ADA[3:]), ZOE),
    ),
}  # fmt: skip


@pytest.mark.parametrize("program", EXPORTS)
def test_what_a_program_exports_is_read_as_its_members_are(program: str) -> None:
    export = EXPORTS[program]
    found = read_members(export.content, export.columns)
    records = [(each.key, each.username, each.addresses, each.name, each.groups) for each in found.records]
    assert records == list(export.people)
    assert [each.problem for each in found.records] == ["", ""]


DOCUMENTED = (
    ("CiviCRM", "CiviCRM"),
    ("Wild Apricot", "Wild Apricot"),
    ("hitobito", "hitobito"),
    ("Admidio", "Admidio 5"),
    ("IXP Manager", "IXP Manager's database"),
)


@pytest.mark.parametrize(("name", "program"), DOCUMENTED)
def test_the_documented_columns_of_a_program_are_those_of_its_export(name: str, program: str) -> None:
    page = (Path(__file__).parents[2] / "docs" / "people.md").read_text(encoding="utf-8")
    (row,) = (line for line in page.splitlines() if line.startswith(f"| {name}"))
    _, email, key, username, full_name, groups, separator = (
        cell.strip(" `") for cell in re.split(r"(?<!\\)\|", row)[1:-1]
    )
    columns = EXPORTS[program].columns
    assert (email, key, username or None, full_name) == (columns.email, columns.key, columns.username, columns.name)
    assert groups in {"", columns.groups[0]}
    assert (separator.strip("\\") or ";") == columns.group_separator
