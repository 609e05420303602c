"""What a good run leaves behind: preferences that took in what the roster said, lines that say what became of them."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import and_, bindparam, delete, exists, not_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action, AddressState, Push, conclude
from portal.domain.plan import Decision
from portal.listmanagers.base import Outcome, Result
from portal.models import Address, Preference, UserAddress
from portal.services import history
from portal.services.accounts import addresses
from portal.services.sync import runs
from portal.services.sync.runs import Begun
from portal.services.transaction import transaction


class Pushed(NamedTuple):
    """What became of one add or removal: is the address on the roster now, as it should be, and what was said."""

    on_roster: bool
    took: bool
    outcome: Outcome


class Ending(NamedTuple):
    """A decision and what it leaves behind; ``words`` are the list manager's where it did not take."""

    decision: Decision
    after: AddressState
    pushed: Pushed | None
    words: str | None


class Refusal(NamedTuple):
    """An add or a removal that the list manager refused: ``address`` is canonical, ``words`` are the list manager's."""

    action: Action
    address: str
    words: str


@dataclass
class Settled:
    """The refusals that are news, and the addresses that a choice got in the way of."""

    refusals: list[Refusal] = field(default_factory=list)
    stale: set[int] = field(default_factory=set)  # a choice made meanwhile wins: nothing was written


def settle(
    session: Session, run: Begun, decisions: Iterable[Decision], pushed: Mapping[int, Pushed], *, now: datetime
) -> Settled:
    """Write what a run found, in chunks; only rows that differ, and only where no choice was made meanwhile."""
    endings = [_ending(each, pushed.get(each.row.address_id)) for each in decisions]
    settled = Settled()
    firsts = [each for each in endings if each.decision.action is Action.INIT]
    for chunk in database.written_in_chunks(session, firsts):
        with transaction(session):
            _initialise(session, run, chunk, now=now)
    known = [each for each in endings if each.decision.row.state.preference is not None and _differs(each)]
    # A leave with an old address is followed before it is forgotten: a crash in between must not lose it.
    known.sort(key=lambda each: each.decision.row.moved_to is not None)
    for chunk in database.written_in_chunks(session, known):
        with transaction(session):
            _settle_chunk(session, run, chunk, settled, now=now)
    _purge(session, run, [each.decision.row.address_id for each in endings if _is_over(each)])
    return settled


def _ending(decision: Decision, pushed: Pushed | None) -> Ending:
    push = Push(pushed.on_roster, pushed.outcome.result is Result.REJECTED) if pushed else None
    after = conclude(decision.state, decision.action, on_roster=decision.on_roster, push=push)
    words = None
    if pushed and not pushed.took:
        words = pushed.outcome.words or _default_words(decision.action, pushed.outcome.result)
    return Ending(decision, after, pushed, words)


def _default_words(action: Action, result: Result) -> str:
    if action is Action.REMOVE:
        return "still on the list after it was removed"
    return "held for approval" if result is Result.PENDING else "not on the list after it was added"


def _differs(ending: Ending) -> bool:
    """Tell whether there is anything to write: state, a refusal that came or went, or a line to settle."""
    row = ending.decision.row
    forgets_refusal = row.has_refusal and not ending.decision.held_back
    return ending.after != row.state or forgets_refusal or ending.pushed is not None


def _initialise(session: Session, run: Begun, chunk: list[Ending], *, now: datetime) -> None:
    """Insert the first preference of addresses that have none: rule 1. One given up meanwhile is passed over."""
    ids = [each.decision.row.address_id for each in chunk]
    locked = select(Address.id).where(Address.id.in_(ids)).with_for_update(read=True, key_share=True)
    there = set(session.scalars(locked))
    rows: list[dict[str, Any]] = [
        {
            "list_handle": run.handle,
            "address_id": each.decision.row.address_id,
            "subscribed": each.decision.on_roster,
            "seen": each.decision.on_roster,
            "source": "init",
            "changed_at": now,
        }
        for each in chunk
        if each.decision.row.address_id in there
    ]
    if not rows:
        return
    inserted = session.scalars(
        database.insert(session, Preference).on_conflict_do_nothing().returning(Preference.address_id), rows
    )
    made = set(inserted)
    changes = [
        _change(run, each, subscribed=each.decision.on_roster, source="init")
        for each in chunk
        if each.decision.row.address_id in made
    ]
    history.record(session, changes, actor=history.SYNC, now=now)


