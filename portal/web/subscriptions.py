"""A member's mailing lists: the page with a box for each list, and what happens when it is saved."""

from collections.abc import Iterable, Mapping, Sequence

from flask import Blueprint, abort, current_app, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue
from itsdangerous import BadData, URLSafeSerializer

from portal.domain.outlook import State
from portal.errors import StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.preferences import preferences
from portal.services.preferences.preferences import Choice, Offer
from portal.translation import gettext, ngettext
from portal.web import guards
from portal.web.forms import LeaveForm, SubscriptionsForm
from portal.web.template_filters import listed

blueprint = Blueprint("subscriptions", __name__)

NAMED = 400  # bytes of list names that a message spells out; it travels in a cookie, which holds 4,096


@blueprint.get("/")
def home() -> ResponseReturnValue:
    """Lead to the member's lists."""
    return redirect(url_for("subscriptions.show"))


@blueprint.get("/subscriptions")
def show() -> ResponseReturnValue:
    """Show every list that the member may see, and the state of each."""
    return _page()


@blueprint.post("/subscriptions")
def choose() -> ResponseReturnValue:
    """Save the boxes that differ from what the page had shown. Raise DisabledError."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    form = SubscriptionsForm()
    if not form.validate():  # nothing that the page offers is invalid
        abort(400)
    try:
        choices = preferences.choose(
            db.session(),
            guards.member().id,
            shown=_opened(form.shown.data or ""),
            ticked=frozenset(form.lists.data or ()),
            address_id=form.address.data,
            catalogue=catalogue,
            now=portal().clock(),
        )
    except StaleFormError as error:
        form.form_errors.append(gettext("This page was out of date, and nothing was saved. Choose again."))
        return _page(form), fault_of(error).status
    flash(_told(choices, hours=catalogue.applied_within_hours), "good" if choices else "message")
    return redirect(url_for("subscriptions.show"), 303)


@blueprint.get("/subscriptions/leave")
def ask_to_leave() -> ResponseReturnValue:
    """Say what leaving all lists does, and ask whether to."""
    return _leave_page(LeaveForm(formdata=None))


@blueprint.post("/subscriptions/leave")
def leave() -> ResponseReturnValue:
    """Untick every list that the page had named, those among them that were never chosen. Raise DisabledError."""
    catalogue = portal().catalogue()
    catalogue.require_enabled()
    form = LeaveForm()
    if not form.validate():
        abort(400)
    try:
        named = _opened(form.shown.data or "")
    except StaleFormError as error:
        form.form_errors.append(gettext("This page was out of date, and nothing was saved. Look at it again."))
        return _leave_page(form), fault_of(error).status
    choices = preferences.choose(
        db.session(), guards.member().id, shown=named, ticked=(), catalogue=catalogue, now=portal().clock()
    )
    flash(_told(choices, hours=catalogue.applied_within_hours), "good" if choices else "message")
    return redirect(url_for("subscriptions.show"), 303)


def _leave_page(form: LeaveForm) -> str:
    catalogue = portal().catalogue()
    if not catalogue.enabled:
        return render_template("subscriptions/not_offered.html")
    page = preferences.page(db.session(), guards.member().id, catalogue=catalogue, now=portal().clock())
    return render_template(
        "subscriptions/leave.html",
        form=form,
        page=page,
        # As ticked, so that unticking is a choice also where nothing was chosen: who leaves all lists leaves those.
        shown=_signed({offer.mailing_list.handle: 1 for offer in page.offers if _can_be_left(offer)}),
        left=[offer for offer in page.offers if _can_be_left(offer)],
        hours=catalogue.applied_within_hours,
    )


def _can_be_left(offer: Offer) -> bool:
    return offer.is_ticked or offer.state is State.NOT_CHOSEN


def _page(form: SubscriptionsForm | None = None) -> str:
    catalogue = portal().catalogue()
    if not catalogue.enabled:
        return render_template("subscriptions/not_offered.html")
    page = preferences.page(db.session(), guards.member().id, catalogue=catalogue, now=portal().clock())
    return render_template(
        "subscriptions/show.html",
        form=form,
        page=page,
        shown=_sealed(page.offers),
        hours=catalogue.applied_within_hours,
    )


def _sealed(offers: Iterable[Offer]) -> str:
    """Sign the state that a page shows, for this member alone. SEMANTICS: a save changes only the changed boxes."""
    return _signed({offer.mailing_list.handle: int(offer.is_ticked) for offer in offers})


def _signed(shown: Mapping[str, int]) -> str:
    return _signer().dumps([guards.member().id, shown])


def _opened(sealed: str) -> Mapping[str, bool]:
    """Return the state that a page had shown. Raise StaleFormError where it was altered or is somebody else's."""
    try:
        user_id, shown = _signer().loads(sealed)
    except BadData:
        raise StaleFormError("what the page had shown was altered on its way") from None
    if user_id != guards.member().id:
        raise StaleFormError("the page was somebody else's")
    return {handle: bool(was_ticked) for handle, was_ticked in shown.items()}


def _signer() -> URLSafeSerializer:
    return URLSafeSerializer(current_app.config["SECRET_KEY"], salt="subscriptions")


def _told(choices: Iterable[Choice], *, hours: int) -> str:
    changed = [choice for choice in choices if choice.is_changed]
    added = [choice.name for choice in changed if choice.is_ticked]
    removed = [choice.name for choice in changed if not choice.is_ticked]
    if not changed:
        return gettext("Nothing was changed.")
    if not removed:
        saved = gettext("Saved. You will be added to %(added)s.", added=_spelled(added))
    elif not added:
        saved = gettext("Saved. You will be taken off %(removed)s.", removed=_spelled(removed))
    else:
        saved = gettext(
            "Saved. You will be added to %(added)s and taken off %(removed)s.",
            added=_spelled(added),
            removed=_spelled(removed),
        )
    within = ngettext(
        "Changes are applied within %(count)s hour.", "Changes are applied within %(count)s hours.", hours, count=hours
    )
    return f"{saved} {within}"


def _spelled(names: Sequence[str]) -> str:
    size = sum(len(name.encode("ascii", "backslashreplace")) for name in names)
    if size <= NAMED or len(names) == 1:
        return listed(names)
    return ngettext("%(count)s list", "%(count)s lists", len(names), count=len(names))
