"""New members of lists that subscribe new members, before a run has found them.

Source: docs/semantics.md, "The rules", rule 1.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Select, except_, exists, func, not_, select
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.domain.new_members import Newcomer, to_subscribe
from portal.domain.run import RunKind, RunState
from portal.errors import InvalidAddressError
from portal.models import AccountChange, Address, History, Preference, Run, User, UserAddress
from portal.services.accounts.addresses import managed_ids, may_see

_BLOCK = 5_000


def find(
    session: Session, mailing_list: MailingList, *, roster: Collection[str], address: str | None = None
) -> frozenset[int]:
    """Return the ids of the addresses that the next run subscribes because their holders are new.

    ``roster`` holds canonical addresses. With a canonical ``address``, only its holders are considered.
    """
    if not mailing_list.subscribes_new_members:
        return frozenset()
    first = session.scalar(_first_good_run().where(Run.list_handle == mailing_list.handle))
    if first is None:
        return frozenset()
    found = _newcomers(mailing_list, first)
    if address is not None:
        held = select(UserAddress.user_id).join(Address).where(Address.canonical == address)
        found = found.where(User.id.in_(held))
    accounts: dict[int, int] = dict(iter(session.execute(found)))
    newcomers = [Newcomer(accounts[user_id], names) for user_id, names in _addresses(session, list(accounts)).items()]
    known = _known(session, mailing_list.handle, {name for each in newcomers for name in each.addresses})
    return to_subscribe(newcomers, known=known, roster=roster)


def lists_for(session: Session, user_id: int, lists: Iterable[MailingList]) -> frozenset[str]:
    """Return the handles of lists that will subscribe a user, as far as the portal can tell.

    These lists subscribe new members, are offered to the user, and have no preference of theirs. Only a run knows the
    roster, and the history of addresses that had been forgotten.
    """
    handles = [each.handle for each in lists]
    if not handles:
        return frozenset()
    made_at = select(User.created_at).where(User.id == user_id).scalar_subquery()
    own = select(UserAddress.address_id).where(UserAddress.user_id == user_id)
    in_history = exists().where(History.address_id.in_(own), History.list_handle == Run.list_handle).correlate(Run)
    since = _first_good_run().add_columns(Run.list_handle).where(Run.list_handle.in_(handles), not_(in_history))
    found = session.execute(since.group_by(Run.list_handle).having(func.min(Run.finished_at) < made_at))
    return frozenset(handle for _first, handle in found)


def _first_good_run() -> Select[Any]:
    return select(func.min(Run.finished_at)).where(
        Run.state == RunState.DONE, Run.kind.in_([RunKind.SYNC, RunKind.PLANNED])
    )


def _newcomers(mailing_list: MailingList, first: datetime) -> Any:
    """Return later accounts that have a preference at none of their addresses, with their main address."""
    chosen = select(Preference.address_id).where(Preference.list_handle == mailing_list.handle)
    held = select(UserAddress.address_id) if mailing_list.audience is None else managed_ids(mailing_list)
    bare = except_(held, chosen)  # most addresses have a preference, so few remain
    own = aliased(UserAddress)
    stored = exists().where(own.user_id == User.id, own.address_id.in_(chosen)).correlate(User)
    return (
        select(User.id, UserAddress.address_id)
        .join(UserAddress, UserAddress.user_id == User.id)
        .where(UserAddress.is_main, UserAddress.address_id.in_(bare))
        .where(User.created_at > first, may_see(mailing_list), not_(stored))
    )


def _addresses(session: Session, user_ids: Sequence[int]) -> Mapping[int, frozenset[str]]:
    """Return the addresses that accounts hold, and those that they have given up."""
    found: dict[int, set[str]] = defaultdict(set)
    for chunk in database.chunked(user_ids, _BLOCK):
        held = select(UserAddress.user_id, Address.canonical).join(Address, Address.id == UserAddress.address_id)
        for user_id, name in session.execute(held.where(UserAddress.user_id.in_(chunk))):
            found[user_id].add(name)
        given_up = select(AccountChange.user_id, AccountChange.old).where(
            AccountChange.user_id.in_(chunk), AccountChange.what.in_(["address changed", "address removed"])
        )
        for user_id, spelling in session.execute(given_up):
            found[user_id] |= _compared(spelling)
    return {user_id: frozenset(names) for user_id, names in found.items()}


def _compared(spelling: str) -> set[str]:
    try:
        return {canonical(spelling)}
    except InvalidAddressError:  # the address was erased
        return set()


def _known(session: Session, handle: str, names: Collection[str]) -> set[str]:
    """Return which addresses appear in the history of a list, which outlives their ids."""
    known: set[str] = set()
    for chunk in database.chunked(sorted(names), _BLOCK):
        in_history = select(History.address).where(History.list_handle == handle, History.address.in_(chunk))
        known.update(session.scalars(in_history.distinct()))
    return known
