"""API keys: created for superusers, shown once, and stored as hashes."""

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
_NOBODYS = "0" * 64  # compared with an unknown key, so that the time is the same


class KeyLine(NamedTuple):
    """A key in a list of keys, without anything secret."""

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
    """The caller of the API: a key and the superuser who owns it."""

    key_id: int
    prefix: str
    user_id: int

    @property
    def actor(self) -> Actor:
        """Return the actor of a run that is requested with the key; no username, which may be an address."""
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
    """Create a key for a superuser and return it; it cannot be shown again. Raise UnknownUserError or BadInputError.

    ``bits`` are 32 random bytes for its secret part; without them new ones are generated.
    """
    label = label.strip()
    if not 0 < len(label) <= LONGEST_LABEL or not label.isprintable():
        raise BadInputError(
            "not a valid label: %(label)s (1 to %(longest_label)s printable characters)",
            label=repr(printable(label)),
            longest_label=LONGEST_LABEL,
        )
    prefix = "mp_" + "".join(secrets.choice(_LETTERS) for _ in range(8))
    key = full_key(prefix, bits or secrets.token_bytes(32))
    expires_at = None if expires_days is None else now + timedelta(days=expires_days)
    with transaction(session):
        owner = names.locked(session, username)  # so that the role, and with it the keys, is not revoked meanwhile
        if not (owner.is_superuser and owner.is_active):
            raise BadInputError(
                "%(username)s is not an active superuser; only active superusers can have API keys",
                username=printable(username),
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
    """Return the key made of a prefix and 32 random bytes."""
    return f"{prefix}_{base64.urlsafe_b64encode(bits).decode().rstrip('=')}"


def prefix_of(key: str) -> str:
    """Return the prefix of a key, by which it is listed."""
    return key[:_PREFIX_LENGTH]


def list_keys(session: Session) -> Sequence[KeyLine]:
    """Return all keys, newest first, including revoked and expired ones."""
    with reading(session):
        return [KeyLine(*row) for row in session.execute(_lines())]


def find(session: Session, prefix: str) -> KeyLine:
    """Return the key with a prefix. Raise BadInputError."""
    _require_prefix(prefix)
    with reading(session):
        row = session.execute(_lines().where(ApiKey.prefix == prefix)).one_or_none()
    if row is None:
        raise BadInputError("no API key has the prefix %(prefix)s", prefix=prefix)
    return KeyLine(*row)


def _lines() -> Select[Any]:
    return (
        select(ApiKey.prefix, User.username, User.is_active, ApiKey.label, ApiKey.created_at)
        .add_columns(ApiKey.expires_at, ApiKey.revoked_at, ApiKey.last_used_at)
        .join(User, User.id == ApiKey.user_id)
        .order_by(ApiKey.id.desc())
    )


def _require_prefix(prefix: str) -> None:
    if not _PREFIX.fullmatch(prefix):  # the error must not repeat a whole key given by mistake
        raise BadInputError(
            "not the prefix of an API key: a prefix is mp_ and eight letters or digits; flask apikey list prints them"
        )


def revoke(session: Session, prefix: str, *, now: datetime) -> bool:
    """Revoke a key; return False if it was revoked before. Raise BadInputError."""
    _require_prefix(prefix)
    with transaction(session):
        found = session.scalars(select(ApiKey).where(ApiKey.prefix == prefix).with_for_update()).one_or_none()
        if found is None:
            raise BadInputError("no API key has the prefix %(prefix)s", prefix=prefix)
        key_id, owner, is_new = found.id, found.user_id, found.revoked_at is None
        if is_new:
            found.revoked_at = now
    if is_new:
        security_log.log("key revoked", api_key=key_id, user=owner)
    return is_new


def end(session: Session, user_id: int, *, now: datetime) -> Sequence[int]:
    """Revoke all keys of a user, in the caller's transaction, which has locked the user's row.

    Return the ids of the keys that were not revoked before.
    """
    own = update(ApiKey).where(ApiKey.user_id == user_id, ApiKey.revoked_at.is_(None))
    return session.scalars(own.values(revoked_at=now).returning(ApiKey.id)).all()


# Built once, because every API call runs it.
_OF_PREFIX = (
    select(ApiKey.id, ApiKey.prefix, ApiKey.user_id, ApiKey.key_hash, ApiKey.expires_at, ApiKey.revoked_at)
    .add_columns(ApiKey.last_used_at, User.is_superuser, User.is_active)
    .join(User, User.id == ApiKey.user_id)
    .where(ApiKey.prefix == bindparam("prefix"))
)


def authenticate(session: Session, key: str, *, ip: str, now: datetime) -> Caller:
    """Return the caller that a key belongs to. Raise KeyRefusedError, ForbiddenError or RateLimitedError.

    Refused keys are counted by IP address, across all processes, before the response. A valid key is never counted or
    limited: 256 random bits cannot be guessed at any rate, and other users of the same IP address could otherwise block
    a script. A valid call writes nothing except, every five minutes at most, the time of the key's last use.
    """
    found = _found(session, key)
    try:
        if found is None:
            raise KeyRefusedError("unknown API key; flask apikey list prints the known ones")
        _require_good(found, now=now)
    except (KeyRefusedError, ForbiddenError):
        with suppress(DBAPIError):  # the database may be read-only; even without a limit nobody guesses 256 bits
            rate_limits.count(session, [rate_limits.by_ip(ip, kind="api key")], now=now)
        security_log.log("key refused", api_key=found and found.id)
        raise
    if found.last_used_at is None or abs(now - found.last_used_at) >= _USED_EVERY:
        note(session, update(ApiKey).where(ApiKey.id == found.id).values(last_used_at=now))
        security_log.log("key used", api_key=found.id, user=found.user_id)
    return Caller(found.id, found.prefix, found.user_id)


def _found(session: Session, key: str) -> Any:
    """Return the row of a key, or None. A hash is compared in constant time, whether the prefix is known or not."""
    shape = _KEY.fullmatch(key)
    found = None
    if shape:  # the database is not asked about anything else, which it might be unable to hold
        with reading(session):
            found = session.execute(_OF_PREFIX, {"prefix": shape[1]}).one_or_none()
    is_same = hmac.compare_digest(_hashed(key), found.key_hash if found else _NOBODYS)
    return found if is_same else None


def _require_good(found: Any, *, now: datetime) -> None:
    """Raise if a genuine key is no longer valid. Its holder may know the reason."""
    if found.revoked_at is not None:
        raise KeyRefusedError("the API key %(prefix)s was revoked; use another one", prefix=found.prefix)
    if found.expires_at is not None and now >= found.expires_at:
        raise KeyRefusedError("the API key %(prefix)s has expired; use another one", prefix=found.prefix)
    if not (found.is_superuser and found.is_active):
        raise ForbiddenError("the owner of the API key %(prefix)s is not an active superuser", prefix=found.prefix)


def _hashed(key: str) -> str:
    return hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
