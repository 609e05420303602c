"""`flask user import` and related commands: accounts follow the membership source."""

from collections.abc import Iterator
from datetime import datetime
from typing import BinaryIO

import click

from portal.cli.output import as_text_or_json, print_dry_run, print_json, print_message, print_table
from portal.cli.user import user
from portal.errors import SafetyLimitError
from portal.extensions import db, portal
from portal.services.history import COMMAND_LINE
from portal.services.membership import importing, linking, merging, old_leavers
from portal.services.membership.importing import Report, Request
from portal.services.membership.merging import Merged
from portal.services.membership.runs import ImportLine

_OF_ONE_VALUE = {"name", "address", "username", "key"}
_WANTED = {True: "subscribed", False: "unsubscribed", None: "not chosen"}
_SHOWN = 20  # problems of one import that are printed
_COUNTED = ("created", "linked", "changed", "reactivated", "deactivated", "reported", "problems")


@user.command("import")
@click.option("--key", metavar="COLUMN", help="Column with the member keys, which identify accounts.")
@click.option(
    "--leavers",
    type=click.Choice(["keep", "deactivate"]),
    help="What to do with linked accounts that are no longer in the file.  [default: keep; without FILE: as set]",
)
@click.option("--dry-run", is_flag=True, help="Print the plan; change nothing.")
@click.option("--accept", metavar="ID", help="Approve exactly the plan with this id.")
@as_text_or_json
@click.argument("file", type=click.File("rb"), required=False)
def import_(
    *, file: BinaryIO | None, key: str | None, leavers: str | None, dry_run: bool, accept: str | None, form: str
) -> None:
    """Create, link and change accounts from a file of the current members.

    FILE can be - for standard input. Without FILE, the membership source of portal.toml is read. If --key or
    portal.toml names a key column, accounts follow the file from one import to the next. Otherwise each line creates an
    account, unless its username is taken. The first line of the file must name the columns: username and email, and
    optionally name, groups and password_hash (bcrypt), unless portal.toml names others.

    \b
    Example: flask user import --key number members.csv
    """
    request = _request(file, key=key, leavers=leavers)
    if dry_run:
        _print_plan(importing.preview(db.session(), request), form)
        _count_old_leavers(is_source=file is None)
        print_dry_run()
        return
    try:
        report = importing.run(db.session(), request, accept=accept)
    except SafetyLimitError as error:
        again = f"check it with --dry-run, then run again with: --accept {error.plan_id}"
        raise SafetyLimitError(f"{error}; {again}", plan_id=error.plan_id) from None
    _print_report(report, form, is_quiet=file is None)
    before = _leavers_go_before() if file is None else None
    if before is not None:
        old_leavers.delete(db.session(), before=before, clock=portal().clock, lists=portal().known_lists())


def _request(file: BinaryIO | None, *, key: str | None, leavers: str | None) -> Request:
    settings = portal().settings
    content, source = (file.read(), _named(file)) if file else portal().membership_source()
    if leavers is None and settings.membership and not file:
        leavers = settings.membership.leavers
    return importing.make_request(
        settings,
        content,
        source=source,
        key=key,
        leavers=leavers,
        actor=COMMAND_LINE,
        clock=portal().clock,
        lists=portal().known_lists(),
        secret=portal().list_password_key(),
    )


def _leavers_go_before() -> datetime | None:
    """Return the time before which leavers must have left to be deleted now; None if they are never deleted."""
    membership = portal().settings.membership
    months = membership.months_of_leavers if membership else None
    return None if months is None else old_leavers.months_before(portal().clock(), months)


def _count_old_leavers(*, is_source: bool) -> None:
    before = _leavers_go_before() if is_source else None
    if before is not None and (number := old_leavers.count(db.session(), before=before)):
        print_message(f"accounts of leavers from before {before:%Y-%m-%d} that will be deleted: {number}")


def _named(file: BinaryIO) -> str:
    name = getattr(file, "name", "-")
    return "standard input" if name in {"-", "<stdin>"} else f"file {name}"


def _print_plan(report: Report, form: str) -> None:
    if form == "json":
        print_json(report.as_json())
        return
    headings = ("WOULD", "KEY", "USERNAME", "NAME", "WHAT")
    rows = [(each.action, each.key, each.username, each.name, _in_words(each)) for each in report.lines]
    if rows:
        print_table(headings, rows)
    _print_notes(report)
    print_message(_totals(report))
    if report.excess:
        print_message(f"this import needs approval, since {report.excess}; to approve it: --accept {report.plan_id}")


