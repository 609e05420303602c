"""What the look promises: one grid, a marked menu, whole words, rows in sight, and a small bar to save with."""

from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import stage
from tests.browser.checks import OVERFLOW

pytestmark = [pytest.mark.browser, pytest.mark.slow]

EDGES = """() => [...document.querySelectorAll('header.site > .page, main, footer.site > .page')].map(each => {
    const box = each.getBoundingClientRect(); return [box.left, box.right].join(' to '); })"""
# Words and short addresses in several lines, except words that are longer than the places that they are in.
BROKEN = """() => {
    const found = [], texts = document.createTreeWalker(document.querySelector('main'), NodeFilter.SHOW_TEXT);
    while (texts.nextNode()) {
        const text = texts.currentNode;
        if (!text.parentElement.checkVisibility() || text.parentElement.closest('.mail, .unseen, code, option')) continue;
        for (const short of text.data.matchAll(/[\\p{L}\\p{N}.]+@[\\p{L}\\p{N}.]+/gu)) {
            const range = document.createRange();
            range.setStart(text, short.index); range.setEnd(text, short.index + short[0].length);
            if (short[0].length < 25 && new Set([...range.getClientRects()].map(box => box.top)).size > 1) found.push(short[0]);
        }
        for (const word of text.data.matchAll(/[\\p{L}\\p{N}]{2,24}(?![\\p{L}\\p{N}@.])/gu)) {
            if (word.index && /[\\p{L}\\p{N}@.]/u.test(text.data[word.index - 1])) continue;
            const range = document.createRange();
            range.setStart(text, word.index); range.setEnd(text, word.index + word[0].length);
            if (new Set([...range.getClientRects()].map(box => box.top)).size > 1) found.push(word[0]);
        }
    }
    return found; }"""
MARKED = "() => [...document.querySelectorAll('nav.main [aria-current]')].map(each => each.textContent)"
SECTIONS = {
    "/subscriptions": "Your lists", "/account": "Account", "/admin/runs": "Runs", "/admin/users": "People",
    "/admin/search": "Search", "/admin/api-keys": "API keys", "/admin/": "Reports",
}  # fmt: skip


def section(path: str) -> str | None:
    """Return the words of the menu for the section of a path, None where there is none."""
    return next((words for start, words in SECTIONS.items() if path.startswith(start)), None)


@pytest.mark.parametrize("view", ["wide", "narrow", "middle"])
def test_every_page_has_one_grid_a_marked_section_and_whole_words(
    open_page: Callable[..., Any], url: str, view: str
) -> None:
    for who in (None, "alice", "bob"):
        page = open_page(view, who)
        for name, (viewer, path) in stage.PAGES.items():
            if viewer != who:
                continue
            stage.go(page, url, name)
            edges = set(page.evaluate(EDGES))
            assert len(edges) == 1, (name, edges)
            assert page.evaluate(BROKEN) == [], name
            if name not in {"not-allowed", "not-found"}:
                assert page.evaluate(MARKED) == [words for words in [section(path)] if words], name


def test_nothing_scrolls_sideways_at_400_percent(open_page: Callable[..., Any], url: str) -> None:
    page = open_page("narrow", "bob")
    page.set_viewport_size({"width": 320, "height": 256})  # a window of 1280 by 1024
    for name in (name for name, (viewer, _) in stage.PAGES.items() if viewer == "bob"):
        stage.go(page, url, name)
        assert page.evaluate(OVERFLOW) == 0, name


@pytest.mark.parametrize("width", [881, 1280, 1920])
def test_the_menu_of_superusers_is_one_line_on_a_wide_window(open_page: Callable[..., Any], width: int) -> None:
    page = open_page("wide", "bob")
    page.set_viewport_size({"width": width, "height": 800})
    assert not page.locator("summary", has_text="Menu").is_visible()
    tops = {each.bounding_box()["y"] for each in page.locator("nav.main a").all()}
    assert len(tops) == 1
    assert page.locator("header.site").bounding_box()["height"] < 60


def test_the_menu_of_superusers_is_behind_a_button_on_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page("narrow", "bob")
    reports = page.get_by_role("link", name="Reports")
    assert not reports.is_visible()
    page.get_by_text("Menu", exact=True).click()
    reports.click()
    page.wait_for_url("**/admin/")


def test_the_rows_of_a_list_are_in_sight_and_four_tabs_away(open_page: Callable[..., Any], url: str) -> None:
    page = open_page("wide", "bob")
    page.set_viewport_size({"width": 1280, "height": 800})
    for path in ("/admin/lists/social", "/admin/lists/members", "/admin/users"):
        page.goto(url + path)
        assert page.locator("#rows tr").first.bounding_box()["y"] < 800, path
        for key in ("Tab", "Tab", "Enter", "Tab"):
            page.keyboard.press(key)
        assert page.evaluate("document.activeElement.closest('#rows tr') !== null"), path


def test_the_bar_to_save_with_takes_at_most_a_tenth_of_a_phone(open_page: Callable[..., Any]) -> None:
    page = open_page("narrow", "alice")
    for language, words in (("en", "on some lists sooner"), ("de", "teils früher")):
        page.context.set_extra_http_headers({"Accept-Language": language})
        page.reload()
        assert words in page.locator(".bar").inner_text()
        for width, height in ((390, 844), (320, 568)):
            page.set_viewport_size({"width": width, "height": height})
            assert page.locator(".bar").bounding_box()["height"] <= height / 10
    page.set_viewport_size({"width": 640, "height": 320})  # a phone on its side
    assert page.locator(".bar").evaluate("each => getComputedStyle(each).position") == "static"


def test_text_at_twice_its_size_fits_on_a_phone(open_page: Callable[..., Any], url: str) -> None:
    page = open_page("narrow", "alice")
    page.set_viewport_size({"width": 360, "height": 740})
    page.context.set_extra_http_headers({"Accept-Language": "de"})
    for name in (name for name, (viewer, _) in stage.PAGES.items() if viewer == "alice"):
        stage.go(page, url, name)
        page.evaluate("document.documentElement.style.fontSize = '200%'")
        assert page.evaluate(OVERFLOW) == 0, name


def test_german_fits_on_a_phone_with_its_longer_words(open_page: Callable[..., Any], url: str) -> None:
    for who in ("alice", "bob"):
        page = open_page("narrow", who)
        page.context.set_extra_http_headers({"Accept-Language": "de"})
        for name in (name for name, (viewer, _) in stage.PAGES.items() if viewer == who):
            stage.go(page, url, name)
            assert page.evaluate("document.documentElement.lang") == "de"
            assert page.evaluate(OVERFLOW) == 0, name
            assert page.evaluate(BROKEN) == [], name


def test_a_page_has_at_most_one_primary_button(open_page: Callable[..., Any], url: str) -> None:
    for who in (None, "alice", "bob"):
        page = open_page("wide", who)
        for name in (name for name, (viewer, _) in stage.PAGES.items() if viewer == who):
            stage.go(page, url, name)
            assert page.locator(".primary").count() <= 1, name
