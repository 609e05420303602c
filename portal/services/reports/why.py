"""Why an address is, or is not, on a list: what is known, and what the next run will do about it, in sentences."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.plan import Decision, Reason, decide_rows, rules_of
from portal.domain.run import RunState
from portal.models import Address, Preference, Run, RunLine, User, UserAddress, UserGroup
from portal.services.reports import lists as list_reports
from portal.services.reports.lists import HistoryLine
from portal.services.sync import new_members, plans, runs
from portal.services.transaction import reading

_LINES = 20  # of the history


class Holder(NamedTuple):
    """A user who holds the address; ``may_see``: the list is offered to their groups."""

    username: str
    is_active: bool
    may_see: bool
    user_id: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """What is known of an address on a list.

    ``seen`` and ``preference`` are None where nothing is known. ``next_action`` is what the next run does if the
    roster is still what was seen, ``next_reason`` why; ``held_back``: it is due, and put off. ``sentences`` say all
    this, ``summary`` in one sentence; ``history`` holds the last changes, the newest first. ``address_id`` is None of
    an address that is not known.
    """

    handle: str
    address: str
    is_known: bool
    seen: bool | None
    preference: bool | None
    holders: tuple[Holder, ...]
    next_action: Action | None
    next_reason: Reason | None
    held_back: bool
    summary: str
    sentences: tuple[str, ...]
    history: tuple[HistoryLine, ...]
    address_id: int | None = None

    @property
    def may_be_put_on(self) -> bool:
        """Tell whether a superuser can subscribe the address: an active user who may see the list holds it."""
        return not self.preference and any(each.is_active and each.may_see for each in self.holders)

    @property
    def may_be_taken_off(self) -> bool:
        """Tell whether a superuser can unsubscribe the address."""
        return self.address_id is not None and (self.preference or (self.preference is None and bool(self.seen)))

    @property
    def is_of_concern(self) -> bool:
        """Tell whether the address is on the list, may be, or will be: one of its holders may see it, or a run acts."""
        is_offered = any(each.may_see for each in self.holders)
        return is_offered or not self.is_known or bool(self.seen) or self.next_action not in {None, Action.NOTHING}


@dataclass(frozen=True, slots=True)
class _Known:
    """What the database says; ``row`` holds the preference's columns, None in each where there is none."""

    mailing_list: MailingList
    row: Any
    holders: tuple[Holder, ...]
    successor: str | None
    last_good_at: datetime | None
    our_act: Action | None
    decision: Decision
    lacks_options: bool  # the last run put its add off, since it would get mail that was switched off before
    planned_run: int | None
    history: tuple[HistoryLine, ...]
    moment: Callable[[datetime], str]


def explain(
    session: Session,
    mailing_list: MailingList,
    address: str,
    *,
    now: datetime,
    moment: Callable[[datetime], str],
) -> Explanation:
    """Explain one canonical address on one list from what the portal knows; the list manager is not asked.

    ``moment`` writes the times in the sentences as those beside them are written.
    """
    history = list_reports.history(session, handle=mailing_list.handle, address=address, limit=_LINES)
    with reading(session):
        row = session.execute(_query(mailing_list, address)).first()
        if row is None:
            return _of_nobody(mailing_list, address, history)
        known = _load(session, mailing_list, row, history, now=now, moment=moment)
    return Explanation(
        handle=mailing_list.handle,
        address=address,
        is_known=True,
        seen=known.row.seen,
        preference=known.row.subscribed,
        holders=known.holders,
        next_action=known.decision.action,
        next_reason=None if known.decision.action in {Action.NOTHING, Action.INIT} else known.decision.reason,
        held_back=known.decision.held_back,
        summary=_summary(known),
        sentences=(_on_the_list(known), _held_by(known), *_chosen(known), *_at_the_list(known), *_next_run(known)),
        history=history,
        address_id=known.row.id,
    )


