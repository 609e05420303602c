"""The state of one address on one list as a person sees it."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.domain.outlook import Detail, KnownPreference, State, outlook

AT = datetime(2026, 11, 22, 6, 0, tzinfo=UTC)
EARLIER, LATER = AT - timedelta(days=3), AT + timedelta(hours=12)
PROMISE = timedelta(hours=12)

ON = KnownPreference(True, "user", AT, seen=True)
OFF = KnownPreference(False, "user", AT, seen=False)
TICKED = KnownPreference(True, "user", AT, seen=False)
UNTICKED = KnownPreference(False, "user", AT, seen=True)


def look(known, *, now=AT, **values):
    return outlook(known, now=now, promise=PROMISE, **values)


@pytest.mark.parametrize(
    ("known", "state", "detail"),
    [
        (None, State.NOT_CHOSEN, Detail("next_run")),
        (ON, State.SUBSCRIBED, Detail("chosen", AT)),
        (OFF, State.NOT_SUBSCRIBED, Detail("chosen", AT)),
        (OFF._replace(seen=None), State.NOT_SUBSCRIBED, Detail("chosen", AT)),
        (TICKED, State.BEING_ADDED, Detail("add_by", LATER)),
        (TICKED._replace(seen=None), State.BEING_ADDED, Detail("add_by", LATER)),
        (UNTICKED, State.BEING_REMOVED, Detail("remove_by", LATER)),
        (ON._replace(source="list"), State.SUBSCRIBED, Detail("joined", AT)),
        (OFF._replace(source="list"), State.NOT_SUBSCRIBED, Detail("left", AT)),
        (ON._replace(source="init"), State.SUBSCRIBED, Detail("init_on", AT)),
        (OFF._replace(source="init"), State.NOT_SUBSCRIBED, Detail("init_off", AT)),
        (ON._replace(source="superuser"), State.SUBSCRIBED, Detail("chosen", AT)),
        (ON._replace(source="rule"), State.SUBSCRIBED, Detail("chosen", AT)),
        (ON._replace(source="rule", is_new_member=True), State.SUBSCRIBED, Detail("new_member", AT)),
        (TICKED._replace(waiting_since=EARLIER), State.BEING_ADDED, Detail("add_by", LATER)),
        (
            TICKED._replace(waiting_since=EARLIER, push_result="pending", refused_at=AT),
            State.WAITING,
            Detail("waiting", EARLIER),
        ),
        (TICKED._replace(push_result="pending", refused_at=AT), State.WAITING, Detail("waiting", AT)),
        (
            TICKED._replace(waiting_since=EARLIER, push_result="confirm", refused_at=AT),
            State.UNCONFIRMED,
            Detail("unconfirmed", EARLIER),
        ),
        (
            TICKED._replace(waiting_since=EARLIER, push_result="undone", refused_at=AT),
            State.NOT_ADDED,
            Detail("not_added", AT),
        ),
        (
            TICKED._replace(push_result="rejected", refusal="banned", refused_at=EARLIER),
            State.REFUSED,
            Detail("refused", EARLIER, "banned"),
        ),
        (
            UNTICKED._replace(push_result="undone", refused_at=EARLIER),
            State.BEING_REMOVED,
            Detail("not_removed", EARLIER),
        ),
        (
            UNTICKED._replace(push_result="rejected", refusal="may not leave", refused_at=EARLIER),
            State.BEING_REMOVED,
            Detail("remove_refused", EARLIER, "may not leave"),
        ),
        (UNTICKED._replace(waiting_since=EARLIER), State.BEING_REMOVED, Detail("remove_by", LATER)),
        (OFF._replace(waiting_since=EARLIER), State.NOT_SUBSCRIBED, Detail("chosen", AT)),
        (ON._replace(refusal="banned", refused_at=EARLIER), State.SUBSCRIBED, Detail("chosen", AT)),
    ],
)
def test_a_state_and_what_is_said_beneath_it(known, state, detail):
    assert look(known) == (state, detail)


def test_who_is_new_to_a_list_that_subscribes_new_members_is_told_before_it_does():
    assert look(None, is_new_member=True) == (State.BEING_ADDED, Detail("new_member_due"))


@pytest.mark.parametrize(("known", "kind"), [(TICKED, "add"), (UNTICKED, "remove")])
def test_what_was_due_is_delayed(known, kind):
    assert look(known, now=LATER)[1] == Detail(f"{kind}_by", LATER)
    assert look(known, now=LATER + timedelta(microseconds=1))[1] == Detail(f"{kind}_overdue", LATER)


@pytest.mark.parametrize("known", [ON, OFF, TICKED, UNTICKED])
def test_what_another_holder_did_is_said_to_be_theirs(known):
    assert look(known, by_other=True)[1].by_other
    assert not look(known)[1].by_other


knowns = st.builds(
    KnownPreference,
    subscribed=st.booleans(),
    source=st.sampled_from(["user", "superuser", "init", "list", "rule", "import"]),
    changed_at=st.just(AT),
    seen=st.sampled_from([None, True, False]),
    waiting_since=st.sampled_from([None, EARLIER]),
    push_result=st.sampled_from([None, "pending", "confirm", "undone", "rejected"]),
    refusal=st.sampled_from([None, "banned"]),
    refused_at=st.just(EARLIER),
)


@given(known=knowns)
def test_nobody_is_told_that_they_are_where_they_are_not(known):
    state, _detail = look(known)
    assert (state is State.SUBSCRIBED) == (known.subscribed and known.seen is True)
    assert (state is State.NOT_SUBSCRIBED) == (not known.subscribed and known.seen is not True)


@given(known=knowns)
def test_whoever_waits_for_something_is_told_since_when_or_by_when(known):
    _state, detail = look(known)
    assert detail.at is not None
