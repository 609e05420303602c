"""The Flask application, which attaches the database and the pages when they are first needed.

A server attaches both at start. A command that prints a list's addresses needs no pages, and one that finds nothing to
do needs no database either; importing the two would take most of its start.
"""

from collections.abc import Callable
from typing import Any

from flask import Flask, has_request_context, request
from jinja2 import Environment

from portal import faults
from portal.running import Portal


class Application(Flask):
    """A Flask application that remembers what it has attached."""

    has_database = has_pages = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._urls: dict[tuple[str, str], str] = {}  # by endpoint and the path that the portal is served under

    def use_database(self) -> None:
        """Attach the database, unless it already is."""
        if self.has_database:
            return
        self.has_database = True
        from portal import database  # SQLAlchemy
        from portal.extensions import db

        try:
            db.init_app(self)
        except ImportError as error:
            raise faults.StartError(
                f"`sqlalchemy_database_uri` names PostgreSQL, whose driver cannot be imported ({error}); install it in "
                "the portal's folder: pip install --constraint constraints.txt --editable '.[server,postgresql]'"
            ) from None
        with self.app_context():
            database.prepare(db.engine)

    def use_pages(self) -> None:
        """Attach all URLs and template globals, unless they already are."""
        if self.has_pages:
            return
        self.has_pages = True
        from portal import web  # forms and everything else that pages need

        self.use_database()
        portal: Portal = self.extensions["portal"]
        web.register(self, portal.settings)
        faults.register(self)

    def ensure_sync(self, func: Callable[..., Any]) -> Callable[..., Any]:
        """Return a function unchanged: none is async, and checking each would take time, 15 times a page."""
        return func

    @property
    def jinja_env(self) -> Environment:  # type: ignore[override]
        """The environment of templates, which letters and scripts are rendered from too."""
        self.use_pages()
        return super().jinja_env

    def url_for(self, endpoint: str, **values: Any) -> str:
        """Return the URL of a page. URLs without values are kept, as each page has about a dozen of them."""
        self.use_pages()
        if values or not has_request_context() or endpoint.startswith("."):
            return super().url_for(endpoint, **values)
        key = endpoint, request.script_root
        if key not in self._urls:
            self._urls[key] = super().url_for(endpoint)
        return self._urls[key]
