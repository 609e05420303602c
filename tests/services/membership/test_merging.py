"""Two accounts of one person become one."""

from datetime import timedelta
from typing import Any

import pytest
from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.errors import BadInputError, ChangedMeanwhileError, UnknownUserError
from portal.models import Address, LastSaid, Preference, User
from portal.services.accounts import address_changes, addresses, log, profiles, users
from portal.services.history import COMMAND_LINE
from portal.services.membership import merging
from portal.services.membership.merging import Merge, Merged
from tests.factories import NOW, change_main_addresses, make_preference, make_user
from tests.services.membership.conftest import SECRET, Membership


def merge(session: Session, gone: str, kept: str, *, dry_run: bool = False, **options: Any) -> Merged:
    do = merging.preview if dry_run else merging.merge
    return do(session, Merge(gone, kept, **options), now=NOW, lists=None, secret=SECRET)


def wanted(session: Session) -> set[tuple[str, str]]:
    rows = session.execute(
        select(Preference.list_handle, Address.canonical, Preference.subscribed).join(
            Address, Address.id == Preference.address_id
        )
    ).all()
    session.rollback()
    return {(handle, address) for handle, address, subscribed in rows if subscribed}


@pytest.fixture
def both(session: Session) -> None:
    make_user(session, "ada", "ada@example.org", groups=("full",), password_hash="$2b$ada")
    make_user(session, "ada2", "home@example.org", "work@example.org", groups=("board", "full"), password_hash="$2b$2")


def test_addresses_and_groups_are_united_and_the_rest_of_the_one_goes(session: Session, both: None) -> None:
    done = merge(session, "ada2", "ada")
    assert (done.addresses, done.groups, done.is_active) == (("home@example.org", "work@example.org"), ("board",), True)
    ada = profiles.by_username(session, "ada")
    assert ada.addresses == ("ada@example.org", "home@example.org", "work@example.org")
    assert ada.groups == ("board", "full")
    assert session.scalar(select(User.password_hash).where(User.username == "ada")) == "$2b$ada"
    session.rollback()
    with pytest.raises(UnknownUserError):
        profiles.by_username(session, "ada2")
    assert [(each.username, each.what) for each in log.recent(session)[:2]] == [
        ("ada", "merged with ada2"), ("ada2", "merged into ada"),
    ]  # fmt: skip


def test_a_preview_says_what_a_merge_does_and_changes_nothing(session: Session, both: None) -> None:
    make_preference(session, "members", "ada@example.org", True)
    make_preference(session, "members", "home@example.org", True)
    make_preference(session, "tech", "home@example.org", True)
    shown = merge(session, "ada2", "ada", dry_run=True)
    assert profiles.by_username(session, "ada2").addresses == ("home@example.org", "work@example.org")
    assert merge(session, "ada2", "ada") == shown
    (ended,) = shown.subscriptions
    assert (ended.list_handle, ended.before, ended.after) == ("members", True, False)
    assert ("tech", "home@example.org") in wanted(session), "what was chosen and not done yet stays chosen"


def test_who_was_on_a_list_by_neither_or_one_account_is_so_afterwards(session: Session, both: None) -> None:
    make_preference(session, "members", "home@example.org", True, seen=True)
    make_preference(session, "tech", "work@example.org", False, seen=False)
    before = wanted(session)
    assert merge(session, "ada2", "ada").subscriptions == ()
    assert wanted(session) == before


def test_a_list_that_the_merge_lets_somebody_see_again_is_sent_to_one_address(
    app: Flask, session: Session, both: None
) -> None:
    """Ada was on the board's list once, when she was in its group; her second account is on it now."""
    lists = app.extensions["portal"].catalogue().lists
    make_preference(session, "board", "ada@example.org", True, seen=False)
    make_preference(session, "board", "home@example.org", True, seen=True, changed_at=NOW + timedelta(days=1))
    merging.merge(session, Merge("ada2", "ada"), now=NOW, lists=lists, secret=SECRET)
    assert wanted(session) == {("board", "home@example.org")}


