"""Mailman 3: its answers, their meaning, and requests that are never sent."""

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import registry
from portal.listmanagers.base import HoldsRequests, ListManager, Result, TakesPasswords
from tests.fakes.mailman3 import FakeMailman3

ROOT = Path(__file__).parents[2]
TABLE = {"url": "http://127.0.0.1:1/3.1", "user": "admin", "password": "secret"}
ANTS = "ants@lists.example.org"


@pytest.fixture
def fake() -> Iterator[FakeMailman3]:
    with FakeMailman3() as fake:
        fake.make_list("ants")
        yield fake


def opened(fake: FakeMailman3, name: str = ANTS, *, email: str = "", **settings) -> ListManager:
    return registry.open_list(registry.read_settings("mailman3", {**fake.table(), **settings}), name, email=email)


def read(**settings) -> registry.BoundSettings:
    return registry.read_settings("mailman3", {**TABLE, **settings})


# Settings.


@pytest.mark.parametrize(
    "url",
    [
        "ftp://lists.example.org/3.1",
        "lists.example.org:8001/3.1",
        "http:///3.1",
        "http://lists.example.org:0/3.1",
        "http://lists.example.org:99999/3.1",
        "http://lists.example.org:x/3.1",
        "http://lists.example.org/3.1/",
        "http://lists.example.org/3.1?a=b",
        "http://lists.example.org/3.1#x",
        "http://lists.example.org/3.1\r\nX: y",
        "http://lists example.org/3.1",
        "",
    ],
)
def test_a_url_that_leads_nowhere_is_refused(url):
    with pytest.raises(ConfigurationError, match="`url` must"):
        read(url=url)


def test_a_url_holds_no_password():
    with pytest.raises(ConfigurationError, match="`url` must not contain a user") as caught:
        read(url="http://restadmin:hunter2@127.0.0.1:8001/3.1")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("user", ["", "a:b", "a\r\nb"])
def test_a_user_that_would_break_the_header_is_refused(user):
    with pytest.raises(ConfigurationError, match="`user`"):
        read(user=user)


@pytest.mark.parametrize(
    "secrets",
    [
        {},
        {"password": "a", "password_env": "B"},
        {"password": "a", "password_file": "/b"},
        {"password": "a", "password_file": "/b", "password_env": "C"},
    ],
)
def test_the_password_has_exactly_one_place(secrets):
    with pytest.raises(ConfigurationError, match="one of password, password_file, password_env, and only one"):
        registry.read_settings("mailman3", {"url": TABLE["url"], "user": "admin", **secrets})


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_password_may_stand_in_a_file(fake, tmp_path, end):
    (tmp_path / "rest_password").write_bytes(f"restpass{end}".encode())
    table = {"url": fake.url, "user": "restadmin", "password_file": "rest_password"}
    settings = registry.read_settings("mailman3", table, folder=tmp_path)
    assert list(registry.open_list(settings, ANTS).roster()) == []


def test_a_file_that_holds_no_password_is_named(tmp_path):
    table = {"url": TABLE["url"], "user": "admin", "password_file": "rest_password"}
    settings = registry.read_settings("mailman3", table, folder=tmp_path)
    with pytest.raises(ConfigurationError, match=r"password_file: .*/rest_password: No such file"):
        registry.open_list(settings, ANTS)
    (tmp_path / "rest_password").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigurationError, match=r"password_file: .*/rest_password: not UTF-8"):
        registry.open_list(settings, ANTS)
    (tmp_path / "rest_password").write_bytes(b"\n")
    with pytest.raises(ConfigurationError, match=r"password_file: .*/rest_password: the file is empty"):
        registry.open_list(settings, ANTS)


def test_the_password_may_stand_in_the_environment(fake, monkeypatch):
    table = {"url": fake.url, "user": "restadmin", "password_env": "REST_PASSWORD"}
    settings = registry.read_settings("mailman3", table)
    with pytest.raises(
        ConfigurationError, match="password_env: the environment variable REST_PASSWORD is missing or empty"
    ):
        registry.open_list(settings, ANTS)
    monkeypatch.setenv("REST_PASSWORD", "restpass")
    assert list(registry.open_list(settings, ANTS).roster()) == []


