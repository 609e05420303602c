"""A member's own account: its addresses, log-ins, password, list passwords and history."""

from collections import Counter

from flask import Blueprint, abort, flash, redirect, render_template, request, session, url_for
from flask.typing import ResponseReturnValue

from portal.errors import RateLimitedError, WeakPasswordError, WrongPasswordError
from portal.extensions import db, portal
from portal.faults import fault_of, status_and_headers
from portal.services.accounts import password_changes, profiles, sessions, users
from portal.services.preferences import own_history, preferences
from portal.services.preferences.preferences import Page
from portal.services.sync import list_passwords
from portal.translation import gettext
from portal.web import guards, language, sign_in
from portal.web.forms import ChangePasswordForm, EndLogInForm, LanguageForm, OwnAddressForm, PageForm
from portal.web.template_filters import sentence

blueprint = Blueprint("account", __name__)


@blueprint.get("/account")
def show() -> ResponseReturnValue:
    """Show name, addresses and log-ins, and offer to change the password."""
    return _page(ChangePasswordForm())


@blueprint.post("/account")
def change_password() -> ResponseReturnValue:
    """Change the password, end all other log-ins of the account, and renew the token of this one."""
    form = ChangePasswordForm()
    if not form.validate():
        return _page(form), 422
    try:
        token = password_changes.change_password(
            db.session(),
            guards.member().id,
            current=form.current.data,
            new=form.new.data,
            token=guards.token(),
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
        )
    except (WrongPasswordError, RateLimitedError) as error:
        is_wrong = isinstance(error, WrongPasswordError)
        form.current.errors.append(gettext("This is not your current password.") if is_wrong else sentence(error))
        return _page(form), *status_and_headers(error)
    except WeakPasswordError as error:
        form.new.errors.append(sentence(error))
        return _page(form), fault_of(error).status
    sign_in.begin(token, remember=session.permanent)
    flash(gettext("Your password has been changed. You have been logged out everywhere else."), "good")
    return redirect(url_for("account.show"), 303)


@blueprint.post("/account/language")
def choose_language() -> ResponseReturnValue:
    """Choose the language of pages and letters."""
    form = LanguageForm().offer(portal().settings.languages)
    if not form.validate():
        abort(400)
    users.choose_language(db.session(), guards.member().id, form.language.data or None)
    language.of_member(form.language.data)
    flash(gettext("Your language has been saved."), "good")
    return redirect(url_for("account.show", _anchor="your-language"), 303)


@blueprint.post("/account/list-password")
def show_list_password() -> ResponseReturnValue:
    """Show the list password of one of the member's addresses once. Raise BadInputError."""
    address_id = _asked_address()
    key = portal().list_password_key()
    password = list_passwords.show_password(db.session(), guards.member().id, address_id, key=key)
    return _page(ChangePasswordForm(formdata=None), list_password=(address_id, password))


@blueprint.post("/account/list-password/replace")
def replace_list_password() -> ResponseReturnValue:
    """Replace the list password of one of the member's addresses. Raise BadInputError."""
    list_passwords.replace_password(
        db.session(), guards.member().id, _asked_address(), key=portal().list_password_key()
    )
    flash(gettext("The list password has been replaced. The lists will get the new one at the next sync."), "good")
    return redirect(url_for("account.show", _anchor="list-password"), 303)


def _asked_address() -> int:
    form = OwnAddressForm()
    if not form.validate() or not _lists_with_passwords(_lists_page()):
        abort(400)  # the page offers nothing invalid
    address_id: int = form.address.data
    return address_id


@blueprint.post("/account/log-ins/end")
def end_log_in() -> ResponseReturnValue:
    """End one of the member's log-ins."""
    form = EndLogInForm()
    if not form.validate():
        abort(400)
    sessions.end_one(db.session(), guards.member().id, form.log_in.data)
    flash(gettext("That log-in has been ended."), "good")
    return redirect(url_for("account.show", _anchor="log-ins"), 303)


@blueprint.post("/account/log-ins/end-others")
def end_other_log_ins() -> ResponseReturnValue:
    """End all log-ins of the member except this one."""
    sessions.end_others(db.session(), guards.member().id, keep_token=guards.token())
    flash(gettext("You have been logged out everywhere else."), "good")
    return redirect(url_for("account.show", _anchor="log-ins"), 303)


@blueprint.get("/account/history")
def history() -> ResponseReturnValue:
    """Show what happened to the member's addresses on the lists, page by page."""
    catalogue = portal().readable_catalogue()
    if catalogue is not None and not catalogue.enabled:
        return render_template("subscriptions/not_offered.html")
    form = PageForm(request.args)
    if not form.validate():
        abort(404)
    profile = profiles.by_id(db.session(), guards.member().id)
    names = {each.mailing_list.handle: each.mailing_list.name for each in _lists_page().offers}
    found = own_history.page(db.session(), profile.id, handles=names, number=form.page.data or 1)
    return render_template("account/history.html", found=found, names=names, has_several=len(profile.addresses) > 1)


def _page(form: ChangePasswordForm, *, list_password: tuple[int, str] | None = None) -> str:
    member = guards.member()
    profile = profiles.by_id(db.session(), member.id)
    page = _lists_page()
    with_passwords = _lists_with_passwords(page)
    return render_template(
        "account/show.html",
        form=form,
        profile=profile,
        shared=profiles.shared_addresses(db.session(), member.id),
        sent_to=_lists_by_address(page),
        log_ins=sessions.log_ins(db.session(), member, now=portal().clock()),
        with_passwords=with_passwords,
        mailboxes=list_passwords.mailboxes(db.session(), member.id) if with_passwords else (),
        list_password=list_password,
        has_mail=portal().settings.mail is not None,
        language_form=_language_form(),
    )


def _language_form() -> LanguageForm | None:
    languages = portal().settings.languages
    if len(languages) == 1:
        return None
    return LanguageForm(formdata=None, data={"language": guards.member().language or ""}).offer(languages)


def _lists_page() -> Page:
    """Return the member's lists and addresses; empty if no lists are offered or mailinglists.toml is invalid."""
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return Page((), ())
    return preferences.page(db.session(), guards.member().id, catalogue=catalogue, now=portal().clock())


def _lists_by_address(page: Page) -> dict[str, int]:
    """Return the number of lists that are sent to each of a user's addresses."""
    spellings = {each.id: each.spelling for each in page.addresses}
    return Counter(spellings[offer.address_id] for offer in page.offers if offer.address_id is not None)


def _lists_with_passwords(page: Page) -> list[str]:
    """Return the names of the lists on a user's page that use list passwords."""
    return [each.mailing_list.name for each in page.offers if each.mailing_list.sync_passwords]
