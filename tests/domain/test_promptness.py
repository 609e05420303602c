"""How soon changes are carried out, judged by recent runs."""

from datetime import timedelta

import pytest

from portal.domain.promptness import prompt_lists

QUICK, SLOW, NEVER = timedelta(seconds=50), timedelta(minutes=6), None


@pytest.mark.parametrize(
    ("waits", "prompt"),
    [
        ({}, set()),
        ({"members": [QUICK]}, {"members", "tech"}),  # the other list is judged by this one
        ({"members": [QUICK], "tech": [SLOW]}, {"members"}),
        ({"members": [QUICK] * 9 + [SLOW], "tech": [QUICK] * 8 + [NEVER]}, {"members"}),
        ({"members": [timedelta(minutes=5)], "tech": [NEVER]}, {"members"}),
        ({"gone": [NEVER], "other": [QUICK]}, set()),
    ],
)
def test_a_list_is_prompt_where_nine_of_ten_of_its_runs_were(waits, prompt):
    assert prompt_lists(["members", "tech"], waits) == prompt