def _of_nobody(mailing_list: MailingList, address: str, history: tuple[HistoryLine, ...]) -> Explanation:
    sentences = (
        f"{address} is not known here: no account holds it, and nothing is stored for it on {mailing_list.handle}.",
        "Whether it is on the list was not looked up: only a run reads the roster.",
        "If it is, it counts as one without an account, and no run touches it.",
    )
    return Explanation(
        handle=mailing_list.handle,
        address=address,
        is_known=False,
        seen=None,
        preference=None,
        holders=(),
        next_action=None,
        next_reason=None,
        held_back=False,
        summary=sentences[0],
        sentences=sentences,
        history=history,
    )


def _query(mailing_list: MailingList, address: str) -> Any:
    columns = (
        "subscribed",
        "source",
        "version",
        "changed_at",
        "seen",
        "touched",
        "waiting_since",
        "departed",
        "moved_to",
    )
    return (
        select(Address.id, Address.canonical, *(getattr(Preference, name) for name in columns))
        .add_columns(Preference.push_result, Preference.refusal, Preference.refused_at)
        .outerjoin(Preference, (Preference.address_id == Address.id) & (Preference.list_handle == mailing_list.handle))
        .where(Address.canonical == address)
    )


def _load(
    session: Session,
    mailing_list: MailingList,
    row: Any,
    history: tuple[HistoryLine, ...],
    *,
    now: datetime,
    moment: Callable[[datetime], str],
) -> _Known:
    our_acts = plans.unfinished_acts(session, mailing_list.handle)
    open_run = runs.open_planned(session, mailing_list.handle)
    last_good = select(func.max(Run.finished_at)).where(
        Run.list_handle == mailing_list.handle, Run.state == RunState.DONE
    )
    return _Known(
        mailing_list=mailing_list,
        row=row,
        holders=_holders(session, mailing_list, row.id),
        successor=_successor(session, row),
        last_good_at=session.execute(last_good).scalar(),
        our_act=our_acts.get(row.id),
        decision=_decision(session, mailing_list, row, our_acts, now=now),
        lacks_options=_lacks_options(session, mailing_list, row.id),
        planned_run=open_run.run_id if open_run else None,
        history=history,
        moment=moment,
    )


def _successor(session: Session, row: Any) -> str | None:
    """Return the address that the last holder moved to, where there is one to follow."""
    moved_to = select(Address.canonical).where(Address.id == row.moved_to, Address.id != row.id)
    return session.execute(moved_to).scalar()


def _holders(session: Session, mailing_list: MailingList, address_id: int) -> tuple[Holder, ...]:
    groups = select(func.aggregate_strings(UserGroup.name, "\n")).where(UserGroup.user_id == User.id)
    found = session.execute(
        select(User.username, User.is_active, groups.correlate(User).scalar_subquery(), User.id)
        .join(UserAddress, UserAddress.user_id == User.id)
        .where(UserAddress.address_id == address_id)
        .order_by(User.username_key)
    )
    return tuple(
        Holder(username, is_active, mailing_list.is_offered_to(frozenset((names or "").split("\n"))), user_id)
        for username, is_active, names, user_id in found
    )


def _decision(
    session: Session, mailing_list: MailingList, row: Any, our_acts: dict[int, Action], *, now: datetime
) -> Decision:
    """Return what the planner decides if the roster is what was seen. It looks at moves, so those belong to it."""
    moved_here = select(Preference.address_id).where(
        Preference.list_handle == mailing_list.handle, Preference.moved_to == row.id
    )
    ids = {row.id, *session.scalars(moved_here), *([row.moved_to] if row.moved_to is not None else [])}
    rows = plans.load_rows(session, mailing_list, ids, now=now)
    roster = {each.canonical: each.spelling for each in rows if each.state.seen}
    new = new_members.find(session, mailing_list, roster=roster, address=row.canonical)
    decisions = decide_rows(rows, roster, rules=rules_of(mailing_list), our_acts=our_acts, new_members=new)
    return next(each for each in decisions if each.row.address_id == row.id)


