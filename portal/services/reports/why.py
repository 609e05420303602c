"""Why an address is or is not on a list, and what the next run will do about it, in sentences."""

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
from portal.models import Address, MemberDelivery, Preference, Run, RunLine, User, UserAddress, UserGroup
from portal.services.history import author_text
from portal.services.reports import lists as list_reports
from portal.services.reports.lists import HistoryLine
from portal.services.sync import new_members, plans, runs
from portal.services.transaction import reading
from portal.translation import gettext, marked

_LINES = 20  # of the history


class Holder(NamedTuple):
    """A user who holds the address; ``may_see``: the list is offered to their groups."""

    username: str
    is_active: bool
    may_see: bool
    user_id: int


@dataclass(frozen=True, slots=True)
class Explanation:
    """The state of an address on a list.

    ``seen`` and ``preference`` are None if unknown. ``next_action`` is what the next run does if the roster is as last
    seen, and ``next_reason`` why; ``held_back``: it is due but postponed. ``sentences`` say all this, ``summary`` in
    one sentence. ``history`` holds the last changes, the newest first. ``address_id`` is None if the portal does not
    know the address.
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
        """Whether a superuser can subscribe the address: an active user who may see the list holds it."""
        return not self.preference and any(each.is_active and each.may_see for each in self.holders)

    @property
    def may_be_taken_off(self) -> bool:
        """Whether a superuser can unsubscribe the address."""
        return self.address_id is not None and (self.preference or (self.preference is None and bool(self.seen)))

    @property
    def is_of_concern(self) -> bool:
        """Whether the address is on the list, may be, or will be: a holder may see it, or a run acts on it."""
        is_offered = any(each.may_see for each in self.holders)
        return is_offered or not self.is_known or bool(self.seen) or self.next_action not in {None, Action.NOTHING}


@dataclass(frozen=True, slots=True)
class _Facts:
    """The database's data; ``row`` holds the columns of the preference, all None if there is none."""

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
    list_name: str


def explain(
    session: Session,
    mailing_list: MailingList,
    address: str,
    *,
    now: datetime,
    moment: Callable[[datetime], str],
    list_name: str,
) -> Explanation:
    """Explain one canonical address on one list from the portal's data; the list manager is not called.

    ``moment`` formats the times in the sentences, ``list_name`` is what they call the list.
    """
    history = list_reports.history(session, handle=mailing_list.handle, address=address, limit=_LINES)
    with reading(session):
        row = session.execute(_query(mailing_list, address)).first()
        if row is None:
            return _of_nobody(mailing_list, address, history, list_name=list_name)
        known = _load(session, mailing_list, row, history, now=now, moment=moment, list_name=list_name)
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
        sentences=_sentences(known),
        history=history,
        address_id=known.row.id,
    )


def _sentences(known: _Facts) -> tuple[str, ...]:
    return (
        _on_the_list(known),
        *_delivered(known),
        _held_by(known),
        *_chosen(known),
        *_at_the_list(known),
        *_next_run(known),
    )


