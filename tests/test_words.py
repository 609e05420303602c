"""One word for one thing, in plain English: docs/glossary.md, and words to avoid."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from flask import Flask

ROOT = Path(__file__).parents[1]
PORTAL = ROOT / "portal"
GLOSSARY = ROOT / "docs" / "glossary.md"
PAGES = [*ROOT.glob("*.md"), *(ROOT / "instance").glob("*.example"), *(ROOT / "docs").rglob("*.md")]
DOCS = sorted(path for path in PAGES if "adr" not in path.parts)
TEMPLATES = sorted(path for path in (PORTAL / "templates").rglob("*") if path.is_file())
SOURCES = sorted(path for path in PORTAL.rglob("*.py") if "migrations" not in path.parts)

# What is not written, and what is.
NOT_WRITTEN = {
    r"whoever": "anyone who, the user who",
    r"nobody's": "someone else's, without an account",
    r"told": "shown, reported, asked",
    r"(is|are|stands?|stood) told|stands? here": "is listed here",
    r"came of": "happened to, the outcome",
    r"anew": "again",
    r"at work": "running",
    r"mend(s|ed|ing)?": "fix",
    r"deeds?": "action",
    r"(a|the|your|standing) yes|(say|says|said|saying) yes to|say yes": "approval, approve, confirm",
    r"needs a yes": "needs approval",
    r"nobody takes it": "not picked up",
    r"(address|line) is like that": "no matching addresses",
    r"what to do with (all|this)": "bulk actions",
    r"in step": "up to date, out of sync",
    r"strangers?": "subscriber without an account",
    r"brakes?": "safety limit",
    r"did not do it": "could not add, refused it",
    r"(had been|has been|been) looked after": "completed",
    r"once more": "again, repeat",
}
BAD = re.compile(rf"\b({'|'.join(NOT_WRITTEN)})\b", re.IGNORECASE)


def found_in(text: str) -> list[str]:
    """Return the words of a text that are not written, those of addresses and of line breaks aside."""
    return [found[0] for found in BAD.finditer(" ".join(re.sub(r"\S+@\S+", "", text).split()))]


def visible(template: str) -> str:
    """Return a template without the names of classes, which nobody reads."""
    return re.sub(r"class=\"[^\"]*\"", "", template)


def messages(path: Path) -> Iterator[tuple[int, str]]:
    """Yield the texts in a file that may reach people: its literals of several words, docstrings aside."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or id(node) in documentation:
            continue
        if isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def helps(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield the help of every command of the portal's own, its options' too."""
    for name, group in app.cli.commands.items():
        if name == "db":  # Flask-Migrate's
            continue
        commands = {name: group}
        if isinstance(group, click.Group):
            commands |= {f"{name} {each}": command for each, command in group.commands.items()}
        for called, command in commands.items():
            context = click.Context(command, info_name=called)
            yield called, command.get_help(context)


@pytest.mark.parametrize("path", DOCS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_document_is_in_plain_english(path: Path) -> None:
    assert found_in(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(PORTAL)))
def test_a_template_is_in_plain_english(path: Path) -> None:
    assert found_in(visible(path.read_text(encoding="utf-8"))) == []


def test_messages_are_in_plain_english() -> None:
    assert [
        (str(path.relative_to(ROOT)), line, word)
        for path in SOURCES
        for line, text in messages(path)
        for word in found_in(text)
    ] == []


def test_the_help_of_commands_is_in_plain_english(app: Flask) -> None:
    texts = dict(helps(app))

    assert {"mailinglist sync", "user create", "apikey revoke", "demo"} <= set(texts)
    assert {name: words for name, text in texts.items() if (words := found_in(text))} == {}


def terms() -> list[str]:
    """Return the terms of the glossary."""
    firsts = re.findall(r"^\| (.+?) \|", GLOSSARY.read_text(encoding="utf-8"), re.MULTILINE)
    return [term for first in firsts for term in first.split(", ") if term not in {"term", "---"}]


def test_each_term_is_in_the_glossary_once() -> None:
    assert len(terms()) > 30
    assert len(terms()) == len(set(terms()))


def test_each_term_of_the_glossary_is_used_on_a_page_or_by_a_command(app: Flask) -> None:
    texts = [path.read_text(encoding="utf-8") for path in (*TEMPLATES, *DOCS) if path != GLOSSARY]
    used = " ".join(" ".join((*texts, *dict(helps(app)).values())).lower().split())

    assert [term for term in terms() if not re.search(rf"\b{re.escape(term)}s?\b", used)] == []
