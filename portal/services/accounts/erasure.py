"""Erasure: unsubscribe addresses that no account holds, and remove them from every table.

All functions work inside a transaction that the caller has begun.
"""

import re
from collections.abc import Collection, Sequence
from datetime import datetime

from sqlalchemy import and_, delete, exists, not_, or_, select, true, update
from sqlalchemy.orm import Session

from portal.models import (
    AccountChange,
    Address,
    History,
    MailedLink,
    MailRequest,
    MemberImportLine,
    Preference,
    Run,
    RunLine,
    UserAddress,
)
from portal.services import history, outbox, preference_rows
from portal.services.accounts import deleted_keys
from portal.services.accounts.moves import Lists
from portal.services.history import Actor

_IS_HELD = exists().where(UserAddress.address_id == Address.id).correlate(Address)


def erase_unheld(session: Session, address_ids: Collection[int], *, actor: Actor, now: datetime, lists: Lists) -> None:
    """Unsubscribe those of the addresses that no account holds, and mark them to be erased."""
    unheld = and_(Address.id.in_(address_ids), not_(_IS_HELD))
    marked = session.scalars(update(Address).where(unheld).values(erase=True).returning(Address.id)).all()
    if lists is not None:  # no run reads the roster of a list that is not in the catalogue
        preference_rows.purge_gone_lists(session, marked, handles=lists)
    wanted = session.execute(
        select(Preference.list_handle, Address.id, Address.canonical)
        .join(Address, Address.id == Preference.address_id)
        .where(Address.id.in_(marked), Preference.subscribed)
    )
    changes = [history.Change(handle, number, name, False, "rule") for handle, number, name in wanted]
    preference_rows.write_choices(session, changes, actor=actor, now=now)
    preference_rows.clear_departures(session, marked, where=true())


def forget_unused(session: Session, address_ids: Sequence[int]) -> None:
    """Delete those of the addresses that no account holds or moved from and that no preference refers to.

    A locked address is skipped: it is about to be held again. An address to be erased is deleted even if an account
    moved from it; should that account return, it is new to the address.
    """
    may_go_back = exists().where(UserAddress.moved_from == Address.id).correlate(Address)
    unused = and_(
        not_(_IS_HELD),
        not_(exists().where(Preference.address_id == Address.id).correlate(Address)),
        or_(Address.erase, not_(may_go_back)),
    )
    found = select(Address.id).where(Address.id.in_(address_ids), unused).with_for_update(skip_locked=True)
    gone = session.execute(
        delete(Address)
        .where(Address.id.in_(session.scalars(found).all()), unused)
        .returning(Address.id, Address.canonical, Address.spelling, Address.erase)
    ).all()
    for each in gone:
        if each.erase:
            session.execute(update(UserAddress).where(UserAddress.moved_from == each.id).values(moved_from=None))
            _erase(session, f"erased-{each.id}", each.canonical, each.spelling)


def _erase(session: Session, name: str, canonical: str, spelling: str) -> None:
    """Replace an address by a placeholder in history, runs, mail and imports: the only rewrite of history."""
    history.forget_address(session, canonical, name=name)
    outbox.forget_address(session, canonical)
    deleted_keys.forget_text(session, canonical)
    of_address = RunLine.address == canonical
    session.execute(update(RunLine).where(of_address).values(address=name, spelling=name, words="", replaced=None))
    # Whole addresses only: as the end of a longer address it belongs to somebody else.
    either = "|".join(map(re.escape, (canonical, spelling)))
    quoted = re.compile(rf"(?<!\w)(?<!\w[.+-])(?:{either})(?![\w-]|\.\w)", re.IGNORECASE)
    for column in (
        History.reason,
        Preference.refusal,
        Run.message,
        RunLine.words,
        AccountChange.old,
        AccountChange.new,
        MailRequest.details,
        MailRequest.message,
        MailedLink.details,
        MemberImportLine.key,
        MemberImportLine.username,
        MemberImportLine.why,
        MemberImportLine.details,
    ):
        quoting = or_(*(column.icontains(each, autoescape=True) for each in (canonical, spelling)))
        for text in session.scalars(select(column).where(quoting).distinct()).all():
            erased = quoted.sub(name, text or "")[: column.type.length]
            session.execute(update(column.class_).where(column == text).values({column.key: erased}))
