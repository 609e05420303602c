"""Ids of addresses and users are never reused, because history refers to them long after they are deleted."""

from flask import Flask
from sqlalchemy import select
from sqlalchemy.orm import Session

from portal.domain.roster_text import RosterText
from portal.models import Address, History
from portal.services.accounts import users
from portal.services.accounts.addresses import checked
from portal.services.sync.list_init import list_init
from portal.services.sync.run_steps import Request
from portal.services.sync.sync import sync_list
from tests.conftest import Clock


def test_a_new_address_does_not_get_the_number_of_a_purged_one(session: Session, app: Flask, clock: Clock) -> None:
    portal = app.extensions["portal"]
    lists = portal.catalogue().lists
    members = lists["members"]

    def create(name: str) -> int:
        address = checked(f"{name}@example.org")
        return users.create(session, username=name, address=address, now=clock(), rounds=4, lists=lists)

    alice = create("alice")
    list_init(session, members, RosterText([]), now=clock(), allow_empty=True)
    users.delete(session, "alice", now=clock(), erase=False, lists=lists)
    sync_list(session, members, portal.open_list_manager(members), clock=clock, request=Request())
    bob = create("bob")

    assert bob != alice
    number = session.scalar(select(Address.id).where(Address.canonical == "bob@example.org"))
    assert number not in set(session.scalars(select(History.address_id)))
