"""What the generated scripts do for each list of the catalogue."""

from collections.abc import Callable
from dataclasses import dataclass

from portal.config import Catalogue
from portal.domain.mailinglist import MailingList
from portal.listmanagers.base import HasShellSteps, ListManager, ShellSteps, TakesPasswords


@dataclass(frozen=True, slots=True)
class ScriptedList:
    """One list of a script. ``steps`` is None where only the portal itself can reach the list manager."""

    handle: str
    manager: str
    steps: ShellSteps | None
    takes_passwords: bool


def scripted_lists(
    catalogue: Catalogue, open_list_manager: Callable[[MailingList], ListManager]
) -> tuple[ScriptedList, ...]:
    """Return what a script does for the lists, in the catalogue's order. Raise DisabledError or ConfigurationError."""
    catalogue.require_enabled()
    return tuple(_scripted(each, open_list_manager(each)) for each in catalogue.lists.values())


def _scripted(mailing_list: MailingList, manager: ListManager) -> ScriptedList:
    return ScriptedList(
        handle=mailing_list.handle,
        manager=mailing_list.manager,
        steps=manager.shell_steps() if isinstance(manager, HasShellSteps) else None,
        takes_passwords=mailing_list.sync_passwords and isinstance(manager, TakesPasswords),
    )
