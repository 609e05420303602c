"""Sensitive changes by superusers need their password, typed within the last 15 minutes.

If it was not, the response to the POST is a page that asks for it. The page contains the posted values and posts them
again to the same URL, together with the password. Nothing typed is lost, and views need no second entrance.
"""

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

from flask import render_template, request
from flask.typing import ResponseReturnValue

from portal.errors import RateLimitedError, WrongPasswordError
from portal.extensions import db, portal
from portal.faults import status_and_headers
from portal.services.accounts import password_changes, sessions
from portal.translation import gettext
from portal.web import guards
from portal.web.forms import ConfirmPasswordForm
from portal.web.template_filters import sentence

_P = ParamSpec("_P")


def needed(view: Callable[_P, ResponseReturnValue]) -> Callable[_P, ResponseReturnValue]:
    """Decorate a view so that it handles a POST only after the password was typed."""

    @wraps(view)
    def guarded(*args: _P.args, **values: _P.kwargs) -> ResponseReturnValue:
        asked = ask() if request.method == "POST" else None
        return view(*args, **values) if asked is None else asked

    return guarded


def ask() -> ResponseReturnValue | None:
    """Return the page that asks for the password, or None if it was typed recently or with this request."""
    now = portal().clock()
    if sessions.is_confirmed(db.session(), guards.token(), now=now):
        return None
    form = ConfirmPasswordForm()
    if form.own_password.name not in request.form:
        return _page(ConfirmPasswordForm(None), 403, {})
    if not form.validate():
        return _page(form, 422, {})
    try:
        password_changes.confirm_password(
            db.session(),
            guards.member().id,
            password=form.own_password.data,
            token=guards.token(),
            now=now,
            rounds=portal().settings.bcrypt_rounds,
        )
    except (WrongPasswordError, RateLimitedError) as error:
        is_wrong = isinstance(error, WrongPasswordError)
        form.own_password.errors.append(gettext("This is not your password.") if is_wrong else sentence(error))
        return _page(form, *status_and_headers(error))
    return None


def _page(form: ConfirmPasswordForm, status: int, headers: dict[str, str]) -> ResponseReturnValue:
    own = {form.own_password.name, "csrf_token", "account"}
    posted = [(name, value) for name, value in request.form.items(multi=True) if name not in own]
    return render_template("account/confirm_password.html", form=form, posted=posted), status, headers
