"""The database as a Flask extension, and access to the running portal for views and commands."""

from flask_sqlalchemy import SQLAlchemy

from portal.database import ENGINE_OPTIONS
from portal.models import Base
from portal.running import Portal, portal

__all__ = ("Portal", "db", "portal")

db = SQLAlchemy(model_class=Base, engine_options=ENGINE_OPTIONS)