def test_a_mailbox_that_both_hold_keeps_what_it_has(session: Session) -> None:
    make_user(session, "ada", "home@example.org")
    make_user(session, "ada2", "home@example.org")
    make_preference(session, "members", "home@example.org", True)
    assert merge(session, "ada2", "ada") == Merged("ada2", "ada", True, (), (), None, None, ())


def test_an_account_without_a_key_takes_the_other_one_and_what_the_source_said(
    session: Session, membership: Membership
) -> None:
    make_user(session, "ada", "ada@example.org", "home@example.org")
    make_user(session, "bert", "home@example.org")
    line = "1,member1,home@example.org,Ada,full"
    membership.run(line)
    assert merge(session, "member1", "ada").key == "1"
    assert membership.user("ada").member_key == "1"
    assert session.scalar(select(LastSaid.address)) == "home@example.org"
    session.rollback()
    membership.run(line)
    assert membership.usernames() == ["ada", "bert"]
    assert membership.profile("ada").groups == ("full",)
    membership.run("1,member1,home@example.org,Ada,")
    assert membership.profile("ada").groups == ()


@pytest.mark.parametrize("keep", ["1", "2"])
def test_of_two_keys_the_one_that_is_named_stays_and_nobody_is_made_for_the_other(
    session: Session, membership: Membership, keep: str
) -> None:
    lines = ["1,ada,ada@example.org,Ada,full", "2,ada2,home@example.org,Ada L.,board"]
    membership.run(*lines)
    for options in ({}, {"keep_key": "3"}):
        with pytest.raises(BadInputError):
            merge(session, "ada2", "ada", **options)
    done = merge(session, "ada2", "ada", keep_key=keep)
    assert {done.key, done.dropped_key} == {"1", "2"}
    report = membership.run(*lines)
    assert membership.usernames() == ["ada"]
    assert (report.counts["created"], report.counts["deactivated"]) == (0, 0)
    assert membership.user("ada").member_key == keep


def test_an_account_that_moves_back_after_a_merge_finds_what_it_had_left(session: Session, both: None) -> None:
    make_preference(session, "members", "home@example.org", True, seen=True)
    number = profiles.id_of(session, "ada2")
    change_main_addresses(session, {number: "new@example.org"}, now=NOW)
    merge(session, "ada2", "ada")
    address_changes.add(
        session,
        profiles.id_of(session, "ada"),
        addresses.checked("home@example.org"),
        actor=COMMAND_LINE,
        now=NOW,
        lists=None,
    )
    assert {handle for handle, _ in wanted(session)} == {"members"}


@pytest.mark.parametrize(("gone_is_active", "kept_is_active"), [(True, False), (False, True), (False, False)])
def test_a_merge_activates_nobody_and_loses_nothing(
    session: Session, gone_is_active: bool, kept_is_active: bool
) -> None:
    make_user(session, "ada", "ada@example.org", is_active=kept_is_active)
    make_user(session, "ada2", "home@example.org", "ada@example.org")
    make_preference(session, "members", "home@example.org", True, seen=True)
    make_preference(session, "tech", "home@example.org", True, seen=False)
    before = wanted(session)
    if not gone_is_active:
        users.deactivate(session, "ada2", now=NOW)
    assert merge(session, "ada2", "ada").is_active == kept_is_active
    assert wanted(session) == before
    if not kept_is_active:
        users.activate(session, "ada", now=NOW, lists=None)
    assert wanted(session) == before
    left = session.scalars(select(Preference.left_by)).all()
    session.rollback()
    assert set(left) == {None}


def test_what_cannot_be_merged_is_refused(session: Session, both: None) -> None:
    make_user(session, "root", is_superuser=True)
    with pytest.raises(BadInputError, match="itself"):
        merge(session, "ada", "ADA")
    with pytest.raises(BadInputError, match="last active superuser"):
        merge(session, "root", "ada")
    with pytest.raises(UnknownUserError):
        merge(session, "nobody", "ada")
    seen = log.last_change(session, profiles.id_of(session, "ada"))
    users.set_groups(session, "ada", groups=["choir"], now=NOW, lists=None)
    with pytest.raises(ChangedMeanwhileError):
        merge(session, "ada2", "ada", kept_as_of=seen)
    assert merge(session, "ada", "root").gone == "ada"
