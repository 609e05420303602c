"""Writes what an import changes, many accounts at once; people who share a mailbox or username in one transaction."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import bindparam, delete, func, select, tuple_, update
from sqlalchemy.orm import Session

from portal.database import BulkInsert
from portal.domain import usernames
from portal.domain.membership import Account, Action, Changes, Decision
from portal.domain.search_text import search_key
from portal.errors import BadInputError
from portal.models import Address, LastSaid, User, UserAddress, UserGroup
from portal.services.accounts import address_changes, addresses, invitations, names, new_accounts, passwords, sessions
from portal.services.accounts import log as account_log
from portal.services.accounts.address_changes import AddressChange
from portal.services.accounts.addresses import Checked
from portal.services.accounts.log import Recorded
from portal.services.accounts.moves import Lists
from portal.services.accounts.new_accounts import NewAccount
from portal.services.history import Actor
from portal.services.membership import gathering
from portal.services.membership.rows import Texts

Chunk = Sequence[Decision]

_AT_ONCE = 500  # decisions in one transaction, if no address changes
_COST_OF_MOVE = 20  # a decision that changes addresses or activity counts as so many
_GROUPS = BulkInsert(UserGroup)
_IMPORTED = BulkInsert(LastSaid, replaces=("named", "address", "further", "name", "groups"))


class Context(NamedTuple):
    """The parameters of all writes of an import. ``invites``: new accounts get an invitation by mail."""

    texts: Texts
    actor: Actor
    now: datetime
    lists: Lists
    invites: bool = False


class Written(NamedTuple):
    """The result of one transaction: decisions with the ids of their accounts, and decisions that were outdated."""

    done: list[tuple[Decision, int]]
    stale: list[Decision]


def in_batches(chunks: Iterable[Chunk]) -> Iterator[list[Chunk]]:
    """Yield the chunks of each transaction, which are kept small so that a save never waits long."""
    batch: list[Chunk] = []
    cost = 0
    for chunk in chunks:
        cost_of_chunk = sum(map(_cost, chunk))
        if batch and cost + cost_of_chunk > _AT_ONCE:
            yield batch
            batch, cost = [], 0
        batch.append(chunk)
        cost += cost_of_chunk
    if batch:
        yield batch


def _cost(decision: Decision) -> int:
    return _COST_OF_MOVE if _moves(decision) or decision.action in {Action.DEACTIVATE, Action.REACTIVATE} else 1


def _moves(decision: Decision) -> bool:
    """Return True if addresses change, other than by the one main address of a new account."""
    changes = decision.changes
    is_main = changes.main is not None and decision.account is not None
    return bool(is_main or changes.add_addresses or changes.remove_addresses)


def _given_by_source(changes: Changes, account: Account) -> frozenset[str]:
    """Return the addresses that the source gives to an account, including a former main address that stays."""
    stays = {account.main} - changes.remove_addresses if changes.main else set()
    return changes.add_addresses | frozenset(filter(None, [changes.main, *stays]))


def write(session: Session, batch: Sequence[Chunk], context: Context) -> Written:
    """Write the chunks whose accounts have not changed since the plan, in the caller's transaction."""
    ids = {each.account.id for chunk in batch for each in chunk if each.account}
    current = {each.id: each for each in gathering.load_some(session, ids)}
    taken = _Taken(session, [each for chunk in batch for each in chunk])
    done: list[Decision] = []
    stale: list[Decision] = []
    for chunk in batch:
        is_fresh = all(each.account is None or current.get(each.account.id) == each.account for each in chunk)
        (done if is_fresh and not taken.holds_any(chunk) else stale).extend(chunk)
    made = _Writer(session, context, done).write()
    return Written([(each, each.account.id if each.account else made[_username_key(each)]) for each in done], stale)


def _username_key(decision: Decision) -> str:
    return decision.row.username_key if decision.row else ""


