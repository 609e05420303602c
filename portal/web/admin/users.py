"""Accounts, for superusers: create, change, deactivate and delete them."""

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress

from flask import Blueprint, abort, flash, redirect, render_template, request, url_for
from flask.typing import ResponseReturnValue
from wtforms import Field

from portal.domain.address import canonical
from portal.errors import BadInputError, ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.accounts import addresses, directory, invitations, password_changes, passwords, profiles, users
from portal.services.accounts import log as account_log
from portal.services.accounts.addresses import Checked
from portal.services.accounts.profiles import Details, Profile
from portal.services.mail.overview import refusals
from portal.services.preferences import preferences
from portal.services.preferences.preferences import Page
from portal.services.reports import deliveries, person_history
from portal.translation import LazyText, gettext, ngettext
from portal.translation import lazy_gettext as _
from portal.web import guards, recent_password, shown, shown_once
from portal.web.admin.person import names_of_lists
from portal.web.admin.user_forms import (
    AccountHistoryForm,
    DeleteUserForm,
    EditUserForm,
    NewUserForm,
    UserActionForm,
    UserForm,
)
from portal.web.forms import MAX_ID
from portal.web.own_addresses import after_change, before_change
from portal.web.template_filters import listed, sentence

blueprint = Blueprint("users", __name__, url_prefix="/users")

_USER = f"/<int(max={MAX_ID}):user_id>"
AT_ONCE = 50  # accounts on a page
LATEST = 8  # lines of history on a person's page


@blueprint.get("/history")
def history() -> ResponseReturnValue:
    """Show who created, changed and deleted which account, newest first."""
    form = AccountHistoryForm(request.args)
    if not form.validate():
        abort(400)
    found = account_log.page(db.session(), user_id=form.user.data, number=form.page.data or 1)
    return render_template(
        "admin/users/history.html",
        found=found,
        user_id=form.user.data,
    )


@blueprint.route("/new", methods=["GET", "POST"])
@recent_password.needed
def new() -> ResponseReturnValue:
    """Create an account and show its random password once."""
    form = NewUserForm()
    if not form.validate_on_submit() or not _is_acceptable(form):
        return render_template("admin/users/new.html", form=form, is_shared=False), 422 if form.errors else 200
    address = _checked(form.email.data)
    holders = addresses.holders(db.session(), address)
    if holders and not form.shared.data:
        form.email.errors.append(_held_by(address, holders))
        return render_template("admin/users/new.html", form=form, is_shared=True), 409
    made = shown_once.make()
    try:
        user_id = users.create(
            db.session(),
            username=form.username.data,
            address=address,
            password=passwords.random_password(made.bits),
            name=form.name.data or "",
            is_superuser=form.superuser.data,
            groups=form.group_names(),
            actor=guards.actor(),
            now=portal().clock(),
            rounds=portal().settings.bcrypt_rounds,
            lists=portal().known_lists(),
        )
    except BadInputError as error:  # the username is taken or invalid
        form.username.errors.append(sentence(error))
        return render_template("admin/users/new.html", form=form, is_shared=bool(holders)), fault_of(error).status
    return _to_password(user_id, made)


@blueprint.get(_USER)
def show(user_id: int) -> ResponseReturnValue:
    """Show an account, its lists, and the possible actions."""
    profile = _profile(user_id)
    return _page(profile, _filled(profile))


