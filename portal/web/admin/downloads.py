"""Downloads: rows streamed as JSON, or as CSV that spreadsheets do not execute."""

import json
from collections.abc import Iterable, Iterator, Mapping

from flask import Response

from portal.domain.csv_text import BOM, line
from portal.extensions import portal

Row = Mapping[str, object]


def send(blocks: Iterable[list[Row]], *, columns: Iterable[str], kind: str, name: str) -> Response:
    """Return blocks of rows as a file of a ``kind``, csv or json, with today's date in its name."""
    lines, mimetype = (_json(blocks), "application/json") if kind == "json" else (_csv(blocks, columns), "text/csv")
    response = Response(lines, mimetype=mimetype)
    response.headers["Content-Disposition"] = f'attachment; filename="{name}-{portal().clock():%Y-%m-%d}.{kind}"'
    return response


def _csv(blocks: Iterable[list[Row]], columns: Iterable[str]) -> Iterator[str]:
    yield BOM + line(columns)
    for block in blocks:
        yield "".join(line(map(_cell, row.values())) for row in block)


def _cell(value: object) -> str | None:
    if isinstance(value, list):
        return "; ".join(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)


def _json(blocks: Iterable[list[Row]]) -> Iterator[str]:
    before = "[\n"
    for block in filter(None, blocks):
        yield before + ",\n".join(json.dumps(dict(row), ensure_ascii=False) for row in block)
        before = ",\n"
    yield "[]\n" if before == "[\n" else "\n]\n"
