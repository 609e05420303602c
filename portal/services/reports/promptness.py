"""Which lists carry changes out within minutes, judged by their runs of the last week; read-only."""

from collections.abc import Collection
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any

from sqlalchemy import Select, bindparam, select, union_all
from sqlalchemy.orm import Session

from portal import database
from portal.domain.mailinglist import MailingList
from portal.domain.promptness import SOON, Wait, prompt_lists
from portal.domain.run import RunKind, RunState
from portal.models import Run
from portal.services.transaction import reading

_JUDGED_BY = timedelta(days=7)
_RUNS = 20  # the last ones of a list
_LISTS = 100  # in one query
_CARRIED_OUT = {RunState.DONE, RunState.HELD}  # a held run has carried out members' own choices


def find(session: Session, lists: Collection[MailingList], *, now: datetime) -> frozenset[str]:
    """Return the handles of the lists that apply changes immediately and whose last runs did so within minutes."""
    handles = [each.handle for each in lists if each.is_applied_at_once and not each.is_paused]
    if not handles:
        return frozenset()
    waits: dict[str, list[Wait]] = {}
    with reading(session):
        for chunk in database.chunked(handles, _LISTS):
            for row in session.execute(_last_runs(tuple(chunk)), {"since": now - _JUDGED_BY}):
                if row.finished_at is not None or now - row.asked_at > SOON:
                    waits.setdefault(row.list_handle, []).append(_wait(row))
    return prompt_lists(handles, waits)


def _wait(row: Any) -> Wait:
    return row.finished_at - row.asked_at if row.state in _CARRIED_OUT else None


@lru_cache(maxsize=8)
def _last_runs(handles: tuple[str, ...]) -> Select[Any]:
    """Return the query for the last runs of lists that waited for a process, one term for each list."""
    columns = (Run.list_handle, Run.state, Run.asked_at, Run.finished_at)
    terms = (
        select(*columns)
        .where(Run.list_handle == handle, Run.started_at > bindparam("since"))
        .where(Run.kind == RunKind.SYNC, Run.asked_at.is_not(None))
        .order_by(Run.started_at.desc())
        .limit(_RUNS)
        .subquery()
        for handle in handles
    )
    return select(union_all(*(select(each) for each in terms)).subquery())
