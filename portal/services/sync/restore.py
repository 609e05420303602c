"""What follows a backup that was put back: nothing that had ended since goes on, and nothing large happens unseen.

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

# What the backup knows nothing of: who got or lost which power since.
_POWERS = (
    "key made", "key revoked", "password changed", "password set", "role granted", "role revoked", "user activated",
    "user deactivated", "user deleted", "user made", "user merged", "user renamed",
)  # fmt: skip


class Restored(NamedTuple):
    """What was done after a backup was put back, and what an operator has to check.

    ``backup_at``: the newest time in the database; ``superusers``: user id, username and whether the account is active;
    ``events``: what the security log says since then of keys, roles, accounts and passwords, as it has them.
    """

    log_ins_ended: int
    runs_dropped: int
    mails_dropped: int
    backup_at: datetime | None
    keys: Sequence[KeyLine]
    superusers: Sequence[tuple[int, str, bool]]
    events: Sequence[dict[str, Any]]


def mark_restored(session: Session, *, log: Path | None, now: datetime) -> Restored:
    """Hold the next plan of every list for approval, end log-ins and mailed links, drop runs and mails asked for.

    ``log`` is the file of the security log; None: it goes to standard error, and nothing can be read back.
    """
    with reading(session):
        backup_at = _newest(session)
        superusers = session.execute(
            select(User.id, User.username, User.is_active).where(User.is_superuser).order_by(User.username_key)
        ).all()
    with transaction(session):
        session.add(Restore(at=now))
        ended = sessions.end_all(session)
        dropped = runs.drop_asked(session, now=now, message="a backup was restored; request the run again")
        mails = outbox.clear(session)
    security_log.log("backup put back")
    return Restored(
        log_ins_ended=ended,
        runs_dropped=dropped,
        mails_dropped=mails,
        backup_at=backup_at,
        keys=api_keys.list_keys(session),
        superusers=[(user_id, username, is_active) for user_id, username, is_active in superusers],
        events=[] if log is None else _powers_since(log, backup_at),
    )


def _newest(session: Session) -> datetime | None:
    """Return the newest time that the database knows: about when the backup was made."""
    columns: Sequence[Any] = (AccountChange.at, History.at, LoginSession.seen_at, Run.started_at)
    newest = union_all(*(select(func.max(each)) for each in columns))
    return max((each for each in session.scalars(newest) if each is not None), default=None)


def _powers_since(log: Path, since: datetime | None) -> list[dict[str, Any]]:
    """Return the events of the security log about who may do what, later than a time; all where it is None."""
    from_text = "" if since is None else since.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return [each for each in security_log.read(log) if each["event"] in _POWERS and each["at"] > from_text]
