"""`flask portal restored`: what to do after a backup was restored."""

from pathlib import Path

import click
from flask import current_app

from portal.cli.output import CommandGroup, as_text_or_json, print_json, print_message, print_table
from portal.extensions import db
from portal.extensions import portal as running


@click.group("portal", cls=CommandGroup)
def portal() -> None:
    """Manage the portal as a whole."""


@portal.command()
@as_text_or_json
def restored(*, form: str) -> None:
    """Make the portal safe after a backup was restored. Run it before cron and the service start again.

    Ends all sessions and mailed links, drops waiting mails and requested runs, and makes the next plan of every list
    wait for approval. Prints the API keys and the superusers in the backup, and what the security log has since then
    about keys, roles, accounts and passwords. Keys and roles that were revoked since then are valid again until you
    revoke them again.

    \b
    Example: flask portal restored
    """
    from portal.services.sync.restore import mark_restored

    log = running().settings.security_log_in(Path(current_app.instance_path))
    found = mark_restored(db.session(), log=log, now=running().clock())
    if form == "json":
        print_json(found)
        return
    dropped = f"runs dropped: {found.runs_dropped}; mails dropped: {found.mails_dropped}"
    print_message(f"log-ins ended: {found.log_ins_ended}; {dropped}")
    print_message("the next plan of every list needs approval: flask mailinglist sync --dry-run")
    print_table(("KEY", "OWNER", "ACTIVE", "LABEL", "CREATED", "EXPIRES", "REVOKED", "LAST USED"), found.keys)
    click.echo()
    print_table(("USER", "SUPERUSER", "ACTIVE"), found.superusers)
    click.echo()
    rows = [(each["at"], each["event"], each.get("user"), each.get("api_key")) for each in found.events]
    print_table(("SINCE THE BACKUP", "EVENT", "USER", "KEY"), rows)
