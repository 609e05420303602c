"""Kinds from other packages: their exceptions end only their own list's run, and their messages are never shown."""

from collections.abc import Callable
from typing import Any

import pytest

from portal.errors import ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import guarded
from portal.listmanagers.base import HoldsRequests, ListManager, Outcome, Result, TakesPasswords

SECRET = "s3cr3t"


class Pigeon:
    """A list manager of another package, which does what it is told to."""

    batch = 5

    def __init__(self, act: Callable[[], Any]) -> None:
        self.act = act

    def timeout(self, count: int) -> float:
        return 1.0 + count

    def check(self) -> str:
        return str(self.act())

    def roster(self) -> Any:
        yield self.act()

    def add(self, addresses: list[str]) -> Any:
        return self.act()

    def remove(self, addresses: list[str]) -> Any:
        return self.act()


def raising(error: BaseException) -> Callable[[], Any]:
    def act() -> Any:
        raise error

    return act


def opened(act: Callable[[], Any]) -> ListManager:
    return guarded.open_list("pigeon", lambda: Pigeon(act))


CALLS = [("check", ()), ("roster", ()), ("add", (["a@example.org"],)), ("remove", (["a@example.org"],))]


@pytest.mark.parametrize("error", [KeyError(SECRET), SystemExit(SECRET), RuntimeError(SECRET), BaseException(SECRET)])
@pytest.mark.parametrize(("name", "arguments"), CALLS)
def test_whatever_is_raised_is_unavailable_and_tells_no_words(error: BaseException, name: str, arguments: Any) -> None:
    with pytest.raises(ListManagerUnavailableError) as raised:
        getattr(opened(raising(error)), name)(*arguments)
    assert type(error).__name__ in str(raised.value)
    assert "test_guarded.py, line" in str(raised.value)
    assert SECRET not in str(raised.value)
    assert raised.value.__cause__ is None


def test_our_own_errors_and_an_interruption_pass() -> None:
    for error in (NoSuchListError("no list"), KeyboardInterrupt()):
        with pytest.raises(type(error)):
            opened(raising(error)).check()


def test_opening_a_list_is_guarded_too() -> None:
    with pytest.raises(ListManagerUnavailableError):
        guarded.open_list("pigeon", raising(SystemExit(1)))


@pytest.mark.parametrize("answer", [None, "done", {"a@example.org": "done"}, [Outcome(Result.DONE)]])
def test_an_answer_of_another_form_is_unavailable(answer: Any) -> None:
    with pytest.raises(ListManagerUnavailableError, match="Outcome"):
        opened(lambda: answer).add(["a@example.org"])


def test_what_it_can_do_besides_stays_visible() -> None:
    manager = opened(lambda: "ok")
    assert (manager.batch, manager.timeout(2), manager.check()) == (5, 3.0, "ok")
    assert list(manager.roster()) == ["ok"]
    assert not isinstance(manager, HoldsRequests | TakesPasswords)
