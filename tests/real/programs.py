"""Which real list managers there are. One line a program: where it lives, and how to see that it is installed."""

from collections.abc import Iterator
from importlib import import_module

import pytest

from tests.real.base import RealProgram

# Each module has a class Program, a RealProgram, and a function why_missing(): why it cannot run here, "" where it can.
PROGRAMS = {
    "mailman3": "tests.real.mailman3",
    "mlmmj": "tests.real.mlmmj",
}


def started(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProgram]:
    """Yield a running list manager and stop it afterwards; skip where it is not installed."""
    module = import_module(PROGRAMS[kind])
    if why := module.why_missing():
        pytest.skip(why)
    program: RealProgram = module.Program(tmp_path_factory.mktemp(kind))
    try:
        yield program
    finally:
        program.stop()
