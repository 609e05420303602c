"""The mlmmj of the system, on a spool of its own. Nothing is started: mlmmj is programs and files."""

import os
import subprocess
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.real.base import RealProgram

PROGRAMS = tuple(Path("/usr/bin", name) for name in ("mlmmj-make-ml", "mlmmj-list", "mlmmj-sub", "mlmmj-unsub"))
FOLDERS = {"-s": "subscribers.d", "-d": "digesters.d", "-n": "nomailsubs.d"}


def why_missing() -> str:
    """Return why mlmmj cannot run here; an empty text where it can."""
    missing = [str(program) for program in PROGRAMS if not program.exists()]
    return f"no {missing[0]}: .ci/no-mail && apt-get install --no-install-recommends mlmmj" if missing else ""


class Program(RealProgram):
    """mlmmj with a spool in a folder of the test."""

    kind = "mlmmj"
    has_no_mail = True

    @property
    def version(self) -> str:
        return self._run("mlmmj-list", "-V").strip()

    def manager_table(self) -> dict[str, Any]:
        return {"spool": str(self.folder)}

    def make_list(self, name: str) -> None:
        if not (self.folder / name).exists():
            answers = "lists.example.org\nowner@lists.example.org\nen\n"
            self._run("mlmmj-make-ml", "-s", str(self.folder), "-L", name, stdin=answers)
        for mail in self._mails(name):
            mail.unlink()
        self.set_roster(name, ())

    def set_roster(self, name: str, normal: Iterable[str], *, digest: Iterable[str] = ()) -> None:
        # By files: a process an address would take seconds for a large list. One file for each first letter.
        for option, addresses in {"-s": normal, "-d": digest, "-n": ()}.items():
            folder = self.folder / name / FOLDERS[option]
            for old in folder.iterdir():
                old.unlink()
            by_letter: dict[str, list[str]] = {}
            for address in addresses:
                by_letter.setdefault(address[0].lower(), []).append(f"{address.lower()}\n")
            for letter, lines in by_letter.items():
                (folder / letter).write_text("".join(lines))
                (folder / letter).chmod(0o600)

    def roster(self, name: str) -> set[str]:
        return {each for option in FOLDERS for each in self._list(name, option)}

    def digest_roster(self, name: str) -> set[str]:
        return self._list(name, "-d")

    def set_no_mail(self, name: str, address: str) -> None:
        self._run("mlmmj-sub", "-L", str(self.folder / name), "-n", "-f", "-q", "-s", "-a", address)

    def no_mail_roster(self, name: str) -> set[str]:
        return self._list(name, "-n")

    def queued_mails(self) -> list[str]:
        return [str(mail.relative_to(self.folder)) for each in self.folder.iterdir() for mail in self._mails(each.name)]

    def _list(self, name: str, option: str) -> set[str]:
        return set(self._run("mlmmj-list", "-L", str(self.folder / name), option).split())

    def _mails(self, name: str) -> list[Path]:
        """Return mails that wait to be sent, or for a moderator or a subscriber to answer."""
        rooms = [self.folder / name / room for room in ("queue", "requeue", "moderation", "subconf", "unsubconf")]
        return [Path(at, file) for room in rooms for at, _, files in os.walk(room) for file in files]

    def _run(self, program: str, *arguments: str, stdin: str = "") -> str:
        # the whole path, without which some of them do not run
        done = subprocess.run(
            [f"/usr/bin/{program}", *arguments], input=stdin, capture_output=True, text=True, check=True
        )
        return done.stdout
