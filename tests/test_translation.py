"""Every text for people passes through gettext: portal/translation.py."""

import ast
import re
from collections.abc import Iterator
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path

import pytest
from flask import Flask
from jinja2 import nodes

from portal import translation
from portal.services.accounts.log import MERGED_INTO
from portal.translation import gettext, gettext_stored, lazy_gettext, ngettext

PORTAL = Path(__file__).parents[1] / "portal"
TEMPLATES = sorted((PORTAL / "templates").rglob("*.html"))
SOURCES = sorted(path for path in (PORTAL / "web").rglob("*.py") if "api" not in path.parts)

TRANSLATES = {"_", "gettext", "ngettext", "lazy_gettext"}
READ_ALOUD = {"title", "aria-label", "aria-description", "placeholder", "alt", "data-label"}
LETTERS = re.compile(r"[^\W\d_]")
PROSE = re.compile(
    r"\s\S|^#?[A-Z]"
)  # of the strings in code, those of several words, and those that begin like a label


class Shouting(NullTranslations):
    """A catalogue in which every letter of a text is a capital; names of values and tags stay as they are."""

    def gettext(self, message: str) -> str:
        return re.sub(r"%\(\w+\)[sd]|<[^>]*>|[^%<]+", lambda part: self._shout(part[0]), message)

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return self.gettext(msgid1 if n == 1 else msgid2)

    def _shout(self, part: str) -> str:
        return part if part[0] in "%<" else part.upper()


@pytest.fixture
def shouting(monkeypatch: pytest.MonkeyPatch) -> None:
    """The portal in another language."""
    monkeypatch.setattr(translation, "_ENGLISH", Shouting())


class Texts(HTMLParser):
    """What people read of a page: its texts, code aside, and the attributes that are read aloud."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self._in_code = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._in_code = tag == "code"
        self.found += [value for name, value in attrs if name in READ_ALOUD and value and LETTERS.search(value)]

    def handle_endtag(self, tag: str) -> None:
        self._in_code = False

    def handle_data(self, data: str) -> None:
        if LETTERS.search(data) and not self._in_code:
            self.found.append(data.strip())


def written(node: nodes.Node) -> Iterator[str]:
    """Yield what a template writes itself: its own text, and the strings that an expression may come out as."""
    match node:
        case nodes.TemplateData():
            yield node.data
        case nodes.Const(value=str() as text):
            yield text
        case nodes.CondExpr():
            yield from written(node.expr1)
            yield from written(node.expr2) if node.expr2 else ()
        case nodes.Or() | nodes.And():
            yield from written(node.left)
            yield from written(node.right)
        case nodes.Concat():
            for each in node.nodes:
                yield from written(each)
        case nodes.Extends() | nodes.Import() | nodes.Assign() | nodes.Block(name="width"):  # no text of a page
            pass
        case nodes.Stmt():
            for each in node.iter_child_nodes(exclude=("test", "target", "iter")):
                yield from written(each)


def is_translation(node: nodes.Node) -> bool:
    return isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in TRANSLATES


def strings(node: nodes.Node) -> Iterator[str]:
    """Yield the strings of all expressions that are not handed to a translation."""
    for each in node.iter_child_nodes(exclude=("test",)):
        if isinstance(each, nodes.Const) and isinstance(each.value, str):
            yield each.value
        if not is_translation(each):
            yield from strings(each)


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: str(path.relative_to(PORTAL / "templates")))
def test_a_template_has_no_text_that_is_not_translated(app: Flask, path: Path) -> None:
    tree = app.jinja_env.parse(path.read_text())
    bare = Texts("".join(text for each in tree.body for text in written(each))).found

    assert bare == []
    assert [text for text in strings(tree) if PROSE.search(text.strip())] == []


def untranslated(tree: ast.AST) -> Iterator[str]:
    """Yield the sentences and labels in a module that are no docstrings, no errors and in no translation."""
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Expr(value=ast.Constant()):
                continue
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name != "ValidationError":
                continue
            case ast.Call(func=ast.Name(id=name)) if name in TRANSLATES:
                continue
            case ast.Constant(value=str() as text) if re.search(r"^[A-Z][a-z]+($| [a-z])|[a-z] [a-z]|[a-z]\.$", text):
                yield text
        yield from untranslated(node)


# Of headers, of cookies, of the security log, and of the answer to a monitor.
NOT_FOR_PEOPLE = {
    "Authorization",
    "Lax",
    "Origin",
    "command line",
    "reading asked for",
    "run asked for",
    "not ready\n",
    "not ready: %s",
}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PORTAL)))
def test_no_view_and_no_form_has_a_text_that_is_not_translated(path: Path) -> None:
    assert set(untranslated(ast.parse(path.read_text()))) - NOT_FOR_PEOPLE == set()


@pytest.mark.parametrize(
    ("language", "stored", "shown"),
    [
        ("de", "merged into ada's (old) %", "zusammengeführt mit ada's (old) %"),
        ("de", "it names only 3 of 8 linked accounts", "er nennt nur 3 von 8 verknüpften Konten"),
        ("de", "refused by a list manager", "refused by a list manager"),
        ("en", "merged into ada", "merged into ada"),
    ],
)
def test_a_text_that_was_stored_is_translated_with_its_values(language: str, stored: str, shown: str) -> None:
    with translation.using(language):
        assert gettext_stored(stored, ("it names only %(count)s of %(linked)s linked accounts", MERGED_INTO)) == shown


def test_values_have_names_and_a_count_chooses_the_form() -> None:
    assert gettext("Runs of %(name)s", name="Tech") == "Runs of Tech"
    assert gettext("100% of it") == "100% of it"
    assert [ngettext("%(count)s run", "%(count)s runs", count, count=count) for count in (1, 2)] == ["1 run", "2 runs"]


@pytest.mark.usefixtures("shouting")
def test_a_lazy_text_is_translated_when_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    text = lazy_gettext("Enter at most %(max)s.")

    assert (str(text), text % {"max": 5}, f"{text}") == ("ENTER AT MOST %(max)s.", "ENTER AT MOST 5.", str(text))
    monkeypatch.setattr(translation, "_ENGLISH", NullTranslations())
    assert str(text) == "Enter at most %(max)s."


@pytest.mark.usefixtures("shouting")
def test_a_page_is_in_the_language_in_use_with_its_labels_and_errors(app: Flask) -> None:
    client = app.test_client()
    token = re.search(r'name="csrf_token" value="([^"]*)"', client.get("/login").text)
    assert token
    answer = client.post("/login", data={"csrf_token": token[1], "username": "x" * 255})
    texts = Texts(answer.text).found

    # WTForms' own message, a validator's, a label, and a text of the template.
    assert {
        "FIELD CANNOT BE LONGER THAN 254 CHARACTERS.",
        "ENTER YOUR PASSWORD.",
        "STAY LOGGED IN FOR 30 DAYS",
        "THERE IS A PROBLEM",
    } <= set(texts)
    assert [text for text in texts if text != text.upper() and app.jinja_env.globals["site_name"] not in text] == []


@pytest.mark.usefixtures("shouting")
def test_an_error_is_translated_for_a_page_and_not_for_the_api(app: Flask) -> None:
    page, answer = app.test_client().get("/no-such-page"), app.test_client().get("/api/v1/lists")

    assert "NOT FOUND" in Texts(page.text).found
    assert answer.json is not None
    assert answer.json["title"] == "API key needed"
