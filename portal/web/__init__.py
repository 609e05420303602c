"""Blueprints: a form, one service call, a flash, a redirect."""

from flask import Flask

from portal.config import Settings
from portal.extensions import csrf, login
from portal.web import (
    account,
    admin,
    admin_keys,
    admin_list,
    admin_requests,
    admin_runs,
    admin_search,
    admin_users,
    alarms,
    api,
    bounds,
    charts,
    guards,
    headers,
    health,
    pages,
    subscriptions,
)


def register(app: Flask, settings: Settings) -> None:
    """Attach the guards, the security headers and the blueprints."""
    bounds.prepare(app, settings)
    pages.prepare(app, settings)
    alarms.prepare(app)
    charts.prepare(app)
    login.init_app(app, add_context_processor=False)  # it would ask the database for a page that says it is down
    guards.register(app)
    csrf.init_app(app)  # after the guard, so that whoever is logged out is led to the log-in
    headers.register(app)
    for each in (
        account,
        admin,
        admin_keys,
        admin_list,
        admin_requests,
        admin_runs,
        api,
        admin_search,
        admin_users,
        health,
        subscriptions,
    ):
        app.register_blueprint(each.blueprint)
