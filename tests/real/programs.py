"""The real list managers, one line each: where it is, and how to check that it is installed."""

import atexit
from functools import cache
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.real.base import RealProgram

# Each module has a class Program, a RealProgram, and a function why_missing(): why it cannot run here, "" where it can.
PROGRAMS = {
    "mailman3": "tests.real.mailman3",
    "mlmmj": "tests.real.mlmmj",
    "file": "tests.real.text_file",
}
KEEP_OPTIONS = [kind for kind in PROGRAMS if kind != "file"]


def why_missing(kind: str) -> str:
    """Return why a list manager cannot run here; an empty text where it can."""
    return str(import_module(PROGRAMS[kind]).why_missing())


@cache
def started(kind: str) -> RealProgram:
    """Return a list manager that runs until the tests end, and is started but once; skip where it is not installed."""
    if why := why_missing(kind):
        pytest.skip(why)
    folder = TemporaryDirectory(prefix=f"{kind}-")
    atexit.register(folder.cleanup)
    program: RealProgram = import_module(PROGRAMS[kind]).Program(Path(folder.name))
    atexit.register(program.stop)
    return program
