"""Keys to the API: made for superusers, shown once, and stored as what no key can be made from."""

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import Select, bindparam, insert, select, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from portal.domain.address import printable
from portal.errors import BadInputError, ForbiddenError, KeyRefusedError
from portal.models import ApiKey, User
from portal.services import security_log
from portal.services.accounts import names, rate_limits
from portal.services.history import Actor
from portal.services.transaction import note, reading, transaction

LONGEST_LABEL = 80  # characters
LONGEST_LIFE = 3650  # days
_USED_EVERY = timedelta(minutes=5)
_LETTERS = "abcdefghijkmnpqrstuvwxyz23456789"  # of a prefix; 8 of them are 40 bits
_PREFIX_LENGTH = 11
_PREFIX = re.compile(r"mp_[a-z2-9]{8}")
_KEY = re.compile(r"(mp_[a-z2-9]{8})_[A-Za-z0-9_-]{43}")  # 256 random bits behind the prefix
_NOBODYS = "0" * 64  # what an unknown key is compared with


class KeyLine(NamedTuple):
    """A key as it is listed, which tells nothing that it could be made from."""

    prefix: str
    username: str
    is_owner_active: bool
    label: str
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None
    last_used_at: datetime | None


@dataclass(frozen=True)
class Caller:
    """Who calls the API: a key, and the superuser who answers for it."""

    key_id: int
    prefix: str
    user_id: int

    @property
    def actor(self) -> Actor:
        """Return who asks for a run with the key, without a name that may be an address."""
        return Actor(self.user_id, f"API key {self.prefix} of user {self.user_id}")


def create(
    session: Session,
    username: str,
    *,
    label: str,
    expires_days: int | None,
    now: datetime,
    bits: bytes | None = None,
) -> str:
    """Make a key for a superuser and return it: nobody can read it again. Raise UnknownUserError or BadInputError.

    Its secret part is made of 32 random bytes: those that the caller has, or others.
    """
    label = label.strip()
    if not 0 < len(label) <= LONGEST_LABEL or not label.isprintable():
        raise BadInputError(
            "not a label: %(label)s (1 to %(longest_label)s printable characters)",
            label=repr(printable(label)),
            longest_label=LONGEST_LABEL,
        )
    prefix = "mp_" + "".join(secrets.choice(_LETTERS) for _ in range(8))
    key = full_key(prefix, bits or secrets.token_bytes(32))
    expires_at = None if expires_days is None else now + timedelta(days=expires_days)
    with transaction(session):
        owner = names.locked(session, username)  # so that nobody takes the role, which ends the keys, meanwhile
        if not (owner.is_superuser and owner.is_active):
            raise BadInputError(
                "%(username)s is no active superuser, and only those may have keys", username=printable(username)
            )
        owner_id = owner.id
        key_id = session.execute(
            insert(ApiKey)
            .values(prefix=prefix, key_hash=_hashed(key), user_id=owner_id, label=label)
            .values(created_at=now, expires_at=expires_at)
            .returning(ApiKey.id)
        ).scalar_one()
    security_log.log("key made", api_key=key_id, user=owner_id)
    return key


def full_key(prefix: str, bits: bytes) -> str:
    """Return the key of a prefix, whose secret part is made of 32 random bytes."""
    return f"{prefix}_{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"


def prefix_of(key: str) -> str:
    """Return what a key begins with, by which it is listed."""
    return key[:_PREFIX_LENGTH]


def list_keys(session: Session) -> Sequence[KeyLine]:
    """Return all keys, the newest first, those included that are good for nothing any more."""
    with reading(session):
        return [KeyLine(*row) for row in session.execute(_lines())]


def find(session: Session, prefix: str) -> KeyLine:
    """Return the key of a prefix. Raise BadInputError."""
    _require_prefix(prefix)
    with reading(session):
        row = session.execute(_lines().where(ApiKey.prefix == prefix)).one_or_none()
    if row is None:
        raise BadInputError("no key begins with %(prefix)s", prefix=prefix)
    return KeyLine(*row)


