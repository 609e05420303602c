"""How names are searched."""

import pytest

from portal.domain.search_text import matches


@pytest.mark.parametrize(
    ("text", "is_found"),
    [("", True), ("ZURICH", True), ("west zür", True), ("genève", True), ("zurich oslo", False), ("x", False)],
)
def test_each_word_is_somewhere_whatever_its_case_accents_and_place(text: str, is_found: bool) -> None:
    assert matches(text, "Zürich", "West. Geneve") is is_found
