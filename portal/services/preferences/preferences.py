"""Preferences: the member's page, and the effect of a tick."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any, NamedTuple

from sqlalchemy import CTE, ColumnElement, and_, bindparam, exists, func, null, select, type_coerce, union, union_all
from sqlalchemy.orm import Session, aliased

from portal import database
from portal.config import Catalogue
from portal.database import ROSTER
from portal.domain import usernames
from portal.domain.address import printable
from portal.domain.mailinglist import MailingList
from portal.domain.outlook import Detail, KnownPreference, State, outlook
from portal.domain.promptness import SOON
from portal.domain.several_addresses import TickableAddress, tick, untick
from portal.errors import BadInputError, NotOfferedError, UnknownUserError
from portal.models import Address, MemberDelivery, Preference, User, UserAddress, UserGroup
from portal.services import preference_rows
from portal.services.accounts import log as account_log
from portal.services.accounts import sessions
from portal.services.accounts.sessions import Member
from portal.services.history import Actor, Change
from portal.services.reports import promptness
from portal.services.reports.deliveries import ListDelivery
from portal.services.sync import new_members, runs
from portal.services.transaction import reading, scratch, transaction


class HeldAddress(NamedTuple):
    """An address of the member; ``is_shared``: another account holds it too."""

    id: int
    spelling: str
    is_main: bool
    is_shared: bool


class Offer(NamedTuple):
    """A list on the member's page.

    ``address_id`` is the address that it sends to, if it is ticked; ``address`` is its spelling unless it is the main
    one. ``settings_url`` is the page for a subscriber's settings at the list manager. ``is_locked``: it is ticked and
    cannot be unticked. ``is_soon``: the last choice is carried out within minutes.
    """

    mailing_list: MailingList
    is_ticked: bool
    state: State
    detail: Detail
    address: str | None
    settings_url: str | None
    is_soon: bool
    address_id: int | None

    @property
    def without_address_id(self) -> "CommonOffer":
        """Return all but the last value: the part that is the same for many members with one address."""
        return self[:-1]

    @property
    def is_locked(self) -> bool:
        """Whether the box cannot be unticked."""
        return self.is_ticked and not self.mailing_list.can_leave


CommonOffer = tuple[MailingList, bool, State, Detail, str | None, str | None, bool]


class Page(NamedTuple):
    """A member's addresses, the lists on offer, and those with an unusual delivery.

    ``has_moved``: an address has replaced another one. ``soon``: the lists that carry changes out within minutes.
    """

    addresses: tuple[HeldAddress, ...]
    offers: tuple[Offer, ...]
    deliveries: tuple[ListDelivery, ...] = ()
    has_moved: bool = False
    soon: frozenset[str] = frozenset()


class Choice(NamedTuple):
    """A list that was chosen for; ``is_changed`` is False if nothing changed.

    ``moved_to`` is the address that the list is to send to instead of the one shown. ``is_stale``: the list no longer
    sent to that one, and is unchanged. ``still_to`` is a shared address that it sends to although it was unticked.
    ``is_locked``: it was unticked, but members cannot leave the list. ``is_soon``: a run carries it out within minutes.
    """

    handle: str
    name: str
    is_ticked: bool
    is_changed: bool
    moved_to: str | None = None
    is_stale: bool = False
    still_to: str | None = None
    is_locked: bool = False
    is_soon: bool = False


@dataclass
class Holder:
    """A user, their addresses with canonical forms, and the preferences of each address by list."""

    user_id: int
    username: str
    is_active: bool
    groups: frozenset[str] = frozenset()
    addresses: dict[int, HeldAddress] = field(default_factory=dict)
    canonicals: dict[int, str] = field(default_factory=dict)
    stored: dict[str, dict[int, Any]] = field(default_factory=dict)
    has_moved: bool = False
    is_new_to: frozenset[str] = frozenset()  # lists that the next run subscribes them to as a new member

    @property
    def main(self) -> int:
        """The id of the main address. Raise BadInputError if there is none."""
        for address_id, address in self.addresses.items():
            if address.is_main:
                return address_id
        raise BadInputError("%(username)s has no address that can be subscribed", username=self.username)

    def sends_to(self, handle: str) -> int | None:
        """Return the id of the address that a list sends to, or will, the main one first; None if there is none."""
        if handle in self.is_new_to:
            return self.main
        return next((each for each, row in self.of_list(handle) if row.subscribed), None)

    def of_list(self, handle: str) -> list[tuple[int, Any]]:
        """Return the stored preferences for a list by address, the main one first."""
        rows = self.stored.get(handle)
        if rows is None:
            return []
        if len(rows) == 1:
            return list(rows.items())
        return [(each, rows[each]) for each in self.addresses if each in rows]

    def is_offered(self, mailing_list: MailingList) -> bool:
        """Return True if the member's page shows a list; unlisted ones are shown to those who are on them."""
        if not mailing_list.is_offered_to(self.groups):
            return False
        return mailing_list.is_listed or any(row.subscribed or row.seen for _, row in self.of_list(mailing_list.handle))

    def may_be_new_to(self, catalogue: Catalogue) -> list[MailingList]:
        """Return the lists that subscribe new members and have no preference of this one."""
        if not self.is_active or not any(each.is_main for each in self.addresses.values()):
            return []
        return [
            each
            for handle, each in catalogue.lists.items()
            if each.subscribes_new_members and handle not in self.stored and self.is_offered(each)
        ]

    def preference(self, handle: str, address_id: int) -> bool | None:
        """Return the stored preference of an address for a list; None if there is none."""
        row = self.stored.get(handle, {}).get(address_id)
        return None if row is None else row.subscribed


