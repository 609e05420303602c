"""A club, its membership database and what has to become of its accounts and lists: a model that knows nothing of ours.

``Club`` holds people as the database has them. Each month things happen to them, ``write`` exports the database, and
``follow`` works out what an import of that export makes of accounts, mailboxes and lists, in the plainest way.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from random import Random

HEADER = ("No.", "Login", "First", "Last", "E-Mail", "Status")
LISTS = ("members", "board")  # the second is for the group of its name


@dataclass(frozen=True)
class Person:
    """A member as the database has them."""

    key: str
    first: str
    last: str
    email: str
    groups: frozenset[str]

    @property
    def username(self) -> str:
        return f"m{self.key}"

    @property
    def name(self) -> str:
        return f"{self.first} {self.last}"


@dataclass
class Expected:
    """An account as it has to be; ``said`` is what the database said last of each field."""

    said: dict[str, str | frozenset[str]]
    name: str
    email: str
    groups: set[str]
    active: bool = True
    by_hand: bool = False  # deactivated by a person
    own_groups: set[str] = field(default_factory=set)
    held: set[str] = field(default_factory=set)  # mailboxes that were theirs


class Club:
    """The database, ``people`` by their keys, and what the portal has to make of it, by the same keys."""

    def __init__(self, size: int, *, seed: int = 1) -> None:
        self.chance = Random(seed)
        self.people: dict[str, Person] = {}
        self.gone: dict[str, Person] = {}
        self.guests: set[str] = set()  # keys of people who moved to a mailbox of others, and stay there
        self.unreadable: set[str] = set()  # keys whose address is mistyped in a way that nobody can read
        self.accounts: dict[str, Expected] = {}
        self.wanted: dict[str, dict[str, bool]] = {handle: {} for handle in LISTS}  # by mailbox
        self.let_go: dict[str, datetime] = {}  # since when nobody holds a mailbox
        self.count = 0
        for _ in range(size):
            self.join()
        for _ in range(size // 100):
            self.share()

    # What happens to people.

    def some(self, number: int, *, but: Collection[str] = ()) -> list[Person]:
        unfit = {*self.unreadable, *but}
        return self.chance.sample([each for key, each in self.people.items() if key not in unfit], number)

    def moving(self) -> set[str]:
        """Return the keys of people whose address changes this month already."""
        said = {key: each.said["email"] for key, each in self.accounts.items()}
        return {key for key, each in self.people.items() if said.get(key) != each.email.lower()}

    def put(self, person: Person, **changed: object) -> None:
        self.people[person.key] = replace(person, **changed)  # type: ignore[arg-type]

    def join(self) -> None:
        self.count += 1
        key = str(1000 + self.count)
        groups = {"full"} if self.chance.random() < 0.7 else {"associate"}
        if self.chance.random() < 0.02:
            groups.add("board")
        name = f"Zoë{key}", self.chance.choice(("Müller", "Lovelace", "d'Été"))
        self.people[key] = Person(key, *name, f"Member{key}@Example.org", frozenset(groups))

    def leave(self) -> None:
        (person,) = self.some(1)
        self.gone[person.key] = self.people.pop(person.key)

    def come_back(self) -> None:
        key = self.chance.choice(sorted(self.gone))
        person = self.gone.pop(key)
        is_alone = all(each.email != person.email for each in self.people.values())
        moved = is_alone and key not in self.guests and self.chance.random() < 0.3
        self.people[key] = replace(person, email=self.new_address(person)) if moved else person

    def new_address(self, person: Person) -> str:
        self.count += 1
        return f"{person.first.lower().replace('ë', 'e')}.{self.count}@home.example.net"

    def move(self) -> None:
        (person,) = self.some(1, but=self.guests)
        self.move_of(person)

    def move_of(self, person: Person) -> None:
        self.put(person, email=self.new_address(person))

    def marry(self) -> None:
        """Two have one name from now on, and some of them one mailbox."""
        one, other = self.some(2, but=self.guests)
        if shares := self.chance.random() < 0.5:
            self.guests.add(other.key)
        self.put(other, last=one.last + "-" + other.last, email=one.email if shares else other.email)

    def share(self) -> None:
        one, other = self.some(2)
        self.put(other, email=one.email)

    def swap(self) -> None:
        """Two addresses were mixed up; each is held by nobody else."""
        times: dict[str, int] = {}
        for each in (*self.people.values(), *self.gone.values()):
            times[each.email] = times.get(each.email, 0) + 1
        alone = [each for each in self.some(len(self.people) // 2, but=self.guests) if times[each.email] == 1]
        one, other = self.chance.sample(alone, 2)
        self.put(one, email=other.email)
        self.put(other, email=one.email)

    def change_groups(self) -> None:
        (person,) = self.some(1)
        group = self.chance.choice(("full", "associate", "board"))
        self.put(person, groups=person.groups ^ {group})

    def mistype(self) -> None:
        """An address that cannot be read, until it is corrected."""
        (person,) = self.some(1, but=self.moving())
        self.unreadable.add(person.key)

    def correct(self) -> None:
        self.unreadable.clear()

    def take_a_colleagues_address(self) -> Callable[[], None]:
        """A typo that is somebody's mailbox; what is returned corrects it."""
        one, other = self.some(2, but=self.guests | self.moving())
        self.put(one, email=other.email)
        self.guests.add(one.key)

        def correct() -> None:
            if one.key in self.people:
                self.put(self.people[one.key], email=one.email)

        return correct

    # The export.

    def lines(self, separator: str = ",") -> Iterator[str]:
        yield separator.join(HEADER)
        people = list(self.people.values())
        self.chance.shuffle(people)
        for each in people:
            email = each.email.replace("@", "@@") if each.key in self.unreadable else each.email
            groups = "|".join(sorted(each.groups))
            yield separator.join((each.key, each.username, each.first, each.last, email, groups))

    def write(self, *, encoding: str = "utf-8", separator: str = ",", end: str = "\n") -> bytes:
        return "".join(f"{line}{end}" for line in self.lines(separator)).encode(encoding)

    # What the portal has to make of it.

    def follow(self, now: datetime) -> None:
        """Import the database as it is, and let the lists be synced at once."""
        before = {key: (each.email, each.active) for key, each in self.accounts.items()}
        for key, account in self.accounts.items():
            if key not in self.people and key not in self.unreadable:
                account.active = False
        moves = {}
        for key, person in self.people.items():
            if key in self.unreadable:
                continue
            if key not in self.accounts:
                said: dict[str, str | frozenset[str]] = {
                    "name": person.name, "email": person.email.lower(), "groups": person.groups,
                }  # fmt: skip
                self.accounts[key] = Expected(said, person.name, person.email.lower(), set(person.groups))
                self.accounts[key].held.add(person.email.lower())
                continue
            account = self.accounts[key]
            account.active = not account.by_hand
            if person.name != account.said["name"]:
                account.name = person.name
            if person.email.lower() not in {account.said["email"], account.email}:
                moves[key] = account.email, person.email.lower()
            before_groups = account.said["groups"]
            assert isinstance(before_groups, frozenset)
            account.groups |= person.groups - before_groups
            account.groups -= (before_groups - person.groups) - account.own_groups
            account.said = {"name": person.name, "email": person.email.lower(), "groups": person.groups}
        self._move(moves, before)
        self._first_sights()
        self._forget(now)

    def _move(self, moves: dict[str, tuple[str, str]], before: dict[str, tuple[str, bool]]) -> None:
        """Let choices go along, unless somebody else is there already, or they come back."""
        stay = {
            email
            for key, (email, active) in before.items()
            if active and self.accounts[key].active and key not in moves
        }
        old = {handle: dict(wanted) for handle, wanted in self.wanted.items()}
        for key, (left, taken) in moves.items():
            account = self.accounts[key]
            account.email = taken
            for handle in LISTS:
                is_back = taken in account.held and taken in old[handle]
                if left in old[handle] and taken not in stay and not is_back:
                    self.wanted[handle][taken] = old[handle][left]
            account.held.add(taken)

    def _first_sights(self) -> None:
        """Whoever may see a list, and of whom nothing is known, is not on it."""
        for handle in LISTS:
            for email in self.managed(handle):
                self.wanted[handle].setdefault(email, False)

    def _forget(self, now: datetime) -> None:
        """Forget what was chosen for mailboxes that nobody has held for 90 days."""
        held = {each.email for each in self.accounts.values()}
        for email in {email for wanted in self.wanted.values() for email in wanted}:
            if email in held:
                self.let_go.pop(email, None)
            elif now - self.let_go.setdefault(email, now) > timedelta(days=90):
                for wanted in self.wanted.values():
                    wanted.pop(email, None)

    def managed(self, handle: str) -> set[str]:
        return {
            each.email
            for each in self.accounts.values()
            if each.active and (handle == "members" or handle in each.groups)
        }

    def roster(self, handle: str) -> set[str]:
        return {email for email in self.managed(handle) if self.wanted[handle][email]}
