"""The report of all lists, for superusers."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.domain.run import RunState
from portal.extensions import db, portal
from portal.services.reports import lists as list_reports
from portal.services.reports import trends
from portal.services.reports.audiences import audience_faults
from portal.services.reports.lists import ListReport

blueprint = Blueprint("lists", __name__)


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Show problems first, then the numbers of every list."""
    catalogue, now = portal().catalogue(), portal().clock()
    found = list_reports.lists(db.session(), catalogue=catalogue, now=now) if catalogue.enabled else ()
    weeks = trends.weeks(db.session(), [each.handle for each in found], now=now) if found else {}
    faults = audience_faults(db.session(), catalogue) if found else ()
    troubled = sorted((each for each in found if each.is_troubled), key=_waits_for_no_approval)
    return render_template(
        "admin/lists.html",
        catalogue=catalogue,
        reports=found,
        troubled=troubled,
        delayed=[each for each in found if each.due_at and each.due_at < now and each not in troubled],
        refused=[each for each in found if each.refused],
        leaves=list_reports.leaves(db.session(), catalogue=catalogue, now=now) if found else (),
        weeks=weeks,
        audience_faults=faults,
    )


def _waits_for_no_approval(report: ListReport) -> bool:
    return report.last_run is None or report.last_run.state != RunState.HELD
