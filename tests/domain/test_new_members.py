"""Which new members a list subscribes: SEMANTICS, The merge, rule 1."""

import pytest

from portal.domain.new_members import Newcomer, to_subscribe

ALICE = Newcomer(1, frozenset({"alice@example.org", "former@example.org"}))
BOB = Newcomer(2, frozenset({"bob@example.org"}))


@pytest.mark.parametrize(
    ("known", "roster", "subscribed"),
    [
        ((), (), {1, 2}),
        (("former@example.org",), (), {2}),
        (("bob@example.org",), ("alice@example.org",), set()),
        (("nobody@example.org",), ("stranger@example.net",), {1, 2}),
    ],
)
def test_nobody_of_whom_an_address_is_on_the_list_or_in_its_history(known, roster, subscribed):
    assert to_subscribe([ALICE, BOB], known=known, roster=roster) == subscribed


def test_a_mailbox_that_two_newcomers_share_is_subscribed_once():
    assert to_subscribe([BOB, BOB], known=(), roster=()) == {2}
