"""The language of a page: the member's choice, else the browser's, else the first of the settings."""

from flask import Flask, request

from portal import translation
from portal.extensions import portal


def register(app: Flask) -> None:
    """Choose a language before each request, for that request only. The guard applies the member's choice later."""
    app.before_request(_of_browser)
    app.teardown_request(lambda _error: translation.use(translation.ENGLISH))
    app.jinja_env.globals["language"] = translation.in_use


def _of_browser() -> None:
    if request.path.startswith("/api/"):  # the API is in English
        translation.use(translation.ENGLISH)
        return
    languages = portal().settings.languages
    asked = (tag.lower() for tag, quality in request.accept_languages if quality)  # the best first
    wishes = (wish for tag in asked for wish in (tag, tag.partition("-")[0]))
    translation.use(next((wish for wish in wishes if wish in languages), languages[0]))


def of_member(chosen: str | None) -> None:
    """Use the language that a member chose, if it is still offered."""
    if chosen in portal().settings.languages:
        translation.use(chosen)
