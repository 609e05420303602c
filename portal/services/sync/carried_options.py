"""Options that go along with a move: digests, or no mail, are the same at the new address as at the old.

Options read from a list manager are used for two days; only this module writes their table. Source: docs/semantics.md,
"Address changes".
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from portal import database
from portal.domain.merge import Action
from portal.domain.plan import Decision, Plan, Reason
from portal.domain.subscriber_options import SubscriberOptions
from portal.errors import ConfigurationError, UnavailableError
from portal.listmanagers.base import CarriesOptions, KnowsOptions, ListManager, Outcome
from portal.models import KnownOptions
from portal.services.sync.batches import Send
from portal.services.transaction import reading, transaction

KNOWN_FOR = timedelta(days=2)

Read = Mapping[int, SubscriberOptions | None]  # by the id of an old address; None means the list's defaults


@dataclass(frozen=True, slots=True)
class _OldAddresses:
    """The previous addresses of people whom a plan adds.

    ``by_new`` maps ids of new addresses to ids of old ones; ``spellings`` are the roster's, for those that are on it.
    """

    by_new: Mapping[int, int]
    spellings: Mapping[int, str]


def with_options(
    session: Session, manager: ListManager, plan: Plan, *, clock: Callable[[], datetime], is_dry: bool = False
) -> Plan:
    """Return the plan with the options of the old address in each add that follows a move.

    The list manager is asked only if the old address is still on the roster. If it cannot switch mail off for the new
    address of a person who had done so at the old one, the add is held back.
    """
    old = _old_addresses(plan)
    can_carry = isinstance(manager, CarriesOptions)
    if not old.by_new or not isinstance(manager, KnowsOptions):
        return plan
    read, now = _read(manager, old), clock()
    if read and not is_dry:
        _remember(session, plan.handle, read, now=now)
    return _with_options(session, plan, old, read or {}, now=now, can_carry=can_carry and read is not None)


def with_options_of_planned_run(
    session: Session, open_manager: Callable[[], ListManager] | None, plan: Plan, *, clock: Callable[[], datetime]
) -> Plan:
    """Return a planned run's plan. Its adds carry no options, because others push them.

    ``open_manager`` is None if the list manager must not be called; options that were read before are used all the
    same.
    """
    old = _old_addresses(plan)
    if not old.by_new:
        return plan
    read: Read | None = None
    if open_manager is not None:
        try:
            manager = open_manager()
            if not isinstance(manager, KnowsOptions):
                return plan
            read = _read(manager, old)
        except (UnavailableError, ConfigurationError):
            pass  # only another host may be able to read the list; the caller has read its roster there
    now = clock()
    if read:
        _remember(session, plan.handle, read, now=now)
    return _with_options(session, plan, old, read or {}, now=now, can_carry=False)


def sender_of_options(manager: ListManager, adds: Iterable[Decision]) -> Send:
    """Return a function that adds addresses with the options of their decisions."""
    options = {each.spelling: each.options for each in adds if each.options is not None}

    def send(addresses: Sequence[str]) -> Mapping[str, Outcome]:
        if not isinstance(manager, CarriesOptions):  # with_options asks for none in that case
            raise TypeError("this list manager carries no options")
        return manager.add_with_options([(each, options[each]) for each in addresses])

    return send


def _old_addresses(plan: Plan) -> _OldAddresses:
    by_new = {each.row.address_id: each.moved_from for each in plan.of(Action.ADD) if each.moved_from is not None}
    of_people = set(by_new.values())
    spellings = {
        each.row.address_id: each.spelling.partition("\n")[0]
        for each in plan.decisions
        if each.on_roster and each.row.address_id in of_people
    }
    return _OldAddresses(by_new, spellings)


def _read(manager: KnowsOptions, old: _OldAddresses) -> Read | None:
    """Read the options of old addresses on the roster; None if the list manager cannot report them."""
    if not old.spellings:
        return {}
    found = manager.options(sorted(set(old.spellings.values())))
    if found is None:
        return None
    return {address_id: found.get(spelling) for address_id, spelling in old.spellings.items()}


def _with_options(
    session: Session, plan: Plan, old: _OldAddresses, read: Read, *, now: datetime, can_carry: bool
) -> Plan:
    """Return the plan with the options that were read now or before."""
    known = {**_remembered(session, plan.handle, set(old.by_new.values()), now=now), **read}

    def with_known_options(decision: Decision) -> Decision:
        origin = old.by_new.get(decision.row.address_id)
        if origin is None:
            return decision
        options = known.get(origin)
        if options is None:
            is_unknown = origin in old.spellings and origin not in known
            return replace(decision, reason=Reason.DEFAULTS) if is_unknown else decision
        if can_carry:
            return replace(decision, options=options)
        if options.is_mail_off:
            return replace(decision, held_back=True, reason=Reason.OPTIONS)
        return replace(decision, reason=Reason.DEFAULTS)

    return replace(plan, decisions=tuple(map(with_known_options, plan.decisions)))


def _remember(session: Session, handle: str, read: Read, *, now: datetime) -> None:
    """Store what was read, and delete what was read long ago."""
    rows = [
        {
            "list_handle": handle,
            "address_id": address_id,
            "words": options.words if options else "",
            "is_mail_off": options is not None and options.is_mail_off,
            "read_at": now,
        }
        for address_id, options in read.items()
    ]
    fresh = database.insert(session, KnownOptions)
    values = {name: getattr(fresh.excluded, name) for name in ("words", "is_mail_off", "read_at")}
    with transaction(session):
        session.execute(delete(KnownOptions).where(KnownOptions.read_at < now - KNOWN_FOR))
        session.execute(fresh.on_conflict_do_update(index_elements=["list_handle", "address_id"], set_=values), rows)


def _remembered(session: Session, handle: str, address_ids: Collection[int], *, now: datetime) -> Read:
    """Return the options that were read within the last two days."""
    with reading(session):
        rows = session.execute(
            select(KnownOptions.address_id, KnownOptions.words, KnownOptions.is_mail_off).where(
                KnownOptions.list_handle == handle,
                KnownOptions.address_id.in_(sorted(address_ids)),
                KnownOptions.read_at >= now - KNOWN_FOR,
            )
        ).all()
    return {each.address_id: SubscriberOptions(each.words, each.is_mail_off) if each.words else None for each in rows}


def rename_list(session: Session, old: str, new: str) -> None:
    """Delete the options stored under a list's old handle; they are read again when needed."""
    session.execute(delete(KnownOptions).where(KnownOptions.list_handle.in_([old, new])))
