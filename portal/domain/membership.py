"""The import of members: what a file of today's members means for the accounts. Pure, like the merge.

Rows, accounts and what the source said last go in, a plan comes out; nothing is read or written here. Addresses are
canonical. Source of every rule: docs/people.md, "The import".
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property


class Action(StrEnum):
    """What the import does about one person, or says of them."""

    CREATE = "create"
    LINK = "link"
    CHANGE = "change"
    REACTIVATE = "reactivate"
    DEACTIVATE = "deactivate"
    REMEMBER = "remember"  # the account stays as it is; what the source said is new
    REPORT = "report"  # nothing is done, and nothing needs to be
    PROBLEM = "problem"  # nothing is done until a person has settled it


class Why(StrEnum):
    """Why a row is a problem, or what is reported of it."""

    USERNAME_IS_LINKED = (
        "the username belongs to an account with another key: change it in the source, or unlink that account"
    )
    USERNAME_TWICE = "another new row has the same username: change one of them in the source"
    USERNAME_IS_ANOTHERS = (
        "the username belongs to an account with another address: change it in the source, or link that account by hand"
    )
    USERNAME_NOT_FREE = "the username would follow the address, and is taken: rename the account that has it"
    WAS_UNLINKED = "the account of that username was unlinked: link it by hand if it is the same person"
    HAS_ROLE = "the account has a role: link it by hand"
    KEY_TWICE = "another row has the same key: keep one of them in the source"
    ADDRESSES_OF_ONE = "another row has another address of the same account: link by hand"
    UNREADABLE = "the row cannot be read"
    NUMBER_MOVED = "the name and address are what the source last said of another key: link or unlink by hand"
    RETURN_IN_DOUBT = "the account was deactivated under another name and address: link or unlink by hand"
    DELETED = "the account of that key was deleted here: flask user forget-key lets the key in again"
    NO_ADDRESS = "no address, so no account is made"
    PRESENT = "an account of that username is here already"
    ADDRESS_IS_HELD = "a local account holds the address too: link it by hand if it is the same person"
    ROLE_FOLLOWS_BY_HAND = "the account has a role: a superuser applies this by hand"
    LEAVER_WITH_ROLE = "no longer in the source, and the account has a role: a superuser deactivates it by hand"


_NONE = frozenset[str]()  # one for all: there may be many


@dataclass(frozen=True, slots=True)
class Row:
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
        return (self.further or frozenset()) | ({self.main} if self.main else frozenset())


@dataclass(frozen=True, slots=True)
class Said:
    """What the source said of a person last: None, or an empty set, where it has said nothing of that yet."""

    named: bool = False
    address: str | None = None
    further: frozenset[str] = frozenset()
    name: str | None = None
    groups: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Account:
    """An account as the import sees it.

    ``further`` and ``groups`` map what the account has to whether the source gave it: only that is taken again.
    ``is_username_main``: the username is the main address, and follows it. ``deactivated_by_import``: and by nobody
    since. ``was_unlinked``: a person took its key away.
    """

    id: int
    username_key: str
    main: str | None = None
    further: Mapping[str, bool] = field(default_factory=dict)
    name: str = ""
    groups: Mapping[str, bool] = field(default_factory=dict)
    key: str | None = None
    said: Said = Said()
    is_active: bool = True
    is_username_main: bool = False
    deactivated_by_import: bool = False
    has_role: bool = False
    was_unlinked: bool = False

    @property
    def has_left(self) -> bool:
        """Tell whether the import deactivated the account, and nobody has activated it since."""
        return self.deactivated_by_import and not self.is_active

    @property
    def addresses(self) -> frozenset[str]:
        """Return every address that the account holds."""
        return frozenset(self.further) | ({self.main} if self.main else frozenset())


@dataclass(frozen=True, slots=True)
class Changes:
    """What becomes different at an account; None and empty sets where nothing does."""

    name: str | None = None
    main: str | None = None
    username_key: str | None = None
    add_addresses: frozenset[str] = frozenset()
    remove_addresses: frozenset[str] = frozenset()
    add_groups: frozenset[str] = frozenset()
    remove_groups: frozenset[str] = frozenset()
    key: str | None = None

    def __bool__(self) -> bool:
        """Tell whether anything changes."""
        return self != Changes()


@dataclass(frozen=True, slots=True)
class Decision:
    """What the import does about one person. ``said`` is what the source has said of them afterwards."""

    action: Action
    row: Row | None
    account: Account | None
    changes: Changes = Changes()
    said: Said | None = None
    why: Why | None = None

    @property
    def writes(self) -> bool:
        """Tell whether anything is written."""
        is_same = self.account is not None and self.said == self.account.said and self.action is Action.REMEMBER
        return not is_same and self.action not in {Action.REPORT, Action.PROBLEM}

    @property
    def text(self) -> str:
        """Return the decision as one line that is the same for the same decision."""
        who = self.row.key if self.row and self.row.key else (self.account and self.account.key) or ""
        name = self.row.username_key if self.row else ""
        return f"{self.action}\t{who}\t{name}\t{self.account.id if self.account else ''}\t{_as_text(self.changes)}"


def _as_text(changes: Changes) -> str:
    several = changes.add_addresses, changes.remove_addresses, changes.add_groups, changes.remove_groups
    values = "\t".join([",".join(sorted(each)) if each else "" for each in several])
    return f"{changes.name or ''}\t{changes.main or ''}\t{changes.username_key or ''}\t{values}\t{changes.key or ''}"


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one import may do without approval: the larger of a count and a percentage of linked active accounts."""

    leavers: int = 5
    leavers_percent: int = 10
    addresses: int = 25
    addresses_percent: int = 25


