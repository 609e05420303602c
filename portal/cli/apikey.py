"""`flask apikey`: API keys."""

import click

from portal.cli.output import CommandGroup, as_text_or_json, print_json, print_message, print_table
from portal.extensions import db, portal
from portal.services.accounts import api_keys


@click.group("apikey", cls=CommandGroup)
def apikey() -> None:
    """Create, list and revoke API keys of superusers."""


@apikey.command()
@click.option("--label", required=True, metavar="TEXT", help="What the key is for.")
@click.option(
    "--expires-days",
    type=click.IntRange(1, api_keys.LONGEST_LIFE),
    metavar="N",
    help="Number of days until the key expires. By default, it does not expire.",
)
@click.argument("username")
def create(*, username: str, label: str, expires_days: int | None) -> None:
    """Create a key that acts for a superuser.

    The key is printed once, on a line of its own.

    \b
    Example: flask apikey create bob --label "list host" > portal.key
    """
    key = api_keys.create(db.session(), username, label=label, expires_days=expires_days, now=portal().clock())
    print_message("keep this key safe: it cannot be shown again")
    click.echo(key)


@apikey.command("list")
@as_text_or_json
def list_(*, form: str) -> None:
    """List all keys, newest first. The keys themselves are never printed.

    \b
    Example: flask apikey list
    """
    found = api_keys.list_keys(db.session())
    if form == "json":
        print_json(found)
        return
    print_table(("PREFIX", "OWNER", "ACTIVE", "LABEL", "CREATED", "EXPIRES", "REVOKED", "LAST USED"), found)


@apikey.command()
@click.argument("prefix")
def revoke(*, prefix: str) -> None:
    """Revoke a key immediately. This cannot be undone.

    `flask apikey list` prints the prefixes.

    \b
    Example: flask apikey revoke mp_k4hq7w2x
    """
    is_new = api_keys.revoke(db.session(), prefix, now=portal().clock())
    print_message(f"revoked {prefix}" if is_new else f"{prefix} was already revoked; nothing changed")
