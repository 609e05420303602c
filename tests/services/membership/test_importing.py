"""The import carried out: accounts become what the source says, and nothing else changes."""

from typing import Any

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from portal.domain.membership import Limits
from portal.domain.membership_file import Columns
from portal.errors import BadInputError, ChangedMeanwhileError, PlanChangedError, SafetyLimitError, UnknownRunError
from portal.models import LoginSession, MailRequest, MemberImport, MemberImportLine, Preference, User
from portal.services.accounts import address_changes, addresses, log, passwords, users
from portal.services.history import COMMAND_LINE, Actor
from portal.services.membership import import_log, importing, linking, writing
from tests.factories import NOW, give_name, make_preference, make_user
from tests.services.membership.conftest import SECRET, Membership

ADA = "1,ada,Ada@Example.org,Ada Lovelace,full; board"
BOB = "2,bob,bob@example.org,Bob,full"


def test_a_new_key_makes_an_account_without_a_password(membership: Membership) -> None:
    report = membership.run(ADA, BOB)
    ada = membership.profile("ada")
    assert (ada.email, ada.name, ada.groups) == ("Ada@Example.org", "Ada Lovelace", ("board", "full"))
    assert (membership.user("ada").member_key, membership.user("ada").password_hash) == ("1", passwords.UNUSABLE)
    assert (report.counts["created"], report.counts["rows"]) == (2, 2)


def test_the_same_file_twice_changes_nothing_the_second_time(membership: Membership, session: Session) -> None:
    membership.run(ADA, BOB)
    before = len(log.recent(session))
    report = membership.run(BOB, ADA)
    assert report.counts == {**dict.fromkeys(report.counts, 0), "rows": 2, "unchanged": 2}
    assert len(log.recent(session)) == before


@pytest.mark.parametrize(
    "line",
    [
        "1, ADA ,ADA@EXAMPLE.ORG , Ada  Lovelace,board; full",
        "1,ada,ada@example.org; ADA@example.org,Ada Lovelace,full; board; full",
        "1,someone-else,,Ada Lovelace,full;board",
    ],
)
def test_what_the_source_says_in_another_way_changes_nothing(membership: Membership, line: str) -> None:
    membership.run(ADA)
    report = membership.run(line)
    assert report.counts == {**dict.fromkeys(report.counts, 0), "rows": 1, "unchanged": 1}
    assert membership.profile("ada").email == "Ada@Example.org"


def test_what_the_source_says_anew_is_followed_and_the_rest_stays(membership: Membership, session: Session) -> None:
    membership.run(ADA)
    give_name(session, "ada", "Countess")
    users.set_groups(session, "ada", groups=["full", "choir"], now=NOW, lists=None)
    membership.run("1,ada,king@example.org,Ada Lovelace,full; tech")
    ada = membership.profile("ada")
    assert (ada.name, ada.addresses, ada.groups) == ("Countess", ("king@example.org",), ("choir", "full", "tech"))
    membership.run("1,ada,king@example.org,Ada King,")
    assert (membership.profile("ada").name, membership.profile("ada").groups) == ("Ada King", ("choir",))


def test_a_group_given_by_a_person_is_not_taken_by_the_source(membership: Membership, session: Session) -> None:
    membership.run("1,ada,ada@example.org,Ada,")
    users.set_groups(session, "ada", groups=["full"], now=NOW, lists=None)
    membership.run("1,ada,ada@example.org,Ada,full")
    membership.run("1,ada,ada@example.org,Ada,")
    assert membership.profile("ada").groups == ("full",)


def test_a_local_account_is_linked_and_keeps_password_and_activity(membership: Membership, session: Session) -> None:
    make_user(session, "ada", "ada@example.org", password_hash="$2b$secret", is_active=False)
    report = membership.run(ADA)
    found = membership.user("ada")
    assert (found.member_key, found.password_hash, found.is_active) == ("1", "$2b$secret", False)
    assert report.counts["linked"] == 1
    membership.run("1,ada,ada@example.org,Ada King,full")
    assert (membership.profile("ada").name, membership.profile("ada").is_active) == ("Ada King", False)