@dataclass(frozen=True)
class Plan:
    """What an import would do. ``linked`` counts the linked active accounts, ``named`` those of them that rows name."""

    decisions: tuple[Decision, ...]
    linked: int
    named: int
    deactivates: bool

    def of(self, action: Action) -> list[Decision]:
        """Return the decisions of one kind."""
        return [each for each in self.decisions if each.action is action]

    @cached_property
    def id(self) -> str:
        """Name the plan by what it writes: 16 hex digits."""
        found = hashlib.sha256()
        for line in sorted(each.text for each in self.decisions if each.writes and each.action is not Action.REMEMBER):
            found.update(f"{line}\n".encode())
        return found.hexdigest()[:16]

    def excess(self, limits: Limits, *, approved: Collection[str] = ()) -> str | None:
        """Return in words what exceeds the limits, if anything; decisions of ``approved`` texts do not count."""
        counted = [each for each in self.decisions if not approved or each.text not in approved]
        leavers = sum(each.action is Action.DEACTIVATE for each in counted)
        if leavers > max(limits.leavers, self.linked * limits.leavers_percent / 100):
            return f"it deactivates {leavers} of {self.linked} linked accounts"
        moved = sum(each.changes.main is not None and each.account is not None for each in counted)
        if moved > max(limits.addresses, self.linked * limits.addresses_percent / 100):
            return f"it changes the addresses of {moved} of {self.linked} linked accounts"
        if self.deactivates and leavers and self.named * 2 < self.linked:
            return f"it names only {self.named} of {self.linked} linked accounts"
        return None

    @cached_property
    def chunks(self) -> tuple[tuple[Decision, ...], ...]:
        """Return what is written together: people whose changes share a mailbox or a username are one chunk."""
        writing = [each for each in self.decisions if each.writes]
        parent = list(range(len(writing)))

        def root(number: int) -> int:
            while parent[number] != number:
                parent[number] = parent[parent[number]]
                number = parent[number]
            return number

        mailboxes: dict[str, int] = {}
        usernames: dict[str, int] = {}
        for number, decision in enumerate(writing):
            for address in _mailboxes(decision):
                parent[root(number)] = root(mailboxes.setdefault(address, number))
            for username in _usernames(decision):
                parent[root(number)] = root(usernames.setdefault(username, number))
        roots = [root(number) for number in range(len(writing))]
        sizes = Counter(roots)
        together: dict[int, list[Decision]] = {number: [] for number, size in sizes.items() if size > 1}
        for number, decision in zip(roots, writing, strict=True):
            if number in together:
                together[number].append(decision)
        alone = ((decision,) for number, decision in zip(roots, writing, strict=True) if number not in together)
        return (*map(tuple, together.values()), *alone)