def logged_in(session: Session, token: str, *, now: datetime) -> tuple[Member, Holder] | None:
    """Return the member whose token this is, as ``sessions.member`` does, and what their page needs. One statement."""
    rows = _OF_TOKEN.rows(session, token_hash=sessions.hashed(token))
    member = sessions.member_of(session, rows, token, now=now)
    return (member, _only(rows)) if member else None


def page(
    session: Session,
    user_id: int,
    *,
    catalogue: Catalogue,
    now: datetime,
    with_unlisted: bool = False,
    holder: Holder | None = None,
) -> Page:
    """Return the member's page: the lists that they may see, and the state of each, by one query.

    ``with_unlisted`` includes lists that only superusers put people on.
    """
    holder = holder or _only(_PAGE.rows(session, user_id=user_id))
    if holder.may_be_new_to(catalogue):
        with reading(session):
            _note_new(session, holder, catalogue)
    promise = timedelta(hours=catalogue.applied_within_hours)
    lists = [
        each
        for each in catalogue.lists.values()
        if holder.is_offered(each) or (with_unlisted and each.is_offered_to(holder.groups))
    ]
    soon = promptness.find(session, lists, now=now)
    offers = (_offer(holder, each, now=now, promise=promise, is_prompt=each.handle in soon) for each in lists)
    deliveries = tuple(_deliveries(holder))
    return Page(tuple(holder.addresses.values()), tuple(offers), deliveries, holder.has_moved, soon)


def _deliveries(holder: Holder) -> Iterator[ListDelivery]:
    for handle, rows in holder.stored.items():
        for address_id, row in rows.items():
            if row.read_at is not None and row.seen:
                spelling = holder.addresses[address_id].spelling
                yield ListDelivery(handle, spelling, bool(row.is_digest), row.mail_off, row.since)


def load_named(session: Session, names: Iterable[str], handles: Collection[str]) -> list[Holder]:
    """Return the users with any of the given usernames or addresses, by two queries.

    Names are keys as ``name_key`` makes them, addresses are canonical.
    """
    with database.dedicated(session) as own:
        with scratch(own):
            database.load_roster(own.connection(), (each for each in names if len(each) <= 254 and each.isprintable()))
        named = union(
            select(User.id).join(ROSTER, ROSTER.c.canonical == User.username_key),
            select(UserAddress.user_id)
            .join(Address, Address.id == UserAddress.address_id)
            .join(ROSTER, ROSTER.c.canonical == Address.canonical),
        )
        with reading(own):
            return _holders(own.execute(_query(User.id.in_(named), handles)))


def _note_new(session: Session, holder: Holder, catalogue: Catalogue) -> None:
    """Note which lists will subscribe a new member; nothing is read if there can be none."""
    holder.is_new_to = new_members.lists_for(session, holder.user_id, holder.may_be_new_to(catalogue))


def _load(session: Session, query: Any, **values: object) -> Holder:
    return _only(session.execute(query, values))


