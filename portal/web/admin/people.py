"""People, for superusers: search, sort and download them, and change many at once."""

from collections.abc import Mapping

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.errors import BadInputError, ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services import security_log
from portal.services.accounts import bulk, directory, users
from portal.services.accounts.bulk import GROUP_CHANGES, Asked, Change
from portal.services.accounts.profiles import Profile
from portal.services.reports.forecast import forecast
from portal.services.sync import expected_plans
from portal.translation import gettext, ngettext
from portal.web import guards, recent_password, shown
from portal.web.admin import downloads
from portal.web.admin.people_forms import (
    CHANGE_WORDS,
    STATUS_WORDS,
    ChangePeopleForm,
    ConfirmChangeForm,
    ExportPeopleForm,
    PeopleForm,
    is_possible,
)
from portal.web.template_filters import sentence

blueprint = Blueprint("people", __name__, url_prefix="/users")

AT_ONCE = 50  # people on a page
COLUMNS = (
    "username", "name", "email", "addresses", "groups", "superuser", "active", "created", "last_log_in", "member_key",
)  # fmt: skip


@blueprint.get("")
def index() -> ResponseReturnValue:
    """List the people that match the filter."""
    form = PeopleForm(request.args)
    is_valid = form.validate()
    if form.status.errors or form.sort.errors or form.page.errors:  # no link on our pages does that
        abort(400)
    page = None
    if is_valid:
        page = directory.page(
            db.session(),
            form.wanted,
            lists=portal().known_lists() or {},
            sort=form.order.removeprefix("-"),
            is_descending=form.order.startswith("-"),
            number=form.page.data or 1,
            size=AT_ONCE,
        )
    response = render_template(
        "admin/people/index.html",
        form=form,
        page=page,
        size=AT_ONCE,
        groups=directory.groups(db.session()),
        actions={change.value: words for change, words in CHANGE_WORDS.items() if is_possible(change)},
        status_words=STATUS_WORDS,
    )
    return response, 200 if is_valid else 400


@blueprint.get("/export")
def export() -> ResponseReturnValue:
    """Download the people that match the filter, in constant memory."""
    form = ExportPeopleForm(request.args)
    if not form.validate():
        return redirect(url_for("admin.people.index"))
    kind = form.format.data or "csv"
    found = directory.export(db.session(), form.wanted)
    security_log.log("export", of=request.endpoint, format=kind)
    blocks = ([_row(each) for each in block] for block in found)
    return downloads.send(blocks, columns=COLUMNS, kind=kind, name="people")


@blueprint.get("/change")
def preview() -> ResponseReturnValue:
    """Ask for the groups if the action needs them; then preview it."""
    form = ChangePeopleForm(request.args)
    if not form.validate():
        return _nothing_to_preview(form)
    if not form.is_for_all and not form.user.data:
        flash(gettext("No one is selected. Select people, or choose all people found."), "bad")
        return redirect(url_for("admin.people.index", **form.query))
    if Change(form.change.data) in GROUP_CHANGES and "groups" not in request.args:
        return _groups_page(form)
    asked = _asked(form)
    return _groups_page(form) if asked is None else _preview_page(form, asked)


@blueprint.post("/change")
@recent_password.needed
def change() -> ResponseReturnValue:
    """Apply the change to exactly the accounts of the preview; if they have changed, preview again."""
    form = ChangePeopleForm(request.args)
    asked = _asked(form) if form.validate() else None
    if asked is None:
        return redirect(url_for("admin.people.index"), 303)
    confirmed = ConfirmChangeForm()
    try:
        preview_id, counts = shown.read("people-change", confirmed.shown.data)
        done = bulk.do(
            db.session(),
            asked,
            preview_id=preview_id,
            actor=guards.actor(),
            now=portal().clock(),
            lists=portal().known_lists(),
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        confirmed.form_errors.append(
            gettext("The people have changed since they were shown, so nothing was done. Check them again.")
        )
        return _preview_page(form, asked, confirmed), fault_of(error).status
    flash(_done_text(asked.change, done), "good")
    if counts and "approve" in request.form:
        return _approve(counts)
    return redirect(url_for("admin.people.index", **form.query), 303)


def _approve(counts: Mapping[str, int]) -> ResponseReturnValue:
    """Request the runs that the preview said need approval, and redirect to them."""
    lists = (portal().known_lists() or {}).values()
    found = expected_plans.approve_all(db.session(), lists, counts, actor=guards.actor(), now=portal().clock())
    for run_id in found:
        security_log.log("run asked for", run=run_id)
    one = len(found) == 1
    return redirect(url_for("admin.runs.show", run_id=found[0]) if one else url_for("admin.runs.index"), 303)


def _done_text(change: Change, done: int) -> str:
    if change is Change.INVITE:
        return ngettext(
            "%(number)s person will get an invitation by e-mail.",
            "%(number)s people will get an invitation by e-mail.",
            done,
            number=f"{done:,}",
        )
    return ngettext("%(number)s person was changed.", "%(number)s people were changed.", done, number=f"{done:,}")


def _asked(form: ChangePeopleForm) -> Asked | None:
    """Return the change that a form describes, with its groups checked, or None if the form now shows an error."""
    asked = form.asked
    try:
        asked = asked._replace(groups=users.checked_groups(asked.groups))
    except BadInputError as error:
        form.groups.errors = [sentence(error)]
        return None
    if not asked.groups and asked.change in {Change.ADD_GROUPS, Change.REMOVE_GROUPS}:
        form.groups.errors = [gettext("Enter a group.")]
        return None
    return asked


def _nothing_to_preview(form: ChangePeopleForm) -> ResponseReturnValue:
    if form.groups.errors and not any(errors for name, errors in form.errors.items() if name != "groups"):
        return _groups_page(form)
    return redirect(url_for("admin.people.index"))


def _groups_page(form: ChangePeopleForm) -> ResponseReturnValue:
    response = render_template(
        "admin/people/groups.html",
        form=form,
        words=CHANGE_WORDS[Change(form.change.data)],
        may_be_none=form.change.data == Change.SET_GROUPS,
        groups=directory.groups(db.session()),
    )
    return response, 422 if form.groups.errors else 200


def _preview_page(form: ChangePeopleForm, asked: Asked, confirmed: ConfirmChangeForm | None = None) -> str:
    found = bulk.preview(db.session(), asked)
    lists = portal().known_lists() or {}
    forecasts = forecast(db.session(), asked, lists=lists, now=portal().clock())
    counts = {each.handle: each.counted for each in forecasts if each.needs_approval}
    return render_template(
        "admin/people/change.html",
        asked=asked,
        form=confirmed or ConfirmChangeForm(None),
        query=form.query,
        preview=found,
        forecasts=forecasts,
        shown=shown.sign("people-change", [found.id, counts]),
    )


def _row(each: Profile) -> downloads.Row:
    return {
        "username": each.username,
        "name": each.name,
        "email": each.email,
        "addresses": list(each.addresses),
        "groups": list(each.groups),
        "superuser": each.is_superuser,
        "active": each.is_active,
        "created": each.created_at.isoformat(timespec="seconds"),
        "last_log_in": each.last_login_at and each.last_login_at.isoformat(timespec="seconds"),
        "member_key": each.member_key,
    }
