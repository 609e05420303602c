"""Somebody who is erased leaves no trace in imports, and leaves none when the source names them again."""

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.models import Base, MemberImportLine
from portal.services.accounts import users
from portal.services.history import COMMAND_LINE
from portal.services.membership import importing
from tests.services.membership.conftest import SECRET, Membership

ADA = "K-1815,ada.lovelace,ada@example.org; countess@example.org,Ada Lovelace,full"
BOB = "2,bob,bob@example.org,Bob,full"


def traces(session: Session) -> set[str]:
    """Return the columns in which something of Ada stands."""
    found = set()
    for table in Base.metadata.sorted_tables:
        for row in session.execute(select(table)):
            found |= {
                f"{table.name}.{name}"
                for name, value in row._mapping.items()
                if any(word in str(value).lower() for word in ("k-1815", "lovelace", "ada@", "countess"))
            }
    session.rollback()
    return found


@pytest.mark.parametrize("is_shown", [True, False])
def test_somebody_who_is_erased_leaves_no_trace_in_imports(
    membership: Membership, session: Session, is_shown: bool
) -> None:
    membership.run(ADA, BOB)
    membership.run(ADA.replace("Ada Lovelace", "Ada K. Lovelace"), BOB)
    shown = importing.show(session, membership.request(ADA.replace("full", "board"), BOB)) if is_shown else None
    assert "member_import_lines.details" in traces(session)
    users.delete(session, "ada.lovelace", erase=True, now=membership.clock(), lists={}, secret=SECRET)
    assert traces(session) == set()
    if shown is not None:
        applied = importing.apply_stored(
            session, shown, actor=COMMAND_LINE, clock=membership.clock, lists={}, invites=False
        )
        assert applied == importing.Applied(done=0, left=1)
    assert len(membership.run(ADA, BOB).new) == 1
    assert membership.run(ADA, BOB).new == frozenset()
    assert membership.usernames() == ["bob"]
    assert traces(session) == set()


def test_an_address_that_is_erased_goes_from_the_lines_of_others(membership: Membership, session: Session) -> None:
    membership.run("7,carl,carl@example.org,Carl,", BOB)
    membership.run("7,carl,ada@example.org,Carl,", BOB)
    membership.run("7,carl,carl@example.net,Carl,", "1,dora,ada@example.org,Dora,", BOB)
    assert session.scalar(select(MemberImportLine.number).where(MemberImportLine.details.contains("ada@"))) is not None
    session.rollback()
    users.delete(session, "dora", erase=True, now=membership.clock(), lists={}, secret=SECRET)
    assert {each for each in traces(session) if each.startswith("member_import")} == set()
