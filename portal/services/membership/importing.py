"""Imports members for `flask user import`, the upload and the API: reads the file, decides, carries out the plan."""

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from portal import database
from portal.config import MembershipSettings, Settings
from portal.domain.membership import Action, Decision, Limits, Plan, Row, Source
from portal.domain.membership_file import Columns, open_members, standard_columns
from portal.domain.membership_planner import plan_if_unchanged, plan_import
from portal.errors import DuplicateError, PlanChangedError, SafetyLimitError
from portal.services import security_log
from portal.services.accounts import deleted_keys
from portal.services.accounts.moves import Lists
from portal.services.garbage import collection_paused
from portal.services.history import Actor
from portal.services.membership import gathering, runs, writing
from portal.services.membership.rows import Checker, Texts
from portal.services.membership.runs import ImportLine, Origin
from portal.services.membership.writing import Chunk, Context
from portal.services.transaction import reading, transaction

_ROUNDS = 3  # plans in one import: if an account changes in the meantime, it is decided again


@dataclass(frozen=True)
class Request:
    """What to import, and how.

    ``source`` says where the content comes from; ``secret`` is the key of the HMAC of deleted accounts' keys.
    ``invites``: each new account gets an invitation by mail. ``special_domains`` as in ``addresses.checked``.
    """

    content: bytes
    columns: Columns
    source: str
    actor: Actor
    clock: Callable[[], datetime]
    lists: Lists
    secret: bytes
    encoding: str | None = None
    deactivates_leavers: bool = False
    invites: bool = False
    limits: Limits = field(default_factory=Limits)
    special_domains: Collection[str] = ()

    @property
    def key_is_address(self) -> bool:
        """Whether the addresses are the keys."""
        return self.columns.key is not None and self.columns.key.casefold() == self.columns.email.casefold()


def make_request(
    settings: Settings, content: bytes, *, source: str, key: str | None = None, leavers: str | None = None, **more: Any
) -> Request:
    """Return a request with the settings of portal.toml; ``key`` and ``leavers`` override them.

    ``more`` are the other fields of ``Request``.
    """
    membership = settings.membership or MembershipSettings()
    columns = membership.file_columns(key=key) if settings.membership else standard_columns(content, key=key)
    return Request(
        content=content,
        columns=columns,
        source=source,
        encoding=membership.encoding,
        deactivates_leavers=leavers == "deactivate",
        invites=membership.invite,
        limits=membership.limits,
        special_domains=settings.allowed_special_domains,
        **more,
    )


class Report(NamedTuple):
    """The effect of an import. ``lines`` are those of its plan, and ``new`` the numbers of those not reported before.

    ``excess`` says in words what exceeds the safety limits. ``import_id`` is None where nothing was written down.
    """

    import_id: int | None
    plan_id: str
    excess: str | None
    counts: dict[str, int]
    lines: tuple[ImportLine, ...]
    new: frozenset[int]
    ignored: tuple[str, ...]
    encoding: str

    def as_json(self) -> dict[str, object]:
        """Return the answer of the command and the API."""
        return {
            "import": self.import_id,
            "plan": self.plan_id,
            "excess": self.excess,
            "counts": self.counts,
            "lines": self.lines,
            "ignored_columns": self.ignored,
            "encoding": self.encoding,
        }


class _Prepared(NamedTuple):
    """A file and its plan. ``rows`` counts its rows; the other fields are as in ``Report``."""

    texts: Texts
    plan: Plan
    rows: int
    ignored: tuple[str, ...]
    encoding: str

    @property
    def counts(self) -> dict[str, int]:
        """Return the counts of the plan by the column names of an import."""
        found = runs.counts(self.plan)
        changed = sum(each.writes for each in self.plan.decided if each.row and each.action is not Action.REMEMBER)
        unchanged = self.rows - len(self.plan.new) - changed - found["problems"]
        return {"rows": self.rows, "unchanged": unchanged, **found}


def preview(session: Session, request: Request) -> Report:
    """Return what an import would do, without writing anything. Raise BadInputError."""
    prepared = _prepare(session, request)
    return _report(prepared, None, prepared.plan.excess(request.limits))


def show(session: Session, request: Request) -> int:
    """Store the plan of an import for a day, to be checked and applied; return its id. Raise BadInputError."""
    prepared = _prepare(session, request)
    return _keep(session, request, prepared, state="shown", message=prepared.plan.excess(request.limits) or "")


