"""Imports as they are shown: when, from what, by whom, and what they did."""

import json
from collections.abc import Collection, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import Select, or_, select
from sqlalchemy.orm import Session

from portal.errors import UnknownRunError
from portal.models import MemberImport, MemberImportLine
from portal.services import paging
from portal.services.membership import runs
from portal.services.membership.runs import ImportLine
from portal.services.paging import Paged
from portal.services.transaction import reading

_BLOCK = 1_000  # lines read at once


class Import(NamedTuple):
    """An import of members. The counts are those of its plan; ``is_waiting``: its plan can be applied."""

    id: int
    source: str
    column: str
    asked_by: str
    started_at: datetime
    finished_at: datetime | None
    state: str
    deactivates: bool
    accepted: bool
    plan_id: str | None
    message: str
    rows: int
    unchanged: int
    linked_accounts: int
    named: int
    created: int
    linked: int
    changed: int
    reactivated: int
    deactivated: int
    reported: int
    problems: int

    @property
    def is_waiting(self) -> bool:
        """Tell whether the plan can still be applied."""
        return self.state in {"shown", "held"}

    @property
    def writes(self) -> int:
        """Return how many accounts the plan makes or changes."""
        return self.created + self.linked + self.changed + self.reactivated + self.deactivated


def page(session: Session, *, number: int = 1) -> Paged[Import]:
    """Return a page of imports, newest first."""
    return paging.page(session, _imports().order_by(MemberImport.id.desc()), lambda row: Import(*row), number=number)


def get(session: Session, import_id: int) -> Import:
    """Return the import of a number. Raise UnknownRunError."""
    with reading(session):
        row = session.execute(_imports().where(MemberImport.id == import_id)).one_or_none()
    if row is None:
        raise UnknownRunError(f"no import has the number {import_id}")
    return Import(*row)


def _imports() -> Select[Any]:
    return select(*(getattr(MemberImport, name) for name in Import._fields))


def lines(
    session: Session,
    import_id: int,
    *,
    actions: Collection[str] = (),
    text: str = "",
    after: int = 0,
    limit: int = 100,
) -> tuple[ImportLine, ...]:
    """Return lines of an import's plan after the one of a number, in their order.

    ``actions`` are those of ``domain.membership.Action``, none: all; ``text`` stands in key, username or name.
    """
    query = _lines(import_id, actions).where(MemberImportLine.number > after).limit(limit)
    if text:
        columns = (MemberImportLine.key, MemberImportLine.username, MemberImportLine.name)
        query = query.where(or_(*(column.icontains(text, autoescape=True) for column in columns)))
    with reading(session):
        return tuple(map(_line, session.execute(query)))


def all_lines(session: Session, import_id: int, *, actions: Collection[str] = ()) -> Iterator[ImportLine]:
    """Yield the lines of an import's plan, for a download; no transaction is open between two blocks."""
    after = 0
    while block := lines(session, import_id, actions=actions, after=after, limit=_BLOCK):
        yield from block
        after = block[-1].number


def _lines(import_id: int, actions: Collection[str]) -> Select[Any]:
    query = select(*(getattr(MemberImportLine, name) for name in (*ImportLine._fields[:8], "details", "done")))
    query = query.where(MemberImportLine.import_id == import_id).order_by(MemberImportLine.number)
    return query.where(MemberImportLine.action.in_(actions)) if actions else query


def _line(row: Any) -> ImportLine:
    values = {name: getattr(row, name) for name in ImportLine._fields if name != "changes"}
    return ImportLine(**values, changes=runs.shown_changes(json.loads(row.details or "{}")))
