"""Accounts, for superusers: found, made, changed, deactivated, deleted, and imported from a file."""

from collections.abc import Callable

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Field

from portal.errors import BadInputError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.accounts import addresses, directory, imports, passwords, users
from portal.services.accounts import log as account_log
from portal.services.accounts.addresses import Checked
from portal.services.accounts.directory import Wanted
from portal.services.accounts.users import Profile
from portal.services.preferences import preferences
from portal.translation import LazyText, gettext, ngettext
from portal.translation import lazy_gettext as _
from portal.web import guards, recent_password
from portal.web.admin.user_forms import (
    AccountHistoryForm,
    DeleteUserForm,
    ImportFileForm,
    ImportTextForm,
    NewUserForm,
    UserFilterForm,
    UserForm,
)
from portal.web.forms import MAX_ID
from portal.web.template_filters import listed, sentence

blueprint = Blueprint("users", __name__, url_prefix="/users")

_USER = f"/<int(max={MAX_ID}):user_id>"
AT_ONCE = 50  # accounts on a page
_EITHER = {"yes": True, "no": False}


@blueprint.get("")
def index() -> ResponseReturnValue:
    """List accounts: all, or those that a filter in the URL lets through."""
    form = UserFilterForm(request.args)
    if not form.validate():
        return render_template("admin/users/index.html", form=form, found=None, groups=()), 400
    wanted = Wanted(
        text=form.q.data or "",
        group=form.group.data or "",
        is_superuser=_EITHER.get(form.superuser.data),
        is_active=_EITHER.get(form.active.data),
    )
    found = directory.find_accounts(db.session(), wanted, after=form.after.data or "", limit=AT_ONCE)
    kept = {name: value for name, value in request.args.items() if name != "after" and value}
    groups = directory.groups(db.session())
    return render_template("admin/users/index.html", form=form, found=found, groups=groups, kept=kept)


@blueprint.get("/history")
def history() -> ResponseReturnValue:
    """Show who made, changed and deleted which account, the newest first."""
    form = AccountHistoryForm(request.args)
    if not form.validate():
        abort(400)
    found = account_log.recent(db.session(), user_id=form.user.data, before=form.before.data, limit=AT_ONCE + 1)
    return render_template(
        "admin/users/history.html",
        lines=found[:AT_ONCE],
        has_older=len(found) > AT_ONCE,
        user_id=form.user.data,
        is_first=form.before.data is None,
    )


@blueprint.route("/new", methods=["GET", "POST"])
@recent_password.needed
def new() -> ResponseReturnValue:
    """Make an account; its random password is shown this once."""
    form = NewUserForm()
    if not form.validate_on_submit() or not _is_acceptable(form):
        return render_template("admin/users/new.html", form=form, is_shared=False), 422 if form.errors else 200
    address = _checked(form.email.data)
    holders = addresses.holders(db.session(), address)
    if holders and not form.shared.data:
        form.email.errors.append(
            gettext("%(address)s is held by %(holders)s.", address=address.spelling, holders=listed(holders))
        )
        return render_template("admin/users/new.html", form=form, is_shared=True), 409
    password = passwords.random_password()
    try:
        user_id = users.create(
            db.session(),
            username=form.username.data,
            address=address,
            password=password,
            name=form.name.data or "",
            is_superuser=form.superuser.data,
            groups=form.group_names(),
            actor=guards.actor(),
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
            lists=portal().known_lists(),
        )
    except BadInputError as error:  # the name is taken, or is none
        form.username.errors.append(sentence(str(error)))
        return render_template("admin/users/new.html", form=form, is_shared=bool(holders)), fault_of(error).status
    return _password_page(users.profile(db.session(), user_id), password, is_new=True)


@blueprint.get(_USER)
def show(user_id: int) -> ResponseReturnValue:
    """Show an account, what it is on, and what can be done about it."""
    profile = _profile(user_id)
    form = UserForm(None, name=profile.name, email=profile.email, groups="; ".join(profile.groups))
    return _page(profile, form)


@blueprint.post(_USER)
def edit(user_id: int) -> ResponseReturnValue:
    """Change name, main address and groups of an account."""
    profile = _profile(user_id)
    form = UserForm()
    if not form.validate() or not _is_acceptable(form):
        return _page(profile, form), 422
    if _checked(form.email.data).spelling != profile.email and (asked := recent_password.ask()) is not None:
        return asked
    _save(profile, form)
    flash(gettext("Saved."), "good")
    return redirect(url_for("admin.users.show", user_id=user_id), 303)


def _save(profile: Profile, form: UserForm) -> None:
    session = db.session()
    name, groups = users.checked_name(form.name.data or ""), users.checked_groups(form.group_names())
    address = _checked(form.email.data)
    if address.spelling != profile.email:
        addresses.change(
            session, profile.id, address, actor=guards.actor(), now=portal().clock(), lists=portal().known_lists()
        )
    if name != profile.name:
        users.set_name(session, profile.username, name=name, actor=guards.actor())
    if groups != profile.groups:
        users.set_groups(session, profile.username, groups=groups, lists=portal().known_lists(), actor=guards.actor())


# What one button does to an account, what is said afterwards, and what is added where the lists are known.
_ACTIONS: dict[str, tuple[Callable[[str], None], LazyText, LazyText | None]] = {
    "activate": (
        lambda name: users.activate(
            db.session(), name, now=portal().clock(), lists=portal().known_lists(), actor=guards.actor()
        ),
        _("%(username)s is active again."),
        _("Their subscriptions are as before."),
    ),
    "deactivate": (
        lambda name: users.deactivate(db.session(), name, now=portal().clock(), actor=guards.actor()),
        _("%(username)s is deactivated."),
        _("Their addresses leave the lists with the next sync."),
    ),
    "grant": (
        lambda name: users.grant(db.session(), name, actor=guards.actor()),
        _("%(username)s is a superuser."),
        None,
    ),
    "revoke": (
        lambda name: users.revoke(db.session(), name, actor=guards.actor()),
        _("%(username)s is no longer a superuser."),
        None,
    ),
}


