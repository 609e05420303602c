"""House rules that no linter checks."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.faults import FAULTS

ROOT = Path(__file__).parents[1]
PORTAL = ROOT / "portal"
SOURCES = sorted(path for path in PORTAL.rglob("*.py") if "migrations" not in path.parts)
TEMPLATES = sorted(path for path in (PORTAL / "templates").rglob("*") if path.is_file())

# Each of these costs every cron start more than it gives; they are imported where they are used.
HEAVY = {
    "alembic",
    "bcrypt",
    "email_validator",
    "flask_login",
    "flask_migrate",
    "flask_wtf",
    "psycopg",
    "urllib3",
    "wtforms",
}


def holders(pattern: str, files: list[Path]) -> list[str]:
    """Return the files in which a pattern is found, by their path in the repository."""
    return [str(path.relative_to(ROOT)) for path in files if re.search(pattern, path.read_text())]


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def is_sleep(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and ast.unparse(node.func) in {"time.sleep", "sleep"}


def test_one_place_commits() -> None:
    assert holders(r"\.commit\(", SOURCES) == ["portal/services/transaction.py"]


# Where the rows of a table are written. An account is inserted in one place; its own room changes its columns.
WRITERS = {
    "insert(Preference)": "services/preference_rows.py",
    "update(Preference)": "services/preference_rows.py",
    "delete(Preference)": "services/preference_rows.py",
    "insert(History)": "services/history.py",
    "update(History)": "services/history.py",
    "delete(History)": "services/history.py",
    "insert(User)": "services/accounts/users.py",
}
# Statements whose table their text does not name.
UNNAMED = {
    (
        "services/accounts/erasure.py",
        "update(column.class_)",
    ),  # erasing rewrites texts wherever they quote an address
    ("database.py", "insert(self._table)"),  # what is named where a BulkInsert is made
}


def test_one_place_writes_a_table() -> None:
    written = {(str(path.relative_to(PORTAL)), each) for path in SOURCES for each in statements(path)}

    assert {each for each in written if WRITERS.get(each[1], each[0]) != each[0]} == set()
    assert WRITERS.keys() - {text for _, text in written} <= {"delete(History)"}
    assert {each for each in written if not re.fullmatch(r"\w+\([A-Z]\w+\)", each[1])} == UNNAMED


def statements(path: Path) -> Iterator[str]:
    """Yield each statement that writes, such as ``insert(Run)``; a table is named by its class."""
    tree = ast.parse(path.read_text())
    tables = {
        node.targets[0].id if isinstance(node, ast.Assign) else node.target.id: ast.unparse(node.value)
        for node in ast.walk(tree)
        if (isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name))
        or (isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and node.args:
            kind = ast.unparse(node.func).removeprefix("database.").removesuffix("_from")
            kind = "insert" if kind == "BulkInsert" else kind
            if kind in {"insert", "update", "delete"}:
                table = ast.unparse(node.args[-1])
                yield f"{kind}({tables.get(table, table).removesuffix('.__table__')})"


def test_exit_codes_are_named_or_from_the_table() -> None:
    assert holders(r"(\bSystemExit|\bexit)\(\d", SOURCES) == []


def test_nothing_escapes_the_escaping() -> None:
    assert holders(r"\|\s*safe\b|autoescape\s+false", TEMPLATES) == []
    assert holders(r"render_template_string|\bMarkup\(", SOURCES) == []


def test_templates_hold_no_style_and_no_script() -> None:
    assert holders(r"(?i)<style|<script(?![^>]*\bsrc=)|\sstyle=|\son[a-z]+=|javascript:", TEMPLATES) == []


def test_no_shell_is_ever_asked() -> None:
    assert holders(r"shell\s*=\s*True|os\.system|os\.popen|subprocess\.getoutput", SOURCES) == []


def test_tables_are_made_by_migrations_alone() -> None:
    assert holders(r"\bcreate_all\(|\bdrop_all\(", SOURCES) == []


def test_a_test_waits_for_a_condition_and_not_for_some_seconds() -> None:
    tests = [path for path in (ROOT / "tests").rglob("*.py") if "fakes" not in path.parts]
    texts = {path.name: text for path in tests if "sleep(" in (text := path.read_text())}
    sleepers = {name for name, text in texts.items() for node in ast.walk(ast.parse(text)) if is_sleep(node)}

    assert sleepers == {"waiting.py"}


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(PORTAL)))
def test_a_function_has_at_most_40_lines(path: Path) -> None:
    lengths = {each.name: (each.end_lineno or 0) - each.lineno + 1 for each in functions(path)}

    assert {name: length for name, length in lengths.items() if length > 40} == {}


def test_the_composition_root_has_at_most_60_lines() -> None:
    assert len((PORTAL / "__init__.py").read_text().splitlines()) <= 60


def test_relationships_never_load_behind_ones_back() -> None:
    calls = re.findall(r"relationship\(([^)]*)\)", (PORTAL / "models.py").read_text())

    assert [call for call in calls if 'lazy="raise"' not in call] == []


def test_help_imports_nothing_heavy(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "flask", "--app", "portal", "mailinglist", "--help"],
        cwd=ROOT,
        env={"PORTAL_INSTANCE": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in done.stderr.splitlines()}

    assert (done.returncode, "Usage:" in done.stdout) == (0, True), done.stderr[-2000:]
    assert "sqlalchemy" in imported  # the measurement works
    assert imported & HEAVY == set()


def test_importing_and_composing_leaves_the_garbage_collector_alone(tmp_path: Path) -> None:
    program = (
        "import gc; state = lambda: (gc.isenabled(), gc.get_threshold(), gc.get_freeze_count()); before = state(); "
        "import portal.cli; assert state() == before; portal.create_app(); assert state() == before"
    )
    environ = {"PORTAL_INSTANCE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, env=environ, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-2000:]


def test_every_fault_can_be_planted_and_its_tests_are_there() -> None:
    """A fault whose text has changed is planted no more, and says so to nobody but `make faults`."""
    texts = {each: (ROOT / each).read_text() for fault in FAULTS for each in (fault.file, *map(_file_of, fault.tests))}
    assert [each.name for each in FAULTS if texts[each.file].count(each.old) != 1] == []
    missing = [
        test
        for fault in FAULTS
        for test in fault.tests
        if f"def {test.partition('::')[2]}" not in texts[_file_of(test)]
    ]
    assert missing == []


def _file_of(test: str) -> str:
    return test.partition("::")[0]


def test_the_picture_of_the_house_is_the_house() -> None:
    picture = (ROOT / "docs" / "architecture.md").read_text().split("```")[1]
    drawn = set(_paths(picture))
    missing = {path for path in drawn if not (ROOT / path).exists()}
    rooms = {path for path in PORTAL.rglob("*.py") if "versions" not in path.parts and path.parent.name != "migrations"}
    there = {str(path.relative_to(ROOT)) for path in rooms if path.name != "__init__.py" or path.parent == PORTAL}

    assert missing == set()
    assert there - drawn == set()


def _paths(picture: str) -> Iterator[str]:
    """Yield the paths in an indented picture: folders end in a slash, files may follow their folder on its line."""
    folders: list[tuple[int, str]] = []
    for line in picture.splitlines():
        indent = len(line) - len(line.lstrip())
        while folders and folders[-1][0] >= indent:
            folders.pop()
        above = folder = folders[-1][1] if folders else ""
        for word in line.split():
            if not re.fullmatch(r"[\w.-]+(/[\w.-]+)*(/|\.[a-z]+)|Makefile|LICENSE", word):
                break  # the description begins
            if word.endswith("/"):
                folder = above + word
                folders.append((indent, folder))
                yield folder
            else:
                yield folder + word
