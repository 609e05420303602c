"""The browser and the system in a User-Agent header."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.user_agent import agent

MOZILLA = "Mozilla/5.0"
WEBKIT = "AppleWebKit/537.36 (KHTML, like Gecko)"
BROWSERS = {"Firefox", "Chrome", "Safari", "Edge", "Other"}
SYSTEMS = {"Windows", "macOS", "Linux", "Android", "iOS", "Other"}


@pytest.mark.parametrize(
    ("header", "browser", "system"),
    [
        (f"{MOZILLA} (Windows NT 10.0; Win64; x64; rv:140.0) Gecko/20100101 Firefox/140.0", "Firefox", "Windows"),
        (f"{MOZILLA} (Android 15; Mobile; rv:140.0) Gecko/140.0 Firefox/140.0", "Firefox", "Android"),
        (f"{MOZILLA} (X11; Linux x86_64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36", "Chrome", "Linux"),
        (f"{MOZILLA} (Linux; Android 10; K) {WEBKIT} Chrome/140.0.0.0 Mobile Safari/537.36", "Chrome", "Android"),
        (f"{MOZILLA} (Windows NT 10.0) {WEBKIT} Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0", "Edge", "Windows"),
        (f"{MOZILLA} (Macintosh; Intel Mac OS X 10_15_7) {WEBKIT} Version/18.0 Safari/605.1.15", "Safari", "macOS"),
        (f"{MOZILLA} (iPhone; CPU iPhone OS 18_0 like Mac OS X) {WEBKIT} Version/18.0 Safari/604.1", "Safari", "iOS"),
        (f"{MOZILLA} (iPad; CPU OS 18_0 like Mac OS X) {WEBKIT} CriOS/140.0 Safari/604.1", "Chrome", "iOS"),
        (f"{MOZILLA} (X11; Linux x86_64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36 OPR/120.0", "Other", "Linux"),
        (f"{MOZILLA} (X11; CrOS x86_64) {WEBKIT} Chrome/140.0.0.0 Safari/537.36", "Chrome", "Other"),
        ("curl/8.0", "Other", "Other"),
        ("", "Other", "Other"),
    ],
)
def test_a_header_names_a_browser_and_a_system(header: str, browser: str, system: str) -> None:
    assert agent(header) == (browser, system)


@given(st.text())
def test_nothing_of_the_header_itself_is_kept(header: str) -> None:
    browser, system = agent(header)
    assert browser in BROWSERS
    assert system in SYSTEMS
