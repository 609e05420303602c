"""`flask mailinglist sync-script`: a readable shell script that does what `sync` does."""

import os
import shlex
import sys
from pathlib import Path

import click
from flask import current_app, render_template

from portal.cli.mailinglist import mailinglist
from portal.cli.output import print_message
from portal.extensions import portal

HERE, OVER_API = "mailing-list-sync.sh", "mailing-list-sync-apiv1.sh"


@mailinglist.command("sync-script")
@click.option(
    "--api", "over_api", is_flag=True, help="For a host with the list managers and curl, but without the portal."
)
def sync_script(*, over_api: bool) -> None:
    """Print a shell script that keeps all lists up to date, for cron on the list managers' own host.

    With --api, the script calls the portal over HTTP. Lists that it cannot sync are reported on standard error.

    \b
    Example: flask mailinglist sync-script --api > mailing-list-sync-apiv1.sh
    """
    from portal.services.sync.scripts import scripted_lists

    lists = scripted_lists(portal().catalogue(), portal().open_list_manager)
    name = OVER_API if over_api else HERE
    click.echo(
        render_template(
            f"scripts/{name}",
            name=name,
            option=" --api" if over_api else "",
            lists=lists,
            base_url=shlex.quote(portal().settings.base_url),
            flask_app=shlex.quote(os.environ.get("FLASK_APP", "portal")),
            instance=shlex.quote(current_app.instance_path),
            folder=shlex.quote(str(Path.cwd())),
            python=shlex.quote(sys.executable),
        )
    )
    for each in lists:
        if each.steps is None and over_api:
            print_message(
                f"{each.handle}: only the portal can reach {each.manager}; run: flask mailinglist sync {each.handle}"
            )
    if not over_api and "PORTAL_SQLALCHEMY_DATABASE_URI" in os.environ:
        print_message("the script does not contain PORTAL_SQLALCHEMY_DATABASE_URI; set it where the script runs")
