"""The real list managers as fixtures, started once a session, and their versions at the head of the log."""

from collections.abc import Iterator

import pytest

from tests.real import programs
from tests.real.base import RealProgram


@pytest.fixture(scope="session", params=list(programs.PROGRAMS))
def program(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealProgram]:
    """Each real list manager in turn; skipped, with the reason, where it is not installed."""
    yield from programs.started(request.param, tmp_path_factory)
