"""`flask mailinglist rename`: move a list to another handle."""

import click

from portal.cli.mailinglist import mailinglist
from portal.cli.output import print_message
from portal.extensions import db, portal


@mailinglist.command()
@click.argument("old", metavar="OLD")
@click.argument("new", metavar="NEW")
def rename(*, old: str, new: str) -> None:
    """Move a list's preferences, history and runs to a new handle.

    NEW must be in mailinglists.toml and must never have been used. OLD must no longer be in it. Either everything is
    moved, or nothing.

    \b
    Example: flask mailinglist rename members everybody
    """
    from portal.services.preferences.rename import rename as carry_over

    carried = carry_over(db.session(), old, new, catalogue=portal().catalogue())
    words = {"run_lines": "lines of runs"}
    counts = ", ".join(f"{words.get(name, name)}: {count}" for name, count in carried._asdict().items())
    print_message(f"{old} is now {new}; moved: {counts}")
