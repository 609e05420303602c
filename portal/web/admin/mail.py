"""Mail, for superusers: numbers, waiting and refused mails, but no letters."""

from flask import Blueprint, render_template
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services.mail.overview import overview
from portal.services.outbox import MailState
from portal.translation import lazy_gettext as _

STATE_WORDS = {
    MailState.WAITING: _("Waiting for the next attempt"),
    MailState.SENDING: _("Being sent"),
    MailState.REFUSED: _("Refused"),
    MailState.GIVEN_UP: _("Given up"),
}
PURPOSE_WORDS = {
    "addresses": _("Change of addresses"),
    "confirm": _("Confirm an address"),
    "invite": _("Invitation"),
    "leave": _("Leave lists"),
    "lists-changed": _("Change of lists"),
    "log-in": _("Link to log in"),
    "operators": _("Notice for operators"),
    "password-changed": _("Change of password"),
    "undo": _("Change of addresses"),
}

blueprint = Blueprint("mail", __name__, url_prefix="/mail")


@blueprint.get("")
def index() -> ResponseReturnValue:
    """Show waiting, sent and refused mails, with the mail servers' answers."""
    found = overview(db.session(), now=portal().clock())
    return render_template(
        "admin/mail.html",
        found=found,
        is_configured=portal().settings.mail is not None,
        names=STATE_WORDS,
        purposes=PURPOSE_WORDS,
    )
