"""`flask mailinglist password-sync` and `changepw-script`: list passwords, and the helper for Mailman 2."""

import click

from portal.cli.mailinglist import mailinglist
from portal.cli.output import print_message
from portal.extensions import db, portal


@mailinglist.command("password-sync")
@click.option("--all", "everyone", is_flag=True, help="Set all of them, including those that were set before.")
@click.option("--noexec", is_flag=True, help="Print the commands, without passwords; do not run them.")
@click.option("-v", "--verbose", is_flag=True, help="Print the addresses and their number.")
@click.argument("handle", metavar="LIST")
def password_sync(*, handle: str, everyone: bool, noexec: bool, verbose: bool) -> None:
    """Set new and replaced list passwords at the list manager.

    Prints nothing if all is well. These are not the passwords for logging in to the portal.

    \b
    Example: flask mailinglist password-sync members
    """
    from portal.services.sync import list_passwords

    mailing_list = portal().catalogue().get(handle)
    manager = portal().open_list_manager(mailing_list)
    if not list_passwords.takes(manager, mailing_list):
        print_message(f"{handle}: {list_passwords.why_none(mailing_list)}")
        return
    key = portal().list_password_key()
    if noexec:
        calls, addresses = list_passwords.preview(db.session(), mailing_list, manager, key=key, everyone=everyone)
        for call in calls:
            click.echo(call)
        _print_addresses(handle, addresses, "to set", is_verbose=verbose)
        return
    found = list_passwords.push(db.session(), mailing_list, manager, key=key, everyone=everyone)
    for address, words in found.refused:
        print_message(f"{handle}: the list manager did not set the password of {address}: {words}")
    _print_addresses(handle, found.done, "set", is_verbose=verbose)


def _print_addresses(handle: str, addresses: tuple[str, ...], done: str, *, is_verbose: bool) -> None:
    """Print the addresses on stderr, since stdout may hold commands."""
    if is_verbose:
        for address in addresses:
            print_message(f"{handle}: {address}")
        print_message(f"{handle}: passwords {done}: {len(addresses)}")


@mailinglist.command("changepw-script")
def changepw_script() -> None:
    """Print the helper that sets list passwords in Mailman 2.

    Save it in the folder of Mailman's withlist.

    \b
    Example: flask mailinglist changepw-script > /usr/local/mailman/bin/changepw.py
    """
    from flask import render_template

    portal().catalogue().require_enabled()
    click.echo(render_template("scripts/changepw.py.txt"))


@mailinglist.command("memberoptions-script")
def memberoptions_script() -> None:
    """Print the helper that keeps digest and no-mail settings in Mailman 2 when members change their address.

    Save it in the folder of Mailman's withlist.

    \b
    Example: flask mailinglist memberoptions-script > /usr/local/mailman/bin/memberoptions.py
    """
    from flask import render_template

    portal().catalogue().require_enabled()
    click.echo(render_template("scripts/memberoptions.py.txt"))