class _Taken:
    """The keys and mailboxes for links that somebody else has taken since the plan was made.

    Whether the username or key of a new account is taken shows when it is inserted.
    """

    def __init__(self, session: Session, decisions: Sequence[Decision]) -> None:
        known = [each for each in decisions if each.account and each.changes.key]
        keys = [each.changes.key for each in known]
        mains = [each.row.main for each in known if each.action is Action.LINK and each.row]
        self.keys = set(session.scalars(select(User.member_key).where(User.member_key.in_(keys)))) if keys else set()
        held = select(Address.canonical, func.count()).join(UserAddress, UserAddress.address_id == Address.id)
        counted = held.where(Address.canonical.in_(mains)).group_by(Address.canonical)
        self.shared = {address for address, count in session.execute(counted) if count > 1} if mains else set()

    def holds_any(self, chunk: Chunk) -> bool:
        """Return True if anything that a chunk needs is taken."""
        return any(
            each.account is not None
            and (each.changes.key in self.keys or (each.action is Action.LINK and self._is_shared(each)))
            for each in chunk
        )

    def _is_shared(self, decision: Decision) -> bool:
        """Return True if an account to be linked by its address alone is no longer its only holder."""
        is_named = decision.account is not None and decision.account.username_key == _username_key(decision)
        return not is_named and decision.row is not None and decision.row.main in self.shared


class _Person(NamedTuple):
    """The username and name of an account."""

    username: str
    name: str


