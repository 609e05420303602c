"""Two changes of one account at the same time, both from pages that showed it as it was before. SECURITY 31 and 32."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations_with_replacement
from threading import Barrier

import pytest
from sqlalchemy.orm import Session

from portal.errors import ChangedMeanwhileError, UnknownUserError
from portal.extensions import db
from portal.services.accounts import log, password_changes, users
from portal.services.accounts.addresses import checked
from portal.services.accounts.profiles import Details
from portal.services.history import Actor
from portal.services.preferences import preferences
from tests.factories import NOW, make_user

SHOWN = Details("Alice", "alice@example.org", ())
BOB = Actor(99, "bob")


def edit(**fields):
    wanted = SHOWN._replace(**fields)

    def do(session, user_id, **_):
        address = checked(wanted.email)
        edited = users.edit(
            session, user_id, shown=SHOWN, wanted=wanted, address=address, actor=BOB, now=NOW, lists=None
        )
        if edited.stale:
            raise ChangedMeanwhileError("both changed it")

    return do


def tick(session, user_id, *, catalogue, **_):
    preferences.choose(session, user_id, shown={"members": 0}, ticked={"members"}, catalogue=catalogue, now=NOW)


CHANGES: dict[str, Callable[..., object]] = {
    "address": edit(email="alice@new.example.org"),
    "other address": edit(email="alice@other.example.org"),
    "groups": edit(groups=("board",)),
    "grant": lambda session, _, as_of, **__: users.grant(session, "alice", as_of=as_of),
    "deactivate": lambda session, _, as_of, **__: users.deactivate(session, "alice", now=NOW, as_of=as_of),
    "password": lambda session, _, as_of, **__: password_changes.set_password(
        session, "alice", password="a dozen green hats", rounds=4, as_of=as_of
    ),
    "delete": lambda session, _, as_of, **__: users.delete(
        session, "alice", now=NOW, erase=True, lists=None, as_of=as_of
    ),
    "tick": tick,
}
AS_SHOWN = {"grant", "deactivate", "password", "delete"}  # what is done to the account as it was, or not at all


@pytest.mark.parametrize("names", list(combinations_with_replacement(CHANGES, 2)), ids=" and ".join)
def test_both_are_done_or_the_second_says_what_was_changed(app, session, names):
    user_id = make_user(session, "alice")
    make_user(session, "carol", is_superuser=True)
    catalogue, barrier = app.extensions["portal"].catalogue(), Barrier(2)
    values = {"as_of": log.last_change(session, user_id), "catalogue": catalogue}

    def do(name: str) -> bool:
        with app.app_context(), Session(db.engine) as own:
            barrier.wait(10)
            try:
                CHANGES[name](own, user_id, **values)
            except (ChangedMeanwhileError, UnknownUserError):
                return False
        return True

    with ThreadPoolExecutor(2) as pool:
        done = dict(zip(names, pool.map(do, names), strict=True)) if names[0] != names[1] else None
        same = None if done else list(pool.map(do, names))
    lines = [each for each in log.recent(session, user_id=user_id) if each.what != "renamed"]
    if done is None:
        assert sum(same) == (1 if names[0] in AS_SHOWN else 2)
        assert len(lines) == (0 if names[0] == "tick" else 1)
        return
    assert any(done.values())
    assert len(lines) == sum(done[name] for name in names if name != "tick")
    if AS_SHOWN.isdisjoint(names) and set(names) != {"address", "other address"}:
        assert all(done.values()), "they are about different things"
    if set(names) <= AS_SHOWN or set(names) == {"address", "other address"}:
        assert sum(done.values()) == 1
