"""Every page in a browser: wide, at 320 px and dark; by axe, by mouse and by keyboard."""

import re
from collections.abc import Callable
from typing import Any

import pytest

from tests.browser import stage
from tests.browser.checks import check

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.mark.parametrize("view", stage.VIEWS)
def test_every_page_can_be_used_by_everybody(open_page: Callable[..., Any], url: str, view: str) -> None:
    for who in (None, "alice", "bob"):
        page = open_page(view, who)
        for name in (name for name, (viewer, _) in stage.PAGES.items() if viewer == who):
            stage.go(page, url, name)
            check(page)


@pytest.mark.parametrize("view", stage.VIEWS)
def test_every_message_about_an_error_can_too(open_page: Callable[..., Any], url: str, view: str) -> None:
    page = open_page(view, None)
    page.goto(f"{url}/login")
    page.fill("#username", "alice")
    page.fill("#password", "wrong")
    page.click("main button")
    page.wait_for_selector("#problem")
    check(page)
    page.click("#problem ~ ul a")
    assert page.evaluate("document.activeElement.id") == "username"


@pytest.mark.parametrize("view", ["narrow", "dark"])
def test_what_a_merge_would_do_can_be_read_by_everybody(open_page: Callable[..., Any], url: str, view: str) -> None:
    page = open_page(view, "bob")
    stage.go(page, url, "account-to-be-merged")
    page.click("main button.primary")  # no username is typed: the browser itself says so
    page.fill("#into", "nobody")
    page.click("main button.primary")
    page.wait_for_selector("#problem")
    check(page)
    page.fill("#into", "alice")
    page.click("main button.primary")
    page.wait_for_selector("[data-merge=preview]")
    check(page)


def test_a_list_is_ticked_anywhere_on_its_card(open_page: Callable[..., Any]) -> None:
    page = open_page("narrow", "alice")
    box = page.locator("#list-jobs")
    page.locator("li", has=box).click(position={"x": 150, "y": 60})
    assert box.is_checked()
    page.click("main button")
    page.wait_for_selector("text=You will be added to Jobs.")
    assert box.is_checked()


def test_everything_is_done_by_keyboard(open_page: Callable[..., Any]) -> None:
    page = open_page("wide", "alice")
    page.goto(page.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "list-members"
    page.keyboard.press("Space")
    for _ in range(60):
        page.keyboard.press("Tab")
        covered = page.evaluate(
            """() => { const at = document.activeElement.getBoundingClientRect(), bar = document.querySelector('.bar');
            return !bar.contains(document.activeElement) && at.top >= bar.getBoundingClientRect().top; }"""
        )
        assert not covered, "the focus is beneath the bar with the button"
        if page.evaluate("document.activeElement.textContent") == "Save":
            break
    page.keyboard.press("Enter")
    page.wait_for_selector("text=You will be taken off Members.")


def test_nothing_is_fetched_from_elsewhere(open_page: Callable[..., Any], url: str) -> None:
    page = open_page("wide", "bob")
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    for name in stage.PAGES:
        stage.go(page, url, name)
    assert asked
    assert [each for each in asked if not each.startswith(url)] == []
    assert not any(re.search(r"\.js\b", each) for each in asked)


def test_paper_shows_the_lists_and_no_buttons(open_page: Callable[..., Any]) -> None:
    page = open_page("wide", "alice")
    page.emulate_media(media="print")
    assert page.locator("#list-members").is_visible()
    assert not page.locator("main button").is_visible()
    assert not page.locator("nav").is_visible()
