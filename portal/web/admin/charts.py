"""The shape of a line in a small picture, made on the server: an SVG path in a box of 100 by 30."""

from collections.abc import Sequence

from flask import Flask

WIDTH, HEIGHT = 100, 30
_MARGIN = 2  # so that the line is not cut where it is lowest and highest


def prepare(app: Flask) -> None:
    """Give templates the filter ``path``."""
    app.jinja_env.filters.update(path=path)


def path(values: Sequence[int | None]) -> str:
    """Return the path through values at equal distances, the lowest at the bottom; it pauses where one is None."""
    known = [each for each in values if each is not None]
    low, span = min(known, default=0), max(known, default=0) - min(known, default=0)
    step = WIDTH / max(len(values) - 1, 1)
    parts, pen = [], "M"
    for number, value in enumerate(values):
        if value is None:
            pen = "M"
            continue
        share = (value - low) / span if span else 0.5
        parts.append(f"{pen}{number * step:.1f} {HEIGHT - _MARGIN - share * (HEIGHT - 2 * _MARGIN):.1f}")
        pen = "L"
    return " ".join(parts)
