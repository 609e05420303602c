"""One person, for superusers: invite them, take them off all lists, show their history."""

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.outlook import State
from portal.errors import ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.accounts import invitations, profiles
from portal.services.accounts import log as account_log
from portal.services.preferences import preferences
from portal.services.reports import person_history
from portal.translation import gettext, ngettext
from portal.web import guards, shown
from portal.web.admin.list_forms import ReasonForm
from portal.web.admin.user_forms import UserActionForm
from portal.web.forms import MAX_ID, PageForm

blueprint = Blueprint("person", __name__, url_prefix=f"/users/<int(max={MAX_ID}):user_id>")


@blueprint.get("/history")
def history(user_id: int) -> ResponseReturnValue:
    """Show the history of a person's addresses on the lists, newest first."""
    form, profile = PageForm(request.args), profiles.by_id(db.session(), user_id)
    if not form.validate():
        abort(400)
    found = person_history.page(db.session(), user_id, number=form.page.data or 1)
    return render_template(
        "admin/users/lists_history.html",
        profile=profile,
        found=found,
        names=names_of_lists(),
    )


@blueprint.post("/invite")
def invite(user_id: int) -> ResponseReturnValue:
    """Request a mail with a link that logs the person in."""
    profile, form = profiles.by_id(db.session(), user_id), UserActionForm()
    if portal().settings.mail is None or not form.validate():
        abort(400)
    try:
        shown.read(f"account-actions {user_id}", form.shown.data)
    except StaleFormError:
        flash(gettext("This page was out of date, so nothing was done. Check it again."), "bad")
        return _to_person(user_id)
    name = profile.name or profile.username
    if invitations.invite(db.session(), [user_id], actor=guards.actor(), now=portal().clock()):
        flash(gettext("An invitation to %(address)s will be sent within a minute.", address=profile.email), "good")
    else:
        words = gettext(
            "No invitation was sent: %(name)s is deactivated or has no address, or an invitation is about to be sent.",
            name=name,
        )
        flash(words, "bad")
    return _to_person(user_id)


@blueprint.get("/off-all-lists")
def ask_to_take_off(user_id: int) -> ResponseReturnValue:
    """Show the lists that a person would be taken off, and ask for a reason."""
    return _off_all_page(user_id, ReasonForm(None))


@blueprint.post("/off-all-lists")
def take_off(user_id: int) -> ResponseReturnValue:
    """Take a person off every list. Raise DisabledError."""
    form = ReasonForm()
    if not form.validate():
        return _off_all_page(user_id, form), 422
    try:
        count = preferences.take_off_all(
            db.session(),
            user_id,
            catalogue=portal().catalogue(),
            actor=guards.actor(),
            now=portal().clock(),
            as_of=shown.read(f"account-actions {user_id}", form.shown.data),
            reason=form.reason.data,
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(gettext("This page was out of date, so nothing was done. Check it again."))
        return _off_all_page(user_id, form), fault_of(error).status
    words = ngettext(
        "They are being taken off %(count)s list.", "They are being taken off %(count)s lists.", count, count=count
    )
    flash(f"{gettext('Saved.')} {words}", "good")
    return _to_person(user_id)


def _off_all_page(user_id: int, form: ReasonForm) -> str:
    profile, last = profiles.by_id(db.session(), user_id), account_log.last_change(db.session(), user_id)
    catalogue, now = portal().catalogue(), portal().clock()
    found = preferences.page(db.session(), user_id, catalogue=catalogue, now=now, with_unlisted=True)
    return render_template(
        "admin/users/off_all.html",
        profile=profile,
        form=form,
        on=[
            (each.mailing_list.name, each.address)
            for each in found.offers
            if each.is_ticked or each.state in {State.NOT_CHOSEN, State.BEING_REMOVED}
        ],
        shown=shown.sign(f"account-actions {user_id}", last),
    )


def names_of_lists() -> dict[str, str]:
    """Return the names of the lists by handle; none if the catalogue cannot be read."""
    catalogue = portal().readable_catalogue()
    return {} if catalogue is None else {handle: each.name for handle, each in catalogue.lists.items()}


def _to_person(user_id: int) -> ResponseReturnValue:
    return redirect(url_for("admin.users.show", user_id=user_id, _anchor="lists"), 303)
