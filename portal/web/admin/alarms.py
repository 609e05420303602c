"""The banner of superusers' pages: lists that need attention."""

from flask import Flask, request

from portal.extensions import db, portal
from portal.services.reports import lists as list_reports
from portal.services.reports.lists import Alarm
from portal.web import guards


def prepare(app: Flask) -> None:
    """Add ``alarms`` to the templates' globals; the database is queried only if a page calls it."""
    app.jinja_env.globals.update(alarms=alarms)


def alarms() -> tuple[Alarm, ...]:
    """Return the lists that are overdue or need approval, on superusers' pages; on other pages, none.

    If the catalogue cannot be read, only the pages about lists report it; all others keep working.
    """
    found = guards.logged_in() if request.path.startswith("/admin/") else None
    if found is None or not found.is_superuser:
        return ()
    catalogue = portal().readable_catalogue()
    if catalogue is None or not catalogue.enabled:
        return ()
    return list_reports.alarms(db.session(), catalogue=catalogue, now=portal().clock())
