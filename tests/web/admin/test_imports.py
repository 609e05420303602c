"""Imports in the browser: a file becomes a plan, the plan is looked at, and exactly that is carried out."""

import csv
import io
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import func, select
from sqlalchemy.orm import Session
from werkzeug.test import TestResponse

from portal.models import MailRequest, MemberImport, MemberImportLine, User
from portal.services.accounts import profiles
from portal.services.history import COMMAND_LINE
from tests.conftest import Clock
from tests.factories import give_name, make_preference, make_user
from tests.services.membership.conftest import Membership
from tests.web.conftest import Page, Visitor

IMPORTS = "/admin/users/imports"
HEADER = "no,username,email,name,groups\n"
ADA, BEN, CLEO = "1,ada,ada@example.org,Ada,full", "2,ben,ben@example.org,Ben,", "3,cleo,cleo@example.org,Cleo,board"


def upload(
    visitor: Visitor, *lines: str, content: bytes | None = None, status: int = 303, **form: Any
) -> Page | TestResponse:
    file = content if content is not None else (HEADER + "".join(f"{each}\n" for each in lines)).encode()
    return visitor.post(IMPORTS, {"file": (io.BytesIO(file), "members.csv"), "key": "no", **form}, status=status)


def shown(visitor: Visitor, *lines: str, **form: Any) -> str:
    """Upload a file; return where its plan is shown."""
    response = upload(visitor, *lines, **form)
    assert isinstance(response, TestResponse)
    return response.headers["Location"]


def imported(visitor: Visitor, *lines: str, **form: Any) -> Page:
    """Upload a file and import it; return the page of the import."""
    return visitor.follow(shown(visitor, *lines, **form), {})


def profile(session: Session, username: str) -> profiles.Profile:
    return profiles.by_username(session, username)


def test_a_month_is_imported_as_the_plan_had_shown_it(bob: Visitor, session: Session) -> None:
    first = imported(bob, ADA, BEN)
    assert "2 people were imported." in first.text
    path = shown(bob, "1,ada,king@example.org,Ada King,board", CLEO, leavers="y")
    plan = bob.get(path)

    assert plan.title.startswith("Review the import")
    for words in (
        "members.csv", "by bob on", "nothing has been changed yet", "Create 1", "Change 1", "Deactivate 1",
        "1 person who is no longer in the file will be deactivated.", "address: ada@example.org", "address: king@example.org",
        "name: Ada", "name: Ada King", "groups: full", "groups: board", "active deactivated", "Import 3 changes",
    ):  # fmt: skip
        assert words in plan.text, words
    assert session.scalar(select(User.id).where(User.username == "cleo")) is None
    session.rollback()

    done = bob.follow(path, {})
    assert "3 people were imported." in done.text
    assert "Done" in done.text
    ada = profile(session, "ada")
    assert (ada.email, ada.name, ada.groups) == ("king@example.org", "Ada King", ("board",))
    assert not profile(session, "ben").is_active
    assert profile(session, "cleo").groups == ("board",)
    assert "There is nothing to do." in bob.get(shown(bob, "1,ada,king@example.org,Ada King,board", CLEO)).text


def test_a_plan_is_carried_out_once(bob: Visitor) -> None:
    path = shown(bob, ADA)
    form = {"csrf_token": bob.get(path).token, "shown": bob.get(path).value("shown")}
    assert bob.client.post(path, data=form).status_code == 303
    again = Page(bob.client.post(path, data=form))
    assert again.status == 409
    assert "has already been carried out" in again.text


@pytest.mark.parametrize("signed", ["", "altered", "of another"])
def test_only_the_plan_that_was_shown_is_carried_out(bob: Visitor, session: Session, signed: str) -> None:
    path, other = shown(bob, ADA), shown(bob, BEN)
    given = bob.get(other).value("shown") if signed == "of another" else signed
    response = bob.client.post(path, data={"csrf_token": bob.get(path).token, "shown": given})
    assert response.status_code == 400
    assert "Import 1 change" in Page(response).text
    assert session.scalar(select(User.id).where(User.username == "ada")) is None


