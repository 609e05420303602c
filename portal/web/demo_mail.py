"""The letters of the demo as pages. No other portal has these pages."""

import re
from pathlib import Path

from flask import Blueprint, abort, current_app, render_template
from flask.typing import ResponseReturnValue

from portal.extensions import db, portal
from portal.services import demo
from portal.services.mail import letter_folder
from portal.web import guards

blueprint = Blueprint("demo_mail", __name__)


@blueprint.get("/demo/mail")
def show() -> ResponseReturnValue:
    """Show the letters that the portal has sent, newest first."""
    settings, instance = portal().settings, Path(current_app.instance_path)
    if settings.mail is None or settings.mail.folder is None or not demo.is_there(db.session(), instance):
        abort(404)
    guards.logged_in()
    found = letter_folder.read(instance / settings.mail.folder)
    base_url = re.escape(settings.base_url.rstrip("/"))
    links = re.compile(
        rf"({base_url}(?:/\S*[^\s.,])?)"
    )  # of the parts that it splits a text into, each second is a link
    return render_template("demo/mail.html", letters=found, split_at_links=links.split)
