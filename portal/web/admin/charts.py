"""Sparklines as SVG paths in a box of 100 by 40; the axis begins at zero."""

from collections.abc import Sequence

from flask import Flask

WIDTH, HEIGHT = 100, 40
_TOPS = (10, 12, 15, 20, 30, 40, 50, 60, 80, 100)  # and their multiples by powers of ten


def prepare(app: Flask) -> None:
    """Add the filters ``axis``, ``path``, ``area`` and ``difference`` to the templates."""
    app.jinja_env.filters.update(axis=axis, path=path, area=area, difference=difference)


def axis(highest: int) -> int:
    """Return the end of an axis that begins at zero and contains a value: a round number."""
    tens: int = 10 ** max(len(str(highest)) - 2, 0)
    return next(top for each in _TOPS if (top := each * tens) >= highest)


def path(values: Sequence[int | None], top: int) -> str:
    """Return the path through values at equal distances, with a gap where one is None."""
    return " ".join(_line(points) for points in _stretches(values, top))


def area(values: Sequence[int | None], top: int) -> str:
    """Return the path around the area below that line."""
    return " ".join(
        f"{_line(points)} L{points[-1][0]:.1f} {HEIGHT} L{points[0][0]:.1f} {HEIGHT} Z"
        for points in _stretches(values, top)
    )


def difference(number: int) -> str:
    """Return a difference with its sign."""
    return f"{number:+,}".replace("-", "\N{MINUS SIGN}") if number else "±0"


def _line(points: Sequence[tuple[float, float]]) -> str:
    return "M" + " L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def _stretches(values: Sequence[int | None], top: int) -> list[list[tuple[float, float]]]:
    """Return the points of the values, one list for each stretch without None."""
    step = WIDTH / max(len(values) - 1, 1)
    found: list[list[tuple[float, float]]] = [[]]
    for number, value in enumerate(values):
        if value is None:
            found.append([])
        else:
            found[-1].append((number * step, HEIGHT * (1 - value / top)))
    return [points for points in found if points]
