"""Listeners for SQLAlchemy's events within a block."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from sqlalchemy import Engine, event


@contextmanager
def listening(engine: Engine, name: str, listener: Callable[..., object]) -> Iterator[None]:
    """Call a listener at each event within the block only, because tests share the engine."""

    def hear(*arguments: object) -> None:  # what a listener returns may have a meaning
        listener(*arguments)

    event.listen(engine, name, hear)
    try:
        yield
    finally:
        event.remove(engine, name, hear)
