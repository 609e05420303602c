"""Choices posted after the log-in had ended: kept in the cookie and shown again after the next log-in."""

import json
from typing import NamedTuple

from flask import session

from portal.errors import StaleFormError
from portal.web import shown
from portal.web.forms import SubscriptionsForm

_COOKIE = "unsaved"
LINK = "link"  # the token of a mailed link that was opened before the log-in that it requires
_MOST = 2_000  # bytes; the cookie of at most 4,096 bytes holds other values as well


class Unsaved(NamedTuple):
    """Changed boxes and chosen addresses, by list."""

    ticks: dict[str, bool]
    addresses: dict[str, int]


def keep() -> bool:
    """Keep a posted choice for the member whose page it was, without saving it; return whether that worked."""
    form = SubscriptionsForm(meta={"csrf": False})  # the signature names the owner, and the member still has to save it
    if not form.validate():
        return False
    try:
        user_id, was = shown.read_with_owner("subscriptions", form.shown.data)
    except StaleFormError:
        return False
    ticked, chosen = set(form.lists.data or ()), form.chosen_addresses
    ticks = {handle: handle in ticked for handle, sent_to in was.items() if (handle in ticked) != bool(sent_to)}
    moved = {handle: chosen[handle] for handle in ticked & chosen.keys() & was.keys() if chosen[handle] != was[handle]}
    kept = [user_id, ticks, moved]
    if len(json.dumps(kept)) > _MOST:
        return False
    session[_COOKIE] = kept
    return True


def take(user_id: int) -> Unsaved | None:
    """Return the kept choice of a member, once."""
    if _COOKIE not in session:  # pop() of a missing value would write the cookie again
        return None
    owner, *kept = session.pop(_COOKIE)
    return Unsaved(*kept) if owner == user_id else None


def carry_over() -> None:
    """Empty the cookie for a new log-in, except for kept values."""
    kept = {name: session[name] for name in (_COOKIE, LINK) if name in session}
    session.clear()
    session.update(kept)