@blueprint.post(_USER)
def edit(user_id: int) -> ResponseReturnValue:
    """Save the fields of an account that were changed in the form."""
    profile = _profile(user_id)
    form = EditUserForm()
    try:
        name, email, groups = shown.read(f"account {user_id}", form.shown.data)
    except StaleFormError as error:
        form = _filled(profile)
        form.form_errors.append(gettext("This page was out of date, so nothing was saved. Make your changes again."))
        return _page(profile, form), fault_of(error).status
    if not form.validate() or not _is_acceptable(form):
        return _page(profile, form), 422
    was, address = Details(name, email, tuple(groups)), _checked(form.email.data)
    if not form.shared.data and (holders := _others_holding(profile, address)):
        form.email.errors.append(_held_by(address, holders))
        return _page(profile, form, is_shared=True), 409
    if address.spelling != was.email and (asked := recent_password.ask()) is not None:
        return asked
    own = before_change(user_id) if address.spelling != was.email else None
    edited = users.edit(
        db.session(),
        user_id,
        shown=was,
        wanted=Details(form.name.data or "", address.spelling, tuple(form.group_names())),
        address=address,
        actor=guards.actor(),
        now=portal().clock(),
        lists=portal().known_lists(),
        may_share=form.shared.data,
    )
    after_change(own)
    if edited.stale:
        return _conflict_page(user_id, form, edited.stale), 409
    words = [gettext("Saved."), *_lists_text(user_id, address, before=edited.found.email)]
    flash(" ".join(words), "good")
    return redirect(url_for("admin.users.show", user_id=user_id), 303)


def _lists_text(user_id: int, address: Checked, *, before: str) -> Iterator[str]:
    """Yield a sentence about the lists that go to a new main address."""
    lists = portal().known_lists()
    if lists is None or address.canonical == (before and canonical(before)):
        return
    found = directory.subscriptions(db.session(), user_id, lists=lists)
    count = sum(each.is_subscribed and canonical(each.address) == address.canonical for each in found)
    yield ngettext(
        "%(number)s list will be sent to %(address)s.",
        "%(number)s lists will be sent to %(address)s.",
        count,
        number=count,
        address=address.spelling,
    )


def _filled(profile: Profile) -> EditUserForm:
    """Return the form with the current values of an account."""
    details = profile.details
    return EditUserForm(
        None,
        name=details.name,
        email=details.email,
        groups="; ".join(details.groups),
        shown=shown.sign(f"account {profile.id}", details),
    )


def _conflict_page(user_id: int, posted: EditUserForm, stale: Collection[str]) -> str:
    """Show the stored values; a stale field keeps what was typed, with the value that somebody else has saved."""
    profile = _profile(user_id)
    form = _filled(profile)
    for name in stale:
        field, theirs = form[name], form[name].data
        field.data = posted[name].data
        field.errors = [
            gettext(
                "Someone else changed this to “%(theirs)s” after you opened this page, so your value was not saved. "
                "Save again to replace that value.",
                theirs=theirs,
            )
        ]
    return _page(profile, form)


# For each action: the service call, the message afterwards, and whether it needs the lists.
_ACTIONS: dict[str, tuple[Callable[[str, int], object], LazyText, LazyText | None]] = {
    "activate": (
        lambda name, as_of: users.activate(
            db.session(), name, now=portal().clock(), lists=portal().known_lists(), actor=guards.actor(), as_of=as_of
        ),
        _("%(name)s is active again."),
        _("Their subscriptions are the same as before."),
    ),
    "deactivate": (
        lambda name, as_of: users.deactivate(
            db.session(), name, now=portal().clock(), actor=guards.actor(), as_of=as_of
        ),
        _("%(name)s has been deactivated."),
        _("Their addresses will be removed from all lists at the next sync."),
    ),
    "grant": (
        lambda name, as_of: users.grant(db.session(), name, actor=guards.actor(), as_of=as_of),
        _("%(name)s is a superuser."),
        None,
    ),
    "revoke": (
        lambda name, as_of: users.revoke(db.session(), name, now=portal().clock(), actor=guards.actor(), as_of=as_of),
        _("%(name)s is no longer a superuser."),
        None,
    ),
}


_CHANGE = _USER + "/<any(activate, deactivate, grant, revoke):act>"


@blueprint.get(_CHANGE)
def ask_to_change(user_id: int, act: str) -> ResponseReturnValue:
    """Explain what an action on an account does, and ask for confirmation."""
    return _action_page(user_id, UserActionForm(None), act=act)


