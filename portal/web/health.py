"""Two addresses for what watches the portal: is it alive, and can it serve."""

from flask import Blueprint, Response

from portal.extensions import db
from portal.services.reports import readiness

blueprint = Blueprint("health", __name__)


@blueprint.get("/healthz")
def alive() -> Response:
    """Answer, without asking the database."""
    return Response("alive\n", mimetype="text/plain")


@blueprint.get("/readyz")
def ready() -> Response:
    """Tell whether the database is migrated and can be written, and nothing more."""
    if readiness.is_ready(db.session()):
        return Response("ready\n", mimetype="text/plain")
    return Response("not ready\n", 503, mimetype="text/plain")
