"""`flask mailinglist sync` for several lists, one after the other; a failing list does not stop the others."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from portal.cli.output import print_json, print_message, print_table
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.run import counts_in_words
from portal.errors import DatabaseUnavailableError, LeaseHeldError, NotMigratedError
from portal.extensions import db, portal
from portal.faults import as_portal_error, fault_of, one_line, print_error

if TYPE_CHECKING:
    from portal.services.sync.run_steps import SyncResult
    from portal.services.sync.runs import RequestedRun
    from portal.services.sync.settlement import FailedChange


@dataclass(frozen=True, slots=True)
class SyncOptions:
    """The options of the runs."""

    is_dry: bool
    accept: str | None


@dataclass(frozen=True, slots=True)
class Ending:
    """The end of a list's run: a result, or an error and its exit code; a paused list has neither."""

    handle: str
    sync_result: "SyncResult | None"
    code: int = 0
    error: str = ""
    is_paused: bool = False


def run_lists(handles: Sequence[str], options: SyncOptions) -> list[Ending]:
    """Run the named lists, or all of the catalogue; print news and errors on stderr."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    return [_end(handle, options) for handle in dict.fromkeys(handles or catalogue.lists)]


def _end(handle: str, options: SyncOptions) -> Ending:
    try:
        mailing_list = portal().catalogue().get(handle)
        if mailing_list.is_paused:
            return Ending(handle, None, is_paused=True)
        sync_result = _run(mailing_list, options)
    except Exception as error:  # whatever it is, the other lists still run
        known = as_portal_error(error)
        words = _naming(handle, one_line(known))
        print_error(known, _without_list(known) or words)
        return Ending(handle, None, fault_of(known).exit_code, words)
    print_news(mailing_list, sync_result)
    return Ending(handle, sync_result)


def run_requested() -> list[Ending]:
    """Carry out the runs that superusers requested in the browser; print news and errors on stderr."""
    from portal.services.sync import runs

    portal().catalogue().require_enabled()
    return [
        _end_requested(each)
        for each in runs.due(db.session(), now=portal().clock())
        if runs.claim(db.session(), each, now=portal().clock())
    ]


def _end_requested(taken: "RequestedRun") -> Ending:
    from portal.services.sync.requested import carry_out

    catalogue = portal().catalogue()
    try:
        sync_result = carry_out(
            db.session(),
            taken,
            catalogue=catalogue,
            open_list_manager=portal().open_list_manager,
            clock=portal().clock,
        )
    except Exception as error:  # whatever it is, the other runs still happen
        known = as_portal_error(error)
        words = _naming(taken.handle, one_line(known))
        if not (taken.was_held and isinstance(known, LeaseHeldError)):  # it is tried each minute and reported once
            print_error(known, _without_list(known) or words)
        return Ending(taken.handle, None, fault_of(known).exit_code, words)
    if sync_result.run_id is not None:  # the browser shows the problems of a requested preview
        print_news(catalogue.get(taken.handle), sync_result)
    return Ending(taken.handle, sync_result)


def _naming(handle: str, words: str) -> str:
    """Return an error's words with the list in front, unless they name it already."""
    names_it = words.startswith((f"{handle}:", f"{handle} ", f"unknown list: {handle} "))
    return words if names_it else f"{handle}: {words}"


def _without_list(known: Exception) -> str | None:
    """Return the words of an error that concerns the whole portal, so that it is printed once and not for each list."""
    return one_line(known) if isinstance(known, DatabaseUnavailableError | NotMigratedError) else None


def _run(mailing_list: MailingList, options: SyncOptions) -> "SyncResult":
    from portal.services.sync.run_steps import Request
    from portal.services.sync.sync import dry_run, sync_list

    manager = portal().open_list_manager(mailing_list)
    if options.is_dry:
        return dry_run(db.session(), mailing_list, manager, clock=portal().clock)
    request = Request(accept=options.accept)
    return sync_list(db.session(), mailing_list, manager, clock=portal().clock, request=request)