@blueprint.post(_CHANGE)
@recent_password.needed
def change(user_id: int, act: str) -> ResponseReturnValue:
    """Activate or deactivate an account, or grant or revoke the superuser role."""
    profile, form = _profile(user_id), UserActionForm()
    carry_out, words, about_lists = _ACTIONS[act]
    try:
        carry_out(profile.username, _seen(user_id, form))
    except (StaleFormError, ChangedMeanwhileError) as error:
        return _action_page(user_id, form, act=act), fault_of(error).status
    except BadInputError as error:  # the last superuser cannot be removed
        flash(sentence(error), "bad")
    else:
        sentences = [str(words) % {"name": profile.name or profile.username}]
        if about_lists and portal().readable_catalogue():
            sentences.append(str(about_lists))
        flash(" ".join(sentences), "good")
        if act == "revoke" and user_id == guards.member().id:
            return redirect(url_for("subscriptions.show"), 303)  # they may no longer see superusers' pages
    return redirect(url_for("admin.users.show", user_id=user_id), 303)


@blueprint.get(_USER + "/password")
def ask_to_reset_password(user_id: int) -> ResponseReturnValue:
    """Explain what a random password does, and ask for confirmation; users change their own on their account page."""
    if user_id == guards.member().id:
        return _to_own_password()
    return _action_page(user_id, UserActionForm(None), act="password")


@blueprint.post(_USER + "/password")
@recent_password.needed
def reset_password(user_id: int) -> ResponseReturnValue:
    """Give an account a random password, end its log-ins, and redirect to the page that shows the password.

    Not for one's own account, because the log-in that would see the password ends as well.
    """
    if user_id == guards.member().id:
        return _to_own_password()
    profile, form, made = _profile(user_id), UserActionForm(), shown_once.make()
    try:
        password_changes.set_password(
            db.session(),
            profile.username,
            password=passwords.random_password(made.bits),
            rounds=portal().settings.bcrypt_rounds,
            actor=guards.actor(),
            as_of=_seen(user_id, form),
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        return _action_page(user_id, form, act="password"), fault_of(error).status
    return _to_password(user_id, made)


def _to_own_password() -> ResponseReturnValue:
    flash(gettext("Change your own password here."))
    return redirect(url_for("account.show"), 303 if request.method == "POST" else 302)


def _to_password(user_id: int, made: shown_once.Made) -> ResponseReturnValue:
    shown_once.keep(f"new-password {user_id}", made)
    return redirect(url_for("admin.users.show_password", user_id=user_id), 303)


@blueprint.get(_USER + "/new-password")
def show_password(user_id: int) -> ResponseReturnValue:
    """Show the password that was just generated, once."""
    bits = shown_once.take(f"new-password {user_id}")
    if bits is None:
        flash(gettext("The password was shown only once. If it is lost, set another one."))
        return redirect(url_for("admin.users.show", user_id=user_id))
    password = passwords.random_password(bits)
    return render_template("admin/users/password.html", profile=_profile(user_id), password=password)


@blueprint.route(_USER + "/delete", methods=["GET", "POST"])
@recent_password.needed
def delete(user_id: int) -> ResponseReturnValue:
    """Explain what a deletion does, ask for confirmation, and delete."""
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
                as_of=_seen(user_id, form),
                secret=portal().list_password_key(),
            )
        except (StaleFormError, ChangedMeanwhileError) as error:
            return _action_page(user_id, form, act="delete"), fault_of(error).status
        except BadInputError as error:
            flash(sentence(error), "bad")
            return redirect(url_for("admin.users.show", user_id=user_id), 303)
        flash(gettext("%(name)s has been deleted.", name=profile.name or profile.username), "good")
        return redirect(url_for("admin.people.index"), 303)
    return _action_page(user_id, form, act="delete")


