"""Reading a plan's input from the database: preferences, holders, and what unfinished runs left behind."""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime, timedelta
from enum import IntEnum
from itertools import chain
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Integer, Select, and_, case, cast, except_, func, not_, or_, select
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action, AddressState
from portal.domain.plan import FirstPreferences, Plan, Row, decide_rows, expected_counts, rules_of
from portal.domain.run import NEVER_BEGUN, WAITS, RunState
from portal.domain.safety import Act, EarlierRuns
from portal.models import Address, Preference, Restore, Run, RunLine, User, UserAddress
from portal.services.accounts.addresses import is_held, is_managed, managed_ids
from portal.services.sync import new_members

RETRY_AFTER = timedelta(days=1)  # a refused address is tried again
WAITING_ENDS = timedelta(days=90)
COUNTED_TOGETHER = timedelta(hours=12)  # the period over which runs share the safety limits
FEW = 1_000  # up to this many first preferences are decided one by one
_IDS = 5_000  # ids in one statement


class _Overview(IntEnum):
    """The state of an address before its place on the roster is known; a number, as SQL returns it.

    Steady: preference and seen agree, and nothing is open.
    """

    STEADY_OFF = 0
    STEADY_ON = 1
    UNSETTLED = 2
    UNSETTLED_WITHOUT_ACCOUNT = 3


def make_plan(
    session: Session,
    mailing_list: MailingList,
    roster: Mapping[str, str],
    *,
    now: datetime,
    is_planned_run: bool = False,
) -> Plan:
    """Read a list's preferences and make the plan; ``roster`` maps canonical addresses to spellings."""
    our_acts = unfinished_acts(session, mailing_list.handle)
    new = new_members.find(session, mailing_list, roster=roster)
    found = _undecided(session, mailing_list, roster, our_acts, new)
    rows = load_rows(session, mailing_list, found.ids, now=now)
    # A concurrent move may have brought one of its two halves without the other.
    halves = {each for row in rows for each in (row.moved_to, row.moved_from) if each is not None}
    rows += load_rows(session, mailing_list, halves - found.ids, now=now)
    decisions = decide_rows(
        rows,
        roster,
        rules=rules_of(mailing_list),
        our_acts=our_acts,
        new_members=new,
        is_planned_run=is_planned_run,
    )
    return Plan(
        handle=mailing_list.handle,
        decisions=decisions,
        on_roster=len(roster),
        without_account=found.without_account,
        seen_on=found.steady_on + sum(row.state.seen is True for row in rows),
        expected=expected_counts(decisions, steady_on=found.steady_on),
        staying=found.steady_on + found.first_preferences.on_roster + sum(each.stays for each in decisions),
        first_preferences=found.first_preferences,
        limits=mailing_list.safety_limits,
        earlier=_earlier(session, mailing_list.handle, now=now),
        is_planned_run=is_planned_run,
    )


def _earlier(session: Session, handle: str, *, now: datetime) -> EarlierRuns:
    return EarlierRuns(
        approved=accepted_lines(session, handle),
        recent=recent_lines(session, handle, now=now),
        is_first_after_restore=is_first_after_restore(session, handle),
    )


def unfinished_acts(session: Session, handle: str) -> dict[int, Action]:
    """Return planned adds and removals that no preference reflects yet: address id to action."""
    rows = session.execute(
        select(RunLine.address_id, RunLine.action)
        .join(Run, Run.id == RunLine.run_id)
        .where(RunLine.list_handle == handle, not_(RunLine.settled), RunLine.action.in_(["add", "remove"]))
        .order_by(Run.started_at, Run.id)  # a run that waited has a lower id than others that began before it
    )
    return {address_id: Action(action) for address_id, action in rows}


def accepted_lines(session: Session, handle: str) -> set[Act]:
    """Return the lines of an approved plan that was interrupted, which need no second approval."""
    rows = session.execute(
        select(RunLine.address_id, RunLine.action)
        .join(Run, Run.id == RunLine.run_id)
        .where(RunLine.list_handle == handle, not_(RunLine.settled), Run.accepted)
    )
    return {(address_id, Action(action)) for address_id, action in rows}


def recent_lines(session: Session, handle: str, *, now: datetime) -> set[Act]:
    """Return the lines that count in the limits and that runs of the last twelve hours carried out without approval."""
    rows = session.execute(
        select(RunLine.address_id, RunLine.action)
        .join(Run, Run.id == RunLine.run_id)
        .where(Run.list_handle == handle, is_recent(now))
    )
    return {(address_id, Action(action)) for address_id, action in rows}


def is_recent(now: datetime) -> ColumnElement[bool]:
    """Return the condition that a line counts together with those of a plan made now; its run is joined."""
    return and_(
        Run.started_at.between(now - COUNTED_TOGETHER, now + COUNTED_TOGETHER),  # a wrong clock must not last
        Run.state.not_in(NEVER_BEGUN),
        not_(Run.accepted),
        RunLine.counts,
        func.coalesce(RunLine.result, "") != WAITS,
    )


