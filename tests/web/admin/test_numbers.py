"""Numbers for a board in the browser, and as files."""

import csv
import io
import json

import pytest
from sqlalchemy.orm import Session

from tests.conftest import Clock
from tests.web.admin.test_lists import make_run
from tests.web.conftest import Visitor


@pytest.fixture(autouse=True)
def run(session: Session, clock: Clock) -> None:
    clock.advance(days=-70)
    for number in range(3):
        make_run(session, clock, "members", on_roster=1200 + number)
        clock.advance(days=35)
    clock.advance(days=-35)


def test_numbers_are_drawn_from_three_on_with_a_table_beside(bob: Visitor) -> None:
    page = bob.get("/admin/numbers")
    assert "Nov 2026 1,202 0 0 0" in page.text
    assert "Subscribers: from 1,200 to 1,202" in page.html
    assert "once there are three" not in page.text
    year = bob.get("/admin/numbers?by=year&list=members")
    assert "2026 1,202 0 0 0" in year.text
    assert "<svg" not in year.html
    assert "Charts appear here once there are three periods." in year.text


def test_numbers_are_downloaded(bob: Visitor) -> None:
    response = bob.client.get("/admin/numbers/export?by=month")
    assert response.headers["Content-Disposition"] == 'attachment; filename="numbers-by-month-2026-11-22.csv"'
    rows = list(csv.DictReader(io.StringIO(response.data.decode("utf-8-sig"))))
    assert rows[-1] == {
        "from": "2026-11-01",
        "subscribers": "1202",
        "joined": "0",
        "left": "0",
        "people_making_changes": "0",
    }
    (only,) = json.loads(bob.client.get("/admin/numbers/export?by=year&list=tech&format=json").text)
    assert only["subscribers"] is None


@pytest.mark.parametrize("query", ["by=day", "list=nothing", "by=%00"])
def test_what_no_link_asks_for_leads_back_to_the_page(bob: Visitor, query: str) -> None:
    for path in ("/admin/numbers", "/admin/numbers/export"):
        assert bob.client.get(f"{path}?{query}").headers["Location"] == "/admin/numbers"


def test_numbers_are_for_superusers(alice: Visitor) -> None:
    for path in ("/admin/numbers", "/admin/numbers/export"):
        alice.get(path, 403)
