"""Settings, their pages and the example files agree: the same names, none more or less, and the real defaults."""

import re
import tomllib
from collections.abc import Collection, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import pytest

from portal import config
from portal.config import Settings, load_catalogue, load_settings
from portal.domain.mailinglist import SafetyLimits
from portal.listmanagers import registry

ROOT = Path(__file__).parents[1]
EXAMPLES = ("portal.toml", "mailinglists.toml")
CONFIGURATION = "configuration.md"
NEEDED = "needed"
SHOWN_OTHERWISE = {"enabled", "syncpws"}  # the example sets them on purpose, and says what they are when absent


class Place(NamedTuple):
    """Where some settings are written down: defaults by name, the table on their page, the tables of an example."""

    defaults: dict[str, Any]
    page: str
    heading: str  # empty: the first table of the page
    column: str  # the heading of the table's first column
    example: str
    tables: str  # a pattern; empty: what is above all tables


def defaults(kind: Any, *, is_flat: bool = True, without: Collection[str] = ()) -> dict[str, Any]:
    """Return the default of each setting: NEEDED, None where there is none, or the value as TOML has it."""
    found: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        inner = field.type if isinstance(field.type, type) and issubclass(field.type, msgspec.Struct) else None
        value = NEEDED if field.required else None if inner else field.default
        found[field.name] = list(value) if isinstance(value, tuple) else value
        if isinstance(value, Path):
            found[field.name] = str(value)
        if inner and is_flat:
            found |= defaults(inner)
    left_out = {"lists", "managers", "mail", "smtp", "membership", *without}
    return {name: value for name, value in found.items() if name not in left_out}


def has_none(default: Any) -> bool:
    """Return True if a setting has no default that could be shown."""
    return default is NEEDED or default is None or default == ""


def example_of(kind: str) -> str:
    """Return what the example calls the list manager of a kind; nothing where it has none."""
    managers = tomllib.loads(uncommented("mailinglists.toml"))["managers"]
    return next((name for name, table in managers.items() if table["kind"] == kind), "")


def places() -> dict[str, Place]:
    limits = msgspec.structs.fields(config._SafetyLimitsEntry)
    lists = "mailinglists.toml"
    return {
        "the portal": Place(
            defaults(Settings), CONFIGURATION, "## The portal: `portal.toml`", "setting", "portal.toml", ""
        ),
        "mail": Place(
            defaults(config.MailSettings),
            *(CONFIGURATION, "### Mail: `[mail]`", "setting", "portal.toml", "mail"),
        ),
        "the mail server": Place(
            defaults(config.SmtpSettings),
            *(CONFIGURATION, "### The mail server: `[mail.smtp]`", "setting", "portal.toml", r"mail\.smtp"),
        ),
        "members": Place(
            defaults(config.MembershipSettings, is_flat=False, without={"columns", "safety_limits"}),
            *(CONFIGURATION, "### Members: `[membership]`", "setting", "portal.toml", "membership"),
        ),
        "columns of members": Place(
            defaults(config.MembershipColumns),
            *(CONFIGURATION, "### Members, the columns: `[membership.columns]`", "setting"),
            *("portal.toml", r"membership\.columns"),
        ),
        "limits of members": Place(
            defaults(config.MembershipLimits),
            *(CONFIGURATION, "### Members, the limits: `[membership.safety_limits]`", "setting"),
            *("portal.toml", r"membership\.safety_limits"),
        ),
        "all lists": Place(
            defaults(config._File, is_flat=False), CONFIGURATION, "### For all lists", "setting", lists, ""
        ),
        "safety limits": Place(
            {each.name: getattr(SafetyLimits(), each.name) for each in limits},
            *(CONFIGURATION, "### For all lists", "key", lists, "safety_limits"),
        ),
        "one list": Place(
            defaults(config._ListEntry, is_flat=False),
            *(CONFIGURATION, "### For one list: `[lists.HANDLE]`", "setting", lists, r"lists\..*"),
        ),
        **{
            kind: Place(
                defaults(registry._module(kind).Settings),
                *(f"list-managers/{kind}.md", "", "setting", lists, rf"managers\.{example_of(kind)}(\.cmds)?"),
            )
            for kind in registry.BUILT_IN
        },
    }


