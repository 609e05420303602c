"""A stage for the pages: a portal on 127.0.0.1 with a list in every state, and a Chromium to look at it.

Tests use it, and so can a script that takes pictures: ``furnish`` an instance, ``serve`` its application, ``open_chromium``,
``log_in``, ``go`` through PAGES in VIEWS.
"""

import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flask import Flask
from sqlalchemy.orm import Session
from werkzeug.serving import make_server

from portal.models import ListReading, MemberDelivery, Run, RunLine, UnknownSubscriber
from portal.services.accounts.passwords import hash_password
from portal.services.membership import linking
from tests.factories import make_address, make_preference, make_user

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PASSWORD = "correct horse battery"
LONG = "A list whose name is as long as the file of the lists permits, which is one hundred and twenty characters, like this one"
LISTS = {
    "members": ("Members", "News and decisions for all members. About two messages a month."),
    "peering": ("Peering Announcements", "New members and changes of ports."),
    "tech": ("Tech", "Maintenance windows and operations talk."),
    "jobs": ("Jobs", "Vacancies at member networks."),
    "social": ("Social", "Dinners, drinks and football."),
    "board": ("Board papers", ""),
    "long": (LONG, "Every word of it is needed. " * 20),
    "unbroken": ("W" * 120, "x" * 200),
}
CATALOGUE = "enabled = true\n" + "".join(
    f'[lists.{handle}]\nname = "{name}"\ndesc = "{description}"\nemail = "{handle}@lists.example.org"\n'
    f'archive = "https://lists.example.org/archives/{handle}/"\nsyncpws = false\n'
    for handle, (name, description) in LISTS.items()
)
CATALOGUE = CATALOGUE.replace("[lists.peering]\n", '[lists.peering]\napply = "at once"\n')
CATALOGUE += '[managers.files]\nkind = "file"\ndirectory = "rosters"\n'

SETTINGS = """site_name = "Example Exchange"
bcrypt_rounds = 4
help_contact = "helpdesk@example.org"
imprint_url = "https://www.example.org/imprint"
privacy_url = "https://www.example.org/privacy"
[mail]
sender = "portal@example.org"
sendmail = "true"
"""

