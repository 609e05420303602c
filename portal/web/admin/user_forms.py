"""What superusers may post about accounts, and its bounds."""

from typing import Any

from flask import request
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from werkzeug.datastructures import CombinedMultiDict
from wtforms import BooleanField, HiddenField, IntegerField, SelectField, StringField
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from portal.services.accounts.api_keys import LONGEST_LABEL, LONGEST_LIFE
from portal.web.forms import MAX_ID, PostedForm, QueryForm, is_readable, trimmed

_EITHER = ("any", "yes", "no")


class UserFilterForm(QueryForm):
    """Which accounts to show."""

    q = StringField("Name, username or address", filters=[trimmed], validators=[Length(max=254), is_readable])
    group = StringField("Group", filters=[trimmed], validators=[Length(max=64), is_readable])
    superuser = SelectField("Superuser", choices=_EITHER, default="any")
    active = SelectField("Active", choices=_EITHER, default="any")
    after = StringField(validators=[Length(max=64), is_readable])


class AccountHistoryForm(QueryForm):
    """Whose changes to show, and from which on."""

    user = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])
    before = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])


class SearchForm(QueryForm):
    """A part of an address or of a name."""

    q = StringField("Address, name or username", filters=[trimmed], validators=[Length(max=254), is_readable])


class UserForm(PostedForm):
    """What can be changed of an account."""

    name = StringField("Name", filters=[trimmed], validators=[Length(max=120), is_readable])
    email = StringField(
        "E-mail address",
        filters=[trimmed],
        validators=[InputRequired("Enter an e-mail address."), Length(max=254), is_readable],
    )
    groups = StringField("Groups", filters=[trimmed], validators=[Length(max=1000), is_readable])

    def group_names(self) -> list[str]:
        """Return the groups, which semicolons separate."""
        return [part for part in (self.groups.data or "").split(";") if part.strip()]


class NewUserForm(UserForm):
    """An account to be made."""

    username = StringField(
        "Username",
        filters=[trimmed],
        validators=[InputRequired("Enter a username."), Length(max=64), is_readable],
    )
    superuser = BooleanField("Superuser: sees reports and works for others")
    shared = BooleanField("Make the account all the same; they share the mailbox and its subscriptions")


class DeleteUserForm(PostedForm):
    """The yes to a deletion."""

    erase = BooleanField("Forget the address as well, once it is on no list")


class ImportFileForm(PostedForm):
    """A CSV file with accounts."""

    file = FileField("CSV file", validators=[FileRequired("Choose a file.")])

    class Meta(PostedForm.Meta):
        """Where the file comes from."""

        def wrap_formdata(self, _form: FlaskForm, _formdata: object) -> Any:
            """Return what was posted, files among it, or None."""
            return CombinedMultiDict((request.files, request.form)) if request.form else None


class ImportTextForm(PostedForm):
    """The accounts of a file that was shown first."""

    text = HiddenField(validators=[InputRequired()])


class NewKeyForm(PostedForm):
    """A key to the API to be made."""

    label = StringField(
        "What it is for",
        filters=[trimmed],
        validators=[InputRequired("Say what it is for."), Length(max=LONGEST_LABEL), is_readable],
    )
    days = IntegerField(
        "Days until it expires",
        validators=[Optional(), NumberRange(1, LONGEST_LIFE, "Enter a number of days, at most %(max)s.")],
    )
