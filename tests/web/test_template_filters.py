"""What templates compute: the numbers of pages."""

import pytest

from portal.web.template_filters import page_numbers


@pytest.mark.parametrize(
    ("number", "last", "expected"),
    [
        (1, 1, [1]),
        (1, 94, [1, 2, None, 94]),
        (4, 94, [1, 2, 3, 4, 5, None, 94]),
        (5, 94, [1, None, 4, 5, 6, None, 94]),
        (94, 94, [1, None, 93, 94]),
    ],
)
def test_pages_are_linked_from_the_first_to_the_last_around_the_one_that_is_shown(
    number: int, last: int, expected: list[int | None]
) -> None:
    assert page_numbers(number, last) == expected
