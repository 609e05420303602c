"""A pytest plugin for CI, where everything is installed: a skipped test fails.

Only tests of programs that a fresh machine cannot have, such as Mailman 2, may be skipped. Their reason starts with
``elsewhere:``.
"""

from collections.abc import Generator
from typing import TypeVar

import pytest

ALLOWED = "elsewhere:"
Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _refused((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _refused((yield))


def _refused(report: Report) -> Report:
    if not report.skipped:
        return report
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    reason = reason.removeprefix("Skipped: ")
    if not reason.startswith(ALLOWED):
        report.outcome = "failed"
        report.longrepr = f"skipped, and CI allows no skip but those that start with {ALLOWED!r}: {reason}"
    return report
