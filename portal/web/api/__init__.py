"""The HTTP API below /api/v1. Every call that is registered here needs a key."""

from flask import Blueprint

from portal.web.api import calls
from portal.web.guards import csrf

blueprint = Blueprint("api", __name__, url_prefix="/api/v1")
for each in (calls,):
    csrf.exempt(each.blueprint)  # the API ignores cookies, so no other site can make a browser call it
    blueprint.register_blueprint(each.blueprint)
