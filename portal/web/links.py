"""Mailed links: request one, and use one. A GET changes nothing; only the button on its page does."""

from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from portal.errors import InvalidAddressError, LinkRefusedError, LogInFailedError, SharedMailboxError, WeakPasswordError
from portal.extensions import db, portal
from portal.faults import status_and_headers
from portal.services.accounts import password_changes, sessions
from portal.services.mail import links, own_addresses
from portal.services.mail.links import Link
from portal.services.preferences import by_link
from portal.translation import gettext
from portal.web import guards, shown, sign_in, unsaved, waited_for_mail
from portal.web.forms import AskForLinkForm, ConfirmAddressForm, LeaveByLinkForm, NewPasswordForm, TokenForm
from portal.web.own_addresses import finish, who
from portal.web.template_filters import sentence

blueprint = Blueprint("links", __name__)

_COOKIE = unsaved.LINK
_LONGEST = 100  # characters of a token


@blueprint.route("/link/ask", methods=["GET", "POST"])
def ask() -> ResponseReturnValue:
    """Request a link to log in. The response is the same for every address."""
    if portal().settings.mail is None:
        abort(404)
    form = AskForLinkForm()
    if not _has_asked("log-in", form):
        return render_template("links/ask.html", form=form), 422 if form.errors else 200
    flash(
        gettext(
            "If an account has this address, we are sending a link to it. The link is valid for 20 minutes. "
            "If it does not arrive, look in your spam folder."
        )
    )
    return redirect(url_for("sign_in.log_in"), 303)


@blueprint.route("/leave", methods=["GET", "POST"])
def leave() -> ResponseReturnValue:
    """Explain how to leave lists without an account: directly at each list, or by a mailed link."""
    guards.logged_in()  # before the lists, whose names are in the member's language
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        abort(404)
    form = AskForLinkForm() if portal().settings.mail else None
    if form is None and request.method == "POST":
        abort(404)
    if form is None or not _has_asked("leave", form):
        public = [each for each in catalogue.lists.values() if each.is_listed and each.audience is None]
        named = [(each, portal().leave_address(each)) for each in public]
        return render_template("links/leave.html", form=form, named=named), 422 if form and form.errors else 200
    flash(
        gettext(
            "If this address is on a mailing list here, we are sending a link to it. The link is valid for 24 hours. "
            "If it does not arrive, leave the lists as described below."
        )
    )
    return redirect(url_for("links.leave"), 303)


def _has_asked(purpose: str, form: AskForLinkForm) -> bool:
    """Request a link if a form with an address was posted."""
    if not form.validate_on_submit():
        return False
    place, now = request.remote_addr or "", portal().clock()
    try:
        links.request(db.session(), purpose, form.email.data, place=place, now=now)
    except InvalidAddressError:
        form.email.errors = [gettext("Enter an e-mail address, such as name@example.org.")]
        return False
    waited_for_mail.wake()
    return True


@blueprint.get("/link/<token>")
def receive(token: str) -> ResponseReturnValue:
    """Move the token from the URL to the cookie, so that no Referer header contains it."""
    session[_COOKIE] = token[:_LONGEST]
    return redirect(url_for("links.show"), 303)


@blueprint.get("/link")
def show() -> ResponseReturnValue:
    """Explain what the link does, with one button."""
    guards.logged_in()
    if _COOKIE not in session:
        return redirect(url_for("links.ask"), 303)
    try:
        link = links.look_up(db.session(), session[_COOKIE], now=portal().clock())
    except LinkRefusedError as error:
        return _refuse(error)
    return _PAGES[link.purpose](link)


def _log_in_page(link: Link) -> ResponseReturnValue:
    return render_template("links/log_in.html", link=link, form=TokenForm(formdata=None))


def _leave_page(link: Link) -> ResponseReturnValue:
    lists = by_link.lists_of(db.session(), link.mailbox, catalogue=portal().catalogue())
    signed = shown.sign("leave-by-link", [each.handle for each in lists], owner=link.mailbox)
    return render_template("links/lists.html", link=link, lists=lists, shown=signed, hours=_hours())


def _confirm_page(link: Link) -> ResponseReturnValue:
    member = guards.logged_in()
    if member is None:
        flash(gettext("Log in to confirm your address."))
        return redirect(url_for("sign_in.log_in", next=url_for("links.show")), 303)
    if member.id != link.user_id:
        return render_template("links/other_account.html"), 403
    is_shared = own_addresses.is_used_by_others(db.session(), link.mailbox, but=member.id)
    return render_template("links/confirm.html", link=link, is_shared=is_shared)


