"""The one writer of preferences: first ones, choices, what a run found, and what moves with an address.

Each function works inside a transaction that the caller has begun, and writes the history of what it changes. All that
lock several rows take them in the order of list and address, so that no two of them wait for each other.
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

_TABLE: Any = Preference.__table__  # tables, not classes, where there are many rows
_KEY = ("list_handle", "address_id")
# What a new value ends: the list manager's refusal of the old one.
_ENDED: Mapping[str, None] = {"push_result": None, "refusal": None, "refused_at": None}


class Finding(NamedTuple):
    """What a run found out about a preference: what to remember, and what the list manager said.

    ``row`` is as the plan read it; ``source`` is that of a change. ``refusal`` holds the list manager's words where it
    did not do what it was to, and ``push_result`` what became of it; ``is_held_back``: nothing was tried, so that what
    is known of that stays.
    """

    row: Row
    after: AddressState
    refusal: str | None
    is_held_back: bool
    source: str = "list"
    push_result: str | None = None


class Written(NamedTuple):
    """What a move makes of a preference: what stood, and what stands now; None where there is none."""

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
    """Write what a person chose, over whatever is stored; return the choices that still were changes.

    Another holder may have chosen the same since the rows were read. A choice ends the mark that a departure was dealt
    with, and what a move displaced: that not where the source is ``rule``, as of an untick that a tick elsewhere brings
    along, which is no choice.
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
    """Write first preferences; return those that were made. ``is_seen``: each is what the roster said.

    One that was made meanwhile stays as it is, and an address that was given up meanwhile is passed over.
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
    """Write that a list subscribes new members, none of whom is on it; return the changes that were made.

    Who chose meanwhile, or gave the address up, is passed over. Source: docs/semantics.md, "The rules", rule 1.
    """
    ordered = sorted(changes)
    there = _locked_where_held(session, ordered)
    rows = [
        {**_values(each, actor=history.SYNC, now=now), "seen": False} for each in ordered if each.address_id in there
    ]
    written = _insert(session, rows)
    return _recorded(session, ordered, written, actor=history.SYNC, now=now, reason=history.NEW_MEMBER)


def _locked_where_held(session: Session, changes: Iterable[Change]) -> set[int]:
    """Return those addresses of some changes that an active account holds; they stay so until the transaction ends."""
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
    """Insert the rows that are missing; return list and address of each."""
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


# --- of a million addresses, as list-init writes them


_LATE = 10_000  # so many changes of accounts may have a lower number than one that was committed before them


class AccountsMark(NamedTuple):
    """How many changes of accounts there were from a number on, to tell whether there have been others since."""

    first: int
    number: int


def mark_accounts(session: Session) -> AccountsMark:
    """Return a mark, before addresses are noted."""
    first = (session.scalar(select(func.max(AccountChange.id))) or 0) - _LATE
    return AccountsMark(first, _changes_from(session, first))


def _changes_from(session: Session, first: int) -> int:
    count: int = session.execute(select(func.count()).where(AccountChange.id > first)).scalar_one()
    return count


def write_noted_first_preferences(
    session: Session, handle: str, noted: Table, ids: IdRange, *, mark: AccountsMark, now: datetime
) -> None:
    """Write the first preferences that a temporary table notes as ``address_id`` and ``on_roster``.

    A choice made meanwhile stays, and an address given up meanwhile is passed over. Whether an active account holds it
    is looked at again where accounts have changed since the mark: PostgreSQL reads all accounts for that, each time.
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
    is_held = exists().where(UserAddress.address_id == Address.id)
    if _changes_from(session, mark.first) != mark.number:
        is_held = is_held.where(User.id == UserAddress.user_id, User.is_active)
    first_preferences = of_noted.with_only_columns(*columns.values()).where(is_held)
    session.execute(
        database.insert(session, Preference).from_select(list(columns), first_preferences).on_conflict_do_nothing()
    )
    history.record_noted_first_preferences(session, handle, noted, ids, now=now)
    displaced_preferences.note_noted_first_preferences(session, handle, noted, ids)


