"""Runs, for superusers: list them, show one line by line, and request one, which a command carries out."""

from collections.abc import Mapping
from datetime import timedelta

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.run import RunKind
from portal.extensions import db, portal
from portal.services import security_log
from portal.services.reports import lists as list_reports
from portal.services.reports import runs as run_reports
from portal.services.sync import runs
from portal.translation import gettext, ngettext
from portal.web import guards
from portal.web.admin.run_forms import ACTIONS, RESULTS, AskForm, RunLinesForm, RunsForm
from portal.web.forms import MAX_ID

blueprint = Blueprint("runs", __name__, url_prefix="/runs")

LINES_AT_ONCE = 100
REFRESHED_AFTER = 10  # seconds, for the page of a run under way, which has a link to stop it


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Show runs of all lists or of one, newest first."""
    form = RunsForm(request.args)
    if not form.validate():
        abort(400)
    handle = form.handle.data or None
    found = list_reports.page_of_runs(db.session(), handle=handle, number=form.page.data or 1)
    return render_template(
        "admin/runs.html",
        found=found,
        handle=handle,
        names=_names_of_lists(),
        now=portal().clock(),
    )


@blueprint.post("")
def ask() -> ResponseReturnValue:
    """Request a run and redirect to its page. Raise DisabledError, UnknownListError or PausedError."""
    form = AskForm()
    if not form.validate():  # the pages offer nothing invalid
        abort(400)
    mailing_list = portal().catalogue().get(form.handle.data)
    mailing_list.require_running()
    handle = mailing_list.handle
    run_id = runs.request(
        db.session(),
        handle,
        kind=RunKind(form.kind.data),
        plan_id=form.plan_id.data or None,
        actor=guards.actor(),
        now=portal().clock(),
    )
    security_log.log("run asked for", list=handle, kind=form.kind.data, plan=form.plan_id.data or None, run=run_id)
    return redirect(url_for("admin.runs.show", run_id=run_id), 303)


@blueprint.get(f"/<int(max={MAX_ID}):run_id>")
def show(run_id: int) -> ResponseReturnValue:
    """Show one run, what to do next, and its lines that match the filter."""
    form = RunLinesForm(request.args)
    if not form.validate():
        abort(400)
    found = run_reports.find(db.session(), run_id)
    lines = run_reports.lines(db.session(), run_id, number=form.page.data or 1, size=LINES_AT_ONCE, **form.query)
    refreshes = found.is_under_way and form.refresh.data != "no"
    page = render_template(
        "admin/run.html",
        found=found,
        refreshes=refreshes,
        run=found.run,
        took=None if found.duration is None else duration_text(found.duration),
        form=form,
        lines=lines,
        size=LINES_AT_ONCE,
        names=_names_of_lists(),
        actions=ACTIONS,
        result_words=RESULTS,
        now=portal().clock(),
    )
    return page, {"refresh": str(REFRESHED_AFTER)} if refreshes else {}


def _names_of_lists() -> Mapping[str, str]:
    """Return the names of the lists that can be synced, by handle; none if the catalogue is disabled or invalid."""
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return {}
    return {handle: each.name for handle, each in catalogue.lists.items()}


def duration_text(duration: timedelta) -> str:
    """Return a duration in its two largest units."""
    seconds = round(duration.total_seconds())
    if seconds < 1:
        return gettext("less than a second")
    hours, minutes, seconds = seconds // 3600, seconds // 60 % 60, seconds % 60
    parts = [
        ngettext("%(count)s hour", "%(count)s hours", hours, count=hours) if hours else "",
        ngettext("%(count)s minute", "%(count)s minutes", minutes, count=minutes) if minutes else "",
        ngettext("%(count)s second", "%(count)s seconds", seconds, count=seconds) if seconds else "",
    ]
    return " ".join([part for part in parts if part][:2])
