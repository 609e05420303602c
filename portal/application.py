"""Flask's application, which attaches the database and the pages when something first needs them.

A server has both from the start. A command that prints a list's addresses needs no page, and one that finds nothing to
do needs no database either: importing the two is most of what its start would cost.
"""

from typing import Any

from flask import Flask
from jinja2 import Environment

from portal import faults
from portal.running import Portal


class Application(Flask):
    """A Flask application that knows what it has attached."""

    has_database = has_pages = False

    def use_database(self) -> None:
        """Attach the database, if it is not there yet."""
        if self.has_database:
            return
        self.has_database = True
        from portal import database  # SQLAlchemy
        from portal.extensions import db

        db.init_app(self)
        with self.app_context():
            database.prepare(db.engine)

    def use_pages(self) -> None:
        """Attach all URLs and what templates know, if they are not there yet."""
        if self.has_pages:
            return
        self.has_pages = True
        from portal import web  # forms and all that pages ask for

        self.use_database()
        portal: Portal = self.extensions["portal"]
        web.register(self, portal.settings)
        faults.register(self)

    @property
    def jinja_env(self) -> Environment:  # type: ignore[override]
        """The environment of templates; letters and scripts are made from them too."""
        self.use_pages()
        return super().jinja_env

    def url_for(self, *arguments: Any, **values: Any) -> str:
        """Return a page's URL."""
        self.use_pages()
        return super().url_for(*arguments, **values)
