"""The catalogues of texts: each text that is extracted has a translation, and each translation is of such a text."""

import re
from pathlib import Path

import pytest
from babel.messages.catalog import Catalog

from portal.services.mail.letters import LETTERS
from translations import ROOT, extract, read, sources

OWN_LETTERS = ROOT / "portal" / "templates" / "letters"


@pytest.fixture(scope="module")
def texts() -> Catalog:
    return extract()


def values(text: str) -> set[str]:
    """Return what a translation has to keep: names of values, and tags."""
    return set(re.findall(r"%\(\w+\)s|</?\w[^>]*>", text))


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.parts[-3])
def test_a_catalogue_has_every_text_translated_and_no_other(path: Path, texts: Catalog) -> None:
    catalogue = read(path)
    known = {message.id for message in catalogue if message.id}
    wanted = {message.id for message in texts if message.id}

    assert wanted - known == set(), "run make translations, and translate what is empty"
    assert known - wanted == set(), "run make translations"
    for message in catalogue:
        ids, strings = ([each] if isinstance(each, str) else list(each) for each in (message.id, message.string))
        if not message.id:
            continue
        assert all(strings), message.id
        assert len(strings) == (1 if len(ids) == 1 else catalogue.num_plurals), message.id
        assert all(values(each) <= values(ids[-1]) for each in strings), message.id
        assert values(strings[-1]) == values(ids[-1]), message.id


@pytest.mark.parametrize("path", sources(), ids=lambda path: path.parts[-3])
def test_every_letter_is_translated_with_its_values(path: Path) -> None:
    for name in LETTERS:
        english, other = ((OWN_LETTERS / f"{name}{each}.txt").read_text() for each in ("", f".{path.parts[-3]}"))
        assert set(re.findall(r"\$\w+", other)) == set(re.findall(r"\$\w+", english)), name