def test_the_password_is_never_shown():
    settings = read(password="hunter2")
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in repr(registry.open_list(settings, ANTS))


@pytest.mark.parametrize("name", ["", "-x", ".", "..", "a/b", "a\nb"])
def test_a_name_that_would_change_the_url_is_refused(name):
    with pytest.raises(ConfigurationError, match="a list name"):
        registry.open_list(read(), name)


def test_reading_settings_and_opening_a_list_do_not_pay_for_http():
    code = (
        "import sys; from portal.listmanagers import registry; "
        f"registry.open_list(registry.read_settings('mailman3', {TABLE}), 'ants'); "
        "sys.exit('urllib3' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


# The list.


@pytest.mark.parametrize(
    ("name", "email"),
    [
        ("ants@lists.example.org", ""),
        ("ANTS@Lists.Example.org", ""),
        ("ants.lists.example.org", ""),
        ("ants", "ants@lists.example.org"),
        ("insects", "Ants@lists.example.org"),
        ("ants", "anthill@lists.example.org"),
        ("ants.lists.example.org", "anthill@elsewhere.example.org"),
    ],
)
def test_a_list_is_found_by_its_name_its_address_or_its_handle(fake, name, email):
    fake.set_roster("ants", ["alice@example.org"])
    manager = opened(fake, name, email=email)
    assert manager.roster() == ["alice@example.org"]
    assert manager.add(["bob@example.org"])["bob@example.org"].result is Result.DONE
    assert [call.path for call in fake.calls].count("/lists/ants.lists.example.org") <= 1


def test_a_list_that_is_given_by_name_is_never_another_one(fake):
    with pytest.raises(NoSuchListError, match="has no list ants;"):
        opened(fake, "ants").roster()


def test_a_list_that_goes_away_is_said_so(fake):
    manager = opened(fake)
    manager.roster()
    fake.lists.clear()
    for call in (manager.roster, lambda: manager.add(["a@example.org"]), lambda: manager.remove(["a@example.org"])):
        with pytest.raises(NoSuchListError, match=r"has no list ants@lists\.example\.org; set `list`"):
            call()


def test_a_check_names_the_version_and_the_list(fake):
    fake.set_roster("ants", ["alice@example.org"])
    assert opened(fake).check() == ("GNU Mailman 3.3.10 (Tom Sawyer): ants.lists.example.org found, subscribers: 1")


def test_a_url_without_the_version_of_the_api_is_said_so(fake):
    with pytest.raises(ListManagerUnavailableError, match=r"status 404.*check that `url` is the address"):
        opened(fake, url=fake.url.removesuffix("/3.1")).check()


# The roster.


def test_a_roster_is_read_in_pages_of_a_thousand_with_the_address_alone(fake):
    everybody = [f"user{number:04}@example.org" for number in range(2500)]
    fake.set_roster("ants", everybody)
    assert opened(fake).roster() == everybody
    assert [call.path.partition("?")[2] for call in fake.calls[1:]] == [
        f"fields=email&count={count}&page={page}"
        for count, page in [(1000, 1), (1000, 2), (1, 1000), (1000, 3), (1, 2000)]  # and who stands at each border
    ]


@pytest.mark.parametrize("size", [0, 1, 999, 1000, 1001, 2000])
def test_a_roster_ends_where_it_ends(fake, size):
    fake.set_roster("ants", [f"user{number:04}@example.org" for number in range(size)])
    assert len(opened(fake).roster()) == size


def test_a_roster_that_changes_while_it_is_read_is_read_again(fake, monkeypatch):
    # Who stands first leaves between two pages: everybody moves up, and one would be missed.
    everybody = [f"user{number:04}@example.org" for number in range(1500)]
    fake.set_roster("ants", everybody)
    answer = fake.answer

    def leave_after_the_first_page(call):
        answered = answer(call)
        if call.path.endswith("page=1"):
            fake.get_list("ants").members.pop("user0000@example.org", None)
        return answered

    monkeypatch.setattr(fake, "answer", leave_after_the_first_page)
    assert opened(fake).roster() == everybody[1:]


def test_who_moves_past_the_border_of_two_pages_is_not_missed_where_the_count_stays_the_same(fake, monkeypatch):
    # The first one leaves and another joins at the end: as many as before, and one at the border was on neither page.
    everybody = [f"user{number:04}@example.org" for number in range(2500)]
    fake.set_roster("ants", everybody)
    answer = fake.answer

    def change_after_the_first_page(call):
        answered = answer(call)
        if call.path.endswith("count=1000&page=1"):
            fake.set_roster("ants", [*everybody[1:], "zoe@example.org"])
        return answered

    monkeypatch.setattr(fake, "answer", change_after_the_first_page)
    assert opened(fake).roster() == [*everybody[1:], "zoe@example.org"]


def test_a_proxy_that_answers_each_page_with_the_first_is_no_list_manager(fake, monkeypatch):
    fake.set_roster("ants", [f"user{number:04}@example.org" for number in range(2000)])
    answer = fake.answer

    def cached(call):
        return answer(call._replace(path=re.sub("page=[0-9]+", "page=1", call.path)))

    monkeypatch.setattr(fake, "answer", cached)
    with pytest.raises(ListManagerUnavailableError, match="the roster changed while it was read"):
        opened(fake).roster()


@pytest.mark.parametrize("claimed", [0, 2, 4, 1500])
def test_a_roster_that_is_not_as_long_as_mailman_says_is_in_doubt(fake, monkeypatch, claimed):
    fake.set_roster("ants", [f"user{number}@example.org" for number in range(3)])
    answer = fake.answer

    def claiming(call):
        status, data = answer(call)
        return status, {**data, "total_size": claimed} if "total_size" in data else data

    monkeypatch.setattr(fake, "answer", claiming)
    with pytest.raises(ListManagerUnavailableError, match=f"3 entries, but reports {claimed}"):
        opened(fake).roster()


@pytest.mark.parametrize(
    "data",
    [
        [],
        {},
        {"total_size": "3"},
        {"total_size": 1, "entries": {}},
        {"total_size": 1, "entries": ["alice@example.org"]},
        {"total_size": 1, "entries": [{"address": "alice@example.org"}]},
        {"total_size": 1, "entries": [{"email": None}]},
        {"total_size": None, "entries": []},
    ],
)
def test_json_that_is_no_roster_is_refused(fake, monkeypatch, data):
    answer = fake.answer
    monkeypatch.setattr(fake, "answer", lambda call: (200, data) if "roster" in call.path else answer(call))
    with pytest.raises(ListManagerUnavailableError):
        opened(fake).roster()


# Adding.


def test_an_add_is_one_request_an_address_that_keeps_mailman_quiet(fake):
    opened(fake).add(["Alice@example.org", "bob@example.org"])
    posts = [call for call in fake.calls if call.method == "POST"]
    assert [dict(call.form) for call in posts] == [
        {
            "list_id": "ants.lists.example.org",
            "subscriber": address,
            "pre_verified": "true",
            "pre_confirmed": "true",
            "pre_approved": "true",
            "send_welcome_message": "false",
        }
        for address in ("Alice@example.org", "bob@example.org")
    ]
    assert {call.path for call in posts} == {"/members"}
    assert fake.mails == []


def test_every_answer_to_an_add_has_its_meaning(fake):
    fake.set_roster("ants", ["member@example.org"])
    fake.hold("ants", "held@example.org")
    fake.get_list("ants").bans.add("banned@example.org")
    addresses = ["new@example.org", "Member@example.org", "held@example.org", "banned@example.org", ANTS]
    addresses += ["a^b@example.org", "a@localhost", "jörg@example.org", "a@ex_ample.org", "no address"]
    assert {address: tuple(outcome) for address, outcome in opened(fake).add(addresses).items()} == {
        "new@example.org": (Result.DONE, ""),
        "Member@example.org": (Result.ALREADY, "Member already subscribed"),
        "held@example.org": (Result.PENDING, "Subscription request already pending"),
        "banned@example.org": (Result.REJECTED, "Membership is banned"),
        ANTS: (Result.REJECTED, "List posting address cannot subscribe"),
        "a^b@example.org": (Result.REJECTED, "Mailman 3 does not accept the character ^"),
        "a@localhost": (
            Result.REJECTED,
            "Mailman 3 accepts only domains of letters, digits and dashes, with at least one dot",
        ),
        "jörg@example.org": (Result.REJECTED, "Mailman 3 accepts only ASCII addresses"),
        "a@ex_ample.org": (
            Result.REJECTED,
            "Mailman 3 accepts only domains of letters, digits and dashes, with at least one dot",
        ),
        "no address": (Result.REJECTED, "not an e-mail address"),
    }
    assert fake.roster("ants") == {"member@example.org", "new@example.org"}


def test_mail_that_bounces_switched_off_does_not_go_along(fake):
    fake.set_roster("ants", ["bob@example.org"], digest=["charlie@example.org", "dora@example.org"])
    for address, status in [("bob", "by_bounces"), ("charlie", "by_bounces"), ("dora", "by_moderator")]:
        fake.get_list("ants").statuses[f"{address}@example.org"] = status
    found = opened(fake).options(["bob@example.org", "charlie@example.org", "dora@example.org"])
    assert {address: tuple(each) for address, each in found.items()} == {
        "charlie@example.org": ("delivery_mode=mime_digests", False),
        "dora@example.org": ("delivery_mode=mime_digests&delivery_status=by_moderator", True),
    }
    assert opened(fake).deliveries(["bob@example.org", "charlie@example.org", "dora@example.org", "nobody@a.org"]) == {
        "bob@example.org": (False, "bounces", None),
        "charlie@example.org": (True, "bounces", None),
        "dora@example.org": (True, "chosen", None),
    }


def test_an_add_that_mailman_holds_is_pending(fake):
    fake.get_list("ants").moderated = True
    outcome = opened(fake).add(["bob@example.org"])["bob@example.org"]
    assert outcome.result is Result.PENDING


def test_what_waits_for_the_member_is_told_apart_from_what_waits_for_a_moderator(fake):
    fake.hold("ants", "bob@example.org", owner="subscriber")
    fake.hold("ants", "charlie@example.org")
    outcomes = opened(fake).add(["Bob@example.org", "charlie@example.org", "dora@example.org"])
    assert {address: outcome.result for address, outcome in outcomes.items()} == {
        "Bob@example.org": Result.CONFIRM,
        "charlie@example.org": Result.PENDING,
        "dora@example.org": Result.DONE,
    }


def test_an_address_that_mailman_refuses_in_words_of_its_own_stops_no_other(fake, monkeypatch):
    answer = fake.answer
    odd = (400, {"title": "400 Bad Request", "description": "Not on a\x07 Sunday"})
    monkeypatch.setattr(
        fake, "answer", lambda call: odd if ("subscriber", "a@example.org") in call.form else answer(call)
    )
    outcomes = opened(fake).add(["a@example.org", "b@example.org"])
    assert tuple(outcomes["a@example.org"]) == (Result.REJECTED, "Not on a\ufffd Sunday")
    assert outcomes["b@example.org"].result is Result.DONE


@pytest.mark.parametrize("mode", ["locked", "race", "error", "close"])
def test_an_add_that_fails_once_for_reasons_of_mailmans_own_is_sent_again(fake, mode):
    manager = opened(fake)
    manager.roster()
    fake.act(mode, times=1)
    assert manager.add(["bob@example.org"])["bob@example.org"].result is Result.DONE
    assert fake.roster("ants") == {"bob@example.org"}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["locked", "race", "error", "close", "refuse"])