def print_news(mailing_list: MailingList, sync_result: "SyncResult") -> None:
    """Print what an operator should know about a good run: changes that did not take, and repaired runs."""
    handle, plan = mailing_list.handle, sync_result.plan
    for run_id in sync_result.repaired:
        print_message(f"{handle}: run {run_id} was interrupted; its remaining changes have been completed")
    for each in sync_result.new_failures:
        print_message(_not_taken_in_words(handle, each))
    if sync_result.run_id is None and plan.warning:
        print_message(f"{handle}: {plan.warning}; to approve it: --accept {plan.id}")


def _not_taken_in_words(handle: str, found: "FailedChange") -> str:
    match found.result:
        case "pending":
            return f"{found.address} waits for a moderator of {handle}: {found.words}"
        case "confirm":
            return f"{found.address} waits for the member's own confirmation at {handle}: {found.words}"
    what = f"add {found.address} to" if found.action is Action.ADD else f"remove {found.address} from"
    return f"could not {what} {handle}: {found.words}"


def code_of(endings: Sequence[Ending]) -> int:
    """Return 1 if any list failed in an unforeseen way, else the largest code."""
    codes = {ending.code for ending in endings}
    return 1 if 1 in codes else max(codes, default=0)


def show_endings(endings: Sequence[Ending], options: SyncOptions, *, form: str, is_verbose: bool) -> None:
    """Print the results of the runs, or of a dry run."""
    if form == "json":
        print_json([_as_record(each, options) for each in endings])
        return
    done = [(each.handle, each.sync_result) for each in endings if each.sync_result is not None]
    if options.is_dry:
        rows = [(handle, *line) for handle, sync_result in done for line in _lines(sync_result)]
        if rows:
            print_table(("LIST", "WOULD", "ADDRESS", "BECAUSE"), rows)
    if options.is_dry or is_verbose:
        for each in endings:
            if each.is_paused:
                click.echo(f"{each.handle}: paused, so nothing was read or pushed")
            elif each.sync_result is not None:
                click.echo(f"{each.handle}: {_in_words(each.sync_result)}")


def _lines(sync_result: "SyncResult") -> Iterator[tuple[str, str, str]]:
    """Yield the action, the address and the reason of each line of a dry run."""
    for each in sorted(sync_result.plan.lines, key=lambda each: (str(each.action), each.row.canonical)):
        action = _TAKEN_OVER.get(each.action, str(each.action))
        yield f"not yet {action}" if each.held_back else action, each.row.canonical, str(each.reason)


_TAKEN_OVER = {Action.LEFT: "take over a leave", Action.JOINED: "take over a join"}


def _in_words(sync_result: "SyncResult") -> str:
    counts = ", ".join(f"{count} {words}" for count, words in counts_in_words(sync_result.counts)) or "nothing to do"
    plan = sync_result.plan
    return f"{counts} (of {plan.on_roster} on the list before, {plan.without_account} without an account)"


def _as_record(ending: Ending, options: SyncOptions) -> dict[str, Any]:
    if ending.is_paused:
        return {"list": ending.handle, "exit_code": 0, "paused": True}
    if ending.sync_result is None:
        return {"list": ending.handle, "exit_code": ending.code, "error": ending.error}
    plan = ending.sync_result.plan
    record: dict[str, Any] = {
        "list": ending.handle,
        "exit_code": 0,
        "run": ending.sync_result.run_id,
        "plan": plan.id,
        "on_roster": plan.on_roster,
        "without_account": plan.without_account,
        **ending.sync_result.counts,
        "not_taken": [each._asdict() for each in ending.sync_result.new_failures],
        "repaired": ending.sync_result.repaired,
    }
    if options.is_dry:
        record["lines"] = [
            {
                "action": str(each.action),
                "address": each.row.canonical,
                "reason": str(each.reason),
                "held_back": each.held_back,
            }
            for each in plan.lines
        ]
    return record
