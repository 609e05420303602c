"""The import of members, decided: docs/people.md, "The import"."""

from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.domain.membership import (
    Account,
    Action,
    Changes,
    Imported,
    Limits,
    LinkedAccount,
    Plan,
    Row,
    Source,
    Why,
)
from portal.domain.membership_planner import plan_if_unchanged, plan_import

FOLLOW = Source(deactivates_leavers=True)
KEEP = Source()
LINES = count(2)


def row(key: str | None, username: str | None = None, main: str | None = None, **more: Any) -> Row:
    more = {"line": next(LINES), "name": None, **more}
    for name in ("further", "groups"):
        if more.get(name) is not None:
            more[name] = frozenset(more[name])
    return Row(key=key, username_key=username or key or "", main=main, **more)


def local(number: int, username: str, main: str | None = None, **more: Any) -> Account:
    return Account(number, username, main, is_username_main=username == main, **more)


def linked(number: int, key: str, username: str | None = None, main: str | None = None, **more: Any) -> Account:
    imported = more.pop(
        "imported", Imported(named=True, address=main, name=more.get("name"), groups=frozenset(more.get("groups", ())))
    )
    return local(number, username or key, main, key=key, imported=imported, **more)


def decided(plan: Plan) -> set[tuple[str, str | None, int | None, Why | None]]:
    """Return action, key, account and reason of what is decided, what changes nothing left out."""
    return {
        (str(each.action), each.row and each.row.key, each.account and each.account.id, each.why)
        for each in plan.decisions
        if each.writes or each.why
    }


def if_unchanged(rows: list[Row], people: list[Account], source: Source) -> Plan | None:
    linked = {
        each.key: LinkedAccount(each.key, each.is_active, each.has_left, each.imported) for each in people if each.key
    }
    return plan_if_unchanged(rows, linked, source)


def apply(accounts: list[Account], plan: Plan) -> list[Account]:
    """Do what a plan says, as the service does."""
    world = {each.id: each for each in accounts}
    numbers = count(max(world, default=0) + 1)
    for each in plan.decisions:
        if not each.writes:
            continue
        made = each.changes
        if each.action is Action.CREATE:
            assert each.row is not None
            account = Account(next(numbers), each.row.username_key, is_username_main=each.row.username_key == made.main)
        else:
            assert each.account is not None
            account = world[each.account.id]
        further = dict(account.further)
        main = account.main
        if made.main and made.main != account.main:
            further.pop(made.main, None)
            if account.main and account.main not in made.remove_addresses:
                further[account.main] = True
            main = made.main
        for address in made.remove_addresses:
            further.pop(address, None)
        further |= dict.fromkeys(made.add_addresses, True)
        groups = {name: given for name, given in account.groups.items() if name not in made.remove_groups}
        groups |= dict.fromkeys(made.add_groups, True)
        if each.action in {Action.DEACTIVATE, Action.REACTIVATE}:
            account = account._replace(
                is_active=each.action is Action.REACTIVATE,
                deactivated_by_import=each.action is Action.DEACTIVATE,
            )
        world[account.id] = account._replace(
            name=account.name if made.name is None else made.name,
            main=main,
            username_key=made.username_key or account.username_key,
            further=further,
            groups=groups,
            key=made.key or account.key,
            imported=each.imported or account.imported,
        )
    return list(world.values())


# The table, a case a row.


def test_a_new_key_links_the_local_account_that_has_its_username_and_address() -> None:
    ada = local(1, "ada", "ada@x", name="Ada")
    plan = plan_import([row("7", "ada", "ada@x", name="Ada L.", groups={"full"})], [ada], FOLLOW)
    assert decided(plan) == {("link", "7", 1, None)}
    (after,) = apply([ada], plan)
    assert (after.key, after.main, after.name, dict(after.groups)) == ("7", "ada@x", "Ada L.", {"full": True})


def test_a_link_never_activates() -> None:
    ada = local(1, "ada", "ada@x", is_active=False)
    (after,) = apply([ada], plan_import([row("7", "ada", "ada@x")], [ada], FOLLOW))
    assert (after.key, after.is_active) == ("7", False)


