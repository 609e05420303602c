"""Forms of members' pages, and the base classes of all forms."""

import re
from collections.abc import Sequence
from typing import Any, Self

from flask import request
from flask_wtf import FlaskForm
from wtforms import (
    BooleanField,
    HiddenField,
    IntegerField,
    PasswordField,
    SearchField,
    SelectField,
    SelectMultipleField,
    StringField,
)
from wtforms.validators import EqualTo, InputRequired, Length, NumberRange, Optional, ValidationError

from portal import translation
from portal.services.paging import LAST_PAGE
from portal.translation import gettext
from portal.translation import lazy_gettext as _

MAX_ID = 2**31 - 1  # the largest id that every database accepts
MOST_PAGES = 100_000  # assumed of any table
LONGEST_PASSWORD = 1024


def trimmed(value: str | None) -> str | None:
    """Return a text without surrounding white space."""
    return value.strip() if value else value


def is_readable(_form: FlaskForm, field: Any) -> None:
    """Raise ValidationError for control characters, which belong in no database and no log."""
    if not (field.data or "").isprintable():
        field.data = ""  # they are not shown again either
        raise ValidationError(gettext("This contains characters that cannot be typed. Enter it again."))


class TranslatedForm(FlaskForm):
    """A form whose built-in messages, those of WTForms, are translated with our catalogue."""

    class Meta(FlaskForm.Meta):
        """Where the messages come from."""

        def get_translations(self, _form: FlaskForm) -> Any:
            """Return an object with ``gettext`` and ``ngettext``."""
            return translation


class PostedForm(TranslatedForm):
    """A form that ignores files and JSON, which would be errors in place of texts."""

    class Meta(TranslatedForm.Meta):
        """Where the fields come from."""

        def wrap_formdata(self, _form: FlaskForm, formdata: object) -> Any:
            """Return the posted fields, or None if there are none or the view wants an empty form."""
            return None if formdata is None else request.form or None


class LogInForm(PostedForm):
    """Username or address, and password."""

    username = StringField(
        _("Username or e-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter your username or e-mail address.")), Length(max=254), is_readable],
    )
    password = PasswordField(
        _("Password"), validators=[InputRequired(_("Enter your password.")), Length(max=LONGEST_PASSWORD)]
    )
    remember = BooleanField(_("Stay logged in for 30 days"))


class AskForLinkForm(PostedForm):
    """The address to send a link to."""

    email = StringField(
        _("E-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter your e-mail address.")), Length(max=254), is_readable],
    )


class TokenForm(PostedForm):
    """A form with only a button."""


class AddAddressForm(AskForLinkForm):
    """An address to add, or to replace the main address with."""

    replaces_main = BooleanField(_("Use it instead of my main address"))


class HeldAddressForm(PostedForm):
    """One of the member's own addresses, in canonical form."""

    address = StringField(validators=[InputRequired(), Length(max=254), is_readable])


class ConfirmAddressForm(PostedForm):
    """The confirmation of an address; ``shared``: the page said that another account holds it."""

    shared = HiddenField()


class LeaveByLinkForm(PostedForm):
    """The boxes that are still ticked, and the lists that the page showed."""

    shown = HiddenField()
    lists = SelectMultipleField(validate_choice=False)


class NewPasswordForm(PostedForm):
    """A new password, twice."""

    new = PasswordField(
        _("New password"), validators=[InputRequired(_("Enter a new password.")), Length(max=LONGEST_PASSWORD)]
    )
    again = PasswordField(
        _("Repeat new password"),
        validators=[EqualTo("new", _("The two new passwords are not the same. Enter the same password twice."))],
    )


class ChangePasswordForm(PostedForm):
    """The current password, and the new one twice."""

    current = PasswordField(
        _("Current password"),
        validators=[InputRequired(_("Enter your current password.")), Length(max=LONGEST_PASSWORD)],
    )
    new = PasswordField(
        _("New password"), validators=[InputRequired(_("Enter a new password.")), Length(max=LONGEST_PASSWORD)]
    )
    again = PasswordField(
        _("Repeat new password"),
        validators=[EqualTo("new", _("The two new passwords are not the same. Enter the same password twice."))],
    )


class ConfirmPasswordForm(PostedForm):
    """The member's own password, for sensitive changes. Its field name is unique among all forms."""

    own_password = PasswordField(
        _("Your password"), validators=[InputRequired(_("Enter your password.")), Length(max=LONGEST_PASSWORD)]
    )


class OwnAddressForm(PostedForm):
    """One of the member's own addresses."""

    address = IntegerField(validators=[InputRequired(), NumberRange(1, MAX_ID)])


class LanguageForm(PostedForm):
    """The language of pages and letters; empty follows the browser."""

    language = SelectField(_("Language of these pages and of e-mails to you"))

    def offer(self, languages: Sequence[str]) -> Self:
        """Offer languages, each under its own name."""
        names = translation.own_names(languages)
        self.language.choices = [("", gettext("Same as my browser")), *names.items()]
        return self


class EndLogInForm(PostedForm):
    """One of the member's own log-ins."""

    log_in = IntegerField(validators=[InputRequired(), NumberRange(1, MAX_ID)])


class SubscriptionsForm(PostedForm):
    """The ticked boxes, the address of each list as ``HANDLE:ID``, and the state that the page showed."""

    shown = HiddenField()
    lists = SelectMultipleField(validate_choice=False)
    addresses = SelectMultipleField(validate_choice=False)

    @property
    def chosen_addresses(self) -> dict[str, int]:
        """Return the id of the chosen address by list, for members with several addresses."""
        pairs = (each.rpartition(":") for each in self.addresses.data or ())
        return {handle: int(number) for handle, _, number in pairs}

    def validate_addresses(self, field: Any) -> None:
        """Raise ValidationError for a value that is not a handle and an id."""
        numbers = [each.rpartition(":")[2] for each in field.data or ()]
        if not all(re.fullmatch("[1-9][0-9]{0,9}", each) and int(each) <= MAX_ID for each in numbers):
            raise ValidationError(gettext("This is not an address."))


class ShownForm(PostedForm):
    """The state that the page showed."""

    shown = HiddenField()


class QueryForm(TranslatedForm):
    """Values in a URL, which change nothing and need no token."""

    class Meta(TranslatedForm.Meta):
        """No CSRF on a GET."""

        csrf = False


class ListsForm(QueryForm):
    """A filter of lists."""

    q = SearchField(
        _("Words in the name or description"),
        filters=[trimmed],
        validators=[Optional(), Length(max=120), is_readable],
    )


class PageForm(QueryForm):
    """The page of a long table to show."""

    page = IntegerField(validators=[Optional(), NumberRange(1, LAST_PAGE)])
