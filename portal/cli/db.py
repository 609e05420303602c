"""`flask db`: Flask-Migrate, imported only when it is called, because it imports Alembic."""

from pathlib import Path

import click
from flask import g


class _Lazy(click.Group):
    """Flask-Migrate's commands, without the cost of importing them."""

    def _loaded(self) -> click.Group:
        from flask import current_app
        from flask_migrate import Migrate
        from flask_migrate.cli import db as commands

        from portal.extensions import db

        if "migrate" not in current_app.extensions:
            Migrate(current_app, db, directory=str(Path(__file__).parents[1] / "migrations"))
        group: click.Group = commands
        return group

    def list_commands(self, ctx: click.Context) -> list[str]:
        return self._loaded().list_commands(ctx)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return self._loaded().get_command(ctx, cmd_name)


def _options() -> None:
    g.directory, g.x_arg = None, ()  # as Flask-Migrate's own group sets them from its options


lazy_db = _Lazy("db", callback=_options, help="Create or update the database tables: flask db upgrade.")