def _print_report(report: Report, form: str, *, is_quiet: bool) -> None:
    """Print the result of an import; for the source that cron imports, only new problems."""
    if form == "json":
        print_json(report.as_json())
        return
    if not is_quiet:
        _print_notes(report)
    new = [each for each in report.lines if each.number in report.new]
    for each in new[:_SHOWN]:
        print_message(f"{_place(each)}: {each.why}")
    if len(new) > _SHOWN:
        print_message(f"and {len(new) - _SHOWN} more")
    if not is_quiet or new:
        print_message(_totals(report))


def _print_notes(report: Report) -> None:
    if report.encoding == "Windows-1252":
        print_message("the file is not UTF-8; it was read as Windows-1252")
    if report.ignored:
        print_message(f"ignored columns: {', '.join(report.ignored)}")


def _totals(report: Report) -> str:
    words = (f"{number} {name}" for name in _COUNTED if (number := report.counts[name]))
    return ", ".join(words).replace("1 problems", "1 problem") or "nothing to do"


def _place(line: ImportLine) -> str:
    where = f"line {line.line}" if line.line is not None else "not in the source"
    who = " ".join(filter(None, (line.key and f"key {line.key}", line.username)))
    return f"{where} ({who})" if who else where


def _in_words(line: ImportLine) -> str:
    parts = [
        f"{each.field}: {' '.join(each.removed) or '-'} -> {' '.join(each.added)}"
        if each.field in _OF_ONE_VALUE
        else f"{each.field}: {', '.join([*(f'-{one}' for one in each.removed), *(f'+{one}' for one in each.added)])}"
        for each in line.changes
    ]
    return "; ".join([*parts, *filter(None, [line.why])])


@user.command()
@click.argument("username")
@click.argument("key")
def link(*, username: str, key: str) -> None:
    """Link an account to the membership source. KEY is the person's key there.

    \b
    Example: flask user link alice 1027
    """
    linking.link(db.session(), username, key, secret=portal().list_password_key())
    print_message(f"{username} is linked to {key}; the next import updates the account from the source")


@user.command()
@click.argument("username")
def unlink(*, username: str) -> None:
    """Make an account local, so that no import changes or deactivates it.

    \b
    Example: flask user unlink alice
    """
    print_message(f"{username} is no longer linked to {linking.unlink(db.session(), username)}")


@user.command("forget-key")
@click.argument("key")
def forget_key(*, key: str) -> None:
    """Allow imports to create an account again for a KEY whose account was deleted.

    \b
    Example: flask user forget-key 1027
    """
    linking.forget_key(db.session(), key, secret=portal().list_password_key())
    print_message(f"the next import can create an account for {key} again")


@user.command()
@click.option("--keep-key", metavar="KEY", help="Member key to keep, if both accounts have one.")
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.argument("gone", metavar="FROM")
@click.argument("kept", metavar="INTO")
def merge(*, gone: str, kept: str, keep_key: str | None, dry_run: bool) -> None:
    """Move everything from the account FROM to INTO, and delete FROM.

    INTO gets the addresses and groups of FROM, and its member key if INTO has none. INTO keeps its own username,
    password and main address. A list that both accounts were on then sends to one address.

    \b
    Example: flask user merge alice2 alice
    """
    do = merging.preview if dry_run else merging.merge
    done = do(
        db.session(),
        merging.Merge(gone, kept, keep_key),
        now=portal().clock(),
        lists=portal().known_lists(),
        secret=portal().list_password_key(),
    )
    for words in _merged_in_words(done):
        print_message(words)
    if dry_run:
        print_dry_run()
    else:
        print_message(f"{done.gone} is merged into {done.kept}")


def _merged_in_words(done: Merged) -> Iterator[str]:
    if done.addresses:
        yield f"{done.kept} gains the addresses {', '.join(done.addresses)}"
    if done.groups:
        yield f"{done.kept} gains the groups {', '.join(done.groups)}"
    if done.key is not None:
        yield f"{done.kept} has the member key {done.key}"
    if done.dropped_key is not None:
        yield f"the member key {done.dropped_key} is treated as that of a deleted account"
    if not done.is_active:
        yield f"{done.kept} is deactivated, and stays deactivated"
    for each in done.subscriptions:
        yield f"{each.list_handle}: {each.address} was {_WANTED[each.before]}, and is now {_WANTED[each.after]}"
