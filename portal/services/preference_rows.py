"""The only module that writes preferences: first ones, choices, results of runs, and what moves with an address.

Each function runs inside the caller's transaction and writes the history of its changes. All code that locks several
rows does so in the order of list and address, which prevents deadlocks.
"""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from enum import Enum, auto
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    Table,
    and_,
    bindparam,
    case,
    delete,
    exists,
    false,
    func,
    insert,
    literal,
    not_,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.orm import Session

from portal import database
from portal.database import IdRange
from portal.domain.merge import AddressState
from portal.domain.moves import StoredPreference
from portal.domain.plan import Row
from portal.models import AccountChange, Address, Preference, User, UserAddress
from portal.services import displaced_preferences, history
from portal.services.history import Actor, Change

_TABLE: Any = Preference.__table__  # the table, not the class, for statements over many rows
_KEY = ("list_handle", "address_id")
# A new value ends the list manager's refusal of the old one.
_ENDED: Mapping[str, None] = {"push_result": None, "refusal": None, "refused_at": None}


class PreferenceUpdate(NamedTuple):
    """A run's update of a preference: the state to store, and the list manager's message.

    ``row`` is as the plan read it; ``source`` applies if the preference changes. If a push did not take, ``refusal`` is
    the list manager's message and ``push_result`` the result. ``is_held_back``: nothing was pushed, so both stay as
    stored.
    """

    row: Row
    after: AddressState
    refusal: str | None
    is_held_back: bool
    source: str = "list"
    push_result: str | None = None


class MovedPreference(NamedTuple):
    """The preference of an address before and after a move; None if there is none."""

    list_handle: str
    address_id: int
    address: str
    before: StoredPreference | None
    after: StoredPreference | None


