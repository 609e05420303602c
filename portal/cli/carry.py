"""`flask mailinglist import` and `rename`: preferences that come from elsewhere, or from under another handle."""

from typing import TYPE_CHECKING, BinaryIO

import click

from portal.cli.mailinglist import mailinglist
from portal.cli.output import as_text_or_json, print_json, print_message, print_table
from portal.extensions import db, portal

if TYPE_CHECKING:
    from portal.services.preferences.from_ixp_manager import Imported


@mailinglist.command("import")
@click.option("--overwrite", is_flag=True, help="Let a no in the file win over a yes that is stored.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@as_text_or_json
@click.argument("file", type=click.File("rb"))
def import_(*, file: BinaryIO, overwrite: bool, dry_run: bool, form: str) -> None:
    """Take over preferences as IXP Manager stores them, for those who have none yet; - is standard input.

    FILE is CSV, or JSON with an object a line or in an array. Each record names a user by username or email, and has
    attribute (mailinglist.HANDLE.subscribed) and value (1 or 0), or prefs ({"mailinglist": {"HANDLE": "1"}}). What
    cannot be taken over is told, and stops nothing. A no that is stored is never made a yes.

    \b
    Example: flask mailinglist import --dry-run preferences.csv
    """
    from portal.services.preferences.from_ixp_manager import import_preferences

    found = import_preferences(
        db.session(),
        file.read(),
        catalogue=portal().catalogue(),
        now=portal().clock(),
        overwrite=overwrite,
        is_dry=dry_run,
    )
    if form == "json":
        print_json(found)
    else:
        print_table(("LIST", "SUBSCRIBED", "UNSUBSCRIBED", "OVERWRITTEN", "REFUSED", "KEPT"), found.lists)
    _tell_skipped(found)
    if dry_run:
        print_message("nothing was written: --dry-run")


def _tell_skipped(found: "Imported") -> None:
    for each in found.skipped:
        print_message(f"{each.reason}: {each.times}")
        for example in each.examples:
            print_message(f"  {example}")
        if each.times > len(each.examples):
            print_message(f"  and {each.times - len(each.examples)} more")
    if found.undecided:
        print_message(f"neither yes nor no stored: {found.undecided}")
    if found.ignored:
        print_message(f"preferences about other things: {found.ignored}")


@mailinglist.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def rename(*, old: str, new: str) -> None:
    """Carry a list's preferences, history and runs over to a new handle.

    NEW stands in mailinglists.toml and was never used; OLD stands there no more. All is carried over or nothing.

    \b
    Example: flask mailinglist rename members everybody
    """
    from portal.services.preferences.rename import rename as carry_over

    carried = carry_over(db.session(), old, new, catalogue=portal().catalogue())
    words = {"run_lines": "lines of runs"}
    counts = ", ".join(f"{words.get(name, name)}: {count}" for name, count in carried._asdict().items())
    print_message(f"{old} is {new} now; carried over: {counts}")
