"""The contract of all kinds of list managers that the sync relies on."""

import os
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from portal.domain.delivery import Delivery, MailOff
from portal.errors import ListManagerUnavailableError, UnavailableError
from portal.listmanagers.base import CarriesOptions, KnowsDelivery, KnowsOptions, ListManager, Outcome, Result
from portal.services.sync.batches import push_batch
from tests.listmanagers import harness

KINDS = {
    "file": harness.File,
    "commands": harness.Commands,
    "commands, a script behind ssh": harness.BehindSsh,
    "mailman2": harness.Mailman2,
    "mailman3": harness.Mailman3,
    "mailman3 for real": harness.RealMailman3,
    "mlmmj": harness.Mlmmj,
    "mlmmj for real": harness.RealMlmmj,
    "sympa": harness.Sympa,
    "table, of the page on kinds of one's own": harness.OwnKind,
}
if "MAILMAN2_PREFIX" in os.environ:
    KINDS["mailman2 for real"] = harness.RealMailman2
if os.environ.get("SYMPA") == "1":
    KINDS["sympa for real"] = harness.RealSympa
BREAKABLE = [name for name, each in KINDS.items() if each.can_break]


def params(names: Iterable[str]) -> list[Any]:
    """Kinds to parametrize by; the real ones are slow."""
    return [pytest.param(name, marks=[pytest.mark.slow] * name.endswith("for real")) for name in names]


TAKEN = {Result.DONE, Result.ALREADY}
HOSTILE = [
    "`id`@example.org",
    "$HOME@example.org",
    "/etc/passwd@example.org",
    "-rf@example.org",
    "=cmd|'/C'!A0@example.org",
    "a|b@example.org",
    "{list}@example.org",
    "{address}@example.org",
    "a+b%c&d'e*f~g@example.org",
]


