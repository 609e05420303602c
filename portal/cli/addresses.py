"""`flask user`: add and remove addresses of an account, and choose the main one."""

from collections.abc import Callable
from typing import Any

import click

from portal.cli.output import print_message
from portal.cli.user import has_terminal, user
from portal.domain.address import canonical
from portal.errors import BadInputError, SharedMailboxError
from portal.extensions import db, portal
from portal.services.accounts import address_changes, addresses, profiles
from portal.services.accounts.addresses import Checked
from portal.services.history import COMMAND_LINE

_shared = click.option("--shared", is_flag=True, help="Share an address that another account uses, without asking.")


@user.command("set-address")
@_shared
@click.argument("username")
@click.argument("email")
def set_address(*, username: str, email: str, shared: bool) -> None:
    """Replace a user's main address. Their subscriptions move to the new address.

    If another account uses the address, the command names that account and asks first. Without a terminal, add
    --shared.

    \b
    Example: flask user set-address alice alice@example.net
    """
    user_id, address = profiles.id_of(db.session(), username), _checked(email)

    def change(may_share: bool) -> bool:
        return address_changes.change(
            db.session(),
            user_id,
            address,
            may_share=may_share,
            **_common(),
        )

    _ask_before_sharing(change, shared=shared)
    print_message(f"{username} has the address {address.spelling}")


@user.command("add-address")
@_shared
@click.argument("username", metavar="USER")
@click.argument("email", metavar="ADDRESS")
def add_address(*, username: str, email: str, shared: bool) -> None:
    """Add another address to a user's account.

    Each list still sends to only one of their addresses. If another account uses the address, the command names that
    account and asks first. Without a terminal, add --shared.

    \b
    Example: flask user add-address alice alice@home.example.org
    """
    user_id, address = profiles.id_of(db.session(), username), _checked(email)

    def add(may_share: bool) -> bool:
        return address_changes.add(
            db.session(),
            user_id,
            address,
            may_share=may_share,
            **_common(),
        )

    is_added = _ask_before_sharing(add, shared=shared)
    print_message(f"{username} has the address {address.spelling} {'too' if is_added else 'already'}")


@user.command("remove-address")
@click.argument("username", metavar="USER")
@click.argument("email", metavar="ADDRESS")
def remove_address(*, username: str, email: str) -> None:
    """Remove one of a user's addresses, but not the main one. Its lists then send to the main address.

    \b
    Example: flask user remove-address alice alice@home.example.org
    """
    user_id, address = profiles.id_of(db.session(), username), canonical(email)
    address_changes.remove(db.session(), user_id, address, **_common())
    print_message(f"{username} no longer has the address {email}")


@user.command("make-main")
@click.argument("username", metavar="USER")
@click.argument("email", metavar="ADDRESS")
def make_main(*, username: str, email: str) -> None:
    """Make another of a user's addresses the main one.

    New subscriptions and mails then use it. Existing subscriptions do not change.

    \b
    Example: flask user make-main alice alice@home.example.org
    """
    user_id, address = profiles.id_of(db.session(), username), canonical(email)
    is_changed = address_changes.make_main(db.session(), user_id, address, **_common())
    print_message(f"{email} is {'now' if is_changed else 'already'} the main address of {username}")


def _common() -> dict[str, Any]:
    """Return the arguments of every change of addresses."""
    return {"actor": COMMAND_LINE, "now": portal().clock(), "lists": portal().known_lists()}


def _checked(email: str) -> Checked:
    return addresses.checked(email, special_domains=portal().settings.allowed_special_domains)


def _ask_before_sharing(take: Callable[[bool], bool], *, shared: bool) -> bool:
    """Take an address; if another account uses it, ask first. Raise BadInputError."""
    try:
        return take(shared)
    except SharedMailboxError as error:
        if not has_terminal():
            raise BadInputError(f"{error}; to share it, add --shared") from None
        click.confirm(f"{error}. Share it?", abort=True, err=True)
        return take(True)
