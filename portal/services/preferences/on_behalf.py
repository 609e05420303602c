"""A superuser's choices for others on one list: for some addresses, or for all that match a filter.

A preview comes first. It has an id, and only what it showed is done: if the addresses have changed since, a new preview
is needed.
"""

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from sqlalchemy import and_, case, exists, literal, select
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain.mailinglist import MailingList
from portal.errors import BadInputError, ChangedMeanwhileError, NotOfferedError
from portal.models import Address, Preference, User, UserAddress
from portal.services import preference_rows, security_log
from portal.services.accounts import addresses
from portal.services.accounts.addresses import may_see
from portal.services.history import Actor, Change
from portal.services.reports import subscribers
from portal.services.reports.subscribers import Filter, Source
from portal.services.sync import runs
from portal.services.sync.expected_plans import NextRun, next_run
from portal.services.transaction import reading, transaction

LONGEST_REASON = 200  # characters
_CHUNK = 500  # addresses in one transaction, so that a member's save never waits long
_NAMED = 20  # addresses named in a preview


class BulkAction(StrEnum):
    """A bulk action: choose for others, or let the next run retry what did not take."""

    SUBSCRIBE = "subscribe"
    UNSUBSCRIBE = "unsubscribe"
    RETRY = "retry"


class Eligibility(StrEnum):
    """Whether an address that matches a filter is changed, or the reason that it is not."""

    CHANGE = "change"
    SO_ALREADY = "so_already"
    NOT_MANAGED = "not_managed"  # inactive or outside the audience, so no choice can be made for them
    OTHER_ADDRESS = "other_address"  # its holder is on the list with another address, or has another main address


@dataclass(frozen=True, slots=True)
class BulkPreview:
    """The effect of a bulk action: how many addresses it changes, the first few, and how many it skips and why.

    ``next_run`` is the expected next run; None if the action makes no choice, or the list is paused.
    """

    id: str
    count: int
    first: tuple[str, ...]
    passed_over: dict[Eligibility, int]
    next_run: NextRun | None


def preview(
    session: Session, mailing_list: MailingList, bulk_action: BulkAction, wanted: Filter, *, now: datetime
) -> BulkPreview:
    """Return the preview of a bulk action on the addresses that match a filter. Nothing is written."""
    with reading(session):
        found = _eligibilities(session, mailing_list, bulk_action, wanted)
        ids = _to_change(found)
        passed_over = Counter(Eligibility(eligibility) for _, eligibility in found)
        del passed_over[Eligibility.CHANGE]
        query = select(Address.spelling).where(Address.id.in_(ids[:_NAMED])).order_by(Address.canonical)
        first = tuple(session.scalars(query))
    expected = None
    if ids and bulk_action is not BulkAction.RETRY and not mailing_list.is_paused:
        changes = dict.fromkeys(ids, bulk_action is BulkAction.SUBSCRIBE)
        expected = next_run(session, mailing_list, changes, now=now)
    return BulkPreview(_id(mailing_list, bulk_action, ids), len(ids), first, dict(passed_over), expected)


