"""`flask mailinglist`: the mailing lists, from cron, in pipes and by hand."""

import sys
from functools import partial
from typing import TYPE_CHECKING, BinaryIO

import click
from flask import current_app

from portal.cli.output import (
    CommandGroup,
    as_text_or_json,
    cell_text,
    moment,
    print_dry_run,
    print_json,
    print_message,
    print_table,
    watched,
    write_lines,
)
from portal.cli.report_tables import history_table, numbers_table, report_table, runs_table
from portal.cli.sync import SyncOptions, code_of, print_news, run_lists, run_requested, show_endings
from portal.domain.address import canonical
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.errors import UnknownUserError
from portal.extensions import db, portal

if TYPE_CHECKING:
    from portal.services.sync.roster_input import RosterUse

# Services are imported where they are used, because commands that cron runs every minute must start fast.


@click.group("mailinglist", cls=CommandGroup)
def mailinglist() -> None:
    """Keep the lists of mailinglists.toml up to date with what members chose.

    Write `--` before an address that begins with a dash.
    """


_limit = click.option(
    "--limit", type=click.IntRange(min=1), default=50, show_default=True, help="Maximum number of lines."
)
_of_list = click.option("--list", "handle", metavar="LIST", help="Only this list.")
_planned = click.option("--planned", is_flag=True, help="Print the addresses of the open planned run instead.")


@mailinglist.command()
@as_text_or_json
def lists(*, form: str) -> None:
    """Print the lists of the catalogue, with the number of addresses subscribed to each.

    \b
    Example: flask mailinglist lists
    """
    from portal.services.reports import lists as list_reports

    catalogue = portal().catalogue()
    rows = list_reports.catalogue(db.session(), catalogue, now=portal().clock())
    if form == "json":
        print_json(rows)
        return
    headings = ("LIST", "NAME", "ADDRESS", "SUBSCRIBED", "UNSUBSCRIBED", "NOT CHOSEN", "AUDIENCE", "MANAGER")
    print_table(headings, [row[: len(headings)] for row in rows])


@mailinglist.command("list-init")
@click.option("--allow-empty", is_flag=True, help="Accept a roster without any address.")
@click.option("--skip-invalid", is_flag=True, help="Skip lines that cannot be read. Check these lines first.")
@click.option("--plan", is_flag=True, help="Start a planned run: make a plan from this roster, push nothing.")
@click.option("--accept", metavar="ID", help="With --plan: approve exactly this plan.")
@click.option("--confirm", is_flag=True, help="End the planned run, with the roster as it is after pushing.")
@click.option("--abandon", is_flag=True, help="Abandon the planned run, so that the next run does not have to wait.")
@click.option("--token", help="With --confirm or --abandon: end only the run with this token, which --plan printed.")
@as_text_or_json
@click.argument("handle", metavar="LIST")
@click.argument("file", type=click.File("rb"), default="-")
def list_init(
    *,
    handle: str,
    file: BinaryIO,
    allow_empty: bool,
    skip_invalid: bool,
    plan: bool,
    accept: str | None,
    confirm: bool,
    abandon: bool,
    token: str | None,
    form: str,
) -> None:
    """Set preferences from a roster, for addresses that have none yet.

    The roster is read from FILE, or from standard input, with one address per line. Addresses on the roster become
    subscribed, and the others unsubscribed. Existing preferences are never changed, and subscribers without an account
    are left alone. If a line cannot be read, nothing is changed.

    \b
    Example: list_members members | flask mailinglist list-init members
    """
    from portal.services.sync.roster_input import RosterUse, carry_out

    use = RosterUse(plan=plan, confirm=confirm, abandon=abandon, accept=accept, allow_empty=allow_empty, token=token)
    _require_one_use(use)
    mailing_list = portal().catalogue().get(handle)
    manager = partial(portal().open_list_manager, mailing_list)
    text = _roster_text(file, skip_invalid=skip_invalid)
    counts, sync_result = carry_out(
        db.session(), mailing_list, text, clock=portal().clock, use=use, open_manager=manager
    )
    if sync_result is not None:
        print_news(mailing_list, sync_result)
    if form == "json":
        print_json(counts)
        return
    for name, count in counts.items():
        click.echo(f"{name}: {count}")


def _roster_text(file: BinaryIO, *, skip_invalid: bool) -> RosterText:
    """Return the reader of a file or of standard input, whose last line may have been cut off."""
    is_piped = getattr(file, "name", "<stdin>") == "<stdin>"
    return RosterText(watched(file), ends_with_newline=is_piped, skip_invalid=skip_invalid)


def _require_one_use(use: "RosterUse") -> None:
    if use.plan + use.confirm + use.abandon > 1:
        raise click.UsageError("use only one of --plan, --confirm and --abandon")
    if use.accept is not None and not use.plan:
        raise click.UsageError("--accept can only be used with --plan")
    if use.token is not None and not (use.confirm or use.abandon):
        raise click.UsageError("--token can only be used with --confirm or --abandon")


