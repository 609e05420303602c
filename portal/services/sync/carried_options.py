"""Options that go along with a move: who had chosen digests, or no mail, at the old address has the same at the new.

What a list manager says of an old address is known for two days, and tables of that are written here alone.
Source: docs/semantics.md, "Address changes".
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

Read = Mapping[int, SubscriberOptions | None]  # by the id of an old address; None: the list's defaults


@dataclass(frozen=True, slots=True)
class _OldAddresses:
    """The addresses that people had whom a plan adds.

    ``by_new`` are the ids, by those of the new addresses; ``spellings`` how the roster spells those that it holds.
    """

    by_new: Mapping[int, int]
    spellings: Mapping[int, str]


def with_options(
    session: Session, manager: ListManager, plan: Plan, *, clock: Callable[[], datetime], is_dry: bool = False
) -> Plan:
    """Return a plan whose adds know the options of the address that the person had before.

    The list manager is asked, and only where a move adds somebody whose old address is still on the roster. An add of
    a person who had switched mail off is held back where the list manager cannot do the same for the new address.
    """
    old = _old_addresses(plan)
    can_carry = isinstance(manager, CarriesOptions)
    if not old.by_new or not isinstance(manager, KnowsOptions):
        return plan
    read, now = _read(manager, old), clock()
    if read and not is_dry:
        _remember(session, plan.handle, read, now=now)
    return _told(session, plan, old, read or {}, now=now, can_carry=can_carry and read is not None)


def with_options_of_planned_run(
    session: Session, open_manager: Callable[[], ListManager] | None, plan: Plan, *, clock: Callable[[], datetime]
) -> Plan:
    """Return the plan of a planned run, whose adds carry no options: others push them.

    ``open_manager`` is None where the list manager must not be asked; what was read before is known all the same.
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
            pass  # the list may well be another host's to read, and whoever runs this has read its roster there
    now = clock()
    if read:
        _remember(session, plan.handle, read, now=now)
    return _told(session, plan, old, read or {}, now=now, can_carry=False)


def sender_of_options(manager: ListManager, adds: Iterable[Decision]) -> Send:
    """Return what adds addresses with the options that their decisions know."""
    options = {each.spelling: each.options for each in adds if each.options is not None}

    def send(addresses: Sequence[str]) -> Mapping[str, Outcome]:
        if not isinstance(manager, CarriesOptions):  # with_options knows better than to ask for it
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
    """Ask for the options of old addresses that are on the roster; None where the list manager cannot say."""
    if not old.spellings:
        return {}
    found = manager.options(sorted(set(old.spellings.values())))
    if found is None:
        return None
    return {address_id: found.get(spelling) for address_id, spelling in old.spellings.items()}


def _told(session: Session, plan: Plan, old: _OldAddresses, read: Read, *, now: datetime, can_carry: bool) -> Plan:
    """Let the adds of a plan know what was read now, or before."""
    known = {**_remembered(session, plan.handle, set(old.by_new.values()), now=now), **read}

    def told(decision: Decision) -> Decision:
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

    return replace(plan, decisions=tuple(map(told, plan.decisions)))


def _remember(session: Session, handle: str, read: Read, *, now: datetime) -> None:
    """Keep what was read, and forget what was read long ago."""
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
    """Return what was read of addresses within the last two days."""
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
    """Forget what is known under a list's old handle; it is read again where it is needed."""
    session.execute(delete(KnownOptions).where(KnownOptions.list_handle.in_([old, new])))
