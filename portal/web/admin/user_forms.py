"""Forms of the pages of accounts, search and API keys."""

from wtforms import BooleanField, HiddenField, IntegerField, StringField
from wtforms.validators import InputRequired, Length, NumberRange, Optional

from portal.services.accounts.api_keys import LONGEST_LABEL, LONGEST_LIFE
from portal.translation import lazy_gettext as _
from portal.web.forms import MAX_ID, PageForm, PostedForm, QueryForm, is_readable, trimmed


class AccountHistoryForm(PageForm):
    """A filter of the history of accounts."""

    user = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])


class SearchForm(QueryForm):
    """An address or a name, or a part of one."""

    q = StringField(_("Address, name or username"), filters=[trimmed], validators=[Length(max=254), is_readable])


class UserForm(PostedForm):
    """The fields of an account that superusers can change."""

    name = StringField(_("Name"), filters=[trimmed], validators=[Length(max=120), is_readable])
    email = StringField(
        _("E-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter an e-mail address.")), Length(max=254), is_readable],
    )
    groups = StringField(_("Groups"), filters=[trimmed], validators=[Length(max=1000), is_readable])

    def group_names(self) -> list[str]:
        """Return the groups, split at semicolons."""
        return [part for part in (self.groups.data or "").split(";") if part.strip()]


class EditUserForm(UserForm):
    """The fields of an account that superusers can change, and their values when the page was shown."""

    shown = HiddenField()
    shared = BooleanField(_("Save anyway: they share the mailbox and its subscriptions"))


class NewAddressForm(PostedForm):
    """An address to add to an account."""

    email = StringField(
        _("E-mail address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter an e-mail address.")), Length(max=254), is_readable],
    )
    shared = BooleanField(_("Share the mailbox: it stays on its current lists, for everyone who uses it"))


class UserActionForm(PostedForm):
    """The confirmation of a change, with the state of the account that the page showed."""

    shown = HiddenField()


class NewUserForm(UserForm):
    """An account to create."""

    username = StringField(
        _("Username"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter a username.")), Length(max=64), is_readable],
    )
    superuser = BooleanField(_("Superuser: sees reports and makes changes for others"))
    shared = BooleanField(_("Create the account anyway: they share the mailbox and its subscriptions"))


class DeleteUserForm(UserActionForm):
    """The confirmation of a deletion."""

    erase = BooleanField(_("Also erase the address and its choices, once it is off all lists"))


class RevokeKeyForm(PostedForm):
    """The key to revoke."""

    shown = HiddenField()


class NewKeyForm(PostedForm):
    """An API key to create."""

    label = StringField(
        _("Purpose"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter the purpose of the key.")), Length(max=LONGEST_LABEL), is_readable],
    )
    days = IntegerField(
        _("Days until it expires"),
        validators=[Optional(), NumberRange(1, LONGEST_LIFE, _("Enter a number of days, at most %(max)s."))],
    )