@mailinglist.command("get-subscribed")
@_planned
@click.argument("handle", metavar="LIST")
def get_subscribed(*, handle: str, planned: bool) -> None:
    """Print the addresses that should be on a list, one per line, sorted.

    \b
    Example: flask mailinglist get-subscribed members | add_members -r - -w n -a n members
    """
    from portal.services.sync import wanted

    mailing_list = portal().catalogue().get(handle)
    write_lines(wanted.export(db.session(), mailing_list, Action.ADD, is_planned=planned))


@mailinglist.command("get-unsubscribed")
@_planned
@click.argument("handle", metavar="LIST")
def get_unsubscribed(*, handle: str, planned: bool) -> None:
    """Print the addresses that should not be on a list, one per line, sorted.

    These include addresses that no account holds any more.

    \b
    Example: flask mailinglist get-unsubscribed members | remove_members -f - -n -N members
    """
    from portal.services.sync import wanted

    mailing_list = portal().catalogue().get(handle)
    write_lines(wanted.export(db.session(), mailing_list, Action.REMOVE, is_planned=planned))


@mailinglist.command()
@click.option("--dry-run", is_flag=True, help="Print what would be done; change nothing.")
@click.option("--accept", metavar="ID", help="Approve exactly this plan.")
@click.option("--requested", is_flag=True, help="Carry out only the runs that superusers requested in the browser.")
@click.option("-v", "--verbose", is_flag=True, help="Print a line for each list, even if all is well.")
@as_text_or_json
@click.argument("handles", metavar="[LIST]...", nargs=-1)
def sync(
    *,
    handles: tuple[str, ...],
    dry_run: bool,
    accept: str | None,
    requested: bool,
    verbose: bool,
    form: str,
) -> None:
    """Make the list managers and the portal agree, for all lists or for those named.

    Prints nothing if all is well, except at a terminal. If one list fails, the others are still synced.

    \b
    Example: flask mailinglist sync
    """
    if dry_run and accept is not None:
        raise click.UsageError("--dry-run and --accept cannot be used together")
    if requested and (handles or dry_run or accept is not None):
        raise click.UsageError("--requested cannot be used with LIST, --dry-run or --accept")
    options = SyncOptions(is_dry=dry_run, accept=accept)
    endings = run_requested() if requested else run_lists(handles, options)
    show_endings(endings, options, form=form, is_verbose=verbose or sys.stdout.isatty())
    if dry_run:
        print_dry_run()
    raise SystemExit(max(code_of(endings), _read_lists() if requested else _enrol(options)))


def _read_lists() -> int:
    from portal.services import minute

    if not minute.has_readings(current_app.config["SQLALCHEMY_DATABASE_URI"], now=portal().clock()):
        return 0
    from portal.cli import readings

    return readings.carry_out()


def _enrol(options: SyncOptions) -> int:
    """Schedule daily readings of the lists by `flask minutely`."""
    from portal.services.sync import readings

    if not options.is_dry:
        readings.enrol(db.session(), portal().catalogue().lists, now=portal().clock())
    return 0


@mailinglist.command()
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the history.")
@click.argument("handle", metavar="LIST")
@click.argument("username")
def subscribe(*, handle: str, username: str, reason: str) -> None:
    """Subscribe a user to a list. The next run adds their main address.

    \b
    Example: flask mailinglist subscribe --reason "asked by phone" members alice
    """
    _choose_for(handle, username, is_subscribed=True, reason=reason)


@mailinglist.command()
@click.option("--reason", default="", metavar="TEXT", help="Reason, for the history.")
@click.argument("handle", metavar="LIST")
@click.argument("username", metavar="USERNAME|ADDRESS")
def unsubscribe(*, handle: str, username: str, reason: str) -> None:
    """Unsubscribe a user from a list. The next run removes all their addresses.

    You can name an address instead, if no account holds it or its holder may not see the list.

    \b
    Example: flask mailinglist unsubscribe members alice
    """
    try:
        _choose_for(handle, username, is_subscribed=False, reason=reason)
    except UnknownUserError:
        if "@" not in username:
            raise
        _take_off(handle, username, reason=reason)


def _take_off(handle: str, address: str, *, reason: str) -> None:
    from portal.services.history import COMMAND_LINE
    from portal.services.preferences.on_behalf import take_off

    name = canonical(address)
    mailing_list = portal().catalogue().get(handle)
    if take_off(db.session(), mailing_list, name, actor=COMMAND_LINE, now=portal().clock(), reason=reason):
        print_message(f"{name} is unsubscribed from {handle}; the next run carries it out")
    else:
        print_message(
            f"{name} is already unsubscribed from {handle}; the next run removes it if it is still on the list"
        )


def _choose_for(handle: str, username: str, *, is_subscribed: bool, reason: str) -> None:
    from portal.services.history import COMMAND_LINE
    from portal.services.preferences.preferences import choose_for

    choice = choose_for(
        db.session(),
        portal().catalogue().get(handle),
        username=username,
        is_subscribed=is_subscribed,
        actor=COMMAND_LINE,
        now=portal().clock(),
        reason=reason,
    )
    wanted = "subscribed to" if is_subscribed else "unsubscribed from"
    if choice.is_changed:
        print_message(f"{username} is {wanted} {handle}; the next run carries it out")
    else:
        print_message(f"{username} is already {wanted} {handle}; nothing changed")


