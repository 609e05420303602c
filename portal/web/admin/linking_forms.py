"""Forms to link, unlink and merge accounts."""

from wtforms import HiddenField, StringField
from wtforms.validators import InputRequired, Length, Optional

from portal.services.membership.rows import LONGEST_KEY
from portal.translation import lazy_gettext as _
from portal.web.forms import PostedForm, is_readable, trimmed


class LinkForm(PostedForm):
    """The member key to link an account to."""

    shown = HiddenField()
    key = StringField(
        _("Member key"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter a member key.")), Length(max=LONGEST_KEY), is_readable],
    )


class UnlinkForm(PostedForm):
    """The confirmation of what the page asks."""

    shown = HiddenField()


class MergeForm(PostedForm):
    """The account to merge into, and the member key to keep."""

    shown = HiddenField()
    into = StringField(
        _("Username of the account to keep"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter the username of the other account.")), Length(max=64), is_readable],
    )
    keep_key = StringField(
        _("Member key to keep"), filters=[trimmed], validators=[Optional(), Length(max=LONGEST_KEY), is_readable]
    )
