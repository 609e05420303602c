"""`flask minutely`: everything that should not wait an hour, for one line of cron."""

import time
from collections.abc import Callable

import click
from flask import current_app
from flask.cli import with_appcontext

from portal.application import Application
from portal.cli.output import SingleCommand
from portal.faults import UNFORESEEN, as_portal_error, fault_of, print_error
from portal.running import portal
from portal.services import minute

_OF_MAIL = ("mail", "changes of accounts", "changes of lists")
_SECONDS = 50  # the next minute's run continues


@click.command("minutely", cls=SingleCommand)
@with_appcontext
def minutely() -> None:
    """Carry out the runs requested in the browser, send mail, and delete expired data.

    Run it every minute by cron. It prints nothing if all is well. If one part fails, the others are still done.

    \b
    Example: flask minutely
    """
    deadline = time.monotonic() + _SECONDS
    mail = portal().settings.mail
    without = _OF_MAIL if mail is None else ()
    # No query shows whether a list is overdue, so this is checked every five minutes.
    looks = mail is not None and bool(mail.operators) and portal().clock().minute % 5 == 0
    if not looks and not minute.has_work(
        current_app.config["SQLALCHEMY_DATABASE_URI"], now=portal().clock(), without=without
    ):
        return
    app: Application = current_app._get_current_object()  # type: ignore[attr-defined]
    app.use_database()  # mostly not needed, and importing it takes longer than everything else here
    codes = {_part(_carry_out_runs), _part(_read_lists)}
    if mail is not None:
        codes |= {_part(_notice), _part(lambda: _send_mail(deadline))}
    codes.add(_part(_thin))
    raise SystemExit(UNFORESEEN.exit_code if UNFORESEEN.exit_code in codes else max(codes))


def _part(work: Callable[[], int]) -> int:
    try:
        return work()
    except Exception as error:
        known = as_portal_error(error)
        print_error(known)
        return fault_of(known).exit_code


def _carry_out_runs() -> int:
    from portal.extensions import db
    from portal.services.sync import runs

    if not runs.due(db.session(), now=portal().clock()):
        return 0
    from portal.cli.sync import code_of, run_requested

    return code_of(run_requested())


def _read_lists() -> int:
    from portal.cli import readings

    return readings.carry_out()


def _notice() -> int:
    from portal.extensions import db
    from portal.services.mail import notices
    from portal.services.reports import operator_notices

    mail, now, catalogue = portal().settings.mail, portal().clock(), portal().readable_catalogue()
    if mail is None:
        return 0
    if notices.has_unread(db.session()):
        lists = catalogue.lists if catalogue else {}
        notices.ask_for(db.session(), lists=lists, tells_members=mail.tell_members, now=now)
    if catalogue is not None:
        operator_notices.ask_for(db.session(), operators=mail.operators, catalogue=catalogue, now=now)
    return 0


def _send_mail(deadline: float) -> int:
    from portal.extensions import db
    from portal.services import outbox

    if portal().settings.mail is None or not outbox.has_due(db.session(), now=portal().clock()):
        return 0
    from portal.cli.mail import mailer
    from portal.services.mail.sending import send_due

    send_due(db.session(), mailer(), sends_bulk=True, is_time_up=lambda: time.monotonic() > deadline)
    return 0


def _thin() -> int:
    from portal.extensions import db
    from portal.services import outbox
    from portal.services.sync import readings

    outbox.thin(db.session(), now=portal().clock())
    catalogue = portal().readable_catalogue()
    if catalogue is not None:
        readings.thin(db.session(), catalogue.lists, now=portal().clock())
    return 0
