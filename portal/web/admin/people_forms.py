"""Forms of the page of people: filters and bulk changes."""

from datetime import UTC, date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from wtforms import DateField, HiddenField, IntegerField, SearchField, SelectMultipleField, StringField
from wtforms.validators import AnyOf, InputRequired, Length, NumberRange, Optional, ValidationError

from portal.extensions import portal
from portal.services.accounts.bulk import Asked, Change
from portal.services.accounts.directory import SORTS, Status, Wanted
from portal.translation import gettext
from portal.translation import lazy_gettext as _
from portal.web.forms import MAX_ID, PostedForm, QueryForm, is_readable, trimmed

STATUS_WORDS = {
    Status.ACTIVE: _("Active"),
    Status.NEVER_LOGGED_IN: _("Never logged in"),
    Status.NO_PASSWORD: _("No password"),
    Status.NO_ADDRESS: _("No address"),
    Status.DEACTIVATED: _("Deactivated"),
    Status.LEFT: _("Deactivated by an import"),
    Status.BARRED: _("Deactivated by a person"),
    Status.SUPERUSER: _("Superusers"),
}
CHANGE_WORDS = {
    Change.ADD_GROUPS: _("Add to groups"),
    Change.REMOVE_GROUPS: _("Remove from groups"),
    Change.SET_GROUPS: _("Set groups"),
    Change.ACTIVATE: _("Activate"),
    Change.DEACTIVATE: _("Deactivate"),
    Change.INVITE: _("Invite by e-mail"),
}


def is_possible(change: Change) -> bool:
    """Return whether this portal offers a bulk change: without mail there are no invitations."""
    return change is not Change.INVITE or portal().settings.mail is not None


_MOST_PAGES = 100_000
_MOST_PICKED = 200
_ORDERS = (*SORTS, *(f"-{each}" for each in SORTS))
_FIRST_DAY = date(1970, 1, 1)


class PeopleFilterForm(QueryForm):
    """A filter of people."""

    q = SearchField(
        _("Name, username, address or member key"),
        filters=[trimmed],
        validators=[Optional(), Length(max=254), is_readable],
    )
    status = StringField(
        _("Status"), filters=[trimmed], validators=[Optional(), AnyOf([*Status], _("There is no such status."))]
    )
    group = StringField(_("Group"), filters=[trimmed], validators=[Optional(), Length(max=64), is_readable])
    since = DateField(_("Added on or after"), validators=[Optional()])

    def validate_since(self, field: Any) -> None:
        """Raise ValidationError for a date that does not exist."""
        if field.errors:
            field.raw_data = []  # an invalid date is not shown again
        elif field.data and field.data < _FIRST_DAY:
            raise ValidationError(gettext("Enter a date after 1970."))

    @property
    def wanted(self) -> Wanted:
        """Return the filter that the form describes."""
        since = self.since.data
        zone = ZoneInfo(portal().settings.timezone)
        midnight = since and datetime(since.year, since.month, since.day, tzinfo=zone).astimezone(UTC)
        return Wanted(
            text=self.q.data or "",
            group=self.group.data or "",
            status=Status(self.status.data) if self.status.data else None,
            made_since=midnight or None,
        )

    @property
    def query(self) -> dict[str, Any]:
        """Return the form's values as the query of a URL."""
        return {name: value for name in ("q", "status", "group", "since") if (value := getattr(self, name).data)}


class PeopleForm(PeopleFilterForm):
    """A page of people."""

    sort = StringField(
        _("Order"), filters=[trimmed], validators=[Optional(), AnyOf(_ORDERS, _("There is no such order."))]
    )
    page = IntegerField(_("Page"), validators=[Optional(), NumberRange(1, _MOST_PAGES, _("There is no such page."))])

    @property
    def order(self) -> str:
        """Return the sort key, with a dash in front for descending order."""
        return self.sort.data or "name"


class ExportPeopleForm(PeopleFilterForm):
    """The download of people."""

    format = StringField(
        _("Format"),
        filters=[trimmed],
        validators=[Optional(), AnyOf(("csv", "json"), _("The format must be csv or json."))],
    )


class ChangePeopleForm(PeopleFilterForm):
    """A bulk change of the selected people, or of all who match the filter."""

    change = StringField(
        _("Bulk action"), validators=[InputRequired(), AnyOf([*Change], _("There is no such action."))]
    )
    of = StringField(_("For"), validators=[Optional(), AnyOf(("selected", "all"))])
    user = SelectMultipleField(validate_choice=False)
    groups = StringField(_("Groups"), filters=[trimmed], validators=[Length(max=1000), is_readable])

    def validate_change(self, field: Any) -> None:
        """Raise ValidationError for a change that this portal does not offer."""
        if field.data in [*Change] and not is_possible(Change(field.data)):
            raise ValidationError(gettext("There is no such action."))

    def validate_user(self, field: Any) -> None:
        """Raise ValidationError for a value that is no id of an account."""
        numbers = field.data or ()
        if len(numbers) > _MOST_PICKED or not all(_is_id(each) for each in numbers):
            raise ValidationError(gettext("This is not an account."))

    @property
    def is_for_all(self) -> bool:
        """Return whether the change is for all who match the filter."""
        return bool(self.of.data == "all")

    @property
    def asked(self) -> Asked:
        """Return the change that the form describes, with unchecked groups."""
        wanted = self.wanted if self.is_for_all else Wanted(user_ids=tuple(sorted(set(map(int, self.user.data or ())))))
        return Asked(Change(self.change.data), wanted, tuple(self.group_names()))

    def group_names(self) -> list[str]:
        """Return the groups, split at semicolons."""
        return [part for part in (self.groups.data or "").split(";") if part.strip()]

    @property
    def carried(self) -> list[tuple[str, object]]:
        """Return the values that the next page needs as well, except the groups."""
        picked = [] if self.is_for_all else [("user", each) for each in self.user.data or ()]
        return [("change", self.change.data), ("of", self.of.data or "selected"), *self.query.items(), *picked]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdecimal() and 0 < int(text[:11]) <= MAX_ID


class ConfirmChangeForm(PostedForm):
    """The confirmation of a preview."""

    shown = HiddenField()
