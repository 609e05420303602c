"""The tables. Times are UTC; ``canonical`` is what addresses are compared by."""

from datetime import UTC, datetime

from sqlalchemy import (
    CheckConstraint,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    TypeDecorator,
    false,
    text,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware UTC time; SQLite, which keeps no zone, gets and gives it without."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Refuse a time without a zone, which could be anybody's local one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """What all tables share: names for constraints, one type for times."""

    registry = registry(metadata=MetaData(naming_convention=NAMES), type_annotation_map={datetime: UtcDateTime()})


# History outlives users and addresses and names them by number: SQLite must not give a number out again.
_NUMBERED_ONCE = {"sqlite_autoincrement": True}


class User(Base):
    """A person's account.

    ``username_key`` is the username as it is compared, without case; ``search_key`` name and username as they are
    searched, and as people are sorted. ``member_key`` is what the membership source calls the person by; an account
    without one is local. ``language`` is None where the user chose none. ``deactivated_by_import``: and by nobody
    since. ``was_unlinked``: a person took its key away.
    """

    __tablename__ = "users"
    __table_args__ = (Index(None, "member_key", unique=True), _NUMBERED_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(String(64))
    username_key: Mapped[str] = mapped_column(String(192), unique=True)
    name: Mapped[str] = mapped_column(String(120), default="")
    password_hash: Mapped[str] = mapped_column(String(128))
    is_superuser: Mapped[bool] = mapped_column(default=False)
    is_active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[datetime]
    last_login_at: Mapped[datetime | None]
    search_key: Mapped[str] = mapped_column(String(400), default="", server_default=text("''"), index=True)
    member_key: Mapped[str | None] = mapped_column(String(254))
    deactivated_by_import: Mapped[bool] = mapped_column(default=False, server_default=false())
    was_unlinked: Mapped[bool] = mapped_column(default=False, server_default=false())
    language: Mapped[str | None] = mapped_column(String(16))


class UserGroup(Base):
    """One group that a user is in. ``from_source``: the membership source gave it, and may take it again."""

    __tablename__ = "user_groups"
    __table_args__ = (Index(None, "name"), {"sqlite_with_rowid": False})

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    from_source: Mapped[bool] = mapped_column(default=False, server_default=false())


class Address(Base):
    """A mailbox. ``spelling`` is how the first of its holders typed it; ``erase`` asks the purge to forget it.

    ``let_go_at`` is when the last account that held it let go: none holds it since.
    ``password_version`` is the one that its list password is derived from; replacing the password raises it.
    """

    __tablename__ = "addresses"
    __table_args__ = _NUMBERED_ONCE

    id: Mapped[int] = mapped_column(primary_key=True)
    canonical: Mapped[str] = mapped_column(String(254), unique=True)
    spelling: Mapped[str] = mapped_column(String(254))
    erase: Mapped[bool] = mapped_column(default=False)
    password_version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    let_go_at: Mapped[datetime | None]


class UserAddress(Base):
    """Who holds which address: several accounts may hold one, a user may hold several, one of them the main one.

    Of an account that moved here it says when, from which address, and whether another account held this one then.
    ``from_source``: the membership source gave it, and may take it again.
    ``unsettled_lists``: handles, one a line, of lists that the account could not see when it was given the address, and
    that send to one address once it can; ``given_back``: it had left the address before, so that what is there is its
    own.
    """

    __tablename__ = "user_addresses"
    __table_args__ = (
        Index(None, "user_id"),
        Index(None, "moved_from", sqlite_where=text("moved_from IS NOT NULL")),
        {"sqlite_with_rowid": False},
    )

    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    is_main: Mapped[bool] = mapped_column(default=True)
    moved_in_at: Mapped[datetime | None]
    moved_from: Mapped[int | None]  # an address's id
    is_guest: Mapped[bool] = mapped_column(default=False, server_default=false())
    from_source: Mapped[bool] = mapped_column(default=False, server_default=false())
    given_back: Mapped[bool | None]
    unsettled_lists: Mapped[str | None] = mapped_column(String(40_000))


class Preference(Base):
    """What the portal wants for one address on one list, and what it knows of the list manager. Source: SEMANTICS.

    ``left_by`` is the account that was the last active one to leave the address, ``moved_to`` the address that it moved
    to, ``moved_from`` the address that a move brought this preference from. They are numbers without a foreign key:
    the account or the address may be gone.
    ``push_result`` says what became of the last add or removal where it did not take, ``refusal`` in the list manager's
    words, ``refused_at`` when.
    """

    __tablename__ = "preferences"
    __table_args__ = (
        CheckConstraint("source IN ('user', 'superuser', 'link', 'init', 'list', 'rule', 'import')", name="source"),
        Index(None, "address_id"),
        # Whole on PostgreSQL: making it partial there would import that dialect at the start of every command.
        Index(None, "moved_to", sqlite_where=text("moved_to IS NOT NULL")),
        {"sqlite_with_rowid": False},
    )

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id"), primary_key=True)
    subscribed: Mapped[bool]
    source: Mapped[str] = mapped_column(String(9))
    changed_at: Mapped[datetime]
    changed_by: Mapped[int | None]  # a user's id; no foreign key, the user may go
    version: Mapped[int] = mapped_column(default=0)  # every choice raises it
    touched: Mapped[bool] = mapped_column(default=False)
    seen: Mapped[bool | None]
    waiting_since: Mapped[datetime | None]
    departed: Mapped[bool] = mapped_column(default=False)  # the departure has been dealt with
    moved_to: Mapped[int | None]
    refusal: Mapped[str | None] = mapped_column(String(200))
    refused_at: Mapped[datetime | None]
    password_pushed: Mapped[int | None]  # the version of the list password that the list manager has
    left_by: Mapped[int | None]
    moved_from: Mapped[int | None]
    push_result: Mapped[str | None] = mapped_column(String(8))


class DisplacedPreference(Base):
    """What stood at an address for a list before an account moved there; ``subscribed`` is NULL where nothing did.

    It is kept until a person chooses there, or a run plans to add the address: up to then the move can be undone.
    """

    __tablename__ = "displaced_preferences"
    __table_args__ = (Index(None, "address_id", "list_handle"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    list_handle: Mapped[str] = mapped_column(String(64))
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id", ondelete="CASCADE"))
    taken_by: Mapped[int]  # an account
    version: Mapped[int] = mapped_column(default=0)
    subscribed: Mapped[bool | None]
    source: Mapped[str | None] = mapped_column(String(9))
    changed_at: Mapped[datetime | None]
    changed_by: Mapped[int | None]
    seen: Mapped[bool | None]
    touched: Mapped[bool] = mapped_column(default=False)
    waiting_since: Mapped[datetime | None]
    departed: Mapped[bool] = mapped_column(default=False)
    left_by: Mapped[int | None]
    moved_to: Mapped[int | None]
    moved_from: Mapped[int | None]


class KnownOptions(Base):
    """How a subscriber gets the mail of a list, as the list manager said last: for whoever moves from that address.

    ``words`` are empty where that is the list's default.
    """

    __tablename__ = "known_options"
    __table_args__ = (Index(None, "address_id"), {"sqlite_with_rowid": False})

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id", ondelete="CASCADE"), primary_key=True)
    words: Mapped[str] = mapped_column(String(200))
    is_mail_off: Mapped[bool]
    read_at: Mapped[datetime]


class ListReading(Base):
    """What is to be read of a list beside its runs, and when: how it delivers to members, at ``due_at``.

    ``asked_at``: a page asked who is on it without an account, which was read last at ``unknown_read_at``; ``message``
    says what went wrong since.
    """

    __tablename__ = "list_readings"
    __table_args__ = {"sqlite_with_rowid": False}

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]
    unknown_read_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(String(200), default="", server_default=text("''"))


class MemberDelivery(Base):
    """How a list delivers to a member, where that is not as usual; ``asked_at``: a page asks for it."""

    __tablename__ = "member_deliveries"
    __table_args__ = (
        CheckConstraint("mail_off IN ('chosen', 'bounces')", name="mail_off"),
        Index(None, "address_id"),
        Index(None, "asked_at"),  # each minute asks what is to be read
        {"sqlite_with_rowid": False},
    )

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id", ondelete="CASCADE"), primary_key=True)
    is_digest: Mapped[bool] = mapped_column(default=False, server_default=false())
    mail_off: Mapped[str | None] = mapped_column(String(8))
    since: Mapped[datetime | None]
    read_at: Mapped[datetime | None]
    asked_at: Mapped[datetime | None]


class UnknownSubscriber(Base):
    """Somebody who is on a list without an account, as a superuser asked for; kept for a day."""

    __tablename__ = "unknown_subscribers"
    __table_args__ = {"sqlite_with_rowid": False}

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(254))
    read_at: Mapped[datetime]


class History(Base):
    """One change of a preference. Append-only: erasing an address is the one permitted rewrite."""

    __tablename__ = "history"
    __table_args__ = (Index(None, "address_id", "list_handle"), Index(None, "at"))

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    list_handle: Mapped[str] = mapped_column(String(64))
    address_id: Mapped[int]  # no foreign key: history outlives the address
    address: Mapped[str] = mapped_column(String(254))  # canonical
    subscribed: Mapped[bool]
    source: Mapped[str] = mapped_column(String(9))
    actor_id: Mapped[int | None]
    actor: Mapped[str] = mapped_column(String(80), default="")  # the user's name at that time, or the command line
    reason: Mapped[str] = mapped_column(String(200), default="")


class Run(Base):
    """A run for one list, from when it is asked for to what became of it.

    ``left``, ``joined``, ``initialised`` and ``held`` count lines of its plan; ``added``, ``removed``, ``refused``,
    ``waiting`` and ``no_effect`` what became of the others. ``slot`` names what a run that waits is to do, so that two
    who ask for the same ask for one.
    """

    __tablename__ = "runs"
    __table_args__ = (
        CheckConstraint("kind IN ('show', 'sync', 'planned')", name="kind"),
        CheckConstraint(
            "state IN ('asked', 'taken', 'shown', 'changed', 'dropped', "
            "'held', 'open', 'planned', 'done', 'failed', 'unfinished')",
            name="state",
        ),
        Index(None, "list_handle", "id"),
        Index(None, "list_handle", "started_at"),  # which run of a list was the last
        Index(None, "list_handle", "state", "started_at"),  # … and the last good one
        Index(None, "state", "asked_at"),  # what waits, and what is forgotten
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    list_handle: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(8))
    asked_by: Mapped[str] = mapped_column(String(80))  # the user's name at that time, an API key, or the command line
    host: Mapped[str] = mapped_column(String(120), default="")
    started_at: Mapped[datetime]  # or last tried, or asked for: whichever came last
    finished_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(10), default="open")
    message: Mapped[str] = mapped_column(String(400), default="")
    plan_id: Mapped[str | None] = mapped_column(String(16))  # until there is a plan, the one plan that may be applied
    accepted: Mapped[bool] = mapped_column(default=False)
    on_roster: Mapped[int | None]
    without_account: Mapped[int | None]  # on the roster, and held by no account
    initialised: Mapped[int] = mapped_column(default=0)
    left: Mapped[int] = mapped_column(default=0)
    joined: Mapped[int] = mapped_column(default=0)
    added: Mapped[int] = mapped_column(default=0)
    removed: Mapped[int] = mapped_column(default=0)
    held: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    asked_by_id: Mapped[int | None]  # a user's id; no foreign key, the user may go
    asked_at: Mapped[datetime | None]  # none of a run that did not wait
    slot: Mapped[str | None] = mapped_column(String(96), unique=True)
    pid: Mapped[int | None]  # the process that has taken it; ``pid_space`` as in Lease
    pid_space: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    waiting: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    no_effect: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class RunLine(Base):
    """One line of a run's plan and what became of it.

    ``settled``: the preference has taken it in. A line that is not settled explains, at the next run, a difference
    between roster and preference as our own act; lines of a plan that is not carried out are settled from the start.
    ``counts``: in the safety limits, since no person asked for it one by one. ``result`` is "waits" while it waits for
    approval.
    """

    __tablename__ = "run_lines"
    __table_args__ = (
        CheckConstraint("action IN ('add', 'remove', 'left', 'joined')", name="action"),
        Index(None, "list_handle", "settled"),
        Index(None, "address_id"),
        {"sqlite_with_rowid": False},
    )

    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    address_id: Mapped[int] = mapped_column(Integer, primary_key=True)
    list_handle: Mapped[str] = mapped_column(String(64))
    address: Mapped[str] = mapped_column(String(254))  # canonical
    spelling: Mapped[str] = mapped_column(String(254))  # as it is sent to the list manager
    action: Mapped[str] = mapped_column(String(6))
    reason: Mapped[str] = mapped_column(String(12))
    held: Mapped[bool] = mapped_column(default=False)
    version: Mapped[int]  # the preference's, as the plan read it
    result: Mapped[str | None] = mapped_column(String(8))
    words: Mapped[str] = mapped_column(String(200), default="")
    settled: Mapped[bool] = mapped_column(default=False)
    replaced: Mapped[str | None] = mapped_column(String(1000))  # of a take-over: the preference before it, as JSON
    counts: Mapped[bool] = mapped_column(default=False, server_default=false())


class Restore(Base):
    """A backup was put back: the first plan of every list since then waits for approval as a whole."""

    __tablename__ = "restores"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Lease(Base):
    """Who syncs a list at the moment. ``pid_space`` is the boot and the namespace in which ``pid`` means a process."""

    __tablename__ = "leases"

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    token: Mapped[str] = mapped_column(String(32))
    holder: Mapped[str] = mapped_column(String(160))
    host: Mapped[str] = mapped_column(String(120))
    pid: Mapped[int | None]  # none: a planned run, which outlives the processes of its steps
    expires_at: Mapped[datetime]
    pid_space: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))


class LoginSession(Base):
    """A log-in. The cookie holds the token, the row its SHA-256.

    ``is_forwarded``: it came with X-Forwarded-For. ``confirmed_at``: when the password was typed last. ``by_link_at``:
    when it began by a mailed link, after which a password may be chosen.
    """

    __tablename__ = "login_sessions"

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    created_at: Mapped[datetime]
    seen_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    remembered: Mapped[bool] = mapped_column(default=False)
    browser: Mapped[str] = mapped_column(String(16), default="", server_default=text("''"))
    system: Mapped[str] = mapped_column(String(16), default="", server_default=text("''"))
    place: Mapped[str] = mapped_column(String(45), default="", server_default=text("''"))  # an IP address
    is_forwarded: Mapped[bool] = mapped_column(default=False, server_default=false())
    confirmed_at: Mapped[datetime | None]
    by_link_at: Mapped[datetime | None]


class AccountChange(Base):
    """One change of an account, from ``old`` to ``new`` where it is one of values. Append-only.

    It outlives the account: who is erased is named by number, without values.
    """

    __tablename__ = "account_changes"
    __table_args__ = (Index(None, "user_id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    user_id: Mapped[int]  # no foreign key: it outlives the user
    username: Mapped[str] = mapped_column(String(80))
    what: Mapped[str] = mapped_column(String(80))
    actor_id: Mapped[int | None]
    actor: Mapped[str] = mapped_column(String(80))
    old: Mapped[str] = mapped_column(String(1000), default="", server_default=text("''"))
    new: Mapped[str] = mapped_column(String(1000), default="", server_default=text("''"))


class LastSaid(Base):
    """What the membership source said of an account last, in the shape of ``domain.membership.Said``.

    ``further`` and ``groups`` hold texts one a line, sorted: addresses are canonical.
    """

    __tablename__ = "last_said"

    user_id: Mapped[int] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True, autoincrement=False
    )
    named: Mapped[bool]
    address: Mapped[str | None] = mapped_column(String(254))
    further: Mapped[str] = mapped_column(String(6000), default="")
    name: Mapped[str | None] = mapped_column(String(120))
    groups: Mapped[str] = mapped_column(String(4000), default="")


class DeletedKey(Base):
    """The member key of an account that a person deleted, as an HMAC; ``key`` itself unless the account was erased."""

    __tablename__ = "deleted_keys"

    key_hmac: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str | None] = mapped_column(String(254))
    deleted_at: Mapped[datetime]


class MemberImport(Base):
    """An import of members: what it was made from, what it did, and by whom.

    ``rows`` counts members in the source, ``unchanged`` those of whom nothing was written; ``linked_accounts`` the
    linked active accounts before it, ``named`` those of them that the source named. ``column`` is the column of keys.
    """

    __tablename__ = "member_imports"
    __table_args__ = (
        CheckConstraint("state IN ('shown', 'held', 'open', 'done', 'failed', 'dropped')", name="state"),
        Index(None, "state"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    source: Mapped[str] = mapped_column(String(200))
    column: Mapped[str] = mapped_column(String(120), default="")
    asked_by: Mapped[str] = mapped_column(String(80))
    asked_by_id: Mapped[int | None]  # a user's id; no foreign key, the user may go
    started_at: Mapped[datetime]
    finished_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(8))
    deactivates: Mapped[bool]
    accepted: Mapped[bool] = mapped_column(default=False)
    plan_id: Mapped[str | None] = mapped_column(String(16))
    message: Mapped[str] = mapped_column(String(400), default="")
    rows: Mapped[int] = mapped_column(default=0)
    unchanged: Mapped[int] = mapped_column(default=0)
    linked_accounts: Mapped[int] = mapped_column(default=0)
    named: Mapped[int] = mapped_column(default=0)
    created: Mapped[int] = mapped_column(default=0)
    linked: Mapped[int] = mapped_column(default=0)
    changed: Mapped[int] = mapped_column(default=0)
    reactivated: Mapped[int] = mapped_column(default=0)
    deactivated: Mapped[int] = mapped_column(default=0)
    reported: Mapped[int] = mapped_column(default=0)
    problems: Mapped[int] = mapped_column(default=0)


class MemberImportLine(Base):
    """One line of an import's plan. ``line`` is that of the source, ``text`` names the decision.

    ``details`` holds what it writes, as JSON; ``fingerprint`` names the account as the plan saw it. ``done``: it has
    been written, or there is nothing to write.
    """

    __tablename__ = "member_import_lines"
    __table_args__ = (Index(None, "user_id"), {"sqlite_with_rowid": False})

    import_id: Mapped[int] = mapped_column(ForeignKey("member_imports.id", ondelete="CASCADE"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    line: Mapped[int | None]
    action: Mapped[str] = mapped_column(String(10))
    user_id: Mapped[int | None]  # no foreign key: the line outlives the user
    key: Mapped[str] = mapped_column(String(254), default="")
    username: Mapped[str] = mapped_column(String(64), default="")
    name: Mapped[str] = mapped_column(String(120), default="")
    why: Mapped[str] = mapped_column(String(400), default="")
    details: Mapped[str] = mapped_column(String(20000), default="")
    fingerprint: Mapped[str] = mapped_column(String(16), default="")
    done: Mapped[bool] = mapped_column(default=False)


class ApiKey(Base):
    """A superuser's key to the API. The key is shown once; the row holds its first letters and its SHA-256."""

    __tablename__ = "api_keys"

    id: Mapped[int] = mapped_column(primary_key=True)
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    key_hash: Mapped[str] = mapped_column(String(64))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), index=True)
    label: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime]
    expires_at: Mapped[datetime | None]
    revoked_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]


