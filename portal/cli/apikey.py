"""`flask apikey`: keys to the API."""

import click

from portal.cli.output import CommandGroup, as_text_or_json, print_json, print_message, print_table
from portal.extensions import db, portal
from portal.services.accounts import api_keys


@click.group("apikey", cls=CommandGroup)
def apikey() -> None:
    """Make keys to the API for superusers, look at them, and end them."""


@apikey.command()
@click.option("--label", required=True, metavar="TEXT", help="What the key is for, to tell it from others.")
@click.option(
    "--expires-days",
    type=click.IntRange(1, api_keys.LONGEST_LIFE),
    metavar="N",
    help="After how many days it is good no longer; without, it is good until it is revoked.",
)
@click.argument("username")
def create(*, username: str, label: str, expires_days: int | None) -> None:
    """Make a key that acts for a superuser, and print it, alone on a line, this once.

    \b
    Example: flask apikey create bob --label "list host" > portal.key
    """
    key = api_keys.create(db.session(), username, label=label, expires_days=expires_days, now=portal().clock())
    print_message("keep this key safe: it cannot be shown again")
    click.echo(key)


@apikey.command("list")
@as_text_or_json
def list_(*, form: str) -> None:
    """Print what is known of all keys, the newest first; never the keys themselves.

    \b
    Example: flask apikey list
    """
    found = api_keys.list_keys(db.session())
    if form == "json":
        print_json(found)
        return
    print_table(("PREFIX", "OWNER", "ACTIVE", "LABEL", "MADE", "EXPIRES", "REVOKED", "LAST USED"), found)


@apikey.command()
@click.argument("prefix")
def revoke(*, prefix: str) -> None:
    """End a key, at once and for good. Its prefix is what the list shows of it.

    \b
    Example: flask apikey revoke mp_k4hq7w2x
    """
    is_new = api_keys.revoke(db.session(), prefix, now=portal().clock())
    print_message(f"revoked {prefix}" if is_new else f"{prefix} had been revoked before: nothing changed")
