"""How Alembic runs for the portal: on the application's own engine, in one transaction."""

from typing import Literal

from alembic import context
from flask import current_app
from sqlalchemy import Connection

from portal.extensions import db
from portal.models import UtcDateTime


def run() -> None:
    """Migrate the application's database, or print the SQL with --sql."""
    if context.is_offline_mode():
        context.configure(
            url=db.engine.url, target_metadata=db.metadata, literal_binds=True, dialect_opts={"paramstyle": "named"}
        )
        with context.begin_transaction():
            context.run_migrations()
        return
    given = context.config.attributes.get("connection")
    if given is not None:
        _migrate(given)
        return
    with db.engine.connect() as connection:
        _migrate(connection)
        connection.commit()


def _migrate(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=db.metadata,
        render_as_batch=connection.dialect.name == "sqlite",
        compare_type=True,
        render_item=_render,
    )
    with context.begin_transaction():
        context.run_migrations()


def _render(kind: str, item: object, _context: object) -> str | Literal[False]:
    """Write our time type as what it is in the database, so that migrations do not depend on the models."""
    return "sa.DateTime(timezone=True)" if kind == "type" and isinstance(item, UtcDateTime) else False


if not current_app:
    raise RuntimeError("run migrations by: flask db upgrade")
run()