def is_first_after_restore(session: Session, handle: str) -> bool:
    """Return True if no plan of a list has been approved or carried out since a backup was restored."""
    restored_at = session.scalar(select(func.max(Restore.at)))
    if restored_at is None:
        return False
    is_believed = or_(Run.accepted, Run.state == RunState.DONE)
    since = select(Run.id).where(Run.list_handle == handle, Run.started_at > restored_at, is_believed)
    return session.scalar(since.limit(1)) is None


def count_staying(session: Session, handle: str, *, leaving: Collection[int]) -> int:
    """Return how many addresses are wanted on a list and seen on it, without those in ``leaving``."""
    wanted = session.scalars(
        select(Preference.address_id).where(
            Preference.list_handle == handle, Preference.subscribed, Preference.seen.is_(True)
        )
    )
    return len(set(wanted).difference(leaving))


class _Undecided(NamedTuple):
    """The ids of the addresses that rules may apply to, and counts of the others."""

    ids: set[int]
    steady_on: int
    without_account: int
    first_preferences: FirstPreferences


def _undecided(
    session: Session,
    mailing_list: MailingList,
    roster: Mapping[str, str],
    our_acts: Mapping[int, Action],
    new: Collection[int],
) -> _Undecided:
    """Find the addresses to decide about.

    It skips steady addresses that agree with the roster, which are nearly all, and first preferences if there are many,
    since these depend only on the roster. Addresses of ``new`` members are never skipped.
    """
    unknown = set(roster)
    halves = halves_of_moves(session, mailing_list)
    ids, steady_on = _unsettled(session, mailing_list, unknown, our_acts)
    bare, first_preferences = _bare(session, mailing_list, unknown, alone=halves.union(our_acts, new))
    ids |= bare
    if mailing_list.audience is not None:  # accounts outside the audience have not been read
        unknown = _without_account(session, unknown)
    steady_on -= _count_seen_on(session, mailing_list, halves - ids)
    return _Undecided(ids | halves, steady_on, len(unknown), first_preferences)


def _unsettled(
    session: Session, mailing_list: MailingList, unknown: set[str], our_acts: Mapping[int, Action]
) -> tuple[set[int], int]:
    """Return the ids of preferences that are not steady or differ from the roster, and the number of others on it.

    ``unknown`` is the roster; addresses that an account holds are removed from it.
    """
    found: set[int] = set()
    steady_on = 0
    # Plain numbers, for a million comparisons.
    on, off = _Overview.STEADY_ON.value, _Overview.STEADY_OFF.value
    unheld = _Overview.UNSETTLED_WITHOUT_ACCOUNT.value
    for address_id, canonical, overview in _streamed(session, with_preference(mailing_list)):
        if canonical in unknown:
            if overview != unheld:
                unknown.remove(canonical)
            if overview == on and address_id not in our_acts:
                steady_on += 1
                continue
        elif overview == off and address_id not in our_acts:
            continue
        found.add(address_id)
    return found, steady_on


def _bare(
    session: Session, mailing_list: MailingList, unknown: set[str], *, alone: Collection[int]
) -> tuple[set[int], FirstPreferences]:
    """Return the ids of managed addresses without a preference, or only their number if there are many.

    Those in ``alone`` are always returned. ``unknown`` is as in ``_unsettled``.
    """
    found: set[int] = set()
    few: list[int] = []
    counts = [0, 0]
    for address_id, canonical, is_managed_one in _streamed(session, without_preference(mailing_list)):
        on_roster = canonical in unknown
        unknown.discard(canonical)
        if not is_managed_one:
            continue
        if address_id in alone:
            found.add(address_id)
            continue
        counts[on_roster] += 1
        if len(few) <= FEW:
            few.append(address_id)
    if len(few) <= FEW:
        return found.union(few), FirstPreferences()
    return found, FirstPreferences(on_roster=counts[True], off_roster=counts[False])


def _without_account(session: Session, canonicals: Collection[str]) -> set[str]:
    """Return the addresses that no account holds."""
    left = set(canonicals)
    for chunk in database.chunked(sorted(canonicals), _IDS):
        left.difference_update(
            session.scalars(select(Address.canonical).where(Address.canonical.in_(chunk), is_held()))
        )
    return left


def halves_of_moves(session: Session, mailing_list: MailingList) -> set[int]:
    """Return the ids of addresses that holders moved to, and of those they moved from that no run has followed yet."""
    of_list = Preference.list_handle == mailing_list.handle
    moved_to = session.scalars(select(Preference.moved_to).where(of_list, Preference.moved_to.is_not(None)))
    unread = and_(of_list, Preference.moved_from.is_not(None), Preference.touched)
    moved_from = session.scalars(select(Preference.moved_from).where(unread))
    return {each for each in (*moved_to, *moved_from) if each is not None}


def _streamed(session: Session, query: Select[Any]) -> Iterator[tuple[Any, ...]]:
    return chain.from_iterable(database.stream(session.connection(), query))


