"""`flask apikey`: what it prints where, and how it ends."""

import json
import re
from collections.abc import Callable

import pytest
from flask.testing import FlaskCliRunner
from sqlalchemy.orm import Session

from tests.factories import make_user

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(runner: FlaskCliRunner) -> Call:
    def run(*args: str) -> tuple[int, str, str]:
        result = runner.invoke(args=["apikey", *args])
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result.exit_code, result.stdout, result.stderr

    return run


@pytest.fixture
def bob(session: Session) -> int:
    return make_user(session, "bob", is_superuser=True)


def test_create_prints_the_key_alone_on_a_line(call, bob):
    code, stdout, stderr = call("create", "bob", "--label", "list host")
    assert code == 0
    assert re.fullmatch(r"mp_[a-z2-9]{8}_[A-Za-z0-9_-]{43}\n", stdout)
    assert "cannot be shown again" in stderr
    assert stdout.strip() not in stderr


def test_list_prints_what_is_known_and_never_a_key(call, bob):
    first = call("create", "bob", "--label", "list host")[1].strip()
    second = call("create", "bob", "--label", "Zoë's laptop", "--expires-days", "30")[1].strip()
    assert call("revoke", first[:11])[0] == 0
    code, stdout, stderr = call("list")
    assert (code, stderr) == (0, "")
    assert stdout == (
        "PREFIX       OWNER  ACTIVE  LABEL         CREATED               EXPIRES               REVOKED               "
        "LAST USED\n"
        f"{second[:11]}  bob    yes     Zoë's laptop  2026-11-22 06:00 UTC  2026-12-22 06:00 UTC  -                    "
        "         -\n"
        f"{first[:11]}  bob    yes     list host     2026-11-22 06:00 UTC  -                     2026-11-22 06:00 UTC "
        "         -\n"
    )
    records = json.loads(call("list", "--format", "json")[1])
    assert [each["prefix"] for each in records] == [second[:11], first[:11]]
    assert records[0] == {
        "prefix": second[:11], "username": "bob", "is_owner_active": True, "label": "Zoë's laptop",
        "created_at": "2026-11-22T06:00:00Z", "expires_at": "2026-12-22T06:00:00Z", "revoked_at": None, "last_used_at": None,
    }  # fmt: skip
    for key in (first, second):
        assert key[11:] not in stdout + json.dumps(records)


def test_revoke_ends_a_key_once(call, bob):
    prefix = call("create", "bob", "--label", "x")[1][:11]
    assert call("revoke", prefix) == (0, "", f"revoked {prefix}\n")
    assert call("revoke", prefix) == (0, "", f"{prefix} was already revoked; nothing changed\n")


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (
            ["create", "alice", "--label", "x"],
            "alice is not an active superuser; only active superusers can have API keys",
        ),
        (["create", "nobody", "--label", "x"], "no user is called nobody"),
        (["create", "bob", "--label", " "], "not a valid label: '' (1 to 80 printable characters)"),
        (["revoke", "mp_22222222"], "no API key has the prefix mp_22222222"),
        (
            ["revoke", "x"],
            "not the prefix of an API key: a prefix is mp_ and eight letters or digits; flask apikey list prints them",
        ),
    ],
)
def test_bad_input_is_65_and_one_line(call, session, bob, args, told):
    make_user(session, "alice")
    code, stdout, stderr = call(*args)
    assert (code, stdout, re.sub(r" \(docs/errors.md#[a-z-]+\)$", "", stderr)) == (65, "", f"error: {told}\n")


@pytest.mark.parametrize(
    "args",
    [
        ["create", "bob"],
        ["create", "--label", "x"],
        ["create", "bob", "--label", "x", "--expires-days", "0"],
        ["revoke"],
    ],
)
def test_a_wrong_call_is_2(call, bob, args):
    assert call(*args)[:2] == (2, "")
