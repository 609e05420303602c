"""The commands by name. A command's module is imported when it is called; the database and the pages if needed."""

import gc
import logging
from importlib import import_module

import click
from flask.cli import AppGroup, FlaskGroup

from portal.application import Application

# Each command or group, and the modules that add commands to it.
_PLACES = {
    "apikey": ("portal.cli.apikey", "apikey"),
    "db": ("portal.cli.db", "lazy_db"),
    "demo": ("portal.cli.demo", "demo"),
    "mail": ("portal.cli.mail", "mail"),
    "mailinglist": ("portal.cli.mailinglist", "mailinglist"),
    "minutely": ("portal.cli.minutely", "minutely"),
    "portal": ("portal.cli.restored", "portal"),
    "user": ("portal.cli.user", "user"),
}
_WITHOUT_DATABASE = {"minutely"}  # it attaches the database itself if there is something to do
_ADDED_TO = {
    "mailinglist": ("check", "import_preferences", "passwords", "rename", "scripts"),
    "user": ("addresses", "membership"),
}


def register(app: Application) -> None:
    """Add the commands to an application, and all pages unless it is created for a single command."""
    if not is_one_command():
        app.use_pages()
        for name in _PLACES:
            app.cli.add_command(_load(name))
        return
    app.cli = Commands(app)
    app.config["TEMPLATES_AUTO_RELOAD"] = False  # so that Flask does not load the template environment at start
    logging.getLogger("portal.security").addFilter(_name_asker)


def is_one_command() -> bool:
    """Return True if ``flask`` creates the application for one of our commands, so that it serves no requests."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


class Commands(AppGroup):
    """The commands of a process that ends after one of them."""

    def __init__(self, app: Application) -> None:
        super().__init__(app.name)
        self._app = app

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the commands."""
        return sorted({*super().list_commands(ctx), *_PLACES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command or group, after attaching the database if its module needs it."""
        if cmd_name not in _PLACES:
            return super().get_command(ctx, cmd_name)
        if cmd_name not in _WITHOUT_DATABASE:
            self._app.use_database()
        command = _load(cmd_name)
        # Imported objects are never garbage. Scanning them, as Python does at exit, takes a fifth of a command's time.
        gc.freeze()
        return command


def _load(name: str) -> click.Command:
    module, attribute = _PLACES[name]
    command: click.Command = getattr(import_module(module), attribute)
    for each in _ADDED_TO.get(name, ()):
        import_module(f"portal.cli.{each}")
    return command


def _name_asker(record: logging.LogRecord) -> bool:
    """Record in a security event that a command caused it."""
    record.fields = {"by": "command line", **getattr(record, "fields", {})}
    return True
