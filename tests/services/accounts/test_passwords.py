"""Passwords: how they are hashed and compared, and which are refused."""

import base64
import hashlib
import hmac

import bcrypt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from portal.errors import WeakPasswordError
from portal.services.accounts import passwords

OWN = ["alice", "Alice Liddell", "alice.liddell@example.org"]


def hashed(password: str) -> str:
    return passwords.hash_password(password, rounds=4)


def imported(password: bytes, prefix: str = "$2b$") -> str:
    return prefix + bcrypt.hashpw(password, bcrypt.gensalt(4)).decode()[4:]


def test_a_hash_is_bcrypt_of_base64_of_an_hmac():
    stored = hashed("correct horse")
    digest = base64.b64encode(hmac.digest(passwords._LABEL, b"correct horse", hashlib.sha384))
    assert stored.startswith("v1$$2b$04$")
    assert bcrypt.checkpw(digest, stored.removeprefix("v1$").encode())
    assert len(stored) <= 128


@pytest.mark.slow
@settings(max_examples=30)
@given(st.text(st.characters(exclude_categories=[])))
def test_every_password_opens_its_own_hash_and_no_other(password):
    stored = hashed(password)
    assert passwords.verify(password, stored) == (True, False)
    assert passwords.verify(password + "x", stored) == (False, False)


@pytest.mark.parametrize("start", ["x" * 72, "é" * 36, "x" * 71 + "é"])
def test_passwords_alike_in_72_bytes_do_not_open_each_other(start):
    assert not passwords.verify(start + "b", hashed(start + "a")).is_right


def test_a_password_of_64_emoji_works():
    assert passwords.verify("😀" * 64, hashed("😀" * 64)).is_right


@pytest.mark.parametrize("prefix", ["$2a$", "$2b$", "$2y$"])
def test_an_imported_hash_is_compared_and_asks_for_another(prefix):
    assert passwords.verify("geheim", imported(b"geheim", prefix)) == (True, True)
    assert passwords.verify("falsch", imported(b"geheim", prefix)) == (False, False)


@pytest.mark.parametrize("typed", ["caf\u00e9 au lait", "cafe\u0301 au lait"])
def test_a_password_opens_in_whichever_form_it_is_typed(typed):
    for stored in (hashed("caf\u00e9 au lait"), hashed("cafe\u0301 au lait")):
        assert passwords.verify(typed, stored, rounds=4) == (True, False)


def test_a_hash_of_what_was_typed_before_passwords_were_nfc_opens_and_asks_for_another():
    typed = "cafe\u0301 au lait"
    before = "v1$" + bcrypt.hashpw(passwords._shortened(typed), bcrypt.gensalt(4)).decode()
    for stored in (before, imported(typed.encode())):
        assert passwords.verify(typed, stored, rounds=4) == (True, True)
        assert not passwords.verify("cafe au lait", stored, rounds=4).is_right


def test_an_imported_hash_of_a_long_password_was_made_of_72_bytes():
    assert passwords.verify("x" * 100, imported(b"x" * 72)) == (True, True)
    assert passwords.verify("é" * 50, imported(("é" * 50).encode()[:72])) == (True, True)


def test_a_hash_of_another_cost_asks_for_another():
    assert passwords.verify("geheim", hashed("geheim"), rounds=4) == (True, False)
    assert passwords.verify("geheim", hashed("geheim"), rounds=5) == (True, True)
    assert passwords.verify("falsch", hashed("geheim"), rounds=5) == (False, False)


@pytest.mark.parametrize(
    "stored",
    [
        None,
        "",
        "!",
        "v1$",
        "v1$!",
        "geheim",
        "$2b$04$short",
        "$2b$31$" + "." * 53,  # would be at work for days
        "$2b$04$" + "9" * 53,
        "$2x$04$" + "." * 53,
        "$1$salt$abcdefghijklmnopqrstuv",
        "$argon2id$v=19$m=65536,t=3,p=4$c29tZXNhbHQ$aGFzaA",
        "v1$" + "\0" * 60,
        "v1$$2b$04$" + "é" * 53,
        "v1$v1$$2b$04$" + "." * 53,
        "\ud800",
    ],
)
@pytest.mark.parametrize("password", ["geheim", "", "\0", "\ud800", "x" * 100])
def test_garbage_is_a_wrong_password_after_one_comparison(stored, password, monkeypatch):
    real, calls = bcrypt.checkpw, []
    monkeypatch.setattr(bcrypt, "checkpw", lambda *each: calls.append(each) or real(*each))
    assert passwords.verify(password, stored, rounds=4) == (False, False)
    assert len(calls) == 1
    assert calls[0][1][4:6] == b"04"


def test_a_password_with_a_nul_never_matches_an_imported_hash():
    """bcrypt repeats a password and a NUL to 72 bytes, so to it the two are one."""
    stored = imported(b"geheim", "$2y$")
    assert bcrypt.checkpw(b"geheim\0geheim", stored.encode())
    assert passwords.verify("geheim\0geheim", stored) == (False, False)
    assert passwords.verify("geheim", stored).is_right


def test_what_an_import_may_bring_along():
    assert all(passwords.is_hash(each) for each in (hashed("x"), imported(b"x", "$2y$"), imported(b"x", "$2a$")))
    assert not any(passwords.is_hash(each) for each in ("", "!", "$2b$31$" + "." * 53, "md5"))


@pytest.mark.parametrize(
    "password",
    [
        "eleven char",
        "password1234",
        "Password2026!",
        "QWERTYUIOPAS",
        "123456789012",
        "correcthorsebatterystaple",
        "aaaaaaaaaaaa",
        "ababababababab",
        "xyzxyzxyzxyzx",
        "alice.liddell@example.org",
        "Alice Liddell",
        "aliceliddell",
        "alice.liddell1",
        "1234alice1234",
        "x" * 1025,
        "a long one with a \0 in it",
        "a long one with a \ud800 in it",
    ],
)
def test_a_weak_password_is_refused_and_not_repeated(password):
    with pytest.raises(WeakPasswordError) as caught:
        passwords.check_strength(password, own=OWN)
    assert password not in str(caught.value)


@pytest.mark.parametrize(
    "password",
    [
        "twelve chars",
        "correct horse 8 batteries",
        "839201748391",
        "alice likes green bananas",
        "x" * 60 + "yz",
        "😀🎈🐈 🐕🐖🐗🐘 🐙🐚🐛🐜",
        "passwords are like toothbrushes",
        " leading and trailing ",
    ],
)
def test_there_are_no_rules_about_kinds_of_characters(password):
    passwords.check_strength(password, own=[*OWN, "", "Al"])


def test_random_passwords_are_strong_and_differ():
    made = {passwords.random_password() for _ in range(100)}
    assert len(made) == 100
    for each in made:
        passwords.check_strength(each, own=OWN)
        assert each.isalnum()
