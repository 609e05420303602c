"""What the pages of imports take from browsers: a file of today's members, and which lines of its plan to show."""

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

# The kinds of lines, each with the count of an import that counts them. What is only remembered has no line.
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
    """A file of today's members, and what it means for those who are not in it."""

    file = FileField(_("CSV file"), validators=[FileRequired(_("Choose a file."))])
    key = StringField(_("Column of member keys"), filters=[trimmed], validators=[Length(max=120), is_readable])
    leavers = BooleanField(_("Deactivate people who are no longer in the file"))

    class Meta(PostedForm.Meta):
        """Where the file comes from."""

        def wrap_formdata(self, _form: FlaskForm, formdata: object) -> Any:
            """Return what was posted, files among it, or None."""
            is_posted = formdata is not None and request.form
            return CombinedMultiDict((request.files, request.form)) if is_posted else None


class OlderImportsForm(QueryForm):
    """Which imports: those before one that was shown."""

    before = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])


class LinesForm(QueryForm):
    """Which lines of an import."""

    q = SearchField(
        _("Name, username or member key"), filters=[trimmed], validators=[Optional(), Length(max=254), is_readable]
    )
    kind = StringField(
        _("Kind"), filters=[trimmed], validators=[Optional(), AnyOf([*KINDS], _("There is no such kind."))]
    )
    after = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])

    @property
    def query(self) -> dict[str, Any]:
        """Return what was asked for as the query of a URL."""
        return {name: value for name in ("q", "kind") if (value := getattr(self, name).data)}


class ApplyForm(PostedForm):
    """The approval of the plan that the page had shown."""

    shown = HiddenField()
    invite = BooleanField(_("Invite new people by e-mail"))
