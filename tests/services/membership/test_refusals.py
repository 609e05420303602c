"""What is said of a line that cannot be imported: where it is, which column, what stands there, and what to do."""

import pytest
from sqlalchemy.orm import Session

from portal.domain.membership_file import Columns
from portal.services.accounts import profiles
from portal.services.membership import linking
from tests.factories import make_user
from tests.services.membership.conftest import Membership

GOOD = "1,ada,ada@example.org,Ada,full"
AGAIN = "correct it in the source"
# Lines after GOOD; the key and username that are shown of each problem; words of its reason.
REFUSED: dict[str, tuple[tuple[str, ...], tuple[tuple[str, str], ...], tuple[str, ...]]] = {
    "no address": (("2,bob,bob.example.org,,",), (("2", "bob"),), ("'email'", "bob.example.org", AGAIN)),
    "two @": (("2,bob,bob@@example.org,,",), (("2", "bob"),), ("'email'", "bob@@example.org", AGAIN)),
    "a domain of nobody": (("2,bob,bob@intranet,,",), (("2", "bob"),), ("'email'", "bob@intranet", AGAIN)),
    "too many addresses": (
        (f"2,bob,{'; '.join(f'b{number}@example.org' for number in range(11))},,",),
        (("2", "bob"),),
        ("'email'", "11 addresses", "at most 10", AGAIN),
    ),
    "a username with blanks": (("2,bob smith,bob@example.org,,",), (("2", "bob smith"),), ("'username'", "'bob smith'", AGAIN)),
    "somebody's address as a username": (
        ("2,eve@example.org,bob@example.org,,",), (("2", "eve@example.org"),), ("'username'", "eve@example.org", AGAIN),
    ),
    "two scripts": (("2,b\N{CYRILLIC SMALL LETTER O}b,bob@example.org,,",), (("2", "b\N{CYRILLIC SMALL LETTER O}b"),), ("'username'", "letters of different scripts", AGAIN)),
    "no username": (("no way,,bob@example.org,,",), (("no way", "no way"),), ("'username'", "'no way'", "names a column", AGAIN)),
    "a long name": ((f"2,bob,bob@example.org,{'B' * 121},",), (("2", "bob"),), ("'name'", "BBB", "at most 120", AGAIN)),
    "a long group": ((f"2,bob,bob@example.org,,{'g' * 65}",), (("2", "bob"),), ("'groups'", "ggg", "1 to 64", AGAIN)),
    "too many groups": ((f"2,bob,bob@example.org,,{';'.join(map(str, range(31)))}",), (("2", "bob"),), ("'groups'", "31 groups", "at most 30", AGAIN)),
    "a long key": ((f"{'7' * 255},bob,bob@example.org,,",), (("", "bob"),), ("'no'", "777", "at most 254", AGAIN)),
    "no key": ((",bob,bob@example.org,,",), (("", ""),), ("'no'", "is empty", "give the member a key")),
    "a comma too many": (("2,bob,bob@example.org,Smith, Bob,full",), (("2", ""),), ("6 cells", "5 columns", "into quotation marks")),
    "one key twice": (("2,bob,bob@example.org,,", "2,rob,rob@example.org,,"), (("2", "bob"), ("2", "rob")), ("same key", "keep one")),
    "one username twice": (("2,bob,b@example.org,,", "3,bob,c@example.org,,"), (("2", "bob"), ("3", "bob")), ("same username", "change one")),
    "a local account's username": (("2,local,other@example.org,,",), (("2", "local"),), ("another address", "or link that account")),
    "a linked account's username": (("2,followed,other@example.org,,",), (("2", "followed"),), ("another key", "or unlink that account")),
    "a superuser's username": (("2,root,root@example.org,,",), (("2", "root"),), ("a superuser's", "link it by hand")),
    "a username that was unlinked": (("2,free,free@example.org,,",), (("2", "free"),), ("unlinked", "link it by hand")),
    "a number of somebody else": (("2,somebody,followed@example.org,Followed,",), (("2", "somebody"),), ("another key", "link or unlink by hand")),
    "a follower's username taken": (("m,mail,local@x.example.org,,",), (("m", "mail"),), ("is taken", "rename the account")),
}  # fmt: skip


@pytest.fixture
def accounts(session: Session, membership: Membership) -> None:
    for name in ("local", "root", "free"):
        make_user(session, name, f"{name}@example.org", is_superuser=name == "root")
    make_user(session, "local@x.example.org", "unused@example.org")
    lines = ["k,followed,followed@example.org,Followed,", "m,mail@example.org,mail@example.org,Mail,"]
    membership.run(*lines, deactivates_leavers=False)
    linking.link(session, "free", "f", secret=b"")
    linking.unlink(session, "free")
    assert profiles.by_username(session, "followed").member_key == "k"


@pytest.mark.parametrize("what", REFUSED)
def test_a_refusal_says_line_column_value_and_what_to_do(membership: Membership, accounts: None, what: str) -> None:
    lines, who, words = REFUSED[what]
    report = membership.run(GOOD, *lines, deactivates_leavers=False)
    found = [each for each in report.lines if each.number in report.new]
    assert [(each.line, each.key, each.username) for each in found] == [
        (number, *names) for number, names in enumerate(who, start=3)
    ]
    for each in found:
        assert [word for word in words if word not in each.why] == [], each.why
    assert membership.profile("ada").member_key == "1"


def test_what_is_wrong_with_a_hash_is_said_without_it(membership: Membership) -> None:
    columns = Columns(key="no", username="username", name="name", password_hash="groups")
    (line,) = membership.run("2,bob,bob@example.org,,hunter2", columns=columns).lines
    assert "column 'groups'" in line.why
    assert AGAIN in line.why
    assert "hunter2" not in line.why