def _lacks_options(session: Session, mailing_list: MailingList, address_id: int) -> bool:
    last_run = select(func.max(Run.id)).where(Run.list_handle == mailing_list.handle, Run.plan_id.is_not(None))
    put_off = select(RunLine.run_id).where(
        RunLine.run_id == last_run.scalar_subquery(),
        RunLine.address_id == address_id,
        RunLine.held,
        RunLine.reason == Reason.OPTIONS,
    )
    return session.scalar(put_off) is not None


_NEXT = {
    Action.INIT: "the next run takes over what the list says",
    Action.ADD: "the next run adds it",
    Action.REMOVE: "the next run removes it",
    Action.LEFT: "the next run takes over that they left",
    Action.JOINED: "the next run takes over that they joined",
    Action.NOTHING: "nothing is to be done",
}


def _summary(known: _Known) -> str:
    place = {True: "is on", False: "is not on", None: "may be on"}[known.row.seen]
    action = known.decision.action
    if known.row.waiting_since:
        then = "its add is waiting for approval"
    elif known.decision.held_back:
        then = f"the next run does not {'add' if action is Action.ADD else 'remove'} it yet"
    else:
        then = _NEXT[action]
    return f"{known.row.canonical} {place} {known.mailing_list.handle}: {then}."


def _on_the_list(known: _Known) -> str:
    address, handle = known.row.canonical, known.mailing_list.handle
    when = f" (last good run: {known.moment(known.last_good_at)})" if known.last_good_at else ""
    match known.row.seen:
        case True:
            return f"{address} is on {handle}, as last seen{when}."
        case False:
            return f"{address} is not on {handle}, as last seen{when}."
    return f"Whether {address} is on {handle} is not known: no run has looked for it yet{when}."


def _held_by(known: _Known) -> str:
    if not known.holders:
        return "No account holds it."
    names = " and ".join(_called(each) for each in known.holders)
    shared = "It is a shared mailbox, held by" if len(known.holders) > 1 else "It is held by"
    if known.decision.row.state.is_managed:
        return f"{shared} {names}."
    return f"{shared} {names}: no active user who may see the list, so it is not managed."


def _called(holder: Holder) -> str:
    if not holder.is_active:
        return f"{holder.username} (inactive)"
    return holder.username if holder.may_see else f"{holder.username} (outside the audience)"


def _chosen(known: _Known) -> tuple[str, ...]:
    row = known.row
    if row.subscribed is None:
        return ("Nothing has been chosen for it.",)
    wanted = "subscribed" if row.subscribed else "unsubscribed"
    latest = next(iter(known.history), None)
    actor = latest.actor if latest and latest.at == row.changed_at else ""
    given = latest.reason if latest and latest.at == row.changed_at and latest.source != "rule" else ""
    reason = f" Reason given: {given}." if given else ""
    how = {
        "user": f"chosen by {actor or 'its holder'}",
        "superuser": f"chosen for its holder by {actor or 'a superuser'}",
        "link": "by a link in a mail to the address",
        "init": "taken over from the list",
        "list": "because they joined at the list" if row.subscribed else "because they left at the list",
        "rule": f"by rule, as {_cause(row)}{f' by {actor}' if actor else ''}",
        "import": "imported",
    }[row.source]
    sentence = f"Wanted here: {wanted}, {how}, {known.moment(row.changed_at)}.{reason}"
    return (sentence, "No run has read that choice yet.") if row.touched else (sentence,)


def _cause(row: Any) -> str:
    if row.subscribed and row.version == 0:
        return "its holder was new, and the list subscribes new members"
    return "an address was changed" if row.subscribed else "another address was chosen, given or taken"


