"""Forms of the pages of runs: filters, and the request of a run."""

from wtforms import IntegerField, StringField
from wtforms.validators import AnyOf, InputRequired, NumberRange, Optional, Regexp

from portal.domain.mailinglist import HANDLE
from portal.domain.run import RunKind
from portal.translation import lazy_gettext as _
from portal.web.forms import MOST_PAGES, PageForm, PostedForm, QueryForm, trimmed

ACTIONS = {
    "remove": _("Take off the list"),
    "left": _("Record a leave"),
    "add": _("Add to the list"),
    "joined": _("Record a join"),
}
RESULTS = {
    "done": _("Done"),
    "already": _("Already done"),
    "pending": _("Waiting for approval"),
    "confirm": _("Waiting for confirmation"),
    "undone": _("Without effect"),
    "rejected": _("Refused by the list"),
    "held": _("Held back"),
    "waits": _("Needs approval"),
    "not_sent": _("Not sent to the list"),
}

_is_handle = Regexp(rf"{HANDLE.pattern}\Z")


class RunsForm(PageForm):
    """A filter of runs."""

    handle = StringField(filters=[trimmed], validators=[Optional(), _is_handle])


class RunLinesForm(QueryForm):
    """A filter of the lines of a run."""

    action = StringField(filters=[trimmed], validators=[Optional(), AnyOf(ACTIONS)])
    result = StringField(filters=[trimmed], validators=[Optional(), AnyOf(RESULTS)])
    page = IntegerField(validators=[Optional(), NumberRange(1, MOST_PAGES)])
    refresh = StringField(filters=[trimmed], validators=[Optional(), AnyOf(("no",))])

    @property
    def query(self) -> dict[str, str]:
        """Return the filter as the query of a URL."""
        return {name: value for name in ("action", "result") if (value := self[name].data)}


class AskForm(PostedForm):
    """A request of a run: the list, the kind, and the plan if a plan is to be applied."""

    handle = StringField(validators=[InputRequired(), _is_handle])
    kind = StringField(validators=[InputRequired(), AnyOf([RunKind.SHOW.value, RunKind.SYNC.value])])
    plan_id = StringField(filters=[trimmed], validators=[Optional(), Regexp(r"[0-9a-f]{16}\Z")])

    def validate(self, extra_validators: object = None) -> bool:
        """Return whether the request makes sense: one that only shows a plan names none."""
        is_applied = self.kind.data == RunKind.SYNC
        return bool(super().validate(extra_validators)) and (is_applied or not self.plan_id.data)