def _undo_page(link: Link) -> ResponseReturnValue:
    return render_template("links/undo.html", link=link)


_PAGES = {
    "confirm": _confirm_page,
    "invite": _log_in_page,
    "leave": _leave_page,
    "log-in": _log_in_page,
    "undo": _undo_page,
}


def _hours() -> int:
    return portal().catalogue().applied_within_hours


@blueprint.post("/link")
def use() -> ResponseReturnValue:
    """Use the link, once."""
    guards.logged_in()
    token = session.pop(_COOKIE, "")
    try:
        link = links.look_up(db.session(), token, now=portal().clock())
        return _ACTS[link.purpose](link, token)
    except LinkRefusedError as error:
        return _refuse(error)


def _log_in(_link: Link, token: str) -> ResponseReturnValue:
    before = guards.logged_in()
    found = links.log_in(db.session(), token, origin=sign_in.origin(), now=portal().clock())
    if before is not None:
        sessions.log_out(db.session(), before.token)
    sign_in.begin(found.token, remember=False)
    return redirect(url_for("links.choose_password"), 303)


def _leave(link: Link, token: str) -> ResponseReturnValue:
    form, catalogue = LeaveByLinkForm(), portal().catalogue()
    if not form.validate():
        abort(400)
    named = shown.read("leave-by-link", form.shown.data, owner=link.mailbox)
    unticked = set(named) - set(form.lists.data or ())
    if not unticked:
        session[_COOKIE] = token
        flash(gettext("Nothing was changed. Untick the lists that you want to leave."))
        return redirect(url_for("links.show"), 303)
    left = by_link.leave(db.session(), token, handles=unticked, catalogue=catalogue, now=portal().clock())
    return render_template("links/left.html", link=link, left=left, hours=_hours())


def _confirm(link: Link, token: str) -> ResponseReturnValue:
    member, form = guards.logged_in(), ConfirmAddressForm()
    if member is None or member.id != link.user_id or not form.validate():
        session[_COOKIE] = token
        return _confirm_page(link)
    may_share = bool(form.shared.data)
    try:
        renewed = own_addresses.confirm(
            db.session(), token, who=who(), may_share=may_share, lists=portal().known_lists()
        )
    except SharedMailboxError:  # another account has got the address since the page was shown
        session[_COOKIE] = token
        return _confirm_page(link)
    finish(renewed)
    words = gettext("%(address)s has been confirmed.", address=link.details["spelling"])
    if link.details["wish"] == "replace":
        words += " " + gettext("It is your main address now. Your lists will be sent to it.")
    flash(words, "good")
    return redirect(url_for("own_addresses.show"), 303)


def _undo(_link: Link, token: str) -> ResponseReturnValue:
    address = own_addresses.undo(db.session(), token, now=portal().clock(), lists=portal().known_lists())
    waited_for_mail.wake()
    return render_template("links/undone.html", address=address)


_ACTS = {"confirm": _confirm, "invite": _log_in, "leave": _leave, "log-in": _log_in, "undo": _undo}


def _refuse(error: LinkRefusedError) -> ResponseReturnValue:
    session.pop(_COOKIE, None)
    return render_template("links/refused.html", offers_leaving=sign_in.offers_leaving()), *status_and_headers(error)


@blueprint.route("/link/password", methods=["GET", "POST"])
def choose_password() -> ResponseReturnValue:
    """Let a member who has used a link choose a password without the old one."""
    now, form = portal().clock(), NewPasswordForm()
    if not sessions.may_choose_password(db.session(), guards.token(), now=now):
        return redirect(url_for("account.show"), 303 if request.method == "POST" else 302)
    if not form.validate_on_submit():
        return _password_page(form), 422 if form.errors else 200
    try:
        token = password_changes.choose_password(
            db.session(),
            guards.member().id,
            new=form.new.data,
            token=guards.token(),
            now=now,
            rounds=portal().settings.bcrypt_rounds,
        )
    except (WeakPasswordError, LogInFailedError) as error:
        form.new.errors = [sentence(error)]
        return _password_page(form), *status_and_headers(error)
    sign_in.begin(token, remember=False)
    flash(
        gettext(
            "Your password has been saved. From now on, log in as %(username)s with this password.",
            username=guards.member().username,
        ),
        "good",
    )
    return redirect(url_for("subscriptions.show"), 303)


def _password_page(form: NewPasswordForm) -> str:
    return render_template("links/choose_password.html", form=form, username=guards.member().username)
