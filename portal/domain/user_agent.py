"""The browser and the system that a User-Agent header names, as far as people tell them apart."""

from typing import NamedTuple

OTHER = "Other"

# The first whose mark is in the header. The order matters: Edge says that it is Chrome, and Chrome that it is Safari.
_BROWSERS = (
    ("Edge", ("Edg/", "EdgA/", "EdgiOS/", "Edge/")),
    (OTHER, ("OPR/", "SamsungBrowser/", "Vivaldi/", "YaBrowser/")),
    ("Firefox", ("Firefox/", "FxiOS/")),
    ("Chrome", ("Chrome/", "Chromium/", "CriOS/")),
    ("Safari", ("Safari/",)),
)
_SYSTEMS = (
    ("iOS", ("iPhone", "iPad", "iPod")),
    ("Android", ("Android",)),
    ("Windows", ("Windows",)),
    ("macOS", ("Macintosh", "Mac OS X")),
    (OTHER, ("CrOS",)),
    ("Linux", ("Linux", "X11")),
)


class Agent(NamedTuple):
    """A browser family and a system family: never a word of the header itself."""

    browser: str
    system: str


def agent(header: str) -> Agent:
    """Return the families that a User-Agent header names; what is not known is Other."""
    return Agent(_first(_BROWSERS, header), _first(_SYSTEMS, header))


def _first(families: tuple[tuple[str, tuple[str, ...]], ...], header: str) -> str:
    return next((name for name, marks in families if any(mark in header for mark in marks)), OTHER)
