"""Commands: `flask mailinglist`, `flask user`, `flask demo`, and `flask db`, which is imported only when called."""

import gc

from flask import Flask

# What is imported and composed from here to ``register`` is no garbage; looking for some among it all is a good
# part of what every command's start costs.
gc.disable()


def register(app: Flask) -> None:
    """Attach the command groups."""
    from portal.cli import check, import_preferences, passwords, rename, scripts  # noqa: F401 - commands of `flask mailinglist`
    from portal.cli.apikey import apikey
    from portal.cli.db import lazy_db
    from portal.cli.demo import demo
    from portal.cli.mailinglist import mailinglist
    from portal.cli.user import user

    app.cli.add_command(apikey)
    app.cli.add_command(lazy_db)
    app.cli.add_command(demo)
    app.cli.add_command(mailinglist)
    app.cli.add_command(user)
    gc.enable()
