"""A member's mailing lists: the page with a box for each list, and saving it."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from flask import Blueprint, abort, current_app, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from flask_wtf.csrf import CSRFError
from jinja2 import Environment

from portal.domain.outlook import State
from portal.domain.search_text import matches
from portal.errors import StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.preferences import preferences
from portal.services.preferences.preferences import Choice, CommonOffer, HeldAddress, Offer
from portal.services.reports import deliveries
from portal.services.reports.deliveries import ListDelivery
from portal.translation import gettext, ngettext, translations
from portal.web import guards, shown, unsaved
from portal.web.forms import ListsForm, PostedForm, ShownForm, SubscriptionsForm
from portal.web.template_filters import listed

blueprint = Blueprint("subscriptions", __name__)

MANY = 20  # number of lists from which there is a filter
NAMED = 400  # bytes of list names in a message, which is stored in a cookie of at most 4,096 bytes


@blueprint.get("/")
def home() -> ResponseReturnValue:
    """Redirect to the member's lists."""
    return redirect(url_for("subscriptions.show"))


@blueprint.get("/subscriptions")
def show() -> ResponseReturnValue:
    """Show every list that the member may see, with its state."""
    return _page()


@blueprint.post("/subscriptions")
@guards.csrf.exempt
def choose() -> ResponseReturnValue:
    """Save the boxes and addresses that differ from the page as it was shown. Raise DisabledError."""
    try:
        guards.csrf.protect()
    except CSRFError as error:  # the page belongs to an earlier log-in of this browser: show its choice unsaved
        if not unsaved.keep():
            raise
        return _page(), error.code or 400
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    form = SubscriptionsForm()
    if not form.validate():  # the page offers nothing invalid
        abort(400)
    try:
        choices = preferences.choose(
            db.session(),
            guards.member().id,
            shown=shown.read("subscriptions", form.shown.data),
            ticked=frozenset(form.lists.data or ()),
            addresses=form.chosen_addresses,
            catalogue=catalogue,
            now=portal().clock(),
        )
    except StaleFormError as error:
        form.form_errors.append(gettext("This page was out of date, so nothing was saved. Choose again."))
        return _page(form), fault_of(error).status
    flash(_told(choices, hours=catalogue.applied_within_hours), _category(choices))
    return redirect(url_for("subscriptions.show", q=_words() or None), 303)


@blueprint.post("/subscriptions/send-to-main")
def send_to_main() -> ResponseReturnValue:
    """Send every list to the main address that the page showed with another one. Raise DisabledError."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    form = ShownForm()
    if not form.validate():
        abort(400)
    try:
        sent_to = {handle: number for handle, number in shown.read("subscriptions", form.shown.data).items() if number}
    except StaleFormError as error:
        form.form_errors.append(gettext("This page was out of date, so nothing was saved. Choose again."))
        return _page(form), fault_of(error).status
    main = preferences.page(db.session(), guards.member().id, catalogue=catalogue, now=portal().clock()).addresses[:1]
    choices = preferences.choose(
        db.session(),
        guards.member().id,
        shown=sent_to,
        ticked=frozenset(sent_to),
        addresses={handle: each.id for handle in sent_to for each in main},
        catalogue=catalogue,
        now=portal().clock(),
    )
    flash(_told(choices, hours=catalogue.applied_within_hours), _category(choices))
    return redirect(url_for("subscriptions.show"), 303)


@blueprint.get("/subscriptions/leave")
def ask_to_leave() -> ResponseReturnValue:
    """Explain what leaving all lists does, and ask for confirmation."""
    return _leave_page(ShownForm(formdata=None))


@blueprint.post("/subscriptions/leave")
def leave() -> ResponseReturnValue:
    """Untick every list that the page named, also those never chosen before. Raise DisabledError."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    form = ShownForm()
    if not form.validate():
        abort(400)
    try:
        named = shown.read("leave", form.shown.data)
    except StaleFormError as error:
        form.form_errors.append(gettext("This page was out of date, so nothing was saved. Check it again."))
        return _leave_page(form), fault_of(error).status
    choices = preferences.choose(
        db.session(), guards.member().id, shown=named, ticked=(), catalogue=catalogue, now=portal().clock()
    )
    flash(_told(choices, hours=catalogue.applied_within_hours), _category(choices))
    return redirect(url_for("subscriptions.show"), 303)


