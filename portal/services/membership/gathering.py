"""What an import decides from: the accounts, and what the membership source said of them last."""

from collections import defaultdict
from collections.abc import Collection, Iterable
from typing import Any

from sqlalchemy import ColumnElement, select, true
from sqlalchemy.orm import Session

from portal import database
from portal.domain import usernames
from portal.domain.membership import Account, Said
from portal.models import Address, LastSaid, User, UserAddress, UserGroup

_BLOCK = 5_000  # ids in one statement
_NOTHING: dict[str, bool] = {}
_UNSAID = Said()


def load_accounts(session: Session) -> list[Account]:
    """Return all accounts. The caller's transaction is open."""
    return _Reader(session).accounts(true(), true(), true())


def load_some(session: Session, ids: Collection[int]) -> list[Account]:
    """Return accounts, whose rows and addresses nobody else changes until the caller's transaction ends."""
    found: list[Account] = []
    for block in database.chunked(sorted(ids), _BLOCK):
        session.execute(select(User.id).where(User.id.in_(block)).order_by(User.id).with_for_update())
        found += _Reader(session).accounts(
            User.id.in_(block), UserAddress.user_id.in_(block), UserGroup.user_id.in_(block)
        )
    return found


class _Reader:
    """Rows of many accounts, made values that share what is alike."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.sets: dict[str, frozenset[str]] = {"": frozenset()}
        self.flags: dict[tuple[tuple[str, bool], ...], dict[str, bool]] = {}

    def accounts(
        self, which: ColumnElement[bool], of_addresses: ColumnElement[bool], of_groups: ColumnElement[bool]
    ) -> list[Account]:
        """Return accounts in the order of their ids; the conditions are one on each table."""
        mains, further = self._addresses(of_addresses)
        groups = self._groups(of_groups)
        said = (LastSaid.named, LastSaid.address, LastSaid.further, LastSaid.name.label("said_name"), LastSaid.groups)
        rows = self.session.execute(
            select(User.id, User.username_key, User.name, User.member_key, User.is_active, User.is_superuser)
            .add_columns(User.deactivated_by_import, User.was_unlinked, *said)
            .outerjoin(LastSaid, LastSaid.user_id == User.id)
            .where(which)
            .order_by(User.id)
        )
        return [
            Account(
                id=row.id,
                username_key=row.username_key,
                main=(main := mains.get(row.id)),
                further=further.get(row.id, _NOTHING),
                name=row.name,
                groups=groups.get(row.id, _NOTHING),
                key=row.member_key,
                said=self._said(row),
                is_active=row.is_active,
                is_username_main=main is not None and usernames.is_address(row.username_key, main),
                deactivated_by_import=row.deactivated_by_import,
                has_role=row.is_superuser,
                was_unlinked=row.was_unlinked,
            )
            for row in rows
        ]

    def _said(self, row: Any) -> Said:
        if row.named is None:
            return _UNSAID
        return Said(row.named, row.address, self._set(row.further), row.said_name, self._set(row.groups))

    def _set(self, text: str) -> frozenset[str]:
        found = self.sets.get(text)
        if found is None:
            found = self.sets[text] = frozenset(text.split("\n"))
        return found

    def _addresses(self, which: ColumnElement[bool]) -> tuple[dict[int, str], dict[int, dict[str, bool]]]:
        """Return main and further addresses by account."""
        rows = self.session.execute(
            select(UserAddress.user_id, Address.canonical, UserAddress.is_main, UserAddress.from_source)
            .join(Address, Address.id == UserAddress.address_id)
            .where(which)
        )
        mains: dict[int, str] = {}
        further: defaultdict[int, dict[str, bool]] = defaultdict(dict)
        for user_id, address, is_main, from_source in rows:
            if is_main:
                mains[user_id] = address
            else:
                further[user_id][address] = from_source
        return mains, further

    def _groups(self, which: ColumnElement[bool]) -> dict[int, dict[str, bool]]:
        rows = self.session.execute(
            select(UserGroup.user_id, UserGroup.name, UserGroup.from_source)
            .where(which)
            .order_by(UserGroup.user_id, UserGroup.name)
        )
        found: defaultdict[int, list[tuple[str, bool]]] = defaultdict(list)
        for user_id, name, from_source in rows:
            found[user_id].append((name, from_source))
        return {user_id: self._shared(tuple(pairs)) for user_id, pairs in found.items()}

    def _shared(self, pairs: tuple[tuple[str, bool], ...]) -> dict[str, bool]:
        if pairs not in self.flags:
            self.flags[pairs] = dict(pairs)
        return self.flags[pairs]


def as_text(texts: Iterable[str]) -> str:
    """Return a set of texts as it is stored."""
    return "\n".join(sorted(texts))
