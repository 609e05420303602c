"""Renaming a list: everything stored under the old handle is moved to the new one."""

from typing import Any, NamedTuple

from sqlalchemy import Update, func, select, update
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.address import printable
from portal.domain.mailinglist import HANDLE
from portal.domain.run import NEVER_BEGUN
from portal.errors import BadInputError, DuplicateError
from portal.models import Preference, Run, RunLine
from portal.services import history, preference_rows
from portal.services.accounts import moves
from portal.services.sync import carried_options, leases, readings
from portal.services.transaction import transaction


class RenameResult(NamedTuple):
    """The number of rows that were moved."""

    preferences: int
    history: int
    runs: int
    run_lines: int


def rename(session: Session, old: str, new: str, *, catalogue: Catalogue) -> RenameResult:
    """Move everything stored under a handle that left the catalogue to one that is in it; all or nothing.

    Both lists' leases are held, so that no run of either is in progress. Raise UnknownListError for a new handle that
    is not in the catalogue; BadInputError for an old one that still is, or under which nothing is stored;
    DuplicateError if the new one has preferences or runs of its own; LeaseHeldError.
    """
    catalogue.get(new)
    if not HANDLE.fullmatch(old):
        raise BadInputError(f"not a valid handle: {printable(old)}")
    if old in catalogue.lists:
        raise BadInputError(
            f"{old} is still in mailinglists.toml, so its next run would start from nothing; remove its table, restart "
            "the portal, and run this command again"
        )
    with leases.held(session, old), leases.held(session, new), transaction(session):
        _require_unused(session, new, old=old)
        carried = RenameResult(
            preferences=preference_rows.rename_list(session, old, new),
            history=history.rename_list(session, old, new),
            runs=_carry(session, update(Run).where(Run.list_handle == old), new),
            run_lines=_carry(session, update(RunLine).where(RunLine.list_handle == old), new),
        )
        carried_options.rename_list(session, old, new)
        moves.rename_list(session, old, new)
        readings.rename_list(session, old, new)
        if not any(carried):
            raise BadInputError(f"nothing is stored for {old}; check that this was the handle of the list")
    return carried


def _require_unused(session: Session, new: str, *, old: str) -> None:
    """Refuse a list that has been used: it would be unclear whose choice counts if the two differ."""
    preferences, runs = (
        session.scalar(select(func.count()).where(*conditions))
        for conditions in (
            [Preference.list_handle == new],
            [Run.list_handle == new, Run.state.not_in(NEVER_BEGUN)],
        )
    )
    if preferences or runs:
        raise DuplicateError(
            f"{new} has already been used (preferences: {preferences}, runs: {runs}), and two lists cannot be merged; "
            f"choose a handle that was never used, or keep {old} and set `list` to the list's name at the list manager"
        )


def _carry(session: Session, rows: Update, new: str) -> int:
    done: Any = session.execute(rows.values(list_handle=new))
    count: int = done.rowcount
    return count