def test_a_link_leaves_the_main_address_and_what_a_person_gave() -> None:
    ada = local(1, "ada", "home@x", further={"ada@x": False}, groups={"board": False})
    rows = [row("7", "ada", "ada@x", groups={"full"})]
    after = apply([ada], plan_import(rows, [ada], FOLLOW))
    assert (after[0].main, set(after[0].groups)) == ("home@x", {"board", "full"})
    assert decided(plan_import(rows, after, FOLLOW)) == set()


def test_a_new_key_links_the_one_local_holder_of_its_address() -> None:
    ada = local(1, "countess", "ada@x")
    assert decided(plan_import([row("7", "ada", "ada@x")], [ada], FOLLOW)) == {("link", "7", 1, None)}


@pytest.mark.parametrize(
    ("rows", "others"),
    [
        ([row("7", "ada", "ada@x"), row("8", "bob", "ada@x")], []),  # the address stands in another row
        ([row("7", "ada", "ada@x"), row("8", "bob", "bob@x", further={"ada@x"})], []),
        ([row("7", "ada", "ada@x"), row("8", "countess", "bob@x")], []),  # another row names the account
        ([row("7", "ada", "ada@x")], [local(2, "charlie", "ada@x")]),  # two accounts hold it
        ([row("7", "ada", "ada@x"), Row(10**6, None, "", is_readable=False)], []),  # a key that cannot be read
    ],
)
def test_nobody_is_linked_by_an_address_that_is_in_doubt(rows: list[Row], others: list[Account]) -> None:
    plan = plan_import(rows, [local(1, "countess", "ada@x"), *others], FOLLOW)
    assert not plan.of(Action.LINK)
    assert ("create", "7", None, None) in decided(plan)
    assert ("report", "7", 1, Why.ADDRESS_IS_HELD) in decided(plan)


def test_a_username_of_a_linked_account_is_a_problem_and_that_account_no_leaver() -> None:
    ada = linked(1, "3", "ada", "ada@x")
    plan = plan_import(
        [row("7", "ada", "new@x")], [ada, *(linked(n, f"k{n}", main=f"{n}@x") for n in range(2, 5))], FOLLOW
    )
    assert ("problem", "7", 1, Why.USERNAME_IS_LINKED) in decided(plan)
    assert {each.account.id for each in plan.of(Action.DEACTIVATE) if each.account} == {2, 3, 4}


def test_two_new_rows_with_one_username_are_both_problems() -> None:
    plan = plan_import([row("7", "ada", "a@x"), row("8", "ada", "b@x")], [], FOLLOW)
    assert decided(plan) == {("problem", "7", None, Why.USERNAME_TWICE), ("problem", "8", None, Why.USERNAME_TWICE)}


def test_a_username_of_a_local_account_with_another_address_is_a_problem() -> None:
    plan = plan_import([row("7", "ada", "new@x")], [local(1, "ada", "ada@x")], FOLLOW)
    assert decided(plan) == {("problem", "7", 1, Why.USERNAME_IS_ANOTHERS)}


def test_a_deleted_account_is_not_made_again() -> None:
    plan = plan_import([row("7", "ada", "ada@x")], [], Source(deleted_keys={"7"}))
    assert decided(plan) == {("report", "7", None, Why.DELETED)}


def test_a_new_key_makes_an_account_and_a_local_holder_is_reported() -> None:
    plan = plan_import(
        [row("7", "ada", "ada@x", name="Ada", groups={"full"})], [local(1, "x", "ada@x"), local(2, "y", "ada@x")], KEEP
    )
    assert decided(plan) == {
        ("create", "7", None, None),
        ("report", "7", 1, Why.ADDRESS_IS_HELD),
        ("report", "7", 2, Why.ADDRESS_IS_HELD),
    }
    assert plan.of(Action.CREATE)[0].changes == Changes("Ada", "ada@x", add_groups=frozenset({"full"}), key="7")


def test_what_the_source_says_as_before_changes_nothing_whatever_the_account_holds() -> None:
    ada = linked(1, "7", "ada", "ada@x", name="Ada", groups={"full": True})
    own = ada._replace(main="home@x", name="Ada the First", groups={})
    assert decided(plan_import([row("7", "ada", "ada@x", name="Ada", groups={"full"})], [own], FOLLOW)) == set()


