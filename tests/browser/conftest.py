"""A browser at a furnished portal; skipped where there is none, which in CI is a failure."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from tests.browser import stage
from tests.conftest import Clock


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    reason = stage.missing()
    if reason and os.environ.get("CI"):
        pytest.fail(reason)
    if reason:
        pytest.skip(reason)
    with stage.open_chromium() as browser:
        yield browser


@pytest.fixture
def url(chromium: Any, instance: Path, make_app: Callable[..., Flask], clock: Clock) -> Iterator[str]:
    """Where the furnished portal is served."""
    stage.furnish(instance)
    (instance / "rosters").mkdir()
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        stage.people(session, now=clock.now)
        stage.runs(session, now=clock.now)
    with stage.serve(app) as found:
        yield found


@pytest.fixture
def open_page(chromium: Any, url: str) -> Iterator[Callable[..., Any]]:
    """Open a page in a view, as somebody who logs in first or as nobody. Whatever the console says is an error."""
    contexts = []
    said: list[str] = []

    def build(view: str, who: str | None) -> Any:
        context = chromium.new_context(**stage.VIEWS[view])
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        if who:
            stage.log_in(page, url, who)
        return page

    yield build
    for context in contexts:
        context.close()
    assert [each for each in said if "the server responded with a status of" not in each] == []