@mailinglist.command()
@as_text_or_json
@click.argument("handle", metavar="LIST")
@click.argument("who", metavar="ADDRESS|USERNAME")
def why(*, handle: str, who: str, form: str) -> None:
    """Explain why an address is on a list or not, and what the next run will do.

    If you name a user, all their addresses are explained. The answer is based on the last run; the list manager is not
    asked.

    \b
    Example: flask mailinglist why members alice@example.org
    """
    from portal.services.accounts import profiles
    from portal.services.reports import why as service

    mailing_list = portal().catalogue().get(handle)
    addresses = profiles.addresses_of(db.session(), who)
    found = [
        service.explain(db.session(), mailing_list, each, now=portal().clock(), moment=moment, list_name=handle)
        for each in addresses
    ]
    if form == "json":
        print_json(found if len(found) > 1 else found[0])
        return
    for number, each in enumerate(found):
        if number:
            click.echo()
        for sentence in each.sentences:
            click.echo(cell_text(sentence))
        if each.history:
            click.echo()
            print_table(*history_table(each.history))


@mailinglist.command()
@click.option(
    "--without-account",
    is_flag=True,
    help="Ask the list manager for the subscribers without an account, and print them.",
)
@as_text_or_json
@click.argument("handle", metavar="[LIST]", required=False)
def report(*, handle: str | None, without_account: bool, form: str) -> None:
    """Print how many addresses are in each state, and the last run, for all lists or for one.

    LATE means that the last good run is longer ago than members are promised.

    \b
    Example: flask mailinglist report
    """
    from portal.services.reports import lists as list_reports

    if without_account:
        _print_without_account(handle, form=form)
        return
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    handles = None if handle is None else [catalogue.get(handle).handle]
    found = list_reports.lists(db.session(), catalogue=catalogue, now=portal().clock(), handles=handles)
    if form == "json":
        print_json(found)
    else:
        print_table(*report_table(found))


def _print_without_account(handle: str | None, *, form: str) -> None:
    """Print a list's subscribers without an account, which are read from the list each time and never stored."""
    from portal.services.reports import lists as list_reports
    from portal.services.sync.sync import read_roster

    if handle is None:
        raise click.UsageError("--without-account needs a LIST")
    mailing_list = portal().catalogue().get(handle)
    mailing_list.require_running()
    manager = portal().open_list_manager(mailing_list)
    found = list_reports.without_account(db.session(), read_roster(manager.roster()))
    if form == "json":
        print_json(found)
    else:
        write_lines([found])


@mailinglist.command()
@_of_list
@_limit
@as_text_or_json
def runs(*, handle: str | None, limit: int, form: str) -> None:
    """Print the last runs, newest first.

    \b
    Example: flask mailinglist runs --list members --limit 5
    """
    from portal.services.reports import lists as list_reports

    found = list_reports.runs(db.session(), handle=_checked(handle), limit=limit)
    if form == "json":
        print_json(found)
    else:
        print_table(*runs_table(found))


@mailinglist.command()
@click.option(
    "--by", type=click.Choice(["week", "month", "year"]), default="month", help="Length of a period.",
    show_default=True,
)  # fmt: skip
@as_text_or_json
@click.argument("handle", metavar="[LIST]", required=False)
def numbers(*, handle: str | None, by: str, form: str) -> None:
    """Print subscribers, joins, leaves and people making changes by week, month or year.

    The figures are for all lists together, or for one. The last period is not over yet.

    \b
    Example: flask mailinglist numbers --by year
    """
    from zoneinfo import ZoneInfo

    from portal.services.reports import numbers as service

    wanted = _checked(handle)
    found = service.numbers(
        db.session(),
        [wanted] if wanted else portal().catalogue().lists,
        span=service.Span(by),
        now=portal().clock(),
        zone=ZoneInfo(portal().settings.timezone),
    )
    if form == "json":
        print_json(found)
    else:
        print_table(*numbers_table(found))


@mailinglist.command()
@_of_list
@click.option("--address", help="Only this address.")
@_limit
@as_text_or_json
def history(*, handle: str | None, address: str | None, limit: int, form: str) -> None:
    """Print the changes of preferences, newest first: what changed, who changed it, and why.

    \b
    Example: flask mailinglist history --address alice@example.org
    """
    from portal.services.reports import lists as list_reports

    compared = None if address is None else canonical(address)
    found = list_reports.history(db.session(), handle=_checked(handle), address=compared, limit=limit)
    if form == "json":
        print_json(found)
    else:
        print_table(*history_table(found))


def _checked(handle: str | None) -> str | None:
    """Return a handle of the catalogue, or None for all lists."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    return None if handle is None else catalogue.get(handle).handle