def do(
    session: Session,
    mailing_list: MailingList,
    bulk_action: BulkAction,
    wanted: Filter,
    *,
    preview_id: str,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> int:
    """Carry out a bulk action as previewed; return how many addresses changed, each with a line of history.

    Raise ChangedMeanwhileError if the filter now matches other addresses, or BadInputError for a reason that is not one
    line of text. Addresses that were chosen for since the preview are skipped.
    """
    if not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise BadInputError(
            "the reason must be one line of at most %(longest_reason)s characters", longest_reason=LONGEST_REASON
        )
    with reading(session):
        ids = _to_change(_eligibilities(session, mailing_list, bulk_action, wanted))
    if _id(mailing_list, bulk_action, ids) != preview_id:
        raise ChangedMeanwhileError("the addresses have changed since they were shown; check them again")
    done = 0
    for number, chunk in enumerate(database.chunked(ids, _CHUNK)):
        if number:
            database.pause(session)
        with transaction(session):
            changed = _do(session, mailing_list, bulk_action, wanted, chunk, actor=actor, now=now, reason=reason)
            runs.request_at_once(session, [mailing_list] if changed else (), now=now)
        done += changed
    security_log.log("done for others", list=mailing_list.handle, bulk_action=bulk_action.value, count=done)
    return done


def take_off(
    session: Session, mailing_list: MailingList, address: str, *, actor: Actor, now: datetime, reason: str = ""
) -> bool:
    """Unsubscribe an address that is not managed, whether known or not; return whether that is a change.

    ``address`` is canonical. The next run removes it if it is on the list. Raise NotOfferedError if an active user who
    may see the list holds it: they are unsubscribed by username.
    """
    if not reason.isprintable() or len(reason) > LONGEST_REASON:
        raise BadInputError(
            "the reason must be one line of at most %(longest_reason)s characters", longest_reason=LONGEST_REASON
        )
    with transaction(session):
        address_id = addresses.find_or_make(session, address, now=now)
        holder = session.scalar(
            select(User.username)
            .join(UserAddress, UserAddress.user_id == User.id)
            .where(UserAddress.address_id == address_id, may_see(mailing_list))
            .order_by(User.username_key)
        )
        if holder is not None:
            raise NotOfferedError(
                "%(address)s belongs to %(holder)s; unsubscribe that user instead", address=address, holder=holder
            )
        change = Change(mailing_list.handle, address_id, address, False, "superuser")
        made = preference_rows.write_choices(session, [change], actor=actor, now=now, reason=reason)
        runs.request_at_once(session, [mailing_list], now=now)
        if not made:  # also an address that has joined again at the list
            preference_rows.clear_departures(session, [address_id], where=Preference.list_handle == mailing_list.handle)
    security_log.log("done for others", list=mailing_list.handle, bulk_action="unsubscribe", count=len(made))
    return bool(made)


def _do(
    session: Session,
    mailing_list: MailingList,
    bulk_action: BulkAction,
    wanted: Filter,
    ids: Sequence[int],
    *,
    actor: Actor,
    now: datetime,
    reason: str,
) -> int:
    source = subscribers.one_by_one(mailing_list)
    still = _eligibility(mailing_list, source, bulk_action, wanted) == Eligibility.CHANGE.value
    changed = (
        select(Address.id, Address.canonical)
        .select_from(source.table)
        .where(Address.id.in_(ids), subscribers.matching(source, wanted), still)
    )
    rows = session.execute(changed.order_by(Address.id)).all()  # rows are always locked in this order
    if bulk_action is BulkAction.RETRY:
        preference_rows.try_again(session, mailing_list.handle, [row.id for row in rows])
        return len(rows)
    subscribed = bulk_action is BulkAction.SUBSCRIBE
    changes = [Change(mailing_list.handle, row.id, row.canonical, subscribed, "superuser") for row in rows]
    return len(preference_rows.write_choices(session, changes, actor=actor, now=now, reason=reason))


def _eligibilities(
    session: Session, mailing_list: MailingList, bulk_action: BulkAction, wanted: Filter
) -> Sequence[tuple[int, str]]:
    """Return the ids of the addresses that match a filter, ascending, with the eligibility of each."""
    found = subscribers.resolved(session, wanted)
    source = subscribers.one_by_one(mailing_list) if found.address_ids else subscribers.as_sets(mailing_list)
    query = (
        select(Address.id, _eligibility(mailing_list, source, bulk_action, wanted))
        .select_from(source.table)
        .where(subscribers.matching(source, found))
        .order_by(Address.id)
    )
    return [tuple(row) for row in session.execute(query)]


def _to_change(judged: Iterable[tuple[int, str]]) -> list[int]:
    return [address_id for address_id, eligibility in judged if eligibility == Eligibility.CHANGE]


def _id(mailing_list: MailingList, bulk_action: BulkAction, ids: Sequence[int]) -> str:
    key = f"{mailing_list.handle} {bulk_action} {' '.join(map(str, ids))}"
    return hashlib.sha256(key.encode()).hexdigest()[:16]


def _eligibility(mailing_list: MailingList, source: Source, bulk_action: BulkAction, wanted: Filter) -> Any:
    """Return the eligibility of an address in SQL. The audience is enforced here, where the action is carried out."""
    if bulk_action is BulkAction.RETRY:
        is_held_back = and_(Preference.push_result.in_(["rejected", "undone"]), Preference.refused_at.is_not(None))
        return case((is_held_back, literal(Eligibility.CHANGE.value)), else_=literal(Eligibility.SO_ALREADY.value))
    not_managed = (~source.is_managed, literal(Eligibility.NOT_MANAGED.value))
    if bulk_action is BulkAction.UNSUBSCRIBE:  # also for a person who is not managed but subscribed
        already = (Preference.subscribed.is_(False), literal(Eligibility.SO_ALREADY.value))
        is_on = (Preference.subscribed.is_(True), literal(Eligibility.CHANGE.value))
        return case(is_on, not_managed, already, else_=literal(Eligibility.CHANGE.value))
    already = (Preference.subscribed.is_(True), literal(Eligibility.SO_ALREADY.value))
    is_wanted = _is_the_one_to_subscribe(mailing_list, is_alone=len(wanted.address_ids) == 1)
    return case(
        not_managed,
        already,
        (is_wanted, literal(Eligibility.CHANGE.value)),
        else_=literal(Eligibility.OTHER_ADDRESS.value),
    )


def _is_the_one_to_subscribe(mailing_list: MailingList, *, is_alone: bool) -> Any:
    """Return the condition that a person who may see the list is on it with no other address.

    Of a user's several addresses the main one is subscribed, unless another was requested alone, so that nobody gets
    every message twice.
    """
    own, other, stored = aliased(UserAddress), aliased(UserAddress), aliased(Preference)
    is_on_it = exists().where(
        stored.address_id == other.address_id, stored.list_handle == mailing_list.handle, stored.subscribed
    )
    # Nested, so that no query planner begins with everyone on the list.
    has_another = exists().where(other.user_id == User.id, other.address_id != Address.id, is_on_it.correlate(other))
    holds: list[Any] = [own.address_id == Address.id, User.id == own.user_id, may_see(mailing_list)]
    if not is_alone:
        holds.append(own.is_main)
    return exists().where(*holds, ~has_another.correlate(User, Address)).correlate(Address)
