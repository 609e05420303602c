"""`flask mailinglist import`: preferences from IXP Manager."""

from typing import TYPE_CHECKING, BinaryIO

import click

from portal.cli.mailinglist import mailinglist
from portal.cli.output import as_text_or_json, print_dry_run, print_json, print_message, print_table
from portal.extensions import db, portal

if TYPE_CHECKING:
    from portal.services.preferences.from_ixp_manager import ImportResult


@mailinglist.command("import")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@as_text_or_json
@click.argument("file", type=click.File("rb"))
def import_(*, file: BinaryIO, dry_run: bool, form: str) -> None:
    """Import preferences from an export of IXP Manager, for users who have none yet.

    FILE is CSV with the first line username,email,attribute,value, or a JSON array of objects with these names; - is
    standard input. attribute is mailinglist.HANDLE.subscribed, and value is 1 or 0. Existing preferences are never
    changed. Entries that cannot be imported are reported, and the others are imported.

    \b
    Example: flask mailinglist import --dry-run preferences.csv
    """
    from portal.services.preferences.from_ixp_manager import import_preferences

    found = import_preferences(
        db.session(),
        file.read(),
        catalogue=portal().catalogue(),
        now=portal().clock(),
        is_dry=dry_run,
    )
    if form == "json":
        print_json(found)
    else:
        print_table(("LIST", "SUBSCRIBED", "UNSUBSCRIBED", "REFUSED", "KEPT"), found.lists)
    _print_skipped(found)
    if dry_run:
        print_dry_run()


def _print_skipped(found: "ImportResult") -> None:
    for each in found.skipped:
        print_message(f"{each.reason}: {each.times}")
        for example in each.examples:
            print_message(f"  {example}")
        if each.times > len(each.examples):
            print_message(f"  and {each.times - len(each.examples)} more")
