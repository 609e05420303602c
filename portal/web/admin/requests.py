"""Requests, for superusers: a run is asked for here; a command carries it out, and here stands what became of it."""

from flask import Blueprint, abort, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services import security_log
from portal.services.reports import runs as run_reports
from portal.services.sync import requests
from portal.services.sync.requests import Kind
from portal.web import guards
from portal.web.admin.run_forms import ACTIONS, AskForm, PlanLinesForm, RunsForm
from portal.web.admin.runs import AT_ONCE, LINES_AT_ONCE, names_of_lists
from portal.web.forms import MAX_ID

blueprint = Blueprint("requests", __name__, url_prefix="/requests")


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Show what was asked for, the newest first, and lead to older requests."""
    form = RunsForm(request.args)
    if not form.validate():
        abort(400)
    handle = form.handle.data or None
    found = requests.recent(db.session(), handle=handle, before=form.before.data, limit=AT_ONCE + 1)
    return render_template(
        "admin/requests.html",
        requests=found[:AT_ONCE],
        has_older=len(found) > AT_ONCE,
        handle=handle,
        is_first=form.before.data is None,
        names=names_of_lists(),
        now=portal().clock(),
    )


@blueprint.post("")
def ask() -> ResponseReturnValue:
    """Write down what is asked for, and lead to its page. Raise DisabledError or UnknownListError."""
    form = AskForm()
    if not form.validate():  # nothing that the pages offer is invalid
        abort(400)
    handle = portal().catalogue().get(form.handle.data).handle
    request_id = requests.ask(
        db.session(),
        handle,
        kind=Kind(form.kind.data),
        plan_id=form.plan_id.data or None,
        actor=guards.actor(),
        now=portal().clock(),
    )
    security_log.log("run asked for", list=handle, kind=form.kind.data, request=request_id)
    return redirect(url_for("admin.requests.show", request_id=request_id), 303)


@blueprint.get(f"/<int(max={MAX_ID}):request_id>")
def show(request_id: int) -> ResponseReturnValue:
    """Show who asked for what and what became of it; the plan that was found, line by line, and what to do next."""
    form = PlanLinesForm(request.args)
    if not form.validate():
        abort(400)
    found = requests.find(db.session(), request_id)
    after = form.after.data or 0
    lines = requests.lines(db.session(), request_id, after=after, limit=LINES_AT_ONCE + 1)
    return render_template(
        "admin/request.html",
        asked=found,
        run=run_reports.find(db.session(), found.run_id).run if found.run_id else None,
        lines=lines[:LINES_AT_ONCE],
        has_more=len(lines) > LINES_AT_ONCE,
        is_first=after == 0,
        names=names_of_lists(),
        actions=ACTIONS,
        is_overdue=found.is_overdue(portal().clock()),
    )
