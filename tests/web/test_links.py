"""Links in the browser: asking, the page with one button, a first password; and what scanners and strangers do."""

import logging
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from portal.extensions import db
from portal.models import Base, LoginSession, Preference
from portal.services.accounts import profiles
from tests.conftest import Clock
from tests.factories import make_preference, make_user
from tests.fakes.mail_server import FakeMailServer
from tests.waiting import wait_until
from tests.web.conftest import HASH, PASSWORD, Client, Page, Visitor

ANSWER = "If an account has this address, we are sending a link to it."


class Post:
    """A portal with a mail server, and the links that arrive there."""

    def __init__(self, app: Flask, server: FakeMailServer, clock: Clock) -> None:
        app.test_client_class = Client
        self.app, self.server, self.clock = app, server, clock

    def visitor(self) -> Visitor:
        return Visitor(self.app.test_client())

    def ask(self, address: str, visitor: Visitor | None = None) -> Page:
        return (visitor or self.visitor()).follow("/link/ask", {"email": address}, page="/login")

    def links(self) -> list[str]:
        """The paths of the links that have arrived, the oldest first."""
        text = "\n".join(each.text for each in self.server.taken)
        return re.findall(r"http://localhost:8000(/link/\S{43})", text)

    def link_for(self, address: str) -> str:
        before = len(self.links())
        self.ask(address)
        wait_until(lambda: len(self.links()) > before)
        return self.links()[-1]


@pytest.fixture
def mail_server() -> Iterator[FakeMailServer]:
    with FakeMailServer() as server:
        yield server


@pytest.fixture
def post(instance: Path, make_app: Callable[..., Flask], mail_server: FakeMailServer, clock: Clock) -> Iterator[Post]:
    (instance / "portal.toml").write_text(mail_server.toml())
    app = make_app()
    with app.app_context(), Session(db.engine) as session:
        make_user(session, "alice")
        make_user(session, "bob", is_superuser=True, password_hash=HASH)
        make_user(session, "charlie", is_active=False, password_hash=HASH)
        for name in ("dora", "erin"):
            make_user(session, name, "office@example.org", password_hash=HASH)
    yield Post(app, mail_server, clock)
    wait_until(lambda: app.extensions["sender"].is_idle)


def test_without_mail_no_page_offers_a_link(visitor: Visitor) -> None:
    assert "link by e-mail" not in visitor.get("/login").text
    visitor.get("/link/ask", 404)


def test_from_the_log_in_page_to_a_first_password_and_the_lists(post: Post) -> None:
    link = post.link_for("Alice@example.org")
    alice = post.visitor()

    opened = alice.client.get(link)
    assert (opened.status_code, opened.headers["Location"]) == (303, "/link")
    assert opened.headers["Referrer-Policy"] == "no-referrer"
    assert opened.headers["Cache-Control"] == "no-store"
    page = alice.get("/link")
    assert page.title.startswith("Log in as alice")
    assert link.rpartition("/")[2] not in page.html
    page = alice.follow("/link", {})
    assert page.title.startswith("Choose a password")
    new = {"new": "four words in a row", "again": "four words in a row"}
    page = alice.follow("/link/password", new)
    assert "Your password has been saved." in page.text
    post.visitor().log_in("alice", "four words in a row")


def test_the_password_can_be_left_for_another_day(post: Post) -> None:
    alice = post.visitor()
    alice.client.get(post.link_for("alice@example.org"))
    page = alice.follow("/link", {})
    assert "/subscriptions" in page.html
    assert alice.get("/subscriptions").status == 200


@pytest.mark.parametrize(
    ("form", "words"),
    [
        ({"new": "four words in a row", "again": "another"}, "The two new passwords are not the same."),
        ({"new": "short", "again": "short"}, "at least 12 characters"),
        ({"new": "", "again": ""}, "Enter a new password."),
    ],
)
def test_a_password_that_will_not_do_is_refused_with_its_reason(post: Post, form: dict[str, str], words: str) -> None:
    alice = post.visitor()
    alice.client.get(post.link_for("alice@example.org"))
    alice.follow("/link", {})
    page = alice.post("/link/password", form, status=422)
    assert isinstance(page, Page)
    assert words in page.text


