"""A roster that is piped or posted to the portal: for list-init, or for one half of a planned run."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy.orm import Session

from portal.domain.mailinglist import MailingList
from portal.domain.merge import Action
from portal.domain.roster_text import RosterText
from portal.services.history import COMMAND_LINE, Actor
from portal.services.sync import list_init

if TYPE_CHECKING:
    from portal.listmanagers.base import ListManager
    from portal.services.sync.run_steps import SyncResult


@dataclass(frozen=True)
class RosterUse:
    """The purpose of a roster: ``plan`` begins a planned run, ``confirm`` ends it, neither is a list-init.

    ``abandon`` abandons a planned run, for which no roster is read. ``accept`` is the id of a plan that may exceed the
    safety limits, ``token`` that of the planned run to end, ``actor`` the caller.
    """

    plan: bool = False
    confirm: bool = False
    abandon: bool = False
    accept: str | None = None
    allow_empty: bool = False
    token: str | None = None
    actor: Actor = COMMAND_LINE


class RosterResult(NamedTuple):
    """The counts to answer, including a plan's id, and the result of a planned run."""

    answer: Mapping[str, int | str]
    sync_result: "SyncResult | None"


def carry_out(
    session: Session,
    mailing_list: MailingList,
    text: RosterText,
    *,
    clock: Callable[[], datetime],
    use: RosterUse,
    open_manager: "Callable[[], ListManager] | None" = None,
) -> RosterResult:
    """Use a roster for its purpose. Raise the errors of ``list_init`` and of the functions of a planned run.

    ``open_manager`` opens the list manager if it may be asked for the options of people who moved.
    """
    if use.plan:
        return _plan(session, mailing_list, text, clock=clock, use=use, open_manager=open_manager)
    if use.confirm:
        return _confirm(session, mailing_list, text, clock=clock, use=use)
    if use.abandon:
        from portal.services.sync.planned_runs import abandon_planned_run  # not needed by a list-init

        return RosterResult(
            {"abandoned": abandon_planned_run(session, mailing_list, clock=clock, token=use.token)}, None
        )
    counts = list_init.list_init(session, mailing_list, text, now=clock(), allow_empty=use.allow_empty)
    return RosterResult(asdict(counts), None)


def _plan(
    session: Session,
    mailing_list: MailingList,
    text: RosterText,
    *,
    clock: Callable[[], datetime],
    use: RosterUse,
    open_manager: "Callable[[], ListManager] | None",
) -> RosterResult:
    from portal.services.sync.planned_runs import begin_planned_run
    from portal.services.sync.run_steps import Request  # not needed by a list-init

    request = Request(actor=use.actor, accept=use.accept, allow_empty=use.allow_empty)
    sync_result, invalid = begin_planned_run(
        session, mailing_list, text, clock=clock, request=request, open_manager=open_manager
    )
    counts = list_init.counts_of_plan(session, mailing_list, sync_result.plan, invalid=invalid)
    removals = sum(len(each.spelling.split("\n")) for each in sync_result.plan.of(Action.REMOVE))
    pushed = {"adds": sync_result.plan.counts["added"], "removals": removals}  # as many as are printed
    return RosterResult(
        {**asdict(counts), "plan": sync_result.plan.id, **pushed, "token": sync_result.token}, sync_result
    )


def _confirm(
    session: Session, mailing_list: MailingList, text: RosterText, *, clock: Callable[[], datetime], use: RosterUse
) -> RosterResult:
    from portal.services.sync.planned_runs import confirm_planned_run
    from portal.services.sync.run_steps import Request  # not needed by a list-init

    request = Request(actor=use.actor, allow_empty=use.allow_empty, token=use.token)
    sync_result = confirm_planned_run(session, mailing_list, text, clock=clock, request=request)
    return RosterResult(dict(sync_result.tally), sync_result)
