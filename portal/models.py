"""The tables. Times are UTC; addresses are compared by ``canonical``."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

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
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, registry
from sqlalchemy.schema import CreateIndex

NAMES = {
    "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    "uq": "uq_%(table_name)s_%(column_0_N_name)s",
    "ck": "ck_%(table_name)s_%(constraint_name)s",
    "fk": "fk_%(table_name)s_%(column_0_N_name)s_%(referred_table_name)s",
    "pk": "pk_%(table_name)s",
}


class UtcDateTime(TypeDecorator[datetime]):
    """An aware time in UTC. SQLite has no time zones, so it stores and returns naive times."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Reject a time without a zone, which could be a local one."""
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a time without a zone cannot be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """Return an aware time in UTC."""
        return None if value is None else value.astimezone(UTC)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[Any], datetime | None] | None:
        """Parse the text that SQLite returns, three times as fast as SQLAlchemy does; other drivers return a time."""
        return _time_of_text if dialect.name == "sqlite" else super().result_processor(dialect, coltype)


def _time_of_text(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(f"{text}+00:00")


class Base(DeclarativeBase):
    """The base of all tables: it names constraints and maps datetime to one type."""

    registry = registry(metadata=MetaData(naming_convention=NAMES), type_annotation_map={datetime: UtcDateTime()})


def _partial_index(column: str, where: str, on_postgresql: str | None = None) -> Index:
    """Return an index of the rows that meet a condition.

    SQLAlchemy's own option for PostgreSQL would import that dialect at the start of every command.
    """
    return Index(None, column, sqlite_where=text(where), info={"where": on_postgresql or where})


@compiles(CreateIndex, "postgresql")
def _create_index(element: CreateIndex, compiler: Any, **options: Any) -> str:
    created: str = compiler.visit_create_index(element, **options)
    where = element.element.info.get("where")
    return f"{created} WHERE {where}" if where else created


# History outlives users and addresses and keeps their ids, so SQLite must not reuse an id.
_NUMBERED_ONCE = {"sqlite_autoincrement": True}


class User(Base):
    """A person's account.

    ``username_key`` is the username in the form that is compared, without case. ``search_key`` is the form of name and
    username that is searched and sorted by. ``member_key`` identifies the person in the membership source; an account
    without one is local. ``language`` is None if the user has chosen none. ``deactivated_by_import``: and nobody has
    changed that since. ``was_unlinked``: a person removed its key.
    """

    __tablename__ = "users"
    __table_args__ = (
        Index(None, "member_key", unique=True),
        _partial_index("is_active", "is_active = 0", "NOT is_active"),
        _NUMBERED_ONCE,
    )

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
    """A group that a user is in. ``from_source``: the membership source gave it, and may take it away."""

    __tablename__ = "user_groups"
    __table_args__ = (Index(None, "name"), {"sqlite_with_rowid": False})

    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(64), primary_key=True)
    from_source: Mapped[bool] = mapped_column(default=False, server_default=false())


class Address(Base):
    """A mailbox. ``spelling`` is the one that its first holder typed; ``erase`` asks the purge to delete it.

    ``let_go_at`` is when its last holder let go of it; None while an account holds it. The list password is derived
    from ``password_version``, which rises when the password is replaced.
    """

    __tablename__ = "addresses"
    __table_args__ = (_partial_index("let_go_at", "let_go_at IS NOT NULL"), _NUMBERED_ONCE)

    id: Mapped[int] = mapped_column(primary_key=True)
    canonical: Mapped[str] = mapped_column(String(254), unique=True)
    spelling: Mapped[str] = mapped_column(String(254))
    erase: Mapped[bool] = mapped_column(default=False)
    password_version: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    let_go_at: Mapped[datetime | None]