def _only(rows: Iterable[Any]) -> Holder:
    found = _holders(rows)
    if not found:
        raise UnknownUserError("there is no such user")
    return found[0]


def _holders(rows: Iterable[Any]) -> list[Holder]:
    holders: dict[int, Holder] = {}
    stored: list[Any] = []
    for row in rows:
        if row.list_handle is not None:
            stored.append(row)
            continue
        holder = holders.get(row.user_id)
        if holder is None:
            groups = frozenset((row.groups or "").split("\n")) - {""}
            holder = holders[row.user_id] = Holder(row.user_id, row.username, row.is_active, groups)
        if row.address_id is not None:
            held = HeldAddress(row.address_id, row.spelling, row.is_main, bool(row.is_shared))
            holder.addresses[row.address_id] = held
            holder.canonicals[row.address_id] = row.canonical
            holder.has_moved |= bool(row.has_moved_in)
    for row in stored:
        holders[row.user_id].stored.setdefault(row.list_handle, {})[row.address_id] = row
    for holder in holders.values():
        if len(holder.addresses) > 1:
            holder.addresses = dict(sorted(holder.addresses.items(), key=lambda each: (not each[1].is_main, each[0])))
    return list(holders.values())


# What is stored of an address for a list, and how the list delivers.
_STORED = (
    Preference.list_handle,
    Preference.subscribed,
    Preference.source,
    Preference.changed_at,
    Preference.changed_by,
    Preference.seen,
    Preference.waiting_since,
    Preference.push_result,
    Preference.refusal,
    Preference.refused_at,
    # Moves, choices and returns change the version that rule 1 wrote.
    and_(Preference.source == "rule", Preference.version == 0).label("is_new_member"),
    MemberDelivery.read_at,
    MemberDelivery.is_digest,
    MemberDelivery.mail_off,
    MemberDelivery.since,
)
_IS_OF_PREFERENCE = and_(
    MemberDelivery.list_handle == Preference.list_handle, MemberDelivery.address_id == Preference.address_id
)


_OF_USER = User.id == bindparam("user_id")


@lru_cache(maxsize=8)  # building the statement takes ten times as long as running it
def _of_user(handles: tuple[str, ...]) -> Any:
    return _query(_OF_USER, handles)


@lru_cache(maxsize=64)
def _of_name(handle: str) -> Any:
    return _query(User.username_key == bindparam("name"), (handle,))


def _query(user: ColumnElement[bool], handles: Iterable[str] | None = None, *, more: Iterable[Any] = ()) -> Any:
    """Return the query for everything about a user that a page or a tick needs: a row for each address and list."""
    held = _held(user, more)
    is_stored = [Preference.address_id == held.c.address_id]
    if handles is not None:
        is_stored.append(Preference.list_handle.in_(sorted(handles)))
    own = {held.c.user_id, held.c.address_id}
    return union_all(
        select(*held.c, *(_no(each) for each in _STORED)),
        select(*(each if each in own else _no(each) for each in held.c), *_STORED)
        .select_from(held)
        .join(Preference, and_(*is_stored))
        .outerjoin(MemberDelivery, _IS_OF_PREFERENCE),
    )


def _no(column: Any) -> ColumnElement[Any]:
    return type_coerce(null(), column.type).label(column.name)


def _held(user: ColumnElement[bool], more: Iterable[Any]) -> CTE:
    """Return users and their addresses, materialized so that its subqueries do not run again for each preference."""
    other, holder = aliased(UserAddress), aliased(User)
    is_other = (other.address_id == Address.id, other.user_id != User.id, holder.id == other.user_id, holder.is_active)
    groups = select(func.aggregate_strings(UserGroup.name, "\n")).where(UserGroup.user_id == User.id)
    return (
        select(
            User.id.label("user_id"),
            User.username,
            User.is_active,
            groups.correlate(User).scalar_subquery().label("groups"),
            Address.id.label("address_id"),
            Address.canonical,
            Address.spelling,
            UserAddress.is_main,
            exists().where(*is_other).correlate(Address, User).label("is_shared"),
            UserAddress.moved_from.is_not(None).label("has_moved_in"),
            *more,
        )
        .select_from(User)
        .outerjoin(UserAddress, UserAddress.user_id == User.id)
        .outerjoin(Address, Address.id == UserAddress.address_id)
        .where(user)
        .cte("held")
        .prefix_with("MATERIALIZED")
    )


