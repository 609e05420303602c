"""Configuration: ``portal.toml``, ``PORTAL_*`` variables and ``mailinglists.toml`` as frozen, checked values."""

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import msgspec
from msgspec import Meta, Struct

from portal.domain.mailinglist import HANDLE, Brake, MailingList
from portal.errors import ConfigurationError, DisabledError, UnknownListError

Line = Annotated[str, Meta(min_length=1, max_length=120, pattern=r"^[^\x00-\x1f\x7f]*$")]
Text = Annotated[str, Meta(max_length=1000)]


class Settings(Struct, frozen=True, forbid_unknown_fields=True):
    """The portal's own settings. Sizes are in bytes. ``docs/configuration.md`` explains each."""

    site_name: Line = "Member portal"
    base_url: str = "http://localhost:8000"
    timezone: str = "UTC"
    allowed_special_domains: tuple[str, ...] = ()
    bcrypt_rounds: Annotated[int, Meta(ge=4, le=17)] = 12
    max_body: Annotated[int, Meta(ge=1024)] = 1024 * 1024
    max_roster: Annotated[int, Meta(ge=1024)] = 64 * 1024 * 1024
    sqlalchemy_database_uri: str | None = None

    @property
    def is_https(self) -> bool:
        """Tell whether browsers reach the portal by HTTPS."""
        return urlsplit(self.base_url).scheme == "https"

    @property
    def host(self) -> str:
        """Return the host, with its port where there is one, that browsers reach the portal by."""
        return urlsplit(self.base_url).netloc


def load_settings(folder: Path, environ: Mapping[str, str]) -> Settings:
    """Read ``portal.toml`` in a folder, overlaid by PORTAL_* variables. Raise ConfigurationError."""
    path = folder / "portal.toml"
    values = _read_toml(path) if path.exists() else {}
    settings = _convert(path, values, Settings)
    overlay = {
        key: environ[f"PORTAL_{key.upper()}"]
        for key in Settings.__struct_fields__
        if f"PORTAL_{key.upper()}" in environ
    }
    read = {key: _from_variable(key, text) for key, text in overlay.items()}
    settings = _convert("PORTAL_* variables", {**msgspec.to_builtins(settings), **read}, Settings)
    _check_settings(settings, path)
    return settings


def _from_variable(key: str, text: str) -> object:
    if key == "allowed_special_domains":
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return int(text) if text.isascii() and text.isdigit() and key not in {"site_name"} else text


