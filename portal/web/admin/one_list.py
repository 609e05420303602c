"""One list, for superusers: its addresses as a page or a file, and changes on behalf of members."""

from datetime import timedelta

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.address import canonical
from portal.domain.mailinglist import MailingList
from portal.errors import ChangedMeanwhileError, InvalidAddressError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services import security_log
from portal.services.accounts import directory
from portal.services.preferences import on_behalf
from portal.services.preferences.on_behalf import BulkAction
from portal.services.reports import deliveries, subscribers, trends
from portal.services.reports import lists as list_reports
from portal.services.reports import why as reasons
from portal.services.reports.subscribers import Filter, Subscriber
from portal.services.sync import expected_plans
from portal.translation import gettext, ngettext
from portal.web import guards, shown
from portal.web.admin import downloads
from portal.web.admin.list_forms import (
    STATE_WORDS,
    BulkActionForm,
    ExportForm,
    SubscribersForm,
    WhyForm,
    reason_form,
)
from portal.web.template_filters import sentence

blueprint = Blueprint("one_list", __name__, url_prefix="/lists/<handle>")

AT_ONCE = 50  # addresses on a page
COLUMNS = ("address", "holders", "state", "wanted", "source", "since", "seen", "result", "refusal", "refused_at")


@blueprint.get("")
def show(handle: str) -> ResponseReturnValue:
    """Show the numbers of a list, and its addresses that match the filter."""
    catalogue, now = portal().catalogue(), portal().clock()
    mailing_list = catalogue.get(handle)
    form = SubscribersForm(request.args)
    is_valid = form.validate()
    if form.sort.errors or form.page.errors or form.changed.errors:  # no link on our pages does that
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
        changed=_changed(mailing_list, form.changed.data),
        size=AT_ONCE,
        groups={each: each for each in directory.groups(db.session())},
        deliveries=deliveries.counts(db.session(), handle),
        weeks=trends.weeks(db.session(), [handle], now=now)[handle],
        state_words=STATE_WORDS,
    )
    return response, 200 if is_valid else 400


def _changed(mailing_list: MailingList, address_id: int | None) -> tuple[Subscriber, ...]:
    """Return the address that was just changed, whether it matches the filter or not."""
    if address_id is None:
        return ()
    wanted, now = Filter(address_ids=(address_id,)), portal().clock()
    return subscribers.page(db.session(), mailing_list, wanted, size=1, now=now, promise=_promise()).subscribers


@blueprint.get("/why")
def why(handle: str) -> ResponseReturnValue:
    """Answer why an address is on the list or not, and offer actions."""
    mailing_list, form = portal().catalogue().get(handle), WhyForm(request.args)
    answer = None
    if form.validate():
        try:
            moment, now = current_app.jinja_env.filters["moment"], portal().clock()
            address, name = canonical(form.q.data), mailing_list.name
            answer = reasons.explain(db.session(), mailing_list, address, now=now, moment=moment, list_name=name)
        except InvalidAddressError as error:
            form.q.errors.append(sentence(str(error)))
    response = render_template("admin/why.html", mailing_list=mailing_list, form=form, answer=answer)
    return response, 200 if answer else 400


@blueprint.get("/export")
def export(handle: str) -> ResponseReturnValue:
    """Download the addresses that match the filter, in constant memory."""
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
    """Preview a bulk action."""
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
    """Apply a bulk action to exactly the addresses of the preview; if they have changed, preview again."""
    mailing_list = portal().catalogue().get(handle)
    asked = BulkActionForm(request.args)
    if not asked.validate() or asked.lacks_addresses:
        return redirect(url_for("admin.one_list.show", handle=handle), 303)
    bulk_action = BulkAction(asked.bulk_action.data)
    form = reason_form(bulk_action)
    if not form.validate():
        return _preview_page(mailing_list, asked, form), 422
    try:
        preview_id, plan_id = shown.read("bulk-action", form.shown.data)
        done = on_behalf.do(
            db.session(),
            mailing_list,
            bulk_action,
            asked.wanted,
            preview_id=preview_id,
            actor=guards.actor(),
            now=portal().clock(),
            reason=form.reason.data if "reason" in form else "",
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(
            gettext("The addresses have changed since they were shown, so nothing was done. Check them again.")
        )
        return _preview_page(mailing_list, asked, form), fault_of(error).status
    flash(_done_text(bulk_action, done), "good")
    if plan_id and "approve" in request.form:
        return _approve(mailing_list, plan_id)
    return redirect(_back(handle, asked, is_done=True), 303)


def _approve(mailing_list: MailingList, plan_id: str) -> ResponseReturnValue:
    """Request the run that was previewed, or only its plan if it is different now, and redirect to its page."""
    run_id = expected_plans.approve(db.session(), mailing_list, plan_id, actor=guards.actor(), now=portal().clock())
    security_log.log("run asked for", list=mailing_list.handle, kind="sync", plan=plan_id, run=run_id)
    return redirect(url_for("admin.runs.show", run_id=run_id), 303)


def _back(handle: str, asked: BulkActionForm, *, is_done: bool = False) -> str:
    """Return the URL of the page where a bulk action was requested, with the changed address in view."""
    if asked.person.data:
        return url_for("admin.users.show", user_id=asked.person.data, _anchor=f"list-{handle}")
    if asked.why.data:
        return url_for("admin.one_list.why", handle=handle, q=asked.why.data)
    if is_done and len(asked.addresses) == 1:
        changed = asked.addresses[0]
        return url_for("admin.one_list.show", handle=handle, changed=changed, _anchor="changed", **asked.place)
    return url_for("admin.one_list.show", handle=handle, **asked.place)


def _done_text(bulk_action: BulkAction, count: int) -> str:
    values = {"number": f"{count:,}"}
    if bulk_action is BulkAction.SUBSCRIBE:
        return ngettext(
            "%(number)s address will be put on the list.",
            "%(number)s addresses will be put on the list.",
            count,
            **values,
        )
    if bulk_action is BulkAction.UNSUBSCRIBE:
        return ngettext(
            "%(number)s address will be taken off the list.",
            "%(number)s addresses will be taken off the list.",
            count,
            **values,
        )
    return ngettext(
        "%(number)s address will be tried again.",
        "%(number)s addresses will be tried again.",
        count,
        **values,
    )


def _preview_page(mailing_list: MailingList, asked: BulkActionForm, form: object = None) -> str:
    bulk_action = BulkAction(asked.bulk_action.data)
    found = on_behalf.preview(db.session(), mailing_list, bulk_action, asked.wanted, now=portal().clock())
    plan_id = found.next_run.plan_id if found.next_run else None
    return render_template(
        "admin/change.html",
        mailing_list=mailing_list,
        asked=asked,
        bulk_action=bulk_action,
        form=form or reason_form(bulk_action),
        preview=found,
        shown=shown.sign("bulk-action", [found.id, plan_id]),
        back=_back(mailing_list.handle, asked),
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
