"""Who may import whom: docs/architecture.md."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PORTAL = ROOT / "portal"

# What each layer may import beside the standard library and itself.
ALLOWED = {
    "errors.py": set(),
    "domain": {"idna", "portal.errors"},
    "models.py": {"sqlalchemy"},
    "ownership.py": set(),
    "database.py": {"sqlalchemy", "portal.ownership"},
    "driver.py": {"psycopg"},
    "secrets.py": {"portal.errors", "portal.ownership"},
    "translation.py": set(),
    "running.py": {
        "flask",
        "portal.translation",
        "portal.config",
        "portal.domain",
        "portal.errors",
        "portal.listmanagers.base",
        "portal.membership_source",
    },
    "membership_source.py": {"portal.config", "portal.errors", "portal.listmanagers.process"},
    "config.py": {"msgspec", "portal.domain", "portal.errors", "portal.translation"},
    "listmanagers": {"msgspec", "urllib3", "portal.domain", "portal.errors"},
    "services": {
        "bcrypt",
        "email_validator",
        "sqlalchemy",
        "portal.config",
        "portal.database",
        "portal.domain",
        "portal.driver",
        "portal.errors",
        "portal.listmanagers.base",
        "portal.models",
        "portal.ownership",
        "portal.translation",
    },
    "web": {
        "flask",
        "flask_login",
        "flask_wtf",
        "itsdangerous",
        "jinja2",
        "markupsafe",
        "msgspec",
        "werkzeug",
        "wtforms",
        "portal.config",
        "portal.domain",
        "portal.errors",
        "portal.extensions",
        "portal.faults",
        "portal.running",
        "portal.services",
        "portal.translation",
    },
    "cli": {
        "click",
        "flask",
        "flask_migrate",
        "msgspec",
        "portal.application",
        "portal.config",
        "portal.domain",
        "portal.errors",
        "portal.extensions",
        "portal.faults",
        "portal.running",
        "portal.services",
        "portal.translation",
    },
}


def imports(path: Path) -> set[str]:
    """Return the modules that a file imports, wherever in it; ``from a.b import c`` is ``a.b.c`` and ``a.b``."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] not in sys.stdlib_module_names}


# The rooms of services: each imports only from those before it; the files beside them are below all rooms.
ROOMS = ("accounts", "membership", "mail", "sync", "reports", "preferences")
ABOVE_ALL_ROOMS = {"demo.py"}


@pytest.mark.parametrize("layer", ALLOWED)
def test_a_layer_imports_what_it_may(layer: str) -> None:
    own = f"portal.{layer.removesuffix('.py')}"
    allowed = ALLOWED[layer] | {own}
    place = PORTAL / layer
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))

    assert files
    assert {
        f"{file.relative_to(ROOT)}: {name}"
        for file in files
        for name in imports(file)
        if not any(name == each or name.startswith(f"{each}.") for each in allowed)
    } == set()


def test_every_layer_is_in_the_table() -> None:
    composition = {"__init__.py", "application.py", "extensions.py", "faults.py", "migrations"}
    there = {path.name for path in PORTAL.iterdir() if path.suffix == ".py" or any(path.glob("*.py"))}

    assert there - composition == set(ALLOWED)


def test_a_room_imports_only_from_those_before_it() -> None:
    services = PORTAL / "services"
    files = {file: file.relative_to(services).parts[0] for file in sorted(services.rglob("*.py"))}
    assert {name for name in files.values() if not name.endswith(".py")} == set(ROOMS)
    for file, room in files.items():
        if room in ABOVE_ALL_ROOMS:
            continue
        allowed = ROOMS[: ROOMS.index(room) + 1] if room in ROOMS else ()
        for name in imports(file):
            found = name.split(".")[2] if name.startswith("portal.services.") else ""
            assert found not in ROOMS or found in allowed, f"{file.relative_to(ROOT)}: {name}"
