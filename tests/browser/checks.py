"""What every page must be, whoever looks at it and however wide it is."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# What is pressed: 44 px high in forms, titles and the menu; 32 px in filters and rows, and 40 px where a finger does it.
# Links in sentences are as high as their line, and axe measures the others: 24 px.
SMALL = """() => {
    const finger = matchMedia('(pointer: coarse)').matches, dense = '.small, .filters *, .bulk *, .pages *';
    const pressed = 'nav.main a, button, .button, input:not([type=hidden], [type=checkbox], [hidden]), select';
    return [...document.querySelectorAll(pressed)].filter(each => each.checkVisibility())
        .filter(each => each.getBoundingClientRect().height < (!each.matches(dense) ? 43.9 : finger ? 39.9 : 31.9))
        .map(each => each.outerHTML.slice(0, 120)); }"""
HEIGHT = "document.documentElement.scrollHeight"
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


@contextmanager
def as_high_as_it_is(page: Any) -> Iterator[None]:
    """Give a page a window in which nothing of it is scrolled out of sight."""
    size = page.viewport_size
    page.set_viewport_size({**size, "height": max(size["height"], page.evaluate(HEIGHT))})
    yield
    page.set_viewport_size(size)


def check(page: Any) -> None:
    """Nothing that axe finds, nothing sideways, nothing too small to press."""
    from axe_playwright_python.sync_playwright import Axe

    with as_high_as_it_is(page):  # what is half beneath a bar that sticks to the window is not too small
        found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate(OVERFLOW) == 0
    small = page.evaluate(SMALL)
    assert not small, small
