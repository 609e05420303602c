"""The plan that the next run is expected to make, before any roster is read, and the approval of exactly that plan."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import case, func, select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.plan import Plan, Row, decide_rows, expected_counts, rules_of
from portal.domain.run import RunKind, RunState
from portal.domain.safety import EarlierRuns, Excess
from portal.models import Address, Preference, Run
from portal.services.garbage import collection_paused
from portal.services.history import Actor
from portal.services.sync import plans, runs
from portal.services.transaction import reading


class NextRun(NamedTuple):
    """The changes of a run if the roster is as last seen: how many it adds and removes, without take-overs.

    ``plan_id`` names what needs approval, and ``excess`` is the safety limit that is exceeded; None if neither.
    """

    added: int
    removed: int
    plan_id: str | None = None
    excess: Excess | None = None


@collection_paused()
def next_run(session: Session, mailing_list: MailingList, changes: Mapping[int, bool], *, now: datetime) -> NextRun:
    """Return the next run after a superuser's choices, which map address ids to subscribed or not."""
    with reading(session):
        plan = _plan(session, mailing_list, changes, now=now)
    counts, approval = plan.counts, plan.approval
    plan_id = plan.id if approval.reason else None
    return NextRun(counts["added"], counts["removed"], plan_id, approval.excess)


def approve(session: Session, mailing_list: MailingList, plan_id: str, *, actor: Actor, now: datetime) -> int:
    """Request a run that carries out one plan, or a preview if the plan is no longer expected; return its id.

    Raise PausedError.
    """
    mailing_list.require_running()
    is_as_shown = next_run(session, mailing_list, {}, now=now).plan_id == plan_id
    kind = RunKind.SYNC if is_as_shown else RunKind.SHOW
    return runs.request(
        session, mailing_list.handle, kind=kind, plan_id=plan_id if is_as_shown else None, actor=actor, now=now
    )


def approve_all(
    session: Session, lists: Iterable[MailingList], counts: Mapping[str, int], *, actor: Actor, now: datetime
) -> list[int]:
    """Request runs of the lists that need approval after a change of accounts; return their ids.

    ``counts`` is the number shown for each handle: the removals or additions that exceed its limit. A list for which
    the same number is expected is approved; for any other a preview is requested.
    """
    found = []
    for each in lists:
        if each.handle not in counts or each.is_paused:
            continue
        expected = next_run(session, each, {}, now=now)
        number = expected.excess.number if expected.excess else expected.removed
        is_as_shown = expected.plan_id is not None and number == counts[each.handle]
        kind, plan_id = (RunKind.SYNC, expected.plan_id) if is_as_shown else (RunKind.SHOW, None)
        found.append(runs.request(session, each.handle, kind=kind, plan_id=plan_id, actor=actor, now=now))
    return found


def _plan(session: Session, mailing_list: MailingList, changes: Mapping[int, bool], *, now: datetime) -> Plan:
    """Return the plan that ``plans.make_plan`` makes of the last seen roster; steady addresses are not read."""
    handle = mailing_list.handle
    our_acts = plans.unfinished_acts(session, handle)
    ids = {*_unsettled(session, mailing_list), *our_acts, *changes, *plans.halves_of_moves(session, mailing_list)}
    rows = [_chosen(each, changes) for each in plans.load_rows(session, mailing_list, ids, now=now)]
    roster = {each.canonical: each.spelling for each in rows if each.state.seen}
    decisions = decide_rows(rows, roster, rules=rules_of(mailing_list), our_acts=our_acts)
    seen_on = _count_seen(session, handle)
    steady_on = seen_on - len(roster)
    return Plan(
        handle=handle,
        decisions=decisions,
        on_roster=max(_last_on_roster(session, handle), seen_on),
        seen_on=seen_on,
        expected=expected_counts(decisions, steady_on=steady_on),
        staying=steady_on + sum(each.stays for each in decisions),
        limits=mailing_list.safety_limits,
        earlier=EarlierRuns(
            approved=plans.accepted_lines(session, handle),
            recent=plans.recent_lines(session, handle, now=now),
            is_first_after_restore=plans.is_first_after_restore(session, handle),
        ),
    )


def _chosen(row: Row, changes: Mapping[int, bool]) -> Row:
    """Return a row after a superuser's choice."""
    if row.address_id not in changes or changes[row.address_id] is row.state.preference:
        return row
    return replace(
        row,
        state=replace(row.state, preference=changes[row.address_id], touched=True, is_dealt_with=False),
        moved_from=None,
        is_unread=True,
        unsubscribed_by_link=False,
        by_holder=False,
        did_not_take=False,
        has_refusal=False,
        is_recent_refusal=False,
    )


def _unsettled(session: Session, mailing_list: MailingList) -> set[int]:
    is_steady = case((plans.is_steady(mailing_list), 1), else_=0)
    query = (
        select(Address.id)
        .join(Preference, Preference.address_id == Address.id)
        .where(Preference.list_handle == mailing_list.handle, is_steady == 0)
    )
    return set(session.scalars(query))


def _count_seen(session: Session, handle: str) -> int:
    of_list = select(func.count()).select_from(Preference).where(Preference.list_handle == handle)
    return session.scalar(of_list.where(Preference.seen.is_(True))) or 0


def _last_on_roster(session: Session, handle: str) -> int:
    done = select(Run.on_roster).where(Run.list_handle == handle, Run.state == RunState.DONE)
    return session.scalar(done.order_by(Run.started_at.desc()).limit(1)) or 0