_PAGE = database.CompiledQuery(_query(_OF_USER))
_OF_TOKEN = database.CompiledQuery(_query(sessions.IS_OF_TOKEN, more=sessions.LOG_IN))


def _offer(holder: Holder, mailing_list: MailingList, *, now: datetime, promise: timedelta, is_prompt: bool) -> Offer:
    handle = mailing_list.handle
    rows = holder.of_list(handle)
    subscribed = [each for each in rows if each[1].subscribed]
    address_id, row = next(iter(subscribed or rows), (None, None))  # the main address comes first
    by_other = row is not None and row.source == "user" and row.changed_by != holder.user_id
    is_new = handle in holder.is_new_to
    state, detail = outlook(row and _known(row), now=now, promise=promise, by_other=by_other, is_new_member=is_new)
    sends_to = address_id if subscribed and not is_new else holder.sends_to(handle)
    elsewhere = subscribed and not holder.addresses[subscribed[0][0]].is_main
    return Offer(
        mailing_list,
        is_ticked=sends_to is not None,
        state=state,
        detail=detail,
        address=holder.addresses[subscribed[0][0]].spelling if elsewhere else None,
        settings_url=_settings_url(holder, mailing_list, rows),
        is_soon=is_prompt and (row is None or now - row.changed_at <= SOON),
        address_id=sends_to,
    )


def _known(row: Any) -> KnownPreference:
    return KnownPreference(
        row.subscribed,
        row.source,
        row.changed_at,
        row.seen,
        row.waiting_since,
        row.push_result,
        row.refusal,
        row.refused_at,
        bool(row.is_new_member),
    )


def _settings_url(holder: Holder, mailing_list: MailingList, rows: Iterable[tuple[int, Any]]) -> str | None:
    if mailing_list.settings_url is None:
        return None
    on_it = next((address_id for address_id, row in rows if row.seen), None)
    return None if on_it is None else mailing_list.settings_of(holder.addresses[on_it].spelling)


def choose(
    session: Session,
    user_id: int,
    *,
    shown: Mapping[str, int],
    ticked: Collection[str],
    addresses: Mapping[str, int] | None = None,
    catalogue: Catalogue,
    now: datetime,
) -> tuple[Choice, ...]:
    """Save a member's form: each difference between what it showed and what is posted is a choice; all else stays.

    ``shown`` maps each list to the id of the address that it sent to, 0 for an empty box; ``addresses`` to the one that
    it is to send to, by default the main one. Lists that are not offered to the member are skipped, as is unticking a
    list that members cannot leave. Raise DisabledError, or BadInputError for an address that is not the member's own,
    or is a mailing list's.
    """
    catalogue.require_enabled()
    changes = _changes(shown, ticked, addresses or {})
    if not changes:
        return ()
    with transaction(session):
        _lock(session, User.id == user_id)
        holder = _load(session, _of_user(tuple(catalogue.lists)), user_id=user_id)
        _note_new(session, holder, catalogue)
        if not holder.addresses.keys() >= {each.address_id for each in changes.values()} - {None}:
            raise BadInputError("that is not one of your addresses")
        named = (catalogue.lists.get(handle) for handle in changes)
        lists = [each for each in named if each is not None and holder.is_offered(each)]
        wanted = {
            each.handle: wanted_by(holder, each, ticked=posted.is_ticked, address_id=posted.address_id)
            for each in lists
            if (posted := changes[each.handle]).can_be_done(each, holder)
        }
        written = _write(session, holder, wanted, source="user", actor=Actor(user_id, holder.username), now=now)
        changed = [each for each in lists if each.handle in written]
        runs.request_at_once(session, changed, now=now)
    soon = promptness.find(session, changed, now=now)
    return tuple(changes[each.handle].choice(each, holder, wanted, written, soon) for each in lists)


def _lock(session: Session, user: ColumnElement[bool]) -> None:
    """Lock an account, its addresses and its groups until the choice is written.

    Choices of an account are serialised, because the effect of a tick depends on its other addresses.
    """
    session.execute(select(User.id).where(user).with_for_update(key_share=True))