def test_who_was_changed_since_the_plan_was_shown_is_left_alone_and_named(bob: Visitor, session: Session) -> None:
    imported(bob, ADA, BEN)
    path = shown(bob, "1,ada,ada@example.org,Ada King,full", "2,ben,ben@example.org,Benjamin,")
    give_name(session, "ada", "Countess")
    done = bob.follow(path, {})
    assert "1 person was imported. 1 person was skipped" in done.text
    assert (profile(session, "ada").name, profile(session, "ben").name) == ("Countess", "Benjamin")
    assert done.text.count("Skipped") == 1


def test_problems_are_on_top_and_downloaded(bob: Visitor, session: Session) -> None:
    make_user(session, "ben", "other@example.org")
    path = shown(bob, ADA, BEN, "4,dan,dan@@example.org,=cmd(),", CLEO)
    page = bob.get(path)
    assert "2 people cannot be imported" in page.text
    assert "Line 3: The username belongs to an account with another address: change it in the source, or" in page.text
    assert "not an e-mail address: dan@@example.org" in page.text
    assert "Import 2 changes" in page.text
    response = bob.client.get(f"{path}/problems")
    rows = list(csv.DictReader(io.StringIO(response.data.decode("utf-8-sig"))))
    assert sorted((each["line"], each["key"], each["username"]) for each in rows) == [
        ("3", "2", "ben"),
        ("4", "4", "dan"),
    ]
    assert bob.client.get(f"{IMPORTS}/999/problems").status_code == 404


def test_lines_are_found_by_kind_and_by_person(bob: Visitor, session: Session) -> None:
    path = shown(bob, ADA, BEN, "4,dan,dan@@example.org,Dan,")

    def people(query: str) -> list[str]:
        return sorted(re.findall(r'scope="row">([^<]*)<', bob.get(f"{path}?{query}").html))

    assert people("") == ["Ada", "Ben", "dan"]
    assert people("kind=create") == ["Ada", "Ben"]
    assert people("kind=problem") == ["dan"]
    assert people("q=BEN") == ["Ben"]
    assert "No matching lines" in bob.get(f"{path}?kind=link").text
    for query in ("kind=delete", "after=0", "after=x", "q=%00"):
        bob.get(f"{path}?{query}", status=400)


def test_lines_come_a_page_at_a_time(bob: Visitor) -> None:
    path = shown(bob, *(f"{number},m{number},m{number}@example.org,M{number:03}," for number in range(1, 151)))
    first = bob.get(path)
    assert first.html.count('scope="row"') == 100
    (link,) = [each["href"] for tag, each in first.tags if tag == "a" and "after=" in (each["href"] or "")]
    assert bob.get(link or "").html.count('scope="row"') == 50


def test_without_a_key_people_are_added_and_nobody_is_followed(bob: Visitor, session: Session) -> None:
    imported(bob, content=b"username,email\nerin,erin@example.org\n", key="")
    page = bob.get(
        shown(bob, content=b"username,email\nerin,new@example.org\nfrank,f@example.org\n", key="", leavers="y")
    )
    assert "Import 1 change" in page.text
    assert session.scalars(select(User.member_key)).all() == [None] * 4


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "The input is empty"),
        (b"no,name\n1,x\n", "there is no column named"),
        (b"no,username,email\n", "no member"),
        (b"PK\x03\x04 a spreadsheet", "Save it as CSV UTF-8"),
        (b"\0\0\0", "not text"),
    ],
)
def test_a_file_that_cannot_be_read_says_why_beside_its_field(bob: Visitor, content: bytes, words: str) -> None:
    page = upload(bob, content=content, status=422)
    assert isinstance(page, Page)
    assert page.title.startswith("Error:")
    assert words.lower() in page.text.lower()
    assert 'id="file-error1"' in page.html


def test_no_file_is_said(bob: Visitor) -> None:
    page = bob.post(IMPORTS, {"key": "no"}, status=422)
    assert isinstance(page, Page)
    assert "Choose a file." in page.text