def test_what_the_source_says_anew_is_followed() -> None:
    ada = linked(1, "7", "ada", "ada@x", name="Ada", groups={"full": True, "board": False})
    own = ada._replace(main="home@x")
    (after,) = apply(
        [own], plan_import([row("7", "ada", "king@x", name="Ada King", groups={"associate"})], [own], FOLLOW)
    )
    assert (after.main, after.name, set(after.groups)) == ("king@x", "Ada King", {"associate", "board"})
    assert "home@x" not in after.addresses


def test_a_group_that_a_person_gave_stays_when_the_source_says_it_no_longer() -> None:
    ada = linked(1, "7", "ada", "ada@x", groups={"full": False})
    (after,) = apply([ada], plan_import([row("7", "ada", "ada@x", groups=())], [ada], FOLLOW))
    assert set(after.groups) == {"full"}


def test_further_addresses_are_fields_of_their_own() -> None:
    ada = linked(1, "7", "ada", "ada@x", further={"own@x": False})
    rows = [row("7", "ada", "ada@x", further={"work@x", "own@x"})]
    after = apply([ada], plan_import(rows, [ada], FOLLOW))
    assert after[0].addresses == {"ada@x", "own@x", "work@x"}
    last = apply(after, plan_import([row("7", "ada", "ada@x", further=())], after, FOLLOW))
    assert last[0].addresses == {"ada@x", "own@x"}


def test_main_and_further_address_can_change_places() -> None:
    ada = linked(1, "7", "ada", "ada@x", further={"work@x": True})
    ada = ada._replace(imported=ada.imported._replace(further=frozenset({"work@x"})))
    (after,) = apply([ada], plan_import([row("7", "ada", "work@x", further={"ada@x"})], [ada], FOLLOW))
    assert (after.main, after.addresses) == ("work@x", {"ada@x", "work@x"})


def test_somebody_whom_the_import_deactivated_comes_back() -> None:
    ada = linked(1, "7", "ada", "ada@x", name="Ada")
    gone = apply([ada], plan_import([row("8", "bob", "bob@x")], [ada], FOLLOW))[0]
    assert (gone.is_active, gone.deactivated_by_import) == (False, True)
    plan = plan_import([row("7", "ada", "ada@x", name="Ada")], [gone], FOLLOW)
    assert decided(plan) == {("reactivate", "7", 1, None)}
    assert apply([gone], plan)[0].is_active


@pytest.mark.parametrize("by_import_before", [True, False])
def test_somebody_whom_a_person_deactivated_stays_so_and_is_followed(by_import_before: bool) -> None:
    said = Imported(named=not by_import_before, address="ada@x", name="Ada")
    ada = linked(1, "7", "ada", "ada@x", name="Ada", is_active=False, imported=said)
    (after,) = apply([ada], plan_import([row("7", "ada", "king@x", name="Ada")], [ada], FOLLOW))
    assert (after.is_active, after.main) == (False, "king@x")


def test_of_an_account_with_a_role_the_name_alone_follows() -> None:
    ada = linked(1, "7", "ada", "ada@x", name="Ada", has_role=True)
    rows = [row("7", "ada", "king@x", name="Ada King", groups={"board"}, further={"b@x"})]
    plan = plan_import(rows, [ada], FOLLOW)
    assert decided(plan) == {("change", "7", 1, Why.ROLE_FOLLOWS_BY_HAND)}
    (after,) = apply([ada], plan)
    assert after == ada._replace(name="Ada King", imported=ada.imported._replace(name="Ada King"))
    assert not apply([after._replace(is_active=False, deactivated_by_import=True)], plan_import(rows, [after], FOLLOW))[
        0
    ].is_active


def test_an_account_with_a_role_is_never_linked_and_never_deactivated() -> None:
    assert decided(plan_import([row("7", "ada", "ada@x")], [local(1, "ada", "ada@x", has_role=True)], FOLLOW)) == {
        ("problem", "7", 1, Why.HAS_ROLE)
    }
    bob = linked(2, "8", "bob", "bob@x", has_role=True)
    assert ("report", None, 2, Why.LEAVER_WITH_ROLE) in decided(plan_import([row("7", "ada", "ada@x")], [bob], FOLLOW))


