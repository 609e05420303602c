"""Kinds by name: built-in ones, and those from other packages."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from portal.errors import ConfigurationError
from portal.listmanagers import file, registry
from portal.listmanagers.base import ListManager
from tests.listmanagers import harness, test_contract

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "list-managers"
FOREIGN = """
from pathlib import Path
from msgspec import Struct


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    folder: Path
    loud: bool = False


class Pigeons:
    def __init__(self, folder, name):
        self.folder, self.name = folder, name

    def check(self):
        return f"{self.folder}: {self.name}"


def open_list(settings, list_name):
    return Pigeons(settings.folder, list_name)
"""


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An installed package that brings the kinds "pigeon" and "broken", and would like to be "file"."""
    (tmp_path / "pigeon_post.py").write_text(FOREIGN)
    (tmp_path / "pigeon_empty.py").write_text("")
    info = tmp_path / "pigeon_post-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeon-post\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[portal.listmanagers]\npigeon = pigeon_post\nfile = pigeon_post\n"
        "broken = pigeon_nowhere\nempty = pigeon_empty\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))


def test_an_unknown_kind_is_refused_with_the_kinds_that_there_are():
    with pytest.raises(ConfigurationError, match=r'unknown kind "majordomo"; known kinds: .*file, .*mailman2'):
        registry.read_settings("majordomo", {})


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"directory": "/x", "colour": "red"}, "unknown setting `colour`"),
        ({}, "missing setting `directory`"),
        ({"directory": 3}, "the name of a folder - at `directory`"),
        ({"directory": ""}, "the name of a folder - at `directory`"),
        ({"directory": "a\0b"}, "the name of a folder - at `directory`"),
        ({"directory": "/x", "timeout": -1}, "`timeout`"),
    ],
)
def test_a_wrong_table_is_refused_and_the_key_is_named(table, words):
    with pytest.raises(ConfigurationError) as caught:
        registry.read_settings("file", table)
    assert words in str(caught.value)
    assert str(caught.value).startswith('kind = "file": ')


def test_a_relative_folder_is_beside_the_catalogue(tmp_path):
    settings = registry.read_settings("file", {"directory": "rosters"}, folder=tmp_path)
    assert settings.settings.directory == tmp_path / "rosters"
    absolute = registry.read_settings("file", {"directory": "/srv/rosters"}, folder=tmp_path)
    assert absolute.settings.directory == Path("/srv/rosters")


def test_a_relative_folder_without_a_catalogue_is_refused():
    with pytest.raises(ConfigurationError, match="starts with a slash"):
        registry.read_settings("file", {"directory": "rosters"})


def test_a_kind_of_another_package_is_found_checked_and_opened(foreign, tmp_path):
    settings = registry.read_settings("pigeon", {"folder": "loft"}, folder=tmp_path)
    assert registry.open_list(settings, "ants").check() == f"{tmp_path / 'loft'}: ants"
    with pytest.raises(ConfigurationError, match="`wings`"):
        registry.read_settings("pigeon", {"folder": "/loft", "wings": 2})


def test_another_package_cannot_replace_a_kind_that_is_built_in(foreign):
    assert registry.read_settings("file", {"directory": "/x"}).module is file


@pytest.mark.parametrize(
    ("kind", "words"), [("broken", "cannot be imported"), ("empty", "no Settings and no open_list")]
)
def test_a_kind_of_another_package_that_does_not_work_is_said_so(foreign, kind, words):
    with pytest.raises(ConfigurationError, match=words):
        registry.read_settings(kind, {})


def test_every_built_in_kind_is_in_the_contract_suite_and_has_a_page():
    index = (ROOT / "docs" / "list-managers.md").read_text()
    for kind in registry.BUILT_IN:
        assert kind in test_contract.KINDS
        assert f"[`{kind}`](list-managers/{kind}.md)" in index
        assert f'kind = "{kind}"' in (PAGES / f"{kind}.md").read_text()


def test_a_bound_list_speaks_the_protocol(tmp_path):
    manager = registry.open_list(registry.read_settings("file", {"directory": str(tmp_path)}), "ants")
    for name in vars(ListManager):
        if not name.startswith("_"):
            assert hasattr(manager, name)


def test_a_kind_is_imported_only_when_it_is_used():
    code = (
        "import sys; from portal.listmanagers import registry; "
        "registry.read_settings('file', {'directory': '/x'}); "
        "wrong = {'portal.listmanagers.mailman2', 'portal.listmanagers.process'} & set(sys.modules); "
        "sys.exit(str(wrong) if wrong else 0)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_every_table_in_the_docs_is_one_that_the_portal_reads(tmp_path, monkeypatch):
    harness.install_own_kind(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    blocks = [
        each.partition("```")[0] for path in PAGES.glob("*.md") for each in path.read_text().split("```toml\n")[1:]
    ]
    tables = [tomllib.loads(block)["managers"] for block in blocks if block.startswith("[managers")]
    assert len(tables) >= 8
    for table in tables:
        for settings in table.values():
            registry.read_settings(settings.pop("kind"), settings, folder=tmp_path)
    sys.modules.pop("table_lists", None)
