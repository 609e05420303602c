"""The configuration: ``portal.toml``, ``PORTAL_*`` variables and ``mailinglists.toml`` as frozen, checked values."""

import codecs
import errno
import os
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from portal import translation
from portal.domain.address import canonical, printable
from portal.domain.mailinglist import HANDLE, MailingList, SafetyLimits, in_language
from portal.errors import ConfigurationError, DisabledError, InvalidAddressError, UnknownListError

if TYPE_CHECKING:  # only members' imports need them
    from portal.domain.membership import Limits
    from portal.domain.membership_file import Columns

_NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]*\Z"
_NO_CONTROLS_BUT_LINES = r"^[^\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]*\Z"
_WEB_ADDRESS = r"^https?://[^\s/?#@]+(/[^\s\x00-\x1f\x7f]*)?\Z"
# Errors show the host and the port. Neither may hold an @, or part of a password could be taken for them.
_SERVER = r"([^@\s]*@)?(\[[0-9A-Fa-f:.]+\]|[^@/?:\[\s]*)(:[0-9]+)?(?=[/?]|\Z)"
_DATABASE = rf"^(sqlite:///|postgresql\+psycopg://{_SERVER})[^\s\x00-\x1f\x7f]*\Z"
_LIST_NAME = r"^[^-./\s\x00-\x1f\x7f-\x9f][^/\s\x00-\x1f\x7f-\x9f]*\Z"  # neither an option nor a path

_PATH = re.compile(r"(/[A-Za-z0-9_~-]+)*/?")  # only characters that all browsers and web servers write in the same way

# How an error message describes a pattern.
_WORDS = {
    _NO_CONTROLS: "without control characters",
    _NO_CONTROLS_BUT_LINES: "without control characters",
    _WEB_ADDRESS: "that starts with http:// or https:// and a host",
    _LIST_NAME: "without white space or slashes, and without a dash or a dot at the start",
    _DATABASE: "that starts with sqlite:/// or postgresql+psycopg:// (write %40 for each @ in the password)",
}

_HOST = r"^(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9_]([A-Za-z0-9_.:-]*[A-Za-z0-9_])?)\Z"
_WORDS[_HOST] = "that is a host name or an IP address"

Line = Annotated[str, Meta(min_length=1, max_length=120, pattern=_NO_CONTROLS)]
Text = Annotated[str, Meta(max_length=1000, pattern=_NO_CONTROLS_BUT_LINES)]
WebAddress = Annotated[str, Meta(max_length=500, pattern=_WEB_ADDRESS)]


_PORTS = {"none": 25, "starttls": 587, "tls": 465}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SmtpSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The mail server and the credentials for it. ``docs/configuration.md`` explains each setting."""

    host: Annotated[str, Meta(max_length=253, pattern=_HOST)]
    port: Annotated[int, Meta(ge=1, le=65535)] | None = None
    security: Literal["none", "starttls", "tls"] = "starttls"
    user: Line | None = None
    password_file: Line | None = None

    def __post_init__(self) -> None:
        """Check what a pattern cannot. Raise ValueError, which names the setting."""
        if (self.user is None) != (self.password_file is None):
            raise ValueError("`user` and `password_file` must be set together")
        if self.user is not None and self.security == "none" and self.host not in _LOOPBACK:
            raise ValueError('`security = "none"` would send the password unencrypted; use "starttls" or "tls"')

    @property
    def port_in_use(self) -> int:
        """The port, or the usual one for the kind of security if none is set."""
        return self.port or _PORTS[self.security]


class MailSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How mail is sent, and which mails go out unrequested. ``docs/configuration.md`` explains each setting."""

    sender: Line
    smtp: SmtpSettings | None = None
    sendmail: Line | None = None
    folder: Line | None = None
    reply_to: Line | None = None
    operators: tuple[Line, ...] = ()
    tell_members: bool = False
    mails_per_minute: Annotated[int, Meta(ge=1, le=100_000)] = 60

    def __post_init__(self) -> None:
        """Check what a pattern cannot. Raise ValueError, which names the setting."""
        if [self.smtp, self.sendmail, self.folder].count(None) != 2:
            raise ValueError("`mail` needs exactly one of `smtp`, `sendmail` and `folder`")
        for name, address in [
            ("sender", self.sender),
            *([("reply_to", self.reply_to)] if self.reply_to else []),
            *(("operators", each) for each in self.operators),
        ]:
            _require_address(name, address)
        try:
            has_command = self.sendmail is None or bool(self.sendmail_argv)
        except ValueError:
            has_command = False
        if not has_command:
            raise ValueError("`sendmail` is not a valid command: it is empty, or a closing quotation mark is missing")

    @property
    def sendmail_argv(self) -> list[str]:
        """The arguments of the command, split as a shell would split them."""
        return shlex.split(self.sendmail or "")