def test_what_exceeds_the_safety_limits_is_said_and_needs_approval(bob: Visitor, session: Session) -> None:
    everybody = [f"{number},m{number},m{number}@example.org,M," for number in range(1, 21)]
    imported(bob, *everybody)
    for number in range(1, 21):
        make_preference(session, "members", f"m{number}@example.org", True, seen=True)
    page = bob.get(path := shown(bob, *everybody[:12], leavers="y"))
    assert "This import exceeds the safety limits. It deactivates 8 of 20 linked accounts." in page.text
    assert "8 of their addresses will be taken off Members. The next sync will need approval." in page.text
    assert "Approve and import 8 changes" in page.text
    assert "8 people were imported." in bob.follow(path, {}).text
    assert not profile(session, "m20").is_active


def test_an_import_of_cron_that_was_held_is_approved_in_the_browser(
    visitor: Visitor, people: dict[str, int], session: Session, clock: Clock
) -> None:
    from portal.errors import SafetyLimitError

    membership = Membership(session, clock)
    everybody = [f"{number},m{number},m{number}@example.org,M," for number in range(1, 21)]
    membership.run(*everybody)
    with pytest.raises(SafetyLimitError):
        membership.run(*everybody[:12])
    visitor.log_in("bob")
    page = visitor.get(IMPORTS)
    states = [(each["data-state"], each["data-import"]) for _, each in page.tags if "data-import" in each]
    assert [state for state, _ in states] == ["held", "done"]
    assert "Needs approval" in page.text
    visitor.follow(f"{IMPORTS}/{states[0][1]}", {})
    assert not profile(session, "m20").is_active


def test_imports_are_listed_with_who_when_from_what_and_counts(
    visitor: Visitor, people: dict[str, int], session: Session, clock: Clock
) -> None:
    Membership(session, clock).run("9,zoe,zoe@example.org,Zoe,")
    (bob := visitor).log_in("bob")
    imported(bob, ADA, BEN)
    shown(bob, CLEO)
    page = bob.get(IMPORTS)
    rows = re.findall(r"<tr role=\"row\" data-import.*?</tr>", page.html, re.DOTALL)
    texts = [" ".join(re.sub(r"<[^>]*>", " ", each).split()) for each in rows]
    assert ["members.csv bob Not imported yet" in texts[0], "Create 1" in texts[0]] == [True, True]
    assert ["members.csv bob Done" in texts[1], "Create 2" in texts[1]] == [True, True]
    assert f"file members.csv {COMMAND_LINE.name} Done" in texts[2]


@pytest.mark.slow
def test_imports_come_a_page_at_a_time(bob: Visitor, session: Session) -> None:
    for _ in range(52):
        shown(bob, ADA)
    first = bob.get(IMPORTS)
    assert first.html.count("data-import=") == 50
    assert "1 to 50 of 52" in first.text
    assert bob.get(f"{IMPORTS}?page=2").html.count("data-import=") == 2
    bob.get(f"{IMPORTS}?page=0", status=400)
    assert "There is no such page." in bob.get(f"{IMPORTS}?page=3").text


def test_nothing_of_a_file_is_kept_but_the_lines_for_a_day(
    bob: Visitor, open_visitor: Callable[[], Visitor], session: Session, clock: Clock, instance: Path
) -> None:
    path = shown(bob, content=f"{HEADER}{ADA}\n".replace("no,", "no,secret,").replace("1,", "1,canary,").encode())
    clock.advance(hours=25)
    bob = open_visitor()
    bob.log_in("bob")
    shown(bob, BEN)
    assert session.scalar(select(func.count()).select_from(MemberImportLine)) == 1
    session.rollback()
    assert not any(b"canary" in each.read_bytes() for each in instance.rglob("*") if each.is_file())
    assert "Not carried out" in bob.get(path).text