class Attempt(Base):
    """One try that a limit counts. ``key`` is a hash, so that no address or IP can be read from it."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "key", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(index=True)


class MailRequest(Base):
    """A mail that is to be sent: to which mailbox, for what. Who gets it, and the letter, are made when it is sent.

    ``priority`` is 0 where a person waits for it, 1 for many at once. ``due_at`` is when it may be tried next: while it
    is being sent, when the claim on it ends. ``may_be_twice``: it was sent again although it may have arrived.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'sending', 'sent', 'refused', 'given up', 'dropped')", name="state"),
        Index(None, "state", "priority", "due_at"),
        Index(None, "priority", "tried_at"),
        Index(None, "ended_at"),  # each minute asks what is out of date
        Index(None, "mailbox"),
        Index(None, "user_id"),
        _NUMBERED_ONCE,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(254))  # canonical
    purpose: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[int | None]  # whom it is about; no foreign key, the user may go
    details: Mapped[str] = mapped_column(String(2000), default="", server_default=text("''"))  # JSON
    place: Mapped[str] = mapped_column(String(45), default="", server_default=text("''"))  # an IP address
    priority: Mapped[int]
    asked_at: Mapped[datetime]
    due_at: Mapped[datetime]
    state: Mapped[str] = mapped_column(String(8), default="waiting")
    tries: Mapped[int] = mapped_column(default=0)
    tried_at: Mapped[datetime | None]
    claim: Mapped[str | None] = mapped_column(String(32))
    ended_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(String(200), default="", server_default=text("''"))
    may_be_twice: Mapped[bool] = mapped_column(default=False, server_default=false())


