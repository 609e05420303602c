"""Decides what a member import does: what the rows of the source mean for the accounts. Pure, like the merge.

The input is rows and accounts with what the source last said; the result is a plan. Source of every rule:
docs/people.md, "The import".
"""

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import count

from portal.domain.membership import (
    NOTHING_IMPORTED,
    Account,
    Action,
    Changes,
    Decision,
    LinkedAccount,
    Plan,
    Row,
    Source,
    Why,
    imported_after,
)


def plan_if_unchanged(rows: Iterable[Row], linked: Mapping[str, LinkedAccount], source: Source) -> Plan | None:
    """Return the plan of ``plan_import`` if there is nothing to do; None if the accounts have to be loaded to decide.

    ``linked`` maps the keys of all linked accounts to them. There is nothing to do if each row repeats what was last
    said about one of them, and nobody has left.
    """
    named = set()
    for row in rows:
        account = linked.get(row.key or "")
        if account is None or account.key in named or not _is_settled(row, account):
            return None
        named.add(account.key)
    active = [each for each in linked.values() if each.is_active]
    missing = [each for each in active if each.key not in named]
    if source.deactivates_leavers and any(each.imported.named for each in missing):
        return None
    return Plan((), len(active), len(active) - len(missing), source.deactivates_leavers)


def plan_import(rows: Sequence[Row], accounts: Iterable[Account], source: Source) -> Plan:
    """Decide about each row and each leaver. The order of the rows makes no difference."""
    return _Planner(rows, accounts, source).plan()