def run(session: Session, request: Request, *, accept: str | None = None) -> Report:
    """Decide, and carry out the plan in batches, one transaction each. ``accept`` approves exactly the plan of that id.

    Raise BadInputError; SafetyLimitError, and keep the plan to be approved, where it exceeds the limits; or
    PlanChangedError where the plan is not the one that is approved.
    """
    prepared = _prepare(session, request)
    with reading(session):
        approved, known = runs.left_over(session), runs.reported_last(session)
    excess = prepared.plan.excess(request.limits, approved=approved)
    if accept is not None and accept != prepared.plan.id:
        raise PlanChangedError(
            f"the plan has changed: it is now {prepared.plan.id}, not {accept}; check it with --dry-run",
            plan_id=prepared.plan.id,
        )
    if excess and accept is None:
        _keep(session, request, prepared, state="held", message=excess)
        raise SafetyLimitError(f"this import needs approval, since {excess}", plan_id=prepared.plan.id)
    import_id = _begin(session, request, prepared, accepted=accept is not None)
    _carry_out(session, request, prepared, import_id)
    return _report(prepared, import_id, None, known=known)


class Applied(NamedTuple):
    """The result of a stored plan: how many people it changed, and how many it skipped because they had changed."""

    done: int
    left: int


def apply_stored(
    session: Session, import_id: int, *, actor: Actor, clock: Callable[[], datetime], lists: Lists, invites: bool
) -> Applied:
    """Carry out a stored plan for the accounts that have not changed since.

    Who shares a mailbox or a username with somebody who has changed meanwhile is left alone too. ``invites``: each new
    account gets an invitation by mail. Raise UnknownRunError, or ChangedMeanwhileError where the plan has been carried
    out or dropped.
    """
    with transaction(session):
        runs.take(session, import_id, actor=actor, now=clock())
    with reading(session):
        stored = runs.stored(session, import_id)
    chunks = [
        chunk
        for chunk in Plan(tuple(stored.decisions), 0, 0, deactivates=False).chunks()
        if stored.stale.isdisjoint(each.number for each in chunk)
    ]
    work = _Work(session, import_id, stored.texts, invites=invites)
    fresh = sum(map(len, chunks))
    stale = work.write(chunks, actor=actor, clock=clock, lists=lists)
    done, left = fresh - stale, len(stored.decisions) - fresh + stale
    message = runs.SOME_LEFT % {"count": left} if left else ""
    with transaction(session):
        runs.finish(session, import_id, state="done", now=clock(), message=message)
    return Applied(done, left)


@collection_paused()
def _prepare(session: Session, request: Request) -> _Prepared:
    """Read the file and decide. Raise BadInputError."""
    file = open_members(request.content, request.columns, encoding=request.encoding)
    with reading(session):
        linked = gathering.load_linked(session)
        checker = Checker(
            request.columns,
            linked=linked,
            load_stored=partial(gathering.load_addresses, session),
            special_domains=request.special_domains,
            key_is_address=request.key_is_address,
        )
        rows = checker.rows(file.records)
        deleted = deleted_keys.load(session)
        source = Source(
            request.deactivates_leavers, request.key_is_address, _deleted(rows, deleted, request.secret, checker.texts)
        )
        plan = plan_if_unchanged(rows, linked, source)
        if plan is None:
            del linked, checker.linked  # free the memory before all accounts are loaded
            plan = plan_import(rows, gathering.load_accounts(session), source)
    return _Prepared(checker.texts, plan, len(rows), file.ignored, file.encoding)


def _deleted(rows: Iterable[Row], deleted: Collection[str], secret: bytes, texts: Texts) -> set[str]:
    """Return the keys of rows that belong to deleted accounts, and note their replacements in ``texts``."""
    gone = set()
    for row in rows if deleted else ():
        if row.key and (name := deleted_keys.hashed(row.key, secret)) in deleted:
            gone.add(row.key)
            texts.deleted[row.line] = name[:16]
    return gone


def _origin(request: Request) -> Origin:
    return Origin(request.source, request.columns.key or "", request.actor)


def _begin(session: Session, request: Request, prepared: _Prepared, *, accepted: bool) -> int:
    """Store an import before it is carried out; if approved, with every line, so that it can be resumed."""
    now, plan = request.clock(), prepared.plan
    # Not in the transaction, since it takes a while.
    values = {"plan_id": plan.id, "accepted": accepted, **prepared.counts}
    with transaction(session):
        runs.forget_old(session, now=now)
        import_id = runs.begin(session, plan, _origin(request), state="open", now=now, **values)
    quiet = plan.decisions if accepted else (each for each in plan.decided if not each.writes)
    _note_all(session, import_id, quiet, prepared.texts)
    return import_id


