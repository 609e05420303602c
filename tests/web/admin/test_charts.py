"""The line of a chart."""

import pytest

from portal.web.admin.charts import path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([None, None], ""),
        ([7], "M0.0 15.0"),
        ([5, 5], "M0.0 15.0 L100.0 15.0"),
        ([0, 10], "M0.0 28.0 L100.0 2.0"),
        ([0, None, 10], "M0.0 28.0 M100.0 2.0"),
        ([0, 5, 10], "M0.0 28.0 L50.0 15.0 L100.0 2.0"),
    ],
)
def test_a_line_goes_from_the_lowest_to_the_highest_and_pauses_where_nothing_is_known(
    values: list[int | None], expected: str
) -> None:
    assert path(values) == expected
