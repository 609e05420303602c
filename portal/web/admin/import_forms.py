"""Forms of the pages of imports: upload a file of members, filter the lines of a plan, and apply the plan."""

from typing import Any

from flask import request
from flask_wtf import FlaskForm
from flask_wtf.file import FileField, FileRequired
from werkzeug.datastructures import CombinedMultiDict
from wtforms import BooleanField, HiddenField, IntegerField, SearchField, StringField
from wtforms.validators import AnyOf, Length, NumberRange, Optional

from portal.domain.membership import Action
from portal.translation import lazy_gettext as _
from portal.web.forms import MAX_ID, PostedForm, QueryForm, is_readable, trimmed

# The kinds of lines, each with the counter that counts them. Values that are only stored have no line.
KINDS = {
    Action.CREATE: (_("Create"), "created"),
    Action.LINK: (_("Link"), "linked"),
    Action.CHANGE: (_("Change"), "changed"),
    Action.REACTIVATE: (_("Reactivate"), "reactivated"),
    Action.DEACTIVATE: (_("Deactivate"), "deactivated"),
    Action.PROBLEM: (_("Problems"), "problems"),
    Action.REPORT: (_("Reported"), "reported"),
}


class UploadForm(PostedForm):
    """A file of today's members, and whether members who are not in it are deactivated."""

    file = FileField(_("CSV file"), validators=[FileRequired(_("Choose a file."))])
    key = StringField(_("Column of member keys"), filters=[trimmed], validators=[Length(max=120), is_readable])
    leavers = BooleanField(_("Deactivate people who are no longer in the file"))

    class Meta(PostedForm.Meta):
        """Where the file comes from."""

        def wrap_formdata(self, _form: FlaskForm, formdata: object) -> Any:
            """Return the posted fields and files, or None."""
            is_posted = formdata is not None and request.form
            return CombinedMultiDict((request.files, request.form)) if is_posted else None


class LinesForm(QueryForm):
    """A filter of the lines of an import."""

    q = SearchField(
        _("Name, username or member key"), filters=[trimmed], validators=[Optional(), Length(max=254), is_readable]
    )
    kind = StringField(
        _("Kind"), filters=[trimmed], validators=[Optional(), AnyOf([*KINDS], _("There is no such kind."))]
    )
    after = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])

    @property
    def query(self) -> dict[str, Any]:
        """Return the form's values as the query of a URL."""
        return {name: value for name in ("q", "kind") if (value := getattr(self, name).data)}


class ApplyForm(PostedForm):
    """The approval of the plan that the page showed."""

    shown = HiddenField()
    invite = BooleanField(_("Invite new people by e-mail"))
