"""Two accounts of one person become one."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import delete as delete_from
from sqlalchemy import insert, select, update
from sqlalchemy.orm import Session

from portal.domain import usernames
from portal.domain.address import printable
from portal.errors import BadInputError
from portal.models import Address, LastSaid, Preference, User, UserAddress, UserGroup
from portal.services import displaced_preferences, preference_rows, security_log
from portal.services.accounts import addresses, deleted_keys, moves, names, users
from portal.services.accounts import log as account_log
from portal.services.accounts.moves import Lists
from portal.services.history import COMMAND_LINE, Actor
from portal.services.transaction import transaction


class Subscription(NamedTuple):
    """An address that was or will be subscribed to a list, and is not both; None: nothing was chosen."""

    list_handle: str
    address: str
    before: bool | None
    after: bool | None


class Merged(NamedTuple):
    """What a merge does. ``gone`` is deleted, ``kept`` stays; addresses and groups are those that it gains.

    ``key`` is the member key that it has then, ``dropped_key`` one that counts as that of a deleted account.
    ``subscriptions`` are those that change.
    """

    gone: str
    kept: str
    is_active: bool
    addresses: tuple[str, ...]
    groups: tuple[str, ...]
    key: str | None
    dropped_key: str | None
    subscriptions: tuple[Subscription, ...]


class Merge(NamedTuple):
    """Which two accounts are merged, by their usernames: FROM goes, INTO stays; and which of two keys is kept.

    The numbers are those of the last change of each that the caller has seen; None: whatever it was is known.
    """

    gone: str
    kept: str
    keep_key: str | None = None
    gone_as_of: int | None = None
    kept_as_of: int | None = None


class _TakenBackError(Exception):
    """Raised to end the transaction of a preview."""


def preview(
    session: Session, wanted: Merge, *, now: datetime, lists: Lists, secret: bytes, actor: Actor = COMMAND_LINE
) -> Merged:
    """Return what a merge would do, which is done and taken back. Raise what ``merge`` raises."""
    found: list[Merged] = []
    try:
        with transaction(session):
            found.append(_merge(session, wanted, actor=actor, now=now, lists=lists, secret=secret)[0])
            raise _TakenBackError
    except _TakenBackError:
        return found[0]


def merge(
    session: Session, wanted: Merge, *, now: datetime, lists: Lists, secret: bytes, actor: Actor = COMMAND_LINE
) -> Merged:
    """Give all that one account has to another, and delete it; return what was done.

    Raise UnknownUserError, ChangedMeanwhileError, or BadInputError: they are one account, both have a key and none is
    named to be kept, or it is the last superuser.
    """
    with transaction(session):
        done, gone_id, kept_id = _merge(session, wanted, actor=actor, now=now, lists=lists, secret=secret)
    security_log.log("user merged", user=gone_id, into=kept_id)
    return done


def _merge(
    session: Session, wanted: Merge, *, actor: Actor, now: datetime, lists: Lists, secret: bytes
) -> tuple[Merged, int, int]:
    """Merge two accounts; return what was done, and the numbers of the one that goes and the one that stays."""
    both = [usernames.key(each) for each in (wanted.gone, wanted.kept) if each.isprintable()]
    users.lock_with_superusers(session, both)
    gone = users.row_unless_last_superuser(session, wanted.gone, as_of=wanted.gone_as_of)
    kept = names.locked(session, wanted.kept)
    account_log.require_unchanged(session, kept.id, since=wanted.kept_as_of)
    if gone.id == kept.id:
        raise BadInputError(
            "%(username)s cannot be merged with itself; name two different accounts", username=kept.username
        )
    held = _addresses(session, [gone.id, kept.id])
    before = _preferences(session, held)
    key, dropped = _settle_keys(session, gone, kept, wanted.keep_key)
    if dropped is not None:
        deleted_keys.remember(session, dropped, erase=False, secret=secret, now=now)
    moves.lock(session, held)
    # Groups first: they say which lists the person may see.
    groups = _give_groups(session, gone.id, kept.id, actor=actor, now=now, lists=lists)
    gained = tuple(_give_addresses(session, gone, kept, actor=actor, now=now, lists=lists))
    called = gone.username, kept.username
    for user_id, username, what in (
        (gone.id, called[0], account_log.MERGED_INTO % {"username": called[1]}),
        (kept.id, called[1], account_log.MERGED_WITH % {"username": called[0]}),
    ):
        account_log.record(session, [(user_id, username)], what, actor=actor, new="; ".join([*gained, *groups]))
    is_active, gone_id, kept_id = kept.is_active, gone.id, kept.id
    addresses.release(session, gone_id, erase=False, actor=actor, now=now, lists=lists)
    session.execute(delete_from(User).where(User.id == gone_id))
    changed = _differences(before, _preferences(session, held))
    return Merged(*called, is_active, gained, groups, key, dropped, changed), gone_id, kept_id


def _differences(
    before: Mapping[tuple[str, str], bool], after: Mapping[tuple[str, str], bool]
) -> tuple[Subscription, ...]:
    return tuple(
        Subscription(*each, before.get(each), after.get(each))
        for each in sorted(before.keys() | after.keys())
        if bool(before.get(each)) != bool(after.get(each))
    )


def _addresses(session: Session, user_ids: Collection[int]) -> list[int]:
    held = select(UserAddress.address_id).where(UserAddress.user_id.in_(user_ids)).distinct()
    return list(session.scalars(held))


def _preferences(session: Session, address_ids: Collection[int]) -> dict[tuple[str, str], bool]:
    rows = session.execute(
        select(Preference.list_handle, Address.canonical, Preference.subscribed)
        .join(Address, Address.id == Preference.address_id)
        .where(Address.id.in_(address_ids))
    )
    return {(row.list_handle, row.canonical): row.subscribed for row in rows}


def _settle_keys(session: Session, gone: User, kept: User, keep_key: str | None) -> tuple[str | None, str | None]:
    """Leave the account that stays with one key, and what the source said of it; return that key and the other one."""
    keys = [each for each in (gone.member_key, kept.member_key) if each is not None]
    if keep_key is not None and keep_key not in keys:
        raise BadInputError(
            "neither account has the key %(keep_key)s (their keys: %(keys)s)",
            keep_key=printable(keep_key),
            keys=", ".join(keys) or "none",
        )
    if len(keys) == 2 and keep_key is None:
        raise BadInputError(
            "both accounts have a key, %(keys)s and %(keys2)s; choose the one to keep with --keep-key",
            keys=keys[0],
            keys2=keys[1],
        )
    key = keep_key or next(iter(keys), None)
    dropped = next((each for each in keys if each != key), None)
    if key is not None and key == gone.member_key:
        gone.member_key = None
        session.flush()  # two accounts never have one key
        kept.member_key, kept.was_unlinked = key, False
        session.execute(delete_from(LastSaid).where(LastSaid.user_id == kept.id))
        session.execute(update(LastSaid).where(LastSaid.user_id == gone.id).values(user_id=kept.id))
    gone.member_key = None
    session.flush()
    return key, dropped


def _give_addresses(
    session: Session, gone: User, kept: User, *, actor: Actor, now: datetime, lists: Lists
) -> list[str]:
    """Let the account that stays hold what the other holds, as it came to it; return what it gains, as spelled."""
    if gone.is_active and not kept.is_active:
        addresses.deactivate(session, [gone.id], actor=actor, now=now)
    preference_rows.merge_accounts(session, gone.id, into=kept.id)
    displaced_preferences.merge_accounts(session, gone.id, into=kept.id)
    own = session.scalars(select(UserAddress.address_id).where(UserAddress.user_id == kept.id)).all()
    rows = session.execute(
        select(Address.id, Address.spelling)
        .join(UserAddress, UserAddress.address_id == Address.id)
        .where(UserAddress.user_id == gone.id, Address.id.not_in(own))
        .order_by(UserAddress.is_main.desc(), Address.canonical)
    ).all()
    numbers = [row.id for row in rows]
    if kept.is_active and not gone.is_active:
        moves.return_to(session, [(kept.id, each) for each in numbers], actor=actor, now=now)
    seats = update(UserAddress).where(UserAddress.user_id == gone.id, UserAddress.address_id.in_(numbers))
    session.execute(
        seats.values(
            user_id=kept.id,
            is_main=UserAddress.is_main if not own else False,
            given_back=None,
            unsettled_lists=None,
        )
    )
    if kept.is_active:
        addresses.clear_departures_of(session, numbers, lists=lists)
    moves.send_to_one(session, {(kept.id, each): True for each in numbers}, lists=lists, actor=actor, now=now)
    gone.is_active = gone.is_active and kept.is_active
    session.flush()
    return [row.spelling for row in rows]


def _give_groups(
    session: Session, gone: int, kept: int, *, actor: Actor, now: datetime, lists: Lists
) -> tuple[str, ...]:
    own = select(UserGroup.name).where(UserGroup.user_id == kept)
    rows = session.execute(
        select(UserGroup.name, UserGroup.from_source)
        .where(UserGroup.user_id == gone, UserGroup.name.not_in(own))
        .order_by(UserGroup.name)
    ).all()
    if rows:
        given = [{"user_id": kept, "name": row.name, "from_source": row.from_source} for row in rows]
        session.execute(insert(UserGroup), given)
        addresses.admit(session, [kept], actor=actor, now=now, lists=lists)
    return tuple(row.name for row in rows)