def _at_the_list(known: _Known) -> tuple[str, ...]:
    row, sentences = known.row, []
    if row.push_result:
        sentences.append(_not_taken(known))
    if known.successor:
        sentences.append(f"Its holder changed to {known.successor}.")
    if row.departed:
        sentences.append("That nobody holds it any more who may see the list has been dealt with.")
    if known.our_act:
        sentences.append(f"A run that has not ended was to {known.our_act} it; the next one finds out whether it did.")
    if known.planned_run:
        sentences.append(f"The planned run {known.planned_run} is open; what it does stands in its own plan.")
    return tuple(sentences)


def _not_taken(known: _Known) -> str:
    """Return what became of the last push, which did not take."""
    row = known.row
    if row.push_result in {"pending", "confirm"}:
        what = "approval at the list" if row.push_result == "pending" else "the member's confirmation"
        return f"Its add has been waiting for {what} since {known.moment(row.waiting_since or row.refused_at)}."
    when = f" on {known.moment(row.refused_at)}" if row.refused_at else ", and it is to be tried again"
    if row.push_result == "rejected":
        return f"The list manager refused it{when}: {row.refusal}."
    return f"The {'add' if row.subscribed else 'removal'} had no effect{when}: {row.refusal}."


def _next_run(known: _Known) -> tuple[str, ...]:
    """Return what the next run does, and why, in the words of the planner's decision."""
    if known.decision.held_back:
        return (_put_off(known),)
    unless = ", unless it is there already" if known.row.seen is None else ""
    match known.decision.action:
        case Action.INIT:
            words = "takes over what the list says: subscribed if it is on it, else unsubscribed"
        case Action.ADD if known.lacks_options:
            return (_WITHOUT_OPTIONS,)
        case Action.ADD if known.decision.reason is Reason.NEW_MEMBER:
            words = "adds it, unless it is there already: its holder is new, and the list subscribes new members"
        case Action.ADD:
            words = f"adds it: it is wanted on the list{unless}"
        case Action.REMOVE:
            words = f"removes it: {_why_removed(known)}"
        case Action.LEFT:
            where = "by a mailed link" if known.decision.reason is Reason.LINK else "at the list"
            words = f"takes over that they left {where}: it becomes unsubscribed"
        case Action.JOINED:
            words = "takes over that they joined at the list: it becomes subscribed"
        case Action.NOTHING:
            words = f"does nothing about it: {_why_nothing(known)}"
    return (f"The next run {words}.",)


_WITHOUT_OPTIONS = (
    "The last run did not add it, and the next run does not either: mail was switched off at the address that its "
    "holder had before, and this list manager, or a generated script, cannot switch it off here."
)


def _why_nothing(known: _Known) -> str:
    if known.row.subscribed is None:
        return "it is not managed, and nothing was chosen"
    if not known.decision.state.is_managed:
        return "it is not managed, and its departure leaves nothing to do"
    if known.row.seen is None:
        return "it is not wanted on the list; if it is on it, it is removed"
    return "the list agrees with what is wanted here"


def _put_off(known: _Known) -> str:
    verb = "add" if known.decision.action is Action.ADD else "remove"
    if known.decision.reason is Reason.LIST_ADDRESS:
        return "It is the address of a mailing list, which is never added to a list."
    if known.decision.reason is Reason.SUCCESSOR:
        return f"The next run does not {verb} it yet: {known.successor} has to be on the list first."
    due = known.row.refused_at + plans.RETRY_AFTER
    return (
        f"The next run does not {verb} it before {known.moment(due)}, a day after the last try, "
        "unless the choice changes."
    )


def _why_removed(known: _Known) -> str:
    match known.decision.reason:
        case Reason.MOVED:
            after = ", after that one was added" if known.decision.after is not None else ""
            return f"its holder changed to {known.successor or 'another address'}{after}"
        case Reason.DEPARTED:
            return "no active user who may see the list holds it any more"
    return "it is not wanted on the list"