VIEWS: dict[str, dict[str, Any]] = {
    "wide": {"viewport": {"width": 1280, "height": 900}},
    "narrow": {"viewport": {"width": 320, "height": 800}, "has_touch": True},
    "dark": {"viewport": {"width": 1280, "height": 900}, "color_scheme": "dark"},
    "middle": {"viewport": {"width": 700, "height": 900}},
}
# Paths by name; who sees them, None being nobody.
PAGES: dict[str, tuple[str | None, str]] = {
    "log-in": (None, "/login"),
    "ask-for-a-link": (None, "/link/ask"),
    "leave-without-an-account": (None, "/leave"),
    "link-that-does-not-work": (None, "/link/nothing"),
    "subscriptions": ("alice", "/subscriptions"),
    "subscriptions-of-several-addresses": ("bob", "/subscriptions"),
    "account": ("bob", "/account"),
    "own-history": ("alice", "/account/history"),
    "leave-all": ("alice", "/subscriptions/leave"),
    "lists": ("bob", "/admin/"),
    "numbers": ("bob", "/admin/numbers"),
    "numbers-of-one-by-week": ("bob", "/admin/numbers?by=week&list=unbroken"),
    "runs": ("bob", "/admin/runs"),
    "runs-of-one": ("bob", "/admin/runs?handle=board"),
    "run-done": ("bob", "/admin/runs/1"),
    "run-failed": ("bob", "/admin/runs/9"),
    "run-that-needs-approval": ("bob", "/admin/runs/10"),
    "run-of-which-no-line-fits": ("bob", "/admin/runs/10?action=add"),
    "run-in-progress": ("bob", "/admin/runs/12?refresh=no"),
    "list": ("bob", "/admin/lists/social"),
    "subscribers-without-an-account": ("bob", "/admin/lists/social/without-account"),
    "list-by-a-state": ("bob", "/admin/lists/social?state=refused&sort=-since"),
    "list-where-none-fits": ("bob", "/admin/lists/tech?q=nobody"),
    "list-by-a-filter-that-cannot-be": ("bob", "/admin/lists/tech?state=nonsense"),
    "list-of-a-long-name": ("bob", "/admin/lists/unbroken"),
    "change-of-all": ("bob", "/admin/lists/members/change?bulk_action=unsubscribe"),
    "list-with-what-was-changed": ("bob", "/admin/lists/social?changed=1"),
    "why-somebody-is-not-on-a-list": ("bob", "/admin/lists/social/why?q=alice@example.org"),
    "why-nobody-is-on-a-list": ("bob", "/admin/lists/social/why?q="),
    "change-of-none": ("bob", "/admin/lists/jobs/change?bulk_action=retry"),
    "users": ("bob", "/admin/users"),
    "users-that-fit": ("bob", "/admin/users?q=alice&status=active&sort=-last_log_in"),
    "people-to-be-changed": ("bob", "/admin/users/change?change=deactivate&of=all"),
    "people-to-be-given-groups": ("bob", "/admin/users/change?change=set-groups&of=all"),
    "people-whose-groups-cannot-be": ("bob", "/admin/users/change?change=add-groups&of=all&groups=;"),
    "users-none-of-whom-fits": ("bob", "/admin/users?q=nobody"),
    "users-by-a-filter-that-cannot-be": ("bob", "/admin/users?q=%00"),
    "user": ("bob", "/admin/users/2"),
    "user-history": ("bob", "/admin/users/1/history"),
    "user-to-be-taken-off": ("bob", "/admin/users/1/off-all-lists"),
    "user-to-be-deleted": ("bob", "/admin/users/1/delete"),
    "account-to-be-linked": ("bob", "/admin/users/1/link"),
    "account-to-be-unlinked": ("bob", "/admin/users/3/unlink"),
    "account-to-be-merged": ("bob", "/admin/users/3/merge"),
    "accounts-changed": ("bob", "/admin/users/history"),
    "new-user": ("bob", "/admin/users/new"),
    "imports": ("bob", "/admin/users/imports"),
    "keys": ("bob", "/admin/api-keys"),
    "search": ("bob", "/admin/search"),
    "search-answered": ("bob", "/admin/search?q=noc@example.org"),
    "search-with-matches": ("bob", "/admin/search?q=example"),
    "search-in-vain": ("bob", "/admin/search?q=xyzzy"),
    "not-allowed": ("alice", "/admin/"),
    "not-found": ("alice", "/nowhere"),
}
CHROMIUM = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


def missing() -> str | None:
    """Say what it takes to look at pages and is not there."""
    if find_spec("playwright") is None or find_spec("axe_playwright_python") is None:
        return "the e2e extra is missing: pip install '.[e2e]'"
    return None if _chromium() else "there is no Chromium: apt-get install chromium"


def _chromium() -> str | None:
    return shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def furnish(instance: Path) -> None:
    """Put the lists of the stage into an instance folder."""
    (instance / "mailinglists.toml").write_text(CATALOGUE)
    (instance / "portal.toml").write_text(SETTINGS)


