"""A list manager in memory that moderates, bans, refuses and fails as a test configures it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from portal.domain.address import canonical
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import CallFailedError, ListManagerUnavailableError
from portal.listmanagers.base import Outcome, Result


class Killed(BaseException):
    """The process is gone, as by SIGKILL: nothing of ours catches it, nothing of ours tidies up."""


@dataclass
class MemoryList:
    """One list. ``calls`` is what it was told, ``breaks`` the numbers of the calls that do not return."""

    members: dict[str, str] = field(default_factory=dict)  # canonical to spelling
    held: dict[str, str] = field(default_factory=dict)
    banned: set[str] = field(default_factory=set)
    stubborn: set[str] = field(default_factory=set)  # cannot be removed
    poison: set[str] = field(default_factory=set)  # makes each call fail that it is in
    is_down: bool = False
    is_moderated: bool = False
    batch: int = 3
    calls: list[tuple[str, tuple[str, ...]]] = field(default_factory=list)
    # Called before and after each call's effect, with "before add", "after add" and so on.
    watcher: Callable[[str], None] = lambda _moment: None

    def timeout(self, count: int) -> float:
        return 1.0 + count

    def check(self) -> str:
        if self.is_down:
            raise ListManagerUnavailableError("it is down")
        return "memory"

    def roster(self) -> list[str]:
        self.watcher("before roster")
        self.calls.append(("roster", ()))
        answer = list(self.members.values())
        self.watcher("after roster")
        return answer

    def add(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        return self._call("add", addresses, self._add)

    def remove(self, addresses: Sequence[str]) -> dict[str, Outcome]:
        return self._call("remove", addresses, self._remove)

    def _call(self, name: str, addresses: Sequence[str], act: Callable[[str], Outcome]) -> dict[str, Outcome]:
        self.watcher(f"before {name}")
        assert 0 < len(addresses) <= self.batch
        self.calls.append((name, tuple(addresses)))
        if self.is_down or self.poison & set(addresses):
            raise CallFailedError("it failed", words="500 Internal Server Error")
        outcomes = {each: act(each) for each in addresses}
        self.watcher(f"after {name}")
        return outcomes

    def _add(self, address: str) -> Outcome:
        key = canonical(address)
        if key in self.members:
            return Outcome(Result.ALREADY)
        if key in self.banned:
            return Outcome(Result.REJECTED, "banned")
        if self.is_moderated:
            self.held[key] = address
            return Outcome(Result.PENDING)
        self.held.pop(key, None)
        self.members[key] = address
        return Outcome(Result.DONE)

    def _remove(self, address: str) -> Outcome:
        key = canonical(address)
        if key in self.stubborn:
            return Outcome(Result.REJECTED, "may not leave")
        return Outcome(Result.DONE if self.members.pop(key, None) else Result.ALREADY)

    # What people do at the list.

    def join(self, address: str) -> None:
        self.held.pop(canonical(address), None)
        self.members[canonical(address)] = address

    def leave(self, address: str) -> None:
        self.members.pop(canonical(address), None)

    def approve(self, key: str) -> None:
        self.join(self.held[key])


@dataclass
class OptionsList(MemoryList):
    """One that knows who gets digests, or no mail, and cannot let anybody else have the same."""

    chosen: dict[str, SubscriberOptions] = field(default_factory=dict)  # by canonical address
    lacks_helper: bool = False

    def options(self, addresses: Sequence[str]) -> dict[str, SubscriberOptions] | None:
        self.calls.append(("options", tuple(addresses)))
        if self.is_down:
            raise ListManagerUnavailableError("it is down")
        if self.lacks_helper:
            return None
        return {each: self.chosen[canonical(each)] for each in addresses if canonical(each) in self.chosen}


class CarryingList(OptionsList):
    """One that subscribes with options, too."""

    def add_with_options(self, subscribers: Sequence[tuple[str, SubscriberOptions]]) -> dict[str, Outcome]:
        outcomes = self._call("add", [address for address, _ in subscribers], self._add)
        done = [(address, options) for address, options in subscribers if outcomes[address].result is Result.DONE]
        self.chosen.update({canonical(address): options for address, options in done})
        return outcomes


class WithdrawingList(MemoryList):
    """One that lets a held request be taken back, as Mailman 3 does."""

    def withdraw(self, addresses: Sequence[str]) -> set[str]:
        self.watcher("before withdraw")
        self.calls.append(("withdraw", tuple(addresses)))
        found = {each for each in addresses if self.held.pop(canonical(each), None)}
        self.watcher("after withdraw")
        return found


def breaking(moment: str, count: int, error: BaseException | None = None) -> Callable[[str], None]:
    """Return a watcher that raises at the given moment's n-th time (from 0): unavailable unless told otherwise."""
    left = [count]

    def watch(now: str) -> None:
        if now == moment:
            if left[0] == 0:
                raise error or ListManagerUnavailableError("it broke down")
            left[0] -= 1

    return watch