def _of_nobody(
    mailing_list: MailingList, address: str, history: tuple[HistoryLine, ...], *, list_name: str
) -> Explanation:
    sentences = (
        gettext(
            "%(address)s is not known here: no account holds it, and nothing is stored for it on %(name)s.",
            address=address,
            name=list_name,
        ),
        gettext("It is not known whether it is on the list: only a run reads the roster."),
        gettext("If it is, it is a subscriber without an account, and no run touches it."),
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
    delivery = (MemberDelivery.mail_off, MemberDelivery.is_digest, MemberDelivery.since.label("mail_off_since"))
    of_delivery = (MemberDelivery.address_id == Address.id) & (MemberDelivery.list_handle == mailing_list.handle)
    return (
        select(Address.id, Address.canonical, *(getattr(Preference, name) for name in columns))
        .add_columns(Preference.push_result, Preference.refusal, Preference.refused_at, *delivery)
        .outerjoin(Preference, (Preference.address_id == Address.id) & (Preference.list_handle == mailing_list.handle))
        .outerjoin(MemberDelivery, of_delivery)
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
    list_name: str,
) -> _Facts:
    our_acts = plans.unfinished_acts(session, mailing_list.handle)
    open_run = runs.open_planned(session, mailing_list.handle)
    last_good = select(func.max(Run.finished_at)).where(
        Run.list_handle == mailing_list.handle, Run.state == RunState.DONE
    )
    return _Facts(
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
        list_name=list_name,
    )


def _successor(session: Session, row: Any) -> str | None:
    """Return the address that the last holder moved to, or None if there is none to follow."""
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
    """Return the planner's decision if the roster is as last seen, including the addresses of moves."""
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
    was_held_back = select(RunLine.run_id).where(
        RunLine.run_id == last_run.scalar_subquery(),
        RunLine.address_id == address_id,
        RunLine.held,
        RunLine.reason == Reason.OPTIONS,
    )
    return session.scalar(was_held_back) is not None


_NEXT = {
    Action.INIT: marked("the next run takes over the state at the list"),
    Action.ADD: marked("the next run adds it"),
    Action.REMOVE: marked("the next run removes it"),
    Action.LEFT: marked("the next run takes over that they left"),
    Action.JOINED: marked("the next run takes over that they joined"),
    Action.NOTHING: marked("there is nothing to do"),
}
_PLACES = {
    True: marked("%(address)s is on %(name)s: %(then)s."),
    False: marked("%(address)s is not on %(name)s: %(then)s."),
    None: marked("%(address)s may be on %(name)s: %(then)s."),
}


def _summary(known: _Facts) -> str:
    action = known.decision.action
    if known.row.waiting_since:
        then = marked("the add is waiting for approval")
    elif not known.decision.held_back:
        then = _NEXT[action]
    elif action is Action.ADD:
        then = marked("the next run does not add it yet")
    else:
        then = marked("the next run does not remove it yet")
    place = _PLACES[known.row.seen]
    return gettext(place, address=known.row.canonical, name=known.list_name, then=gettext(then))


def _on_the_list(known: _Facts) -> str:
    at = known.last_good_at
    when = gettext(" (last good run: %(at)s)", at=known.moment(at)) if at else ""
    sentence = {
        True: marked("%(address)s is on %(name)s, as last seen%(when)s."),
        False: marked("%(address)s is not on %(name)s, as last seen%(when)s."),
        None: marked("It is not known whether %(address)s is on %(name)s: no run has looked for it yet%(when)s."),
    }[known.row.seen]
    return gettext(sentence, address=known.row.canonical, name=known.list_name, when=when)


def _delivered(known: _Facts) -> tuple[str, ...]:
    """Return sentences on how the list delivers to it, if not as usual."""
    row = known.row
    if not row.seen:
        return ()
    if row.mail_off == "bounces":
        return (f"The list sends it no mail: too many bounces since {known.moment(row.mail_off_since)}.",)
    if row.mail_off:
        return ("The list sends it no mail: that was switched off at the list.",)
    return ("The list sends it digests.",) if row.is_digest else ()


def _held_by(known: _Facts) -> str:
    if not known.holders:
        return gettext("No account holds it.")
    *first, last = map(_called, known.holders)
    names = gettext("%(names)s and %(last)s", names=", ".join(first), last=last) if first else last
    is_managed, is_shared = known.decision.row.state.is_managed, bool(first)
    sentence = {
        (True, True): marked("It is a shared mailbox, held by %(names)s."),
        (True, False): marked("It is held by %(names)s."),
        (False, True): marked(
            "It is a shared mailbox, held by %(names)s: no active user who may see the list, so it is not managed."
        ),
        (False, False): marked("It is held by %(names)s: no active user who may see the list, so it is not managed."),
    }[is_managed, is_shared]
    return gettext(sentence, names=names)


def _called(holder: Holder) -> str:
    if not holder.is_active:
        return gettext("%(username)s (inactive)", username=holder.username)
    if holder.may_see:
        return holder.username
    return gettext("%(username)s (outside the audience)", username=holder.username)


def _chosen(known: _Facts) -> tuple[str, ...]:
    row = known.row
    if row.subscribed is None:
        return (gettext("Nothing has been chosen for it."),)
    latest = next(iter(known.history), None)
    actor = author_text(latest.actor) if latest and latest.at == row.changed_at else ""
    given = latest.reason if latest and latest.at == row.changed_at and latest.source != "rule" else ""
    wanted = marked("Preference: subscribed, %(how)s, %(at)s.")
    if not row.subscribed:
        wanted = marked("Preference: unsubscribed, %(how)s, %(at)s.")
    sentence = gettext(wanted, how=_how(row, actor), at=known.moment(row.changed_at))
    if given:
        sentence += gettext(" Reason given: %(reason)s.", reason=given)
    return (sentence, gettext("No run has read that choice yet.")) if row.touched else (sentence,)


def _how(row: Any, actor: str) -> str:
    if row.source == "rule":
        cause = gettext(_cause(row))
        return (
            gettext("by rule, because %(cause)s by %(actor)s", cause=cause, actor=actor) if actor else _by_rule(cause)
        )
    if row.source == "user":
        return gettext("chosen by %(actor)s", actor=actor or gettext("its holder"))
    if row.source == "superuser":
        return gettext("chosen for its holder by %(actor)s", actor=actor or gettext("a superuser"))
    return gettext(_BY_ITSELF[row.source, row.subscribed])


_BY_ITSELF = {
    **dict.fromkeys((("link", True), ("link", False)), marked("by a link in a mail to the address")),
    **dict.fromkeys((("init", True), ("init", False)), marked("taken over from the list")),
    **dict.fromkeys((("import", True), ("import", False)), marked("imported")),
    ("list", True): marked("because they joined at the list"),
    ("list", False): marked("because they left at the list"),
}


def _by_rule(cause: str) -> str:
    return gettext("by rule, because %(cause)s", cause=cause)


def _cause(row: Any) -> str:
    if row.subscribed and row.version == 0:
        return marked("its holder was new, and the list subscribes new members")
    if row.subscribed:
        return marked("an address was changed")
    return marked("another address was chosen, added or removed")


def _at_the_list(known: _Facts) -> tuple[str, ...]:
    row, sentences = known.row, []
    if row.push_result:
        sentences.append(_not_taken(known))
    if known.successor:
        sentences.append(gettext("Its holder changed to %(address)s.", address=known.successor))
    if row.departed:
        sentences.append(gettext("Nobody who may see the list holds it any more, and a run has processed this."))
    if known.our_act:
        unfinished = {
            Action.ADD: marked("An unfinished run was going to add it; the next run finds out whether it did."),
            Action.REMOVE: marked("An unfinished run was going to remove it; the next run finds out whether it did."),
        }
        sentences.append(gettext(unfinished[known.our_act]))
    if known.planned_run:
        sentences.append(gettext("The planned run %(id)s is open, and has its own plan.", id=known.planned_run))
    return tuple(sentences)


def _not_taken(known: _Facts) -> str:
    """Return a sentence on the last push, which did not take."""
    row = known.row
    if row.push_result in {"pending", "confirm"}:
        since = known.moment(row.waiting_since or row.refused_at)
        if row.push_result == "pending":
            return gettext("The add has been waiting for approval at the list since %(at)s.", at=since)
        return gettext("The add has been waiting for the member's confirmation since %(at)s.", at=since)
    when = gettext(", and it will be tried again")
    if row.refused_at:
        when = gettext(" on %(at)s", at=known.moment(row.refused_at))
    if row.push_result == "rejected":
        sentence = marked("The list manager refused it%(when)s: %(words)s.")
    elif row.subscribed:
        sentence = marked("The add had no effect%(when)s: %(words)s.")
    else:
        sentence = marked("The removal had no effect%(when)s: %(words)s.")
    return gettext(sentence, when=when, words=gettext(row.refusal))


def _next_run(known: _Facts) -> tuple[str, ...]:
    """Return sentences on what the next run does and why, from the planner's decision."""
    if known.decision.held_back:
        return (_put_off(known),)
    if known.decision.action is Action.ADD and known.lacks_options:
        return (gettext(_WITHOUT_OPTIONS),)
    return (gettext("The next run %(words)s.", words=_next_words(known)),)


def _next_words(known: _Facts) -> str:
    match known.decision.action:
        case Action.ADD:
            return gettext(_why_added(known))
        case Action.REMOVE:
            return gettext("removes it: %(why)s", why=_why_removed(known))
        case Action.NOTHING:
            return gettext("does nothing: %(why)s", why=gettext(_why_nothing(known)))
        case Action.LEFT if known.decision.reason is Reason.LINK:
            return gettext("takes over that they left by a mailed link: it becomes unsubscribed")
    return gettext(_TAKES_OVER[known.decision.action])


_TAKES_OVER = {
    Action.INIT: marked("takes over the state at the list: subscribed if it is on the list, otherwise unsubscribed"),
    Action.LEFT: marked("takes over that they left at the list: it becomes unsubscribed"),
    Action.JOINED: marked("takes over that they joined at the list: it becomes subscribed"),
}


def _why_added(known: _Facts) -> str:
    if known.decision.reason is Reason.NEW_MEMBER:
        return marked("adds it, unless it is there already: its holder is new, and the list subscribes new members")
    if known.row.seen is None:
        return marked("adds it, unless it is there already: it should be on the list")
    return marked("adds it: it should be on the list")


_WITHOUT_OPTIONS = marked(
    "The last run did not add it, and the next run will not either: mail was switched off at the holder's old "
    "address, and this list manager, or the generated script, cannot switch it off for the new one."
)


def _why_nothing(known: _Facts) -> str:
    if known.row.subscribed is None:
        return marked("it is not managed, and nothing was chosen")
    if not known.decision.state.is_managed:
        return marked("it is not managed any more, and there is nothing left to do")
    if known.row.seen is None:
        return marked("it should not be on the list; if it is there, it is removed")
    return marked("the list agrees with the preference")


def _put_off(known: _Facts) -> str:
    is_add = known.decision.action is Action.ADD
    if known.decision.reason is Reason.LIST_ADDRESS:
        return gettext("It is the address of a mailing list, which is never added to a list.")
    if known.decision.reason is Reason.SUCCESSOR:
        sentence = (
            marked("The next run does not add it yet: %(address)s has to be on the list first.")
            if is_add
            else marked("The next run does not remove it yet: %(address)s has to be on the list first.")
        )
        return gettext(sentence, address=known.successor)
    sentence = (
        marked("The next run does not add it before %(at)s, a day after the last attempt, unless the choice changes.")
        if is_add
        else marked(
            "The next run does not remove it before %(at)s, a day after the last attempt, unless the choice changes."
        )
    )
    return gettext(sentence, at=known.moment(known.row.refused_at + plans.RETRY_AFTER))


def _why_removed(known: _Facts) -> str:
    match known.decision.reason:
        case Reason.MOVED:
            address = known.successor or gettext("another address")
            if known.decision.after is not None:
                return gettext("its holder changed to %(address)s, after that one was added", address=address)
            return gettext("its holder changed to %(address)s", address=address)
        case Reason.DEPARTED:
            return gettext("no active user who may see the list holds it any more")
    return gettext("it should not be on the list")
