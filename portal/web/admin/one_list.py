"""One list, for superusers: its addresses, as a page or a file, and what is done about them for others."""

from datetime import timedelta

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.mailinglist import MailingList
from portal.errors import ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services import security_log
from portal.services.accounts import directory
from portal.services.preferences import on_behalf
from portal.services.preferences.on_behalf import BulkAction
from portal.services.reports import lists as list_reports
from portal.services.reports import subscribers, trends
from portal.services.reports.subscribers import Subscriber
from portal.translation import gettext, ngettext
from portal.web import guards, shown
from portal.web.admin import downloads
from portal.web.admin.list_forms import STATE_WORDS, BulkActionForm, ExportForm, SubscribersForm, reason_form

blueprint = Blueprint("one_list", __name__, url_prefix="/lists/<handle>")

AT_ONCE = 50  # addresses on a page
COLUMNS = ("address", "holders", "state", "wanted", "source", "since", "seen", "result", "refusal", "refused_at")


@blueprint.get("")
def show(handle: str) -> ResponseReturnValue:
    """Show a list in numbers, and those of its addresses that the URL asks for."""
    catalogue, now = portal().catalogue(), portal().clock()
    mailing_list = catalogue.get(handle)
    form = SubscribersForm(request.args)
    is_valid = form.validate()
    if form.sort.errors or form.page.errors:  # no link of ours says that
        abort(400)
    (report,) = list_reports.lists(db.session(), catalogue=catalogue, now=now, handles=[handle])
    page = None
    if is_valid:
        page = subscribers.page(
            db.session(),
            mailing_list,
            form.wanted,
            sort=form.order.removeprefix("-"),
            is_descending=form.order.startswith("-"),
            number=form.page.data or 1,
            size=AT_ONCE,
            known_counts=report.by_state,
            now=now,
            promise=_promise(),
        )
    response = render_template(
        "admin/list.html",
        mailing_list=mailing_list,
        report=report,
        form=form,
        page=page,
        size=AT_ONCE,
        groups={each: each for each in directory.groups(db.session())},
        weeks=trends.weeks(db.session(), [handle], now=now)[handle],
        state_words=STATE_WORDS,
    )
    return response, 200 if is_valid else 400


@blueprint.get("/export")
def export(handle: str) -> ResponseReturnValue:
    """Send the addresses that the URL asks for as a file, in constant memory."""
    mailing_list = portal().catalogue().get(handle)
    form = ExportForm(request.args)
    if not form.validate():
        return redirect(url_for("admin.one_list.show", handle=handle))
    now, kind = portal().clock(), form.format.data or "csv"
    found = subscribers.export(db.session(), mailing_list, form.wanted, now=now, promise=_promise())
    security_log.log("export", list=handle, of=request.endpoint, format=kind)
    blocks = ([_row(each) for each in block] for block in found)
    return downloads.send(blocks, columns=COLUMNS, kind=kind, name=handle)


@blueprint.get("/change")
def preview(handle: str) -> ResponseReturnValue:
    """Show what a bulk action would do, before it is done."""
    mailing_list = portal().catalogue().get(handle)
    asked = BulkActionForm(request.args)
    if not asked.validate():
        return redirect(url_for("admin.one_list.show", handle=handle))
    if asked.lacks_addresses:
        flash(gettext("Select at least one address first."), "bad")
        return redirect(url_for("admin.one_list.show", handle=handle, **asked.query))
    return _preview_page(mailing_list, asked)


@blueprint.post("/change")
def change(handle: str) -> ResponseReturnValue:
    """Do what was looked at, to exactly those addresses; where they have changed since, show them again."""
    mailing_list = portal().catalogue().get(handle)
    asked = BulkActionForm(request.args)
    if not asked.validate() or asked.lacks_addresses:
        return redirect(url_for("admin.one_list.show", handle=handle), 303)
    bulk_action = BulkAction(asked.bulk_action.data)
    form = reason_form(bulk_action)
    if not form.validate():
        return _preview_page(mailing_list, asked, form), 422
    try:
        done = on_behalf.do(
            db.session(),
            mailing_list,
            bulk_action,
            asked.wanted,
            preview_id=shown.read("bulk-action", form.shown.data),
            actor=guards.actor(),
            now=portal().clock(),
            reason=form.reason.data if "reason" in form else "",
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(
            gettext("The addresses have changed since they were shown, and nothing was done. Look again.")
        )
        return _preview_page(mailing_list, asked, form), fault_of(error).status
    flash(_done_text(bulk_action, done), "good")
    return redirect(url_for("admin.one_list.show", handle=handle, **asked.query), 303)


def _done_text(bulk_action: BulkAction, count: int) -> str:
    values = {"number": f"{count:,}"}
    if bulk_action is BulkAction.SUBSCRIBE:
        return ngettext(
            "%(number)s address was put on the list.", "%(number)s addresses were put on the list.", count, **values
        )
    if bulk_action is BulkAction.UNSUBSCRIBE:
        return ngettext(
            "%(number)s address was taken off the list.",
            "%(number)s addresses were taken off the list.",
            count,
            **values,
        )
    return ngettext(
        "%(number)s address was marked to be tried again.",
        "%(number)s addresses were marked to be tried again.",
        count,
        **values,
    )


def _preview_page(mailing_list: MailingList, asked: BulkActionForm, form: object = None) -> str:
    bulk_action = BulkAction(asked.bulk_action.data)
    found = on_behalf.preview(db.session(), mailing_list, bulk_action, asked.wanted)
    return render_template(
        "admin/change.html",
        mailing_list=mailing_list,
        asked=asked,
        bulk_action=bulk_action,
        form=form or reason_form(bulk_action),
        preview=found,
        shown=shown.sign("bulk-action", found.id),
        hours=portal().catalogue().applied_within_hours,
        state_words=STATE_WORDS,
    )


def _promise() -> timedelta:
    return timedelta(hours=portal().catalogue().applied_within_hours)


def _row(each: Subscriber) -> downloads.Row:
    return {
        "address": each.address,
        "holders": [holder.username for holder in each.holders],
        "state": each.state,
        "wanted": each.subscribed,
        "source": each.source,
        "since": each.changed_at and each.changed_at.isoformat(timespec="seconds"),
        "seen": each.seen,
        "result": each.push_result,
        "refusal": each.refusal,
        "refused_at": each.refused_at and each.refused_at.isoformat(timespec="seconds"),
    }
