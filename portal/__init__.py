"""The member portal: members tick mailing lists, cron makes the list manager agree, superusers see reports."""

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from portal import cli, faults, membership_source
from portal.application import Application
from portal.config import load_catalogue, load_settings
from portal.errors import ConfigurationError
from portal.listmanagers import registry
from portal.running import CatalogueLoader, Portal
from portal.secrets import read_or_make
from portal.services import security_log


def create_app(config: Mapping[str, Any] | None = None, *, environ: Mapping[str, str] = os.environ) -> Application:
    """Create the application; ``config`` overrides Flask's own settings, for tests. Raise ConfigurationError."""
    try:
        return _compose(config or {}, environ)
    except ConfigurationError as error:
        raise faults.StartError(str(error)) from None


def _compose(config: Mapping[str, Any], environ: Mapping[str, str]) -> Application:
    folder = environ.get("PORTAL_INSTANCE")
    app = Application(__name__, instance_path=str(Path(folder).resolve()) if folder else None)
    instance = Path(app.instance_path)
    settings = load_settings(instance, environ)
    instance.mkdir(parents=True, exist_ok=True)
    app.config.from_mapping(
        SECRET_KEY=read_or_make(instance / "secret_key"),
        SQLALCHEMY_DATABASE_URI=settings.sqlalchemy_database_uri or f"sqlite:///{instance / 'portal.db'}",
    )
    app.config.from_mapping(config)
    security_log.write_to(settings.security_log_in(instance), instance=instance)

    read_manager = partial(registry.read_settings, folder=instance)
    path = instance / "mailinglists.toml"
    catalogue = CatalogueLoader(partial(load_catalogue, path, read_manager, is_paused=settings.paused))
    app.extensions["portal"] = Portal(
        settings=settings,
        catalogue=catalogue,
        clock=lambda: datetime.now(UTC),
        open_list_manager=lambda each: registry.open_for(each, catalogue().managers),
        list_password_key=lambda: read_or_make(instance / "list_password_key").encode("ascii"),
        membership_source=partial(membership_source.read, settings.membership, folder=instance),
        leave_address=lambda each: registry.leave_address(each, catalogue().managers),
    )
    cli.register(app)
    return app
