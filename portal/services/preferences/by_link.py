"""Leaving lists by a mailed link, without an account. Boxes can only be unticked."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.models import Address, Preference
from portal.services import preference_rows, security_log
from portal.services.history import Actor, Change
from portal.services.mail import links
from portal.services.sync import runs
from portal.services.transaction import reading, transaction

BY_LINK = Actor(None, "mailed link")
_PURPOSE = frozenset({"leave"})


def lists_of(session: Session, mailbox: str, *, catalogue: Catalogue) -> tuple[MailingList, ...]:
    """Return the lists that a canonical mailbox is on or will be on, regardless of audiences."""
    with reading(session):
        handles = set(session.scalars(select(Preference.list_handle).join(Address).where(_is_on(mailbox))))
    return tuple(each for each in catalogue.lists.values() if each.handle in handles)


def leave(
    session: Session, token: str, *, handles: Collection[str], catalogue: Catalogue, now: datetime
) -> tuple[MailingList, ...]:
    """Use a link to unsubscribe its mailbox from lists; return them. The next run carries it out.

    Only existing preferences can be unticked. Raise LinkRefusedError.
    """
    with transaction(session):
        row = links.find(session, token, now=now, purposes=_PURPOSE)
        links.use_up(session, row, now=now)
        query = select(Preference.list_handle, Address.id).join(Address).where(_is_on(row.mailbox))
        found = session.execute(query.where(Preference.list_handle.in_(handles)).with_for_update(of=Address)).all()
        changes = [Change(handle, address_id, row.mailbox, False, "link") for handle, address_id in found]
        preference_rows.write_choices(session, changes, actor=BY_LINK, now=now)
        for handle, address_id in found:  # also addresses that have joined again at the list
            preference_rows.clear_departures(session, [address_id], where=Preference.list_handle == handle)
        runs.request_at_once(
            session, (catalogue.lists[handle] for handle, _ in found if handle in catalogue.lists), now=now
        )
    security_log.log("left by link", count=len(found))
    left = {handle for handle, _ in found}
    return tuple(each for each in catalogue.lists.values() if each.handle in left)


def _is_on(mailbox: str) -> ColumnElement[bool]:
    return and_(Address.canonical == mailbox, or_(Preference.subscribed, Preference.seen.is_(True)))
