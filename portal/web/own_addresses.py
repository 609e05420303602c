"""A member's own addresses: add them or make them the main one, confirmed by mail, and remove them."""

from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from portal.domain.address import canonical
from portal.errors import BadInputError, DuplicateError, InvalidAddressError
from portal.extensions import db, portal
from portal.services.accounts import profiles
from portal.services.accounts.addresses import checked
from portal.services.mail import own_addresses
from portal.services.mail.own_addresses import HeldAddresses, Who
from portal.translation import gettext
from portal.web import guards, recent_password, sign_in, waited_for_mail
from portal.web.forms import AddAddressForm, HeldAddressForm
from portal.web.template_filters import sentence

blueprint = Blueprint("own_addresses", __name__)


@blueprint.before_request
def check() -> ResponseReturnValue | None:
    """Close these pages if there is no mail to confirm addresses; ask superusers for their password."""
    if portal().settings.mail is None:
        return redirect(url_for("account.show"), 303 if request.method == "POST" else 302)
    return recent_password.ask() if request.method == "POST" and guards.member().is_superuser else None


@blueprint.get("/account/addresses")
def show() -> ResponseReturnValue:
    """Show a member's addresses with the actions for each."""
    return _page(AddAddressForm(formdata=None))


@blueprint.post("/account/addresses")
def add() -> ResponseReturnValue:
    """Mail a link to a new address. Nothing changes until it is used."""
    form = AddAddressForm()
    if not form.validate():
        return _page(form), 422
    special = portal().settings.allowed_special_domains
    try:
        address = checked(form.email.data, special_domains=special)
    except InvalidAddressError:
        form.email.errors = [gettext("Enter an e-mail address, such as name@example.org.")]
        return _page(form), 422
    replaces_main = bool(form.replaces_main.data)
    place = request.remote_addr or ""
    try:
        own_addresses.request(db.session(), address, replaces_main=replaces_main, who=who(), place=place)
    except DuplicateError as error:
        form.email.errors = [sentence(error)]
        return _page(form), 422
    waited_for_mail.wake()
    flash(
        gettext(
            "We are sending a link to %(address)s. Open it in this browser, where you are logged in, within 24 hours. "
            "Nothing changes until then.",
            address=address.spelling,
        )
    )
    return redirect(url_for("own_addresses.show"), 303)


@blueprint.post("/account/addresses/main")
def make_main() -> ResponseReturnValue:
    """Make one of the member's addresses the main one."""
    address = _posted()
    renewed = own_addresses.make_main(db.session(), address, who=who(), lists=portal().known_lists())
    finish(renewed)
    flash(
        gettext(
            "%(address)s is your main address now. Your lists are sent to the same addresses as before.",
            address=address,
        ),
        "good",
    )
    return redirect(url_for("own_addresses.show"), 303)


@blueprint.post("/account/addresses/remove")
def remove() -> ResponseReturnValue:
    """Remove one of the member's further addresses; its lists are sent to the main one."""
    address = _posted()
    renewed = own_addresses.remove(db.session(), address, who=who(), lists=portal().known_lists())
    finish(renewed)
    flash(
        gettext("%(address)s has been removed. Its lists will be sent to your main address.", address=address), "good"
    )
    return redirect(url_for("own_addresses.show"), 303)


def who() -> Who:
    """Return the logged-in member for a change of their own addresses."""
    return Who(guards.actor(), guards.token(), portal().clock())


def finish(renewed: str) -> None:
    """Put the renewed token into the cookie, and send the notice to the old address."""
    sign_in.begin(renewed, remember=session.permanent)
    waited_for_mail.wake()


def before_change(user_id: int) -> HeldAddresses | None:
    """Return the addresses of a superuser who is about to change their own account on a superusers' page, else None."""
    return own_addresses.held_by(db.session(), user_id) if user_id == guards.member().id else None


def after_change(before: HeldAddresses | None) -> None:
    """Follow up a change of one's own addresses, if it was one."""
    if before is not None:
        sends_mail = portal().settings.mail is not None
        finish(own_addresses.follow_up(db.session(), before, who=who(), sends_mail=sends_mail))


def _posted() -> str:
    form = HeldAddressForm()
    if not form.validate():
        abort(400)
    try:
        return canonical(form.address.data)
    except InvalidAddressError:
        raise BadInputError("this is not an address of yours") from None


def _page(form: AddAddressForm) -> str:
    member = guards.member()
    profile = profiles.by_id(db.session(), member.id)
    held = {canonical(each) for each in profile.addresses}
    asked = own_addresses.unconfirmed(db.session(), member.id, now=portal().clock())
    return render_template(
        "account/addresses.html",
        form=form,
        profile=profile,
        shared=profiles.shared_addresses(db.session(), member.id),
        asked=[each for each in asked if each not in held],
    )