class _Writer:
    """The writes of one transaction: first what is given up, then what is taken, then reactivations."""

    def __init__(self, session: Session, context: Context, decisions: Sequence[Decision]) -> None:
        self.session, self.context, self.decisions = session, context, decisions
        self.known: list[tuple[Decision, Account]] = [(each, each.account) for each in decisions if each.account]
        self.people = self._people()
        self.log: list[Recorded] = []

    def write(self) -> dict[str, int]:
        """Write everything; return the ids of new accounts by ``username_key``."""
        self._deactivate()
        self._move()
        made = self._create()
        self._change_users()
        self._change_groups()
        self._reactivate()
        self._remember(made)
        account_log.record_all(self.session, self.log, actor=self.context.actor)
        return made

    def _people(self) -> dict[int, _Person]:
        rows = self.session.execute(
            select(User.id, User.username, User.name).where(User.id.in_([account.id for _, account in self.known]))
        )
        return {row.id: _Person(row.username, row.name) for row in rows}

    def _record(self, account: Account, what: str, old: str = "", new: str = "") -> None:
        self.log.append(Recorded(account.id, self.people[account.id].username, what, old, new))

    def _checked(self, address: str) -> Checked:
        return Checked(address, self.context.texts.spellings.get(address, address))

    def _of(self, action: Action) -> list[Account]:
        return [account for each, account in self.known if each.action is action]

    def _deactivate(self) -> None:
        gone = self._of(Action.DEACTIVATE)
        if not gone:
            return
        ids = [account.id for account in gone]
        addresses.deactivate(self.session, ids, actor=self.context.actor, now=self.context.now)
        for account in gone:
            self._record(account, "deactivated")
        self.session.execute(update(User).where(User.id.in_(ids)).values(is_active=False, deactivated_by_import=True))
        sessions.end_of_all(self.session, ids)

    def _move(self) -> None:
        wanted = {
            account.id: self._address_change(each.changes, account) for each, account in self.known if _moves(each)
        }
        if not wanted:
            return
        self._change_addresses(wanted)
        given = [
            (account.id, address)
            for each, account in self.known
            if _moves(each)
            for address in _given_by_source(each.changes, account)
        ]
        self._mark_from_source(given)
        self._trade_usernames()
        self.people = self._people()

    def _address_change(self, changes: Changes, account: Account | None = None) -> AddressChange:
        before = account.main if account else None
        return AddressChange(
            main=self._checked(changes.main) if changes.main and account else None,
            replaces_main=changes.main is not None and before in changes.remove_addresses,
            added=tuple(map(self._checked, sorted(changes.add_addresses))),
            removed=changes.remove_addresses - {before},
        )

    def _change_addresses(self, wanted: Mapping[int, AddressChange]) -> None:
        context = self.context
        address_changes.change_many(self.session, wanted, actor=context.actor, now=context.now, lists=context.lists)

    def _mark_from_source(self, given: Sequence[tuple[int, str]]) -> None:
        """Mark addresses, given by user and canonical form, as given by the source."""
        numbers = dict(
            self.session.execute(
                select(Address.canonical, Address.id).where(Address.canonical.in_({address for _, address in given}))
            ).all()
        )
        seats = [(user_id, numbers[address]) for user_id, address in given if address in numbers]
        self.session.execute(
            update(UserAddress)
            .where(tuple_(UserAddress.user_id, UserAddress.address_id).in_(seats))
            .values(from_source=True)
        )

    def _trade_usernames(self) -> None:
        """Let usernames that are the main address follow it, also if people exchange them."""
        wanted = {}
        for each, account in self.known:
            if each.changes.username_key is not None:
                with suppress(BadInputError):  # an address may be longer than a username
                    spelling = self._checked(each.changes.username_key).spelling
                    wanted[account.id] = usernames.checked(spelling, own=[each.changes.username_key])
        names.give_all(self.session, wanted, actor=self.context.actor)

    def _create(self) -> dict[str, int]:
        texts = self.context.texts
        accounts = [
            NewAccount(
                texts.username(each.row),
                self._checked(each.changes.main or ""),
                texts.password_hashes.get(each.row.line, passwords.UNUSABLE),
                each.changes.name or "",
                sorted(each.changes.add_groups),
                member_key=each.changes.key,
                from_source=each.changes.key is not None,
            )
            for each in self.decisions
            if each.action is Action.CREATE and each.row
        ]
        if not accounts:
            return {}
        context = self.context
        made = new_accounts.make_all(self.session, accounts, actor=context.actor, now=context.now, lists=context.lists)
        several = [each for each in self.decisions if each.action is Action.CREATE and each.changes.add_addresses]
        if several:
            ids = {id(each): made[_username_key(each)] for each in several}
            self._change_addresses({ids[id(each)]: self._address_change(each.changes) for each in several})
            self._mark_from_source(
                [(ids[id(each)], address) for each in several for address in each.changes.add_addresses]
            )
        if context.invites:
            invitations.ask_for(self.session, list(made.values()), actor=context.actor, now=context.now)
        return made

    def _change_users(self) -> None:
        """Write names and keys."""
        named, keyed = [], []
        for each, account in self.known:
            if each.changes.name is not None:
                person = self.people[account.id]
                self._record(account, "name changed", person.name, each.changes.name)
                searched = search_key(each.changes.name, person.username)
                named.append({"of_user": account.id, "new_name": each.changes.name, "new_search_key": searched})
            if each.changes.key is not None:
                what = "linked" if each.action is Action.LINK else "member key changed"
                self._record(account, what, account.key or "", each.changes.key)
                keyed.append({"of_user": account.id, "new_member_key": each.changes.key})
        for rows, columns in ((named, ("name", "search_key")), (keyed, ("member_key",))):
            if rows:
                self.session.execute(_of_one_user(columns), rows)

    def _change_groups(self) -> None:
        changed = [
            (each, account) for each, account in self.known if each.changes.add_groups or each.changes.remove_groups
        ]
        gone = [(account.id, name) for each, account in changed for name in each.changes.remove_groups]
        given = [
            {"user_id": account.id, "name": name}
            for each, account in changed
            for name in sorted(each.changes.add_groups)
        ]
        if gone:
            self.session.execute(delete(UserGroup).where(tuple_(UserGroup.user_id, UserGroup.name).in_(gone)))
        _GROUPS.execute(self.session, given, from_source=True)
        for each, account in changed:
            before = frozenset(account.groups)
            after = (before | each.changes.add_groups) - each.changes.remove_groups
            self._record(account, "groups changed", "; ".join(sorted(before)), "; ".join(sorted(after)))
        admitted = [account.id for each, account in changed if each.changes.add_groups]
        if admitted:
            context = self.context
            addresses.admit(self.session, admitted, actor=context.actor, now=context.now, lists=context.lists)

    def _reactivate(self) -> None:
        back = self._of(Action.REACTIVATE)
        if not back:
            return
        ids, context = [account.id for account in back], self.context
        addresses.activate(self.session, ids, actor=context.actor, now=context.now, lists=context.lists)
        for account in back:
            self._record(account, "activated")

    def _remember(self, made: Mapping[str, int]) -> None:
        rows = [
            {
                "user_id": each.account.id if each.account else made[_username_key(each)],
                "named": each.imported.named,
                "address": each.imported.address,
                "further": gathering.as_text(each.imported.further),
                "name": each.imported.name,
                "groups": gathering.as_text(each.imported.groups),
            }
            for each in self.decisions
            if each.imported is not None
        ]
        _IMPORTED.execute(self.session, rows)


def _of_one_user(columns: Sequence[str]) -> Any:
    """Return the statement that writes some columns of one account, with parameters ``of_user`` and ``new_COLUMN``."""
    table: Any = User.__table__
    values = {name: bindparam(f"new_{name}", type_=table.c[name].type) for name in columns}
    return update(table).where(table.c.id == bindparam("of_user")).values(values)
