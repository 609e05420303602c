"""The portal's own kind of list: a text file, which needs no program."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.real.base import RealProgram


def why_missing() -> str:
    """Return an empty text: files are everywhere."""
    return ""


class Program(RealProgram):
    """Text files in a folder of the test; nobody gets digests there."""

    kind = "file"
    version = "1"

    def manager_table(self) -> dict[str, Any]:
        return {"directory": str(self.folder)}

    def make_list(self, name: str) -> None:
        self.set_roster(name, ())

    def set_roster(self, name: str, normal: Iterable[str], *, digest: Iterable[str] = ()) -> None:
        self._path(name).write_text("".join(f"{each}\n" for each in (*normal, *digest)))

    def roster(self, name: str) -> set[str]:
        return {line.lower() for line in self._path(name).read_text().splitlines()}

    def digest_roster(self, name: str) -> set[str]:
        return set()

    def queued_mails(self) -> list[str]:
        return []

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.txt"