def test_an_add_that_fails_twice_is_a_failure_of_mailman(fake, mode):
    manager = opened(fake)
    manager.roster()
    fake.act(mode)
    with pytest.raises(ListManagerUnavailableError, match=r"^POST http://127\.0\.0\.1:.*/3.1/members: "):
        manager.add(["bob@example.org"])
    assert fake.roster("ants") == set()


def test_an_add_whose_answer_was_lost_counts_as_taken(fake, monkeypatch):
    answer, lost = fake.answer, []

    def lose_the_first(call):
        answered = answer(call)
        if call.method == "POST" and not lost:
            lost.append(call)
            raise ConnectionError
        return answered

    monkeypatch.setattr(fake, "answer", lose_the_first)
    assert opened(fake).add(["bob@example.org"])["bob@example.org"].result is Result.ALREADY
    assert fake.roster("ants") == {"bob@example.org"}


def test_a_call_is_over_in_time_however_many_addresses_it_has(fake):
    manager = opened(fake, timeout=0.3, timeout_per_address=0.05)
    manager.roster()
    fake.act("hang")
    started = time.monotonic()
    with pytest.raises(ListManagerUnavailableError, match=r"no complete answer within 0\.5 seconds"):
        manager.add([f"user{number}@example.org" for number in range(4)])
    assert time.monotonic() - started < manager.timeout(4) + 1