def test_a_leaver_is_deactivated_and_comes_back_as_before(membership: Membership, session: Session) -> None:
    membership.run(ADA, BOB)
    session.execute(update(User).where(User.username == "ada").values(password_hash="$2b$secret"))
    session.add(LoginSession(token_hash="x", user_id=1, created_at=NOW, seen_at=NOW, expires_at=NOW, remembered=False))
    session.commit()
    make_preference(session, "members", "ada@example.org", True, seen=True)
    assert membership.run(BOB).counts["deactivated"] == 1
    ada = membership.user("ada")
    assert (ada.is_active, ada.deactivated_by_import, ada.password_hash) == (False, True, "$2b$secret")
    assert session.scalar(select(func.count()).select_from(LoginSession)) == 0
    session.rollback()
    assert membership.run(BOB).counts["deactivated"] == 0
    assert membership.run(ADA, BOB).counts["reactivated"] == 1
    ada = membership.user("ada")
    assert (ada.is_active, ada.deactivated_by_import, ada.password_hash) == (True, False, "$2b$secret")
    assert session.execute(select(Preference.subscribed, Preference.seen, Preference.left_by)).one() == (
        True, True, None,
    )  # fmt: skip


@pytest.mark.parametrize("by_import_before", [True, False])
def test_nobody_whom_a_person_deactivated_comes_back(
    membership: Membership, session: Session, by_import_before: bool
) -> None:
    membership.run(ADA, BOB)
    if by_import_before:
        membership.run(BOB)
    users.deactivate(session, "ada", now=membership.clock())
    membership.run("1,ada,king@example.org,Ada Lovelace,full; board", BOB)
    assert not membership.profile("ada").is_active
    assert membership.profile("ada").email == "king@example.org"


def test_leavers_stay_where_they_are_to_be_kept(membership: Membership) -> None:
    membership.run(ADA, BOB)
    membership.run(BOB, deactivates_leavers=False)
    assert membership.profile("ada").is_active
    assert membership.run(BOB).counts["deactivated"] == 1


def test_who_swap_addresses_and_usernames_do_so_at_once(membership: Membership, session: Session) -> None:
    membership.run("1,a@example.org,a@example.org,A,", "2,b@example.org,b@example.org,B,")
    make_preference(session, "members", "a@example.org", True)
    make_preference(session, "members", "b@example.org", False)
    membership.run("1,a@example.org,b@example.org,A,", "2,b@example.org,a@example.org,B,")
    of = {each.member_key: each.username for each in session.scalars(select(User))}
    session.rollback()
    assert of == {"1": "b@example.org", "2": "a@example.org"}
    assert membership.profile("b@example.org").name == "A"
    wanted = dict(
        session.execute(
            select(addresses.Address.canonical, Preference.subscribed).join(
                Preference, Preference.address_id == addresses.Address.id
            )
        ).all()
    )
    assert wanted == {"b@example.org": True, "a@example.org": False}


def test_further_addresses_are_given_and_taken_and_own_ones_stay(membership: Membership, session: Session) -> None:
    membership.run("1,ada,ada@example.org; Work@example.org,Ada,")
    assert membership.profile("ada").addresses == ("ada@example.org", "Work@example.org")
    address_changes.add(
        session, 1, addresses.checked("own@example.org"), actor=COMMAND_LINE, now=membership.clock(), lists=None
    )
    membership.run("1,ada,Work@example.org; ada@example.org,Ada,")
    assert membership.profile("ada").addresses == ("Work@example.org", "ada@example.org", "own@example.org")
    membership.run("1,ada,Work@example.org,Ada,")
    assert membership.profile("ada").addresses == ("Work@example.org", "own@example.org")
    membership.run("1,ada,new@example.org; own@example.org,Ada,")
    membership.run("1,ada,new@example.org,Ada,")
    assert membership.profile("ada").addresses == ("new@example.org", "own@example.org")


def test_of_an_account_with_a_role_the_name_alone_follows(membership: Membership, session: Session) -> None:
    membership.run(ADA)
    users.grant(session, "ada")
    report = membership.run("1,ada,evil@example.org,Ada King,owners")
    ada = membership.profile("ada")
    assert (ada.name, ada.email, ada.groups) == ("Ada King", "Ada@Example.org", ("board", "full"))
    assert len(report.new) == 1
    assert membership.run("1,ada,evil@example.org,Ada King,owners").new == frozenset()
    membership.run(BOB)
    assert membership.profile("ada").is_active


def test_problems_are_new_once_and_the_other_rows_are_done(membership: Membership) -> None:
    lines = [ADA, "2,bob,no address,Bob,", "3,carl,carl@example.org,Carl,", "3,carla,carla@example.org,Carla,"]
    report = membership.run(*lines)
    assert membership.usernames() == ["ada"]
    assert [(each.line, each.key) for each in report.lines if each.number in report.new] == [
        (3, "2"), (4, "3"), (5, "3"),
    ]  # fmt: skip
    assert report.counts["problems"] == 3
    assert membership.run(*lines).new == frozenset()