def _mailboxes(decision: Decision) -> Collection[str]:
    """Return the mailboxes that a decision changes, before and after."""
    changes, account = decision.changes, decision.account
    moves = changes.main is not None or changes.add_addresses or changes.remove_addresses
    if not moves and decision.action not in {Action.DEACTIVATE, Action.REACTIVATE}:
        return ()
    main = (changes.main,) if changes.main else ()
    held = account.addresses if account else ()
    return {*main, *held, *changes.add_addresses} if held or changes.add_addresses else main


def _usernames(decision: Decision) -> Collection[str]:
    """Return the usernames that a decision changes, before and after."""
    if decision.action is Action.CREATE and decision.row:
        return (decision.row.username_key,)
    if decision.changes.username_key and decision.account:
        return (decision.changes.username_key, decision.account.username_key)
    return ()


@dataclass(frozen=True, slots=True)
class Source:
    """How the rows are to be read.

    ``deactivates_leavers``: who is not named any more is deactivated. ``key_is_address``: the address column is the
    key. ``deleted_keys``: of accounts that a person deleted here.
    """

    deactivates_leavers: bool = False
    key_is_address: bool = False
    deleted_keys: Collection[str] = frozenset()


def plan_import(rows: Sequence[Row], accounts: Iterable[Account], source: Source) -> Plan:
    """Decide what an import does about each row and each leaver, whatever the order of the rows."""
    return _Planner(rows, accounts, source).plan()


