"""The steps of the generated scripts for each list of the catalogue."""

from collections.abc import Callable
from dataclasses import dataclass

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.listmanagers.base import HasShellSteps, ListManager, ShellSteps, TakesPasswords


@dataclass(frozen=True, slots=True)
class ScriptedList:
    """A list in a script. ``steps`` is None if only the portal itself can reach the list manager."""

    handle: str
    manager: str
    steps: ShellSteps | None
    takes_passwords: bool


def scripted_lists(
    catalogue: Catalogue, open_list_manager: Callable[[MailingList], ListManager]
) -> tuple[ScriptedList, ...]:
    """Return the lists of a script, in the catalogue's order. Raise DisabledError or ConfigurationError."""
    catalogue.require_enabled()
    return tuple(_scripted(each, open_list_manager(each)) for each in catalogue.lists.values())


def _scripted(mailing_list: MailingList, manager: ListManager) -> ScriptedList:
    return ScriptedList(
        handle=mailing_list.handle,
        manager=mailing_list.manager,
        steps=manager.shell_steps() if isinstance(manager, HasShellSteps) else None,
        takes_passwords=mailing_list.sync_passwords and isinstance(manager, TakesPasswords),
    )