def _keep(session: Session, request: Request, prepared: _Prepared, *, state: str, message: str) -> int:
    """Store a plan that is not carried out now."""
    now, plan = request.clock(), prepared.plan
    values = {"plan_id": plan.id, "message": message[:400], **prepared.counts}
    with transaction(session):
        runs.forget_old(session, now=now)
        import_id = runs.begin(session, plan, _origin(request), state="open", now=now, **values)
    _note_all(session, import_id, prepared.plan.decisions, prepared.texts, keeps_hashes=True)
    with transaction(session):
        runs.finish(session, import_id, state=state, now=now)
    return import_id


def _note_all(
    session: Session, import_id: int, decisions: Iterable[Decision], texts: Texts, *, keeps_hashes: bool = False
) -> None:
    for block in database.written_in_chunks(session, (each for each in decisions if each.has_line)):
        with transaction(session):
            runs.note(session, import_id, block, texts, done=False, keeps_hashes=keeps_hashes)


def _carry_out(session: Session, request: Request, prepared: _Prepared, import_id: int) -> None:
    """Write a plan. If accounts changed in the meantime, decide about the rest again, and write that."""
    planned = prepared.plan
    lines = 0
    for _ in range(_ROUNDS):
        work = _Work(session, import_id, prepared.texts, invites=request.invites, after=lines)
        lines += prepared.plan.last_number
        if not work.write(prepared.plan.chunks(), actor=request.actor, clock=request.clock, lists=request.lists):
            break
        prepared = _prepare(session, request)
        if prepared.plan.excess(request.limits, approved={each.text for each in planned.decisions if each.writes}):
            break
    with transaction(session):
        runs.finish(session, import_id, state="done", now=request.clock())


class _Work(NamedTuple):
    """Writes decisions and their lines, which are numbered from ``after`` + 1."""

    session: Session
    import_id: int
    texts: Texts
    invites: bool
    after: int = 0

    def write(self, chunks: Iterable[Chunk], *, actor: Actor, clock: Callable[[], datetime], lists: Lists) -> int:
        """Write chunks in batches, one transaction each; return how many decisions were skipped as outdated."""
        author = Actor(actor.user_id, f"import {self.import_id}")
        if actor.user_id is not None:
            author = author._replace(name=f"{actor.name} (import {self.import_id})")
        left = 0
        for place, batch in enumerate(writing.in_batches(chunks)):
            if place:
                database.pause(self.session, place=place)
            left += self._write_batch(batch, Context(self.texts, author, clock(), lists, self.invites))
        return left

    def _write_batch(self, batch: Sequence[Chunk], context: Context) -> int:
        try:
            with transaction(self.session):
                written = writing.write(self.session, batch, context)
                lines = [
                    (replace(each, number=each.number + self.after) if self.after else each, user_id)
                    for each, user_id in written.done
                    if each.has_line
                ]
                user_ids = {each.number: user_id for each, user_id in lines}
                decisions = (each for each, _ in lines)
                runs.note(self.session, self.import_id, decisions, self.texts, done=True, user_ids=user_ids)
        except (DuplicateError, IntegrityError):  # somebody has just taken a name or a key
            return sum(map(len, batch))
        _log(written.done)
        return len(written.stale)


def _log(done: Sequence[tuple[Decision, int]]) -> None:
    kinds = {Action.DEACTIVATE: "user deactivated", Action.REACTIVATE: "user activated"}
    for each, user_id in done:
        if each.action in kinds:
            security_log.log(kinds[each.action], user=user_id)
        elif each.changes.main is not None and each.account is not None:
            security_log.log("address changed", user=user_id)
    made = sum(each.action is Action.CREATE for each, _ in done)
    if made:
        security_log.log("users imported", count=made)


def _as_reported(line: ImportLine, texts: Texts) -> tuple[str, str, str]:
    """Return the parts of a line that identify a report."""
    stands_for = texts.deleted.get(line.line or 0)
    return (stands_for, "", line.why) if stands_for else (line.key, line.username, line.why)


def _report(
    prepared: _Prepared,
    import_id: int | None,
    excess: str | None,
    *,
    known: frozenset[tuple[str, str, str]] = frozenset(),
) -> Report:
    """Return the report of a plan: all lines, or only the reported ones if it was carried out."""
    lines = tuple(
        runs.as_line(each, prepared.texts)
        for each in (prepared.plan.decisions if import_id is None else prepared.plan.decided)
        if each.has_line and (import_id is None or not each.writes or each.why)
    )
    fresh = frozenset(each.number for each in lines if each.why and _as_reported(each, prepared.texts) not in known)
    plan_id, counts = prepared.plan.id, prepared.counts
    return Report(import_id, plan_id, excess, counts, lines, fresh, prepared.ignored, prepared.encoding)