def test_who_logged_in_with_a_password_is_not_let_past_it(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    answer = bob.client.get("/link/password")
    assert (answer.status_code, answer.headers["Location"]) == (302, "/account")
    token = bob.get("/account").token
    form = {"csrf_token": token, "new": "four words in a row", "again": "four words in a row"}
    assert bob.client.post("/link/password", data=form).headers["Location"] == "/account"
    post.visitor().log_in("bob")


def test_a_scanner_that_opens_every_link_changes_nothing(post: Post) -> None:
    link = post.link_for("alice@example.org")
    wait_until(lambda: post.app.extensions["sender"].is_idle)
    before = dump(post.app)
    for _ in range(3):
        scanner = post.visitor()
        for method in ("GET", "HEAD"):
            scanner.client.open(link, method=method)
            scanner.client.open("/link", method=method)
    assert dump(post.app) == before
    alice = post.visitor()
    alice.client.get(link)
    assert alice.follow("/link", {}).title.startswith("Choose a password")


def dump(app: Flask) -> dict[str, list[object]]:
    with app.app_context(), db.engine.connect() as connection:
        return {
            table.name: [tuple(row) for row in connection.execute(text(f"SELECT * FROM {table.name} ORDER BY 1"))]
            for table in Base.metadata.sorted_tables
        }


def test_a_token_is_left_in_no_file_no_log_and_no_page(
    post: Post, instance: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SECURITY 22: it was used, and tried again."""
    pages = []
    with caplog.at_level(logging.INFO):
        link = post.link_for("alice@example.org")
        for status in (200, 410):
            alice = post.visitor()
            alice.client.get(link)
            pages.append(alice.get("/link", status).html)
            if status == 200:
                pages.append(alice.follow("/link", {}).html)
        wait_until(lambda: post.app.extensions["sender"].is_idle)
    token = link.rpartition("/")[2]
    assert token not in "".join(pages)
    assert token not in caplog.text
    files = [each for each in instance.rglob("*") if each.is_file()]
    assert [each for each in files if token.encode() in each.read_bytes()] == []


@pytest.mark.parametrize("name", ["werkzeug", "gunicorn.access"])
def test_the_logs_of_servers_have_no_token(app: Flask, caplog: pytest.LogCaptureFixture, name: str) -> None:
    token, log = "a-B_3" * 8 + "xyz", logging.getLogger(name)
    with caplog.at_level(logging.INFO):
        log.info('%s "GET /portal/link/%s HTTP/1.1" %s', "192.0.2.1", token, 303)
        log.info("%(h)s %(r)s", {"h": "192.0.2.1", "r": f"GET /link/{token} HTTP/1.1"})
        log.info("%s GET /link/password", "100%")
    assert [each.getMessage() for each in caplog.records] == [
        '192.0.2.1 "GET /portal/link/… HTTP/1.1" 303',
        "192.0.2.1 GET /link/… HTTP/1.1",
        "100% GET /link/password",
    ]


def test_a_used_an_expired_and_an_unknown_link_are_one_page_that_offers_a_new_one(post: Post) -> None:
    used, expired = post.link_for("alice@example.org"), post.link_for("office@example.org")
    alice = post.visitor()
    alice.client.get(used)
    alice.follow("/link", {})
    post.clock.advance(minutes=20)
    pages = []
    for link in (used, expired, "/link/" + "x" * 43, "/link/x"):
        visitor = post.visitor()
        visitor.client.get(link)
        pages.append(visitor.get("/link", 410))
    assert len({re.sub(r'value="[^"]*"', "", page.html) for page in pages}) == 1
    assert "/link/ask" in pages[0].html


def test_a_link_that_expired_while_its_page_was_open_says_so(post: Post) -> None:
    alice = post.visitor()
    alice.client.get(post.link_for("alice@example.org"))
    token = alice.get("/link").token
    post.clock.advance(minutes=20)
    answer = alice.client.post("/link", data={"csrf_token": token})
    assert answer.status_code == 410
    alice.get("/link/ask")


def test_the_post_without_the_token_of_its_form_is_refused(post: Post) -> None:
    alice = post.visitor()
    alice.client.get(post.link_for("alice@example.org"))
    assert alice.client.post("/link").status_code == 400
    assert alice.follow("/link", {}).title.startswith("Choose a password")


def test_at_a_shared_mailbox_the_page_says_whose_link_it_is(post: Post) -> None:
    post.ask("office@example.org")
    wait_until(lambda: len(post.links()) == 2)
    for link, name in zip(post.links(), ("dora", "erin"), strict=True):
        visitor = post.visitor()
        visitor.client.get(link)
        assert visitor.get("/link").title.startswith(f"Log in as {name}")


def test_who_uses_a_link_of_another_account_is_logged_out_of_the_first(post: Post) -> None:
    visitor = post.visitor()
    visitor.log_in("bob")
    visitor.client.get(post.link_for("alice@example.org"))
    visitor.follow("/link", {})
    with post.app.app_context(), Session(db.engine) as session:
        assert len(session.scalars(select(LoginSession.id)).all()) == 1
    assert "alice" in visitor.get("/account").text


def test_a_superuser_who_came_by_a_link_has_to_type_the_password_for_changes_of_access(post: Post) -> None:
    bob = post.visitor()
    bob.client.get(post.link_for("bob@example.org"))
    bob.follow("/link", {})
    page = bob.post("/admin/users/new", {"username": "zoe", "email": "zoe@example.net"}, status=403)
    assert isinstance(page, Page)
    assert "Your password" in page.text


@pytest.mark.parametrize("typed", ["", "alice", "alice@", "a" * 300 + "@example.org", "a\0b@example.org"])
def test_what_is_no_address_is_said_to_be_none(post: Post, typed: str) -> None:
    page = post.visitor().post("/link/ask", {"email": typed}, status=422)
    assert isinstance(page, Page)
    assert "There is a problem" in page.text


MAILBOXES = {
    "known": "alice@example.org",
    "unknown": "zoe@example.net",
    "inactive": "charlie@example.org",
    "shared": "office@example.org",
    "with a role, at a further address": "further@example.org",
}


def test_the_answer_is_the_same_for_every_mailbox(post: Post) -> None:
    """SECURITY 6: in words, status and headers; past the limit too."""
    with post.app.app_context(), Session(db.engine) as session:
        make_user(session, "grace", "grace@example.org", "further@example.org", is_superuser=True)
    answers = set()
    for mailbox in [*MAILBOXES.values(), *["alice@example.org"] * 5]:
        visitor = post.visitor()
        answer = visitor.post("/link/ask", {"email": mailbox})
        page = visitor.get("/login")
        assert ANSWER in page.text
        headers = sorted(name for name, _ in answer.headers)
        answers.add((answer.status_code, answer.headers["Location"], tuple(headers), page.text))
    assert len(answers) == 1
    wait_until(lambda: len(post.server.taken) == 4)


@pytest.mark.slow
@pytest.mark.parametrize("page", ["/link/ask", "/leave"])
def test_the_answer_takes_the_same_time_for_every_mailbox(post: Post, page: str) -> None:
    """Measured as the CPU of the thread that answers, the least of many: what is sent meanwhile is no part of it."""
    mailboxes = {**MAILBOXES, "refused": "refused@example.org", "too often": "often@example.org"}
    with post.app.app_context(), Session(db.engine) as session:
        make_user(session, "grace", "grace@example.org", "further@example.org", is_superuser=True)
        make_user(session, "olga", "refused@example.org", "often@example.org")
    post.server.answers["refused@example.org"] = "550 no such user"
    post.link_for("alice@example.org")
    post.ask("refused@example.org")
    wait_until(lambda: post.app.extensions["sender"].is_idle)
    post.server.__exit__()  # a mail costs as much as a refused connection
    least = dict.fromkeys(mailboxes, 1.0)

    def ask(mailbox: str) -> float:
        visitor = post.visitor()
        token = visitor.get(page).token
        begun = time.thread_time()
        answer = visitor.client.post(page, data={"csrf_token": token, "email": mailbox})
        taken = time.thread_time() - begun
        assert answer.status_code == 303
        return taken

    for _ in range(15):
        post.clock.advance(days=1)
        for _ in range(4):  # the last one has the security log's line of this minute
            ask(mailboxes["too often"])
        for name, mailbox in mailboxes.items():
            least[name] = min(least[name], ask(mailbox))
    post.server.__enter__()
    assert max(least.values()) <= 1.3 * min(least.values()), least


def test_nobody_is_barred_and_no_link_ends_by_what_somebody_else_asks_for(post: Post) -> None:
    link = post.link_for("alice@example.org")
    for number in range(10):
        visitor = post.visitor()
        form = {"csrf_token": visitor.get("/link/ask").token, "email": "alice@example.org"}
        answer = visitor.client.post("/link/ask", data=form, environ_base={"REMOTE_ADDR": f"198.51.100.{number}"})
        assert answer.status_code == 303
    alice = post.visitor()
    alice.client.get(link)
    assert alice.follow("/link", {}).title.startswith("Choose a password")


# --- leaving without an account


def test_who_has_no_account_goes_from_a_mail_to_being_off_a_list(post: Post) -> None:
    with post.app.app_context(), Session(db.engine) as session:
        for handle in ("members", "tech", "board"):
            make_preference(session, handle, "zoe@example.net", subscribed=True, seen=True)
    zoe = post.visitor()
    page = zoe.follow("/leave", {"email": "Zoe@example.net"})
    assert "If this address is on a mailing list here" in page.text
    wait_until(post.links)
    zoe.client.get(post.links()[0])
    page = zoe.get("/link")
    assert page.ticked() == {"members", "tech", "board"}
    page = zoe.post("/link", {"lists": ["tech", "nonsense"]}, status=200)
    assert isinstance(page, Page)
    assert "zoe@example.net will be taken off Members and Board." in page.text
    with post.app.app_context(), Session(db.engine) as session:
        left = session.scalars(select(Preference.list_handle).where(~Preference.subscribed)).all()
    assert set(left) == {"members", "board"}
    zoe.get("/link/ask")


def test_who_unticks_nothing_keeps_the_link(post: Post) -> None:
    with post.app.app_context(), Session(db.engine) as session:
        make_preference(session, "members", "zoe@example.net", subscribed=True, seen=True)
    zoe = post.visitor()
    zoe.follow("/leave", {"email": "zoe@example.net"})
    wait_until(post.links)
    zoe.client.get(post.links()[0])
    page = zoe.follow("/link", {"lists": ["members"]})
    assert "Nothing was changed." in page.text
    assert page.ticked() == {"members"}


def test_the_page_of_leaving_names_the_lists_that_everybody_may_see_and_their_own_way(
    post: Post, instance: Path, make_app: Callable[..., Flask]
) -> None:
    page = post.visitor().get("/leave")
    assert "Members" in page.text
    assert "Tech" in page.text
    assert "Board" not in page.text
    assert "Ask the people who run this portal." in page.text

    text = (
        (instance / "mailinglists.toml")
        .read_text()
        .replace('kind = "file"\ndirectory = "rosters"', 'kind = "mailman2"')
    )
    (instance / "mailinglists.toml").write_text(text)
    page = Visitor(make_app().test_client()).get("/leave")
    assert "Send an empty e-mail to members-leave@lists.example.org ." in page.text


def test_the_answer_to_leaving_is_the_same_for_every_mailbox(post: Post) -> None:
    with post.app.app_context(), Session(db.engine) as session:
        make_preference(session, "members", "alice@example.org", subscribed=True)
    pages = {post.visitor().follow("/leave", {"email": each}).text for each in MAILBOXES.values()}
    assert len(pages) == 1
    wait_until(lambda: len(post.server.taken) == 1)


def test_without_mail_leaving_still_says_whom_to_ask(visitor: Visitor) -> None:
    page = visitor.get("/leave")
    assert "You can also ask to be taken off Members and Tech:" in page.text
    assert "link by e-mail" not in page.text
    token = visitor.get("/login").token
    assert visitor.client.post("/leave", data={"csrf_token": token, "email": "a@example.org"}).status_code == 404


def test_without_lists_there_is_nothing_to_leave(instance: Path, make_app: Callable[..., Flask]) -> None:
    (instance / "mailinglists.toml").unlink()
    visitor = Visitor(make_app().test_client())
    visitor.get("/leave", 404)
    assert "/leave" not in visitor.get("/login").html


# --- one's own addresses


def test_a_member_adds_an_address_and_undoes_it_from_the_old_one(post: Post) -> None:
    dora = post.visitor()
    dora.log_in("bob")
    page = dora.follow("/account/addresses", {"email": "new@example.org"})
    assert "We are sending a link to new@example.org." in page.text
    assert "Not confirmed" in page.text
    wait_until(post.links)
    dora.client.get(post.links()[-1])
    page = dora.follow("/link", {})
    assert "new@example.org has been confirmed." in page.text
    wait_until(lambda: len(post.links()) == 2)

    owner = post.visitor()
    owner.client.get(post.links()[-1])
    page = owner.get("/link")
    assert page.title.startswith("Undo a change of your addresses")
    page = owner.post("/link", {}, status=200)
    assert isinstance(page, Page)
    assert "bob@example.org is the main address again." in page.text
    assert dora.client.get("/account").status_code == 302


def test_an_address_that_one_already_has_is_refused_on_the_page_and_gets_no_link(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    for replacing in ({}, {"replaces_main": "y"}):
        page = bob.post("/account/addresses", {"email": "Bob@Example.org", **replacing}, status=422)
        assert isinstance(page, Page)
        assert "Bob@Example.org is already one of your addresses." in page.text
        assert "Not confirmed" not in page.text
    assert "We are sending a link" in bob.follow("/account/addresses", {"email": "office@example.org"}).text, "Dora's"
    wait_until(post.links)
    assert {each.to for each in post.server.taken} == {"office@example.org"}


def test_superusers_who_change_their_own_address_on_the_page_of_a_person_can_undo_it(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    with post.app.app_context(), Session(db.engine) as session:
        ids = {name: profiles.id_of(session, name) for name in ("alice", "bob")}
    for name, user_id in ids.items():
        bob.follow(f"/admin/users/{user_id}", {"email": f"{name}@new.example.org"})
    wait_until(post.links)
    assert {each.to for each in post.server.taken} == {"bob@example.org"}, "others get a notice"
    owner = post.visitor()
    owner.client.get(post.links()[-1])
    assert owner.post("/link", {}, status=200)
    assert bob.client.get("/account").status_code == 302


def test_a_link_that_was_opened_elsewhere_asks_to_log_in_and_goes_on(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    bob.follow("/account/addresses", {"email": "new@example.org", "replaces_main": "y"})
    wait_until(post.links)
    phone = post.visitor()
    phone.client.get(post.links()[-1])
    answer = phone.client.get("/link")
    assert answer.headers["Location"] == "/login?next=/link"
    page = phone.follow("/login?next=/link", {"username": "bob", "password": PASSWORD})
    assert "will become your main address" in page.text
    page = phone.follow("/link", {})
    assert page.text.count("new@example.org") >= 2


def test_another_member_who_opens_the_link_is_told_that_it_is_not_theirs(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    bob.follow("/account/addresses", {"email": "new@example.org"})
    wait_until(post.links)
    dora = post.visitor()
    dora.log_in("dora")
    dora.client.get(post.links()[-1])
    page = dora.get("/link", 403)
    assert "for another account" in page.text
    assert dora.client.post("/link", data={"csrf_token": page.token}).status_code == 403
    assert "bob" not in page.text


def test_who_moves_into_a_mailbox_of_others_is_told_and_asked_first_and_never_whose_it_is(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    bob.follow("/account/addresses", {"email": "office@example.org"})
    wait_until(post.links)
    bob.client.get(post.links()[-1])
    page = bob.get("/link")
    assert "Another account uses this address too." in page.text
    assert not re.search("dora|erin", page.text, re.IGNORECASE)
    answer = bob.client.post("/link", data={"csrf_token": page.token})
    assert answer.status_code == 200  # the page was from before somebody else used the address: it asks first
    page = bob.follow("/link", {})
    assert "office@example.org has been confirmed." in page.text


def test_a_superuser_types_the_password_before_a_change_of_addresses(post: Post) -> None:
    bob = post.visitor()
    bob.log_in("bob")
    post.clock.advance(minutes=15)
    page = bob.post("/account/addresses", {"email": "new@example.org"}, status=403)
    assert isinstance(page, Page)
    assert "Your password" in page.text


def test_main_address_and_removal_by_buttons(post: Post) -> None:
    with post.app.app_context(), Session(db.engine) as session:
        make_user(session, "grace", "grace@example.org", "home@example.org", password_hash=HASH)
    grace = post.visitor()
    grace.log_in("grace")
    page = grace.follow("/account/addresses/main", {"address": "home@example.org"}, page="/account/addresses")
    assert "home@example.org is your main address now." in page.text
    page = grace.follow("/account/addresses/remove", {"address": "grace@example.org"}, page="/account/addresses")
    assert "grace@example.org has been removed." in page.text
    for address, status in (("home@example.org", 422), ("zoe@example.net", 422), ("nonsense", 422), ("", 400)):
        grace.post("/account/addresses/remove", {"address": address}, page="/account/addresses", status=status)


def test_without_mail_addresses_are_the_help_desks(alice: Visitor) -> None:
    assert alice.client.get("/account/addresses").headers["Location"] == "/account"
    assert "ask the help desk" in alice.get("/account").text
