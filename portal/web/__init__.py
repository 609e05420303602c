"""Blueprints: a form, one service call, a flash, a redirect."""

from flask import Flask

from portal.config import Settings
from portal.web import (
    account,
    admin,
    api,
    cookies_and_proxies,
    demo_mail,
    guards,
    headers,
    health,
    language,
    links,
    masked_tokens,
    own_addresses,
    sign_in,
    subscriptions,
    template_filters,
    waited_for_mail,
)
from portal.web.admin import alarms, charts


def register(app: Flask, settings: Settings) -> None:
    """Attach the guards, the security headers and the blueprints."""
    cookies_and_proxies.prepare(app, settings)
    masked_tokens.prepare()
    template_filters.prepare(app, settings)
    alarms.prepare(app)
    charts.prepare(app)
    waited_for_mail.prepare(app)
    # The context processor would query the database even for the page that reports that it is down.
    guards.login.init_app(app, add_context_processor=False)
    language.register(app)
    guards.register(app)
    guards.csrf.init_app(app)  # after the guard, so that users who are logged out are redirected to the log-in page
    headers.register(app)
    for each in (account, admin, api, demo_mail, health, links, own_addresses, sign_in, subscriptions):
        app.register_blueprint(each.blueprint)