class _Posted(NamedTuple):
    """The posted state of one list: its box, what it sent to when shown (0 for nothing), and what it is to send to."""

    is_ticked: bool
    sent_to: int
    address_id: int | None

    @property
    def is_move(self) -> bool:
        return self.is_ticked and bool(self.sent_to) and self.address_id not in {None, self.sent_to}

    @property
    def is_change(self) -> bool:
        return self.is_ticked != bool(self.sent_to) or self.is_move

    def is_stale(self, sends_to: int | None) -> bool:
        """Return True if a list is to be moved from an address that it no longer sends to."""
        return self.is_move and sends_to not in {self.sent_to, self.address_id}

    def can_be_done(self, mailing_list: MailingList, holder: Holder) -> bool:
        """Return True if the list is still as the form had shown it, and lets members do this."""
        return not (self.is_refused_by(mailing_list) or self.is_stale(holder.sends_to(mailing_list.handle)))

    def is_refused_by(self, mailing_list: MailingList) -> bool:
        """Return True if a list does not let members do this."""
        return not (self.is_ticked or mailing_list.can_leave)

    def choice(
        self,
        mailing_list: MailingList,
        holder: Holder,
        wanted_by_list: Mapping[str, Mapping[int, bool]],
        written: Collection[str],
        soon: Collection[str],
    ) -> Choice:
        """Return the outcome; nothing is wanted if nothing could be written."""
        handle, is_locked = mailing_list.handle, self.is_refused_by(mailing_list)
        wanted = wanted_by_list.get(handle)
        stays = self.is_ticked or is_locked
        return Choice(
            handle,
            mailing_list.name,
            self.is_ticked,
            is_changed=handle in written,
            moved_to=holder.addresses[self.address_id].spelling if self.address_id and self.is_move else None,
            is_stale=wanted is None and not is_locked,
            still_to=None if stays else self._still_to(handle, holder, wanted or {}),
            is_locked=is_locked,
            is_soon=handle in soon,
        )

    def _still_to(self, handle: str, holder: Holder, wanted: Mapping[int, bool]) -> str | None:
        left = (each for each in holder.addresses.values() if wanted.get(each.id, holder.preference(handle, each.id)))
        return next((each.spelling for each in left), None)


def _changes(shown: Mapping[str, int], ticked: Collection[str], addresses: Mapping[str, int]) -> dict[str, _Posted]:
    """Return the posted state of those lists that differ from what the form had shown."""
    posted = {
        handle: _Posted(handle in ticked, sent_to, addresses.get(handle) if handle in ticked else None)
        for handle, sent_to in shown.items()
    }
    return {handle: each for handle, each in posted.items() if each.is_change}


