"""Runs that never ended: they are marked as unfinished, and what a planned run took over is restored.

Source: docs/semantics.md, "list-init".
"""

from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal import database
from portal.models import Preference, RunLine
from portal.services import history, preference_rows
from portal.services.sync import runs
from portal.services.sync.runs import StartedRun
from portal.services.transaction import reading, transaction


def abandon_open(session: Session, handle: str, *, now: datetime) -> list[int]:
    """Mark the open runs of a list as unfinished; return their ids. The caller holds the lease."""
    with reading(session):
        planned = runs.open_planned(session, handle)
    if planned is not None:
        take_back(session, planned, now=now)
    return runs.abandon_open(session, handle)


def take_back(session: Session, run: StartedRun, *, now: datetime) -> None:
    """Restore each preference that a run took over from the list, unless it has been written since.

    First preferences stay. The function is idempotent.
    """
    taken_over = select(RunLine.address_id).where(RunLine.run_id == run.run_id, RunLine.replaced.is_not(None))
    with reading(session):
        address_ids = session.scalars(taken_over.order_by(RunLine.address_id)).all()
    for chunk in database.written_in_chunks(session, address_ids):
        with transaction(session):
            _restore(session, run, chunk, now=now)


def _restore(session: Session, run: StartedRun, address_ids: Sequence[int], *, now: datetime) -> None:
    own = session.execute(
        select(RunLine.address_id, RunLine.address, RunLine.replaced, Preference.version)
        .join(Preference, Preference.address_id == RunLine.address_id)
        .where(
            RunLine.run_id == run.run_id,
            RunLine.address_id.in_(address_ids),
            Preference.list_handle == run.handle,
            Preference.version == RunLine.version + 1,  # as this run wrote it
        )
        .order_by(RunLine.address_id)  # all who lock several rows take them in one order
        .with_for_update(of=Preference)
    )
    changes = []
    for address_id, address, replaced, version in own.all():
        restored = preference_rows.restore(session, run.handle, address_id, replaced or "", version=version + 1)
        changes.append(history.Change(run.handle, address_id, address, *restored))
    history.record(session, changes, actor=history.SYNC, now=now, reason=f"planned run {run.run_id} was abandoned")
