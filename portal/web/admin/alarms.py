"""What every page for superusers says first: which lists need somebody's look."""

from flask import Flask, request

from portal.extensions import db, portal
from portal.services.reports import lists as list_reports
from portal.services.reports.lists import Alarm
from portal.web import guards


def prepare(app: Flask) -> None:
    """Give templates the word ``alarms``, which asks the database only where a page calls it."""
    app.jinja_env.globals.update(alarms=alarms)


def alarms() -> tuple[Alarm, ...]:
    """Return the lists that are late or wait for a yes, on the pages for superusers; none elsewhere.

    Where the catalogue cannot be read its own pages say so, and the others still work.
    """
    found = guards.logged_in() if request.path.startswith("/admin/") else None
    if found is None or not found.is_superuser:
        return ()
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return ()
    return list_reports.alarms(db.session(), catalogue=catalogue, now=portal().clock())