def _require_address(name: str, text: str) -> None:
    try:
        canonical(text)
    except InvalidAddressError:
        raise ValueError(f"`{name}` is not an e-mail address") from None


class MembershipColumns(Struct, frozen=True, forbid_unknown_fields=True):
    """The columns of the membership source that are read; ``name`` and ``username`` may combine several."""

    key: Line | None = None
    username: Line | None = None
    email: Line = "email"
    name: Line | None = None
    groups: str | tuple[Line, ...] = ()  # with a pattern here, msgspec 0.22 frees memory twice
    password_hash: Line | None = None

    def __post_init__(self) -> None:
        """Check what a pattern would. Raise ValueError, which names the setting."""
        if isinstance(self.groups, str) and not (1 <= len(self.groups) <= 120 and re.search(_NO_CONTROLS, self.groups)):
            raise ValueError("`groups` must be one line of 1 to 120 characters")


class MembershipLimits(Struct, frozen=True, forbid_unknown_fields=True):
    """How much one import may do without approval."""

    leavers: Annotated[int, Meta(ge=0)] = 5
    leavers_percent: Annotated[int, Meta(ge=0, le=100)] = 10
    addresses: Annotated[int, Meta(ge=0)] = 25
    addresses_percent: Annotated[int, Meta(ge=0, le=100)] = 25


class MembershipSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """The membership source, and what an import does. ``timeout`` is in seconds."""

    file: Line | None = None
    command: Annotated[str, Meta(min_length=1, max_length=1000, pattern=_NO_CONTROLS)] | None = None
    timeout: Annotated[float, Meta(gt=0, le=3600)] = 60
    encoding: Line | None = None
    columns: MembershipColumns = MembershipColumns()
    group_separator: Annotated[str, Meta(min_length=1, max_length=3, pattern=_NO_CONTROLS)] = ";"
    leavers: Literal["deactivate", "keep"] = "deactivate"
    invite: bool = False
    delete_leavers_after: Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,2} months\Z")] | None = None
    safety_limits: MembershipLimits = MembershipLimits()

    def __post_init__(self) -> None:
        """Check what a pattern cannot. Raise ValueError, which names the setting."""
        if self.file is not None and self.command is not None:
            raise ValueError("`membership` has both `file` and `command`; set only one of them")
        if self.command is not None:
            try:
                argv = shlex.split(self.command)
            except ValueError as error:
                raise ValueError(f"`membership.command` is not a valid shell command: {error}") from None
            if not argv or ("/" in argv[0] and not argv[0].startswith("/")):
                raise ValueError(
                    "`membership.command` must begin with a program, given by its name or its absolute path"
                )
        if self.encoding is not None:
            try:
                codecs.lookup(self.encoding)
            except LookupError:
                raise ValueError(f"`membership.encoding` is not a known encoding: {_cut(self.encoding)}") from None

    @property
    def has_source(self) -> bool:
        """Whether members can be imported without naming a file."""
        return self.file is not None or self.command is not None

    @property
    def months_of_leavers(self) -> int | None:
        """The number of months after which leavers' accounts are deleted; None for never."""
        return int(self.delete_leavers_after.split()[0]) if self.delete_leavers_after else None

    def file_columns(self, *, key: str | None = None) -> "Columns":
        """Return the columns to read a file by; ``key`` overrides the configured one."""
        from portal.domain.membership_file import Columns

        wanted = self.columns
        groups = (wanted.groups,) if isinstance(wanted.groups, str) else wanted.groups
        return Columns(
            email=wanted.email,
            username=wanted.username,
            key=key or wanted.key,
            name=wanted.name,
            groups=groups,
            group_separator=self.group_separator,
            password_hash=wanted.password_hash,
        )

    @property
    def limits(self) -> "Limits":
        """The safety limits for judging a plan."""
        from portal.domain.membership import Limits

        return Limits(**msgspec.structs.asdict(self.safety_limits))


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The portal's own settings. Sizes are in bytes. ``docs/configuration.md`` explains each."""

    site_name: Line = "Member portal"
    base_url: WebAddress = "http://localhost:8000"
    timezone: Line = "UTC"
    allowed_special_domains: tuple[Line, ...] = ()
    bcrypt_rounds: Annotated[int, Meta(ge=4, le=17)] = 12
    max_body: Annotated[int, Meta(ge=1024, le=1024**3)] = 1024**2
    max_roster: Annotated[int, Meta(ge=1024, le=1024**3)] = 32 * 1024**2
    log_ins_per_hour_from_one_place: Annotated[int, Meta(ge=1, le=1_000_000)] = 60
    trusted_proxies: Annotated[int, Meta(ge=0, le=10)] = 0
    sqlalchemy_database_uri: Annotated[str, Meta(pattern=_DATABASE)] | None = None
    security_log: Line = "security.log"
    paused: bool = False
    help_contact: Line | None = None
    imprint_url: WebAddress | None = None
    privacy_url: WebAddress | None = None
    languages: Annotated[tuple[Line, ...], Meta(min_length=1)] = ("en", "de")
    mail: MailSettings | None = None
    membership: MembershipSettings | None = None

    def __post_init__(self) -> None:
        """Check what a pattern cannot. Raise ValueError, which names the setting."""
        if self.membership is not None and self.membership.invite and self.mail is None:
            raise ValueError("`membership.invite` needs mail; add a table [mail]")
        there = translation.available()
        unknown = [each for each in self.languages if each not in there]
        if unknown:
            raise ValueError(
                f"`languages` has {_cut(unknown[0])}, which is not available; the available languages are: "
                f"{', '.join(there)}"
            )
        try:
            port = urlsplit(self.base_url).port
        except ValueError:
            port = 0
        if port == 0:
            raise ValueError("`base_url` has an invalid host or port")
        if self.is_https and ":" in (urlsplit(self.base_url).hostname or ""):
            raise ValueError("`base_url` has an IPv6 address as its host; with https, use a host name")
        if not _PATH.fullmatch(urlsplit(self.base_url).path) or {"?", "#"} & set(self.base_url):
            raise ValueError(
                "`base_url` may have only letters, digits, dashes and underscores in its path, and no ? or #"
            )
        try:
            ZoneInfo(self.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            raise ValueError(
                "`timezone` is not in the IANA time zone database; use a name such as Europe/Dublin"
            ) from None

    @property
    def is_https(self) -> bool:
        """Whether browsers reach the portal over HTTPS."""
        return urlsplit(self.base_url).scheme == "https"

    def security_log_in(self, instance: Path) -> Path | None:
        """Return the path of the security log, relative to the instance folder; None for stderr."""
        return None if self.security_log == "-" else instance / self.security_log

    @property
    def path(self) -> str:
        """The path of the portal on its host; empty if it is at the root."""
        return urlsplit(self.base_url).path.rstrip("/")


def load_settings(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Read ``portal.toml`` in a folder; PORTAL_* variables override it. Raise ConfigurationError."""
    path = folder / "portal.toml"
    settings = _convert(path, _read_toml(path) or {}, Settings)
    for key in Settings.__struct_fields__:
        name = f"PORTAL_{key.upper()}"
        if name in environ and key not in _TABLES:
            values = {**msgspec.structs.asdict(settings), key: _from_variable(key, environ[name])}
            settings = _convert(name, values, Settings, strict=False)
    return settings


_TABLES = frozenset({"mail", "membership"})  # settings that only the file can have


def _from_variable(key: str, text: str) -> object:
    if key in {"allowed_special_domains", "languages"}:
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text


class _SafetyLimitsEntry(Struct, frozen=True, forbid_unknown_fields=True):
    removals: Annotated[int, Meta(ge=0)] | None = None
    removals_percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    additions: Annotated[int, Meta(ge=0)] | None = None
    additions_percent: Annotated[int, Meta(ge=0)] | None = None

    def over(self, level_above: SafetyLimits) -> SafetyLimits:
        present = {key: value for key in self.__struct_fields__ if (value := getattr(self, key)) is not None}
        return replace(level_above, **present)


_Departure = Literal["remove", "keep"]


class _ListEntry(Struct, frozen=True, forbid_unknown_fields=True):
    # With a pattern on a text that may also be a table, msgspec 0.22 frees memory twice.
    name: Annotated[str, Meta(min_length=1, max_length=120)] | Annotated[dict[str, Line], Meta(min_length=1)]
    email: Line
    desc: Annotated[str, Meta(max_length=1000)] | Annotated[dict[str, Text], Meta(min_length=1)] = ""
    archive: WebAddress | None = None
    syncpws: bool = True
    manager: str | None = None
    list: Annotated[str, Meta(min_length=1, max_length=120, pattern=_LIST_NAME)] | None = None
    audience: tuple[Line, ...] | None = None
    honour_list_changes: bool | None = None
    on_departure: _Departure | None = None
    safety_limits: _SafetyLimitsEntry = _SafetyLimitsEntry()
    paused: bool | None = None
    section: Line | None = None
    new_members: Literal["subscribed"] | None = None
    apply: Literal["at once"] | None = None
    can_leave: bool = True
    listed: bool = True
    settings_url: WebAddress | None = None

    def __post_init__(self) -> None:
        """Check what a pattern cannot. Raise ValueError, which names the setting."""
        for setting, text, pattern in (("name", self.name, _NO_CONTROLS), ("desc", self.desc, _NO_CONTROLS_BUT_LINES)):
            if isinstance(text, str) and not re.search(pattern, text):
                raise ValueError(f"expected text {_WORDS[pattern]} - at `{setting}`")
        place, braces, rest = (self.settings_url or "").partition("{address}")
        if {"{", "}"} & set(place + rest) or (braces and place.count("/") < 3):
            raise ValueError("`settings_url` may contain {address} once, after the host, and no other braces")


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    enabled: Any = False
    applied_within_hours: Annotated[int, Meta(ge=1, le=24 * 366)] = 12
    honour_list_changes: bool = True
    on_departure: _Departure = "remove"
    safety_limits: _SafetyLimitsEntry = _SafetyLimitsEntry()
    paused: bool = False
    lists: dict[str, Any] = {}
    managers: dict[str, Any] = {}


@dataclass(frozen=True)
class Catalogue:
    """The contents of ``mailinglists.toml``: the lists, and the list managers that own them.

    ``managers`` maps a manager's name to the settings that ``read_manager`` returned for its table, ``lists`` a handle
    to its list; ``where`` is the path of the file.
    """

    enabled: bool
    applied_within_hours: int
    lists: Mapping[str, MailingList]
    managers: Mapping[str, Any]
    where: str = "mailinglists.toml"

    def require_enabled(self) -> None:
        """Raise DisabledError if the facility is not enabled."""
        if not self.enabled:
            raise DisabledError(f"mailing lists are not enabled: set enabled = true in {self.where}")

    def get(self, handle: str) -> MailingList:
        """Return the list with a handle. Raise DisabledError or UnknownListError."""
        self.require_enabled()
        try:
            return self.lists[handle]
        except KeyError:
            known = ", ".join(self.lists) or "none"
            raise UnknownListError(f"unknown list: {_cut(handle)} (lists in mailinglists.toml: {known})") from None

    def in_language(self, language: str) -> "Catalogue":
        """Return the catalogue with the lists' names and descriptions in a language."""
        if language not in self._in_languages:
            lists = {handle: each.in_language(language) for handle, each in self.lists.items()}
            self._in_languages[language] = replace(self, lists=lists)
        return self._in_languages[language]

    @cached_property
    def _in_languages(self) -> dict[str, "Catalogue"]:
        return {}

    @cached_property
    def audiences(self) -> frozenset[str]:
        """All groups in the audience of any list."""
        return frozenset().union(*(each.audience or frozenset() for each in self.lists.values()))


def load_catalogue(
    path: Path, read_manager: Callable[[str, Mapping[str, Any]], Any], *, is_paused: bool = False
) -> Catalogue:
    """Read the catalogue; a missing file means that the facility is disabled.

    ``read_manager(kind, table)`` checks one manager's table and returns its settings. ``is_paused`` pauses every list,
    whatever the file says. Raise ConfigurationError, which names the file and the key.
    """
    found = _read_toml(path)
    file = _convert(path, found or {}, _File)
    managers = {name: _manager(path, name, table, read_manager) for name, table in file.managers.items()}
    lists = {handle: _mailing_list(path, file, handle, table) for handle, table in file.lists.items()}
    never_added = frozenset(canonical(each.email) for each in lists.values())
    _require_one_handle_each(path, lists, managers)
    lists = {
        handle: replace(each, never_added=never_added, is_paused=is_paused or each.is_paused)
        for handle, each in lists.items()
    }
    return Catalogue(
        enabled=file.enabled is True,
        applied_within_hours=file.applied_within_hours,
        lists=lists,
        managers=managers,
        where=f"{path}, which does not exist" if found is None else str(path),
    )


def _require_one_handle_each(path: Path, lists: Mapping[str, MailingList], managers: Mapping[str, Any]) -> None:
    """Raise ConfigurationError if two handles mean one list at one list manager: each would undo the other's changes.

    Two managers with the same settings count as one.
    """
    known: list[MailingList] = []
    for each in lists.values():
        for other in known:
            if other.list_name == each.list_name and managers[other.manager] == managers[each.manager]:
                raise ConfigurationError(
                    f"{path}: lists.{other.handle} and lists.{each.handle} are the same list, {_cut(each.list_name)} "
                    f"at {_cut(each.manager)}; remove one of them, or give it a different `list`"
                )
        known.append(each)


def _manager(path: Path, name: str, table: Any, read_manager: Callable[[str, Mapping[str, Any]], Any]) -> Any:
    where = f"{path}: managers.{_cut(name)}"
    kind = table.get("kind") if isinstance(table, dict) else None
    if not isinstance(kind, str):
        raise ConfigurationError(f'{where}: set `kind`, for example kind = "mailman2"')
    try:
        return read_manager(kind, {key: value for key, value in table.items() if key != "kind"})
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error}{_advice(str(error), _File)}") from None


def _mailing_list(path: Path, file: _File, handle: str, table: Any) -> MailingList:
    where = f"{path}: lists.{_cut(handle)}"
    if not HANDLE.fullmatch(handle):
        raise ConfigurationError(
            f"{where}: a handle may contain a-z, 0-9, dots, dashes and underscores, must start with a letter or a "
            "digit, and may have at most 64 characters"
        )
    entry = _convert(where, table, _ListEntry)
    try:
        canonical(entry.email)
    except InvalidAddressError as error:
        raise ConfigurationError(f"{where}: `email`: {error}") from None
    honours = file.honour_list_changes if entry.honour_list_changes is None else entry.honour_list_changes
    return MailingList(
        handle=handle,
        name=in_language(entry.name, translation.ENGLISH),
        description=in_language(entry.desc, translation.ENGLISH),
        names=entry.name if isinstance(entry.name, dict) else {},
        descriptions=entry.desc if isinstance(entry.desc, dict) else {},
        email=entry.email,
        archive=entry.archive,
        sync_passwords=entry.syncpws,
        manager=_manager_of(where, file, entry.manager),
        list_name=entry.list or handle,
        audience=None if entry.audience is None else frozenset(entry.audience),
        honour_list_changes=honours,
        remove_on_departure=(entry.on_departure or file.on_departure) == "remove",
        safety_limits=entry.safety_limits.over(file.safety_limits.over(SafetyLimits())),
        is_paused=file.paused if entry.paused is None else entry.paused,
        section=entry.section,
        is_listed=entry.listed,
        can_leave=entry.can_leave,
        subscribes_new_members=entry.new_members == "subscribed",
        is_applied_at_once=entry.apply == "at once",
        settings_url=entry.settings_url,
    )


def _manager_of(where: str, file: _File, named: str | None) -> str:
    if named is None and len(file.managers) == 1:
        return next(iter(file.managers))
    if not file.managers:
        raise ConfigurationError(f"{where}: the file defines no list manager; add a table such as [managers.mailman]")
    known = ", ".join(map(_cut, file.managers))
    if named is None:
        raise ConfigurationError(f"{where}: set `manager` to one of those under [managers]: {known}")
    if named not in file.managers:
        raise ConfigurationError(
            f"{where}: `manager` is {_cut(named)}, which is not defined under [managers]; defined: {known}"
        )
    return named


def _read_toml(path: Path) -> dict[str, Any] | None:
    """Return the contents of a file, or None if it is missing."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        return None
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigurationError(f"{path}: line {line} is not in UTF-8; save the file as UTF-8") from None
    except (ValueError, RecursionError) as error:  # includes TOMLDecodeError, and integers with too many digits
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        advice = "; let the portal's user read the file and enter its folder" if error.errno == errno.EACCES else ""
        reason = os.strerror(error.errno or 0) + advice
        raise ConfigurationError(f"{path}: cannot be read: {reason}") from None


_Struct = TypeVar("_Struct", bound=Struct)


def _convert(where: Path | str, table: Any, kind: type[_Struct], *, strict: bool = True) -> _Struct:
    """Convert a table to a Struct. Raise ConfigurationError, which names the file and the key."""
    try:
        return msgspec.convert(table, kind, strict=strict)
    except msgspec.ValidationError as error:
        words = _in_toml_words(str(error))
        raise ConfigurationError(f"{where}: {words}{_advice(words, Settings if kind is Settings else _File)}") from None


def _advice(words: str, top: type[Struct]) -> str:
    """Return what to do about a setting that is in a table but belongs above all tables."""
    unknown = re.search("unknown setting `([a-z_]+)`", words)
    is_misplaced = unknown is not None and unknown[1] in top.__struct_fields__
    return "; move it to the top of the file, above the first [table]" if is_misplaced else ""


def _in_toml_words(words: str) -> str:
    """Return a message of msgspec in the words of TOML and of this portal."""
    for pattern, meaning in _WORDS.items():
        words = words.replace(f"matching regex {pattern!r}", meaning)
    for theirs, ours in (
        (" | null`", "`"),
        ("Object contains unknown field", "unknown setting"),
        ("Object missing required field", "missing setting"),
        ("Expected", "expected"),
        ("`$.", "`"),
        ("`object`", "a table"),
        ("`array`", "a list"),
        ("`str`", "text"),
        ("`int`", "a whole number"),
        ("`float`", "a fraction"),
        ("`bool`", "true or false"),
    ):
        words = words.replace(theirs, ours)
    return words


def _cut(text: str) -> str:
    return printable(text, limit=64)