def _leave_page(form: ShownForm) -> str:
    catalogue = portal().catalogue()
    if not catalogue.enabled:
        return render_template("subscriptions/not_offered.html")
    page = preferences.page(db.session(), guards.member().id, catalogue=catalogue, now=portal().clock())
    return render_template(
        "subscriptions/leave.html",
        form=form,
        page=page,
        # Signed as ticked, so that unticking counts as a choice even if there was none before.
        shown=shown.sign("leave", {offer.mailing_list.handle: 1 for offer in page.offers if _can_be_left(offer)}),
        left=[offer for offer in page.offers if _can_be_left(offer)],
        hours=catalogue.applied_within_hours,
    )


def _can_be_left(offer: Offer) -> bool:
    return offer.mailing_list.can_leave and (offer.is_ticked or offer.state is State.NOT_CHOSEN)


def _page(form: PostedForm | None = None) -> str:
    catalogue = portal().catalogue()
    if not catalogue.enabled:
        return render_template("subscriptions/not_offered.html")
    user_id, holder = guards.member().id, guards.holder()
    page = preferences.page(db.session(), user_id, catalogue=catalogue, now=portal().clock(), holder=holder)
    words = _words()
    offers = _matching(page.offers, words)
    kept = unsaved.take(user_id)
    ticks, addresses = kept or ({}, {})
    handles = {each.mailing_list.handle for each in offers}
    noted = [*page.deliveries, *(_lost(offers) if page.has_moved else ())]
    return render_template(
        "subscriptions/show.html",
        form=form,
        names={offer.mailing_list.handle: offer.mailing_list.name for offer in page.offers} if noted else {},
        deliveries=noted,
        words=words,
        page=page,
        sections=_sections(offers, _rows(page.addresses, ticks, addresses)),
        count=len(offers),
        within=_in_short(catalogue.applied_within_hours, soon=page.soon & handles, handles=handles),
        has_many=len(page.offers) >= MANY,
        is_on_any=any(each.is_ticked for each in page.offers),
        is_unsaved=kept is not None,
        shown=shown.sign("subscriptions", {offer.mailing_list.handle: offer.address_id or 0 for offer in offers}),
    )


def _lost(offers: Sequence[Offer]) -> tuple[ListDelivery, ...]:
    """Return lists that removed an earlier address of the member for bouncing and that they are not on now."""
    missing = [each.mailing_list.handle for each in offers if not each.is_ticked]
    return deliveries.lost(db.session(), guards.member().id, missing)


def _rows(
    addresses: Sequence[HeldAddress], ticks: Mapping[str, bool], chosen: Mapping[str, int]
) -> Callable[[Offer], str]:
    """Return a function that renders the row of a list, as stored or with an unsaved choice.

    Members with one address share cached rows if they chose the same at the same time, or never chose.
    """
    environment = current_app.jinja_env
    if len(addresses) > 1:
        main = addresses[0].id

        def of_one(offer: Offer) -> str:
            handle = offer.mailing_list.handle
            sent_to = chosen.get(handle, offer.address_id or main)
            return _render_row(environment, offer, ticks.get(handle, offer.is_ticked), addresses, sent_to)

        return of_one
    # Dates of this year are shown without the year, so the rows depend on it.
    year = portal().clock().astimezone(ZoneInfo(portal().settings.timezone)).year
    render = _renderer_for_many(environment, translations(), year)
    return lambda offer: render(offer.without_address_id, ticks.get(offer.mailing_list.handle, offer.is_ticked))


@lru_cache(maxsize=8)
def _renderer_for_many(environment: Environment, _language: object, _year: int) -> Callable[[CommonOffer, bool], str]:
    """Return a function that renders a row; its arguments and these are all that a row depends on."""

    @lru_cache(maxsize=5_000)
    def render(offer: CommonOffer, is_ticked: bool) -> str:
        return _render_row(environment, Offer(*offer, None), is_ticked, (), None)

    return render


def _render_row(environment: Environment, *arguments: Any) -> str:
    module: Any = environment.get_template("subscriptions/row.html").module
    row: str = module.row(*arguments)
    return row


