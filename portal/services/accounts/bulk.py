"""Bulk changes: superusers change many accounts, either selected ones or all that match a filter.

A preview comes first. Its id covers the accounts and their groups, and only a change that matches the preview is
applied: if the accounts have changed since, the superuser has to preview again.
"""

import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple

from sqlalchemy import and_, case, delete, exists, func, insert, literal, not_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.errors import ChangedMeanwhileError
from portal.models import User, UserAddress, UserGroup
from portal.services import security_log
from portal.services.accounts import addresses, directory, invitations, profiles, sessions
from portal.services.accounts import log as account_log
from portal.services.accounts.directory import Wanted
from portal.services.accounts.log import Recorded
from portal.services.accounts.moves import Lists
from portal.services.history import Actor
from portal.services.transaction import reading, transaction

_CHUNK = 500  # accounts in one transaction, so that a member's save never waits long
_NAMED = 20  # accounts that a preview names


class Change(StrEnum):
    """What can be done to many accounts."""

    ADD_GROUPS = "add-groups"
    REMOVE_GROUPS = "remove-groups"
    SET_GROUPS = "set-groups"
    ACTIVATE = "activate"
    DEACTIVATE = "deactivate"
    INVITE = "invite"


# The event that the security log has for each account.
_EVENTS = {
    Change.ADD_GROUPS: "groups changed",
    Change.REMOVE_GROUPS: "groups changed",
    Change.SET_GROUPS: "groups changed",
    Change.ACTIVATE: "user activated",
    Change.DEACTIVATE: "user deactivated",
    Change.INVITE: "user invited",
}
GROUP_CHANGES = frozenset({Change.ADD_GROUPS, Change.REMOVE_GROUPS, Change.SET_GROUPS})


class Eligibility(StrEnum):
    """Whether a bulk change applies to an account, and if not, why."""

    CHANGE = "change"
    SO_ALREADY = "so-already"
    NOT_INVITED = "not-invited"  # inactive, without an address, or with an invitation still to be sent
    HAS_ROLE = "has-role"  # superusers are activated and deactivated one by one, on their own pages


class Asked(NamedTuple):
    """A bulk change that a superuser asks for; ``groups``, as stored, are those to add, remove or set."""

    change: Change
    wanted: Wanted
    groups: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Preview:
    """The effect of a bulk change: the number of accounts, the first few, and how many are skipped for which reason."""

    id: str
    count: int
    first: tuple[profiles.Profile, ...]
    passed_over: dict[Eligibility, int]


class _Account(NamedTuple):
    id: int
    username: str
    groups: frozenset[str]


def preview(session: Session, asked: Asked) -> Preview:
    """Return the effect of a bulk change without writing anything."""
    with reading(session):
        found = _accounts(session, asked)
        eligibility = _eligibility(asked).label("eligibility")
        counted = select(eligibility, func.count()).where(directory.matching(asked.wanted)).group_by(eligibility)
        counts = {Eligibility(each): count for each, count in session.execute(counted)}
        first = profiles.find(session, is_changed(asked), limit=_NAMED)
    counts.pop(Eligibility.CHANGE, None)
    return Preview(_id(asked, found), len(found), tuple(first), counts)


def do(session: Session, asked: Asked, *, preview_id: str, actor: Actor, now: datetime, lists: Lists) -> int:
    """Apply a previewed change; return how many accounts were changed. Each gets a line in its history.

    Accounts are changed in chunks; one that somebody else changes between the check and its chunk is left alone. Raise
    ChangedMeanwhileError if the accounts or their groups differ from the preview.
    """
    with reading(session):
        found = _accounts(session, asked)
    if _id(asked, found) != preview_id:
        raise ChangedMeanwhileError("the accounts have changed since they were shown; check them again")
    done = 0
    for number, chunk in enumerate(database.chunked(found, _CHUNK)):
        if number:
            database.pause(session)
        with transaction(session):
            changed = _do(session, asked, chunk, actor=actor, now=now, lists=lists)
        for user_id in changed:
            security_log.log(_EVENTS[asked.change], user=user_id)
        done += len(changed)
    return done


def is_changed(asked: Asked) -> Any:
    """Return the condition that a bulk change applies to an account."""
    return and_(directory.matching(asked.wanted), _eligibility(asked) == Eligibility.CHANGE.value)


