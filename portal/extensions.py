"""The database as a Flask extension, and what the composition root leaves for views and commands to find."""

from flask_sqlalchemy import SQLAlchemy

from portal.database import ENGINE_OPTIONS
from portal.models import Base
from portal.running import Portal, portal

__all__ = ("Portal", "db", "portal")

db = SQLAlchemy(model_class=Base, engine_options=ENGINE_OPTIONS)