@blueprint.post(_USER + "/<any(activate, deactivate, grant, revoke):act>")
@recent_password.needed
def change(user_id: int, act: str) -> ResponseReturnValue:
    """Activate or deactivate an account, give or take the role."""
    profile = _profile(user_id)
    carry_out, words, about_lists = _ACTIONS[act]
    try:
        carry_out(profile.username)
    except BadInputError as error:  # the last superuser stays
        flash(sentence(str(error)), "bad")
    else:
        sentences = [str(words) % {"username": profile.username}]
        if about_lists and portal().readable_catalogue():
            sentences.append(str(about_lists))
        flash(" ".join(sentences), "good")
    return redirect(url_for("admin.users.show", user_id=user_id), 303)


@blueprint.post(_USER + "/password")
@recent_password.needed
def reset_password(user_id: int) -> ResponseReturnValue:
    """Give an account a random password, which is shown this once; all its log-ins end."""
    profile = _profile(user_id)
    password = passwords.random_password()
    rounds = portal().settings.bcrypt_rounds
    users.set_password(db.session(), profile.username, password=password, rounds=rounds, actor=guards.actor())
    return _password_page(profile, password, is_new=False)


@blueprint.route(_USER + "/delete", methods=["GET", "POST"])
def delete(user_id: int) -> ResponseReturnValue:
    """Say what a deletion will do, ask, and delete."""
    profile = _profile(user_id)
    form = DeleteUserForm()
    if form.validate_on_submit():
        try:
            users.delete(
                db.session(),
                profile.username,
                erase=form.erase.data,
                now=portal().clock(),
                lists=portal().known_lists(),
                actor=guards.actor(),
            )
        except BadInputError as error:
            flash(sentence(str(error)), "bad")
            return redirect(url_for("admin.users.show", user_id=user_id), 303)
        flash(gettext("%(username)s is deleted.", username=profile.username), "good")
        return redirect(url_for("admin.users.index"), 303)
    on = directory.subscriptions(db.session(), user_id, lists=portal().known_lists() or {})
    return render_template("admin/users/delete.html", form=form, profile=profile, subscriptions=on)


@blueprint.route("/import", methods=["GET", "POST"])
def import_file() -> ResponseReturnValue:
    """Take a CSV file, and show what it would make before anything is made."""
    form = ImportFileForm()
    if not form.validate_on_submit():
        return render_template("admin/users/import.html", form=form), 422 if form.errors else 200
    raw = form.file.data.read()
    special = portal().settings.allowed_special_domains
    try:
        preview = imports.preview(db.session(), raw.splitlines(keepends=True), special_domains=special)
        text = raw.decode("utf-8-sig")
    except (BadInputError, UnicodeDecodeError) as error:
        words = gettext("The file is not UTF-8.") if isinstance(error, UnicodeDecodeError) else sentence(str(error))
        form.file.errors.append(words)
        return render_template("admin/users/import.html", form=form), 422
    return render_template("admin/users/preview.html", form=ImportTextForm(None, text=text), preview=preview)


@blueprint.post("/import/confirm")
@recent_password.needed
def import_text() -> ResponseReturnValue:
    """Make the accounts of a file that was shown first: all of them, or none."""
    form = ImportTextForm()
    if not form.validate():
        abort(400)
    lines = form.text.data.encode().splitlines(keepends=True)
    special = portal().settings.allowed_special_domains
    try:
        result = imports.import_users(
            db.session(),
            lines,
            now=portal().clock(),
            lists=portal().known_lists(),
            special_domains=special,
            actor=guards.actor(),
        )
    except BadInputError as error:
        flash(sentence(str(error)), "bad")
        return redirect(url_for("admin.users.import_file"), 303)
    if result.problems:
        flash(
            gettext("Nothing was imported: the accounts have changed since the file was shown. Choose it again."), "bad"
        )
        return redirect(url_for("admin.users.import_file"), 303)
    made = ngettext("%(count)s account is made.", "%(count)s accounts are made.", result.created, count=result.created)
    flash(f"{made} {gettext('Each needs a password before anybody can log in to it.')}", "good")
    return redirect(url_for("admin.users.index"), 303)


def _page(profile: Profile, form: UserForm) -> str:
    catalogue, now = portal().readable_catalogue(), portal().clock()
    offers = preferences.page(db.session(), profile.id, catalogue=catalogue, now=now).offers if catalogue else ()
    return render_template("admin/users/show.html", profile=profile, form=form, offers=offers)


def _password_page(profile: Profile, password: str, *, is_new: bool) -> str:
    return render_template("admin/users/password.html", profile=profile, password=password, is_new=is_new)


def _profile(user_id: int) -> Profile:
    return users.profile(db.session(), user_id)


def _checked(email: str) -> Checked:
    return addresses.checked(email, special_domains=portal().settings.allowed_special_domains)


def _is_acceptable(form: UserForm) -> bool:
    """Check a form by the rules of what is stored, and put each complaint beside its field."""
    checks: list[tuple[Field, Callable[[], object]]] = [
        (form.email, lambda: _checked(form.email.data)),
        (form.name, lambda: users.checked_name(form.name.data or "")),
        (form.groups, lambda: users.checked_groups(form.group_names())),
    ]
    for field, check in checks:
        try:
            check()
        except BadInputError as error:
            field.errors.append(sentence(str(error)))
    return not any(field.errors for field, _ in checks)