def _seen(user_id: int, form: UserActionForm) -> int:
    """Return the id of the last change of the account that the page knew. Raise StaleFormError."""
    number: int = shown.read(f"account-actions {user_id}", form.shown.data)
    return number


def _action_page(user_id: int, form: UserActionForm, *, act: str) -> str:
    """Ask for confirmation; if the page was shown before, name the changes that others have made since."""
    last, profile = account_log.last_change(db.session(), user_id), _profile(user_id)
    meanwhile: tuple[account_log.AccountLine, ...] = ()
    if form.is_submitted():
        with suppress(StaleFormError):
            meanwhile = account_log.recent(db.session(), user_id=user_id, after=_seen(user_id, form), limit=AT_ONCE)
        form.form_errors.append(gettext("This page was out of date, so nothing was done. Check it again."))
    form.shown.data = shown.sign(f"account-actions {user_id}", last)
    lists = portal().known_lists() or {}
    if act == "activate":  # no one is put back on a list that they may not see any more
        lists = {handle: each for handle, each in lists.items() if each.is_offered_to(frozenset(profile.groups))}
    return render_template(
        "admin/users/delete.html" if act == "delete" else "admin/users/action.html",
        act=act,
        form=form,
        profile=profile,
        meanwhile=meanwhile,
        subscriptions=directory.subscriptions(db.session(), user_id, lists=lists),
        names=names_of_lists(),
    )


def _page(profile: Profile, form: EditUserForm, *, is_shared: bool = False) -> str:
    catalogue, now = portal().readable_catalogue(), portal().clock()
    found = (
        preferences.page(db.session(), profile.id, catalogue=catalogue, now=now, with_unlisted=True)
        if catalogue
        else Page((), ())
    )
    lost = deliveries.lost(db.session(), profile.id, names_of_lists()) if found.has_moved else ()
    return render_template(
        "admin/users/show.html",
        profile=profile,
        form=form,
        offers=found.offers,
        is_shared=is_shared,
        other_holders=profiles.other_holders(db.session(), profile.id),
        held_addresses=addresses.held(db.session(), profile.id),
        as_of=shown.sign(f"account-actions {profile.id}", account_log.last_change(db.session(), profile.id)),
        refusals=refusals(db.session(), profile.id, {canonical(each) for each in profile.addresses}),
        deliveries=[*found.deliveries, *lost],
        lines=person_history.latest(db.session(), profile.id, limit=LATEST),
        names=names_of_lists(),
        moved_from=person_history.moved_from(db.session(), profile.id),
        invited_at=invitations.last_at(db.session(), profile.id),
        can_be_invited=portal().settings.mail is not None and profile.is_active and bool(profile.email),
    )


def _profile(user_id: int) -> Profile:
    return profiles.by_id(db.session(), user_id)


def _others_holding(profile: Profile, address: Checked) -> Sequence[str]:
    """Return the holders of an address that the account does not hold yet."""
    if address.canonical in map(canonical, profile.addresses):
        return ()
    return addresses.holders(db.session(), address)


def _held_by(address: Checked, holders: Sequence[str]) -> str:
    return gettext(
        "%(address)s is held by %(holders)s. If they share the mailbox, tick the box below.",
        address=address.spelling,
        holders=listed(holders),
    )


def _checked(email: str) -> Checked:
    return addresses.checked(email, special_domains=portal().settings.allowed_special_domains)


def _is_acceptable(form: UserForm) -> bool:
    """Validate a form by the rules of the services, and add errors to its fields."""
    checks: list[tuple[Field, Callable[[], object]]] = [
        (form.email, lambda: _checked(form.email.data)),
        (form.name, lambda: users.checked_name(form.name.data or "")),
        (form.groups, lambda: users.checked_groups(form.group_names())),
    ]
    for field, check in checks:
        try:
            check()
        except BadInputError as error:
            field.errors.append(sentence(error))
    return not any(field.errors for field, _ in checks)
