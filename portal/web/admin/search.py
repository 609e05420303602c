"""Search, for superusers: find a person or an address, and answer why it is on each list or not."""

from collections.abc import Iterable

from flask import Blueprint, current_app, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue

from portal.domain.search_text import search_key
from portal.errors import BadInputError
from portal.extensions import db, portal
from portal.services.accounts import directory, profiles
from portal.services.accounts.directory import Match
from portal.services.reports import why
from portal.web.admin.user_forms import SearchForm

blueprint = Blueprint("search", __name__, url_prefix="/search")

AT_ONCE = 50  # addresses that match a part


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Redirect to the person with that address, username or name, or list all whom a part of one matches.

    For an address without a holder, or with several, answer why it is on each list or not.
    """
    form = SearchForm(request.args)
    if not form.validate():
        return render_template("admin/search.html", form=form, answers={}, matches=None), 400
    text = form.q.data or ""
    matches = directory.search(db.session(), text, limit=AT_ONCE + 1) if text else ()
    person = _meant(text, matches)
    if person is not None:
        return redirect(url_for("admin.users.show", user_id=person))
    known = {each.canonical for each in matches}
    asked = [each for each in (_addresses(text) if text else ()) if each in known or not matches]
    holders = {address: [each for each in matches if each.canonical == address and each.username] for address in asked}
    return render_template(
        "admin/search.html",
        form=form,
        answers={address: _answers(address) for address in asked},
        holders=holders,
        matches=[each for each in matches if each.canonical not in asked],
    )


def _meant(text: str, matches: Iterable[Match]) -> int | None:
    """Return the only person whose complete username, name or address is the text."""
    key = search_key(text)
    wholes = ((each.user_id, (each.username, each.name, each.spelling)) for each in matches if each.user_id is not None)
    found = {user_id for user_id, texts in wholes if key in {search_key(each or "") for each in texts}}
    return found.pop() if len(found) == 1 else None


def _addresses(text: str) -> tuple[str, ...]:
    """Return the address, or the addresses of the user, that a text names."""
    try:
        return profiles.addresses_of(db.session(), text)
    except BadInputError:
        return ()


def _answers(address: str) -> list[tuple[str, why.Explanation]]:
    """Return the answers for an address, by name of list, for lists that its holders may see or that it is on."""
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return []
    moment, now = current_app.jinja_env.filters["moment"], portal().clock()
    answers = (
        (each.name, why.explain(db.session(), each, address, now=now, moment=moment, list_name=each.name))
        for each in catalogue.lists.values()
    )
    return [(name, answer) for name, answer in answers if answer.is_of_concern]