def _lines() -> Select[Any]:
    return (
        select(ApiKey.prefix, User.username, User.is_active, ApiKey.label, ApiKey.created_at)
        .add_columns(ApiKey.expires_at, ApiKey.revoked_at, ApiKey.last_used_at)
        .join(User, User.id == ApiKey.user_id)
        .order_by(ApiKey.id.desc())
    )


def _require_prefix(prefix: str) -> None:
    if not _PREFIX.fullmatch(prefix):  # whoever gives a whole key by mistake must not read it again in the error
        raise BadInputError(
            "not the prefix of a key: it is mp_ and eight letters and digits, as flask apikey list prints it"
        )


def revoke(session: Session, prefix: str, *, now: datetime) -> bool:
    """End a key, at once and for good; return False where it had been ended before. Raise BadInputError."""
    _require_prefix(prefix)
    with transaction(session):
        found = session.scalars(select(ApiKey).where(ApiKey.prefix == prefix).with_for_update()).one_or_none()
        if found is None:
            raise BadInputError("no key begins with %(prefix)s", prefix=prefix)
        key_id, owner, is_new = found.id, found.user_id, found.revoked_at is None
        if is_new:
            found.revoked_at = now
    if is_new:
        security_log.log("key revoked", api_key=key_id, user=owner)
    return is_new


def end(session: Session, user_id: int, *, now: datetime) -> Sequence[int]:
    """End all keys of a user, for good, in the caller's open transaction, which has locked the user's row.

    Return the numbers of those that had not been ended before.
    """
    own = update(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    return session.scalars(own.values(revoked_at=now).returning(ApiKey.id)).all()


# Built once: every call runs it.
_OF_PREFIX = (
    select(ApiKey.id, ApiKey.prefix, ApiKey.user_id, ApiKey.key_hash, ApiKey.expires_at, ApiKey.revoked_at)
    .add_columns(ApiKey.last_used_at, User.is_superuser, User.is_active)
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.prefix == bindparam("prefix"))
)


def authenticate(session: Session, key: str, *, ip: str, now: datetime) -> Caller:
    """Return who a key stands for. Raise KeyRefusedError, ForbiddenError or LimitedError.

    What is refused is counted by where it comes from before it is answered, by all processes together. A good key is
    never counted and never limited: 256 random bits are not guessed at any speed, and whoever shares an address with a
    script could otherwise stop it. A good call writes nothing but, every five minutes at most, that the key was used.
    """
    found = _found(session, key)
    try:
        if found is None:
            raise KeyRefusedError("this API key is not known here; flask apikey list prints those that are")
        _require_good(found, now=now)
    except (KeyRefusedError, ForbiddenError):
        with suppress(DBAPIError):  # a database that cannot be written; 256 bits are not guessed without a limit either
            rate_limits.count(session, [rate_limits.by_ip(ip, kind="api key")], now=now)  # past it, one line a minute
        security_log.log("key refused", api_key=found and found.id)
        raise
    if found.last_used_at is None or abs(now - found.last_used_at) >= _USED_EVERY:
        note(session, update(ApiKey).where(ApiKey.id == found.id).values(last_used_at=now))
        security_log.log("key used", api_key=found.id, user=found.user_id)
    return Caller(found.id, found.prefix, found.user_id)


def _found(session: Session, key: str) -> Any:
    """Return the row of a key, or None. What is compared in constant time is a hash, known prefix or not."""
    shape = _KEY.fullmatch(key)
    found = None
    if shape:  # nothing else is looked for, so no database is asked for what it cannot hold
        with reading(session):
            found = session.execute(_OF_PREFIX, {"prefix": shape[1]}).one_or_none()
    is_same = hmac.compare_digest(_hashed(key), found.key_hash if found else _NOBODYS)
    return found if is_same else None


def _require_good(found: Any, *, now: datetime) -> None:
    """Raise for a key that was good once. Whoever has it whole may read why it is no longer."""
    if found.revoked_at is not None:
        raise KeyRefusedError("the API key %(prefix)s was revoked; ask for another one", prefix=found.prefix)
    if found.expires_at is not None and now >= found.expires_at:
        raise KeyRefusedError("the API key %(prefix)s has expired; ask for another one", prefix=found.prefix)
    if not (found.is_superuser and found.is_active):
        raise ForbiddenError("the owner of the API key %(prefix)s is no active superuser", prefix=found.prefix)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
