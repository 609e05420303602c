"""Factories that insert rows for tests. The people are Alice, Bob, Charlie and Dora, at example.org."""

from datetime import UTC, datetime

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from portal.domain.address import canonical
from portal.models import Address, Preference, User, UserAddress, UserGroup
from portal.services.accounts import profiles, users
from portal.services.accounts.address_changes import AddressChange, change_many
from portal.services.accounts.addresses import Checked
from portal.services.accounts.moves import Lists
from portal.services.history import COMMAND_LINE
from portal.services.transaction import transaction

NOW = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def make_user(
    session: Session,
    username: str,
    *addresses: str,
    groups: tuple[str, ...] = (),
    is_superuser: bool = False,
    is_active: bool = True,
    password_hash: str = "!",  # no password matches it
) -> int:
    """Make an account with addresses, the first of them its main one; return its id."""
    user = User(
        username=username,
        username_key=username.lower(),
        name=username.title(),
        search_key=username.lower(),
        password_hash=password_hash,
        is_superuser=is_superuser,
        is_active=is_active,
        created_at=NOW,
    )
    session.add(user)
    session.flush()
    session.add_all(UserGroup(user_id=user.id, name=name) for name in groups)
    for number, spelling in enumerate(addresses or (f"{username}@example.org",)):
        address_id = make_address(session, spelling)
        session.execute(update(Address).where(Address.id == address_id).values(let_go_at=None))
        session.add(UserAddress(address_id=address_id, user_id=user.id, is_main=number == 0))
    user_id = user.id
    session.commit()
    return user_id


def give_name(session: Session, username: str, name: str) -> None:
    """Change the name of an account, as on the command line."""
    found = profiles.by_username(session, username)
    wanted, address = found.details._replace(name=name), Checked(canonical(found.email), found.email)
    users.edit(
        session, found.id, shown=found.details, wanted=wanted, address=address, actor=COMMAND_LINE, now=NOW, lists=None
    )


def change_main_addresses(
    session: Session, wanted: dict[int, str], *, now: datetime = NOW, lists: Lists = None
) -> None:
    """Replace the main addresses of users together, as an import does, so that they can swap them."""
    changes = {
        user_id: AddressChange(Checked(canonical(spelling), spelling), replaces_main=True)
        for user_id, spelling in wanted.items()
    }
    with transaction(session):
        change_many(session, changes, actor=COMMAND_LINE, now=now, lists=lists)


def make_address(session: Session, spelling: str) -> int:
    """Return the id of an address, creating it if needed as one that no account holds any more."""
    found = session.execute(select(Address.id).where(Address.canonical == canonical(spelling))).scalar()
    if found is not None:
        return found
    address = Address(canonical=canonical(spelling), spelling=spelling, let_go_at=NOW)
    session.add(address)
    session.flush()
    return address.id


def make_preference(session: Session, handle: str, spelling: str, subscribed: bool, **columns: object) -> None:
    """Make a preference, by default chosen by a user and not seen by a run."""
    values: dict[str, object] = {"source": "user", "changed_at": NOW, **columns}
    if "push_result" not in columns and (columns.get("waiting_since") or columns.get("refusal")):
        values["push_result"] = "pending" if columns.get("waiting_since") else "rejected"
    session.add(
        Preference(list_handle=handle, address_id=make_address(session, spelling), subscribed=subscribed, **values)
    )
    session.commit()
