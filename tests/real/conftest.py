"""The real list managers as fixtures."""

import pytest

from tests.real import programs
from tests.real.base import RealProgram


@pytest.fixture(params=programs.KEEP_OPTIONS)
def program(request: pytest.FixtureRequest) -> RealProgram:
    """Each real list manager in turn; skipped, with the reason, where it is not installed."""
    return programs.started(request.param)
