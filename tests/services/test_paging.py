"""Pages of long tables: their rows, and a count that stops some pages ahead."""

import pytest
from sqlalchemy import insert, select
from sqlalchemy.orm import Session

from portal.models import AccountChange
from portal.services import paging
from tests.factories import NOW


@pytest.mark.parametrize(
    ("number", "first", "last", "count", "has_more", "last_page"),
    [
        (1, 1, 50, 500, True, 10),
        (2, 51, 100, 550, True, 11),
        (4, 151, 200, 620, False, 13),
        (13, 601, 620, 620, False, 13),
        (14, 651, 650, 620, False, 13),
    ],
)
def test_a_page_has_its_rows_and_a_count_of_the_pages_ahead(
    session: Session, number: int, first: int, last: int, count: int, has_more: bool, last_page: int
) -> None:
    line = {"at": NOW, "user_id": 1, "username": "alice", "what": "made", "actor": "bob", "old": "", "new": ""}
    session.execute(insert(AccountChange), [line] * 620)
    session.commit()
    query = select(AccountChange.id).order_by(AccountChange.id.desc())
    found = paging.page(session, query, lambda row: row.id, number=number)
    top = max(session.scalars(select(AccountChange.id)))
    session.rollback()

    assert found.rows == tuple(range(top - first + 1, top - last, -1))
    assert (found.first, found.last, found.count) == (first, last, count)
    assert (found.has_more, found.last_page) == (has_more, last_page)