def people(session: Session, *, now: datetime) -> None:
    """Make Alice, whose lists are in every state, and Bob, a superuser with a very long address and a shared one."""
    password_hash = hash_password(PASSWORD, rounds=4)
    long = f"bob@{'a' * 63}.{'b' * 63}.{'c' * 63}.{'d' * 40}.example.org"
    make_user(session, "alice", "alice@example.org", password_hash=password_hash)
    make_user(
        session, "bob", "bob@example.org", long, "noc@example.org", is_superuser=True, password_hash=password_hash
    )
    make_user(session, "noc", "noc@example.org")
    linking.link(session, "noc", "1027", secret=b"")
    ago = {"changed_at": now - timedelta(hours=1)}
    day = {"changed_at": now - timedelta(days=19)}
    alice = "alice@example.org"
    make_preference(session, "members", alice, True, seen=True, **day)
    make_preference(session, "peering", alice, True, seen=False, touched=True, **ago)
    make_preference(session, "tech", alice, False, seen=True, touched=True, **ago)
    make_preference(session, "jobs", alice, False, seen=False, **{**day, "source": "list"})
    make_preference(session, "social", alice, True, seen=False, refusal="banned", refused_at=now, **day)
    make_preference(session, "board", alice, True, seen=False, waiting_since=now - timedelta(days=1), **day)
    make_preference(session, "unbroken", alice, True, seen=False, **day)
    make_preference(session, "tech", long, True, seen=False, touched=True, **ago)
    bounced = {"address_id": make_address(session, alice), "mail_off": "bounces", "since": now, "read_at": now}
    session.add(MemberDelivery(list_handle="members", **bounced))
    unknown = (f"{'x' * 60}@{'y' * 60}.example.net", "stranger@example.net")
    for number, address in enumerate(unknown, 1):
        session.add(UnknownSubscriber(list_handle="social", number=number, address=address, read_at=now))
    session.add(ListReading(list_handle="social", due_at=now, unknown_read_at=now))
    session.commit()


def runs(session: Session, *, now: datetime) -> None:
    """Make runs that ended in every way."""
    for number, handle in enumerate(LISTS):
        at = now - timedelta(hours=5 if number < 4 else 30)
        _run(session, handle, at, "done", asked_at=at, added=12, removed=3, left=1)
    _run(session, "tech", now - timedelta(hours=1), "failed", message="files: tech.txt: Permission denied")
    refusal = (
        "social: this plan exceeds the safety limits: it removes 19 of 41 addresses, or records that they left; "
        "if this is intended, run again with: --accept 9f86d081884c7d65"
    )
    held = _run(session, "social", now - timedelta(hours=1), "held", message=refusal, plan_id="9f86d081884c7d65")
    _lines(session, held, [f"person{number}@example.org" for number in range(18)] + [f"bob@{'b' * 63}.{'c' * 63}.org"])
    _run(session, "board", now - timedelta(hours=1), "unfinished", message="the process ended before the run did " * 10)
    _run(session, "jobs", now, "open")
    session.commit()


def _run(session: Session, handle: str, at: datetime, result: str, **columns: Any) -> Run:
    values = {
        "kind": "sync",
        "asked_by": "command line",
        "host": "lists.example.org",
        "on_roster": 1179,
        "without_account": 31,
    }
    run = Run(list_handle=handle, started_at=at, finished_at=at, state=result, **values, **columns)
    session.add(run)
    session.flush()
    return run


def _lines(session: Session, run: Run, addresses: list[str]) -> None:
    values = {"run_id": run.id, "list_handle": run.list_handle, "action": "remove", "reason": "departed", "version": 0}
    rest = {"held": False, "result": "waits", "words": "", "settled": True, "counts": True}
    for number, address in enumerate(addresses):
        session.add(RunLine(address_id=1000 + number, address=address, spelling=address, **values, **rest))


@contextmanager
def serve(app: Flask, *, port: int = 0) -> Iterator[str]:
    """Serve an application on a port of 127.0.0.1, which is a free one unless it is named, and give its URL."""
    server = make_server("127.0.0.1", port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def open_chromium() -> "Iterator[Browser]":
    """Start a Chromium that talks to nobody else, with a profile that is thrown away."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_chromium(), args=CHROMIUM)
        try:
            yield browser
        finally:
            browser.close()


def log_in(page: "Page", url: str, username: str, password: str = PASSWORD) -> None:
    """Log somebody in, who is one of the stage unless another password is given."""
    page.goto(f"{url}/login")
    page.fill("#username", username)
    page.fill("#password", password)
    page.click("main button")
    page.wait_for_url(f"{url}/subscriptions")


def go(page: "Page", url: str, name: str) -> None:
    """Open one of PAGES, whoever is logged in, and scroll to its end, where nothing covers anything."""
    page.goto(url + PAGES[name][1])
    page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
