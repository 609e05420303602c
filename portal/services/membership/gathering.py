"""Loads what an import decides from: the accounts, and what the membership source last said about them."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any

from sqlalchemy import ColumnElement, and_, not_, select, true
from sqlalchemy.orm import Session

from portal import database
from portal.domain import usernames
from portal.domain.membership import NOTHING_IMPORTED, Account, Imported, LinkedAccount
from portal.models import Address, LastSaid, User, UserAddress, UserGroup

_BLOCK = 5_000  # ids in one statement
_NOTHING: dict[str, bool] = {}
_IMPORTED = (LastSaid.named, LastSaid.address, LastSaid.further, LastSaid.name, LastSaid.groups)


def load_linked(session: Session) -> dict[str, LinkedAccount]:
    """Return all linked accounts by their keys, with what the source last said about them."""
    reader = _Reader(session)
    rows = reader.stream(
        select(User.member_key, User.is_active, User.deactivated_by_import, *_IMPORTED)
        .outerjoin(LastSaid, LastSaid.user_id == User.id)
        .where(User.member_key.is_not(None))
    )
    return {
        key: LinkedAccount(key, bool(is_active), bool(by_import and not is_active), reader.imported(*imported))
        for key, is_active, by_import, *imported in rows
    }


def load_accounts(session: Session) -> list[Account]:
    """Return all accounts. The caller's transaction is open."""
    return _Reader(session).accounts(true(), true(), true())


def load_some(session: Session, ids: Collection[int]) -> list[Account]:
    """Return accounts, locked until the caller's transaction ends."""
    found: list[Account] = []
    for block in database.chunked(sorted(ids), _BLOCK):
        session.execute(select(User.id).where(User.id.in_(block)).order_by(User.id).with_for_update())
        found += _Reader(session).accounts(
            User.id.in_(block), UserAddress.user_id.in_(block), UserGroup.user_id.in_(block)
        )
    return found


def load_addresses(session: Session) -> set[str]:
    """Return the canonical addresses that accounts hold or that the source last gave."""
    reader = _Reader(session)
    held = select(Address.canonical).join(UserAddress, UserAddress.address_id == Address.id)
    imported = select(LastSaid.address).where(LastSaid.address.is_not(None))
    return {address for query in (held, imported) for (address,) in reader.stream(query)}


class _Reader:
    """Turns the rows of many accounts into values that share equal parts."""

    def __init__(self, session: Session) -> None:
        self.connection = session.connection()
        self.sets: dict[str, frozenset[str]] = {"": frozenset()}
        self.flags: dict[tuple[tuple[str, bool], ...], dict[str, bool]] = {}

    def stream(self, query: Any) -> Iterator[Sequence[Any]]:
        for block in database.stream(self.connection, query):
            yield from block

    def accounts(
        self, which: ColumnElement[bool], of_addresses: ColumnElement[bool], of_groups: ColumnElement[bool]
    ) -> list[Account]:
        """Return accounts ordered by id. Each condition is for one of the tables."""
        further = self._further(of_addresses)
        groups = self._groups(of_groups)
        rows = self.stream(
            select(User.id, User.username_key, Address.canonical, User.name, User.member_key, User.is_active)
            .add_columns(User.deactivated_by_import, User.is_superuser, User.was_unlinked, *_IMPORTED)
            .outerjoin(LastSaid, LastSaid.user_id == User.id)
            .outerjoin(UserAddress, and_(UserAddress.user_id == User.id, UserAddress.is_main))
            .outerjoin(Address, Address.id == UserAddress.address_id)
            .where(which)
            .order_by(User.id)
        )
        return [
            Account(
                user_id,
                username_key,
                main,
                further.get(user_id, _NOTHING),
                name,
                groups.get(user_id, _NOTHING),
                key,
                self.imported(*imported, main=main, held_name=name),
                bool(is_active),
                main is not None and usernames.is_address(username_key, main),
                bool(by_import),
                bool(has_role),
                bool(was_unlinked),
            )
            for user_id, username_key, main, name, key, is_active, by_import, has_role, was_unlinked, *imported in rows
        ]

    def imported(
        self,
        named: bool | None,
        address: str | None,
        further: str,
        name: str | None,
        groups: str,
        *,
        main: str | None = None,
        held_name: str | None = None,
    ) -> Imported:
        """Return what was last said, with the account's own strings where they are equal."""
        if named is None:
            return NOTHING_IMPORTED
        return Imported(
            bool(named),
            main if address == main else address,
            self._set(further),
            held_name if name == held_name else name,
            self._set(groups),
        )

    def _set(self, text: str) -> frozenset[str]:
        found = self.sets.get(text)
        if found is None:
            found = self.sets[text] = frozenset(text.split("\n"))
        return found

    def _further(self, which: ColumnElement[bool]) -> dict[int, dict[str, bool]]:
        """Return further addresses by account."""
        rows = self.stream(
            select(UserAddress.user_id, Address.canonical, UserAddress.from_source)
            .join(Address, Address.id == UserAddress.address_id)
            .where(which, not_(UserAddress.is_main))
        )
        found: defaultdict[int, dict[str, bool]] = defaultdict(dict)
        for user_id, address, from_source in rows:
            found[user_id][address] = bool(from_source)
        return found

    def _groups(self, which: ColumnElement[bool]) -> dict[int, dict[str, bool]]:
        rows = self.stream(
            select(UserGroup.user_id, UserGroup.name, UserGroup.from_source)
            .where(which)
            .order_by(UserGroup.user_id, UserGroup.name)
        )
        found: defaultdict[int, list[tuple[str, bool]]] = defaultdict(list)
        for user_id, name, from_source in rows:
            found[user_id].append((name, bool(from_source)))
        return {user_id: self._shared(tuple(pairs)) for user_id, pairs in found.items()}

    def _shared(self, pairs: tuple[tuple[str, bool], ...]) -> dict[str, bool]:
        if pairs not in self.flags:
            self.flags[pairs] = dict(pairs)
        return self.flags[pairs]


def as_text(texts: Iterable[str]) -> str:
    """Return a set of texts in its stored form."""
    return "\n".join(sorted(texts))