class _Planner:
    """Decides about known keys first, then about new ones, then about leavers."""

    def __init__(self, rows: Sequence[Row], accounts: Iterable[Account], source: Source) -> None:
        self.rows, self.source = rows, source
        self.accounts = tuple(accounts)
        self.linked = {each.key: each for each in self.accounts if each.key is not None}
        self.by_username = {each.username_key: each for each in self.accounts}
        self.unsettled: Sequence[Row] = rows  # those that say something new
        self.problems: dict[int, Why] = {}  # by the line of the row
        self.spared: set[int] = set()  # accounts that do not count as leavers in this run
        self.decisions: list[Decision] = []
        self.new: list[Row] = []  # they get new accounts

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
        return Plan(
            decided=_numbered(self.decisions),
            linked=len(active),
            named=len(active & named),
            deactivates=self.source.deactivates_leavers,
            new=tuple(self.new),
        )

    def _match_keys(self) -> dict[int, Account]:
        """Return the linked accounts by the lines of their rows. A key in two rows is a problem."""
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
        """Return the linked accounts whose key, an address, has changed to another address that they hold.

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
        """Find the rows whose key may now belong to somebody else."""
        self._find_moved_numbers(matches)
        for row in self.unsettled:
            account = matches.get(row.line)
            if account is None or not account.has_left or not (row.name and row.main):
                continue
            imported = account.imported
            if imported.name not in {None, row.name} and imported.address not in {None, row.main}:
                self.problems.setdefault(row.line, Why.RETURN_IN_DOUBT)

    def _find_moved_numbers(self, matches: Mapping[int, Account]) -> None:
        if not self.linked:
            return
        suspects = [
            (row, account, (row.name, row.main))
            for row in self.unsettled
            if row.key and row.name and row.main and _may_be_another(account := matches.get(row.line), row)
        ]
        wanted = {pair for _, _, pair in suspects}
        known_as: defaultdict[tuple[str | None, str | None], set[int]] = defaultdict(set)
        for each in self.linked.values() if wanted else ():
            if (pair := (each.imported.name, each.imported.address)) in wanted:
                known_as[pair].add(each.id)
        line_of = {each.id: line for line, each in matches.items()} if known_as else {}
        for row, account, pair in suspects:
            others = known_as.get(pair, set()) - ({account.id} if account else set())
            self.spared |= others
            for line in [row.line, *(line_of[each] for each in others if each in line_of)] if others else ():
                self.problems.setdefault(line, Why.NUMBER_MOVED)

    def _settle_usernames(self, matches: Mapping[int, Account]) -> None:
        """Let usernames that are the main address follow it if they are free after all moves."""
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
        holders = self._holders_afterwards(rows)
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
        """Return the accounts that rows link by the address alone, by the lines of the rows.

        It is a local one, the only holder, that no other row names in any way; the address stands in no other row.
        """
        if any(row.key is None and not row.is_readable for row in self.rows):
            return {}  # a key that cannot be read may be that of any account
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

    def _holders_afterwards(self, rows: Iterable[Row]) -> dict[str, list[Account]]:
        """Return the holders of each address in some rows after the moves of known people."""
        if not self.accounts:
            return {}
        wanted = {address for row in rows for address in row.addresses}
        moved = {each.account.id: each.changes for each in self.decisions if each.account and each.writes}
        return _holders_after(self.accounts, moved, wanted)

    def _decide_named(self, row: Row, account: Account | None, *, is_twice: bool) -> None:
        """Decide about a new row whose username is taken."""
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
        # Name and groups count as new; the main address stays.
        fresh = account._replace(imported=NOTHING_IMPORTED, key=row.key)
        changes = _changes(row, fresh)._replace(key=row.key)
        self.decisions.append(Decision(Action.LINK, row, account, changes, imported_after(row, NOTHING_IMPORTED)))

    def _create(self, row: Row, holders: Sequence[Account]) -> None:
        self.new.append(row)
        for account in holders:
            if account.key is None:
                self._report(row, Why.ADDRESS_IS_HELD, account)

    def _report(self, row: Row, why: Why, account: Account | None = None) -> None:
        self.decisions.append(Decision(Action.REPORT, row, account, why=why))

    def _decide_leavers(self, named: Collection[int]) -> None:
        if not self.source.deactivates_leavers or any(not row.is_readable and row.key is None for row in self.rows):
            return
        for account in self.linked.values():
            if account.id in named or account.id in self.spared or not (account.is_active and account.imported.named):
                continue
            if account.has_role:
                self.decisions.append(Decision(Action.REPORT, None, account, why=Why.LEAVER_WITH_ROLE))
            else:
                imported = account.imported._replace(named=False)
                self.decisions.append(Decision(Action.DEACTIVATE, None, account, imported=imported))


def _numbered(decisions: Iterable[Decision]) -> tuple[Decision, ...]:
    """Number the decisions that have a line of their own."""
    numbers = count(1)
    return tuple([replace(each, number=next(numbers)) if each.has_line else each for each in decisions])


def _holders_after(
    accounts: Iterable[Account], changes: Mapping[int, Changes], wanted: Collection[str]
) -> dict[str, list[Account]]:
    """Return the holders of some addresses after changes, which are given by account id."""
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


def _is_settled(row: Row, account: Account | LinkedAccount) -> bool:
    """Return True if a row repeats what was last said about a linked account, and nothing has to be done."""
    imported = account.imported
    return (
        row.is_readable
        and imported.named
        and not account.has_left
        and row.key == account.key
        and (row.main is None or (row.main == imported.address and row.further in (None, imported.further)))
        and row.name in (None, imported.name)
        and row.groups in (None, imported.groups)
    )


def _may_be_another(account: Account | None, row: Row) -> bool:
    """Return True if a row may be about somebody other than its account. One linked by hand has no last name."""
    if account is None:
        return True
    imported = account.imported
    return imported.name is not None and (imported.name, imported.address) != (row.name, row.main)


def _followed(row: Row, account: Account) -> Decision:
    """Return the decision about a linked account that has a row."""
    changes = _changes(row, account)
    if row.key != account.key:  # the address column is the key, and the address has changed
        changes = changes._replace(key=row.key)
    if account.has_role:
        name_alone = Changes(name=changes.name, key=changes.key)
        name = account.imported.name if row.name is None else row.name
        imported = account.imported._replace(named=True, name=name)
        why = Why.ROLE_FOLLOWS_BY_HAND if changes != name_alone or account.has_left else None
        return Decision(Action.CHANGE if name_alone else Action.REMEMBER, row, account, name_alone, imported, why)
    imported = imported_after(row, account.imported)
    if account.has_left:
        return Decision(Action.REACTIVATE, row, account, changes, imported)
    return Decision(Action.CHANGE if changes else Action.REMEMBER, row, account, changes, imported)


def _changes(row: Row, account: Account) -> Changes:
    """Return what is new in the source and the account does not have yet."""
    imported = account.imported
    name = row.name if row.name not in {None, imported.name, account.name} else None
    main = row.main if row.main not in {None, imported.address, account.main} else None
    if imported.address is None and account.main:  # a link by hand leaves the main address alone, as any link
        main = None
    groups, further = row.groups, row.further if row.main else None
    add_groups, remove_groups = _differences(groups, imported.groups, account.groups)
    add_further, remove_further = _differences(further, imported.further, account.further)
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
    """Remove the old main address when it changes, unless the source lists it as a further one."""
    old = account.main or ""
    return (add - {old}, remove - {old}) if row.further and old in row.further else (add - {old}, remove | {old})


def _differences(
    now: frozenset[str] | None, before: frozenset[str], held: Mapping[str, bool]
) -> tuple[frozenset[str], frozenset[str]]:
    """Return the new items that the account lacks, and the dropped items that the source had given."""
    if now is None:
        return frozenset(), frozenset()
    return frozenset((now - before) - held.keys()), frozenset(each for each in before - now if held.get(each))
