"""`flask demo`: fill an empty instance folder with a demo."""

import os
import shlex
import sys
from pathlib import Path

import click
from flask import current_app
from flask.cli import with_appcontext

from portal.cli.output import SingleCommand
from portal.extensions import db, portal


@click.command("demo", cls=SingleCommand)
@with_appcontext
def demo() -> None:
    """Create a demo in an empty instance folder and an empty database, and print how to use it.

    If either is not empty, nothing is changed.

    \b
    Example: PORTAL_INSTANCE=instance/demo flask demo
    """
    from portal.services import demo as service

    folder = Path(current_app.instance_path)
    tools = service.DemoServices(portal().catalogue, portal().open_list_manager, portal().settings.bcrypt_rounds)
    if service.make(db.session(), folder, tools=tools, now=portal().clock()):
        click.echo(f"Created the demo in {_near(folder)}: a dozen people and three lists.")
    elif service.is_there(db.session(), folder):
        click.echo(f"The demo is already in {_near(folder)}. Nothing was changed.")
    else:
        click.echo(f"No demo was created, because {_near(folder)} or the database is not empty. Nothing was changed.")
        return
    _show_the_way(folder, service.PASSWORD)


def _show_the_way(folder: Path, password: str) -> None:
    program = shlex.join([_near(Path(sys.executable)), "-m", "flask", "--app", "portal"])
    flask = f"PORTAL_INSTANCE={shlex.quote(_near(folder))} {program}"
    click.echo(
        f"""
  Look at     {portal().settings.base_url}
  Log in as   alice     a member, in the board group
              bob       a superuser, who sees the reports
              charlie   who has two addresses
              dora      who shares a mailbox with Erin
              heidi     who was invited a moment ago: her mail is at {portal().settings.base_url.rstrip("/")}/demo/mail
  Password    {password}
  Run a sync  {flask} mailinglist sync -v
  Members     are in {_near(folder / "members.csv")}: edit it, and see what an import would do
              {flask} user import --dry-run
"""
    )


def _near(path: Path) -> str:
    """Return the shortest form of a path that can be typed from the current folder."""
    relative = os.path.relpath(path)
    return str(path) if relative.startswith("..") else relative