def _settle_chunk(session: Session, run: Begun, chunk: list[Ending], settled: Settled, *, now: datetime) -> None:
    """Write endings whose preference is still of the version that the plan read."""
    current = _current(session, run.handle, chunk)
    fresh = [each for each in chunk if _version(current, each) == each.decision.row.version]
    ids = [each.decision.row.address_id for each in fresh]
    settled.stale |= {each.decision.row.address_id for each in chunk}.difference(ids)
    if fresh:
        rows = [_columns(each, current[each.decision.row.address_id], now=now) for each in fresh]
        session.execute(_update_preference(run.handle), rows)
    changes = [
        _change(run, each, subscribed=bool(each.after.preference), source="list") for each in fresh if _changes(each)
    ]
    history.record(session, changes, actor=history.SYNC, now=now)
    runs.record_outcomes(
        session,
        run,
        [(each.decision.row.address_id, each.pushed.outcome, each.words or "") for each in chunk if each.pushed],
    )
    runs.settle_lines(session, run, ids)
    settled.refusals += [
        Refusal(each.decision.action, each.decision.row.canonical, each.words)
        for each in fresh
        if each.words and not each.decision.row.has_refusal
    ]


def _change(run: Begun, ending: Ending, *, subscribed: bool, source: str) -> history.Change:
    row = ending.decision.row
    return history.Change(run.handle, row.address_id, row.canonical, subscribed, source)


def _changes(ending: Ending) -> bool:
    return ending.after.preference != ending.decision.row.state.preference


def _current(session: Session, handle: str, chunk: list[Ending]) -> dict[int, Any]:
    ids = [each.decision.row.address_id for each in chunk]
    found = session.execute(
        select(Preference.__table__)
        .where(Preference.list_handle == handle, Preference.address_id.in_(ids))
        .order_by(Preference.address_id)  # all who lock several rows take them in one order
        .with_for_update()
    )
    return {row.address_id: row for row in found}


def _version(current: Mapping[int, Any], ending: Ending) -> int | None:
    row = current.get(ending.decision.row.address_id)
    return None if row is None else row.version


_WRITTEN = (
    "subscribed", "source", "changed_at", "changed_by", "version", "seen", "touched",
    "departed", "waiting_since", "refusal", "refused_at", "password_pushed",
)  # fmt: skip


def _update_preference(handle: str) -> Any:
    table: Any = Preference.__table__
    return (
        update(table)
        .where(and_(table.c.list_handle == handle, table.c.address_id == bindparam("of_address")))
        .values({name: bindparam(f"new_{name}", type_=table.c[name].type) for name in _WRITTEN})
    )


def _columns(ending: Ending, current: Any, *, now: datetime) -> dict[str, Any]:
    """Return the bound values that one preference is written with."""
    after = ending.after
    values = {name: getattr(current, name) for name in _WRITTEN}
    values |= {"seen": after.seen, "touched": False, "departed": after.is_dealt_with}
    # Another add than the one that waited for so long begins to wait now.
    since = None if ending.decision.row.has_waited_long else current.waiting_since
    values["waiting_since"] = (since or now) if after.waiting else None
    if not after.seen:  # who is added again has another password there, or none
        values["password_pushed"] = None
    if not ending.decision.held_back:
        values |= {"refusal": None, "refused_at": None}
    if ending.words:
        values |= {"refusal": ending.words[:200], "refused_at": now}
    if _changes(ending):
        values |= {
            "subscribed": after.preference,
            "source": "list",
            "changed_at": now,
            "changed_by": None,
            "version": current.version + 1,
        }
    return {"of_address": current.address_id, **{f"new_{name}": value for name, value in values.items()}}


def _is_over(ending: Ending) -> bool:
    """Tell whether nobody holds the address any more, no roster, and nothing is on its way."""
    return not (ending.decision.row.is_held or ending.after.seen or ending.after.waiting)


def _purge(session: Session, run: Begun, address_ids: list[int]) -> None:
    """Delete the preferences that outlived their account and have nothing left to do; SEMANTICS, The merge."""
    for chunk in database.chunked(address_ids, 5_000):
        with transaction(session):
            session.execute(
                delete(Preference).where(
                    Preference.list_handle == run.handle,
                    Preference.address_id.in_(chunk),
                    Preference.seen.is_(False),
                    not_(exists().where(UserAddress.address_id == Preference.address_id)),
                )
            )
            addresses.forget_unused(session, chunk)