def _check_settings(settings: Settings, path: Path) -> None:
    url = urlsplit(settings.base_url)
    if url.scheme not in {"http", "https"} or not url.netloc or url.query or url.fragment:
        raise ConfigurationError(f"{path}: base_url is not an http or https URL: {settings.base_url}")
    try:
        ZoneInfo(settings.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        raise ConfigurationError(
            f"{path}: timezone is not one of the IANA database, such as Europe/Dublin: {settings.timezone}"
        ) from None


class _BrakeEntry(Struct, frozen=True, forbid_unknown_fields=True):
    count: Annotated[int, Meta(ge=0)] | None = None
    percent: Annotated[int, Meta(ge=0, le=100)] | None = None
    add_count: Annotated[int, Meta(ge=0)] | None = None
    add_percent: Annotated[int, Meta(ge=0)] | None = None

    def over(self, level_above: Brake) -> Brake:
        present = {key: value for key in self.__struct_fields__ if (value := getattr(self, key)) is not None}
        return replace(level_above, **present)


_Departure = Literal["remove", "keep"]


class _ListEntry(Struct, frozen=True, forbid_unknown_fields=True):
    name: Line
    email: Line
    desc: Text = ""
    archive: Annotated[str, Meta(pattern=r"^https?://[^\s]+$", max_length=500)] | None = None
    syncpws: bool = True
    manager: str | None = None
    list: Line | None = None
    audience: tuple[Line, ...] | None = None
    honour_list_changes: bool | None = None
    on_departure: _Departure | None = None
    brake: _BrakeEntry = _BrakeEntry()


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    enabled: Any = False
    applied_within_hours: Annotated[int, Meta(ge=1, le=24 * 366)] = 12
    honour_list_changes: bool = True
    on_departure: _Departure = "remove"
    brake: _BrakeEntry = _BrakeEntry()
    lists: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - msgspec copies it
    managers: dict[str, dict[str, Any]] = {}  # noqa: RUF012 - msgspec copies it


@dataclass(frozen=True)
class Catalogue:
    """``mailinglists.toml``: the lists on offer and the list managers that keep them.

    ``managers`` maps a manager's name to what ``read_manager`` made of its table.
    """

    enabled: bool
    applied_within_hours: int
    lists: Mapping[str, MailingList]
    managers: Mapping[str, Any]

    def require_enabled(self) -> None:
        """Raise DisabledError where the facility is not enabled."""
        if not self.enabled:
            raise DisabledError("mailing lists are not enabled: set enabled = true in mailinglists.toml")

    def get(self, handle: str) -> MailingList:
        """Return the list of a handle. Raise DisabledError or UnknownListError."""
        self.require_enabled()
        try:
            return self.lists[handle]
        except KeyError:
            known = ", ".join(self.lists) or "none"
            raise UnknownListError(f"unknown list: {_cut(handle)} (in mailinglists.toml: {known})") from None

    @cached_property
    def audiences(self) -> frozenset[str]:
        """Return every group that some list names."""
        return frozenset().union(*(each.audience or frozenset() for each in self.lists.values()))


def load_catalogue(path: Path, read_manager: Callable[[str, Mapping[str, Any]], Any]) -> Catalogue:
    """Read the catalogue; a missing file means that the facility is disabled.

    ``read_manager(kind, table)`` checks one manager's table and returns its settings. Raise ConfigurationError, which
    names the file and the key.
    """
    if not path.exists():
        return Catalogue(enabled=False, applied_within_hours=12, lists={}, managers={})
    file = _convert(path, _read_toml(path), _File)
    managers = {name: _manager(path, name, table, read_manager) for name, table in file.managers.items()}
    lists = {handle: _mailing_list(path, file, handle, table) for handle, table in file.lists.items()}
    return Catalogue(
        enabled=file.enabled is True,
        applied_within_hours=file.applied_within_hours,
        lists=lists,
        managers=managers,
    )


def _manager(
    path: Path, name: str, table: Mapping[str, Any], read_manager: Callable[[str, Mapping[str, Any]], Any]
) -> Any:
    kind = table.get("kind")
    if not isinstance(kind, str):
        raise ConfigurationError(f'{path}: managers.{name} needs a kind, for example kind = "mailman2"')
    try:
        return read_manager(kind, {key: value for key, value in table.items() if key != "kind"})
    except ConfigurationError as error:
        raise ConfigurationError(f"{path}: managers.{name}: {error}") from None


def _mailing_list(path: Path, file: _File, handle: str, table: Mapping[str, Any]) -> MailingList:
    where = f"{path}: lists.{_cut(handle)}"
    entry = _convert(where, table, _ListEntry)
    if not HANDLE.fullmatch(handle):
        raise ConfigurationError(
            f"{where}: a handle is made of a-z, 0-9, dot, dash and underscore, starts with a letter or digit, "
            "and is at most 64 characters long"
        )
    manager = entry.manager or (next(iter(file.managers)) if len(file.managers) == 1 else None)
    if manager is None:
        raise ConfigurationError(f"{where}: there are {len(file.managers)} managers, so it must name its manager")
    if manager not in file.managers:
        raise ConfigurationError(f"{where}: manager names {manager!r}, which is not under [managers]")
    list_name = entry.list or handle
    if list_name.startswith("-"):
        raise ConfigurationError(f"{where}: list starts with a dash, which a command would take for an option")
    honours = file.honour_list_changes if entry.honour_list_changes is None else entry.honour_list_changes
    return MailingList(
        handle=handle,
        name=entry.name,
        description=entry.desc,
        email=entry.email,
        archive=entry.archive,
        sync_passwords=entry.syncpws,
        manager=manager,
        list_name=list_name,
        audience=None if entry.audience is None else frozenset(entry.audience),
        honour_list_changes=honours,
        remove_on_departure=(entry.on_departure or file.on_departure) == "remove",
        brake=entry.brake.over(file.brake.over(Brake())),
    )


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as stream:
            return tomllib.load(stream)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read: {os.strerror(error.errno or 0)}") from None


_Struct = TypeVar("_Struct", bound=Struct)


def _convert(where: Path | str, table: Mapping[str, Any], kind: type[_Struct]) -> _Struct:
    """Read a table into a Struct. Raise ConfigurationError, which names the place and the key."""
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        words = str(error).replace("`$.", "`").replace("Object contains unknown field", "there is no setting")
        raise ConfigurationError(f"{where}: {words.replace('Object missing required field', 'it needs')}") from None


def _cut(text: str) -> str:
    return text if len(text) <= 64 else text[:63] + "…"