class _Planner:
    """One import being decided: known keys first, then new ones, then leavers."""

    def __init__(self, rows: Sequence[Row], accounts: Iterable[Account], source: Source) -> None:
        self.rows, self.source = rows, source
        self.accounts = tuple(accounts)
        self.linked = {each.key: each for each in self.accounts if each.key is not None}
        self.by_username = {each.username_key: each for each in self.accounts}
        self.unsettled: Sequence[Row] = rows  # those that say something new
        self.problems: dict[int, Why] = {}  # by the line of the row
        self.spared: set[int] = set()  # accounts that are no leavers in this run
        self.decisions: list[Decision] = []

    def plan(self) -> Plan:
        matches = self._match_keys()
        self.unsettled = [
            row for row in self.rows if not ((account := matches.get(row.line)) and _is_settled(row, account))
        ]
        self._find_doubtful(matches)
        self._settle_usernames(matches)
        for row in self.rows if self.problems else ():
            if row.line in self.problems:
                account = matches.get(row.line)
                self.decisions.append(Decision(Action.PROBLEM, row, account, why=self.problems[row.line]))
        for row in self.unsettled:
            if row.line in matches and row.line not in self.problems:
                self.decisions.append(_followed(row, matches[row.line]))
        self._decide_new([row for row in self.unsettled if row.line not in matches])
        named = {account.id for account in matches.values()}
        self._decide_leavers(named)
        active = {each.id for each in self.linked.values() if each.is_active}
        return Plan(tuple(self.decisions), len(active), len(active & named), self.source.deactivates_leavers)

    def _match_keys(self) -> dict[int, Account]:
        """Return the linked account of each row by the row's line; a key that stands twice is a problem."""
        times = Counter(row.key for row in self.rows)
        matches = {row.line: self.linked[row.key] for row in self.rows if row.key in self.linked}
        for row in self.rows:
            if not row.is_readable:
                self.problems[row.line] = Why.UNREADABLE
            elif row.key is not None and times[row.key] > 1:
                self.problems[row.line] = Why.KEY_TWICE
        if self.source.key_is_address:
            while found := self._match_by_address(matches, times):
                matches |= found
            rows_of = Counter(account.id for account in matches.values())
            for line, account in matches.items():
                if rows_of[account.id] > 1:
                    self.problems.setdefault(line, Why.ADDRESSES_OF_ONE)
        return matches

    def _match_by_address(self, matches: Mapping[int, Account], keys: Collection[str | None]) -> dict[int, Account]:
        """Return the linked accounts whose key, their address, has become another one that they hold.

        It stands in no other row; who holds it is judged once those have moved that are matched already.
        """
        moved = {
            account.id: _followed(row, account).changes
            for row in self.rows
            if (account := matches.get(row.line)) and row.line not in self.problems
        }
        holders = _holders_after(self.linked.values(), moved, {row.key for row in self.rows if row.key})
        times = Counter(address for row in self.rows for address in row.addresses)
        return {
            row.line: holders[row.key][0]
            for row in self.rows
            if row.key is not None
            and row.line not in matches
            and times[row.key] <= 1
            and len(holders.get(row.key, ())) == 1
            and holders[row.key][0].key not in keys
        }

    def _find_doubtful(self, matches: Mapping[int, Account]) -> None:
        """Find the rows whose number was perhaps given to somebody else."""
        self._find_moved_numbers(matches)
        for row in self.unsettled:
            account = matches.get(row.line)
            if account is None or not account.has_left or not (row.name and row.main):
                continue
            said = account.said
            if said.name not in {None, row.name} and said.address not in {None, row.main}:
                self.problems.setdefault(row.line, Why.RETURN_IN_DOUBT)

    def _find_moved_numbers(self, matches: Mapping[int, Account]) -> None:
        suspects = [
            (row, account, (row.name, row.main))
            for row in self.unsettled
            if row.key and row.name and row.main and _may_be_another(account := matches.get(row.line), row)
        ]
        wanted = {pair for _, _, pair in suspects}
        said_of: defaultdict[tuple[str | None, str | None], set[int]] = defaultdict(set)
        for each in self.linked.values() if wanted else ():
            if (pair := (each.said.name, each.said.address)) in wanted:
                said_of[pair].add(each.id)
        line_of = {each.id: line for line, each in matches.items()} if said_of else {}
        for row, account, pair in suspects:
            others = said_of.get(pair, set()) - ({account.id} if account else set())
            self.spared |= others
            for line in [row.line, *(line_of[each] for each in others if each in line_of)] if others else ():
                self.problems.setdefault(line, Why.NUMBER_MOVED)

    def _settle_usernames(self, matches: Mapping[int, Account]) -> None:
        """Let usernames that are the main address follow it where they are free once everybody has moved."""
        following = {
            account.id: (row.line, name)
            for row in self.unsettled
            if (account := matches.get(row.line)) and (name := _followed(row, account).changes.username_key)
        }
        while True:
            wanted = {number: name for number, (line, name) in following.items() if line not in self.problems}
            if not wanted:
                return
            names = {account.id: wanted.get(account.id, account.username_key) for account in self.accounts}
            times = Counter(names.values())
            taken = [following[number][0] for number, name in wanted.items() if times[name] > 1]
            if not taken:
                self.by_username = {names[each.id]: each for each in self.accounts}
                return
            self.problems.update(dict.fromkeys(taken, Why.USERNAME_NOT_FREE))

    def _decide_new(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        usernames = Counter(row.username_key for row in rows)
        named = (self.by_username.get(row.username_key) for row in rows)
        self.spared |= {account.id for account in named if account and account.key is not None}
        rows = [row for row in rows if row.line not in self.problems]
        holders = self._holders_afterwards({address for row in rows for address in row.addresses})
        linking = self._linked_by_address(rows, holders)
        for row in rows:
            account = self.by_username.get(row.username_key)
            is_twice = usernames[row.username_key] > 1
            if row.key in self.source.deleted_keys:
                self._report(row, Why.DELETED)
            elif row.main is None:
                self._report(row, Why.NO_ADDRESS)
            elif row.key is None and account is not None:
                self._report(row, Why.PRESENT, account)
            elif account is not None or is_twice:
                self._decide_named(row, account, is_twice=is_twice)
            elif row.line in linking:
                self._link(row, linking[row.line])
            else:
                self._create(row, holders.get(row.main, ()))

    def _linked_by_address(self, rows: Sequence[Row], holders: Mapping[str, Sequence[Account]]) -> dict[int, Account]:
        """Return the account that each row links by its address alone, by the row's line.

        It is a local one, the only holder, that no other row names in any way; the address stands in no other row.
        """
        if any(row.key is None and not row.is_readable for row in self.rows):
            return {}  # a key that cannot be read may be anybody's
        found = {row.line: held[0] for row in rows if len(held := holders.get(row.main or "", ())) == 1}
        if not found:
            return {}
        addresses = Counter(address for row in self.rows for address in row.addresses)
        times = Counter(account.id for account in found.values())
        by_username = {account.id for row in self.rows if (account := self.by_username.get(row.username_key))}
        return {
            row.line: account
            for row in rows
            if (account := found.get(row.line))
            and row.key is not None
            and account.key is None
            and not account.was_unlinked
            and addresses[row.main or ""] == times[account.id] == 1
            and account.id not in by_username
        }

    def _holders_afterwards(self, wanted: Collection[str]) -> dict[str, list[Account]]:
        """Return who holds each of some addresses once the known have moved."""
        moved = {each.account.id: each.changes for each in self.decisions if each.account and each.writes}
        return _holders_after(self.accounts, moved, wanted)

    def _decide_named(self, row: Row, account: Account | None, *, is_twice: bool) -> None:
        """Decide about a new row whose username is not free."""
        if is_twice:
            why = Why.USERNAME_TWICE
        elif account is None or account.key is not None:
            why = Why.USERNAME_IS_LINKED
        elif account.was_unlinked:
            why = Why.WAS_UNLINKED
        elif row.main in account.addresses:
            self._link(row, account)
            return
        else:
            why = Why.USERNAME_IS_ANOTHERS
        self.decisions.append(Decision(Action.PROBLEM, row, account, why=why))

    def _link(self, row: Row, account: Account) -> None:
        if account.has_role:
            self.decisions.append(Decision(Action.PROBLEM, row, account, why=Why.HAS_ROLE))
            return
        # Name and groups are new words; the main address stays.
        fresh = replace(account, said=Said(), key=row.key)
        changes = replace(_changes(row, fresh), key=row.key)
        self.decisions.append(Decision(Action.LINK, row, account, changes, _said(row, fresh.said)))

    def _create(self, row: Row, holders: Sequence[Account]) -> None:
        changes = Changes(
            name=row.name or None,
            main=row.main,
            add_addresses=row.further - {row.main or ""} if row.further else _NONE,
            add_groups=row.groups or _NONE,
            key=row.key,
        )
        said = None if row.key is None else _said(row, Said())
        self.decisions.append(Decision(Action.CREATE, row, None, changes, said))
        for account in holders:
            if account.key is None:
                self._report(row, Why.ADDRESS_IS_HELD, account)

    def _report(self, row: Row, why: Why, account: Account | None = None) -> None:
        self.decisions.append(Decision(Action.REPORT, row, account, why=why))

    def _decide_leavers(self, named: Collection[int]) -> None:
        if not self.source.deactivates_leavers or any(not row.is_readable and row.key is None for row in self.rows):
            return
        for account in self.linked.values():
            if account.id in named or account.id in self.spared or not (account.is_active and account.said.named):
                continue
            if account.has_role:
                self.decisions.append(Decision(Action.REPORT, None, account, why=Why.LEAVER_WITH_ROLE))
            else:
                said = replace(account.said, named=False)
                self.decisions.append(Decision(Action.DEACTIVATE, None, account, said=said))


def _holders_after(
    accounts: Iterable[Account], changes: Mapping[int, Changes], wanted: Collection[str]
) -> dict[str, list[Account]]:
    """Return who holds each of some addresses once changes, by the account's id, are made."""
    holders: dict[str, list[Account]] = {}
    for account in accounts:
        made = changes.get(account.id)
        held: Iterable[str] = account.addresses if account.further else (account.main,) if account.main else ()
        if made:
            held = account.addresses | made.add_addresses | ({made.main} if made.main else set())
            held = held - (made.remove_addresses - {made.main or ""})
        for address in held:
            if address in wanted:
                holders.setdefault(address, []).append(account)
    return holders


def _is_settled(row: Row, account: Account) -> bool:
    """Tell whether a row says of a linked account what was said last, and there is nothing to be done about it."""
    said = account.said
    return (
        row.is_readable
        and said.named
        and not account.has_left
        and row.key == account.key
        and (row.main is None or (row.main == said.address and row.further in {None, said.further}))
        and row.name in {None, said.name}
        and row.groups in {None, said.groups}
    )


def _may_be_another(account: Account | None, row: Row) -> bool:
    """Tell whether a row may be about somebody else than its account; where no name was said a person linked it."""
    if account is None:
        return True
    return account.said.name is not None and (account.said.name, account.said.address) != (row.name, row.main)


def _followed(row: Row, account: Account) -> Decision:
    """Return what becomes of a linked account that a row names."""
    changes = _changes(row, account)
    if row.key != account.key:  # the address column is the key, and the address has changed
        changes = replace(changes, key=row.key)
    if account.has_role:
        name_alone = Changes(name=changes.name, key=changes.key)
        said = replace(account.said, named=True, name=account.said.name if row.name is None else row.name)
        why = Why.ROLE_FOLLOWS_BY_HAND if changes != name_alone or account.has_left else None
        return Decision(Action.CHANGE if name_alone else Action.REMEMBER, row, account, name_alone, said, why)
    said = _said(row, account.said)
    if account.has_left:
        return Decision(Action.REACTIVATE, row, account, changes, said)
    return Decision(Action.CHANGE if changes else Action.REMEMBER, row, account, changes, said)


def _changes(row: Row, account: Account) -> Changes:
    """Return what the source says that is new, as far as the account does not have it yet."""
    said = account.said
    name = row.name if row.name not in {None, said.name, account.name} else None
    main = row.main if row.main not in {None, said.address, account.main} else None
    if said.address is None and account.main:  # linked by hand: as any link, it leaves the main address
        main = None
    groups, further = row.groups, row.further if row.main else None
    add_groups, remove_groups = _differences(groups, said.groups, account.groups)
    add_further, remove_further = _differences(further, said.further, account.further)
    stays = main or account.main or ""
    if main and account.main:
        (add_further, remove_further) = _replaced(account, row, add_further, remove_further)
    return Changes(
        name=name,
        main=main,
        username_key=main if main and account.is_username_main else None,
        add_addresses=add_further - {stays},
        remove_addresses=remove_further - {stays},
        add_groups=add_groups,
        remove_groups=remove_groups,
    )


def _replaced(
    account: Account, row: Row, add: frozenset[str], remove: frozenset[str]
) -> tuple[frozenset[str], frozenset[str]]:
    """Let the old main address go with a change of it, unless the source says it as a further one."""
    old = account.main or ""
    return (add - {old}, remove - {old}) if row.further and old in row.further else (add - {old}, remove | {old})


def _differences(
    now: frozenset[str] | None, before: frozenset[str], held: Mapping[str, bool]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return what is newly said and not held yet, and what is no longer said and was given by the source."""
    if now is None:
        return frozenset(), frozenset()
    return frozenset((now - before) - held.keys()), frozenset(each for each in before - now if held.get(each))


def _said(row: Row, before: Said) -> Said:
    """Return what the source has said once a row has been followed; an empty address says nothing."""
    return Said(
        named=True,
        address=row.main or before.address,
        further=before.further if row.further is None or row.main is None else row.further,
        name=before.name if row.name is None else row.name,
        groups=before.groups if row.groups is None else row.groups,
    )
