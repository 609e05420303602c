"""The values of a member import: rows of the source, accounts, decisions and the plan. Pure.

Addresses are canonical. ``membership_planner.py`` decides. Source of every rule: docs/people.md, "The import".
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from itertools import chain
from types import MappingProxyType
from typing import NamedTuple

# what exceeds the safety limits, in words
TOO_MANY_LEAVERS = "it deactivates %(count)s of %(linked)s linked accounts"
TOO_MANY_MOVED = "it changes the addresses of %(count)s of %(linked)s linked accounts"
TOO_FEW_NAMED = "it names only %(count)s of %(linked)s linked accounts"


class Action(StrEnum):
    """What the import does or reports about one person."""

    CREATE = "create"
    LINK = "link"
    CHANGE = "change"
    REACTIVATE = "reactivate"
    DEACTIVATE = "deactivate"
    REMEMBER = "remember"  # the account stays unchanged; only what the source said is stored
    REPORT = "report"  # nothing is done, and no action is needed
    PROBLEM = "problem"  # nothing is done until somebody resolves it


class Why(StrEnum):
    """Why a row is a problem, or what is reported about it."""

    USERNAME_IS_LINKED = (
        "the username belongs to an account with another key: change it in the source, or unlink that account"
    )
    USERNAME_TWICE = "another new row has the same username: change one of them in the source"
    USERNAME_IS_ANOTHERS = (
        "the username belongs to an account with another address: change it in the source, or link that account by hand"
    )
    USERNAME_NOT_FREE = "the username would change with the address, but is taken: rename the account that has it"
    WAS_UNLINKED = "the account with this username was unlinked: link it by hand if it is the same person"
    HAS_ROLE = "the account is a superuser's: link it by hand"
    KEY_TWICE = "another row has the same key: keep one of them in the source"
    ADDRESSES_OF_ONE = "another row has a different address of the same account: link it by hand"
    UNREADABLE = "the row cannot be read"
    NUMBER_MOVED = "the name and address belonged to another key in the last import: link or unlink by hand"
    RETURN_IN_DOUBT = "the account had another name and address when it was deactivated: link or unlink by hand"
    DELETED = "the account with this key was deleted in the portal: to allow the key again, run flask user forget-key"
    NO_ADDRESS = "no address, so no account is created"
    PRESENT = "an account with this username already exists"
    ADDRESS_IS_HELD = "a local account holds the address too: link it by hand if it is the same person"
    ROLE_FOLLOWS_BY_HAND = "the account is a superuser's: a superuser has to make this change by hand"
    LEAVER_WITH_ROLE = (
        "no longer in the source, but the account is a superuser's: a superuser has to deactivate it by hand"
    )


# Every row may have these reports, so they are only counted and get no line.
_COUNTED_ALONE = frozenset({Why.PRESENT, Why.NO_ADDRESS})
_NONE = frozenset[str]()  # shared, since many rows and accounts need it
_NOTHING_HELD: Mapping[str, bool] = MappingProxyType({})


class Row(NamedTuple):
    """One member, as the source says today.

    ``key`` is None where no column is the key, and for a row whose key cannot be read. ``addresses`` holds the main one
    first and is empty where the source says none; ``name``, ``groups`` and ``further`` addresses are None where the
    source never says them. ``username`` is what a new account is called. ``is_readable``: the cells were understood.
    """

    line: int
    key: str | None
    username_key: str  # as usernames are compared
    main: str | None = None
    further: frozenset[str] | None = None
    name: str | None = None
    groups: frozenset[str] | None = None
    is_readable: bool = True

    @property
    def addresses(self) -> frozenset[str]:
        """Return every address of the row."""
        own = _NONE if self.main is None else frozenset((self.main,))
        return self.further | own if self.further else own


class Imported(NamedTuple):
    """What the source last said about a person: None, or an empty set, where it has not said anything about that yet.

    ``named``: the source had the person when an import last noticed a difference.
    """

    named: bool = False
    address: str | None = None
    further: frozenset[str] = _NONE
    name: str | None = None
    groups: frozenset[str] = _NONE


NOTHING_IMPORTED = Imported()


class LinkedAccount(NamedTuple):
    """The part of a linked account that shows whether a row changes anything. ``has_left`` as in ``Account``."""

    key: str
    is_active: bool
    has_left: bool
    imported: Imported


class Account(NamedTuple):
    """An account, as far as an import depends on it.

    ``further`` and ``groups`` map each item to whether the source gave it: an import takes back only those.
    ``is_username_main``: the username is the main address, and follows it. ``deactivated_by_import``: an import did it,
    and nobody changed it since. ``was_unlinked``: a person took its key away.
    """

    id: int
    username_key: str
    main: str | None = None
    further: Mapping[str, bool] = _NOTHING_HELD
    name: str = ""
    groups: Mapping[str, bool] = _NOTHING_HELD
    key: str | None = None
    imported: Imported = NOTHING_IMPORTED
    is_active: bool = True
    is_username_main: bool = False
    deactivated_by_import: bool = False
    has_role: bool = False
    was_unlinked: bool = False

    @property
    def has_left(self) -> bool:
        """Whether the import deactivated the account, and nobody has activated it since."""
        return self.deactivated_by_import and not self.is_active

    @property
    def addresses(self) -> frozenset[str]:
        """Return every address that the account holds."""
        return frozenset(self.further) | ({self.main} if self.main else frozenset())


class Changes(NamedTuple):
    """The changes of an account; None and empty sets for what stays the same."""

    name: str | None = None
    main: str | None = None
    username_key: str | None = None
    add_addresses: frozenset[str] = _NONE
    remove_addresses: frozenset[str] = _NONE
    add_groups: frozenset[str] = _NONE
    remove_groups: frozenset[str] = _NONE
    key: str | None = None

    def __bool__(self) -> bool:
        """Return True if anything changes."""
        return self != NO_CHANGES


NO_CHANGES = Changes()


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision about one person. ``imported`` is what the source has last said about them once it is carried out.

    ``number`` is the number of its line in the plan; 0 if it has none.
    """

    action: Action
    row: Row | None
    account: Account | None
    changes: Changes = NO_CHANGES
    imported: Imported | None = None
    why: Why | None = None
    number: int = field(default=0, compare=False, repr=False)

    @property
    def writes(self) -> bool:
        """Whether anything is written."""
        if self.action is Action.REMEMBER:
            return self.account is None or self.imported != self.account.imported
        return self.action is not Action.REPORT and self.action is not Action.PROBLEM

    @property
    def has_line(self) -> bool:
        """Whether the plan has a line for it."""
        return self.action is not Action.REMEMBER and self.why not in _COUNTED_ALONE

    @property
    def text(self) -> str:
        """Return a line of text that is the same for equal decisions."""
        who = self.row.key if self.row and self.row.key else (self.account and self.account.key) or ""
        name = self.row.username_key if self.row else ""
        return f"{self.action}\t{who}\t{name}\t{self.account.id if self.account else ''}\t{_as_text(self.changes)}"


