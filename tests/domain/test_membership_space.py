"""The whole space of one member, and of two who swap, share, marry or have been merged, against the promises."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from portal.domain.membership import Account, Imported, Row, Source
from tests.domain.test_membership import keep_the_promises

X, Y, Z = "x@x", "y@x", "z@x"
FULL = frozenset({"full"})
NONE = frozenset[str]()
# Active; deactivated by an import; by a person.
STATES: tuple[dict[str, Any], ...] = (
    {},
    {"is_active": False, "deactivated_by_import": True},
    {"is_active": False},
)


def accounts_of_one() -> Iterator[list[Account]]:
    yield []
    held = list(product((None, X, Y), ({}, {Z: False}), ({}, {"full": True})))
    roles = [(state, False) for state in STATES] + [(STATES[0], True)]
    for (main, further, groups), (state, role) in product(held, roles):
        values = {"main": main, "further": further, "name": "A", "groups": groups, "has_role": role}
        if "deactivated_by_import" not in state:
            for username, was_unlinked in product(("ann", "ben"), (False, True)):
                yield [Account(1, username, was_unlinked=was_unlinked, **values, **state)]
        for named, address, name, said_groups in product((True, False), (None, X, Y), (None, "A"), (NONE, FULL)):
            said = Imported(named, address, NONE, name, said_groups)
            yield [Account(1, "ann", key="1", imported=said, **values, **state)]


def rows_of_one() -> Iterator[list[Row]]:
    yield []
    yield [Row(2, "1", "ann", is_readable=False)]
    yield [Row(2, None, "ann", is_readable=False)]
    for main, name, groups in product((None, X, Y), (None, "A", "B"), (None, NONE, FULL)):
        yield [Row(2, "1", "ann", main, NONE if main else None, name, groups)]


@pytest.mark.slow
def test_every_import_about_one_member_keeps_the_promises() -> None:
    files = list(rows_of_one())
    for people, rows, follow in product(accounts_of_one(), files, (True, False)):
        keep_the_promises(people, rows, Source(follow), shuffled=rows)


def person(number: int, key: str | None, username: str, **values: Any) -> Iterator[Account]:
    """Yield an account of a member in every state, at an address of their own or another one, whatever was said."""
    for main, said, state in product((X, Y), (X, Y), STATES if key else (STATES[0], STATES[2])):
        last = (
            Imported(named="deactivated_by_import" not in state, address=said, name=values["name"])
            if key
            else Imported()
        )
        yield Account(
            number, username, main, key=key, imported=last, is_username_main=username == main, **values, **state
        )


def rows_of(key: str, username: str, line: int) -> Iterator[list[Row]]:
    yield []
    for main, name in product((X, Y, Z), "AB"):
        yield [Row(line, key, username, main, NONE, name, NONE)]


@pytest.mark.slow
@pytest.mark.parametrize("usernames", [("ann", "ben"), (X, Y)])
@pytest.mark.parametrize("second", ["2", None])
def test_every_import_about_two_who_swap_share_and_marry_keeps_the_promises(
    usernames: tuple[str, str], second: str | None
) -> None:
    files = [one + other for one, other in product(rows_of("1", usernames[0], 2), rows_of("2", usernames[1], 3))]
    pairs = product(person(1, "1", usernames[0], name="A"), person(2, second, usernames[1], name="B"))
    for people, rows in product(pairs, files):
        keep_the_promises(list(people), rows, Source(deactivates_leavers=True), shuffled=rows[::-1])


@pytest.mark.slow
@pytest.mark.parametrize("by_address", [False, True])
def test_every_import_after_a_merge_keeps_the_promises(by_address: bool) -> None:
    """One account holds the addresses of both; the key of the other counts as that of a deleted one, or is free."""
    keys = (X, Y) if by_address else ("1", "2")
    files = [one + other for one, other in product(rows_of(keys[0], "ann", 2), rows_of(keys[1], "ben", 3))]
    if by_address:
        files = [[row for row in rows if row.main == row.key] for rows in files]
    for account, rows, deleted in product(person(1, keys[0], "ann", name="A"), files, ({keys[1]}, ())):
        merged = Account(
            1, "ann", account.main, {(X if account.main == Y else Y): False}, "A", key=keys[0], imported=account.imported,
            is_active=account.is_active, deactivated_by_import=account.deactivated_by_import,
        )  # fmt: skip
        source = Source(deactivates_leavers=True, key_is_address=by_address, deleted_keys=deleted)
        keep_the_promises([merged], rows, source, shuffled=rows[::-1])
