"""What imports and superusers do to accounts, as moves of the promises' state machine: import, link, merge, rename."""

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import rule
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.membership import Limits
from portal.domain.membership_file import Columns
from portal.errors import BadInputError
from portal.models import Address, User, UserAddress
from portal.services.accounts import profiles, users
from portal.services.history import COMMAND_LINE
from portal.services.membership import importing, linking, merging
from tests.conftest import Clock

PEOPLE = ("alice", "bob", "charlie", "dora")
LISTS = ("members", "board")
MAILBOXES = tuple(f"{name}@example.org" for name in ("alice", "bob", "dora", "dora2", "new1", "new2"))
SECRET = b"a secret of the tests"
COLUMNS = Columns(key="key", username="username", groups=("groups",))
people = st.sampled_from(PEOPLE)
members = st.fixed_dictionaries(  # what the source says of each: not named, or main and further addresses and a group
    dict.fromkeys(
        PEOPLE, st.none() | st.tuples(st.lists(st.sampled_from(MAILBOXES), max_size=2), st.sampled_from(["", "board"]))
    )
)


class MemberMoves:
    """Moves of a state machine that has these, and ``acts``, what a person visibly did last with a mailbox."""

    session: Session
    clock: Clock
    catalogue: Catalogue
    acts: dict[tuple[str, str], str]

    def _seats(self) -> dict[int, tuple[bool, frozenset[str]]]:
        """Return whether each account is active, and what it holds."""
        with self.session.begin():
            query = (
                select(User.id, User.is_active, Address.canonical)
                .outerjoin(UserAddress, UserAddress.user_id == User.id)
                .outerjoin(Address, Address.id == UserAddress.address_id)
            )
            found: dict[int, tuple[bool, frozenset[str]]] = {}
            for user_id, is_active, mailbox in self.session.execute(query):
                held = found.get(user_id, (is_active, frozenset()))[1]
                found[user_id] = is_active, held | ({mailbox} if mailbox else frozenset())
        return found

    def _forget_acts(self, before: dict[int, tuple[bool, frozenset[str]]]) -> None:
        """Whoever came or went since: nobody's own act is the last one at the mailboxes that they had or have."""
        after = self._seats()
        for user_id in before.keys() | after.keys():
            old, new = before.get(user_id), after.get(user_id)
            if old != new:
                for mailbox in (old[1] if old else frozenset()) | (new[1] if new else frozenset()):
                    for handle in LISTS:
                        self.acts[mailbox, handle] = ""

    def _preferences(self) -> Any:
        return [self._stored(handle) for handle in LISTS]  # type: ignore[attr-defined]

    @rule(said=members)
    def the_source_is_imported(self, said: dict[str, tuple[list[str], str] | None]) -> None:
        rows = "".join(
            f"k-{name},{name},{' '.join(row[0])},{row[1]}\n" for name, row in said.items() if row is not None
        )
        request = importing.Request(
            content=f"key,username,email,groups\n{rows or ',,,'}\n".encode(),
            columns=COLUMNS,
            source="a test",
            actor=COMMAND_LINE,
            clock=self.clock,
            lists=self.catalogue.lists,
            secret=SECRET,
            deactivates_leavers=True,
            limits=Limits(100, 100, 100, 100),
        )
        before = self._seats()
        try:
            plan = importing.preview(self.session, request)
            importing.run(self.session, request, accept=plan.plan_id)
        except BadInputError:
            assert not rows
            return
        self.clock.advance(seconds=1)
        self._forget_acts(before)
        stored = self._preferences()
        again = importing.run(self.session, request)
        writes = ("created", "linked", "changed", "reactivated", "deactivated")
        assert [name for name in writes if again.counts[name]] == [], "a second import does nothing"
        assert self._preferences() == stored

    @rule(name=people)
    def link_or_unlink(self, name: str) -> None:
        before = self._preferences()
        try:
            key = profiles.by_username(self.session, name).member_key
            if key is None:
                linking.link(self.session, name, f"k-{name}", secret=SECRET)
            else:
                linking.unlink(self.session, name)
        except BadInputError:  # there is no such account, or another one has the key
            return
        assert self._preferences() == before, "nothing changes until the next import"

    @rule(name=people)
    def rename_there_and_back(self, name: str) -> None:
        before = self._preferences(), self._seats()
        try:
            users.rename(self.session, name, to=f"{name}.other")
        except BadInputError:
            return
        users.rename(self.session, f"{name}.other", to=name)
        assert (self._preferences(), self._seats()) == before, "a username is nothing to the lists"

    @rule(gone=people, kept=people)
    def merge(self, gone: str, kept: str) -> None:
        """INTO holds what both held, a list sends to one of theirs, and what others hold stays."""
        before = self._seats()
        try:
            one, other = (profiles.by_username(self.session, each) for each in (gone, kept))
            wanted = merging.Merge(gone, kept, keep_key=other.member_key if one.member_key else None)
            values: dict[str, Any] = {"now": self.clock(), "lists": self.catalogue.lists, "secret": SECRET}
            preview = merging.preview(self.session, wanted, **values)
            assert self._seats() == before
            done = merging.merge(self.session, wanted, **values)
        except BadInputError:
            assert gone == kept or len([each for each in (gone, kept) if self._is_there(each)]) < 2
            return
        assert done == preview, "it does what was shown"
        self.clock.advance(seconds=1)
        self._forget_acts(before)
        assert self._seats()[other.id] == (before[other.id][0], before[one.id][1] | before[other.id][1])

    def _is_there(self, name: str) -> bool:
        return any(each.username == name for each in profiles.list_all(self.session))