def _as_text(changes: Changes) -> str:
    several = changes.add_addresses, changes.remove_addresses, changes.add_groups, changes.remove_groups
    values = "\t".join([",".join(sorted(each)) if each else "" for each in several])
    return f"{changes.name or ''}\t{changes.main or ''}\t{changes.username_key or ''}\t{values}\t{changes.key or ''}"


def imported_after(row: Row, before: Imported) -> Imported:
    """Return what the source has last said once a row is imported. An empty address says nothing."""
    return Imported(
        named=True,
        address=row.main or before.address,
        further=before.further if row.further is None or row.main is None else row.further,
        name=before.name if row.name is None else row.name,
        groups=before.groups if row.groups is None else row.groups,
    )


def _new_account(row: Row, number: int) -> Decision:
    """Return the decision to create an account for a row."""
    changes = Changes(
        name=row.name or None,
        main=row.main,
        add_addresses=row.further - {row.main or ""} if row.further else _NONE,
        add_groups=row.groups or _NONE,
        key=row.key,
    )
    imported = None if row.key is None else imported_after(row, NOTHING_IMPORTED)
    return Decision(Action.CREATE, row, None, changes, imported, number=number)


@dataclass(frozen=True, slots=True)
class Limits:
    """What one import may do without approval: a count, or a percentage of linked active accounts if that is more."""

    leavers: int = 5
    leavers_percent: int = 10
    addresses: int = 25
    addresses_percent: int = 25


