"""The language of pages and letters: the browser's, then the account's choice. Source: docs/languages.md."""

from collections.abc import Callable
from pathlib import Path

import pytest
from flask import Flask
from sqlalchemy.orm import Session

from portal import translation
from portal.models import AccountChange, Run
from portal.services.accounts import users
from portal.services.mail import drafts, letters
from portal.services.outbox import ClaimedMail
from tests.factories import NOW, make_user
from tests.web.conftest import Visitor


def language_of(page: str) -> str:
    return page.partition('<html lang="')[2].partition('"')[0]


@pytest.mark.parametrize(
    ("asked", "language"),
    [
        ("de", "de"), ("de-AT,de;q=0.9,en;q=0.5", "de"), ("en-GB,de;q=0.5", "en"), ("fr,de;q=0.2", "de"),
        ("fr", "en"), ("", "en"), ("*", "en"), ("de;q=0", "en"), (";;,=", "en"),
    ],
)  # fmt: skip
def test_a_page_is_in_the_language_that_the_browser_asks_for(app: Flask, asked: str, language: str) -> None:
    for path in ("/login", "/no-such-page"):
        assert language_of(app.test_client().get(path, headers={"Accept-Language": asked}).text) == language
    assert translation.in_use() == "en"


def test_the_choice_of_an_account_counts_more_than_its_browser(alice: Visitor, session: Session) -> None:
    assert language_of(alice.follow("/account/language", {"language": "de"}, page="/account").html) == "de"
    assert language_of(alice.follow("/account/language", {"language": ""}, page="/account").html) == "en"
    alice.post("/account/language", {"language": "tlh"}, page="/account", status=400)


def letter_to(session: Session, purpose: str, user_id: int | None, tmp_path: Path, **details: str) -> str:
    claimed = ClaimedMail(1, "", "alice@example.org", purpose, user_id, details, "", NOW, 1)
    return drafts.language_of(session, claimed, ("en", "de"))


def test_a_letter_is_in_the_language_of_who_gets_it(session: Session, tmp_path: Path) -> None:
    alice = make_user(session, "alice")
    assert letter_to(session, "invite", alice, tmp_path) == "en"
    assert letter_to(session, "log-in", None, tmp_path, language="de") == "de"
    assert letter_to(session, "operators", None, tmp_path) == "en"

    users.choose_language(session, alice, "de")
    assert letter_to(session, "invite", alice, tmp_path) == "de"
    assert letter_to(session, "log-in", None, tmp_path, language="en") == "de"
    assert letter_to(session, "operators", None, tmp_path) == "de"


def test_a_letter_of_the_operator_counts_for_its_language(app: Flask, tmp_path: Path) -> None:
    settings = app.extensions["portal"].settings
    (tmp_path / "mail").mkdir()
    for name, text in {"invite": "ours", "invite.de": "unseres"}.items():
        (tmp_path / "mail" / f"{name}.txt").write_text(f"Subject: {text}\n\n$link\n")
    for language, subject in {"en": "ours", "de": "unseres"}.items():
        with translation.using(language):
            assert letters.preview("invite", settings=settings, folder=tmp_path).subject == subject
    (tmp_path / "mail" / "invite.de.txt").unlink()
    with translation.using("de"):
        assert letters.preview("invite", settings=settings, folder=tmp_path).subject not in {"ours", "unseres"}


def test_a_list_is_called_as_the_language_calls_it(alice: Visitor, instance: Path, app: Flask) -> None:
    file = instance / "mailinglists.toml"
    names = '{ en = "Everybody", de = "Alle" }'
    file.write_text(file.read_text().replace('name = "Members"', f"name = {names}", 1))
    app.extensions["portal"].catalogue.cache_clear()
    assert "Everybody" in alice.get("/subscriptions").text
    alice.follow("/account/language", {"language": "de"}, page="/account")
    for path in ("/subscriptions", "/leave"):
        page = alice.get(path).text
        assert ("Alle" in page, "Everybody" in page) == (True, False), path


def test_words_that_the_portal_stores_are_in_the_language_of_the_page(bob: Visitor, session: Session) -> None:
    """The counts of runs, authors that are no person, and what was done to accounts."""
    bob.follow("/account/language", {"language": "de"}, page="/account")
    run = {"list_handle": "members", "kind": "sync", "asked_by": "command line", "state": "done", "added": 2, "left": 1}
    session.add(Run(started_at=NOW, finished_at=NOW, host="h", **run))
    line = {"at": NOW, "user_id": 1, "username": "zoe", "what": "merged into alice", "old": "", "new": ""}
    session.add(AccountChange(actor="command line", **line))
    session.commit()
    assert "2 eingetragen, 1 bei der Liste ausgetragen" in bob.get("/admin/runs").text
    assert "Angefordert von Kommandozeile" in bob.get("/admin/runs/1").text
    assert "zoe zusammengeführt mit alice Kommandozeile" in bob.get("/admin/users/history").text


def test_a_portal_of_one_language_offers_no_choice(
    instance: Path, make_app: Callable[..., Flask], people: dict[str, int]
) -> None:
    (instance / "portal.toml").write_text('languages = ["de"]')
    german = Visitor(make_app().test_client())
    german.log_in("alice")
    page = german.get("/account").html
    assert (language_of(page), "/account/language" in page) == ("de", False)


def test_a_catalogue_that_no_build_has_made_is_not_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(translation, "LOCALE", tmp_path)
    monkeypatch.setattr(translation, "_is_built", translation._is_built.__wrapped__)
    with translation.using("de"):
        assert translation.in_use() == "en"