# Removing.


def test_a_removal_is_one_request_for_five_hundred_in_lower_case(fake):
    everybody = [f"User{number}@example.org" for number in range(1100)]
    fake.set_roster("ants", everybody)
    outcomes = opened(fake).remove(everybody)
    assert {outcome.result for outcome in outcomes.values()} == {Result.DONE}
    assert list(outcomes) == everybody
    deletions = [call for call in fake.calls if call.method == "DELETE"]
    assert [len(call.form) for call in deletions] == [500, 500, 100]
    assert all(value == value.lower() for call in deletions for _key, value in call.form)
    assert fake.mails == []


def test_what_is_on_a_list_can_leave_it_odd_or_not(fake):
    odd = ["a^b@example.org", "a/b@example.org", "a@localhost", "ö@example.org"]
    fake.set_roster("ants", odd)
    assert {each.result for each in opened(fake).remove(odd).values()} == {Result.DONE}
    assert fake.roster("ants") == set()


def test_an_answer_that_is_silent_about_an_address_is_refused(fake, monkeypatch):
    answer = fake.answer
    silent = (200, {"a@example.org": True})
    monkeypatch.setattr(fake, "answer", lambda call: silent if call.method == "DELETE" else answer(call))
    with pytest.raises(ListManagerUnavailableError, match="DELETE"):
        opened(fake).remove(["a@example.org", "b@example.org"])


