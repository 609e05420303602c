"""A membership source for tests: what it says is imported as the command, the upload and the API have it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.membership import Limits
from portal.domain.membership_file import Columns
from portal.models import User
from portal.services.accounts import profiles
from portal.services.accounts.profiles import Profile
from portal.services.history import COMMAND_LINE
from portal.services.membership import importing
from portal.services.membership.importing import Report, Request
from tests.conftest import Clock

SECRET = b"a secret of the tests"
HEADER = "no,username,email,name,groups\n"
COLUMNS = Columns(key="no", username="username", email="email", name="name", groups=("groups",))


@dataclass
class Membership:
    """Accounts that follow what ``run`` is given, line by line."""

    session: Session
    clock: Clock
    lists: Any = None
    options: dict[str, Any] = field(default_factory=dict)

    def request(self, *lines: str, **options: Any) -> Request:
        values: dict[str, Any] = {
            "content": (HEADER + "".join(f"{each}\n" for each in lines)).encode(),
            "columns": COLUMNS,
            "source": "file members.csv",
            "actor": COMMAND_LINE,
            "clock": self.clock,
            "lists": self.lists,
            "secret": SECRET,
            "deactivates_leavers": True,
            "limits": Limits(),
        }
        return Request(**{**values, **self.options, **options})

    def run(self, *lines: str, accept: str | None = None, **options: Any) -> Report:
        self.clock.advance(hours=1)
        return importing.run(self.session, self.request(*lines, **options), accept=accept)

    def profile(self, username: str) -> Profile:
        return profiles.by_username(self.session, username)

    def user(self, username: str) -> User:
        found = self.session.scalars(select(User).where(User.username == username)).one()
        self.session.expunge(found)
        self.session.rollback()
        return found

    def usernames(self) -> list[str]:
        return [each.username for each in profiles.list_all(self.session)]


@pytest.fixture
def membership(session: Session, clock: Clock) -> Membership:
    return Membership(session, clock)


Run = Callable[..., Report]
