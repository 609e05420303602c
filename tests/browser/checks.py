"""What every page must be, whoever looks at it and however wide it is."""

from typing import Any

RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
# Everything that is pressed, but for the link that only a keyboard reaches, and boxes, whose label is pressed.
SMALL = """() => [...document.querySelectorAll(
    'a:not(.skip), button, input:not([type=hidden], [type=checkbox], [hidden]), select, label[for^=remember]')]
    .filter(each => each.getBoundingClientRect().height < 43.9).map(each => each.outerHTML.slice(0, 120))"""
OVERFLOW = "document.documentElement.scrollWidth - document.documentElement.clientWidth"


def check(page: Any) -> None:
    """Nothing that axe finds, nothing sideways, nothing too small to press."""
    from axe_playwright_python.sync_playwright import Axe

    found = Axe().run(page, options={"runOnly": RULES, "resultTypes": ["violations"]})
    assert found.violations_count == 0, found.generate_report()
    assert page.evaluate(OVERFLOW) == 0
    small = page.evaluate(SMALL)
    assert not small, small
