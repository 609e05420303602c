"""Logging in and out, and a member's own account."""

from flask import Blueprint, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue
from flask_login import login_user, logout_user

from portal.errors import LogInFailedError, WeakPasswordError, WrongPasswordError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services import sessions, users
from portal.web import guards
from portal.web.forms import ChangePasswordForm, LogInForm
from portal.web.pages import sentence

blueprint = Blueprint("account", __name__)


@blueprint.route("/login", methods=["GET", "POST"])
def log_in() -> ResponseReturnValue:
    """Ask for name and password; unknown, inactive and wrong are one answer."""
    if guards.logged_in():
        return redirect(_wanted(), 303)
    form = LogInForm()
    if not form.validate_on_submit():
        return render_template("account/log_in.html", form=form), 422 if form.errors else 200
    try:
        token = sessions.log_in(
            db.session(),
            name=form.username.data,
            password=form.password.data,
            ip=request.remote_addr or "",
            remember=form.remember.data,
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
        )
    except LogInFailedError as error:
        form.form_errors.append("Username and password do not match. Check both and try again.")
        return render_template("account/log_in.html", form=form), fault_of(error).status
    _begin(token, remember=form.remember.data)
    return redirect(_wanted(), 303)


def _begin(token: str, *, remember: bool) -> None:
    """Put the token, and nothing of what was there before, into the cookie."""
    session.clear()
    found = sessions.member(db.session(), token, now=portal().clock())
    if found is not None:
        login_user(found)
        session.permanent = remember and not found.is_superuser


def _wanted() -> str:
    wanted = request.args.get("next", "")
    return wanted if guards.is_local(wanted) else url_for("subscriptions.show")


@blueprint.post("/logout")
def log_out() -> ResponseReturnValue:
    """End the log-in, here and in the database."""
    sessions.log_out(db.session(), guards.token())
    logout_user()
    session.clear()
    flash("You are logged out.")
    return redirect(url_for("account.log_in"), 303)


@blueprint.get("/account")
def show() -> ResponseReturnValue:
    """Show name and addresses, and offer to change the password."""
    return _page(ChangePasswordForm())


@blueprint.post("/account")
def change_password() -> ResponseReturnValue:
    """Change the password; every other log-in of the account ends."""
    form = ChangePasswordForm()
    if not form.validate():
        return _page(form), 422
    try:
        users.change_password(
            db.session(),
            guards.member().id,
            current=form.current.data,
            new=form.new.data,
            keep_token=guards.token(),
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
        )
    except WrongPasswordError as error:
        form.current.errors.append("This is not your current password.")
        return _page(form), fault_of(error).status
    except WeakPasswordError as error:
        form.new.errors.append(sentence(str(error)))
        return _page(form), fault_of(error).status
    flash("Your password is changed. You are logged out everywhere else.")
    return redirect(url_for("account.show"), 303)


def _page(form: ChangePasswordForm) -> str:
    user_id = guards.member().id
    profile = users.profile(db.session(), user_id)
    shared = users.shared_addresses(db.session(), user_id)
    return render_template("account/show.html", form=form, profile=profile, shared=shared)
