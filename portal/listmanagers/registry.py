"""The registry that maps kinds of list managers to modules.

A kind is a module with a ``Settings`` Struct for the manager's table and a function ``open_list(settings, list_name)``,
which returns a ListManager. If a module sets ``WANTS_EMAIL = True``, it is called as ``open_list(settings, list_name,
email=...)`` for a list that has no other name in the catalogue than its handle. Other packages register such a module
in the entry-point group ``portal.listmanagers``; they cannot replace a built-in kind.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

from portal.domain.mailinglist import MailingList
from portal.errors import ConfigurationError
from portal.listmanagers import guarded
from portal.listmanagers.base import ListManager

GROUP = "portal.listmanagers"

# Modules by name, so that only those in use are imported.
BUILT_IN = {
    "commands": "portal.listmanagers.commands",
    "file": "portal.listmanagers.file",
    "mailman2": "portal.listmanagers.mailman2",
    "mailman3": "portal.listmanagers.mailman3",
    "mlmmj": "portal.listmanagers.mlmmj",
    "sympa": "portal.listmanagers.sympa",
}


@dataclass(frozen=True, slots=True)
class BoundSettings:
    """A manager's checked settings, and the module that they are for."""

    kind: str
    module: Any
    settings: Any


def read_settings(kind: str, table: Mapping[str, Any], *, folder: Path | None = None) -> BoundSettings:
    """Check a manager's table, without its ``kind``, and bind it to its module.

    A setting of type Path may be relative to ``folder``, which holds the catalogue; without a folder it must be
    absolute. Raise ConfigurationError, which names the key.
    """
    module = _module(kind)

    def path_setting(wanted: type, value: Any) -> Any:
        return _path(value, folder) if wanted is Path else value

    try:
        settings = msgspec.convert(dict(table), module.Settings, dec_hook=path_setting)
    except msgspec.ValidationError as error:
        raise ConfigurationError(f'kind = "{kind}": {_problem(error)}') from None
    return BoundSettings(kind, module, settings)


def open_list(settings: BoundSettings, list_name: str, *, email: str = "") -> ListManager:
    """Return the list manager bound to one list, without calling it. Raise ConfigurationError.

    ``email`` is the list's own address, by which some kinds find the list.
    """
    known = {"email": email} if email and getattr(settings.module, "WANTS_EMAIL", False) else {}
    if settings.kind not in BUILT_IN:
        return guarded.open_list(
            settings.kind, lambda: settings.module.open_list(settings.settings, list_name, **known)
        )
    manager: ListManager = settings.module.open_list(settings.settings, list_name, **known)
    return manager


def open_for(mailing_list: MailingList, managers: Mapping[str, BoundSettings]) -> ListManager:
    """Return the list manager of a list of the catalogue. Raise ConfigurationError."""
    email = mailing_list.email if mailing_list.list_name == mailing_list.handle else ""
    return open_list(managers[mailing_list.manager], mailing_list.list_name, email=email)


def leave_address(mailing_list: MailingList, managers: Mapping[str, BoundSettings]) -> str | None:
    """Return the address by which subscribers leave a list at its list manager, or None if the kind has none."""
    suffix = getattr(managers[mailing_list.manager].module, "LEAVE_SUFFIX", None)
    local, _, domain = mailing_list.email.rpartition("@")
    return f"{local}{suffix}@{domain}" if suffix else None


def _module(kind: str) -> Any:
    if kind in BUILT_IN:
        return import_module(BUILT_IN[kind])
    from importlib.metadata import entry_points  # reads all installed packages, needed only for other packages' kinds

    foreign = {point.name: point for point in entry_points(group=GROUP)}
    if kind not in foreign:
        known = ", ".join(sorted({*BUILT_IN, *foreign}))
        raise ConfigurationError(f'unknown kind "{kind}"; known kinds: {known}')
    try:
        module = foreign[kind].load()
    except (ImportError, AttributeError) as error:
        raise ConfigurationError(f'kind = "{kind}": {foreign[kind].value} cannot be imported: {error}') from None
    except (Exception, SystemExit) as error:
        raise ConfigurationError(
            f'kind = "{kind}": {foreign[kind].value} cannot be imported: {guarded.place_of(error)}'
        ) from None
    missing = [name for name in ("Settings", "open_list") if not hasattr(module, name)]
    if missing:
        raise ConfigurationError(f'kind = "{kind}": {foreign[kind].value} has no {" and no ".join(missing)}')
    return module


def _path(value: Any, folder: Path | None) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError("Expected the name of a folder")
    path = Path(value)
    if path.is_absolute():
        return path
    if folder is None:
        raise ValueError("Expected a path that starts with a slash")
    return folder / path


def _problem(error: msgspec.ValidationError) -> str:
    words = str(error).replace("`$.", "`").replace(" - at `$`", "")
    words = words.replace("Object contains unknown field", "unknown setting")
    return words.replace("Object missing required field", "missing setting")