def test_leavers_stay_where_the_import_keeps_them_and_nothing_is_remembered_of_them() -> None:
    ada = linked(1, "7", "ada", "ada@x")
    assert decided(plan_import([row("8", "bob", "bob@x")], [ada], KEEP)) == {("create", "8", None, None)}


def test_a_leaver_whom_a_person_activated_stays_active_until_the_source_says_something_new() -> None:
    ada = linked(1, "7", "ada", "ada@x", imported=Imported(named=False, address="ada@x"))
    assert not plan_import([row("8", "bob", "bob@x")], [ada], FOLLOW).of(Action.DEACTIVATE)


# The bullets.


def test_a_username_that_was_the_main_address_follows_it() -> None:
    ada = linked(1, "7", "ada@x", "ada@x")
    (after,) = apply([ada], plan_import([row("7", "whatever", "king@x")], [ada], FOLLOW))
    assert (after.username_key, after.main) == ("king@x", "king@x")


def test_usernames_are_judged_by_what_holds_after_the_whole_run() -> None:
    ada, bob = linked(1, "7", "a@x", "a@x"), linked(2, "8", "b@x", "b@x")
    rows = [row("7", None, "b@x"), row("8", None, "a@x"), row("9", "c", "c@x")]
    after = {each.id: each for each in apply([ada, bob], plan_import(rows, [ada, bob], FOLLOW))}
    assert (after[1].username_key, after[2].username_key) == ("b@x", "a@x")
    taken = plan_import([row("7", None, "b@x"), row("8", None, "b@x")], [ada, bob], FOLLOW)
    assert decided(taken) == {("problem", "7", 1, Why.USERNAME_NOT_FREE)}


def test_a_new_row_may_have_a_username_that_a_known_one_leaves() -> None:
    ada = linked(1, "7", "chair@x", "chair@x")
    plan = plan_import([row("7", None, "ada@x"), row("8", "chair@x", "chair@x")], [ada], FOLLOW)
    assert decided(plan) == {("change", "7", 1, None), ("create", "8", None, None)}


def test_a_number_given_to_somebody_else_opens_nothing() -> None:
    ada, bob = linked(1, "7", "ada", "ada@x", name="Ada"), linked(2, "8", "bob", "bob@x", name="Bob")
    rows = [row("7", "ada", "bob@x", name="Bob"), row("8", "bob", "bob@x", name="Bob")]
    assert decided(plan_import(rows, [ada, bob], FOLLOW)) == {
        ("problem", "7", 1, Why.NUMBER_MOVED),
        ("problem", "8", 2, Why.NUMBER_MOVED),
    }
    new = plan_import([row("9", "x", "bob@x", name="Bob")], [bob], FOLLOW)
    assert decided(new) == {("problem", "9", None, Why.NUMBER_MOVED)}
    family = plan_import([row("8", "bob", "bob@x", name="Bob"), row("9", "x", "bob@x", name="Zoe")], [bob], FOLLOW)
    assert decided(family) == {("create", "9", None, None)}


def test_a_family_with_one_name_and_one_mailbox_is_no_problem() -> None:
    rows = [row("7", "ada", "home@x", name="Ada"), row("8", "ada2", "home@x", name="Ada")]
    after = apply([], plan_import(rows, [], FOLLOW))
    assert decided(plan_import(rows, after, FOLLOW)) == set()


def test_a_return_with_another_name_and_another_address_is_in_doubt() -> None:
    said = Imported(named=False, address="ada@x", name="Ada")
    gone = linked(1, "7", "ada", "ada@x", name="Ada", imported=said, is_active=False, deactivated_by_import=True)
    plan = plan_import([row("7", "zed", "zed@x", name="Zed")], [gone], FOLLOW)
    assert decided(plan) == {("problem", "7", 1, Why.RETURN_IN_DOUBT)}
    for married in ([row("7", "ada", "ada@x", name="Ada King")], [row("7", "ada", "king@x", name="Ada")]):
        assert decided(plan_import(married, [gone], FOLLOW)) == {("reactivate", "7", 1, None)}


