"""The state of one address on one list as a person sees it, with the details below it."""

from datetime import datetime, timedelta
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """The state shown on a list's card."""

    SUBSCRIBED = "subscribed"
    NOT_SUBSCRIBED = "not_subscribed"
    BEING_ADDED = "being_added"
    BEING_REMOVED = "being_removed"
    REFUSED = "refused"
    WAITING = "waiting"
    UNCONFIRMED = "unconfirmed"
    NOT_ADDED = "not_added"
    NOT_CHOSEN = "not_chosen"


class Detail(NamedTuple):
    """The sentence below the state: its kind, its time, the list manager's words, and whether another holder did it.

    Kinds: none, add_by, add_overdue, remove_by, remove_overdue, remove_refused, not_removed, waiting, unconfirmed,
    not_added, left, joined, refused, next_run, init_on, init_off, new_member_due, new_member, chosen.
    """

    kind: str
    at: datetime | None = None
    words: str = ""
    by_other: bool = False


class KnownPreference(NamedTuple):
    """The stored preference that an outlook is made from.

    ``push_result`` is the result of the last push if it did not take. ``is_new_member``: the list subscribed its holder
    as a new member, and nothing has been chosen since.
    """

    subscribed: bool
    source: str
    changed_at: datetime
    seen: bool | None = None
    waiting_since: datetime | None = None
    push_result: str | None = None
    refusal: str | None = None
    refused_at: datetime | None = None
    is_new_member: bool = False


def outlook(
    known: KnownPreference | None,
    *,
    now: datetime,
    promise: timedelta,
    by_other: bool = False,
    is_new_member: bool = False,
) -> tuple[State, Detail]:
    """Return the state and the detail of a preference, or of having none.

    ``promise`` is the time within which members are told that a choice is applied. ``is_new_member``: the next run
    subscribes the address if it has no preference.
    """
    if known is None and is_new_member:
        return State.BEING_ADDED, Detail("new_member_due")
    if known is None:
        return State.NOT_CHOSEN, Detail("next_run")
    if known.subscribed == (known.seen is True):
        return _settled(known, by_other=by_other)
    if known.push_result:
        return _not_taken(known, known.push_result)
    due = known.changed_at + promise
    punctuality = "by" if now <= due else "overdue"
    if known.subscribed:
        return State.BEING_ADDED, Detail(f"add_{punctuality}", due, by_other=by_other)
    return State.BEING_REMOVED, Detail(f"remove_{punctuality}", due, by_other=by_other)


def _not_taken(known: KnownPreference, push_result: str) -> tuple[State, Detail]:
    words = known.refusal or ""
    if not known.subscribed:
        kind = "remove_refused" if push_result == "rejected" else "not_removed"
        return State.BEING_REMOVED, Detail(kind, known.refused_at, words)
    match push_result:
        case "pending":
            return State.WAITING, Detail("waiting", known.waiting_since or known.refused_at)
        case "confirm":
            return State.UNCONFIRMED, Detail("unconfirmed", known.waiting_since or known.refused_at)
        case "undone":
            return State.NOT_ADDED, Detail("not_added", known.refused_at)
    return State.REFUSED, Detail("refused", known.refused_at, words)


def _settled(known: KnownPreference, *, by_other: bool) -> tuple[State, Detail]:
    state = State.SUBSCRIBED if known.subscribed else State.NOT_SUBSCRIBED
    match known.source:
        case "list":
            kind = "joined" if known.subscribed else "left"
        case "init":
            kind = "init_on" if known.subscribed else "init_off"
        case "rule" if known.is_new_member:
            kind = "new_member"
        case _:
            kind = "chosen"
    return state, Detail(kind, known.changed_at, by_other=by_other)
