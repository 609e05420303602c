"""Search, for superusers: a person or an address on all lists, and why it is on them or not."""

from zoneinfo import ZoneInfo

from flask import Blueprint, render_template, request
from flask.typing import ResponseReturnValue

from portal.domain.address import canonical
from portal.errors import InvalidAddressError
from portal.extensions import db, portal
from portal.services.accounts import directory
from portal.services.reports import why
from portal.web.admin.user_forms import SearchForm

blueprint = Blueprint("search", __name__, url_prefix="/search")

AT_ONCE = 50  # addresses found by a part of them


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Answer for one address why it is on each list or not; a part of one leads to those that it fits."""
    form = SearchForm(request.args)
    if not form.validate():
        return render_template("admin/search.html", form=form, address=None, matches=None, answers=()), 400
    text = form.q.data or ""
    address = _address(text)
    matches = directory.search(db.session(), text, limit=AT_ONCE + 1) if text else None
    exact = [each for each in matches or () if each.canonical == address]
    answers = _answers(address) if address and (exact or not matches) else ()
    return render_template(
        "admin/search.html", form=form, address=address if answers else None, matches=matches, answers=answers
    )


def _address(text: str) -> str | None:
    try:
        return canonical(text)
    except InvalidAddressError:
        return None


def _answers(address: str) -> list[tuple[str, why.Explanation]]:
    """Return each list's name and what is known of an address on it."""
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return []
    zone = ZoneInfo(portal().settings.timezone)
    return [
        (each.name, why.explain(db.session(), each, address, now=portal().clock(), zone=zone))
        for each in catalogue.lists.values()
    ]