def test_an_unlinked_account_is_linked_by_hand_alone_and_its_key_is_free() -> None:
    ada = local(1, "ada", "ada@x", was_unlinked=True)
    assert decided(plan_import([row("7", "ada", "ada@x")], [ada], FOLLOW)) == {("problem", "7", 1, Why.WAS_UNLINKED)}
    assert decided(plan_import([row("7", "ada2", "ada@x")], [ada], FOLLOW)) == {
        ("create", "7", None, None),
        ("report", "7", 1, Why.ADDRESS_IS_HELD),
    }


def test_an_empty_address_says_nothing() -> None:
    ada = linked(1, "7", "ada", "ada@x", further={"b@x": True}, imported=Imported(True, "ada@x", frozenset({"b@x"})))
    rows = [row("7", "ada", None, further=()), row("8", "bob", None)]
    assert decided(plan_import(rows, [ada], FOLLOW)) == {("report", "8", None, Why.NO_ADDRESS)}
    assert decided(plan_import([row("7", "ada", "ada@x", further={"b@x"})], [ada], FOLLOW)) == set()


def test_where_the_address_is_the_key_a_new_address_of_a_linked_account_becomes_its_key() -> None:
    ada = linked(1, "ada@x", "ada", "home@x")
    source = Source(deactivates_leavers=True, key_is_address=True)
    (after,) = apply([ada], plan_import([row("home@x", "ada", "home@x")], [ada], source))
    assert (after.key, after.is_active) == ("home@x", True)
    both = plan_import([row("home@x", "x", "home@x"), row("ada@x", "ada", "ada@x")], [ada], source)
    assert ("create", "home@x", None, None) in decided(both)


def test_without_a_key_each_row_makes_a_local_account_or_is_present() -> None:
    plan = plan_import([row(None, "ada", "ada@x"), row(None, "bob", "bob@x")], [local(1, "ada", "other@x")], FOLLOW)
    assert decided(plan) == {("report", None, 1, Why.PRESENT), ("create", None, None, None)}
    assert all(each.key is None for each in apply([local(1, "ada", "other@x")], plan))


def test_a_row_that_cannot_be_read_spares_its_person_and_one_without_a_key_everybody() -> None:
    ada, bob = linked(1, "7", "ada", "ada@x"), linked(2, "8", "bob", "bob@x")
    one = plan_import([Row(2, "7", "", is_readable=False)], [ada, bob], FOLLOW)
    assert decided(one) == {("problem", "7", 1, Why.UNREADABLE), ("deactivate", None, 2, None)}
    everybody = plan_import([Row(2, None, "", is_readable=False), row("7", "ada", "ada@x")], [ada, bob], FOLLOW)
    assert decided(everybody) == {("problem", None, None, Why.UNREADABLE)}


def test_a_key_that_stands_twice_is_a_problem_and_no_leaver() -> None:
    ada = linked(1, "7", "ada", "ada@x")
    plan = plan_import([row("7", "ada", "a@x"), row("7", "ada", "b@x")], [ada], FOLLOW)
    assert decided(plan) == {("problem", "7", 1, Why.KEY_TWICE)}


def test_where_each_row_says_what_was_last_said_the_accounts_need_not_be_looked_at() -> None:
    ada, bob = linked(1, "7", "ada", "ada@x", name="Ada"), linked(2, "8", "bob", "bob@x", is_active=False)
    rows = [row("8", "x", "bob@x"), row("7", "y", None, name="Ada")]
    assert if_unchanged(rows, [ada, bob], FOLLOW) == Plan((), linked=1, named=1, deactivates=True)
    assert if_unchanged(rows[:1], [ada, bob], FOLLOW) is None, "Ada has left"
    assert if_unchanged(rows[:1], [ada, bob], KEEP) == Plan((), linked=1, named=0, deactivates=False)
    for other in (row("9", "cat", "cat@x"), row("7", "y", None), row(None, "", is_readable=False)):
        assert if_unchanged([*rows, other], [ada, bob], FOLLOW) is None


# What chance found: a second run has nothing left to do, and the order of rows does not matter.


