"""Reports for superusers: the lists, and the runs."""

from flask import Blueprint, abort, render_template, request
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services import reports
from portal.web.forms import RunsForm

blueprint = Blueprint("admin", __name__, url_prefix="/admin")

AT_ONCE = 50  # runs on a page


@blueprint.get("/")
def lists() -> ResponseReturnValue:
    """Show first what is wrong, then every list in numbers."""
    catalogue = portal().catalogue()
    found = reports.lists(db.session(), catalogue=catalogue, now=portal().clock()) if catalogue.enabled else ()
    return render_template("admin/lists.html", catalogue=catalogue, reports=found)


@blueprint.get("/runs")
def runs() -> ResponseReturnValue:
    """Show the last runs, of all lists or of one, and lead to older ones."""
    form = RunsForm(request.args)
    if not form.validate():
        abort(400)
    handle = form.handle.data or None
    found = reports.runs(db.session(), handle=handle, before=form.before.data, limit=AT_ONCE + 1)
    return render_template(
        "admin/runs.html",
        runs=found[:AT_ONCE],
        has_older=len(found) > AT_ONCE,
        handle=handle,
        is_first=form.before.data is None,
    )
