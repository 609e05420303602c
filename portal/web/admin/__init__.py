"""Pages for superusers, all below /admin: a page that registers here is closed to everyone else."""

from flask import Blueprint

from portal.web.admin import (
    api_keys,
    imports,
    linking,
    lists,
    mail,
    numbers,
    one_list,
    people,
    person,
    readings,
    runs,
    search,
    user_addresses,
    users,
)

blueprint = Blueprint("admin", __name__, url_prefix="/admin")
ROOMS = (
    api_keys,
    imports,
    linking,
    lists,
    mail,
    numbers,
    one_list,
    people,
    person,
    readings,
    runs,
    search,
    user_addresses,
    users,
)
for each in ROOMS:
    blueprint.register_blueprint(each.blueprint)
