"""After a backup was restored: nothing that had ended since continues, and no large change happens unnoticed.

Source: docs/semantics.md, "What a run does not trust", and docs/operate.md, "Backup and restore".
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from sqlalchemy import func, select, union_all
from sqlalchemy.orm import Session

from portal.models import AccountChange, History, LoginSession, Restore, Run, User
from portal.services import outbox, security_log
from portal.services.accounts import api_keys, sessions
from portal.services.accounts.api_keys import KeyLine
from portal.services.sync import runs
from portal.services.transaction import reading, transaction

# Events that the backup does not contain: changes of anyone's permissions.
_POWERS = (
    "key made", "key revoked", "password changed", "password set", "role granted", "role revoked", "user activated",
    "user deactivated", "user deleted", "user made", "user merged", "user renamed",
)  # fmt: skip


class RestoreReport(NamedTuple):
    """What was done after a backup was restored, and what an operator must check.

    ``backup_at`` is the newest time in the database. ``superusers`` are user id, username and whether the account is
    active. ``events`` are the security log's later entries about keys, roles, accounts and passwords.
    """

    log_ins_ended: int
    runs_dropped: int
    mails_dropped: int
    backup_at: datetime | None
    keys: Sequence[KeyLine]
    superusers: Sequence[tuple[int, str, bool]]
    events: Sequence[dict[str, Any]]


def mark_restored(session: Session, *, log: Path | None, now: datetime) -> RestoreReport:
    """Require approval of every list's next plan, end sessions and mailed links, drop requested runs and mails.

    ``log`` is the file of the security log; None if it goes to standard error, where it cannot be read back.
    """
    with reading(session):
        backup_at = _newest(session)
        superusers = session.execute(
            select(User.id, User.username, User.is_active).where(User.is_superuser).order_by(User.username_key)
        ).all()
    with transaction(session):
        session.add(Restore(at=now))
        ended = sessions.end_all(session)
        dropped = runs.drop_requested(session, now=now, message="a backup was restored; request the run again")
        mails = outbox.clear(session)
    security_log.log("backup put back")
    return RestoreReport(
        log_ins_ended=ended,
        runs_dropped=dropped,
        mails_dropped=mails,
        backup_at=backup_at,
        keys=api_keys.list_keys(session),
        superusers=[(user_id, username, is_active) for user_id, username, is_active in superusers],
        events=[] if log is None else _permission_changes_since(log, backup_at),
    )


def _newest(session: Session) -> datetime | None:
    """Return the newest time in the database, which is about when the backup was made."""
    columns: Sequence[Any] = (AccountChange.at, History.at, LoginSession.seen_at, Run.started_at)
    newest = union_all(*(select(func.max(each)) for each in columns))
    return max((each for each in session.scalars(newest) if each is not None), default=None)


def _permission_changes_since(log: Path, since: datetime | None) -> list[dict[str, Any]]:
    """Return the security log's events about permissions after a time, or all if it is None."""
    from_text = "" if since is None else since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return [each for each in security_log.read(log) if each["event"] in _POWERS and each["at"] > from_text]
