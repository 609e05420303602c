"""Carrying out the runs that superusers requested in the browser: the web server never calls a list manager."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.domain.run import RunKind, RunState
from portal.errors import ForbiddenError, LeaseHeldError, PlanChangedError, PortalError
from portal.listmanagers.base import ListManager
from portal.models import User
from portal.services.sync import runs
from portal.services.sync.run_steps import Request, SyncResult
from portal.services.sync.runs import RequestedRun
from portal.services.sync.sync import dry_run, sync_list
from portal.services.transaction import reading

Clock = Callable[[], datetime]


def carry_out(
    session: Session,
    taken: RequestedRun,
    *,
    catalogue: Catalogue,
    open_list_manager: Callable[[MailingList], ListManager],
    clock: Clock,
) -> SyncResult:
    """Carry out a requested run and store its result.

    Raise the errors of ``sync_list``, and ForbiddenError if the requester is no longer allowed to. If another run held
    the list from the start, the request waits again. If its plan has changed, the new plan is shown.
    """
    with _dropped_where_not_begun(session, taken, clock):
        _require_right(session, taken)
        mailing_list = catalogue.get(taken.handle)
        manager = open_list_manager(mailing_list)
        if taken.kind is RunKind.SHOW:
            return _show(session, taken, mailing_list, manager, clock=clock)
        request = Request(actor=taken.actor, run_id=taken.id, only=taken.plan_id)
        try:
            return sync_list(session, mailing_list, manager, clock=clock, request=request)
        except PlanChangedError as error:
            _show(session, taken, mailing_list, manager, clock=clock, change=str(error))
            raise


def _require_right(session: Session, taken: RequestedRun) -> None:
    if taken.actor.user_id is None:  # requested on the command line
        return
    with reading(session):
        may = select(User.id).where(User.id == taken.actor.user_id, User.is_superuser, User.is_active)
        if session.scalar(may) is None:
            raise ForbiddenError(
                f"{taken.handle}: run {taken.id} was not carried out, because the user who requested it is no longer "
                "an active superuser"
            )


def _show(
    session: Session,
    taken: RequestedRun,
    mailing_list: MailingList,
    manager: ListManager,
    *,
    clock: Clock,
    change: str = "",
) -> SyncResult:
    """Store the plan of a sync; ``change`` says that another plan was to be applied."""
    sync_result = dry_run(session, mailing_list, manager, clock=clock)
    plan = sync_result.plan
    message = "; ".join(filter(None, (change, plan.warning)))
    state = RunState.CHANGED if change else RunState.SHOWN
    runs.show(session, taken, plan, now=clock(), state=state, message=message)
    return sync_result


@contextmanager
def _dropped_where_not_begun(session: Session, taken: RequestedRun, clock: Clock) -> Iterator[None]:
    """Store the reason if a run could not begin; the sync stores the end of one that did."""
    try:
        yield
    except BaseException as error:
        message = str(error) if isinstance(error, PortalError) else f"interrupted: {type(error).__name__}"
        if not (isinstance(error, LeaseHeldError) and runs.requeue(session, taken, message=message)):
            runs.drop(session, taken, now=clock(), message=message)
        raise
