"""The counts of a run, in one order and in words."""

from portal.domain.run import counts_in_words, in_order


def test_all_counts_are_there_in_one_order() -> None:
    assert list(in_order({"held": 2, "added": 1})) == list(in_order({}))
    assert in_order({"added": 1})["removed"] == 0


def test_only_what_happened_is_said_in_words() -> None:
    assert counts_in_words({"held": 2, "added": 1, "removed": 0}) == [(1, "added"), (2, "held back")]