def done_at_once(rows: list[Row], people: list[Account], source: Source = FOLLOW) -> Plan:
    """Return the plan of an import, after which the same file does nothing, in whatever order it comes."""
    plan = plan_import(rows, people, source)
    assert [each.text for each in plan_import(rows, apply(people, plan), source).decisions if each.writes] == []
    backwards = plan_import(rows[::-1], people, source)
    assert sorted(map(repr, backwards.decisions)) == sorted(map(repr, plan.decisions))
    return plan


def test_two_rows_that_each_name_an_address_of_one_local_account_link_neither() -> None:
    cat = local(1, "cat", "z@x", further={"x@x": False})
    plan = done_at_once([row("1", "ann", "x@x"), row("2", "ben", "z@x")], [cat])
    assert len(plan.of(Action.CREATE)) == 2
    assert not plan.of(Action.LINK)


def test_a_username_stays_in_doubt_when_one_of_its_rows_has_a_problem_of_its_own_later() -> None:
    rows = [row("2", "cat", "z@x"), row("1", "ben", "y@x", name="A"), row("3", "cat", "y@x", name="A")]
    plan = done_at_once(rows, [], Source(deleted_keys={"3"}))
    assert {each.row.key for each in plan.of(Action.CREATE) if each.row} == {"1"}


def test_a_linked_account_whose_username_another_key_has_is_no_leaver_whatever_else_is_wrong_with_the_row() -> None:
    people = [linked(2, "2", "ann", "x@x"), linked(3, "1", "cat", "x@x", name="A")]
    plan = done_at_once([row("3", "cat", "z@x", name="B"), row("2", "ben", "z@x", name="B")], people)
    assert not plan.of(Action.DEACTIVATE)


def test_a_number_that_moved_is_said_before_a_return_in_doubt() -> None:
    said = Imported(named=False, address="z@x", name="B")
    people = [
        linked(2, "2", "ann", "x@x", name="A"),
        linked(3, "1", "cat", "z@x", name="B", imported=said, is_active=False, deactivated_by_import=True),
    ]
    plan = done_at_once([row("2", "ann", "z@x", name="B"), row("1", "cat", "y@x", name="A")], people)
    assert {each.why for each in plan.of(Action.PROBLEM)} == {Why.NUMBER_MOVED}


BY_ADDRESS = Source(deactivates_leavers=True, key_is_address=True)


def address_row(main: str, username: str, **more: Any) -> Row:
    return row(main, username, main, **more)


def test_two_addresses_of_one_account_that_have_become_keys_are_problems() -> None:
    ann = linked(1, "old@x", "ann", "y@x", further={"x@x": True})
    plan = done_at_once([address_row("y@x", "b"), address_row("x@x", "c")], [ann], BY_ADDRESS)
    assert {each.why for each in plan.of(Action.PROBLEM)} == {Why.ADDRESSES_OF_ONE}
    assert not plan.of(Action.DEACTIVATE)


def test_a_new_key_among_addresses_is_judged_by_who_holds_it_once_the_known_have_moved() -> None:
    ann = linked(1, "y@x", "ann", "y@x", further={"z@x": False})
    ben = linked(2, "x@x", "ben", "z@x", further={"x@x": False})
    plan = done_at_once([address_row("x@x", "ben"), address_row("z@x", "ann")], [ann, ben], BY_ADDRESS)
    assert {each.account.id for each in plan.decisions if each.account} == {1, 2}
    assert not plan.of(Action.CREATE)


def test_a_new_key_among_addresses_of_an_account_with_a_role_becomes_its_key() -> None:
    ann = linked(1, "y@x", "ann", "z@x", has_role=True)
    plan = done_at_once([address_row("z@x", "ann")], [ann], BY_ADDRESS)
    assert [each.changes for each in plan.decisions] == [Changes(key="z@x")]


def test_a_new_key_among_addresses_that_another_row_lists_is_nobodys_other_address() -> None:
    ben = linked(1, "y@x", "ben", "x@x")
    plan = done_at_once([address_row("z@x", "dan", further={"x@x"}), address_row("x@x", "eve")], [ben], BY_ADDRESS)
    assert len(plan.of(Action.CREATE)) == 2


