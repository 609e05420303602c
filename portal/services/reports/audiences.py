"""Faults in the audiences of lists: nobody in them, unknown groups, and groups with a different spelling."""

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import NamedTuple

from sqlalchemy import Integer, cast, func, select
from sqlalchemy.orm import Session

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.models import User, UserGroup
from portal.services.transaction import reading


class AudienceFaultKind(StrEnum):
    """The kind of fault."""

    EMPTY = "empty"  # no active account is in it
    UNKNOWN = "unknown"  # no account is in one of its groups
    SIMILAR = "similar"  # another group differs from one of its groups only in case or blanks


class AudienceFault(NamedTuple):
    """A fault in the audience of a list; ``group`` is in the audience, ``other`` is the similar group."""

    handle: str
    name: str
    kind: AudienceFaultKind
    group: str = ""
    other: str = ""

    @property
    def words(self) -> str:
        """The fault in words, to follow the list's name."""
        match self.kind:
            case AudienceFaultKind.EMPTY:
                return "no active account is in its audience, so it is offered to nobody"
            case AudienceFaultKind.UNKNOWN:
                return f"its audience includes the group {self.group}, but no account is in that group"
            case AudienceFaultKind.SIMILAR:
                return (
                    f"the group {self.other} differs from the group {self.group} in its audience only in case or spaces"
                )


def audience_faults(session: Session, catalogue: Catalogue) -> tuple[AudienceFault, ...]:
    """Return the faults in audiences, in the catalogue's order. This takes one query, or none without audiences."""
    if not catalogue.audiences:
        return ()
    is_active = func.max(cast(User.is_active, Integer))
    query = select(UserGroup.name, is_active).join(User, User.id == UserGroup.user_id).group_by(UserGroup.name)
    with reading(session):
        groups = {name: bool(active) for name, active in session.execute(query)}
    return tuple(fault for each in catalogue.lists.values() for fault in _faults(each, groups))


def _faults(mailing_list: MailingList, groups: Mapping[str, bool]) -> Iterator[AudienceFault]:
    """Yield the faults of one list; ``groups`` maps each group to whether it has an active account.

    An audience without groups excludes everybody on purpose.
    """
    handle, name, audience = mailing_list.handle, mailing_list.name, mailing_list.audience
    if not audience:
        return
    if not any(groups.get(group) for group in audience):
        yield AudienceFault(handle, name, AudienceFaultKind.EMPTY)
    for group in sorted(audience):
        if group not in groups:
            yield AudienceFault(handle, name, AudienceFaultKind.UNKNOWN, group)
        for other in sorted(groups.keys() - audience):
            if _folded(other) == _folded(group):
                yield AudienceFault(handle, name, AudienceFaultKind.SIMILAR, group, other)


def _folded(group: str) -> str:
    return "".join(group.split()).casefold()