def test_a_source_that_is_set_names_the_columns_and_what_happens_to_leavers(
    instance: Path, make_app: Callable[..., Flask], session: Session
) -> None:
    from tests.web.conftest import HASH, Client

    (instance / "portal.toml").write_text(
        '[membership]\nfile = "m.csv"\nleavers = "deactivate"\n'
        '[membership.columns]\nkey = "No."\nemail = "Mail"\nname = "Name"\n'
    )
    app = make_app()
    app.test_client_class = Client
    make_user(session, "bob", is_superuser=True, password_hash=HASH)
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    page = bob.get(IMPORTS)
    assert not any(each.get("name") == "key" for _, each in page.tags)
    assert any(each.get("name") == "leavers" and "checked" in each for _, each in page.tags)
    imported(bob, content=b"No.;Mail;Name\n7;gil@example.org;Gil\n")
    assert profile(session, "7").name == "Gil"


@pytest.mark.parametrize("is_default", [True, False])
def test_a_box_says_whether_new_people_are_invited(
    instance: Path, make_app: Callable[..., Flask], session: Session, *, is_default: bool
) -> None:
    from tests.web.conftest import HASH, Client

    (instance / "portal.toml").write_text(
        f'[mail]\nsender = "portal@example.org"\nfolder = "letters"\n[membership]\ninvite = {str(is_default).lower()}\n'
        '[membership.columns]\nkey = "no"\nusername = "username"\n'
    )
    app = make_app()
    app.test_client_class = Client
    make_user(session, "bob", is_superuser=True, password_hash=HASH)
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    path = shown(bob, ADA)
    box = next(each for _, each in bob.get(path).tags if each.get("name") == "invite")
    assert ("checked" in box) is is_default

    assert (
        "1 person was imported. New people will get an invitation by e-mail." in bob.follow(path, {"invite": "y"}).text
    )
    page = bob.follow(shown(bob, BEN), {})
    assert "invitation" not in page.text
    assert not any(each.get("name") == "invite" for _, each in bob.get(shown(bob, BEN)).tags)  # nobody is new

    assert session.scalars(select(MailRequest.mailbox)).all() == ["ada@example.org"]
    session.rollback()


def test_without_mail_nobody_is_offered_an_invitation(bob: Visitor, session: Session) -> None:
    path = shown(bob, ADA)
    assert not any(each.get("name") == "invite" for _, each in bob.get(path).tags)
    bob.follow(path, {"invite": "y"})
    assert session.scalar(select(func.count()).select_from(MailRequest)) == 0
    session.rollback()


def test_a_file_may_be_larger_than_a_form_and_is_bounded(make_app: Callable[..., Flask], session: Session) -> None:
    from tests.web.conftest import HASH, Client

    app = make_app(PORTAL_MAX_BODY="2000", PORTAL_MAX_ROSTER="9000")
    app.test_client_class = Client
    make_user(session, "bob", is_superuser=True, password_hash=HASH)
    bob = Visitor(app.test_client())
    bob.log_in("bob")
    many = [f"{number},m{number},m{number}@example.org,{'M' * 60}," for number in range(1, 61)]
    assert "Import 60 changes" in bob.get(shown(bob, *many)).text
    page = upload(bob, *many * 3, status=413)
    assert isinstance(page, Page)


def test_none_of_these_pages_is_for_members(alice: Visitor, bob: Visitor) -> None:
    path = shown(bob, ADA)
    for each in (IMPORTS, path, f"{path}/problems"):
        alice.get(each, status=403)
    token = alice.get("/account").token
    for each in (IMPORTS, path):
        assert alice.client.post(each, data={"csrf_token": token}).status_code == 403


def test_an_import_without_a_number_here_is_not_found(bob: Visitor) -> None:
    bob.get(f"{IMPORTS}/999", status=404)


def test_an_import_belongs_to_the_one_who_carried_it_out(bob: Visitor, session: Session) -> None:
    path = shown(bob, ADA)
    bob.follow(path, {})
    found = session.scalars(select(MemberImport)).one()
    assert (found.asked_by, found.accepted, found.state) == ("bob", True, "done")
    lines = bob.get(f"/admin/users/history?user={users_id(session, 'ada')}")
    assert "bob (import" in lines.text


def users_id(session: Session, username: str) -> int:
    session.rollback()
    return profiles.id_of(session, username)