def test_what_a_person_linked_is_no_number_given_to_somebody_else() -> None:
    said = Imported(named=False, address="bob@x")
    father, son = linked(1, "8", "bob", "bob@x", name="Bob"), linked(2, "9", "bob2", "bob@x", imported=said)
    rows = [row("8", "bob", "bob@x", name="Bob"), row("9", "x", "bob@x", name="Bob")]
    assert not done_at_once(rows, [father, son]).of(Action.PROBLEM)
    gone = linked(1, "7", "ada", "ada@x", name="Ada", imported=said, is_active=False, deactivated_by_import=True)
    assert done_at_once([row("7", "zed", "zed@x", name="Zed")], [gone]).of(Action.REACTIVATE)


def test_a_link_by_hand_leaves_the_main_address_and_follows_it_from_then_on() -> None:
    ada = linked(1, "7", "ada", "home@x", imported=Imported())
    rows = [row("7", "ada", "ada@x", name="Ada")]
    after = apply([ada], done_at_once(rows, [ada]))
    assert (after[0].main, after[0].name) == ("home@x", "Ada")
    (later,) = apply(after, plan_import([row("7", "ada", "king@x", name="Ada")], after, FOLLOW))
    assert later.main == "king@x"


# Limits, id and chunks.


@pytest.mark.parametrize(("gone", "of", "is_over"), [(5, 20, False), (6, 20, True), (10, 100, False), (11, 100, True)])
def test_leavers_beyond_the_limit_need_approval(gone: int, of: int, is_over: bool) -> None:
    people = [linked(number, f"k{number}", main=f"{number}@x") for number in range(of)]
    plan = plan_import([row(f"k{number}", None, f"{number}@x") for number in range(gone, of)], people, FOLLOW)
    assert (plan.excess(Limits()) is not None) == is_over
    assert plan.excess(Limits(), approved={each.text for each in plan.decisions}) is None


@pytest.mark.parametrize(("moved", "is_over"), [(25, False), (26, True)])
def test_changed_addresses_beyond_the_limit_need_approval(moved: int, is_over: bool) -> None:
    people = [linked(number, f"k{number}", main=f"{number}@x") for number in range(100)]
    rows = [row(f"k{n}", None, f"{n}@y" if n < moved else f"{n}@x") for n in range(100)]
    assert (plan_import(rows, people, FOLLOW).excess(Limits()) is not None) == is_over


def test_fewer_than_half_named_needs_approval_where_leavers_are_deactivated() -> None:
    people = [linked(number, f"k{number}", main=f"{number}@x") for number in range(9)]
    rows = [row(f"k{number}", None, f"{number}@x") for number in range(4)]
    assert plan_import(rows, people, FOLLOW).excess(Limits(leavers=100)) is not None
    assert plan_import(rows, people, KEEP).excess(Limits(leavers=100)) is None


def test_people_who_share_a_mailbox_are_one_chunk() -> None:
    people = [linked(1, "1", "a", "a@x"), linked(2, "2", "b", "b@x"), linked(3, "3", "c", "c@x")]
    rows = [row("1", "a", "b@x"), row("2", "b", "a@x"), row("3", "c", "d@x")]
    sizes = sorted(len(chunk) for chunk in plan_import(rows, people, FOLLOW).chunks())
    assert sizes == [1, 2]


def test_who_takes_a_username_that_another_leaves_is_in_one_chunk_with_them_and_a_new_name_in_its_own() -> None:
    people = [linked(1, "7", "chair@x", "chair@x"), linked(2, "8", "b", "b@x", name="B")]
    rows = [row("7", None, "ada@x"), row("9", "chair@x", "c@x"), row("8", "b", "b@x", name="Bea")]
    chunks = plan_import(rows, people, FOLLOW).chunks()
    assert sorted(sorted(str(each.action) for each in chunk) for chunk in chunks) == [["change"], ["change", "create"]]


# The whole space of two people, against the promises.

KEYS = ("1", "2")
MAILBOXES = ("x@x", "y@x", "z@x")
texts = st.sampled_from(MAILBOXES)
some = st.none() | texts
groups = st.frozensets(st.sampled_from(["full", "board"]))
given_groups = st.dictionaries(st.sampled_from(["full", "board"]), st.booleans())
saids = st.builds(
    Imported, st.booleans(), some, st.frozensets(texts, max_size=1), st.none() | st.sampled_from("AB"), groups
)


