"""Secrets that the portal creates: SECURITY, 23."""

import stat
import subprocess
import sys
import time
from pathlib import Path
from subprocess import PIPE

import pytest

from portal.errors import ConfigurationError
from portal.secrets import read_or_make

GOOD = "0f1e2d3c4b5a69788796a5b4c3d2e1f0"


RACE = """
import sys, time
from pathlib import Path
from portal.secrets import read_or_make
print("ready", flush=True)
start = float(sys.stdin.readline())
for number in range(20):
    time.sleep(max(0, start + number / 50 - time.time()))
    print(read_or_make(Path(sys.argv[1], str(number), "secret_key")), flush=True)
"""


@pytest.mark.slow
def test_eight_processes_that_start_together_agree(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path)]
    processes = [subprocess.Popen(command, text=True, stdin=PIPE, stdout=PIPE) for _ in range(8)]
    assert {process.stdout.readline() for process in processes} == {"ready\n"}
    start = f"{time.time() + 0.1}\n"
    answers = [process.communicate(start, timeout=60)[0].splitlines() for process in processes]

    made = [(tmp_path / str(number) / "secret_key").read_text() for number in range(20)]
    assert answers == [made] * 8
    assert len(set(made)) == 20
    assert {each.name for each in tmp_path.glob("*/*")} == {"secret_key"}


def test_a_secret_is_made_once_and_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "instance" / "secret_key"
    secret = read_or_make(path)

    assert len(secret) == 64
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make(path) == secret
    assert read_or_make(tmp_path / "another") != secret


def test_a_secret_of_the_operators_own_is_kept(tmp_path: Path) -> None:
    (tmp_path / "secret_key").write_text(GOOD + "\n")

    assert read_or_make(tmp_path / "secret_key") == GOOD


@pytest.mark.parametrize(
    "text", ["", "\n", GOOD[:31], "x" * 64, "please-change-me-" + GOOD, "EXAMPLE" + GOOD, "my-secret-key-" + GOOD]
)
def test_a_short_or_example_secret_is_refused_without_showing_it(tmp_path: Path, text: str) -> None:
    (tmp_path / "secret_key").write_text(text)
    with pytest.raises(
        ConfigurationError, match="shorter than 32 characters, or is an example; delete the file"
    ) as raised:
        read_or_make(tmp_path / "secret_key")

    assert str(raised.value).startswith(f"{tmp_path / 'secret_key'}: ")
    assert len(text.strip()) < 8 or text.strip() not in str(raised.value)


def test_what_cannot_be_read_or_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"\xff" * 64)

    with pytest.raises(ConfigurationError, match="folder: cannot be read or created: Is a directory"):
        read_or_make(tmp_path / "folder")
    with pytest.raises(ConfigurationError, match="file: the secret is not plain ASCII"):
        read_or_make(tmp_path / "file")
    with pytest.raises(
        ConfigurationError, match=r"secret_key: cannot be read or created: (File exists|Not a directory)"
    ):
        read_or_make(tmp_path / "file" / "secret_key")
