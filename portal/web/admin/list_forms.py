"""Forms of the pages of one list: filters of addresses, and bulk actions."""

from typing import Any

from flask_wtf import FlaskForm
from wtforms import HiddenField, IntegerField, SearchField, SelectMultipleField, StringField
from wtforms.validators import AnyOf, DataRequired, InputRequired, Length, NumberRange, Optional, ValidationError

from portal.services.preferences.on_behalf import LONGEST_REASON, BulkAction
from portal.services.reports.numbers import Span
from portal.services.reports.subscribers import DEPARTED, SORTS, Filter
from portal.translation import gettext
from portal.translation import lazy_gettext as _
from portal.web.forms import MAX_ID, MOST_PAGES, PostedForm, QueryForm, is_readable, trimmed

# The states as members see them, and one that only superusers see.
STATE_WORDS = {
    "subscribed": _("Subscribed"),
    "not_subscribed": _("Not subscribed"),
    "being_added": _("Being added"),
    "being_removed": _("Being removed"),
    "waiting": _("Waiting for approval"),
    "unconfirmed": _("Waiting for confirmation"),
    "not_added": _("Not added"),
    "refused": _("Refused"),
    "not_chosen": _("Not chosen yet"),
    DEPARTED: _("Departed"),
}
_ORDERS = (*SORTS, *(f"-{each}" for each in SORTS))


class FilterForm(QueryForm):
    """A filter of the addresses of a list."""

    q = SearchField(
        _("Name, username or address"), filters=[trimmed], validators=[Optional(), Length(max=254), is_readable]
    )
    state = StringField(
        _("State"), filters=[trimmed], validators=[Optional(), AnyOf([*STATE_WORDS], _("There is no such state."))]
    )
    group = StringField(_("Group"), filters=[trimmed], validators=[Optional(), Length(max=64), is_readable])

    @property
    def wanted(self) -> Filter:
        """Return the filter that the form describes."""
        return Filter(text=self.q.data or "", state=self.state.data or "", group=self.group.data or "")

    @property
    def query(self) -> dict[str, Any]:
        """Return the form's values as the query of a URL."""
        return {name: value for name in ("q", "state", "group") if (value := getattr(self, name).data)}


class SubscribersForm(FilterForm):
    """A page of the addresses of a list."""

    sort = StringField(
        _("Order"), filters=[trimmed], validators=[Optional(), AnyOf(_ORDERS, _("There is no such order."))]
    )
    page = IntegerField(_("Page"), validators=[Optional(), NumberRange(1, MOST_PAGES, _("There is no such page."))])
    changed = IntegerField(_("Address"), validators=[Optional(), NumberRange(1, MAX_ID)])

    @property
    def order(self) -> str:
        """Return the sort key, with a dash in front for descending order."""
        return self.sort.data or "address"


class ExportForm(FilterForm):
    """The download of the addresses of a list."""

    format = StringField(
        _("Format"),
        filters=[trimmed],
        validators=[Optional(), AnyOf(("csv", "json"), _("The format must be csv or json."))],
    )


class BulkActionForm(FilterForm):
    """A bulk action on the addresses that match a filter, or on the ticked ones."""

    bulk_action = StringField(
        _("Action"), validators=[InputRequired(), AnyOf([*BulkAction], _("There is no such action."))]
    )
    of = StringField(validators=[Optional(), AnyOf(("selected", "all"))])
    address = SelectMultipleField(_("Address"), coerce=int, validate_choice=False)
    # The page where the action was requested: that of the list, of a person, or of the answer to why.
    person = IntegerField(validators=[Optional(), NumberRange(1, MAX_ID)])
    why = StringField(filters=[trimmed], validators=[Optional(), Length(max=254), is_readable])
    sort = StringField(filters=[trimmed], validators=[Optional(), AnyOf(_ORDERS)])
    page = IntegerField(validators=[Optional(), NumberRange(1, MOST_PAGES)])

    def validate_address(self, field: Any) -> None:
        """Raise ValidationError for a value that is no id of an address."""
        if not all(1 <= each <= MAX_ID for each in field.data or ()):
            raise ValidationError(gettext("This is not an address."))

    @property
    def addresses(self) -> tuple[int, ...]:
        """Return the ids of the ticked addresses; none if the action is for all that match the filter."""
        return () if self.of.data == "all" else tuple(self.address.data or ())

    @property
    def place(self) -> dict[str, Any]:
        """Return the query of the page of the list where the action was requested."""
        return {**self.query, **{name: value for name in ("sort", "page") if (value := self[name].data)}}

    @property
    def lacks_addresses(self) -> bool:
        """Return whether the action is for ticked addresses, but none is ticked."""
        return self.of.data == "selected" and not self.addresses

    @property
    def wanted(self) -> Filter:
        """Return the filter that the form describes."""
        return super().wanted._replace(address_ids=self.addresses)


class ReasonForm(PostedForm):
    """The confirmation of a preview, with a reason."""

    shown = HiddenField()
    reason = StringField(
        _("Reason"),
        filters=[trimmed],
        validators=[
            DataRequired(_("Enter a reason. It is kept in the history.")),
            Length(max=LONGEST_REASON),
            is_readable,
        ],
    )


class NumbersForm(QueryForm):
    """A selection of numbers: all lists or one, and the length of a period."""

    by = StringField(filters=[trimmed], validators=[Optional(), AnyOf([*Span])])
    list = StringField(_("List"), filters=[trimmed], validators=[Optional(), Length(max=64)])

    @property
    def span(self) -> Span:
        """Return the length of a period."""
        return Span(self.by.data or Span.MONTH)


class ExportNumbersForm(NumbersForm):
    """The download of numbers."""

    format = StringField(filters=[trimmed], validators=[Optional(), AnyOf(("csv", "json"))])


class NumberedForm(QueryForm):
    """The page of a table, and whether it refreshes."""

    page = IntegerField(validators=[Optional(), NumberRange(1, MOST_PAGES)])
    refresh = StringField(filters=[trimmed], validators=[Optional(), AnyOf(("no",))])


class WhyForm(QueryForm):
    """The address in question."""

    q = StringField(
        _("Address"),
        filters=[trimmed],
        validators=[InputRequired(_("Enter an address.")), Length(max=254), is_readable],
    )


class RetryForm(PostedForm):
    """The confirmation of a retry, which is no choice and needs no reason."""

    shown = HiddenField()


def reason_form(bulk_action: BulkAction) -> FlaskForm:
    """Return the form to confirm a bulk action with."""
    return RetryForm() if bulk_action is BulkAction.RETRY else ReasonForm()
