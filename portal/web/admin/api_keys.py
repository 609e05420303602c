"""API keys, for superusers: create a key and show it once, list keys, revoke them."""

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from portal.errors import BadInputError, ChangedMeanwhileError
from portal.extensions import db, portal
from portal.services.accounts import api_keys
from portal.services.accounts.api_keys import KeyLine
from portal.translation import gettext
from portal.web import guards, recent_password, shown, shown_once
from portal.web.admin.user_forms import NewKeyForm, RevokeKeyForm
from portal.web.template_filters import sentence

blueprint = Blueprint("api_keys", __name__, url_prefix="/api-keys")


@blueprint.get("")
def index() -> ResponseReturnValue:
    """List all keys, and offer to create one."""
    return _page(NewKeyForm(None))


@blueprint.post("")
@recent_password.needed
def create() -> ResponseReturnValue:
    """Create a key for the superuser who asks, and redirect to the page that shows it once."""
    form = NewKeyForm()
    if not form.validate():
        return _page(form), 422
    made = shown_once.make()
    key = api_keys.create(
        db.session(),
        guards.member().username,
        label=form.label.data,
        expires_days=form.days.data,
        now=portal().clock(),
        bits=made.bits,
    )
    prefix = api_keys.prefix_of(key)
    shown_once.keep(f"key {prefix}", made)
    return redirect(url_for("admin.api_keys.show_new", prefix=prefix), 303)


@blueprint.get("/<prefix>/new")
def show_new(prefix: str) -> ResponseReturnValue:
    """Show the key that was just created, once."""
    bits = shown_once.take(f"key {prefix}")
    if bits is None:
        flash(gettext("The key was shown only once. If you have lost it, revoke it and create another one."))
        return redirect(url_for("admin.api_keys.index"))
    return render_template("admin/keys/made.html", key=api_keys.full_key(prefix, bits), prefix=prefix)


@blueprint.post("/<prefix>/revoke")
@recent_password.needed
def revoke(prefix: str) -> ResponseReturnValue:
    """Revoke a key."""
    try:
        key = api_keys.find(db.session(), prefix)
        if key.revoked_at is None and shown.read(f"key {prefix}", RevokeKeyForm().shown.data) != _signed_part(key):
            raise ChangedMeanwhileError("the key was changed after this page was shown: check again")
        is_new = api_keys.revoke(db.session(), prefix, now=portal().clock())
    except BadInputError as error:
        flash(sentence(error), "bad")
    else:
        text = gettext("%(key)s has been revoked.", key=prefix)
        flash(text if is_new else gettext("%(key)s had already been revoked.", key=prefix), "good")
    return redirect(url_for("admin.api_keys.index"), 303)


def _page(form: NewKeyForm) -> str:
    keys = api_keys.list_keys(db.session())
    signed = {key.prefix: shown.sign(f"key {key.prefix}", _signed_part(key)) for key in keys if key.revoked_at is None}
    return render_template("admin/keys/index.html", form=form, keys=keys, signed=signed, now=portal().clock())


def _signed_part(key: KeyLine) -> list[str]:
    return [key.label, key.username]
