"""The addresses of an account, for superusers: add and remove them, and choose the main one."""

from contextlib import suppress

from flask import Blueprint, abort, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from portal.errors import BadInputError, ChangedMeanwhileError, SharedMailboxError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.accounts import address_changes, addresses, profiles
from portal.services.accounts import log as account_log
from portal.services.accounts.addresses import HeldAddress
from portal.services.preferences import preferences
from portal.translation import gettext, ngettext
from portal.web import guards, recent_password, shown
from portal.web.admin.user_forms import NewAddressForm, UserActionForm
from portal.web.forms import MAX_ID
from portal.web.own_addresses import after_change, before_change
from portal.web.template_filters import listed, sentence

blueprint = Blueprint("user_addresses", __name__, url_prefix=f"/users/<int(max={MAX_ID}):user_id>/addresses")

_AT_ONCE = 50  # changes by others to show after a conflict


@blueprint.route("/new", methods=["GET", "POST"])
@recent_password.needed
def new(user_id: int) -> ResponseReturnValue:
    """Add an address to an account; one that another account holds needs confirmation."""
    profile, form = profiles.by_id(db.session(), user_id), NewAddressForm()
    if not form.validate_on_submit():
        return _new_page(user_id, form), 422 if form.errors else 200
    own = before_change(user_id)
    try:
        special_domains = portal().settings.allowed_special_domains
        address = addresses.checked(form.email.data, special_domains=special_domains)
        is_added = address_changes.add(
            db.session(),
            user_id,
            address,
            actor=guards.actor(),
            now=portal().clock(),
            lists=portal().known_lists(),
            may_share=form.shared.data,
        )
    except SharedMailboxError as error:
        words = gettext("%(address)s is used by %(holders)s.", address=address.spelling, holders=listed(error.holders))
        form.email.errors.append(words)
        return _new_page(user_id, form, is_shared=True), fault_of(error).status
    except BadInputError as error:
        form.email.errors.append(sentence(error))
        return _new_page(user_id, form), fault_of(error).status
    after_change(own)
    name, spelling = profile.name or profile.username, address.spelling
    if is_added:
        flash(gettext("%(name)s has the address %(address)s too.", name=name, address=spelling), "good")
    else:
        flash(gettext("%(name)s has the address %(address)s already.", name=name, address=spelling))
    return _to_person(user_id)


def _new_page(user_id: int, form: NewAddressForm, *, is_shared: bool = False) -> str:
    profile = profiles.by_id(db.session(), user_id)
    return render_template("admin/users/new_address.html", form=form, profile=profile, is_shared=is_shared)


_ONE = f"/<int(max={MAX_ID}):address_id>/<any(main, remove):act>"


@blueprint.get(_ONE)
def ask_to_change(user_id: int, address_id: int, act: str) -> ResponseReturnValue:
    """Explain what a new main address, or the removal of an address, does, and ask for confirmation."""
    return _action_page(user_id, _address(user_id, address_id), UserActionForm(None), act=act)


@blueprint.post(_ONE)
@recent_password.needed
def change(user_id: int, address_id: int, act: str) -> ResponseReturnValue:
    """Make an address the main one, or remove it."""
    address, form = _address(user_id, address_id), UserActionForm()
    do, own = address_changes.make_main if act == "main" else address_changes.remove, before_change(user_id)
    try:
        do(
            db.session(),
            user_id,
            address.canonical,
            actor=guards.actor(),
            now=portal().clock(),
            lists=portal().known_lists(),
            as_of=shown.read(f"account-actions {user_id}", form.shown.data),
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        return _action_page(user_id, address, form, act=act), fault_of(error).status
    except BadInputError as error:  # the main address cannot be removed
        flash(sentence(error), "bad")
    else:
        after_change(own)
        words = {
            "main": gettext("%(address)s is the main address now.", address=address.spelling),
            "remove": gettext("%(address)s has been removed.", address=address.spelling),
        }
        flash(words[act], "good")
    return _to_person(user_id)


@blueprint.post("/send-to-main")
def send_to_main(user_id: int) -> ResponseReturnValue:
    """Send every list of a person that goes to another of their addresses to the main one. Raise DisabledError."""
    form, catalogue = UserActionForm(), portal().catalogue()
    try:
        as_of = shown.read(f"account-actions {user_id}", form.shown.data)
        count = preferences.send_to_main(
            db.session(), user_id, catalogue=catalogue, actor=guards.actor(), now=portal().clock(), as_of=as_of
        )
    except (StaleFormError, ChangedMeanwhileError):
        flash(gettext("This page was out of date, so nothing was done. Check it again."), "bad")
    except BadInputError as error:  # the account is deactivated, or its main address is that of a list
        flash(sentence(error), "bad")
    else:
        flash(
            ngettext("%(count)s list will be changed.", "%(count)s lists will be changed.", count, count=count), "good"
        )
    return _to_person(user_id)


def _to_person(user_id: int) -> ResponseReturnValue:
    return redirect(url_for("admin.users.show", user_id=user_id, _anchor="addresses"), 303)


def _address(user_id: int, address_id: int) -> HeldAddress:
    """Return an address that an account holds, or abort with 404."""
    found = [each for each in addresses.held(db.session(), user_id) if each.id == address_id]
    if not found:
        abort(404)
    return found[0]


def _action_page(user_id: int, address: HeldAddress, form: UserActionForm, *, act: str) -> str:
    last, profile = account_log.last_change(db.session(), user_id), profiles.by_id(db.session(), user_id)
    meanwhile: tuple[account_log.AccountLine, ...] = ()
    if form.is_submitted():
        with suppress(StaleFormError):
            seen = shown.read(f"account-actions {user_id}", form.shown.data)
            meanwhile = account_log.recent(db.session(), user_id=user_id, after=seen, limit=_AT_ONCE)
        form.form_errors.append(gettext("This page was out of date, so nothing was done. Check it again."))
    form.shown.data = shown.sign(f"account-actions {user_id}", last)
    catalogue, now = portal().readable_catalogue(), portal().clock()
    offers = preferences.page(db.session(), user_id, catalogue=catalogue, now=now).offers if catalogue else ()
    return render_template(
        "admin/users/address.html",
        act=act,
        form=form,
        profile=profile,
        address=address,
        lists=[each.mailing_list.name for each in offers if each.address_id == address.id],
        meanwhile=meanwhile,
    )
