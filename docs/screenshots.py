"""Take the pictures of the documentation: ``make screenshots``.

They show the demo, by a clock that stands still, so that a picture changes when its page does.
"""

import logging
import os
import sys
import tempfile
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from portal import create_app  # noqa: E402 - found by the line above
from portal.extensions import Portal  # noqa: E402
from portal.services.demo import PASSWORD  # noqa: E402
from tests.browser import stage  # noqa: E402

if TYPE_CHECKING:
    from flask import Flask
    from playwright.sync_api import Browser

TALLEST = {"wide": 600, "dark": 600, "narrow": 1400}  # what somebody sees first; the end of a long table shows no more
FOLDER = ROOT / "docs" / "screenshots"
NOW = datetime(2026, 11, 22, 18, 0, tzinfo=UTC)
PAGES = {
    "log-in": (None, "/login"),
    "subscriptions": ("alice", "/subscriptions"),
    "account": ("alice", "/account"),
    "report": ("bob", "/admin/"),
    "list": ("bob", "/admin/lists/members"),
    "search": ("bob", "/admin/search?q=ivan@example.org"),
    "users": ("bob", "/admin/users"),
}
VIEWS = ("wide", "narrow", "dark")


def main() -> None:
    """Take every picture."""
    if reason := stage.missing():
        sys.exit(f"no pictures can be taken: {reason}")
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    FOLDER.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory() as folder,
        stage.serve(demo(folder)) as url,
        stage.open_chromium() as browser,
    ):
        for view in VIEWS:
            for name in PAGES:
                take(browser, url, name, view)


def demo(folder: str) -> "Flask":
    """Make a demo in a folder, seen at one moment."""
    app = create_app(environ={"PORTAL_INSTANCE": folder, "PORTAL_BCRYPT_ROUNDS": "4"})
    portal: Portal = app.extensions["portal"]
    app.extensions["portal"] = replace(portal, clock=lambda: NOW)
    for command in (["db", "upgrade"], ["demo"]):
        with app.app_context():
            done = app.test_cli_runner().invoke(args=command)
        if done.exit_code:
            sys.exit(done.output)
    return app


def take(browser: "Browser", url: str, name: str, view: str) -> None:
    """Take one picture of a page as its viewer sees it, from top to end."""
    viewer, path = PAGES[name]
    context = browser.new_context(**stage.VIEWS[view], device_scale_factor=2)
    page = context.new_page()
    if viewer:
        stage.log_in(page, url, viewer, PASSWORD)
    page.goto(url + path)
    height = page.evaluate("document.body.getBoundingClientRect().bottom")
    page.set_viewport_size({**stage.VIEWS[view]["viewport"], "height": int(min(height + 32, TALLEST[view]))})
    target = FOLDER / f"{name}-{view}.png"
    page.screenshot(path=target)
    context.close()
    sys.stdout.write(f"{os.path.relpath(target)}: {target.stat().st_size // 1000} kB\n")


if __name__ == "__main__":
    main()