@st.composite
def worlds(draw: Any) -> list[Account]:
    made = []
    usernames = draw(st.lists(st.sampled_from(["ann", "ben", "cat", *MAILBOXES]), unique=True, max_size=3))
    keys = draw(st.permutations([*KEYS, None, None]))
    for number, username in enumerate(usernames, start=1):
        main, key, is_active = draw(some), keys[number - 1], draw(st.booleans())
        further = draw(st.dictionaries(texts, st.booleans(), max_size=1))
        further.pop(main, None)
        made.append(
            Account(
                number, username, main, further, draw(st.sampled_from("AB")), draw(given_groups), key,
                draw(saids) if key else Imported(), is_active, username == main, bool(key) and not is_active and draw(st.booleans()),
                draw(st.integers(0, 5)) == 0, key is None and draw(st.integers(0, 3)) == 0,
            )
        )  # fmt: skip
    return made


@st.composite
def files(draw: Any) -> list[Row]:
    rows = []
    for line in range(2, 2 + draw(st.integers(0, 3))):
        key = draw(st.sampled_from([*KEYS, "3"]))
        main = draw(some)
        further = (draw(st.none() | st.frozensets(texts, max_size=1)) or frozenset()) - {main}
        rows.append(
            Row(
                line, key, draw(st.sampled_from(["ann", "ben", "cat", "dan"])), main, further if main else None,
                draw(st.none() | st.sampled_from("AB")), draw(st.none() | groups), draw(st.integers(0, 9)) > 0,
            )
        )  # fmt: skip
    return rows


@settings(max_examples=200)
@given(worlds(), files(), st.booleans(), st.booleans(), st.randoms(use_true_random=False))
def test_every_import_keeps_the_promises(
    people: list[Account], rows: list[Row], follow: bool, key_is_address: bool, chance: Any
) -> None:
    source = Source(deactivates_leavers=follow, key_is_address=key_is_address, deleted_keys={"3"})
    if key_is_address:
        mailbox = dict(zip(KEYS, MAILBOXES, strict=False))
        people = [each._replace(key=mailbox.get(each.key or "")) for each in people]
        rows = [each._replace(key=each.main) for each in rows if each.main]
    shuffled = list(rows)
    chance.shuffle(shuffled)
    keep_the_promises(people, rows, source, shuffled=shuffled)


def keep_the_promises(people: list[Account], rows: list[Row], source: Source, *, shuffled: list[Row]) -> None:
    """Import, and import again; the same rows in another order do the same."""
    plan = plan_import(rows, people, source)
    after = apply(people, plan)
    before_of, after_of = {each.id: each for each in people}, {each.id: each for each in after}

    names = [each.username_key for each in after]
    keys = [each.key for each in after if each.key]
    assert len(names) == len(set(names))
    assert len(keys) == len(set(keys))
    made = {each.key for each in after if each.id not in before_of}
    assert made.isdisjoint(source.deleted_keys), "somebody deleted is not made again"
    named = {row.key for row in rows}
    for number, old in before_of.items():
        new = after_of[number]
        if old.key is None and new.key is None:
            assert new == old, "local accounts are never touched"
        if old.has_role:
            assert new._replace(name=old.name, imported=old.imported, key=old.key) == old, (
                "of an account with a role the name alone follows"
            )
        if not old.is_active and not old.deactivated_by_import:
            assert not new.is_active, "nobody whom a person deactivated comes back"
        if old.key and old.key not in named and not (source.deactivates_leavers or source.key_is_address):
            assert new == old, "an import that keeps leavers changes nothing of whom it does not name"
        if old.key and new.main != old.main:
            assert new.main not in {None, old.imported.address}, "an own address stays until the source says a new one"
    assert if_unchanged(rows, people, source) in (None, plan)
    again = plan_import(rows, after, source)
    assert [each.text for each in again.decisions if each.writes] == [], "a second run does nothing"
    other = plan_import(shuffled, people, source)
    assert sorted(map(repr, other.decisions)) == sorted(map(repr, plan.decisions)), "the order of rows does not matter"
    assert other.id == plan.id
