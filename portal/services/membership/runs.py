"""Stores imports of members and the lines of their plans: the only writer of both tables.

The functions that write work inside a transaction that the caller has begun.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.database import BulkInsert
from portal.domain.membership import (
    TOO_FEW_NAMED,
    TOO_MANY_LEAVERS,
    TOO_MANY_MOVED,
    Account,
    Action,
    Changes,
    Decision,
    Imported,
    Plan,
    Row,
)
from portal.errors import ChangedMeanwhileError, UnknownRunError
from portal.models import MemberImport, MemberImportLine
from portal.services.history import Actor
from portal.services.membership import gathering
from portal.services.membership.rows import Texts
from portal.translation import marked

KEPT = timedelta(days=1)  # how long a plan can be applied
LINES_KEPT = timedelta(days=90)  # of imports that are done
_as_json = json.JSONEncoder(ensure_ascii=False).encode
INTERRUPTED = marked("interrupted; import %(import_id)s did what was left")
SOME_LEFT = marked("%(count)s left unchanged, since they changed after the plan was made")
MESSAGES = (INTERRUPTED, SOME_LEFT, TOO_MANY_LEAVERS, TOO_MANY_MOVED, TOO_FEW_NAMED)  # stored; pages translate them

_BLOCK = 1_000  # lines in one statement
_LINES = BulkInsert(MemberImportLine, replaces=("done", "user_id"))
COUNTS = {
    Action.CREATE: "created",
    Action.LINK: "linked",
    Action.CHANGE: "changed",
    Action.REACTIVATE: "reactivated",
    Action.DEACTIVATE: "deactivated",
    Action.REPORT: "reported",
    Action.PROBLEM: "problems",
}
_SINGLE = {"name": "name", "main": "main", "username_key": "username", "key": "key"}  # of Changes, and in details
_FIELDS = {"name": "name", "main": "address", "username": "username", "key": "key"}
_SEVERAL = ("add_addresses", "remove_addresses", "add_groups", "remove_groups")


class Origin(NamedTuple):
    """The origin of an import: its source, the column of the keys, and who requested it."""

    source: str
    column: str
    actor: Actor


class Change(NamedTuple):
    """The change of a field: the values that are removed and added."""

    field: str
    removed: tuple[str, ...]
    added: tuple[str, ...]


class ImportLine(NamedTuple):
    """A line of a plan for display. ``line`` is the line of the source; ``why`` says what is reported."""

    number: int
    line: int | None
    action: str
    user_id: int | None
    key: str
    username: str
    name: str
    why: str
    changes: tuple[Change, ...]
    done: bool


def counts(plan: Plan) -> dict[str, int]:
    """Return the number of decisions by the column that counts them."""
    return {name: plan.counts.get(action, 0) for action, name in COUNTS.items()}


def begin(session: Session, plan: Plan, origin: Origin, *, state: str, now: datetime, **columns: Any) -> int:
    """Insert an import; return its number."""
    values = {
        "source": origin.source[:200],
        "column": origin.column[:120],
        "asked_by": origin.actor.name[:80],
        "asked_by_id": origin.actor.user_id,
        "started_at": now,
        "state": state,
        "deactivates": plan.deactivates,
        "linked_accounts": plan.linked,
        "named": plan.named,
        **columns,
    }
    number: int = session.execute(insert(MemberImport).values(values).returning(MemberImport.id)).scalar_one()
    return number


def finish(session: Session, import_id: int, *, state: str, now: datetime, **columns: Any) -> None:
    """Store the end of an import. If it is done, earlier interrupted ones end as failed."""
    values = {"state": state, "finished_at": now, **columns}
    session.execute(update(MemberImport).where(MemberImport.id == import_id).values(values))
    if state == "done":
        over = {"state": "failed", "finished_at": now, "message": INTERRUPTED % {"import_id": import_id}}
        session.execute(
            update(MemberImport).where(MemberImport.state == "open", MemberImport.id < import_id).values(over)
        )


def note(
    session: Session,
    import_id: int,
    decisions: Iterable[Decision],
    texts: Texts,
    *,
    done: bool,
    user_ids: Mapping[int, int] | None = None,
    keeps_hashes: bool = False,
) -> None:
    """Write lines of a plan, or mark them as done. ``user_ids`` maps the numbers of lines to accounts."""
    for block in database.chunked(decisions, _BLOCK):
        rows = []
        for each in block:
            values, details = _columns(each, texts)
            row = each.row
            if keeps_hashes and row and row.line in texts.password_hashes:
                details["password_hash"] = texts.password_hashes[row.line]
            values["details"] = _as_json(details)
            values["done"] = done or not each.writes
            if row and row.line in texts.deleted:  # do not store a deleted or erased person again
                values |= {"key": texts.deleted[row.line], "username": "", "name": "", "details": "{}"}
            values["user_id"] = (user_ids or {}).get(each.number, values["user_id"])
            rows.append({**values, "fingerprint": fingerprint(each.account)})
        _LINES.execute(session, rows, import_id=import_id)


def as_line(each: Decision, texts: Texts) -> ImportLine:
    """Return a line of a plan for display."""
    values, details = _columns(each, texts)
    return ImportLine(**values, changes=shown_changes(details), done=False)


def shown_changes(details: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return the changes of an account, one for each field."""
    spelled: Mapping[str, str] = details.get("spelled", {})
    found = [
        Change(_FIELDS[name], *(tuple(filter(None, [spelled.get(each, each)])) for each in details[name]))
        for name in _SINGLE.values()
        if name in details
    ]
    gone = [each for each in details.get("remove_addresses", ()) if each != details.get("main", [None])[0]]
    for field, removed, added in (
        ("further addresses", gone, details.get("add_addresses", ())),
        ("groups", details.get("remove_groups", ()), details.get("add_groups", ())),
    ):
        if removed or added:
            found.append(Change(field, tuple(removed), tuple(spelled.get(each, each) for each in added)))
    return tuple(found)