class UserAddress(Base):
    """Which user holds which address. Several may hold one; a user may hold several, one of them the main one.

    For an account that moved in, ``moved_in_at`` and ``moved_from`` say when and from where, and ``is_guest`` that
    another account held the address then. ``from_source``: the membership source gave it, and may take it away.
    ``unsettled_lists`` are handles, one a line, of lists that the account could not see when it was given the address;
    each will send to only one of its addresses once it can. ``given_back``: the account had left the address before, so
    the preferences there are its own.
    """

    __tablename__ = "user_addresses"
    __table_args__ = (
        Index(None, "user_id"),
        _partial_index("moved_from", "moved_from IS NOT NULL"),
        _partial_index("address_id", "moved_in_at IS NOT NULL"),
        {"sqlite_with_rowid": False},
    )

    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"), primary_key=True)
    is_main: Mapped[bool] = mapped_column(default=True)
    moved_in_at: Mapped[datetime | None]
    moved_from: Mapped[int | None]  # the id of an address
    is_guest: Mapped[bool] = mapped_column(default=False, server_default=false())
    from_source: Mapped[bool] = mapped_column(default=False, server_default=false())
    given_back: Mapped[bool | None]
    unsettled_lists: Mapped[str | None] = mapped_column(String(40_000))


class Preference(Base):
    """What the portal wants for one address on one list, and the last known state at the list manager.

    ``left_by`` is the last active account to leave the address, ``moved_to`` the address that it moved to, and
    ``moved_from`` the address that a move brought this preference from. These are ids without a foreign key, since the
    account or the address may be gone. ``push_result`` is the result of the last add or removal if it did not take,
    ``refusal`` the list manager's message, ``refused_at`` the time. Source: SEMANTICS.
    """

    __tablename__ = "preferences"
    __table_args__ = (
        CheckConstraint("source IN ('user', 'superuser', 'link', 'init', 'list', 'rule', 'import')", name="source"),
        Index(None, "address_id"),
        _partial_index("moved_to", "moved_to IS NOT NULL"),
        _partial_index("list_handle", "subscribed IS NOT seen", "subscribed IS DISTINCT FROM seen"),
        {"sqlite_with_rowid": False},
    )

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id"), primary_key=True)
    subscribed: Mapped[bool]
    source: Mapped[str] = mapped_column(String(9))
    changed_at: Mapped[datetime]
    changed_by: Mapped[int | None]  # the id of a user; no foreign key, the user may be deleted
    version: Mapped[int] = mapped_column(default=0)  # rises with every choice
    touched: Mapped[bool] = mapped_column(default=False)
    seen: Mapped[bool | None]
    waiting_since: Mapped[datetime | None]
    departed: Mapped[bool] = mapped_column(default=False)  # the departure has been dealt with
    moved_to: Mapped[int | None]
    refusal: Mapped[str | None] = mapped_column(String(200))
    refused_at: Mapped[datetime | None]
    password_pushed: Mapped[int | None]  # the version of the list password that was pushed to the list manager
    left_by: Mapped[int | None]
    moved_from: Mapped[int | None]
    push_result: Mapped[str | None] = mapped_column(String(8))


