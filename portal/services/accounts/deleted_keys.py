"""Member keys of accounts that a person deleted: an import makes nobody of them again.

The functions work inside a transaction that the caller has begun.
"""

import hashlib
import hmac
from datetime import datetime

from sqlalchemy import delete, select, update
from sqlalchemy.orm import Session

from portal import database
from portal.models import DeletedKey, MemberImportLine

_LABEL = b"member key: "


def hashed(key: str, secret: bytes) -> str:
    """Return the HMAC by which a key is recognised."""
    return hmac.digest(secret, _LABEL + key.encode(), hashlib.sha256).hex()


def load(session: Session) -> frozenset[str]:
    """Return the HMACs of all keys of deleted accounts."""
    return frozenset(session.scalars(select(DeletedKey.key_hmac)))


def remember(session: Session, key: str, *, erase: bool, secret: bytes, now: datetime) -> None:
    """Remember the key of an account that is being deleted; of an erased one the HMAC alone."""
    values = {"key": None if erase else key, "deleted_at": now}
    statement = database.insert(session, DeletedKey).values(key_hmac=hashed(key, secret), **values)
    session.execute(statement.on_conflict_do_update(index_elements=["key_hmac"], set_=values))


def forget_text(session: Session, key: str) -> None:
    """Keep the HMAC alone of a key, which is an address that is being erased."""
    session.execute(update(DeletedKey).where(DeletedKey.key == key).values(key=None))


def forget_account(session: Session, user_id: int) -> None:
    """Leave nothing in the lines of imports of who an account is that is being erased."""
    blank = dict.fromkeys(("key", "username", "name", "details"), "")
    session.execute(update(MemberImportLine).where(MemberImportLine.user_id == user_id).values(blank))


def forget(session: Session, key: str, *, secret: bytes) -> bool:
    """Let an import make an account for a key again; return whether it was that of a deleted one."""
    gone = delete(DeletedKey).where(DeletedKey.key_hmac == hashed(key, secret)).returning(DeletedKey.key_hmac)
    return session.execute(gone).first() is not None