def _columns(decision: Decision, texts: Texts) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of a line, and its details."""
    row, account = decision.row, decision.account
    why = (row and texts.problems.get(row.line)) or decision.why or ""
    return {
        "number": decision.number,
        "line": row.line if row else None,
        "action": str(decision.action),
        "user_id": account.id if account else None,
        "key": (row.key if row else account and account.key) or "",
        "username": ((row and texts.username(row)) or (account and account.username_key) or "")[:64],
        "name": ((row and row.name) or (account and account.name) or "")[:120],
        "why": why[:400],
    }, _details(decision, texts)


def fingerprint(account: Account | None) -> str:
    """Return a hash of an account's state, to notice changes after the plan."""
    if account is None:
        return ""
    imported = account.imported
    parts = (
        account.id, account.username_key, account.main, sorted(account.further.items()), account.name,
        sorted(account.groups.items()), account.key, account.is_active, account.deactivated_by_import, account.has_role,
        account.was_unlinked, imported.named, imported.address, sorted(imported.further), imported.name,
        sorted(imported.groups),
    )  # fmt: skip
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def _details(decision: Decision, texts: Texts) -> dict[str, Any]:
    """Return the details of a line: old and new values, and what the source has said afterwards."""
    changes, account = decision.changes, decision.account
    found: dict[str, Any] = {}
    if changes.name is not None:
        found["name"] = [account.name if account else "", changes.name]
    if changes.main is not None:
        found["main"] = [account.main if account else None, changes.main]
    if changes.key is not None:
        found["key"] = [account.key if account else None, changes.key]
    if changes.username_key is not None:
        found["username"] = [account.username_key if account else "", changes.username_key]
    for name in _SEVERAL:
        if values := getattr(changes, name):
            found[name] = sorted(values)
    named = [*changes.add_addresses, *filter(None, [changes.main])]
    if spelled := {each: texts.spellings[each] for each in named if texts.spellings.get(each, each) != each}:
        found["spelled"] = spelled
    if new := decision.imported:
        found["imported"] = [new.named, new.address, sorted(new.further), new.name, sorted(new.groups)]
    if row := decision.row:
        found["row"] = [row.username_key, row.main]
    return found


class Stored(NamedTuple):
    """The remaining decisions of a stored plan. ``stale`` holds the numbers of those whose account has changed."""

    decisions: list[Decision]
    stale: frozenset[int]
    texts: Texts