def _do(
    session: Session, asked: Asked, shown: Sequence[_Account], *, actor: Actor, now: datetime, lists: Lists
) -> Sequence[int]:
    """Change the accounts that are still as the preview showed them; return their ids."""
    ids = [each.id for each in shown]
    session.execute(select(User.id).where(User.id.in_(ids)).order_by(User.id).with_for_update())
    was = {each.id: each for each in shown}
    of_chunk = asked._replace(wanted=Wanted(user_ids=tuple(ids)))
    accounts = [each for each in _accounts(session, of_chunk) if each.groups == was[each.id].groups]
    ids = [each.id for each in accounts]
    if asked.change in GROUP_CHANGES:
        _change_groups(session, asked, accounts, actor=actor)
        addresses.admit(session, ids, actor=actor, now=now, lists=lists)
        return ids
    if asked.change is Change.INVITE:
        return invitations.ask_for(session, ids, actor=actor, now=now)
    if asked.change is Change.ACTIVATE:
        addresses.activate(session, ids, actor=actor, now=now, lists=lists)
    else:
        addresses.deactivate(session, ids, actor=actor, now=now)
        values = {"is_active": False, "deactivated_by_import": False}
        session.execute(update(User).where(User.id.in_(ids)).values(values))
        sessions.end_of_all(session, ids)
    account_log.record(session, [(each.id, each.username) for each in accounts], f"{asked.change}d", actor=actor)
    return ids


def _change_groups(session: Session, asked: Asked, accounts: Sequence[_Account], *, actor: Actor) -> None:
    after = {each.id: _groups_after(asked, each.groups) for each in accounts}
    gone = {(each.id, name) for each in accounts for name in each.groups - after[each.id]}
    new = [{"user_id": each.id, "name": name} for each in accounts for name in sorted(after[each.id] - each.groups)]
    for name in sorted({name for _, name in gone}):  # one statement a group
        of_name = [user_id for user_id, group in gone if group == name]
        session.execute(delete(UserGroup).where(UserGroup.name == name, UserGroup.user_id.in_(of_name)))
    if new:
        session.execute(insert(UserGroup), new)
    changes = (
        Recorded(each.id, each.username, "groups changed", _joined(each.groups), _joined(after[each.id]))
        for each in accounts
    )
    account_log.record_all(session, changes, actor=actor)


def _groups_after(asked: Asked, groups: frozenset[str]) -> frozenset[str]:
    if asked.change is Change.ADD_GROUPS:
        return groups.union(asked.groups)
    return groups.difference(asked.groups) if asked.change is Change.REMOVE_GROUPS else frozenset(asked.groups)


def _joined(groups: Collection[str]) -> str:
    return "; ".join(sorted(groups))


def _accounts(session: Session, asked: Asked) -> list[_Account]:
    """Return the accounts to which a bulk change applies, in the order of their ids."""
    changed = is_changed(asked)
    rows = session.execute(select(User.id, User.username).where(changed).order_by(User.id)).all()
    groups: dict[int, set[str]] = {user_id: set() for user_id, _ in rows}
    if asked.change in GROUP_CHANGES:
        held = select(UserGroup.user_id, UserGroup.name).join(User, User.id == UserGroup.user_id).where(changed)
        for user_id, name in session.execute(held):
            groups.setdefault(user_id, set()).add(name)  # a user may have got a group between the two statements
    return [_Account(user_id, username, frozenset(groups[user_id])) for user_id, username in rows]


def _id(asked: Asked, accounts: Sequence[_Account]) -> str:
    key = hashlib.sha256(f"{asked.change} {asked.groups}".encode())
    for each in accounts:
        key.update(f"\n{each.id} {_joined(each.groups)}".encode())
    return key.hexdigest()[:16]


def _eligibility(asked: Asked) -> Any:
    """Return the SQL expression of an account's Eligibility."""
    if asked.change in GROUP_CHANGES:
        is_so = _has_groups_already(asked)
        return case((is_so, literal(Eligibility.SO_ALREADY.value)), else_=literal(Eligibility.CHANGE.value))
    if asked.change is Change.INVITE:
        has_main = exists().where(UserAddress.user_id == User.id, UserAddress.is_main).correlate(User)
        can_be = and_(User.is_active, has_main, not_(invitations.is_waiting()))
        return case((can_be, literal(Eligibility.CHANGE.value)), else_=literal(Eligibility.NOT_INVITED.value))
    is_so = User.is_active.is_(asked.change is Change.ACTIVATE)
    return case(
        (is_so, literal(Eligibility.SO_ALREADY.value)),
        (User.is_superuser, literal(Eligibility.HAS_ROLE.value)),
        else_=literal(Eligibility.CHANGE.value),
    )


def _has_groups_already(asked: Asked) -> Any:
    def is_in(*conditions: Any) -> Any:
        return exists().where(UserGroup.user_id == User.id, *conditions).correlate(User)

    if asked.change is Change.REMOVE_GROUPS:
        return not_(is_in(UserGroup.name.in_(asked.groups)))
    has_all = and_(*(is_in(UserGroup.name == name) for name in asked.groups)) if asked.groups else None
    if asked.change is Change.ADD_GROUPS:
        return has_all
    has_another = is_in(UserGroup.name.not_in(asked.groups))
    return not_(has_another) if has_all is None else and_(has_all, not_(has_another))