def _words() -> str:
    """Return the words that the lists are filtered by."""
    if "q" not in request.args:
        return ""
    form = ListsForm(request.args)
    return form.q.data or "" if form.validate() else ""


def _matching(offers: Sequence[Offer], text: str) -> Sequence[Offer]:
    if not text:
        return offers
    return [
        each
        for each in offers
        if matches(text, each.mailing_list.name, each.mailing_list.description, each.mailing_list.email)
    ]


def _sections(offers: Iterable[Offer], row: Callable[[Offer], str]) -> list[tuple[str, list[str]]]:
    """Return the rows of lists by the heading of their section, in the order of the file; the heading may be empty."""
    found: dict[str, list[str]] = {}
    for each in offers:
        found.setdefault(each.mailing_list.section or "", []).append(row(each))
    return list(found.items())


def _category(choices: Iterable[Choice]) -> str:
    return "good" if any(choice.is_changed for choice in choices) else "message"


def _told(choices: Iterable[Choice], *, hours: int) -> str:
    stale = [choice.name for choice in choices if choice.is_stale]
    locked = [choice.name for choice in choices if choice.is_locked]
    still = [choice for choice in choices if choice.still_to]
    changed = [choice for choice in choices if choice.is_changed]
    added = [choice.name for choice in changed if choice.is_ticked and not choice.moved_to]
    removed = [choice.name for choice in changed if not (choice.is_ticked or choice.still_to)]
    moved = [choice for choice in changed if choice.moved_to]
    sentences = [_added_and_removed(added, removed)] if added or removed else []
    for address in sorted({choice.moved_to or "" for choice in moved}):
        names = _spelled([choice.name for choice in moved if choice.moved_to == address])
        sentences.append(gettext("%(lists)s will be sent to %(address)s.", lists=names, address=address))
    for address in sorted({choice.still_to or "" for choice in still}):
        names = _spelled([choice.name for choice in still if choice.still_to == address])
        sentences.append(
            gettext("%(lists)s will still be sent to %(address)s, which others use too.", lists=names, address=address)
        )
    if stale:
        sentences.append(
            ngettext(
                "%(lists)s was changed after you opened the page, so your choice for it was not saved.",
                "%(lists)s were changed after you opened the page, so your choices for them were not saved.",
                len(stale),
                lists=_spelled(stale),
            )
        )
    if locked:
        sentences.append(gettext("Members cannot leave %(lists)s here.", lists=_spelled(locked)))
    if not changed:
        return " ".join([gettext("Nothing was changed."), *sentences])
    within = _applied_within(hours, is_soon=all(choice.is_soon for choice in changed))
    return " ".join([gettext("Saved."), *sentences, within])


def _in_short(hours: int, *, soon: Collection[str], handles: Collection[str]) -> str:
    """Return the words next to the button, in two lines of a phone: within minutes for all, some or no lists."""
    if not soon:
        return _applied_within(hours, is_soon=False)
    if len(soon) == len(handles):
        return gettext("Usually applied within a few minutes.")
    return ngettext(
        "Applied within %(count)s hour, on some lists sooner.",
        "Applied within %(count)s hours, on some lists sooner.",
        hours,
        count=hours,
    )


def _applied_within(hours: int, *, is_soon: bool) -> str:
    """Return the words for when saved changes are applied."""
    if is_soon:
        return ngettext(
            "Changes are applied within a few minutes, at the latest within %(count)s hour.",
            "Changes are applied within a few minutes, at the latest within %(count)s hours.",
            hours,
            count=hours,
        )
    return ngettext(
        "Changes are applied within %(count)s hour.", "Changes are applied within %(count)s hours.", hours, count=hours
    )


def _added_and_removed(added: Sequence[str], removed: Sequence[str]) -> str:
    if not removed:
        return gettext("You will be added to %(added)s.", added=_spelled(added))
    if not added:
        return gettext("You will be taken off %(removed)s.", removed=_spelled(removed))
    return gettext(
        "You will be added to %(added)s and taken off %(removed)s.", added=_spelled(added), removed=_spelled(removed)
    )


def _spelled(names: Sequence[str]) -> str:
    size = sum(len(name.encode("ascii", "backslashreplace")) for name in names)
    if size <= NAMED or len(names) == 1:
        return listed(names)
    return ngettext("%(count)s list", "%(count)s lists", len(names), count=len(names))