def choose_for(
    session: Session,
    mailing_list: MailingList,
    *,
    username: str,
    is_subscribed: bool,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> Choice:
    """Tick or untick a list on behalf of a user.

    Raise UnknownUserError, NotOfferedError for a user who is inactive or may not see the list, or BadInputError for a
    reason that is not one line of text.
    """
    if not username.isprintable():  # no database stores a NUL or half a surrogate pair, so none is asked for one
        raise UnknownUserError("unknown user: %(username)s", username=printable(username))
    if not reason.isprintable():
        raise BadInputError("the reason must be one line of text")
    with transaction(session):
        _lock(session, User.username_key == usernames.key(username))
        try:
            holder = _load(session, _of_name(mailing_list.handle), name=usernames.key(username))
        except UnknownUserError:
            raise UnknownUserError("unknown user: %(username)s", username=username) from None
        if not holder.is_active:
            raise NotOfferedError("%(username)s is inactive; activate the account first", username=holder.username)
        if not mailing_list.is_offered_to(holder.groups):
            groups = ", ".join(sorted(mailing_list.audience or ()))
            raise NotOfferedError(
                "%(handle)s is only for the groups %(groups)s, and %(username)s is in none of them",
                handle=mailing_list.handle,
                groups=groups,
                username=holder.username,
            )
        wanted = {mailing_list.handle: wanted_by(holder, mailing_list, ticked=is_subscribed, address_id=None)}
        written = _write(session, holder, wanted, source="superuser", actor=actor, now=now, reason=reason)
        runs.request_at_once(session, [mailing_list] if written else (), now=now)
    return Choice(mailing_list.handle, mailing_list.name, is_subscribed, is_changed=bool(written))


def send_to_main(
    session: Session, user_id: int, *, catalogue: Catalogue, actor: Actor, now: datetime, as_of: int | None = None
) -> int:
    """Make every list that sends to another address of a user send to the main one; return how many.

    ``as_of`` is the last change of the account that the actor has seen. Raise UnknownUserError, ChangedMeanwhileError,
    DisabledError, NotOfferedError for a user who is inactive, or BadInputError if there is no main address.
    """
    catalogue.require_enabled()
    with transaction(session):
        _lock(session, User.id == user_id)
        account_log.require_unchanged(session, user_id, since=as_of)
        holder = _load(session, _of_user(tuple(catalogue.lists)), user_id=user_id)
        if not holder.is_active:
            raise NotOfferedError("%(username)s is inactive; activate the account first", username=holder.username)
        wanted = {
            each.handle: wanted_by(holder, each, ticked=True, address_id=None)
            for each in catalogue.lists.values()
            if each.is_offered_to(holder.groups) and holder.sends_to(each.handle) not in {None, holder.main}
        }
        written = _write(session, holder, wanted, source="superuser", actor=actor, now=now)
        runs.request_at_once(session, (catalogue.lists[handle] for handle in written), now=now)
    return len(written)


def take_off_all(
    session: Session,
    user_id: int,
    *,
    catalogue: Catalogue,
    actor: Actor,
    now: datetime,
    as_of: int,
    reason: str,
) -> int:
    """Untick, on behalf of a user, each list that they are on, will be on, or never chose; return how many changed.

    ``as_of`` is the last change of the account that the actor has seen. Raise UnknownUserError, ChangedMeanwhileError
    or DisabledError.
    """
    catalogue.require_enabled()
    with transaction(session):
        _lock(session, User.id == user_id)
        account_log.require_unchanged(session, user_id, since=as_of)
        holder = _load(session, _of_user(tuple(catalogue.lists)), user_id=user_id)
        wanted = {
            each.handle: wanted_by(holder, each, ticked=False, address_id=None)
            for each in catalogue.lists.values()
            if _can_be_taken_off(holder, each)
        }
        written = _write(session, holder, wanted, source="superuser", actor=actor, now=now, reason=reason)
        runs.request_at_once(session, (catalogue.lists[handle] for handle in written), now=now)
    return len(written)


def _can_be_taken_off(holder: Holder, mailing_list: MailingList) -> bool:
    if holder.sends_to(mailing_list.handle) is not None:
        return True
    is_unchosen = all(holder.preference(mailing_list.handle, each) is None for each in holder.addresses)
    return is_unchosen and mailing_list.is_offered_to(holder.groups)


def wanted_by(holder: Holder, mailing_list: MailingList, *, ticked: bool, address_id: int | None) -> dict[int, bool]:
    """Return the preferences that a tick or an untick wants for each address of a user.

    Raise BadInputError for a tick for the address of a mailing list. Source: docs/semantics.md, "Several addresses".
    """
    held = [
        TickableAddress(each.id, each.is_shared, holder.preference(mailing_list.handle, each.id))
        for each in holder.addresses.values()
    ]
    if not ticked:
        return untick(held)
    chosen = holder.main if address_id is None else address_id
    if holder.canonicals.get(chosen) in mailing_list.never_added:
        raise BadInputError(
            "%(spelling)s is the address of a mailing list, so it cannot be added to %(name)s; choose another address",
            spelling=holder.addresses[chosen].spelling,
            name=mailing_list.name,
        )
    return tick(held, chosen)


def _write(
    session: Session,
    holder: Holder,
    wanted: Mapping[str, Mapping[int, bool]],
    *,
    source: str,
    actor: Actor,
    now: datetime,
    reason: str = "",
) -> set[str]:
    """Write the preferences that change, with their history; return the lists that changed.

    An untick that comes with a tick elsewhere is not a choice.
    """
    changes = [
        Change(
            handle,
            address_id,
            holder.canonicals[address_id],
            subscribed,
            source if subscribed or not any(by_address.values()) else "rule",
        )
        for handle, by_address in wanted.items()
        for address_id, subscribed in by_address.items()
        if holder.preference(handle, address_id) is not subscribed
    ]
    made = preference_rows.write_choices(session, changes, actor=actor, now=now, reason=reason)
    return {each.list_handle for each in made}
