"""The commands by name. The module of one is imported when it is called, and the database and the pages when needed."""

import gc
import logging
from importlib import import_module

import click
from flask.cli import AppGroup, FlaskGroup

from portal.application import Application

# The command or group of each name, and the modules that add commands to it.
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
_WITHOUT_DATABASE = {"minutely"}  # it attaches the database when there is something to do
_ADDED_TO = {
    "mailinglist": ("check", "import_preferences", "passwords", "rename", "scripts"),
    "user": ("addresses", "membership"),
}


def register(app: Application) -> None:
    """Give an application its commands, and all pages unless it is composed for one command."""
    if not is_one_command():
        app.use_pages()
        for name in _PLACES:
            app.cli.add_command(_load(name))
        return
    app.cli = Commands(app)
    app.config["TEMPLATES_AUTO_RELOAD"] = False  # unless told, Flask asks for the templates at its start
    logging.getLogger("portal.security").addFilter(_name_asker)


def is_one_command() -> bool:
    """Return True if the program ``flask`` composes an application for one of our commands: it serves nobody then."""
    context = click.get_current_context(silent=True)
    return context is not None and isinstance(context.command, FlaskGroup)


class Commands(AppGroup):
    """The commands of a process that does nothing after one of them."""

    def __init__(self, app: Application) -> None:
        super().__init__(app.name)
        self._app = app

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names."""
        return sorted({*super().list_commands(ctx), *_PLACES})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command or group, with the database attached that its module asks for."""
        if cmd_name not in _PLACES:
            return super().get_command(ctx, cmd_name)
        if cmd_name not in _WITHOUT_DATABASE:
            self._app.use_database()
        command = _load(cmd_name)
        # What is imported is no garbage; searching it, as Python does once more at its end, is a fifth of a command.
        gc.freeze()
        return command


def _load(name: str) -> click.Command:
    module, attribute = _PLACES[name]
    command: click.Command = getattr(import_module(module), attribute)
    for each in _ADDED_TO.get(name, ()):
        import_module(f"portal.cli.{each}")
    return command


def _name_asker(record: logging.LogRecord) -> bool:
    """Say of an event of the security log that a command caused it."""
    record.fields = {"by": "command line", **getattr(record, "fields", {})}
    return True
