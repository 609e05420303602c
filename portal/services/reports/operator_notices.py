"""Notices for operators: a run or an import failed or needs approval, or a list is overdue.

A mail is requested when a problem begins, once a day while it lasts, and when it is over.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.config import Catalogue
from portal.domain.address import canonical
from portal.domain.run import RunState
from portal.models import KnownTrouble, MemberImport
from portal.services import outbox
from portal.services.outbox import Mail
from portal.services.reports import lists as list_reports
from portal.services.reports.lists import Alarm
from portal.services.transaction import reading, transaction
from portal.translation import marked

_EVERY = timedelta(days=1)
_IMPORTS = ""  # in the place of a handle if a problem concerns imports
_IMPORTS_PAGE = "/admin/users/imports"
_PLAN_KEPT = timedelta(hours=25)  # the plan of an import can be applied for a day, and by then cron has another one
_IMPORT_WORDS = {
    "failed": marked("the last import of members failed"),
    "held": marked("an import of members needs approval"),
}
_NEW, _STILL, _OVER = "%(what)s", marked("still: %(what)s"), marked("over: %(what)s")
_KINDS = {RunState.HELD: "held", RunState.FAILED: "failed", RunState.UNFINISHED: "failed"}
_WORDS = {
    "failed": marked("the last run of %(name)s failed"),
    "held": marked("a run of %(name)s needs approval"),
    "overdue": marked("%(name)s has had no good run within the time that members are promised"),
}


class _Problem(NamedTuple):
    """One problem of a list, or of imports: its key, its words about a name, and the page that shows it."""

    handle: str
    kind: str
    words: str
    name: str
    page: str


def ask_for(session: Session, *, operators: Sequence[str], catalogue: Catalogue, now: datetime) -> int:
    """Request a mail to each operator about problems that are new, persist for a day, or are over; return how many.

    Each is mailed only once, even if several processes find it at the same time.
    """
    if not operators or not catalogue.enabled:
        return 0
    current = {(each.handle, each.kind): each for each in _troubles(session, catalogue, now)}
    with reading(session):
        known = {(row.list_handle, row.kind): row.mailed_at for row in session.scalars(select(KnownTrouble))}
    if current.keys() == known.keys() and all(now - at < _EVERY for at in known.values()):
        return 0
    with transaction(session):
        news = [
            *_begun(session, [each for key, each in current.items() if key not in known], now),
            *_going_on(session, current, known, now),
            *_over(session, known.keys() - current.keys(), catalogue),
        ]
        # Not in bulk: where cron has stopped, the web's thread sends it, and that sends nothing in bulk.
        wanted = [Mail(canonical(to), "operators", details=each) for each in news for to in operators]
        outbox.enqueue(session, wanted, now=now)
    return len(wanted)


def _troubles(session: Session, catalogue: Catalogue, now: datetime) -> Iterator[_Problem]:
    yield from _trouble_of_imports(session, now)
    for alarm in list_reports.conditions(session, catalogue=catalogue, now=now) if catalogue.lists else ():
        if alarm.last_run_id is None:
            continue  # a new list that nobody has synced yet
        kind = _KINDS.get(RunState(alarm.last_state or RunState.DONE))
        if kind is not None:
            yield _trouble(alarm, kind)
        if alarm.is_late:
            yield _trouble(alarm, "overdue")


def _trouble(alarm: Alarm, kind: str) -> _Problem:
    page = f"/admin/lists/{alarm.handle}" if kind == "overdue" else f"/admin/runs/{alarm.last_run_id}"
    return _Problem(alarm.handle, kind, _WORDS[kind], alarm.name, page)


def _trouble_of_imports(session: Session, now: datetime) -> Iterator[_Problem]:
    ended = MemberImport.state.in_([*_IMPORT_WORDS, "done"])
    query = select(MemberImport.id, MemberImport.state, MemberImport.started_at).where(ended)
    with reading(session):
        last = session.execute(query.order_by(MemberImport.id.desc()).limit(1)).one_or_none()
    if last is not None and last.state in _IMPORT_WORDS and last.started_at > now - _PLAN_KEPT:
        yield _Problem(_IMPORTS, last.state, _IMPORT_WORDS[last.state], "", f"{_IMPORTS_PAGE}/{last.id}")


def _begun(session: Session, new: Sequence[_Problem], now: datetime) -> Iterator[dict[str, str]]:
    for each in new:
        row = {"list_handle": each.handle, "kind": each.kind, "began_at": now, "mailed_at": now}
        insert = database.insert(session, KnownTrouble).values(row).on_conflict_do_nothing()
        if session.execute(insert.returning(KnownTrouble.kind)).scalar() is not None:
            yield _details(each, _NEW)


def _going_on(
    session: Session,
    current: Mapping[tuple[str, str], _Problem],
    known: Mapping[tuple[str, str], datetime],
    now: datetime,
) -> Iterator[dict[str, str]]:
    for key in current.keys() & known.keys():
        if now - known[key] >= _EVERY:
            own = (KnownTrouble.list_handle == key[0], KnownTrouble.kind == key[1])
            again = update(KnownTrouble).where(*own, KnownTrouble.mailed_at == known[key]).values(mailed_at=now)
            if session.execute(again.returning(KnownTrouble.kind)).scalar() is not None:
                yield _details(current[key], _STILL)


def _over(session: Session, keys: set[tuple[str, str]], catalogue: Catalogue) -> Iterator[dict[str, str]]:
    for handle, kind in sorted(keys):
        gone = delete(KnownTrouble).where(KnownTrouble.list_handle == handle, KnownTrouble.kind == kind)
        if session.execute(gone.returning(KnownTrouble.kind)).scalar() is None:
            continue
        if handle == _IMPORTS:
            yield _details(_Problem(handle, kind, _IMPORT_WORDS[kind], "", _IMPORTS_PAGE), _OVER)
        elif handle in catalogue.lists:
            name, page = catalogue.lists[handle].name, f"/admin/lists/{handle}"
            yield _details(_Problem(handle, kind, _WORDS[kind], name, page), _OVER)


def _details(problem: _Problem, when: str) -> dict[str, str]:
    return {"what": problem.words, "name": problem.name, "when": when, "page": problem.page}
