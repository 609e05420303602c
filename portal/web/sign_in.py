"""Logging in and out."""

from flask import Blueprint, flash, g, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_user, logout_user

from portal.errors import LogInFailedError, RateLimitedError
from portal.extensions import db, portal
from portal.faults import status_and_headers
from portal.services.accounts import sessions
from portal.services.accounts.sessions import Origin
from portal.translation import gettext
from portal.web import guards, unsaved
from portal.web.forms import AskForLinkForm, LogInForm
from portal.web.template_filters import sentence

blueprint = Blueprint("sign_in", __name__)


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> ResponseReturnValue:
    """Ask for name and password. Unknown, inactive and wrong get the same response."""
    if guards.logged_in():
        return redirect(_next_page(), 303)
    form = LogInForm()
    if not form.validate_on_submit():
        return _page(form), 422 if form.errors else 200
    try:
        token = sessions.log_in(
            db.session(),
            name=form.username.data,
            password=form.password.data,
            origin=origin(),
            remember=form.remember.data,
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
            tries_per_hour=portal().settings.log_ins_per_hour_from_one_place,
        )
    except (LogInFailedError, RateLimitedError) as error:
        form.form_errors.append(_refusal(error, form))
        return _page(form), *status_and_headers(error)
    begin(token, remember=form.remember.data)
    return redirect(_next_page(), 303)


def _page(form: LogInForm) -> str:
    ask = AskForLinkForm(formdata=None) if portal().settings.mail else None
    return render_template("sign_in/log_in.html", form=form, ask=ask, offers_leaving=offers_leaving())


def offers_leaving() -> bool:
    """Return whether there is a page for leaving lists without logging in."""
    catalogue = portal().readable_catalogue()
    return catalogue is not None and catalogue.enabled


def origin() -> Origin:
    """Return the origin of a log-in."""
    agent, is_forwarded = request.headers.get("User-Agent", ""), "X-Forwarded-For" in request.headers
    return Origin(request.remote_addr or "", agent, is_forwarded)


def _refusal(error: LogInFailedError | RateLimitedError, form: LogInForm) -> str:
    """Return the message for a refused log-in. It depends only on what was typed, so it reveals nothing."""
    if isinstance(error, RateLimitedError):
        return sentence(error)
    sentences = [gettext("Username and password do not match. Check both and try again.")]
    if "@" in form.username.data:
        sentences.append(gettext("If several people share this address, use your username."))
    return " ".join(sentences)


def begin(token: str, *, remember: bool) -> None:
    """Put the token into an otherwise empty cookie, keeping only a choice that was not saved yet."""
    unsaved.carry_over()
    g.pop("csrf_token", None)  # it belongs to the old content of the cookie
    found = sessions.member(db.session(), token, now=portal().clock())
    if found is not None:
        login_user(found)
        session.permanent = remember and not found.is_superuser


def _next_page() -> str:
    """Return the page that was requested before the log-in, or else the member's lists."""
    asked = request.args.get("next", "")
    is_ours = guards.is_local(asked, below=request.script_root) and guards.is_page(asked)
    return asked if is_ours else url_for("subscriptions.show")


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """End the log-in, here and in the database."""
    token = guards.token()
    logout_user()
    session.clear()  # first, so that it works even if the database is read-only
    sessions.log_out(db.session(), token)
    flash(gettext("You have been logged out."))
    return redirect(url_for("sign_in.log_in"), 303)