def _count_seen_on(session: Session, mailing_list: MailingList, ids: Collection[int]) -> int:
    if not ids:
        return 0
    count: int = session.execute(
        select(func.count())
        .select_from(Preference)
        .where(Preference.list_handle == mailing_list.handle, Preference.address_id.in_(ids), Preference.seen.is_(True))
    ).scalar_one()
    return count


# Both read in the order in which the tables lie: in any other a million rows take minutes.


def with_preference(mailing_list: MailingList) -> Select[Any]:
    """Return id, canonical form and overview of the addresses that have a preference."""
    overview = case(
        (is_steady(mailing_list), cast(Preference.subscribed, Integer)),
        (is_held(), _Overview.UNSETTLED),
        else_=_Overview.UNSETTLED_WITHOUT_ACCOUNT,
    )
    return (
        select(Address.id, Address.canonical, overview)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == mailing_list.handle)
    )


def is_steady(mailing_list: MailingList) -> ColumnElement[bool]:
    """Return the condition that preference and seen agree and nothing is open; NULL if nothing was seen."""
    return and_(
        Preference.seen == Preference.subscribed,
        not_(Preference.touched),
        not_(Preference.departed),
        Preference.waiting_since.is_(None),
        Preference.moved_to.is_(None),
        Preference.refused_at.is_(None),
        is_managed(mailing_list),
    )


def without_preference(mailing_list: MailingList) -> Select[Any]:
    """Return id, canonical form and whether it is managed of held addresses without a preference.

    For a list with an audience only managed addresses are read: its groups are few, and accounts are many.
    """
    chosen = select(Preference.address_id).where(Preference.list_handle == mailing_list.handle)
    held = select(UserAddress.address_id) if mailing_list.audience is None else managed_ids(mailing_list)
    bare = except_(held, chosen).order_by("address_id")  # so that SQLite merges the two
    managed = case((is_managed(mailing_list), 1), else_=0)
    return select(Address.id, Address.canonical, managed).where(Address.id.in_(bare))


def load_rows(session: Session, mailing_list: MailingList, ids: Collection[int], *, now: datetime) -> list[Row]:
    """Return the rows of addresses on a list."""
    rows: list[Row] = []
    for chunk in database.chunked(sorted(ids), _IDS):
        found = session.execute(_details(mailing_list).where(Address.id.in_(chunk)))
        rows.extend(_row(each, now=now) for each in found)
    return rows


def _details(mailing_list: MailingList) -> Any:
    return select(
        Address.id,
        Address.canonical,
        Address.spelling,
        Preference.subscribed,
        Preference.source,
        Preference.seen,
        Preference.touched,
        Preference.waiting_since,
        Preference.departed,
        Preference.source,
        Preference.left_by,
        Preference.moved_to,
        Preference.moved_from,
        Preference.changed_by,
        Preference.refusal,
        Preference.refused_at,
        Preference.version,
        is_managed(mailing_list).label("is_managed"),
        is_held().label("is_held"),
        *_two_holders(),
    ).outerjoin(Preference, and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id))


def _two_holders() -> tuple[Any, Any]:
    """Return the lowest and the highest id of the active accounts that hold an address."""
    active = (
        select(User.id)
        .join(UserAddress, UserAddress.user_id == User.id)
        .where(UserAddress.address_id == Address.id, User.is_active)
        .correlate(Address)
    )
    lowest = active.with_only_columns(func.min(User.id)).scalar_subquery()
    highest = active.with_only_columns(func.max(User.id)).scalar_subquery()
    return lowest.label("first_holder"), highest.label("last_holder")


def _row(found: Any, *, now: datetime) -> Row:
    holders = frozenset({found.first_holder, found.last_holder}) - {None}
    # An untick that came with a tick for another address of the same person.
    is_brought_along = found.source == "rule" and found.moved_from is None and found.changed_by in holders
    return Row(
        address_id=found.id,
        canonical=found.canonical,
        spelling=found.spelling,
        state=AddressState(
            preference=found.subscribed,
            seen=found.seen,
            touched=bool(found.touched) and found.moved_from is None,
            waiting=found.waiting_since is not None,
            is_dealt_with=bool(found.departed),
            has_moved=found.moved_to is not None,
            is_managed=bool(found.is_managed),
        ),
        version=found.version or 0,
        left_by=found.left_by,
        moved_to=found.moved_to,
        moved_from=found.moved_from,
        is_unread=bool(found.touched),
        holders=holders,
        unsubscribed_by_link=bool(found.touched) and found.source == "link" and not found.subscribed,
        is_held=bool(found.is_held),
        by_holder=found.source in {"user", "link"} or is_brought_along,
        did_not_take=found.refusal is not None,
        has_refusal=found.refused_at is not None,
        has_waited_long=found.waiting_since is not None and abs(now - found.waiting_since) >= WAITING_ENDS,
        is_recent_refusal=found.refused_at is not None and abs(now - found.refused_at) < RETRY_AFTER,
    )
