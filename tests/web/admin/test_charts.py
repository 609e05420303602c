"""The lines of charts and their axes."""

import pytest

from portal.web.admin.charts import area, axis, difference, path


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], ""),
        ([None, None], ""),
        ([7], "M0.0 12.0"),
        ([5, 5], "M0.0 20.0 L100.0 20.0"),
        ([0, 10], "M0.0 40.0 L100.0 0.0"),
        ([0, None, 10], "M0.0 40.0 M100.0 0.0"),
        ([0, 5, None, 10, 10], "M0.0 40.0 L25.0 20.0 M75.0 0.0 L100.0 0.0"),
    ],
)
def test_a_line_goes_from_zero_to_the_end_of_the_axis_and_pauses_where_nothing_is_known(
    values: list[int | None], expected: str
) -> None:
    assert path(values, 10) == expected


def test_what_is_beneath_a_line_ends_at_zero() -> None:
    assert area([5, 10, None, 5, 5], 10) == (
        "M0.0 20.0 L25.0 0.0 L25.0 40 L0.0 40 Z M75.0 20.0 L100.0 20.0 L100.0 40 L75.0 40 Z"
    )


@pytest.mark.parametrize(
    ("highest", "expected"),
    [(0, 10), (10, 10), (11, 12), (13, 15), (81, 100), (100, 100), (101, 120), (558, 600), (4602, 5000)],
)
def test_an_axis_ends_at_a_round_number_that_no_value_exceeds(highest: int, expected: int) -> None:
    assert axis(highest) == expected


@pytest.mark.parametrize(("number", "expected"), [(1332, "+1,332"), (-61, "\N{MINUS SIGN}61"), (0, "±0")])
def test_a_difference_has_its_sign(number: int, expected: str) -> None:
    assert difference(number) == expected