# Held requests.


def test_a_held_request_is_withdrawn_quietly_whoever_it_waits_for(fake):
    fake.hold("ants", "alice@example.org")
    fake.hold("ants", "bob@example.org", owner="subscriber")
    fake.hold("ants", "charlie@example.org")
    manager = opened(fake)
    assert isinstance(manager, HoldsRequests)
    assert manager.withdraw(["Alice@example.org", "bob@example.org", "dora@example.org"]) == {
        "Alice@example.org",
        "bob@example.org",
    }
    assert [email for email, _owner in fake.get_list("ants").requests.values()] == ["charlie@example.org"]
    assert fake.mails == []


def test_a_request_that_is_gone_by_then_was_not_withdrawn(fake, monkeypatch):
    token = fake.hold("ants", "alice@example.org")
    answer = fake.answer

    def decide_meanwhile(call):
        answered = answer(call)
        if call.method == "GET" and "requests" in call.path:
            fake.get_list("ants").requests.pop(token)
        return answered

    monkeypatch.setattr(fake, "answer", decide_meanwhile)
    assert opened(fake).withdraw(["alice@example.org"]) == set()


# Passwords.


def test_a_password_is_set_at_the_user_and_somebody_unknown_is_said_so(fake):
    fake.set_roster("ants", ["Alice+x%y@example.org", "bob/b@example.org"])
    manager = opened(fake)
    assert isinstance(manager, TakesPasswords)
    outcomes = manager.set_passwords(
        [("Alice+x%y@example.org", "pä&s=s"), ("dora@example.org", "x"), ("bob/b@example.org", "y"), ("no", "z")]
    )
    assert [(outcome.result, outcome.words) for outcome in outcomes.values()] == [
        (Result.DONE, ""),
        (Result.REJECTED, "Mailman has no such user"),
        (Result.REJECTED, "Mailman has no such user, or cannot find the user because of the slash"),
        (Result.REJECTED, "not an e-mail address"),
    ]
    assert fake.passwords == {"alice+x%y@example.org": "pä&s=s"}
    assert manager.password_call() == f"PATCH {fake.url}/users/ADDRESS cleartext_password=PASSWORD"