def write_choices(
    session: Session,
    changes: Iterable[Change],
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> list[Change]:
    """Write a person's choices over whatever is stored; return those that were still changes.

    Another holder may have chosen the same since the rows were read. A choice clears the mark that a departure was
    dealt with, and what a move displaced. It does not with source ``rule``, as for an untick that comes with a tick
    elsewhere, which is not a choice.
    """
    ordered = sorted(changes)
    if not ordered:
        return []
    rows = [{**_values(each, actor=actor, now=now), "touched": True, "version": 1} for each in ordered]
    statement = database.insert(session, Preference).values(rows)
    taken = ("subscribed", "source", "changed_at", "changed_by", "touched")
    upsert = statement.on_conflict_do_update(
        index_elements=_KEY,
        set_={
            **{name: statement.excluded[name] for name in taken},
            **_ENDED,
            "moved_from": None,
            "departed": False,
            "version": Preference.version + 1,
        },
        where=Preference.subscribed != statement.excluded.subscribed,
    ).returning(Preference.list_handle, Preference.address_id, Preference.source, displaced_preferences.IS_DISPLACED)
    found = {(handle, number): (source, displaces) for handle, number, source, displaces in session.execute(upsert)}
    chosen = [key for key, (source, displaces) in found.items() if displaces and source != "rule"]
    displaced_preferences.forget(session, chosen)
    written = set(found)
    return _recorded(session, ordered, written, actor=actor, now=now, reason=reason)


def write_first_preferences(
    session: Session, changes: Iterable[Change], *, actor: Actor, now: datetime, is_seen: bool = False
) -> list[Change]:
    """Write first preferences and return those written. ``is_seen``: each is what the roster says.

    Preferences made in the meantime stay, and addresses that have lost their holders are skipped.
    """
    ordered = sorted(changes)
    there = _locked_where_held(session, ordered)
    rows = [
        {**_values(each, actor=actor, now=now), "seen": each.subscribed if is_seen else None}
        for each in ordered
        if each.address_id in there
    ]
    made = _recorded(session, ordered, _insert(session, rows), actor=actor, now=now)
    for handle in {each.list_handle for each in made if is_seen}:
        displaced_preferences.note_first_preferences(
            session, handle, [each.address_id for each in made if each.list_handle == handle]
        )
    return made


def write_new_members(session: Session, changes: Iterable[Change], *, now: datetime) -> list[Change]:
    """Write the subscriptions of new members, none of whom is on the list yet; return those written.

    Members who have chosen or given up the address in the meantime are skipped. Source: SEMANTICS, The merge, rule 1.
    """
    ordered = sorted(changes)
    there = _locked_where_held(session, ordered)
    rows = [
        {**_values(each, actor=history.SYNC, now=now), "seen": False} for each in ordered if each.address_id in there
    ]
    written = _insert(session, rows)
    return _recorded(session, ordered, written, actor=history.SYNC, now=now, reason=history.NEW_MEMBER)


def _locked_where_held(session: Session, changes: Iterable[Change]) -> set[int]:
    """Lock the addresses that active accounts hold until the transaction ends, and return their ids."""
    ids = sorted({each.address_id for each in changes})
    locked = select(Address.id).where(Address.id.in_(ids)).order_by(Address.id)
    session.execute(locked.with_for_update(read=True, key_share=True))
    held = select(UserAddress.address_id).join(User, User.id == UserAddress.user_id)
    return set(session.scalars(held.where(UserAddress.address_id.in_(ids), User.is_active)))


def _values(change: Change, *, actor: Actor, now: datetime) -> dict[str, Any]:
    return {
        "list_handle": change.list_handle,
        "address_id": change.address_id,
        "subscribed": change.subscribed,
        "source": change.source,
        "changed_at": now,
        "changed_by": actor.user_id,
    }


def _insert(session: Session, rows: Sequence[Mapping[str, Any]]) -> set[tuple[Any, ...]]:
    """Insert the missing rows; return list and address of each."""
    if not rows:
        return set()
    statement = database.insert(session, _TABLE).on_conflict_do_nothing()
    return set(map(tuple, session.execute(statement.returning(*(_TABLE.c[name] for name in _KEY)), rows)))


def _recorded(
    session: Session,
    changes: Sequence[Change],
    written: Collection[tuple[Any, ...]],
    *,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> list[Change]:
    made = [each for each in changes if (each.list_handle, each.address_id) in written]
    history.record(session, made, actor=actor, now=now, reason=reason)
    return made


# --- list-init, which writes up to a million addresses


_LATE = 10_000  # this many account changes may commit after one with a higher number


class AccountsMark(NamedTuple):
    """The number of account changes after a certain id, to detect whether more have followed."""

    first: int
    number: int


def mark_accounts(session: Session) -> AccountsMark:
    """Return a mark; call this before noting addresses."""
    first = (session.scalar(select(func.max(AccountChange.id))) or 0) - _LATE
    return AccountsMark(first, _changes_from(session, first))


def _changes_from(session: Session, first: int) -> int:
    count: int = session.execute(select(func.count()).where(AccountChange.id > first)).scalar_one()
    return count


def write_noted_first_preferences(
    session: Session, handle: str, noted: Table, ids: IdRange, *, mark: AccountsMark, now: datetime
) -> None:
    """Write the first preferences in a temporary table with the columns ``address_id`` and ``on_roster``.

    Choices made in the meantime stay, and addresses that have lost their holders are skipped. Holders are checked again
    only if accounts have changed since the mark, because PostgreSQL reads all accounts for that each time.
    """
    columns = {
        "list_handle": literal(handle),
        "address_id": Address.id,
        "subscribed": noted.c.on_roster,
        "seen": noted.c.on_roster,
        "source": literal("init"),
        "changed_at": literal(now, Preference.changed_at.type),
        "version": literal(0),
        "touched": false(),
        "departed": false(),
    }
    of_noted = (
        select(Address.id)
        .join(noted, noted.c.address_id == Address.id)
        .where(ids.holds(noted.c.address_id, Address.id))
        .order_by(Address.id)
    )
    session.execute(of_noted.with_for_update(read=True, key_share=True, of=Address))
    first_preferences = of_noted.with_only_columns(*columns.values())
    if _changes_from(session, mark.first) != mark.number:
        is_held = exists().where(UserAddress.address_id == Address.id, User.id == UserAddress.user_id, User.is_active)
        first_preferences = first_preferences.where(is_held)
    session.execute(
        database.insert(session, Preference).from_select(list(columns), first_preferences).on_conflict_do_nothing()
    )
    history.record_noted_first_preferences(session, handle, noted, ids, now=now)
    displaced_preferences.note_noted_first_preferences(session, handle, noted, ids)


def write_noted_seen(session: Session, handle: str, noted: Table, ids: IdRange) -> None:
    """Update *seen* of noted preferences that still agree with the roster.

    A subscriber who leaves and is added again later gets another password at the list manager, or none.
    """
    agreed = exists().where(noted.c.address_id == Preference.address_id, noted.c.on_roster == Preference.subscribed)
    session.execute(
        update(Preference)
        .where(Preference.list_handle == handle, ids.holds(Preference.address_id), agreed)
        .values(
            seen=Preference.subscribed,
            password_pushed=case((Preference.subscribed, Preference.password_pushed), else_=null()),
        )
    )


# --- results of runs

_SETTLED = (
    "subscribed", "source", "changed_at", "changed_by", "version", "seen", "touched",
    "departed", "waiting_since", "moved_from", "push_result", "refusal", "refused_at", "password_pushed",
)  # fmt: skip


class SettledRows(NamedTuple):
    """The ids of the addresses that were written, and the ``snapshot`` of each preference that was taken over."""

    ids: set[int]
    replaced: list[tuple[int, str]]


def settle(session: Session, handle: str, updates: Sequence[PreferenceUpdate], *, now: datetime) -> SettledRows:
    """Write the results of a run where the preference still has the version that the plan read."""
    current = _locked(session, handle, [each.row.address_id for each in updates])
    fresh = [
        each
        for each in updates
        if (row := current.get(each.row.address_id)) is not None and row.version == each.row.version
    ]
    if fresh:
        rows = [_settled(each, current[each.row.address_id], now=now) for each in fresh]
        session.execute(_of_one(handle, _SETTLED), rows)
    changes = [
        Change(handle, each.row.address_id, each.row.canonical, bool(each.after.preference), each.source)
        for each in fresh
        if _is_changed(each)
    ]
    history.record(session, changes, actor=history.SYNC, now=now)
    taken_over = (each.row.address_id for each in fresh if _is_changed(each))
    return SettledRows(
        {each.row.address_id for each in fresh}, [(each, _snapshot(current[each])) for each in taken_over]
    )


def _snapshot(row: Any) -> str:
    """Return a preference as text for ``restore``. The version is left out, because it only ever rises."""
    return json.dumps({name: getattr(row, name) for name in _SETTLED if name != "version"}, default=datetime.isoformat)


def restore(session: Session, handle: str, address_id: int, snapshot: str, *, version: int) -> tuple[bool, str]:
    """Restore a preference from before a take-over; return whether it is subscribed, and its source."""
    columns: dict[str, Any] = json.loads(snapshot)
    for name in ("changed_at", "waiting_since", "refused_at"):
        if columns[name] is not None:
            columns[name] = datetime.fromisoformat(columns[name])
    of_one = and_(Preference.list_handle == handle, Preference.address_id == address_id)
    session.execute(update(Preference).where(of_one).values(**columns, version=version))
    return columns["subscribed"], columns["source"]


def _locked(session: Session, handle: str, address_ids: Sequence[int]) -> dict[int, Any]:
    found = session.execute(
        select(_TABLE)
        .where(_TABLE.c.list_handle == handle, _TABLE.c.address_id.in_(address_ids))
        .order_by(_TABLE.c.address_id)
        .with_for_update()
    )
    return {row.address_id: row for row in found}


def _of_one(handle: str, columns: Iterable[str]) -> Any:
    """Return a statement that sets columns of one address, bound as ``of_address`` and ``new_COLUMN``."""
    return (
        update(_TABLE)
        .where(and_(_TABLE.c.list_handle == handle, _TABLE.c.address_id == bindparam("of_address")))
        .values({name: bindparam(f"new_{name}", type_=_TABLE.c[name].type) for name in columns})
    )


def _is_changed(found: PreferenceUpdate) -> bool:
    return found.after.preference != found.row.state.preference


def _settled(found: PreferenceUpdate, current: Any, *, now: datetime) -> dict[str, Any]:
    after = found.after
    values = {name: getattr(current, name) for name in _SETTLED}
    values |= {"seen": after.seen, "touched": False, "departed": after.is_dealt_with}
    # An add that had waited too long is tried as a new one, which starts to wait now.
    since = None if found.row.has_waited_long else current.waiting_since
    values["waiting_since"] = (since or now) if after.waiting else None
    if not after.seen:  # a subscriber who is added again has another password there, or none
        values["password_pushed"] = None
    if not found.is_held_back:
        values |= {"push_result": None, "refusal": None, "refused_at": None}
    if found.refusal:
        values |= {"push_result": found.push_result, "refusal": found.refusal[:200], "refused_at": now}
    if _is_changed(found):
        values |= {
            "subscribed": after.preference,
            "source": found.source,
            "changed_at": now,
            "changed_by": None,
            "version": current.version + 1,
        }
        # An address that is already on the roster at the first run after a move had joined before the move.
        if not (after.preference and found.row.is_unread):
            values["moved_from"] = None
    return {"of_address": current.address_id, **{f"new_{name}": value for name, value in values.items()}}


def mark_passwords(session: Session, handle: str, versions: Mapping[int, int]) -> None:
    """Store which version of the list password the list manager has for addresses."""
    rows = [{"of_address": address_id, "new_password_pushed": versions[address_id]} for address_id in sorted(versions)]
    if rows:
        session.execute(_of_one(handle, ["password_pushed"]), rows)


def try_again(session: Session, handle: str, address_ids: Sequence[int]) -> None:
    """Let the next run retry refused changes. This is no choice: version and history stay the same.

    The list manager's message stays until a run has retried. Source: SEMANTICS, Never without confirmation.
    """
    _locked(session, handle, address_ids)
    of_ids = and_(Preference.list_handle == handle, Preference.address_id.in_(address_ids))
    session.execute(update(Preference).where(of_ids).values(refused_at=None))


def purge(session: Session, handle: str, address_ids: Sequence[int], *, let_go_before: datetime) -> None:
    """Delete preferences of addresses that are to be erased, or that no account has held since a time."""
    is_due = exists().where(Address.id == Preference.address_id, or_(Address.erase, Address.let_go_at <= let_go_before))
    session.execute(
        delete(Preference).where(
            Preference.list_handle == handle,
            Preference.address_id.in_(address_ids),
            Preference.seen.is_(False),
            Preference.waiting_since.is_(None),
            not_(exists().where(UserAddress.address_id == Preference.address_id)),
            is_due,
        )
    )


def purge_gone_lists(session: Session, address_ids: Sequence[int], *, handles: Collection[str]) -> None:
    """Delete preferences of addresses for lists that have left the catalogue: no run reads them any more."""
    session.execute(
        delete(Preference).where(Preference.address_id.in_(address_ids), Preference.list_handle.not_in(handles))
    )
    displaced_preferences.purge_gone_lists(session, address_ids, handles=handles)


def rename_list(session: Session, old: str, new: str) -> int:
    """Move all preferences of a list to its new handle; return how many."""
    displaced_preferences.rename_list(session, old, new)
    done: Any = session.execute(update(Preference).where(Preference.list_handle == old).values(list_handle=new))
    count: int = done.rowcount
    return count


# --- holders


def merge_accounts(session: Session, gone: int, *, into: int) -> None:
    """Replace ``left_by`` of a merged account by the one that it was merged into."""
    session.execute(update(Preference).where(Preference.left_by == gone).values(left_by=into))


def clear_departures(session: Session, address_ids: Sequence[int], *, where: ColumnElement[bool]) -> None:
    """Clear the mark that the departure of an address was dealt with, on lists that match a condition."""
    session.execute(
        update(Preference)
        .where(Preference.address_id.in_(address_ids), Preference.departed, where)
        .values(departed=False, version=Preference.version + 1)
    )


def load_preferences(session: Session, address_ids: Sequence[int]) -> dict[tuple[str, int], StoredPreference]:
    """Return the preferences of addresses by list and address, and lock their rows."""
    columns = [getattr(Preference, name) for name in displaced_preferences.STORED_FIELDS]
    rows = session.execute(
        select(Preference.list_handle, Preference.address_id, *columns)
        .where(Preference.address_id.in_(address_ids))
        .order_by(Preference.list_handle, Preference.address_id)
        .with_for_update()
    )
    return {(handle, address_id): StoredPreference(*values) for handle, address_id, *values in rows}


def write_moves(session: Session, written: Iterable[MovedPreference], *, actor: Actor, now: datetime) -> None:
    """Write the preferences after moves, with the history of those that changed."""
    changes = []
    by_statement: dict[_MoveStatement, list[dict[str, Any]]] = {}
    for each in sorted(written, key=lambda each: (each.list_handle, each.address_id)):
        statement, values = _written_move(each, now=now)
        by_statement.setdefault(statement, []).append(values)
        if each.after is not None and (each.before is None or each.before.subscribed != each.after.subscribed):
            changes.append(Change(each.list_handle, each.address_id, each.address, each.after.subscribed, "rule"))
    for statement, rows in by_statement.items():  # an executemany for each
        session.execute(_MOVE_STATEMENTS[statement], rows)
    history.record(session, changes, actor=actor, now=now)


class _MoveStatement(Enum):
    """The statement for the row of a preference that a move changed."""

    DELETE = auto()
    INSERT = auto()
    NOTE = auto()  # runs do not read who left last
    REPLACE = auto()


_IS_MOVED = and_(_TABLE.c.list_handle == bindparam("moved_handle"), _TABLE.c.address_id == bindparam("moved_id"))
_STORED_VALUES: Mapping[str, Any] = {name: bindparam(name) for name in displaced_preferences.STORED_FIELDS}
_MOVE_STATEMENTS: Mapping[_MoveStatement, Any] = {
    _MoveStatement.DELETE: delete(_TABLE).where(_IS_MOVED),
    _MoveStatement.INSERT: insert(_TABLE),
    _MoveStatement.NOTE: update(_TABLE).where(_IS_MOVED).values(_STORED_VALUES),
    _MoveStatement.REPLACE: update(_TABLE).where(_IS_MOVED).values({**_STORED_VALUES, **_ENDED}),
}


def _written_move(written: MovedPreference, *, now: datetime) -> tuple[_MoveStatement, dict[str, Any]]:
    before, after = written.before, written.after
    key = {"moved_handle": written.list_handle, "moved_id": written.address_id}
    if after is None:
        return _MoveStatement.DELETE, key
    values = {name: getattr(after, name) for name in displaced_preferences.STORED_FIELDS}
    if before is None:
        identity = {"list_handle": written.list_handle, "address_id": written.address_id}
        times = {"changed_at": after.changed_at or now, "version": after.version + 1}
        return _MoveStatement.INSERT, {**values, **identity, **times}
    if after == replace(before, left_by=after.left_by):
        return _MoveStatement.NOTE, {**values, **key}
    return _MoveStatement.REPLACE, {**values, **key, "version": max(before.version, after.version) + 1}
