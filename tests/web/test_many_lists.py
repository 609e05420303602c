"""Six hundred lists, each with an audience of its own: more than a statement may have terms on SQLite."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal.extensions import db
from tests.factories import make_preference, make_user
from tests.web.conftest import HASH, Client, Visitor

pytestmark = pytest.mark.slow

LISTS = 600
PAGES = (
    "/subscriptions", "/subscriptions/leave", "/account", "/account/history", "/admin/", "/admin/lists/list5",
    "/admin/runs", "/admin/users", "/admin/users/1", "/admin/users/1/delete", "/admin/numbers",
    "/admin/users/change?change=deactivate&user=2", "/admin/search?q=example", "/leave",
)  # fmt: skip


def test_every_page_is_shown_and_every_box_saved(instance: Path, make_app: Callable[..., Flask]) -> None:
    tables = "".join(
        f'[lists.list{n}]\nname = "List {n}"\nemail = "list{n}@lists.example.org"\naudience = ["g{n}", "all"]\n'
        for n in range(LISTS)
    )
    (instance / "mailinglists.toml").write_text(
        f'enabled = true\n{tables}[managers.f]\nkind = "file"\ndirectory = "."\n'
    )
    app = make_app()
    app.test_client_class = Client
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "bob", is_superuser=True, password_hash=HASH, groups=("all",))
        make_user(session, "alice", groups=("all", "g5"))
        for n in range(0, LISTS, 2):
            make_preference(session, f"list{n}", "bob@example.org", True, seen=True)
    bob = Visitor(app.test_client())
    bob.log_in("bob")

    for path in PAGES:
        bob.get(path)
    every = [f"list{n}" for n in range(LISTS)]
    form = {"shown": bob.get("/subscriptions").value("shown"), "lists": every}
    assert bob.follow("/subscriptions", form).ticked() == set(every)