class DisplacedPreference(Base):
    """The preference of an address before an account moved in; ``subscribed`` is NULL if there was none.

    It is kept, so that the move can be undone, until a person chooses there or a run plans to add the address.
    """

    __tablename__ = "displaced_preferences"
    __table_args__ = (Index(None, "address_id", "list_handle"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    list_handle: Mapped[str] = mapped_column(String(64))
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id", ondelete="CASCADE"))
    taken_by: Mapped[int]  # the id of an account
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
    """A subscriber's options as last read from the list manager, to be carried along when the subscriber moves.

    ``words`` is empty if they are the list's defaults.
    """

    __tablename__ = "known_options"
    __table_args__ = (Index(None, "address_id"), {"sqlite_with_rowid": False})

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    address_id: Mapped[int] = mapped_column(ForeignKey("addresses.id", ondelete="CASCADE"), primary_key=True)
    words: Mapped[str] = mapped_column(String(200))
    is_mail_off: Mapped[bool]
    read_at: Mapped[datetime]


class ListReading(Base):
    """A list's schedule for what is read outside its runs: how it delivers to members, at ``due_at``.

    ``asked_at``: a page requested the subscribers without an account, which were last read at ``unknown_read_at``.
    ``message`` says what has failed since.
    """

    __tablename__ = "list_readings"
    __table_args__ = {"sqlite_with_rowid": False}

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    due_at: Mapped[datetime]
    asked_at: Mapped[datetime | None]
    unknown_read_at: Mapped[datetime | None]
    message: Mapped[str] = mapped_column(String(200), default="", server_default=text("''"))


class MemberDelivery(Base):
    """How a list delivers to a member, if not as usual; ``asked_at``: a page requested it."""

    __tablename__ = "member_deliveries"
    __table_args__ = (
        CheckConstraint("mail_off IN ('chosen', 'bounces')", name="mail_off"),
        Index(None, "address_id"),
        Index(None, "asked_at"),  # queried every minute
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
    """A subscriber without an account, read at a superuser's request and kept for a day."""

    __tablename__ = "unknown_subscribers"
    __table_args__ = {"sqlite_with_rowid": False}

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    address: Mapped[str] = mapped_column(String(254))
    read_at: Mapped[datetime]


class History(Base):
    """A change of a preference. Append-only: erasing an address is the only permitted rewrite."""

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
    actor: Mapped[str] = mapped_column(String(80), default="")  # the user's name at the time, or the command line
    reason: Mapped[str] = mapped_column(String(200), default="")


class Run(Base):
    """A run for one list, from its request to its result.

    ``left``, ``joined``, ``initialised`` and ``held`` count lines of its plan; ``added``, ``removed``, ``refused``,
    ``waiting`` and ``no_effect`` count the results of the others. ``slot`` is unique for a waiting run's task, so that
    two requests for the same thing share one run.
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
        Index(None, "list_handle", "started_at"),  # for the last run of a list
        Index(None, "list_handle", "state", "started_at"),  # for its last good run
        Index(None, "state", "asked_at"),  # for runs that wait, and old ones to delete
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    list_handle: Mapped[str] = mapped_column(String(64))
    kind: Mapped[str] = mapped_column(String(8))
    asked_by: Mapped[str] = mapped_column(String(80))  # the user's name at the time, an API key, or the command line
    host: Mapped[str] = mapped_column(String(120), default="")
    started_at: Mapped[datetime]  # or when it was last tried or requested, whichever is latest
    finished_at: Mapped[datetime | None]
    state: Mapped[str] = mapped_column(String(10), default="open")
    message: Mapped[str] = mapped_column(String(400), default="")
    plan_id: Mapped[str | None] = mapped_column(String(16))  # before there is a plan: the only plan that may be applied
    accepted: Mapped[bool] = mapped_column(default=False)
    on_roster: Mapped[int | None]
    without_account: Mapped[int | None]  # on the roster but held by no account
    initialised: Mapped[int] = mapped_column(default=0)
    left: Mapped[int] = mapped_column(default=0)
    joined: Mapped[int] = mapped_column(default=0)
    added: Mapped[int] = mapped_column(default=0)
    removed: Mapped[int] = mapped_column(default=0)
    held: Mapped[int] = mapped_column(default=0)
    refused: Mapped[int] = mapped_column(default=0)
    asked_by_id: Mapped[int | None]  # the id of a user; no foreign key, the user may be deleted
    asked_at: Mapped[datetime | None]  # None if the run did not wait
    slot: Mapped[str | None] = mapped_column(String(96), unique=True)
    pid: Mapped[int | None]  # the process that runs it; for ``pid_space`` see Lease
    pid_space: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))
    waiting: Mapped[int] = mapped_column(default=0, server_default=text("0"))
    no_effect: Mapped[int] = mapped_column(default=0, server_default=text("0"))


class RunLine(Base):
    """A line of a run's plan, and its result.

    ``settled``: the preference reflects the result. Until then the line explains, at the next run, a difference between
    roster and preference as our own action. Lines of a plan that is not carried out are settled from the start.
    ``counts``: in the safety limits, since no person asked for it one by one. ``result`` is "waits" while the line
    waits for approval.
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
    version: Mapped[int]  # of the preference that the plan was made from
    result: Mapped[str | None] = mapped_column(String(8))
    words: Mapped[str] = mapped_column(String(200), default="")
    settled: Mapped[bool] = mapped_column(default=False)
    replaced: Mapped[str | None] = mapped_column(String(1000))  # the preference before a take-over, as JSON
    counts: Mapped[bool] = mapped_column(default=False, server_default=false())


class Restore(Base):
    """The time at which a backup was restored. The first plan of every list after it needs approval as a whole."""

    __tablename__ = "restores"

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]


class Lease(Base):
    """The run that holds a list. ``pid_space`` names the boot and the namespace to which ``pid`` belongs."""

    __tablename__ = "leases"

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    token: Mapped[str] = mapped_column(String(32))
    holder: Mapped[str] = mapped_column(String(160))
    host: Mapped[str] = mapped_column(String(120))
    pid: Mapped[int | None]  # None for a planned run, which outlives the processes of its steps
    expires_at: Mapped[datetime]
    pid_space: Mapped[str] = mapped_column(String(64), default="", server_default=text("''"))


class LoginSession(Base):
    """A log-in session. The cookie holds the token, the row its SHA-256.

    ``is_forwarded``: the request came with X-Forwarded-For. ``confirmed_at``: when the password was last typed.
    ``by_link_at``: when the session began by a mailed link, after which the user may choose a password.
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
    """A change of an account, from ``old`` to ``new`` if it has values. Append-only.

    It outlives the account. After an erasure only the id is left, without values.
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
    """An account's data as the membership source last gave them, in the shape of ``domain.membership.Imported``.

    ``further`` and ``groups`` hold one sorted item a line; addresses are canonical.
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
    """The member key of a deleted account, as an HMAC; ``key`` itself is stored unless the account was erased."""

    __tablename__ = "deleted_keys"

    key_hmac: Mapped[str] = mapped_column(String(64), primary_key=True)
    key: Mapped[str | None] = mapped_column(String(254))
    deleted_at: Mapped[datetime]


class MemberImport(Base):
    """An import of members: its source, its result and who ran it.

    ``rows`` counts members in the source, ``unchanged`` those for whom nothing was written. ``linked_accounts`` counts
    the linked active accounts before the import, ``named`` those of them in the source. ``column`` is the column of
    keys.
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
    asked_by_id: Mapped[int | None]  # the id of a user; no foreign key, the user may be deleted
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
    """A line of an import's plan. ``line`` is its line in the source, ``text`` names the decision.

    ``details`` is the data to write, as JSON. ``fingerprint`` identifies the state of the account when it was planned.
    ``done``: it has been written, or there is nothing to write.
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
    """A superuser's API key. It is shown once; the row holds its prefix and its SHA-256."""

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
    """An attempt that a rate limit counts. ``key`` is a hash, so that no address or IP can be read from it."""

    __tablename__ = "attempts"
    __table_args__ = (Index(None, "key", "at"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64))
    at: Mapped[datetime] = mapped_column(index=True)


class MailRequest(Base):
    """A mail to send: the mailbox and the purpose. The recipient and the text are decided when it is sent.

    ``priority`` is 0 if a person is waiting for the mail, 1 for bulk mail. ``due_at`` is the time of the next try;
    while the mail is being sent, the end of the claim on it. ``may_be_twice``: it was sent again although it may have
    arrived.
    """

    __tablename__ = "outbox"
    __table_args__ = (
        CheckConstraint("state IN ('waiting', 'sending', 'sent', 'refused', 'given up', 'dropped')", name="state"),
        Index(None, "state", "priority", "due_at"),
        Index(None, "priority", "tried_at"),
        Index(None, "ended_at"),  # queried every minute
        Index(None, "mailbox"),
        Index(None, "user_id"),
        _NUMBERED_ONCE,
    )

    id: Mapped[int] = mapped_column(primary_key=True)
    mailbox: Mapped[str] = mapped_column(String(254))  # canonical
    purpose: Mapped[str] = mapped_column(String(16))
    user_id: Mapped[int | None]  # the user whom it is about; no foreign key, the user may be deleted
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
    """A link mailed for one purpose. The mail holds the token, the row its SHA-256.

    ``bound_to`` is a hash of the account's password hash at that time; ``details`` are those of the request.
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
    """How far a history has been read for changes to notify people of; ``number`` is the id of the last line."""

    __tablename__ = "notice_marks"

    name: Mapped[str] = mapped_column(String(16), primary_key=True)
    number: Mapped[int]


class KnownTrouble(Base):
    """A problem with a list that operators were notified of and that persists; ``mailed_at`` is the last mail."""

    __tablename__ = "known_troubles"
    __table_args__ = (CheckConstraint("kind IN ('failed', 'held', 'overdue')", name="kind"),)

    list_handle: Mapped[str] = mapped_column(String(64), primary_key=True)
    kind: Mapped[str] = mapped_column(String(8), primary_key=True)
    began_at: Mapped[datetime]
    mailed_at: Mapped[datetime]
