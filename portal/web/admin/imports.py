"""Imports of members, for superusers: upload a file, look at its plan, and apply exactly that plan."""

from collections.abc import Iterator

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.address import printable
from portal.domain.membership import Action
from portal.errors import BadInputError, ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services import security_log
from portal.services.accounts.bulk import Asked, Change
from portal.services.accounts.directory import Wanted
from portal.services.membership import import_log, importing
from portal.services.membership.import_log import Import
from portal.services.membership.importing import Applied, Request
from portal.services.membership.runs import ImportLine
from portal.services.reports.forecast import Forecast, forecast
from portal.translation import gettext, ngettext
from portal.web import guards, recent_password, shown
from portal.web.admin import downloads
from portal.web.admin.import_forms import KINDS, ApplyForm, LinesForm, UploadForm
from portal.web.forms import MAX_ID, PageForm
from portal.web.template_filters import sentence

blueprint = Blueprint("imports", __name__, url_prefix="/users/imports")

_IMPORT = f"/<int(max={MAX_ID}):import_id>"
LINES_AT_ONCE = 100
PROBLEMS = (Action.PROBLEM, Action.REPORT)
_NAMED = 20  # problems named above a plan
COLUMNS = ("line", "kind", "key", "username", "name", "words")
_LONGEST_NAME = 120  # of a file


@blueprint.get("")
def index() -> ResponseReturnValue:
    """List imports, also those by cron, newest first, and offer to upload a file."""
    settings = portal().settings.membership
    leavers = settings is not None and settings.leavers == "deactivate"
    return _index_page(UploadForm(None, leavers=leavers))


@blueprint.post("")
def upload() -> ResponseReturnValue:
    """Plan the import of an uploaded file and redirect to the plan; the file itself is not stored."""
    form = UploadForm()
    if not form.validate():
        return _index_page(form), 422
    try:
        import_id = importing.show(db.session(), _request(form))
    except BadInputError as error:
        form.file.errors.append(sentence(error))
        return _index_page(form), 422
    return redirect(url_for("admin.imports.show", import_id=import_id), 303)


@blueprint.get(_IMPORT)
def show(import_id: int) -> ResponseReturnValue:
    """Show an import: its plan or its outcome."""
    found = import_log.get(db.session(), import_id)
    membership = portal().settings.membership
    return _page(found, ApplyForm(None, invite=membership is not None and membership.invite))


@blueprint.post(_IMPORT)
@recent_password.needed
def apply(import_id: int) -> ResponseReturnValue:
    """Apply the plan that was shown, except for accounts that have changed since."""
    form = ApplyForm()
    invites = form.invite.data and portal().settings.mail is not None
    try:
        shown.read(f"import {import_id}", form.shown.data)  # a plan never changes, so the signature is enough
        applied = importing.apply_stored(
            db.session(),
            import_id,
            actor=guards.actor(),
            clock=portal().clock,
            lists=portal().known_lists(),
            invites=invites,
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(sentence(error))
        return _page(import_log.get(db.session(), import_id), form), fault_of(error).status
    flash(_applied_text(applied, invites=invites), "good" if not applied.left else "bad")
    return redirect(url_for("admin.imports.show", import_id=import_id), 303)


@blueprint.get(_IMPORT + "/problems")
def problems(import_id: int) -> ResponseReturnValue:
    """Download the problems and reports of an import as CSV."""
    import_log.get(db.session(), import_id)
    rows = [_row(each) for each in _problems(import_id)]
    security_log.log("export", of=request.endpoint, format="csv")
    return downloads.send([rows], columns=COLUMNS, kind="csv", name=f"import-{import_id}-problems")


def _problems(import_id: int) -> Iterator[ImportLine]:
    return (each for each in import_log.all_lines(db.session(), import_id) if each.why)


def _row(each: ImportLine) -> downloads.Row:
    return {
        "line": each.line,
        "kind": each.action,
        "key": each.key,
        "username": each.username,
        "name": each.name,
        "words": each.why,
    }


def _request(form: UploadForm) -> Request:
    settings = portal().settings
    has_key = settings.membership is not None and settings.membership.columns.key is not None
    return importing.make_request(
        settings,
        form.file.data.read(),
        source=printable(form.file.data.filename or "", limit=_LONGEST_NAME) or gettext("a file"),
        key=None if has_key else form.key.data or None,
        leavers="deactivate" if form.leavers.data else "keep",
        actor=guards.actor(),
        clock=portal().clock,
        lists=portal().known_lists(),
        secret=portal().list_password_key(),
    )


def _index_page(form: UploadForm) -> str:
    asked = PageForm(request.args)
    if not asked.validate():
        abort(400)
    found = import_log.page(db.session(), number=asked.page.data or 1)
    settings = portal().settings.membership
    return render_template(
        "admin/imports/index.html",
        form=form,
        found=found,
        key=settings.columns.key if settings else None,
        kinds=KINDS,
    )


def _page(found: Import, form: ApplyForm) -> str:
    asked = LinesForm(request.args)
    if not asked.validate():
        abort(400)
    kinds = (asked.kind.data,) if asked.kind.data else ()
    session = db.session()
    lines = import_log.lines(
        session, found.id, actions=kinds, text=asked.q.data or "", after=asked.after.data or 0, limit=LINES_AT_ONCE + 1
    )
    form.shown.data = shown.sign(f"import {found.id}", found.plan_id)
    return render_template(
        "admin/imports/show.html",
        found=found,
        form=form,
        asked=asked,
        lines=lines[:LINES_AT_ONCE],
        has_more=len(lines) > LINES_AT_ONCE,
        kinds=KINDS,
        can_invite=portal().settings.mail is not None,
        problems=import_log.lines(session, found.id, actions=(Action.PROBLEM,), limit=_NAMED) if found.problems else (),
        forecasts=_forecast(found),
    )


def _forecast(found: Import) -> tuple[Forecast, ...]:
    """Return the effect on the next sync if the leavers of a plan are deactivated."""
    if not (found.is_waiting and found.deactivated):
        return ()
    asked = Asked(Change.DEACTIVATE, Wanted(leavers_of=found.id))
    return forecast(db.session(), asked, lists=portal().known_lists() or {}, now=portal().clock())


def _applied_text(applied: Applied, *, invites: bool) -> str:
    done = ngettext(
        "%(number)s person was imported.", "%(number)s people were imported.", applied.done, number=f"{applied.done:,}"
    )
    if invites:
        done += " " + gettext("New people will get an invitation by e-mail.")
    if not applied.left:
        return done
    left = ngettext(
        "%(number)s person was skipped, because someone else changed the account after the plan was shown. "
        "Import the file again.",
        "%(number)s people were skipped, because someone else changed their accounts after the plan was shown. "
        "Import the file again.",
        applied.left,
        number=f"{applied.left:,}",
    )
    return f"{done} {left}"
