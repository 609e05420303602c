"""The wheel contains everything needed, and a portal that cannot start gives the reason in one line."""

import os
import re
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import requires
from itertools import chain
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def run(*args: str, cwd: Path = ROOT, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run Python with an environment of its own."""
    return subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environ},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    done = run("-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder))
    assert done.returncode == 0, done.stderr
    return next(folder.glob("*.whl"))


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    there = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "portal").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }

    assert held == there
    assert {"portal/py.typed", "portal/migrations/alembic.ini", "portal/templates/base.html"} <= held
    assert any(name.startswith("portal/static/") for name in held)


def test_an_unpacked_wheel_migrates_and_serves_from_anywhere(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path / "site")
    environ = {"PYTHONPATH": str(tmp_path / "site"), "PORTAL_INSTANCE": str(tmp_path / "instance")}

    migrated = run("-m", "flask", "--app", "portal", "db", "upgrade", cwd=tmp_path, **environ)
    page = "import portal; print(portal.__file__); print(portal.create_app().test_client().get('/login').status)"
    served = run("-c", page, cwd=tmp_path, **environ)

    assert (migrated.returncode, migrated.stderr) == (0, "")
    assert served.stdout.splitlines() == [str(tmp_path / "site" / "portal" / "__init__.py"), "200 OK"], served.stderr


@pytest.mark.parametrize(
    "command", [("-c", "import wsgi"), ("-m", "flask", "--app", "portal", "db", "current")], ids=["wsgi", "flask"]
)
@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("portal.toml", "bcrypt_rounds = 99", "expected a whole number <= 17 - at `bcrypt_rounds`"),
        ("portal.toml", "site_name = ", "not valid TOML: Invalid value (at end of document)"),
        ("secret_key", "change-me", "the secret is shorter than 32 characters, or is an example; delete the file, and the portal creates a new one"),
    ],
)  # fmt: skip
def test_a_configuration_error_is_one_line_and_78(
    tmp_path: Path, command: tuple[str, ...], name: str, text: str, words: str
) -> None:
    (tmp_path / name).write_text(text)

    done = run(*command, PORTAL_INSTANCE=str(tmp_path))

    assert (done.returncode, done.stdout) == (78, "")
    assert done.stderr == f"error: {tmp_path / name}: {words} (docs/errors.md#configuration-error)\n"


@pytest.mark.parametrize("command", [("-c", "import wsgi"), ("-m", "flask", "--app", "portal", "db", "current")])
def test_an_instance_folder_that_cannot_be_made_is_one_line_and_78(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "file").touch()

    done = run(*command, PORTAL_INSTANCE=str(tmp_path / "file" / "instance"))

    assert (done.returncode, done.stdout) == (78, "")
    message = r"error: .*/file/instance.*: Not a directory \(docs/errors\.md#configuration-error\)\n"
    assert re.fullmatch(message, done.stderr)


def test_the_portal_starts_without_a_warning(tmp_path: Path) -> None:
    done = run("-W", "error", "-c", "import wsgi", PORTAL_INSTANCE=str(tmp_path))

    assert (done.returncode, done.stderr) == (0, "")


def test_every_dependency_is_locked_and_meets_what_the_project_asks() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text().splitlines()
    locked = dict(line.split("==") for line in lines if not line.startswith("#"))
    wanted = [*PROJECT["project"]["dependencies"], *chain(*PROJECT["project"]["optional-dependencies"].values())]

    assert lines[1:] == sorted(lines[1:])
    for requirement in map(Requirement, wanted):
        assert requirement.specifier.contains(locked[requirement.name.lower()]), requirement
        below = [Requirement(line) for line in requires(requirement.name) or []]
        needed = {each.name.lower().replace("_", "-") for each in below if not each.marker or each.marker.evaluate()}
        assert needed <= set(locked), requirement