@pytest.mark.parametrize("status", [200, 400, 418, 500])
def test_a_server_that_repeats_a_password_is_not_repeated(fake, monkeypatch, status):
    echo = (status, {"title": "no", "description": "Invalid cleartext_password: hunter2"})
    monkeypatch.setattr(fake, "answer", lambda _call: echo)
    manager = opened(fake)
    try:
        said = str(manager.set_passwords([("alice@example.org", "hunter2")]))
    except ListManagerUnavailableError as error:
        said = str(error)
    assert "hunter2" not in said
    assert status != 400 or "Mailman refuses this password" in said


# Nothing else.


def test_nothing_but_subscribers_is_ever_asked_for(fake):
    fake.set_roster("ants", ["bob@example.org"])
    fake.hold("ants", "dora@example.org")
    manager = opened(fake)
    manager.check()
    manager.roster()
    manager.add(["alice@example.org"])
    manager.remove(["bob@example.org"])
    manager.withdraw(["dora@example.org"])
    manager.set_passwords([("alice@example.org", "x")])
    kinds = {(call.method, call.path.partition("?")[0].rpartition("/")[0]) for call in fake.calls}
    assert kinds == {
        ("GET", "/system"),
        ("GET", "/lists"),
        ("GET", "/lists/ants.lists.example.org"),  # requests
        ("GET", "/lists/ants.lists.example.org/roster"),
        ("POST", ""),  # members
        ("DELETE", "/lists/ants.lists.example.org/roster"),
        ("POST", "/lists/ants.lists.example.org/requests"),
        ("PATCH", "/users"),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "mode", ["refuse", "close", "hang", "drip", "garbage", "wrong", "redirect", "unauthorized", "huge", "error"]
)
@pytest.mark.parametrize("call", ["check", "roster", "add", "remove", "withdraw", "set_passwords"])
def test_whatever_fails_is_one_line(fake, mode, call):
    manager = opened(fake, timeout=0.3, timeout_per_address=0, max_output=100_000)
    arguments = {"check": [], "roster": [], "set_passwords": [[("a@example.org", "hunter2")]]}
    fake.act(mode, at=1 if call not in {"check", "set_passwords"} else 0)
    with pytest.raises(ListManagerUnavailableError) as caught:
        getattr(manager, call)(*arguments.get(call, [["a@example.org"]]))
    assert str(caught.value).isprintable()
    assert fake.url in str(caught.value) or "Mailman answered without" in str(caught.value)
    assert "restpass" not in str(caught.value)
    assert "hunter2" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_all_names_of_a_list_are_one_list(fake):
    names = ("ants", "ants@lists.example.org", "ants.lists.example.org")
    assert len({opened(fake, each, email="ants@lists.example.org").identity() for each in names}) == 1
