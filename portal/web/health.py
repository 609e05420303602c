"""Health checks: whether the process is alive, and whether the portal is ready."""

import logging

from flask import Blueprint, Response, request

from portal.extensions import db, portal
from portal.faults import as_portal_error, one_line
from portal.services.reports import lists as list_reports
from portal.services.reports import readiness

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> Response:
    """Answer without using the database."""
    return Response("alive\n", mimetype="text/plain")


@blueprint.get("/readyz")
def ready() -> Response:
    """Report whether the database is migrated and writable and, with ``?lists=1``, whether a list is overdue."""
    try:
        readiness.require_ready(db.session())
    except Exception as error:  # noqa: BLE001 - the reason goes to the log and not to anyone who asks
        logging.getLogger("portal").error("not ready: %s", one_line(as_portal_error(error)))
        return Response("not ready\n", 503, mimetype="text/plain")
    if request.args.get("lists") == "1" and _is_overdue():
        return Response("overdue\n", 503, mimetype="text/plain")
    return Response("ready\n", mimetype="text/plain")


def _is_overdue() -> bool:
    catalogue = portal().readable_catalogue()
    if catalogue is None:
        return True
    if not catalogue.enabled:
        return False
    found = list_reports.conditions(db.session(), catalogue=catalogue, now=portal().clock())
    return any(each.is_late for each in found)
