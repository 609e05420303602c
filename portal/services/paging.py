"""Numbered pages of tables that grow for years. The count stops a few pages ahead, so no page reads a whole table."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Select, func, literal, select
from sqlalchemy.orm import Session

from portal.services.transaction import reading

SIZE = 50  # rows on a page
LAST_PAGE = 1_000  # a page further on would have to skip too many rows
_AHEAD = 9  # pages that are counted after the one shown

Row = TypeVar("Row")


@dataclass(frozen=True)
class Paged(Generic[Row]):
    """A page of rows. ``count`` is the number of rows, a lower bound if ``has_more``."""

    rows: tuple[Row, ...]
    number: int
    count: int
    has_more: bool

    @property
    def first(self) -> int:
        """The position of the page's first row among all rows, from 1."""
        return (self.number - 1) * SIZE + 1

    @property
    def last(self) -> int:
        """The position of the page's last row among all rows."""
        return self.first + len(self.rows) - 1

    @property
    def last_page(self) -> int:
        """The number of the last page that is counted."""
        return -(-self.count // SIZE)


def page(session: Session, query: Select[Any], row: Callable[[Any], Row], *, number: int) -> Paged[Row]:
    """Return a page of an ordered query, counted from 1; ``row`` converts each row."""
    most = min(number + _AHEAD, LAST_PAGE) * SIZE
    ones = query.with_only_columns(literal(1), maintain_column_froms=True).order_by(None).limit(most + 1)
    with reading(session):
        rows = tuple(map(row, session.execute(query.limit(SIZE).offset((number - 1) * SIZE))))
        count = session.scalars(select(func.count()).select_from(ones.subquery())).one()
    return Paged(rows, number, min(count, most), has_more=count > most)