@dataclass(frozen=True)
class Plan:
    """What an import would do. ``linked`` counts the linked active accounts, ``named`` those of them that have a row.

    Each row in ``new`` gets a new account. There may be as many as the source has rows, so those decisions exist only
    while they are iterated over. All others are in ``decided``.
    """

    decided: tuple[Decision, ...]
    linked: int
    named: int
    deactivates: bool
    new: tuple[Row, ...] = ()

    @property
    def decisions(self) -> Iterator[Decision]:
        """Yield every decision."""
        yield from self.decided
        yield from map(self._new_decision, range(len(self.new)))

    def _new_decision(self, place: int) -> Decision:
        return _new_account(self.new[place], self._lines_decided + place + 1)

    @cached_property
    def _lines_decided(self) -> int:
        return max((each.number for each in self.decided), default=0)

    @property
    def last_number(self) -> int:
        """Return the number of the last line."""
        return self._lines_decided + len(self.new)

    def of(self, action: Action) -> list[Decision]:
        """Return the decisions of one kind."""
        return [each for each in self.decisions if each.action is action]

    @cached_property
    def counts(self) -> Mapping[Action, int]:
        """Return how many decisions there are of each kind."""
        return Counter(each.action for each in self.decided) + Counter({Action.CREATE: len(self.new)})

    @cached_property
    def id(self) -> str:
        """Name the plan by what it writes: 16 hex digits."""
        found = hashlib.sha256()
        for line in sorted(each.text for each in self.decided if each.writes and each.action is not Action.REMEMBER):
            found.update(f"{line}\n".encode())
        for row in sorted(self.new, key=lambda row: row.key or row.username_key):  # which is unique
            found.update(f"{_new_account(row, 0).text}\n".encode())
        return found.hexdigest()[:16]

    def excess(self, limits: Limits, *, approved: Collection[str] = ()) -> str | None:
        """Return in words what exceeds the limits, if anything; decisions of ``approved`` texts do not count."""
        counted = [each for each in self.decided if not approved or each.text not in approved]
        leavers = sum(each.action is Action.DEACTIVATE for each in counted)
        if leavers > max(limits.leavers, self.linked * limits.leavers_percent / 100):
            return TOO_MANY_LEAVERS % {"count": leavers, "linked": self.linked}
        moved = sum(each.changes.main is not None and each.account is not None for each in counted)
        if moved > max(limits.addresses, self.linked * limits.addresses_percent / 100):
            return TOO_MANY_MOVED % {"count": moved, "linked": self.linked}
        if self.deactivates and leavers and self.named * 2 < self.linked:
            return TOO_FEW_NAMED % {"count": self.named, "linked": self.linked}
        return None

    def chunks(self) -> Iterator[tuple[Decision, ...]]:
        """Yield the decisions that are written together: people whose changes share a mailbox or a username."""
        known = [each for each in self.decided if each.writes]
        together = _groups_that_share(
            chain(map(_mailboxes, known), (row.addresses for row in self.new)),
            chain(map(_usernames, known), ((row.username_key,) for row in self.new)),
        )

        def decision(number: int) -> Decision:
            return known[number] if number < len(known) else self._new_decision(number - len(known))

        for group in together:
            yield tuple(map(decision, group))
        shared = {number for group in together for number in group}
        for number in range(len(known) + len(self.new)):
            if number not in shared:
                yield (decision(number),)


def _groups_that_share(*kinds: Iterable[Collection[str]]) -> list[list[int]]:
    """Return groups of numbers that have a text of the same kind in common, directly or through others.

    Each kind yields the texts of number 0, 1 and so on. Numbers that share nothing are left out.
    """
    parent: dict[int, int] = {}

    def root(number: int) -> int:
        while (above := parent.get(number, number)) != number:
            parent[number] = parent.get(above, above)
            number = above
        return number

    for texts_of_each in kinds:
        first: dict[str, int] = {}
        for number, texts in enumerate(texts_of_each):
            for text in texts:
                other = first.setdefault(text, number)
                if other != number:
                    parent[root(number)] = root(other)
    groups: defaultdict[int, list[int]] = defaultdict(list)
    for number in sorted({*parent, *parent.values()}):
        groups[root(number)].append(number)
    return list(groups.values())


def _mailboxes(decision: Decision) -> Collection[str]:
    """Return the mailboxes that a decision affects, old and new."""
    changes, account = decision.changes, decision.account
    moves = changes.main is not None or changes.add_addresses or changes.remove_addresses
    if not moves and decision.action not in {Action.DEACTIVATE, Action.REACTIVATE}:
        return ()
    main = (changes.main,) if changes.main else ()
    held = account.addresses if account else ()
    return {*main, *held, *changes.add_addresses} if held or changes.add_addresses else main


def _usernames(decision: Decision) -> Collection[str]:
    """Return the usernames that a decision affects, old and new."""
    if decision.action is Action.CREATE and decision.row:
        return (decision.row.username_key,)
    if decision.changes.username_key and decision.account:
        return (decision.changes.username_key, decision.account.username_key)
    return ()


@dataclass(frozen=True, slots=True)
class Source:
    """How the rows are interpreted.

    ``deactivates_leavers``: accounts without a row are deactivated. ``key_is_address``: the address column is the
    key. ``deleted_keys``: of accounts that a person deleted here.
    """

    deactivates_leavers: bool = False
    key_is_address: bool = False
    deleted_keys: Collection[str] = frozenset()
