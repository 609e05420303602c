"""What superusers may post about accounts, and its bounds."""

from wtforms import BooleanField, HiddenField, IntegerField, StringField
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from portal.services.accounts.api_keys import LONGEST_LABEL, LONGEST_LIFE
from portal.translation import lazy_gettext as _
from portal.web.forms import MAX_ID, PostedForm, QueryForm, is_readable, trimmed


class AccountHistoryForm(QueryForm):
    """Whose changes to show, and from which on."""

    user = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])
    before = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])


class PersonHistoryForm(QueryForm):
    """From which line of a person's history on."""

    before = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])


class SearchForm(QueryForm):
    """A part of an address or of a name."""

    q = StringField(_("Address, name or username"), filters=[trimmed], validators=[Length(max=254), is_readable])


class UserForm(PostedForm):
    """What can be changed of an account."""

    name = StringField(_("Name"), filters=[trimmed], validators=[Length(max=120), is_readable])
    email = StringField(
        _("E-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter an e-mail address.")), Length(max=254), is_readable],
    )
    groups = StringField(_("Groups"), filters=[trimmed], validators=[Length(max=1000), is_readable])

    def group_names(self) -> list[str]:
        """Return the groups, which semicolons separate."""
        return [part for part in (self.groups.data or "").split(";") if part.strip()]


class EditUserForm(UserForm):
    """What can be changed of an account, and what it was when the page was shown."""

    shown = HiddenField()
    shared = BooleanField(_("Save anyway: they share the mailbox and its subscriptions"))


class NewAddressForm(PostedForm):
    """A further address of an account."""

    email = StringField(
        _("E-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter an e-mail address.")), Length(max=254), is_readable],
    )
    shared = BooleanField(_("Share the mailbox: it stays on the lists that it is on, for all who use it"))


class UserActionForm(PostedForm):
    """The approval of what a page asks about an account, which it had shown."""

    shown = HiddenField()


class NewUserForm(UserForm):
    """An account to be made."""

    username = StringField(
        _("Username"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter a username.")), Length(max=64), is_readable],
    )
    superuser = BooleanField(_("Superuser: sees reports and makes changes for others"))
    shared = BooleanField(_("Make the account anyway: they share the mailbox and its subscriptions"))


class DeleteUserForm(UserActionForm):
    """The approval of a deletion."""

    erase = BooleanField(_("Forget the address as well, once it is on no list"))


class RevokeKeyForm(PostedForm):
    """The key that the page had shown."""

    shown = HiddenField()


class NewKeyForm(PostedForm):
    """A key to the API to be made."""

    label = StringField(
        _("What it is for"),
        filters=[trimmed],
        validators=[InputRequired(_("Say what it is for.")), Length(max=LONGEST_LABEL), is_readable],
    )
    days = IntegerField(
        _("Days until it expires"),
        validators=[Optional(), NumberRange(1, LONGEST_LIFE, _("Enter a number of days, at most %(max)s."))],
    )
