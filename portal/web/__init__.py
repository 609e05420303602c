"""Blueprints: a form, one service call, a flash, a redirect."""

from flask import Flask

from portal.config import Settings


def register(app: Flask, settings: Settings) -> None:
    """Attach the blueprints, the guards and the security headers."""