@pytest.fixture(scope="module", autouse=True)
def own_kind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The worked example of a page, installed as another package is."""
    folder = tmp_path_factory.mktemp("own-kind")
    harness.install_own_kind(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield
        sys.modules.pop("table_lists", None)


@pytest.fixture(params=params(KINDS))
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[harness.Harness]:
    """Each kind in turn; none may have written to anybody when the test is over."""
    made = _made(request.param, tmp_path)
    yield made
    assert made.mails() == []
    made.close()


@pytest.fixture(params=params(BREAKABLE))
def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[harness.Harness]:
    made = _made(request.param, tmp_path)
    yield made
    made.close()


def _made(name: str, tmp_path: Path) -> harness.Harness:
    return KINDS[name](_folder(tmp_path) if name == "file" else tmp_path / "manager")


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "rosters").mkdir()
    return tmp_path / "rosters"


def _results(outcomes: dict[str, Outcome]) -> dict[str, Result]:
    return {address: outcome.result for address, outcome in outcomes.items()}


def test_a_check_says_in_one_line_what_answered(kind):
    kind.set_roster("alice@example.org")
    answer = kind.open().check()
    assert "subscribers: 1" in answer
    assert answer.isprintable()


def test_an_empty_list_has_an_empty_roster(kind):
    assert list(kind.open().roster()) == []


def test_an_address_that_is_added_is_on_the_roster(kind):
    kind.set_roster("alice@example.org")
    manager = kind.open()
    outcomes = manager.add(["bob@example.org", "charlie@example.org"])
    assert _results(outcomes) == {"bob@example.org": Result.DONE, "charlie@example.org": Result.DONE}
    assert set(manager.roster()) == {"alice@example.org", "bob@example.org", "charlie@example.org"}


def test_an_address_that_is_added_again_stays_once(kind):
    manager = kind.open()
    manager.add(["alice@example.org"])
    outcomes = manager.add(["alice@example.org"])
    assert outcomes["alice@example.org"].result in TAKEN
    assert list(manager.roster()) == ["alice@example.org"]


def test_an_address_that_is_removed_is_off_the_roster_and_the_others_are_not(kind):
    kind.set_roster("alice@example.org", "bob@example.org")
    manager = kind.open()
    assert _results(manager.remove(["alice@example.org"])) == {"alice@example.org": Result.DONE}
    assert list(manager.roster()) == ["bob@example.org"]


def test_removing_somebody_who_is_not_there_is_no_failure(kind):
    kind.set_roster("bob@example.org")
    outcomes = kind.open().remove(["alice@example.org", "bob@example.org"])
    assert outcomes["alice@example.org"].result in TAKEN
    assert outcomes["bob@example.org"].result is Result.DONE
    assert kind.roster() == set()


def test_spellings_that_differ_in_case_are_one_subscriber(kind):
    manager = kind.open()
    assert manager.add(["Alice.A@Example.ORG"])["Alice.A@Example.ORG"].result is Result.DONE
    assert manager.add(["alice.a@example.org"])["alice.a@example.org"].result in TAKEN
    assert [each.lower() for each in manager.roster()] == ["alice.a@example.org"]
    spelling = manager.roster()[0]
    assert manager.remove([spelling])[spelling].result is Result.DONE
    assert list(manager.roster()) == []


def test_the_local_part_is_added_in_the_case_that_was_typed(kind):
    kind.open().add(["Alice.A@example.org"])
    assert kind.roster() == {"Alice.A@example.org" if kind.keeps_case else "alice.a@example.org"}


@pytest.mark.parametrize("call", ["check", "roster", "add", "remove"])
def test_a_list_that_does_not_exist_is_an_error_and_never_an_empty_roster(kind, call):
    manager = kind.open("nolist")
    with pytest.raises(UnavailableError) as caught:
        _call(manager, call)
    assert "nolist" in str(caught.value)


BAD = ["notanaddress", "a@b@example.org", "", "@example.org", "a@", "a" * 250 + "@example.org"]


def test_bad_addresses_are_rejected_and_do_not_stop_the_others(kind):
    manager, rejected = kind.open(), dict.fromkeys(BAD, Result.REJECTED)
    outcomes = manager.add([*BAD, "alice@example.org"])
    assert _results(outcomes) == {**rejected, "alice@example.org": Result.DONE}
    assert all(outcomes[bad].words for bad in BAD)
    assert list(manager.roster()) == ["alice@example.org"]
    assert _results(manager.remove([*BAD, "alice@example.org"])) == {**rejected, "alice@example.org": Result.DONE}
    assert list(manager.roster()) == []


@pytest.mark.parametrize(
    "poison",
    [
        "a\nb@example.org",
        "a@example.org\n",
        "\ra@example.org",
        "a\0b@example.org",
        "a\x1b[0m@example.org",
        "a\x85b@example.org",
        "a\u2028b@example.org",
        "a b@example.org",
        "a@example.org,b@example.org",
        "\ud800@example.org",
        "\ufeffa@example.org",
    ],
)
def test_control_characters_white_space_and_commas_are_never_sent(breakable, poison):
    manager = breakable.open()
    for call in (manager.add, manager.remove):
        assert _results(call([poison])) == {poison: Result.REJECTED}
    assert breakable.sent() == ""
    assert breakable.roster() == set()


def test_hostile_addresses_arrive_byte_for_byte_come_back_and_go_again(kind):
    manager, refused = kind.open(), set(HOSTILE) & set(kind.refuses)
    outcomes = manager.add(HOSTILE)
    assert _results(outcomes) == {
        address: Result.REJECTED if address in refused else Result.DONE for address in HOSTILE
    }
    assert all(outcomes[address].words for address in refused)
    there = set(HOSTILE) - refused
    assert kind.roster() == (there if kind.keeps_case else {address.lower() for address in there})
    spellings = list(manager.roster())
    assert {spelling.lower() for spelling in spellings} == {address.lower() for address in there}
    assert _results(manager.remove(spellings)) == dict.fromkeys(spellings, Result.DONE)
    assert kind.roster() == set()


@pytest.mark.parametrize("kind", params(name for name, each in KINDS.items() if each.has_digests), indirect=True)
def test_a_digest_member_stays_one(kind):
    kind.set_roster("alice@example.org", digest=["bob@example.org"])
    manager = kind.open()
    assert set(manager.roster()) == {"alice@example.org", "bob@example.org"}
    assert manager.add(["bob@example.org"])["bob@example.org"].result is Result.ALREADY
    assert kind.digest_roster() == {"bob@example.org"}


@pytest.mark.slow
@pytest.mark.parametrize("breakable", [each for each in BREAKABLE if KINDS[each].can_fail_at_one], indirect=True)
def test_an_address_that_the_list_manager_always_fails_at_keeps_no_other_waiting(breakable):
    addresses = ["alice@example.org", "bob@example.org", "charlie@example.org"]
    manager = breakable.open()
    breakable.fail_at("bob@example.org")
    outcomes = push_batch(manager, manager.add, addresses, before_call=lambda _count: None)
    assert outcomes["bob@example.org"].result is Result.REJECTED
    assert outcomes["bob@example.org"].words
    assert breakable.roster() == {"alice@example.org", "charlie@example.org"}
    alone = push_batch(manager, manager.add, ["bob@example.org"], before_call=lambda _count: None)
    assert alone["bob@example.org"].result is Result.REJECTED


@pytest.mark.slow
@pytest.mark.parametrize("call", ["add", "remove"])
@pytest.mark.parametrize("breakable", [each for each in BREAKABLE if KINDS[each].can_fail_at_one], indirect=True)
def test_a_list_manager_that_is_down_refuses_no_address(breakable, call):
    manager = breakable.open()
    breakable.break_down()
    for addresses in (["alice@example.org"], ["alice@example.org", "bob@example.org"]):
        with pytest.raises(ListManagerUnavailableError):
            push_batch(manager, getattr(manager, call), addresses, before_call=lambda _count: None)


CARRY_OPTIONS = [name for name, each in KINDS.items() if each.carries_options]


@pytest.mark.parametrize("kind", params(CARRY_OPTIONS), indirect=True)
def test_who_gets_digests_or_no_mail_is_known(kind):
    kind.set_roster("alice@example.org", "bob@example.org", digest=["charlie@example.org"])
    kind.set_no_mail("bob@example.org")
    manager = kind.open()
    assert isinstance(manager, KnowsOptions)
    found = manager.options(["alice@example.org", "Bob@example.org", "charlie@example.org", "dora@example.org"])
    assert {address: options.is_mail_off for address, options in found.items()} == {
        "Bob@example.org": True,
        "charlie@example.org": False,
    }
    assert isinstance(manager, KnowsDelivery)
    assert manager.deliveries(["alice@example.org", "Bob@example.org", "charlie@example.org", "dora@example.org"]) == {
        "Bob@example.org": Delivery(mail_off=MailOff.CHOSEN),
        "charlie@example.org": Delivery(is_digest=True),
    }


@pytest.mark.parametrize("kind", params(CARRY_OPTIONS), indirect=True)
def test_an_address_is_added_with_the_options_of_another(kind):
    kind.set_roster("bob@example.org", digest=["charlie@example.org"])
    kind.set_no_mail("bob@example.org")
    manager = kind.open()
    assert isinstance(manager, CarriesOptions)
    found = manager.options(["bob@example.org", "charlie@example.org"])
    outcomes = manager.add_with_options(
        [
            ("new.bob@example.org", found["bob@example.org"]),
            ("new.charlie@example.org", found["charlie@example.org"]),
            ("no address", found["charlie@example.org"]),
        ]
    )
    assert _results(outcomes) == {
        "new.bob@example.org": Result.DONE,
        "new.charlie@example.org": Result.DONE,
        "no address": Result.REJECTED,
    }
    assert kind.no_mail_roster() == {"bob@example.org", "new.bob@example.org"}
    assert kind.digest_roster() == {"charlie@example.org", "new.charlie@example.org"}
    assert manager.remove(["new.bob@example.org"])["new.bob@example.org"].result is Result.DONE


@pytest.mark.parametrize("name", [name for name, each in KINDS.items() if not each.carries_options])
def test_a_kind_that_knows_no_options_does_not_say_that_it_does(name, tmp_path):
    made = _made(name, tmp_path)
    assert not isinstance(made.open(), KnowsOptions)
    made.close()


@pytest.mark.slow
@pytest.mark.parametrize("call", ["check", "roster", "add", "remove"])
def test_a_list_manager_that_is_down_is_said_to_be_so_in_one_line(breakable, call):
    breakable.break_down()
    with pytest.raises(ListManagerUnavailableError) as caught:
        _call(breakable.open(), call)
    assert str(caught.value).isprintable()
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("call", ["add", "remove"])
def test_a_list_manager_that_hangs_is_interrupted_and_lets_go(breakable, call):
    breakable.set_roster("bob@example.org")
    breakable.hang()
    started = time.monotonic()
    with pytest.raises(ListManagerUnavailableError, match="seconds"):
        _call(breakable.open(timeout=1), call)
    assert time.monotonic() - started < 5
    breakable.assert_let_go()
    assert breakable.roster() == {"bob@example.org"}


@pytest.mark.parametrize("call", ["roster", "add", "remove"])
@pytest.mark.parametrize("breakable", [each for each in BREAKABLE if KINDS[each].limit], indirect=True)
def test_output_without_end_is_cut_off(breakable, call):
    breakable.flood()
    with pytest.raises(ListManagerUnavailableError, match=breakable.limit):
        _call(breakable.open(**{breakable.limit: 50_000}), call)


@pytest.mark.parametrize("call", ["check", "roster"])
@pytest.mark.parametrize("breakable", ["commands", "file", "mailman2", "mlmmj", "sympa"], indirect=True)
def test_output_that_is_no_roster_is_refused(breakable, call):
    breakable.print_garbage()
    with pytest.raises(ListManagerUnavailableError, match="html"):
        _call(breakable.open(), call)


@pytest.mark.slow
def test_as_many_addresses_as_it_may_have_are_added_listed_and_removed_in_seconds(kind):
    addresses = [f"user{number}@example.org" for number in range(kind.many)]
    manager = kind.open(**({"batch": 10_000} if kind.has_batch else {}))
    started = time.monotonic()
    for call in (manager.add, manager.remove):
        for start in range(0, len(addresses), manager.batch):
            outcomes = call(addresses[start : start + manager.batch])
            assert {outcome.result for outcome in outcomes.values()} == {Result.DONE}
        assert len(manager.roster()) in {0, kind.many}
    assert time.monotonic() - started < 20
    assert len(manager.roster()) == 0


def test_a_call_says_how_long_it_may_take(kind):
    manager = kind.open()
    assert 0 < manager.timeout(0) <= manager.timeout(manager.batch) < 600


def _call(manager: ListManager, name: str) -> object:
    return getattr(manager, name)(*([["alice@example.org"]] if name in {"add", "remove"} else []))