def test_a_deleted_account_is_not_made_again_until_its_key_is_forgotten(
    membership: Membership, session: Session
) -> None:
    for erase in (False, True):
        membership.run(ADA, BOB)
        users.delete(session, "ada", erase=erase, now=membership.clock(), lists={}, secret=SECRET)
        assert len(membership.run(ADA, BOB).new) == 1
        assert membership.run(ADA, BOB).new == frozenset()
        assert membership.usernames() == ["bob"]
        linking.forget_key(session, "1", secret=SECRET)
    membership.run(ADA, BOB)
    assert membership.usernames() == ["ada", "bob"]
    with pytest.raises(BadInputError):
        linking.forget_key(session, "1", secret=SECRET)


def test_without_a_key_each_line_makes_a_local_account_or_is_present(membership: Membership, session: Session) -> None:
    make_user(session, "bob", "other@example.org")
    keyless = Columns(username="username", name="name", groups=("groups",))
    report = membership.run(ADA, BOB, columns=keyless)
    assert (report.counts["created"], report.counts["reported"], report.new) == (1, 1, frozenset())
    assert membership.user("ada").member_key is None
    membership.run("9,zoe,zoe@example.org,Zoe,")
    assert membership.profile("ada").is_active


def test_a_password_hash_comes_along_with_a_new_account(membership: Membership) -> None:
    good = "$2b$04$" + "a" * 21 + "O" + "b" * 31
    columns = Columns(key="no", username="username", name="name", password_hash="groups")
    membership.run(f"1,ada,ada@example.org,Ada,{good}", "2,bob,bob@example.org,Bob,rubbish", columns=columns)
    assert membership.user("ada").password_hash == good
    assert membership.usernames() == ["ada"]


# Limits, approval, and what a crash leaves.


def many(number: int, *, besides: int = 0) -> list[str]:
    return [f"k{n},user{n:04},user{n:04}@example.org,User,full" for n in range(besides, number)]


def test_more_leavers_than_the_limit_wait_for_the_approval_of_exactly_that_plan(
    membership: Membership, session: Session
) -> None:
    membership.run(*many(20))
    with pytest.raises(SafetyLimitError) as refused:
        membership.run(*many(20, besides=6))
    assert session.scalar(select(func.count()).select_from(User).where(User.is_active)) == 20
    session.rollback()
    with pytest.raises(PlanChangedError):
        membership.run(*many(20, besides=7), accept=refused.value.plan_id)
    report = membership.run(*many(20, besides=6), accept=refused.value.plan_id)
    assert report.counts["deactivated"] == 6


