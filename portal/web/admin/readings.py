"""Readings of a list on request: subscribers without an account, and how the list delivers to a person."""

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services import security_log
from portal.services.accounts import addresses
from portal.services.reports import deliveries
from portal.services.sync import readings
from portal.translation import gettext
from portal.web.admin.list_forms import NumberedForm
from portal.web.admin.runs import REFRESHED_AFTER
from portal.web.forms import MAX_ID, TokenForm

blueprint = Blueprint("readings", __name__)

AT_ONCE = 100  # addresses on a page


@blueprint.get("/lists/<handle>/without-account")
def without_account(handle: str) -> ResponseReturnValue:
    """Show the subscribers without an account, as read within the last day."""
    mailing_list, form = portal().catalogue().get(handle), NumberedForm(request.args)
    if not form.validate():
        abort(400)
    number = form.page.data or 1
    found = deliveries.without_account(db.session(), handle, now=portal().clock(), number=number, size=AT_ONCE)
    refreshes = found.is_asked and form.refresh.data != "no"
    page = render_template(
        "admin/without_account.html",
        mailing_list=mailing_list,
        found=found,
        number=number,
        size=AT_ONCE,
        refreshes=refreshes,
    )
    return page, {"refresh": str(REFRESHED_AFTER)} if refreshes else {}


@blueprint.post("/lists/<handle>/without-account")
def ask(handle: str) -> ResponseReturnValue:
    """Request a reading. Raise UnknownListError or PausedError."""
    mailing_list = portal().catalogue().get(handle)
    mailing_list.require_running()
    readings.request_unknown(db.session(), handle, now=portal().clock())
    security_log.log("reading asked for", list=handle)
    return redirect(url_for("admin.readings.without_account", handle=handle), 303)


@blueprint.post(f"/users/<int(max={MAX_ID}):user_id>/ask-lists")
def ask_about(user_id: int) -> ResponseReturnValue:
    """Request readings of how the lists deliver to a person."""
    if not TokenForm().validate():
        abort(400)
    held = [each.id for each in addresses.held(db.session(), user_id)]
    catalogue = portal().catalogue()
    running = [handle for handle, each in catalogue.lists.items() if not each.is_paused]
    if readings.request_deliveries(db.session(), held, running, now=portal().clock()):
        flash(gettext("The lists will be asked within a minute. Then reload this page."), "message")
    else:
        flash(gettext("No list has any of these addresses, so there is nothing to ask."), "message")
    return redirect(url_for("admin.users.show", user_id=user_id, _anchor="lists"), 303)