def rows(place: Place) -> Iterator[tuple[list[str], str]]:
    """Yield the names and the default of each row of a table."""
    text = (ROOT / "docs" / place.page).read_text()
    text = (
        re.split(r"^#+ ", text.partition(f"\n{place.heading}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]
        if place.heading
        else text
    )
    table = text.partition(f"\n| {place.column} | default |")[2].partition("\n\n")[0]
    for row in table.splitlines()[2:]:
        names, default, _ = row.removeprefix("|").split("|", 2)
        yield re.findall(r"`(\w+)`", names), default.strip()


def uncommented(name: str) -> str:
    """Return an example with all that is commented out in it."""
    text = (ROOT / "instance" / f"{name}.example").read_text()
    return re.sub(r"^# (?=\w+ = |\[)", "", text, flags=re.MULTILINE)


def example(place: Place) -> tuple[set[str], dict[str, Any]]:
    """Return the names that an example mentions, those in remarks too, and the values that it gives."""
    text = uncommented(place.example)
    names, values = set(), {}
    for part in re.split(r"^(?=\[)", text, flags=re.MULTILINE):
        header = re.match(r"\[(.*)\]", part)
        if not re.fullmatch(place.tables, header[1] if header else ""):
            continue
        names |= {"cmds"} if header and header[1].endswith(".cmds") else set()
        names |= set(re.findall(r"\b(\w+) = ", re.sub(r"\{.*?\}", "", part)))
        values |= tomllib.loads(part.partition("]\n")[2] if header else part)
    if place.tables == "safety_limits":
        values = tomllib.loads(text)["safety_limits"]
        names = set(values)
    return names - {"kind"}, values


PLACES = places()
every_place = pytest.mark.parametrize("place", PLACES.values(), ids=list(PLACES))


@every_place
def test_the_page_has_a_row_for_each_setting_and_for_nothing_else(place: Place) -> None:
    assert sorted(name for names, _ in rows(place) for name in names) == sorted(place.defaults)


@every_place
def test_the_page_shows_the_real_defaults(place: Place) -> None:
    for names, shown in rows(place):
        for name in names:
            default = place.defaults[name]
            if has_none(default):
                assert (shown in {"required", "needed"}) == (default is NEEDED), name
                assert not re.match(r"`[^`\"]", shown), name
            else:
                assert value(shown) == default, name


def value(shown: str) -> Any:
    """Return what a cell says, which is TOML or, on pages of list managers, a bare text."""
    text = shown.strip("`")
    try:
        return tomllib.loads(f"x = {text}")["x"]
    except tomllib.TOMLDecodeError:
        return text


@every_place
def test_the_example_has_each_setting_and_nothing_else(place: Place) -> None:
    names, _ = example(place)
    assert sorted(names) == sorted(place.defaults)


@every_place
def test_the_example_shows_the_real_defaults(place: Place) -> None:
    _, values = example(place)
    wrong = {
        name: value
        for name, value in values.items()
        if name in place.defaults.keys() - SHOWN_OTHERWISE
        and not has_none(place.defaults[name])
        and value != place.defaults[name]
    }
    assert wrong == {}


def test_the_example_files_are_valid(tmp_path: Path) -> None:
    for name in EXAMPLES:
        (tmp_path / name).write_bytes((ROOT / "instance" / f"{name}.example").read_bytes())

    assert load_settings(tmp_path, {}) == Settings()
    catalogue = load_catalogue(tmp_path / "mailinglists.toml", registry.read_settings)
    assert catalogue.enabled
    assert not catalogue.get("members").sync_passwords


@pytest.mark.parametrize("name", EXAMPLES)
def test_what_is_commented_out_in_an_example_is_valid_too(tmp_path: Path, name: str) -> None:
    text = uncommented(name)
    of_one = '[lists.members]\nmanager = "mailman"'  # with all that is commented out there are several
    (tmp_path / name).write_text(text.replace("[lists.members]", of_one))

    load_settings(tmp_path, {})
    load_catalogue(tmp_path / "mailinglists.toml", partial(registry.read_settings, folder=tmp_path))
