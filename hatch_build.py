"""What a build makes of the catalogues of texts: a ``.mo`` beside each ``.po``, for wheels and editable installs."""

import tempfile
from pathlib import Path
from typing import Any

from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po
from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class CustomBuildHook(BuildHookInterface[Any]):
    """Compile the catalogues before the files of a wheel are gathered."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the arguments are hatchling's
        """Make the ``.mo`` files, which git does not have."""
        compiled = compile_catalogues(Path(self.root))
        build_data["artifacts"] += [path.relative_to(self.root).as_posix() for path in compiled]


def compile_catalogues(root: Path) -> list[Path]:
    """Make a ``.mo`` of each ``.po`` that is newer than it; return those of all."""
    compiled = []
    for source in sorted(root.glob("portal/locale/*/LC_MESSAGES/portal.po")):
        target = source.with_suffix(".mo")
        if not target.exists() or target.stat().st_mtime <= source.stat().st_mtime:
            _compile(source, target)
        compiled.append(target)
    return compiled


def _compile(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        catalogue = read_po(file, locale=source.parts[-3], abort_invalid=True)
    for each in list(catalogue):  # a form that is empty would be shown, an absent one is English
        if each.id and not all([each.string] if isinstance(each.string, str) else each.string):
            catalogue.delete(each.id, each.context)
    with tempfile.NamedTemporaryFile(dir=target.parent, delete=False) as file:
        write_mo(file, catalogue)
    Path(file.name).chmod(0o644)
    Path(file.name).replace(target)  # whole, also where several compile at once
