"""What `flask mailinglist sync` does with several lists: one after the other, one failing stops no other."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from portal.cli.output import print_json, print_table, say
from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.errors import LeaseHeldError
from portal.extensions import db, portal
from portal.faults import fault_of, one_line, translated

if TYPE_CHECKING:
    from portal.services.sync.requests import Means, Waiting
    from portal.services.sync.sync import Outturn


@dataclass(frozen=True, slots=True)
class Order:
    """How the runs were asked for."""

    is_dry: bool
    accept: str | None
    allow_empty: bool


@dataclass(frozen=True, slots=True)
class Ending:
    """How one list's run ended: with an outturn, or with an error and its exit code."""

    handle: str
    outturn: "Outturn | None"
    code: int = 0
    error: str = ""


def run_lists(handles: Sequence[str], order: Order) -> list[Ending]:
    """Run lists, all of the catalogue where none is named; tell what is news and what failed on stderr."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    return [_end(handle, order) for handle in dict.fromkeys(handles or catalogue.lists)]


def _end(handle: str, order: Order) -> Ending:
    try:
        mailing_list = portal().catalogue().get(handle)
        outturn = _run(mailing_list, order)
    except Exception as error:  # whatever it is, the other lists have their turn
        known = translated(error)
        words = _naming(handle, one_line(known))
        click.echo(f"error: {words}", err=True)
        return Ending(handle, None, fault_of(known).exit_code, words)
    tell_news(mailing_list, outturn)
    return Ending(handle, outturn)


def run_requested() -> list[Ending]:
    """Carry out what superusers asked for in the browser; tell what is news and what failed on stderr."""
    from portal.services.sync import requests

    catalogue = portal().catalogue()
    catalogue.require_enabled()
    means = requests.Means(catalogue, portal().open_list_manager, portal().clock)
    return [
        _end_requested(each, means)
        for each in requests.due(db.session(), now=portal().clock())
        if requests.take(db.session(), each, now=portal().clock())
    ]


def _end_requested(taken: "Waiting", means: "Means") -> Ending:
    from portal.services.sync import requests

    try:
        outturn = requests.carry_out(db.session(), taken, means)
    except Exception as error:  # whatever it is, the other requests have their turn
        known = translated(error)
        words = _naming(taken.handle, one_line(known))
        if not (taken.was_held and isinstance(known, LeaseHeldError)):  # it is tried each minute and told once
            click.echo(f"error: {words}", err=True)
        return Ending(taken.handle, None, fault_of(known).exit_code, words)
    if outturn.run_id is not None:  # whoever asked to be shown a plan reads in the browser what is wrong with it
        tell_news(means.catalogue.get(taken.handle), outturn)
    return Ending(taken.handle, outturn)


def _naming(handle: str, words: str) -> str:
    """Return an error's words with the list in front, unless they begin with it."""
    return words if words.startswith((f"{handle}:", f"{handle} ")) else f"{handle}: {words}"


def _run(mailing_list: MailingList, order: Order) -> "Outturn":
    from portal.services.sync.sync import Request, dry_run, sync_list

    manager = portal().open_list_manager(mailing_list)
    if order.is_dry:
        return dry_run(db.session(), mailing_list, manager, clock=portal().clock)
    request = Request(accept=order.accept, allow_empty=order.allow_empty)
    return sync_list(db.session(), mailing_list, manager, clock=portal().clock, request=request)


def tell_news(mailing_list: MailingList, outturn: "Outturn") -> None:
    """Tell an operator what a good run found: refusals that are new, runs that it repaired."""
    handle, plan = mailing_list.handle, outturn.plan
    for run_id in outturn.repaired:
        say(f"{handle}: run {run_id} had been interrupted; what it left over has been looked after")
    for address, words in outturn.refusals:
        say(f"{handle}: the list manager did not do it for {address}: {words}")
    if outturn.run_id is None and plan.is_in_doubt:
        say(f"{handle}: the roster is empty although it should not be, so a sync would refuse this plan")
    elif outturn.run_id is None and (beyond := plan.beyond(mailing_list.brake)):
        say(f"{handle}: the brake would refuse this plan: {beyond}; to let it through: --accept {plan.id}")


def code_of(endings: Sequence[Ending]) -> int:
    """Return 1 if any list failed in an unforeseen way, else the largest code."""
    codes = {ending.code for ending in endings}
    return 1 if 1 in codes else max(codes, default=0)


def show_endings(endings: Sequence[Ending], order: Order, *, form: str, is_verbose: bool) -> None:
    """Print what the runs did, or would do."""
    if form == "json":
        print_json([_as_record(each, order) for each in endings])
        return
    done = [(each.handle, each.outturn) for each in endings if each.outturn is not None]
    if order.is_dry:
        rows = [(handle, *line) for handle, outturn in done for line in _lines(outturn)]
        if rows:
            print_table(("LIST", "WOULD", "ADDRESS", "BECAUSE"), rows)
    if order.is_dry or is_verbose:
        for handle, outturn in done:
            click.echo(f"{handle}: {_in_words(outturn)}")


def _lines(outturn: "Outturn") -> Iterator[tuple[str, str, str]]:
    """Yield what would be done, to whom, and why."""
    for each in sorted(outturn.plan.lines, key=lambda each: (str(each.action), each.row.canonical)):
        action = _TAKEN_OVER.get(each.action, str(each.action))
        yield f"not yet {action}" if each.held_back else action, each.row.canonical, str(each.reason)


_TAKEN_OVER = {Action.LEFT: "take over a leave", Action.JOINED: "take over a join"}


def _counts(outturn: "Outturn") -> dict[str, int]:
    plan = outturn.plan
    pushed = outturn.tally or {"added": len(plan.of(Action.ADD)), "removed": len(plan.of(Action.REMOVE)), "refused": 0}
    return {
        **pushed,
        "joined": len(plan.of(Action.JOINED)),
        "left": len(plan.of(Action.LEFT)),
        "initialised": len(plan.of(Action.INIT)),
        "held": sum(each.held_back for each in plan.lines),
    }


_WORDS = {
    "added": "added",
    "removed": "removed",
    "refused": "refused by the list",
    "joined": "joined at the list",
    "left": "left at the list",
    "initialised": "taken over",
    "held": "held back",
}


def _in_words(outturn: "Outturn") -> str:
    told = ", ".join(f"{count} {_WORDS[name]}" for name, count in _counts(outturn).items() if count)
    plan = outturn.plan
    return f"{told or 'nothing to do'} (of {plan.on_roster} on the list before, {plan.strangers} without an account)"


def _as_record(ending: Ending, order: Order) -> dict[str, Any]:
    if ending.outturn is None:
        return {"list": ending.handle, "exit_code": ending.code, "error": ending.error}
    plan = ending.outturn.plan
    record: dict[str, Any] = {
        "list": ending.handle,
        "exit_code": 0,
        "run": ending.outturn.run_id,
        "plan": plan.id,
        "on_roster": plan.on_roster,
        "strangers": plan.strangers,
        **_counts(ending.outturn),
        "refusals": [{"address": address, "words": words} for address, words in ending.outturn.refusals],
        "repaired": ending.outturn.repaired,
    }
    if order.is_dry:
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
