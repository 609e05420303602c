"""`flask user add-address`, `remove-address`, `make-main` and `set-address`: what they say, ask and change."""

import pytest
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from portal.services.accounts import profiles
from tests.cli.test_user import at_a_terminal
from tests.factories import make_preference, make_user


@pytest.fixture
def flask_user(runner: FlaskCliRunner):
    def call(*args: str):
        return runner.invoke(args=["user", *args])

    return call


def held(session: Session, username: str = "alice") -> tuple[str, ...]:
    """The addresses of a user, the main one first."""
    return profiles.by_username(session, username).addresses


def test_a_further_address_is_added_made_the_main_one_and_the_other_removed(flask_user, session):
    make_user(session, "alice")
    for args, words, addresses in (
        (
            ["add-address", "alice", "Alice@home.example.org"],
            "alice has the address Alice@home.example.org too",
            ("alice@example.org", "Alice@home.example.org"),
        ),
        (
            ["add-address", "alice", "alice@home.example.org"],
            "alice has the address alice@home.example.org already",
            ("alice@example.org", "Alice@home.example.org"),
        ),
        (
            ["make-main", "alice", "alice@HOME.example.org"],
            "alice@HOME.example.org is now the main address of alice",
            ("Alice@home.example.org", "alice@example.org"),
        ),
        (
            ["make-main", "alice", "alice@home.example.org"],
            "alice@home.example.org is already the main address of alice",
            ("Alice@home.example.org", "alice@example.org"),
        ),
        (
            ["remove-address", "alice", "alice@example.org"],
            "alice no longer has the address alice@example.org",
            ("Alice@home.example.org",),
        ),
    ):
        result = flask_user(*args)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", f"{words}\n")
        assert held(session) == addresses


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["add-address", "nobody", "a@example.org"], "no user is called nobody"),
        (["add-address", "alice", "no address"], "not an e-mail address"),
        (["remove-address", "alice", "alice@example.org"], "make another address the main one first"),
        (["remove-address", "alice", "bob@example.org"], "not an address of this account"),
        (["remove-address", "alice", "nonsense"], "not an e-mail address"),
        (["make-main", "alice", "bob@example.org"], "add it first"),
        (["add-address", "alice", "bob@example.org"], "is already used by bob"),
        (["set-address", "alice", "bob@example.org"], "to share it, add --shared"),
    ],
)
def test_what_cannot_be_done_says_why_and_changes_nothing(flask_user, session, args, words):
    make_user(session, "alice", "alice@example.org", "alice@home.example.org")
    make_user(session, "bob")
    before = list(profiles.list_all(session))
    result = flask_user(*args)
    assert (result.exit_code, result.stdout) == (65, "")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(profiles.list_all(session)) == before


@pytest.mark.parametrize("command", ["add-address", "set-address"])
def test_a_mailbox_that_another_account_uses_is_shared_where_somebody_says_so(flask_user, session, command):
    make_user(session, "alice")
    make_user(session, "bob")
    make_preference(session, "members", "bob@example.org", True)
    assert flask_user(command, "--shared", "alice", "bob@example.org").exit_code == 0
    assert "bob@example.org" in held(session)
    assert held(session, "bob") == ("bob@example.org",)


def test_a_mailbox_that_deactivated_accounts_hold_is_free(flask_user, session):
    make_user(session, "alice")
    make_user(session, "bob", is_active=False)
    assert flask_user("add-address", "alice", "bob@example.org").exit_code == 0
    assert held(session) == ("alice@example.org", "bob@example.org")


@pytest.mark.slow
def test_at_a_terminal_it_asks_before_sharing(app, instance, session):
    make_user(session, "alice")
    make_user(session, "bob")
    code, _, shown = at_a_terminal(instance, "add-address", "alice", "bob@example.org", answers=("n",))
    assert code == 1
    assert "bob@example.org is already used by bob" in shown
    assert held(session) == ("alice@example.org",)
    assert at_a_terminal(instance, "add-address", "alice", "bob@example.org", answers=("y",))[0] == 0
    assert held(session) == ("alice@example.org", "bob@example.org")