def test_what_an_interrupted_approved_import_left_over_needs_no_second_approval(
    membership: Membership, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership.run(*many(60))
    monkeypatch.setattr(writing, "_AT_ONCE", 20)  # one leaver in a transaction
    real, calls = writing.write, []

    def interrupted(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == 10:
            raise KeyboardInterrupt
        return real(*arguments)

    request = membership.request(*many(60, besides=20))
    plan = importing.preview(session, request)
    assert plan.excess
    monkeypatch.setattr(writing, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        importing.run(session, request, accept=plan.plan_id)
    monkeypatch.setattr(writing, "write", real)
    assert session.scalar(select(func.count()).select_from(User).where(User.is_active)) == 51
    session.rollback()
    assert importing.run(session, request).counts["deactivated"] == 11
    assert set(session.scalars(select(MemberImport.state))) == {"done", "failed"}
    session.rollback()


def test_somebody_who_changes_meanwhile_is_decided_again(
    membership: Membership, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    membership.run(ADA, BOB)
    real, calls = writing.write, []

    def overtaken(*arguments: Any) -> Any:
        if not calls:
            session.execute(update(User).where(User.username == "bob").values(name="Own name"))
        calls.append(1)
        return real(*arguments)

    monkeypatch.setattr(writing, "write", overtaken)
    membership.run("1,ada,king@example.org,Ada Lovelace,full; board", "2,bob,bob@example.org,Robert,full")
    ada, bob = membership.profile("ada"), membership.profile("bob")
    assert (ada.name, ada.email, bob.name) == ("Ada Lovelace", "king@example.org", "Robert")
    assert len(calls) == 2
    lines = import_log.lines(session, import_log.page(session).rows[0].id)
    assert [(each.number, each.user_id, each.username, each.done) for each in lines] == [
        (1, ada.id, "ada", True),
        (3, bob.id, "bob", True),
    ]


# Invitations.


def invited(session: Session) -> list[str]:
    found = session.scalars(select(MailRequest.mailbox).where(MailRequest.purpose == "invite").order_by(MailRequest.id))
    mailboxes = list(found)
    session.rollback()
    return mailboxes


def test_new_accounts_are_invited_at_their_main_address_and_nobody_else_is(
    membership: Membership, session: Session
) -> None:
    make_user(session, "bob", "bob@example.org")
    membership.run(ADA, BOB, "3,cleo,Cleo@example.org; c@example.net,Cleo,", invites=True)
    assert invited(session) == ["ada@example.org", "cleo@example.org"]
    assert {each.username for each in log.recent(session) if each.what == "invited"} == {"ada", "cleo"}
    membership.run(BOB, "3,cleo,cleo@example.org,Cleo,", invites=True)
    membership.run(ADA, BOB, "3,cleo,cleo@example.org,Cleo,", invites=True)  # ada is back
    assert len(invited(session)) == 2


def test_who_is_invited_is_written_with_the_accounts_or_not_at_all(
    membership: Membership, session: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_arguments: object, **_options: object) -> None:
        raise RuntimeError("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(writing.account_log, "record_all", fails)
        with pytest.raises(RuntimeError):
            membership.run(ADA, invites=True)
    assert (membership.usernames(), invited(session)) == ([], [])
    membership.run(ADA, invites=True)
    assert invited(session) == ["ada@example.org"]


@pytest.mark.parametrize("invites", [True, False])
def test_who_applies_a_plan_says_whether_new_people_are_invited(
    membership: Membership, session: Session, invites: bool
) -> None:
    number = importing.show(session, membership.request(ADA, BOB))
    assert apply(membership, number, invites=invites).done == 2
    assert len(invited(session)) == (2 if invites else 0)


# Plans that are kept to be looked at.


def apply(membership: Membership, number: int, *, invites: bool = False) -> importing.Applied:
    actor, clock = Actor(None, "carol"), membership.clock
    return importing.apply_stored(
        membership.session, number, actor=actor, clock=clock, lists=membership.lists, invites=invites
    )


def test_a_plan_that_was_shown_is_applied_once_as_it_was_shown(membership: Membership, session: Session) -> None:
    make_user(session, "carl", "carl@example.org")
    membership.run(ADA, BOB)
    number = importing.show(
        session,
        membership.request(
            "1,ada,King@Example.org,Ada King,full", "3,Carl,carl@example.org,Carl,", "4,Dora,Dora@example.org,Dora,full"
        ),
    )
    assert membership.usernames() == ["ada", "bob", "carl"]
    assert apply(membership, number) == importing.Applied(4, 0)
    assert membership.profile("ada").email == "King@Example.org"
    assert membership.user("carl").member_key == "3"
    assert (membership.profile("Dora").email, membership.profile("Dora").groups) == ("Dora@example.org", ("full",))
    assert not membership.profile("bob").is_active
    with pytest.raises(ChangedMeanwhileError):
        apply(membership, number)
    with pytest.raises(UnknownRunError):
        apply(membership, 10_000)


def test_of_a_plan_that_was_shown_who_has_changed_meanwhile_is_left_alone(
    membership: Membership, session: Session
) -> None:
    membership.run(ADA, BOB)
    number = importing.show(
        session, membership.request("1,ada,ada@example.org,Ada King,full", "2,bob,bob@example.org,Robert,full")
    )
    give_name(session, "ada", "Countess")
    assert apply(membership, number) == importing.Applied(1, 1)
    assert (membership.profile("ada").name, membership.profile("bob").name) == ("Countess", "Robert")


def test_a_plan_is_kept_for_a_day(membership: Membership, session: Session) -> None:
    number = importing.show(session, membership.request(ADA))
    membership.clock.advance(hours=25)
    with pytest.raises(ChangedMeanwhileError):
        apply(membership, number)
    membership.run(BOB)
    lines = select(func.count()).select_from(MemberImportLine).where(MemberImportLine.import_id == number)
    assert session.scalar(lines) == 0
    session.rollback()


def test_an_import_that_waits_for_approval_can_be_applied_from_its_lines(
    membership: Membership, session: Session
) -> None:
    membership.run(*many(20))
    with pytest.raises(SafetyLimitError):
        membership.run(*many(20, besides=6), limits=Limits())
    number = session.scalar(select(MemberImport.id).where(MemberImport.state == "held")) or 0
    session.rollback()
    assert apply(membership, number).done == 6
