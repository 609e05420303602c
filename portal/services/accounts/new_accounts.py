"""Create many accounts in a few statements, like ``users.create`` and ``addresses.give`` for one."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal import database
from portal.database import BulkInsert
from portal.domain import usernames
from portal.domain.moves import Move
from portal.models import Address, UserAddress, UserGroup
from portal.services.accounts import addresses, moves, users
from portal.services.accounts import log as account_log
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.history import Actor

_BLOCK = 5_000  # rows in one statement
_ADDRESSES = BulkInsert(Address, or_ignore=True)
_SEATS = BulkInsert(UserAddress)
_GROUPS = BulkInsert(UserGroup)


class NewAccount(NamedTuple):
    """An account to create, already checked. ``from_source``: groups and address are from the membership source."""

    username: str
    address: Checked
    password_hash: str
    name: str = ""
    groups: Sequence[str] = ()
    is_superuser: bool = False
    member_key: str | None = None
    from_source: bool = False


def make_all(
    session: Session, accounts: Sequence[NewAccount], *, actor: Actor, now: datetime, lists: Lists
) -> dict[str, int]:
    """Create accounts with their main addresses in the caller's transaction; return their ids by ``username_key``.

    Raise DuplicateError.
    """
    names = ("username", "name", "password_hash", "is_superuser", "member_key")
    user_ids = users.insert_accounts(
        session, ({name: getattr(each, name) for name in names} for each in accounts), now=now
    )
    made = [(user_ids[usernames.key(each.username)], each) for each in accounts]
    for chunk in database.chunked(((user_id, each.username) for user_id, each in made), _BLOCK):
        account_log.record(session, chunk, "imported", actor=actor)
    address_ids = _find_or_make_addresses(session, accounts)
    held = [(user_id, address_ids[each.address.canonical], each.from_source) for user_id, each in made]
    for block in database.chunked((Move(user_id, None, number) for user_id, number, _ in held), _BLOCK):
        moves.carry_out(session, block, actor=actor, now=now)
    _insert(session, held, made)
    addresses.clear_departures_of(session, list(address_ids.values()), lists=lists)
    return user_ids


def _insert(session: Session, held: Iterable[tuple[int, int, bool]], made: Iterable[tuple[int, NewAccount]]) -> None:
    seats = (
        {"user_id": user_id, "address_id": number, "from_source": from_source} for user_id, number, from_source in held
    )
    groups = (
        {"user_id": user_id, "name": name, "from_source": each.from_source}
        for user_id, each in made
        for name in each.groups
    )
    for block in database.chunked(seats, _BLOCK):
        _SEATS.execute(session, block, is_main=True)
    for block in database.chunked(groups, _BLOCK):
        _GROUPS.execute(session, block)


def _find_or_make_addresses(session: Session, accounts: Sequence[NewAccount]) -> dict[str, int]:
    spelled: dict[str, str] = {}
    for each in accounts:
        spelled.setdefault(each.address.canonical, each.address.spelling)
    ids: dict[str, int] = {}
    for block in database.chunked(spelled, _BLOCK):
        rows = [{"canonical": canonical, "spelling": spelled[canonical]} for canonical in block]
        _ADDRESSES.execute(session, rows, erase=False)
        columns = select(Address.id, Address.canonical, Address.spelling, Address.erase, Address.let_go_at)
        found = columns.add_columns(addresses.is_held().label("is_held")).where(Address.canonical.in_(block))
        respelled = []
        locked = found.order_by(Address.id).with_for_update()  # what a move decides about them stays true
        for address_id, canonical, spelling, erase, let_go_at, is_held in session.execute(locked):
            ids[canonical] = address_id
            is_fresh = (spelling, erase, let_go_at) == (spelled[canonical], False, None)
            if not is_held and not is_fresh:
                respelled.append({"id": address_id, "spelling": spelled[canonical], "erase": False, "let_go_at": None})
        if respelled:  # as with one: the first spelling stays while somebody holds the address
            session.execute(update(Address), respelled)
    return ids
