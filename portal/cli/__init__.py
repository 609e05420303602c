"""The command groups; `flask db` is imported only when it is called."""

import gc

import click
from flask import Flask


def register(app: Flask) -> None:
    """Attach the command groups."""
    from portal.cli import check, import_preferences, passwords, rename, scripts  # noqa: F401 - commands of `flask mailinglist`
    from portal.cli.apikey import apikey
    from portal.cli.db import lazy_db
    from portal.cli.demo import demo
    from portal.cli.mailinglist import mailinglist
    from portal.cli.restored import portal
    from portal.cli.user import user

    app.cli.add_command(apikey)
    app.cli.add_command(lazy_db)
    app.cli.add_command(demo)
    app.cli.add_command(mailinglist)
    app.cli.add_command(portal)
    app.cli.add_command(user)
    if click.get_current_context(silent=True) is not None:  # `flask` composes the application, for one command
        # What is imported is no garbage; searching it, as Python does once more at its end, is a fifth of a command.
        gc.freeze()
