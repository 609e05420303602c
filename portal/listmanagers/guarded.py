"""Kinds from other packages: any exception or bad answer ends only the run of their list.

Their exceptions' messages are never shown, because they may contain a password or a key.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import PurePath
from traceback import extract_tb
from typing import Any, cast

from portal.errors import ListManagerUnavailableError, PortalError
from portal.listmanagers.base import ListManager, Outcome

_CALLS = (
    "timeout", "check", "warnings", "roster", "add", "remove", "withdraw", "options", "add_with_options",
    "deliveries", "identity", "password_call", "set_passwords", "shell_steps",
)  # fmt: skip
_ANSWERS_EACH = {"add", "remove", "add_with_options", "set_passwords"}


def open_list(kind: str, open_it: Callable[[], Any]) -> ListManager:
    """Return a list manager from another package, with its optional methods. Raise ListManagerUnavailableError."""
    with _translated(kind):
        manager = open_it()
        calls = {name: _call(kind, manager, name) for name in _CALLS if hasattr(manager, name)}
    calls["batch"] = property(lambda _self: _ask(kind, lambda: manager.batch))
    # A separate class for each, because optional methods are recognised by the class.
    return cast(ListManager, type("Guarded", (), calls)())


def place_of(error: BaseException) -> str:
    """Return the type of an error and where it was raised, without its message."""
    frames = extract_tb(error.__traceback__)
    where = f" in {PurePath(frames[-1].filename).name}, line {frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}{where}"


def _call(kind: str, manager: Any, name: str) -> Any:
    def call(_self: object, *arguments: Any, **options: Any) -> Any:
        return _ask(kind, lambda: _checked(name, getattr(manager, name)(*arguments, **options)))

    return call


def _ask(kind: str, question: Callable[[], Any]) -> Any:
    with _translated(kind):
        return question()


def _checked(name: str, answer: Any) -> Any:
    """Return an answer of the right form; a roster's lines are checked where all rosters are."""
    if name in {"roster", "warnings"}:
        return list(answer)
    if name in _ANSWERS_EACH and not (
        isinstance(answer, Mapping) and all(isinstance(each, Outcome) for each in answer.values())
    ):
        raise ListManagerUnavailableError(f"{name} did not return an Outcome for each address")
    return answer


@contextmanager
def _translated(kind: str) -> Iterator[None]:
    try:
        yield
    except (PortalError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise ListManagerUnavailableError(
            f'kind = "{kind}" failed with {place_of(error)}; the message is not shown, because it may contain a secret'
        ) from None
