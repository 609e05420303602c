"""The browser and the system that a User-Agent header names, in broad families."""

from typing import NamedTuple

OTHER = "Other"

# The first family whose mark is in the header wins. Edge also claims to be Chrome, and Chrome to be Safari.
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
    """A browser family and a system family, never text of the header itself."""

    browser: str
    system: str


def agent(header: str) -> Agent:
    """Return the families that a User-Agent header names; Other if unknown."""
    return Agent(_first(_BROWSERS, header), _first(_SYSTEMS, header))


def _first(families: tuple[tuple[str, tuple[str, ...]], ...], header: str) -> str:
    return next((name for name, marks in families if any(mark in header for mark in marks)), OTHER)
