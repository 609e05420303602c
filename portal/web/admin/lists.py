"""The report of all lists, for superusers."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services.reports import lists as list_reports
from portal.services.reports import trends
from portal.services.reports.audiences import audience_faults

blueprint = Blueprint("lists", __name__)


@blueprint.get("/")
def index() -> ResponseReturnValue:
    """Show first what is wrong, then every list in numbers."""
    catalogue, now = portal().catalogue(), portal().clock()
    found = list_reports.lists(db.session(), catalogue=catalogue, now=now) if catalogue.enabled else ()
    weeks = trends.weeks(db.session(), [each.handle for each in found], now=now) if found else {}
    faults = audience_faults(db.session(), catalogue) if found else ()
    return render_template(
        "admin/lists.html", catalogue=catalogue, reports=found, weeks=weeks, audience_faults=faults, now=now
    )