def write_noted_seen(session: Session, handle: str, noted: Table, ids: IdRange) -> None:
    """Bring up to date what was seen of noted preferences that still are what the roster says.

    Who is off the list and added again later has another password there, or none.
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


# --- what a run leaves behind

_SETTLED = (
    "subscribed", "source", "changed_at", "changed_by", "version", "seen", "touched",
    "departed", "waiting_since", "moved_from", "push_result", "refusal", "refused_at", "password_pushed",
)  # fmt: skip


class Settled(NamedTuple):
    """The ids of the addresses that were written, and what take-overs replaced: pairs of id and ``snapshot``."""

    ids: set[int]
    replaced: list[tuple[int, str]]


def settle(session: Session, handle: str, findings: Sequence[Finding], *, now: datetime) -> Settled:
    """Write what a run found where the preference still is of the version that the plan read."""
    current = _locked(session, handle, [each.row.address_id for each in findings])
    fresh = [
        each
        for each in findings
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
    return Settled({each.row.address_id for each in fresh}, [(each, _snapshot(current[each])) for each in taken_over])


def _snapshot(row: Any) -> str:
    """Return a preference as text that ``restore`` takes. The version is left out: it only ever rises."""
    return json.dumps({name: getattr(row, name) for name in _SETTLED if name != "version"}, default=datetime.isoformat)


def restore(session: Session, handle: str, address_id: int, snapshot: str, *, version: int) -> tuple[bool, str]:
    """Write a preference as it was when a take-over replaced it; return whether it is subscribed, and its source."""
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
    """Return the statement that writes some columns of one address, bound as ``of_address`` and ``new_COLUMN``."""
    return (
        update(_TABLE)
        .where(and_(_TABLE.c.list_handle == handle, _TABLE.c.address_id == bindparam("of_address")))
        .values({name: bindparam(f"new_{name}", type_=_TABLE.c[name].type) for name in columns})
    )


def _is_changed(finding: Finding) -> bool:
    return finding.after.preference != finding.row.state.preference


def _settled(finding: Finding, current: Any, *, now: datetime) -> dict[str, Any]:
    after = finding.after
    values = {name: getattr(current, name) for name in _SETTLED}
    values |= {"seen": after.seen, "touched": False, "departed": after.is_dealt_with}
    # Another add than the one that waited for so long begins to wait now.
    since = None if finding.row.has_waited_long else current.waiting_since
    values["waiting_since"] = (since or now) if after.waiting else None
    if not after.seen:  # who is added again has another password there, or none
        values["password_pushed"] = None
    if not finding.is_held_back:
        values |= {"push_result": None, "refusal": None, "refused_at": None}
    if finding.refusal:
        values |= {"push_result": finding.push_result, "refusal": finding.refusal[:200], "refused_at": now}
    if _is_changed(finding):
        values |= {
            "subscribed": after.preference,
            "source": finding.source,
            "changed_at": now,
            "changed_by": None,
            "version": current.version + 1,
        }
        # Somebody who is on the list when the first run reads what they brought joined before they moved.
        if not (after.preference and finding.row.is_unread):
            values["moved_from"] = None
    return {"of_address": current.address_id, **{f"new_{name}": value for name, value in values.items()}}


def mark_passwords(session: Session, handle: str, versions: Mapping[int, int]) -> None:
    """Note the version of the list password that the list manager has of addresses."""
    rows = [{"of_address": address_id, "new_password_pushed": versions[address_id]} for address_id in sorted(versions)]
    if rows:
        session.execute(_of_one(handle, ["password_pushed"]), rows)


def try_again(session: Session, handle: str, address_ids: Sequence[int]) -> None:
    """End the wait after a refusal. Nobody chose anything, so neither version nor history is touched.

    The list manager's words stay until a run has tried. Source: docs/semantics.md, "What a run does not trust".
    """
    _locked(session, handle, address_ids)
    of_ids = and_(Preference.list_handle == handle, Preference.address_id.in_(address_ids))
    session.execute(update(Preference).where(of_ids).values(refused_at=None))


def purge(session: Session, handle: str, address_ids: Sequence[int], *, let_go_before: datetime) -> None:
    """Delete the preferences of addresses that no account has held since a time, or that are to be erased."""
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
    """Delete the preferences of addresses for lists that have left the catalogue: no run reads those any more."""
    session.execute(
        delete(Preference).where(Preference.address_id.in_(address_ids), Preference.list_handle.not_in(handles))
    )
    displaced_preferences.purge_gone_lists(session, address_ids, handles=handles)


def rename_list(session: Session, old: str, new: str) -> int:
    """Carry all preferences of a list over to its new handle; return how many they were."""
    displaced_preferences.rename_list(session, old, new)
    done: Any = session.execute(update(Preference).where(Preference.list_handle == old).values(list_handle=new))
    count: int = done.rowcount
    return count


# --- who holds an address


def merge_accounts(session: Session, gone: int, *, into: int) -> None:
    """Let an account be the one that left what another left, which is merged into it."""
    session.execute(update(Preference).where(Preference.left_by == gone).values(left_by=into))


def clear_departures(session: Session, address_ids: Sequence[int], *, where: ColumnElement[bool]) -> None:
    """Forget that departures of addresses were dealt with, on the lists of a condition."""
    session.execute(
        update(Preference)
        .where(Preference.address_id.in_(address_ids), Preference.departed, where)
        .values(departed=False, version=Preference.version + 1)
    )


def load_preferences(session: Session, address_ids: Sequence[int]) -> dict[tuple[str, int], StoredPreference]:
    """Return what stands at addresses by list and address, whose rows are locked."""
    columns = [getattr(Preference, name) for name in displaced_preferences.STORED_FIELDS]
    rows = session.execute(
        select(Preference.list_handle, Preference.address_id, *columns)
        .where(Preference.address_id.in_(address_ids))
        .order_by(Preference.list_handle, Preference.address_id)
        .with_for_update()
    )
    return {(handle, address_id): StoredPreference(*values) for handle, address_id, *values in rows}


def write_moves(session: Session, written: Iterable[Written], *, actor: Actor, now: datetime) -> None:
    """Write what moves make of preferences, with the history of what became another."""
    changes = []
    by_statement: dict[_MoveStatement, list[dict[str, Any]]] = {}
    for each in sorted(written, key=lambda each: (each.list_handle, each.address_id)):
        statement, values = _written_move(each, now=now)
        by_statement.setdefault(statement, []).append(values)
        if each.after is not None and (each.before is None or each.before.subscribed != each.after.subscribed):
            changes.append(Change(each.list_handle, each.address_id, each.address, each.after.subscribed, "rule"))
    for statement, rows in by_statement.items():  # one executemany each
        session.execute(_MOVE_STATEMENTS[statement], rows)
    history.record(session, changes, actor=actor, now=now)


class _MoveStatement(Enum):
    """What is done to the row of a preference that a move made another."""

    DELETE = auto()
    INSERT = auto()
    NOTE = auto()  # who left last is nothing that a run reads
    REPLACE = auto()


_IS_MOVED = and_(_TABLE.c.list_handle == bindparam("moved_handle"), _TABLE.c.address_id == bindparam("moved_id"))
_STORED_VALUES: Mapping[str, Any] = {name: bindparam(name) for name in displaced_preferences.STORED_FIELDS}
_MOVE_STATEMENTS: Mapping[_MoveStatement, Any] = {
    _MoveStatement.DELETE: delete(_TABLE).where(_IS_MOVED),
    _MoveStatement.INSERT: insert(_TABLE),
    _MoveStatement.NOTE: update(_TABLE).where(_IS_MOVED).values(_STORED_VALUES),
    _MoveStatement.REPLACE: update(_TABLE).where(_IS_MOVED).values({**_STORED_VALUES, **_ENDED}),
}


def _written_move(written: Written, *, now: datetime) -> tuple[_MoveStatement, dict[str, Any]]:
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
