"""The addresses that the original commands print: who should be on a list, and who should not."""

from collections.abc import Iterator
from typing import Any

from sqlalchemy import and_, not_, or_, select
from sqlalchemy.orm import Session

from portal import database
from portal.domain.address import outgoing
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.models import Address, Preference
from portal.services.accounts.addresses import departs, is_managed
from portal.services.transaction import reading


def export(session: Session, mailing_list: MailingList, action: Action, *, is_planned: bool) -> Iterator[list[str]]:
    """Yield blocks of the addresses to add or remove: all of them, or those of the open planned run."""
    if is_planned:
        return planned(session, mailing_list, action)
    return subscribed(session, mailing_list) if action is Action.ADD else unsubscribed(session, mailing_list)


def subscribed(session: Session, mailing_list: MailingList) -> Iterator[list[str]]:
    """Yield blocks of the managed addresses that are subscribed, in the list manager's form.

    They are sorted by canonical address. Addresses of mailing lists are left out.
    """
    wanted = and_(
        Preference.subscribed, is_managed(mailing_list), Address.canonical.not_in(sorted(mailing_list.never_added))
    )
    return _spellings(session, mailing_list, wanted)


def unsubscribed(session: Session, mailing_list: MailingList) -> Iterator[list[str]]:
    """Yield blocks of the managed addresses that are unsubscribed, and of departed ones that would be removed.

    *Seen* decides which of the latter are on the roster. Source: docs/semantics.md, "list-init".
    """
    return _spellings(
        session, mailing_list, or_(and_(not_(Preference.subscribed), is_managed(mailing_list)), departs(mailing_list))
    )


def planned(session: Session, mailing_list: MailingList, action: Action) -> Iterator[list[str]]:
    """Yield the adds or removals of the open planned run, in the list manager's form.

    Raise NoPlannedRunError.
    """
    from portal.services.sync import runs  # the other exports, which cron calls, do not need runs
    from portal.services.sync.planned_runs import open_planned_run

    run, _lease = open_planned_run(session, mailing_list.handle)
    with reading(session):
        lines = [
            spelling
            for each in runs.pushed_lines(session, run, action=action)
            for spelling in each.spelling.split("\n")
        ]
    yield lines


def _spellings(session: Session, mailing_list: MailingList, condition: Any) -> Iterator[list[str]]:
    query = (
        select(Address.spelling)
        .join(Preference, and_(Preference.list_handle == mailing_list.handle, Preference.address_id == Address.id))
        .where(condition)
        .order_by(Address.canonical.collate(database.code_points(session)))
    )
    with reading(session):
        for block in database.stream(session.connection(), query):
            yield [outgoing(spelling) for (spelling,) in block]
