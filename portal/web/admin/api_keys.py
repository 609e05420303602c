"""Keys to the API, for superusers: made and shown once, looked at, and revoked."""

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from portal.errors import BadInputError
from portal.extensions import db, portal
from portal.services.accounts import api_keys
from portal.translation import gettext
from portal.web import guards, recent_password
from portal.web.admin.user_forms import NewKeyForm
from portal.web.template_filters import sentence

blueprint = Blueprint("api_keys", __name__, url_prefix="/api-keys")


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Show what is known of all keys, and offer to make one."""
    return _page(NewKeyForm(None))


@blueprint.post("")
@recent_password.needed
def create() -> ResponseReturnValue:
    """Make a key for whoever asks, and show it this once."""
    form = NewKeyForm()
    if not form.validate():
        return _page(form), 422
    label = form.label.data
    key = api_keys.create(
        db.session(), guards.member().username, label=label, expires_days=form.days.data, now=portal().clock()
    )
    return render_template("admin/keys/made.html", key=key, label=label)


@blueprint.post("/<prefix>/revoke")
@recent_password.needed
def revoke(prefix: str) -> ResponseReturnValue:
    """End a key, at once and for good."""
    try:
        is_new = api_keys.revoke(db.session(), prefix, now=portal().clock())
    except BadInputError as error:
        flash(sentence(str(error)), "bad")
    else:
        text = gettext("%(key)s is revoked.", key=prefix)
        flash(text if is_new else gettext("%(key)s had been revoked before.", key=prefix), "good")
    return redirect(url_for("admin.api_keys.index"), 303)


def _page(form: NewKeyForm) -> str:
    keys = api_keys.list_keys(db.session())
    return render_template("admin/keys/index.html", form=form, keys=keys, now=portal().clock())
