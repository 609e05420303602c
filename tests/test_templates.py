"""House rules of templates and the stylesheet."""

import re
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import StrictUndefined, UndefinedError

PORTAL = Path(__file__).parents[1] / "portal"
TEMPLATES = sorted((PORTAL / "templates").rglob("*.html"))
STYLESHEET = PORTAL / "static" / "portal.css"


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_template_compiles(app: Flask, path: Path) -> None:
    app.jinja_env.get_template(path.relative_to(PORTAL / "templates").as_posix())


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_nothing_is_marked_safe_and_nothing_is_inline(path: Path) -> None:
    text = path.read_text()
    assert not re.search(r"\|\s*safe\b|autoescape|<script|<style|\sstyle=|\son[a-z]+=", text)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.name)
def test_every_page_extends_the_base(path: Path) -> None:
    text = path.read_text()
    is_page = "<h1" in text and path.name != "base.html"
    assert text.startswith('{% extends "base.html" %}') == is_page


@pytest.mark.parametrize("path", sorted(PORTAL.rglob("*.py")), ids=lambda path: path.name)
def test_no_code_renders_text_or_trusts_it(path: Path) -> None:
    assert not re.search(r"render_template_string|Markup\(|\bmarkupsafe\b", path.read_text())


def test_the_words_of_operators_are_not_on_members_pages(app: Flask) -> None:
    for path in TEMPLATES:
        if path.parent.name in {"account", "subscriptions"}:
            text = path.read_text()
            words = re.sub(r"{[{%#].*?[}%#]}", "", text, flags=re.DOTALL)
            translated = str([messages for _, _, messages in app.jinja_env.extract_translations(text)])
            assert not re.search(r"\b(sync|roster|preference|cron)", words + translated, re.IGNORECASE), path.name


def test_an_unknown_name_is_an_error(app: Flask) -> None:
    assert app.jinja_env.undefined is StrictUndefined
    with app.test_request_context(), pytest.raises(UndefinedError):
        app.jinja_env.from_string("{{ nobody_said_what }}").render()


def test_the_stylesheet_is_one_small_file() -> None:
    assert sorted(path.name for path in STYLESHEET.parent.iterdir()) == ["portal.css", "portal.svg"]
    assert STYLESHEET.stat().st_size <= 14_000
    assert "@import" not in STYLESHEET.read_text()


def test_the_stylesheet_uses_no_class_that_no_template_has() -> None:
    pages = " ".join(path.read_text() for path in TEMPLATES)
    rules = re.sub(r"{[^{}]*}|/\*.*?\*/", "", STYLESHEET.read_text(), flags=re.DOTALL)
    for name in set(re.findall(r"\.([a-z][\w-]*)", rules)):
        assert re.search(rf"\b{name}\b", pages), f"no template has the class {name}"