class MailedLink(Base):
    """A link that was mailed for one purpose. The letter has the token, the row its SHA-256.

    ``bound_to`` is a hash of the password hash that the account had then; ``details`` are those of the request.
    """

    __tablename__ = "mailed_links"
    __table_args__ = (
        CheckConstraint("purpose IN ('invite', 'log-in', 'confirm', 'undo', 'leave')", name="purpose"),
        Index(None, "user_id", "purpose"),
        Index(None, "mailbox"),
        Index(None, "expires_at"),
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    token_hash: Mapped[str] = mapped_column(String(64), unique=True)
    purpose: Mapped[str] = mapped_column(String(8))
    user_id: Mapped[int | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    mailbox: Mapped[str] = mapped_column(String(254))  # canonical
    bound_to: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    details: Mapped[str] = mapped_column(String(2000), default="", server_default=text("''"))  # JSON
    made_at: Mapped[datetime]
    expires_at: Mapped[datetime]
    used_at: Mapped[datetime | None]


class NoticeMark(Base):
    """How far a history has been read for changes that people get a mail about; ``number`` is the last line's."""

    __tablename__ = "notice_marks"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int]


class KnownTrouble(Base):
    """A trouble of a list that operators know of by mail, and that is not over; ``mailed_at`` is the last mail."""

    __tablename__ = "known_troubles"
    __table_args__ = (CheckConstraint("kind IN ('failed', 'held', 'overdue')", name="kind"),)

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    began_at: Mapped[datetime]
    mailed_at: Mapped[datetime]
