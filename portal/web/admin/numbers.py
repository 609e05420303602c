"""Statistics for a board, for superusers: subscribers, joins, leaves and people making changes, as a page or a file."""

from collections.abc import Collection, Iterator
from datetime import date
from zoneinfo import ZoneInfo

from flask import Blueprint, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services import security_log
from portal.services.reports.numbers import Period, Span, numbers
from portal.translation import gettext
from portal.translation import lazy_gettext as _
from portal.web.admin import downloads
from portal.web.admin.list_forms import ExportNumbersForm, NumbersForm
from portal.web.template_filters import MONTHS, day_text

blueprint = Blueprint("numbers", __name__, url_prefix="/numbers")

SPAN_WORDS = {Span.WEEK: _("Weeks"), Span.MONTH: _("Months"), Span.YEAR: _("Years")}
COLUMNS = ("from", "subscribers", "joined", "left", "people_making_changes")


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Show the periods of all lists together, or of one, as charts and as a table."""
    form, lists = NumbersForm(request.args), _lists()
    is_valid = form.validate() and (not form.list.data or form.list.data in lists)
    if not is_valid:
        return redirect(url_for("admin.numbers.index"))
    found = _numbers([form.list.data] if form.list.data else lists, form.span)
    return render_template(
        "admin/numbers.html",
        form=form,
        lists=lists,
        periods=found,
        labels=[_label(form.span, each.begins_on) for each in found],
        span_words=SPAN_WORDS,
    )


@blueprint.get("/export")
def export() -> ResponseReturnValue:
    """Download the numbers that the page shows."""
    form, lists = ExportNumbersForm(request.args), _lists()
    if not form.validate() or (form.list.data and form.list.data not in lists):
        return redirect(url_for("admin.numbers.index"))
    found, kind = _numbers([form.list.data] if form.list.data else lists, form.span), form.format.data or "csv"
    security_log.log("export", of=request.endpoint, format=kind)
    name = f"{form.list.data or 'numbers'}-by-{form.span}"
    return downloads.send(_blocks(found), columns=COLUMNS, kind=kind, name=name)


def _numbers(handles: Collection[str], span: Span) -> tuple[Period, ...]:
    zone = ZoneInfo(portal().settings.timezone)
    return numbers(db.session(), handles, span=span, now=portal().clock(), zone=zone)


def _lists() -> dict[str, str]:
    return {handle: each.name for handle, each in portal().catalogue().lists.items()}


def _blocks(found: Collection[Period]) -> Iterator[list[downloads.Row]]:
    yield [dict(zip(COLUMNS, (each.begins_on.isoformat(), *each[1:]), strict=True)) for each in found]


def _label(span: Span, begins_on: date) -> str:
    if span is Span.YEAR:
        return str(begins_on.year)
    if span is Span.MONTH:
        return gettext("%(month)s %(year)s", month=MONTHS[begins_on.month - 1], year=begins_on.year)
    zone = ZoneInfo(portal().settings.timezone)
    return day_text(begins_on, portal().clock().astimezone(zone).date())