def stored(session: Session, import_id: int) -> Stored:
    """Return the remaining decisions of a stored plan, with the current accounts."""
    rows = session.scalars(
        select(MemberImportLine)
        .where(MemberImportLine.import_id == import_id, MemberImportLine.done.is_(False))
        .order_by(MemberImportLine.number)
    ).all()
    ids = {each.user_id for each in rows if each.user_id is not None}
    accounts = {each.id: each for each in gathering.load_some(session, ids)}
    found = Stored([], frozenset(), Texts())
    stale = set()
    for line in rows:
        account = accounts.get(line.user_id) if line.user_id is not None else None
        found.decisions.append(_decision(line, account, found.texts))
        if fingerprint(account) != line.fingerprint:
            stale.add(line.number)
    return found._replace(stale=frozenset(stale))


def take(session: Session, import_id: int, *, actor: Actor, now: datetime) -> None:
    """Start carrying out a stored plan, once. Raise UnknownRunError or ChangedMeanwhileError."""
    waiting = MemberImport.state.in_(("shown", "held")) & (MemberImport.started_at > now - KEPT)
    taken = session.scalar(
        update(MemberImport)
        .where(MemberImport.id == import_id, waiting)
        .values(state="open", accepted=True, asked_by=actor.name[:80], asked_by_id=actor.user_id)
        .returning(MemberImport.id)
    )
    if taken is None:
        if session.get(MemberImport, import_id) is None:
            raise UnknownRunError("no import has the number %(import_id)s", import_id=import_id)
        raise ChangedMeanwhileError(
            "this plan has already been carried out, or is older than a day; import the file again"
        )


def forget_old(session: Session, *, now: datetime) -> None:
    """Drop plans that were not applied within a day, and the lines of old imports."""
    session.execute(
        update(MemberImport)
        .where(MemberImport.state.in_(("shown", "held")), MemberImport.started_at <= now - KEPT)
        .values(state="dropped")
    )
    dropped = select(MemberImport.id).where(MemberImport.state == "dropped")
    old = select(MemberImport.id).where(MemberImport.started_at <= now - LINES_KEPT)
    lines = MemberImportLine.import_id
    session.execute(delete(MemberImportLine).where(or_(lines.in_(dropped), lines.in_(old))))


def left_over(session: Session) -> frozenset[str]:
    """Return the remaining decisions of interrupted approved imports, as ``Decision.text``."""
    interrupted = select(MemberImport.id).where(MemberImport.state == "open", MemberImport.accepted)
    rows = session.scalars(
        select(MemberImportLine).where(MemberImportLine.import_id.in_(interrupted), MemberImportLine.done.is_(False))
    )
    return frozenset(
        _decision(each, None if each.user_id is None else Account(each.user_id, "", key=each.key or None), Texts()).text
        for each in rows
    )


def reported_last(session: Session) -> frozenset[tuple[str, str, str]]:
    """Return key, username and reason of each line that the last import reported."""
    last = select(MemberImport.id).where(MemberImport.state == "done").order_by(MemberImport.id.desc()).limit(1)
    rows = session.execute(
        select(MemberImportLine.key, MemberImportLine.username, MemberImportLine.why).where(
            MemberImportLine.import_id == last.scalar_subquery(), MemberImportLine.why != ""
        )
    )
    return frozenset((row.key, row.username, row.why) for row in rows)


def _decision(line: MemberImportLine, account: Account | None, texts: Texts) -> Decision:
    details = json.loads(line.details or "{}")  # erasing a person empties the details
    row = None
    if line.line is not None:
        username_key, main = details.get("row", (line.username, None))
        row = Row(line.line, line.key or None, username_key, main)
        if line.username != username_key:
            texts.usernames[line.line] = line.username
        if "password_hash" in details:
            texts.password_hashes[line.line] = details["password_hash"]
    texts.spellings |= details.get("spelled", {})
    values: dict[str, Any] = {name: details[short][1] for name, short in _SINGLE.items() if short in details}
    values |= {name: frozenset(details[name]) for name in _SEVERAL if name in details}
    imported = None
    if "imported" in details:
        named, address, further, name, groups = details["imported"]
        imported = Imported(named, address, frozenset(further), name, frozenset(groups))
    return Decision(Action(line.action), row, account, Changes(**values), imported, number=line.number)
