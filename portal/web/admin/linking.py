"""Accounts and the membership database, for superusers: link, unlink and merge accounts."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from flask import Blueprint, flash, redirect, render_template, url_for
from flask.typing import ResponseReturnValue

from portal.errors import BadInputError, ChangedMeanwhileError, StaleFormError
from portal.extensions import db, portal
from portal.faults import fault_of
from portal.services.accounts import log as account_log
from portal.services.accounts import profiles
from portal.services.accounts.profiles import Profile
from portal.services.membership import linking, merging
from portal.services.membership.merging import Merge, Merged
from portal.translation import gettext
from portal.web import guards, recent_password, shown
from portal.web.admin.linking_forms import LinkForm, MergeForm, UnlinkForm
from portal.web.admin.person import names_of_lists
from portal.web.forms import MAX_ID
from portal.web.own_addresses import after_change, before_change
from portal.web.template_filters import sentence

blueprint = Blueprint("linking", __name__, url_prefix="/users")

_USER = f"/<int(max={MAX_ID}):user_id>"
AT_ONCE = 50  # changes of an account on a page


@blueprint.get(_USER + "/link")
def ask_to_link(user_id: int) -> ResponseReturnValue:
    """Explain what linking does, and ask for the member key."""
    return _page("link", user_id, LinkForm(None))


@blueprint.post(_USER + "/link")
@recent_password.needed
def link(user_id: int) -> ResponseReturnValue:
    """Link an account to a member key."""
    form = LinkForm()
    if not form.validate():
        return _page("link", user_id, form), 422
    secret, key = portal().list_password_key(), form.key.data

    def act(profile: Profile, as_of: int) -> str:
        linking.link(db.session(), profile.username, key, secret=secret, actor=guards.actor(), as_of=as_of)
        return gettext("%(name)s is linked to member %(key)s.", name=profile.name or profile.username, key=key)

    return _carry_out("link", user_id, form, act)


@blueprint.get(_USER + "/unlink")
def ask_to_unlink(user_id: int) -> ResponseReturnValue:
    """Explain what unlinking does, and ask for confirmation."""
    return _page("unlink", user_id, UnlinkForm(None))


@blueprint.post(_USER + "/unlink")
@recent_password.needed
def unlink(user_id: int) -> ResponseReturnValue:
    """Make an account local."""

    def act(profile: Profile, as_of: int) -> str:
        key = linking.unlink(db.session(), profile.username, actor=guards.actor(), as_of=as_of)
        return gettext(
            "%(name)s is no longer linked to member %(key)s.", name=profile.name or profile.username, key=key
        )

    return _carry_out("unlink", user_id, UnlinkForm(), act)


def _carry_out(
    name: str, user_id: int, form: LinkForm | UnlinkForm, act: Callable[[Profile, int], str]
) -> ResponseReturnValue:
    """Apply a confirmed change if the account is as it was shown, or show why it cannot be applied."""
    try:
        words = act(_profile(user_id), _seen(user_id, form))
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(gettext("This page was out of date, so nothing was done. Check it again."))
        return _page(name, user_id, form, is_stale=True), fault_of(error).status
    except BadInputError as error:
        form.form_errors.append(sentence(error))
        return _page(name, user_id, form), fault_of(error).status
    flash(words, "good")
    return redirect(url_for("admin.users.show", user_id=user_id), 303)


def _seen(user_id: int, form: LinkForm | UnlinkForm) -> int:
    number: int = shown.read(f"account-actions {user_id}", form.shown.data)
    return number


def _page(name: str, user_id: int, form: LinkForm | UnlinkForm, *, is_stale: bool = False) -> str:
    last, profile = account_log.last_change(db.session(), user_id), _profile(user_id)
    meanwhile: tuple[account_log.AccountLine, ...] = ()
    if is_stale:
        with suppress(StaleFormError):
            meanwhile = account_log.recent(db.session(), user_id=user_id, after=_seen(user_id, form), limit=AT_ONCE)
    form.shown.data = shown.sign(f"account-actions {user_id}", last)
    return render_template(
        f"admin/linking/{name}.html",
        profile=profile,
        form=form,
        key=linking.key_of(db.session(), user_id),
        meanwhile=meanwhile,
    )


@blueprint.get(_USER + "/merge")
def ask_to_merge(user_id: int) -> ResponseReturnValue:
    """Ask for the account to merge with."""
    return _merge_page(_profile(user_id), MergeForm(None))


@blueprint.post(_USER + "/merge/review")
def review_merge(user_id: int) -> ResponseReturnValue:
    """Preview a merge and ask for confirmation. The merge is tried and rolled back, so this is a POST."""
    profile, form = _profile(user_id), MergeForm()
    return _review(profile, form) if form.validate() else (_merge_page(profile, form), 422)


@blueprint.post(_USER + "/merge")
@recent_password.needed
def merge(user_id: int) -> ResponseReturnValue:
    """Merge two accounts as previewed; if the outcome would be different now, show the preview again."""
    profile, form = _profile(user_id), MergeForm()
    if not form.validate():
        return _merge_page(profile, form), 422
    kept = _known(form.into.data or "")
    own = before_change(kept.id) if kept else None
    try:
        gone_as_of, kept_as_of = shown.read(f"merge {user_id}", form.shown.data)
        merged = merging.merge(
            db.session(), _wanted(profile, form, gone_as_of, kept_as_of), **_context(), actor=guards.actor()
        )
    except (StaleFormError, ChangedMeanwhileError) as error:
        form.form_errors.append(
            gettext("The accounts have changed since they were shown, so nothing was done. Check them again.")
        )
        return _review(profile, form, status=fault_of(error).status)
    except BadInputError as error:
        form.into.errors = [sentence(error)]
        return _merge_page(profile, form), fault_of(error).status
    after_change(own)
    flash(gettext("%(gone)s has been merged into %(kept)s.", gone=merged.gone, kept=merged.kept), "good")
    return redirect(url_for("admin.users.show", user_id=profiles.id_of(db.session(), merged.kept)), 303)


def _wanted(profile: Profile, form: MergeForm, gone_as_of: int | None = None, kept_as_of: int | None = None) -> Merge:
    return Merge(profile.username, form.into.data, form.keep_key.data or None, gone_as_of, kept_as_of)


def _context() -> dict[str, Any]:
    secret = portal().list_password_key()
    return {"now": portal().clock(), "lists": portal().known_lists(), "secret": secret}


def _review(profile: Profile, form: MergeForm, *, status: int = 200) -> ResponseReturnValue:
    """Show the preview of a merge, signed with the last change of each account."""
    kept = _known(form.into.data)
    if kept and kept.id != profile.id and kept.member_key and profile.member_key and not form.keep_key.data:
        form.keep_key.errors = [gettext("Both accounts have a member key. Choose the one to keep.")]
        return _merge_page(profile, form), 422
    last = [account_log.last_change(db.session(), each.id) for each in (profile, *([kept] if kept else []))]
    try:
        preview = merging.preview(db.session(), _wanted(profile, form), **_context())
    except BadInputError as error:
        form.into.errors = [sentence(error)]
        return _merge_page(profile, form), fault_of(error).status
    form.shown.data = shown.sign(f"merge {profile.id}", last)
    return _merge_page(profile, form, preview), status


def _merge_page(profile: Profile, form: MergeForm, preview: Merged | None = None) -> str:
    kept = _known(form.into.data or "")
    return render_template(
        "admin/linking/merge.html",
        profile=profile,
        form=form,
        kept=kept,
        preview=preview,
        names=names_of_lists(),
        keys=[(each.username, each.member_key) for each in (profile, kept) if each and each.member_key],
    )


def _known(username: str) -> Profile | None:
    try:
        return profiles.by_username(db.session(), username)
    except BadInputError:
        return None


def _profile(user_id: int) -> Profile:
    return profiles.by_id(db.session(), user_id)
