"""Member keys of accounts that somebody deleted, so that no import creates these accounts again.

All functions work inside a transaction that the caller has begun.
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
    """Return the HMAC of a member key, by which a deleted account is recognised."""
    return hmac.digest(secret, _LABEL + key.encode(), hashlib.sha256).hex()


def load(session: Session) -> frozenset[str]:
    """Return the HMACs of all keys of deleted accounts."""
    return frozenset(session.scalars(select(DeletedKey.key_hmac)))


def remember(session: Session, key: str, *, erase: bool, secret: bytes, now: datetime) -> None:
    """Store the key of an account that is being deleted; for an erased account, only the HMAC."""
    values = {"key": None if erase else key, "deleted_at": now}
    statement = database.insert(session, DeletedKey).values(key_hmac=hashed(key, secret), **values)
    session.execute(statement.on_conflict_do_update(index_elements=["key_hmac"], set_=values))


def forget_text(session: Session, key: str) -> None:
    """Keep only the HMAC of a key that is an address being erased."""
    session.execute(update(DeletedKey).where(DeletedKey.key == key).values(key=None))


def forget_account(session: Session, user_id: int) -> None:
    """Remove the personal data of an account that is being erased from the lines of imports."""
    blank = dict.fromkeys(("key", "username", "name", "details"), "")
    session.execute(update(MemberImportLine).where(MemberImportLine.user_id == user_id).values(blank))


def forget(session: Session, key: str, *, secret: bytes) -> bool:
    """Allow imports to create an account for a key again; return whether the key was blocked."""
    gone = delete(DeletedKey).where(DeletedKey.key_hmac == hashed(key, secret)).returning(DeletedKey.key_hmac)
    return session.execute(gone).first() is not None
