"""Preferences displaced by moves: the only module that writes their table. Source: SEMANTICS, Identity.

Each function runs inside the caller's transaction.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    delete,
    exists,
    insert,
    literal,
    literal_column,
    not_,
    select,
    tuple_,
    update,
)
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.database import IdRange
from portal.domain.moves import Displaced, StoredPreference
from portal.models import DisplacedPreference, Preference, RunLine, UserAddress

Key = tuple[str, int]  # the handle of a list, the id of an address

_TABLE: Any = DisplacedPreference.__table__
_BLOCK = 5_000  # keys in one statement
STORED_FIELDS = (
    "subscribed", "source", "seen", "touched", "waiting_since", "departed", "left_by", "moved_to", "moved_from",
    "changed_at", "changed_by", "version",
)  # fmt: skip


def load(session: Session, address_ids: Sequence[int]) -> dict[Key, tuple[Displaced, ...]]:
    """Return the displaced preferences of addresses, from the oldest to the newest."""
    found: dict[Key, tuple[Displaced, ...]] = {}
    rows = session.execute(select(_TABLE).where(_TABLE.c.address_id.in_(address_ids)).order_by(_TABLE.c.id))
    for row in rows:
        key = row.list_handle, row.address_id
        before = (
            None if row.subscribed is None else StoredPreference(**{name: getattr(row, name) for name in STORED_FIELDS})
        )
        found[key] = (*found.get(key, ()), Displaced(row.taken_by, before))
    return found


# For RETURNING from preferences, where columns have no table name: whether something is displaced there.
IS_DISPLACED: Any = literal_column(
    "EXISTS (SELECT 1 FROM displaced_preferences AS displaced WHERE displaced.list_handle = preferences.list_handle "
    "AND displaced.address_id = preferences.address_id)"
)


def replace(session: Session, displaced: Mapping[Key, tuple[Displaced, ...]]) -> None:
    """Replace all displaced preferences of the given lists and addresses."""
    forget(session, displaced)
    rows = [
        {"list_handle": handle, "address_id": address_id, "taken_by": each.taken_by, **_columns(each.before)}
        for (handle, address_id), those in displaced.items()
        for each in those
    ]
    if rows:
        session.execute(insert(DisplacedPreference), rows)


def _columns(before: StoredPreference | None) -> dict[str, Any]:
    if before is None:
        return {**dict.fromkeys(STORED_FIELDS), "touched": False, "departed": False, "version": 0}
    return {name: getattr(before, name) for name in STORED_FIELDS}


def forget(session: Session, keys: Iterable[Key]) -> None:
    """Delete displaced preferences where a person has chosen."""
    for those in database.chunked(sorted(keys), _BLOCK):
        session.execute(delete(_TABLE).where(tuple_(_TABLE.c.list_handle, _TABLE.c.address_id).in_(those)))


def forget_added(session: Session, handle: str, run_id: int) -> None:
    """Delete displaced preferences of addresses that a run will add."""
    added = exists().where(
        RunLine.run_id == run_id,
        RunLine.address_id == _TABLE.c.address_id,
        RunLine.action == "add",
        not_(RunLine.held),
        not_(RunLine.settled),  # lines that wait for approval are not carried out
    )
    session.execute(delete(_TABLE).where(_TABLE.c.list_handle == handle, added))


def note_first_preferences(session: Session, handle: str, address_ids: Collection[int]) -> None:
    """Record that there was no preference before first preferences at addresses whose holders all moved in."""
    _note(session, handle, UserAddress.address_id.in_(sorted(address_ids)))


def note_noted_first_preferences(session: Session, handle: str, noted: Table, ids: IdRange) -> None:
    """Do the same for the addresses in a temporary table that had no preference when it was filled."""
    is_noted = exists().where(noted.c.address_id == UserAddress.address_id)
    is_made = exists().where(
        Preference.list_handle == handle, Preference.address_id == UserAddress.address_id, Preference.source == "init"
    )
    # By its range, as few addresses were moved in to, and an index finds those.
    _note(session, handle, and_(ids.holds(UserAddress.address_id), is_noted, is_made))


def _note(session: Session, handle: str, where: ColumnElement[bool]) -> None:
    other = aliased(UserAddress)
    is_otherwise = exists().where(other.address_id == UserAddress.address_id, other.moved_in_at.is_(None))
    taken = select(
        literal(handle), UserAddress.address_id, UserAddress.user_id, *map(literal, (0, False, False))
    ).where(UserAddress.moved_in_at.is_not(None), not_(is_otherwise), where)
    names = ["list_handle", "address_id", "taken_by", "version", "touched", "departed"]
    session.execute(insert(DisplacedPreference).from_select(names, taken))


def purge_gone_lists(session: Session, address_ids: Sequence[int], *, handles: Collection[str]) -> None:
    """Delete displaced preferences of addresses for lists that have left the catalogue."""
    gone = _TABLE.c.address_id.in_(address_ids) & _TABLE.c.list_handle.not_in(handles)
    session.execute(delete(_TABLE).where(gone))


def merge_accounts(session: Session, gone: int, *, into: int) -> None:
    """Replace a merged account by the one that it was merged into."""
    for column in (_TABLE.c.taken_by, _TABLE.c.left_by):
        session.execute(update(_TABLE).where(column == gone).values({column.name: into}))


def rename_list(session: Session, old: str, new: str) -> None:
    """Move displaced preferences to a list's new handle."""
    session.execute(update(_TABLE).where(_TABLE.c.list_handle == old).values(list_handle=new))
