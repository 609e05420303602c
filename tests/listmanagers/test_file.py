"""Rosters in text files: what is kept, atomic writes, and files that cannot be reached."""

import multiprocessing
import os
import resource
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from portal.errors import ConfigurationError, ListManagerUnavailableError, NoSuchListError
from portal.listmanagers import file
from portal.listmanagers.base import Result

ORIGINAL = (
    b"\xef\xbb\xbf# Ants of the garden\n\n  Zoe@Example.org  \nAlice A. <alice@example.org>\r\n"
    b"# bob@example.org asked to come back later\n# \xff\xfe latin\nALICE@example.org\ndora@example.org"
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "rosters").mkdir()
    return tmp_path / "rosters"


@pytest.fixture
def path(folder: Path) -> Path:
    (folder / "ants.txt").write_bytes(ORIGINAL)
    return folder / "ants.txt"


def _open(folder: Path, name: str = "ants", **settings) -> file.TextFile:
    return file.open_list(file.Settings(directory=folder, **settings), name)


@contextmanager
def _as_nobody() -> Iterator[None]:
    """Root may read and write everything, so for a while the test is somebody else."""
    is_root = os.geteuid() == 0
    if is_root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if is_root:
            os.seteuid(0)


def test_comments_and_names_are_read_past(path, folder):
    assert _open(folder).roster() == ["Zoe@Example.org", "alice@example.org", "ALICE@example.org", "dora@example.org"]


DELIVERED = [  # a line, and whom Postfix and Exim deliver to
    ("ada@example.org, bob@example.org", ["ada@example.org", "bob@example.org"]),
    ("ada@example.org,bob@example.org,", ["ada@example.org", "bob@example.org"]),
    ("ada@example.org,, ,bob@example.org", ["ada@example.org", "bob@example.org"]),
    ('"Lovelace, Ada" <ada@example.org>, Bob <bob@example.org>', ["ada@example.org", "bob@example.org"]),
    ("ada@example.org (Lovelace, Ada), bob@example.org", ["ada@example.org", "bob@example.org"]),
    ("ada@example.org # since May, with bob@example.org", ["ada@example.org"]),
    ("ada@example.org, # the next line goes on", ["ada@example.org"]),
    ("  ada@example.org", ["ada@example.org"]),
    ("\tada@example.org,", ["ada@example.org"]),
    ("#ada@example.org, bob@example.org", []),
    ("  # ada@example.org", []),
    ("a#b@example.org", ["a#b@example.org"]),
    (",", []),
]
UNCERTAIN = [  # what they deliver elsewhere, or each in its own way
    "ada",
    '"ada@example.org"',
    "ada@example.org bob@example.org",
    "ada@example.org; bob@example.org",
    "friends: ada@example.org, bob@example.org;",
    "ada@example.org,#bob@example.org",
    ":include:/etc/mail/others",
    "/var/mail/archive",
    "/var/mail/archive@example.org",
    "|/usr/bin/procmail",
    "|procmail@example.org",
    "ada@example.org, |/usr/bin/procmail",
    "ada@example.org, bob",
    "ada@example.org (Ada",
    '"Ada <ada@example.org>',
    "ada@example.org\rbob@example.org",
]


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
@pytest.mark.parametrize(("line", "addresses"), DELIVERED)
def test_whom_postfix_and_exim_deliver_to_is_on_the_list(folder, line, addresses, end):
    (folder / "ants.txt").write_bytes(f"first@example.org\n{line}{end}".encode())
    assert _open(folder).roster() == ["first@example.org", *addresses]


@pytest.mark.parametrize("line", UNCERTAIN)
@pytest.mark.parametrize("call", ["check", "roster", "add", "remove"])
def test_a_line_of_which_it_is_not_certain_whom_it_reaches_is_unavailable_and_stays(folder, line, call):
    content = f"first@example.org\n{line}\n".encode()
    (folder / "ants.txt").write_bytes(content)
    arguments = [["first@example.org"]] if call in {"add", "remove"} else []
    with pytest.raises(ListManagerUnavailableError, match=r"ants\.txt: line 2 "):
        getattr(_open(folder), call)(*arguments)
    assert (folder / "ants.txt").read_bytes() == content


@pytest.mark.parametrize(
    ("line", "left"),
    [
        ("ada@example.org, bob@example.org\n", " bob@example.org\n"),
        ("bob@example.org, Ada L. <ADA@example.org>\r\n", "bob@example.org\r\n"),
        ("ada@example.org (Lovelace, Ada),bob@example.org # office\n", "bob@example.org # office\n"),
        ("bob@example.org,ada@example.org,ada@example.org,eve@example.org\n", "bob@example.org,eve@example.org\n"),
        ("ada@example.org, # alone\n", ""),
        ("  ada@example.org,\n", ""),
    ],
)
def test_an_address_leaves_a_line_and_the_others_stay(folder, line, left):
    (folder / "ants.txt").write_bytes(f"# head\n{line}last@example.org\n".encode())
    assert _open(folder).remove(["ada@example.org"])["ada@example.org"].result is Result.DONE
    assert (folder / "ants.txt").read_bytes() == f"# head\n{left}last@example.org\n".encode()


def test_an_address_that_shares_a_line_is_not_added_again(folder):
    (folder / "ants.txt").write_text("ada@example.org, Bob <bob@example.org>\n")
    assert _open(folder).add(["BOB@example.org"])["BOB@example.org"].result is Result.ALREADY


@pytest.mark.parametrize("address", ["/etc/passwd@example.org", "|id@example.org"])
def test_an_address_that_would_be_a_file_or_a_command_is_refused(folder, address):
    (folder / "ants.txt").touch()
    outcome = _open(folder).add([address])[address]
    assert outcome.result is Result.REJECTED
    assert "a file or a command" in outcome.words
    assert (folder / "ants.txt").read_bytes() == b""


def test_adding_keeps_every_byte_that_was_there(path, folder):
    _open(folder).add(["bob@example.org"])
    assert path.read_bytes() == ORIGINAL + b"\r\nbob@example.org\r\n"


def test_adding_to_a_file_with_plain_line_ends_keeps_to_them(folder):
    (folder / "ants.txt").write_bytes(b"alice@example.org")
    _open(folder).add(["bob@example.org"])
    assert (folder / "ants.txt").read_bytes() == b"alice@example.org\nbob@example.org\n"


def test_removing_takes_every_spelling_and_leaves_every_other_byte(path, folder):
    outcomes = _open(folder).remove(["Alice@Example.Org"])
    assert outcomes["Alice@Example.Org"].result is Result.DONE
    assert path.read_bytes() == (
        ORIGINAL.replace(b"Alice A. <alice@example.org>\r\n", b"").replace(b"ALICE@example.org\n", b"")
    )


def test_a_comment_that_holds_an_address_is_no_subscriber(path, folder):
    assert _open(folder).remove(["bob@example.org"])["bob@example.org"].result is Result.ALREADY
    assert path.read_bytes() == ORIGINAL


def test_an_address_that_would_be_a_comment_is_refused_with_a_reason(path, folder):
    outcome = _open(folder).add(["#hash@example.org"])["#hash@example.org"]
    assert (outcome.result, outcome.words) == (Result.REJECTED, "a line that starts with # is a comment")
    assert path.read_bytes() == ORIGINAL


def test_nothing_to_change_writes_nothing(path, folder):
    before = path.stat()
    manager = _open(folder)
    assert manager.add(["DORA@example.org"])["DORA@example.org"].result is Result.ALREADY
    assert manager.remove(["nobody@example.org"])["nobody@example.org"].result is Result.ALREADY
    after = path.stat()  # reading it may change when it was last read
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_two_spellings_in_one_call_are_one_line(folder):
    (folder / "ants.txt").touch()
    results = [each.result for each in _open(folder).add(["A@example.org", "a@example.org"]).values()]
    assert results == [Result.DONE, Result.ALREADY]
    assert (folder / "ants.txt").read_text() == "A@example.org\n"


def test_an_address_beyond_ascii_is_written_in_utf8_and_found_again(folder):
    (folder / "ants.txt").touch()
    manager = _open(folder)
    manager.add(["jörg@bücher.example"])
    assert (folder / "ants.txt").read_bytes() == "jörg@bücher.example\n".encode()
    assert manager.remove(["JÖRG@xn--bcher-kva.example"])["JÖRG@xn--bcher-kva.example"].result is Result.DONE


def test_mode_and_owner_stay_as_they_were(path, folder):
    path.chmod(0o640)
    if os.geteuid() == 0:
        os.chown(path, 65534, 12345)
    before = path.stat()
    _open(folder).add(["bob@example.org"])
    after = path.stat()
    assert (after.st_uid, after.st_gid, stat.S_IMODE(after.st_mode)) == (before.st_uid, before.st_gid, 0o640)
    assert after.st_ino != before.st_ino


def test_a_link_stays_a_link_and_the_file_behind_it_changes(folder, tmp_path):
    (tmp_path / "elsewhere").write_text("alice@example.org\n")
    (folder / "ants.txt").symlink_to(tmp_path / "elsewhere")
    _open(folder).add(["bob@example.org"])
    assert (folder / "ants.txt").is_symlink()
    assert (tmp_path / "elsewhere").read_text() == "alice@example.org\nbob@example.org\n"


@pytest.mark.parametrize("call", ["check", "roster", "add", "remove"])
def test_a_missing_file_is_a_missing_list_and_is_not_made(folder, call):
    arguments = [["alice@example.org"]] if call in {"add", "remove"} else []
    with pytest.raises(NoSuchListError, match=r"ants\.txt"):
        getattr(_open(folder), call)(*arguments)
    assert list(folder.iterdir()) == []


def test_a_missing_folder_is_a_failure_and_no_missing_list(tmp_path):
    for call in ("check", "roster"):
        with pytest.raises(ListManagerUnavailableError, match="nowhere"):
            getattr(_open(tmp_path / "nowhere"), call)()
    with pytest.raises(ListManagerUnavailableError, match="nowhere"):
        _open(tmp_path / "nowhere").add(["alice@example.org"])


@pytest.mark.parametrize("name", ["../ants", "a/b", "..", ".", ".hidden", "", "a\0b", "-ants", "a\nb", "/etc/passwd"])
def test_the_name_of_a_list_cannot_leave_the_folder(folder, name):
    with pytest.raises(ConfigurationError, match="used as a file name"):
        _open(folder, name)


def test_a_named_pipe_in_the_files_place_hangs_nobody(folder):
    os.mkfifo(folder / "ants.txt")
    with pytest.raises(ListManagerUnavailableError, match="not a file"):
        _open(folder).roster()


def test_a_file_that_may_not_be_read_is_unavailable(path, folder):
    path.chmod(0)
    with _as_nobody(), pytest.raises(ListManagerUnavailableError, match="Permission denied"):
        _open(folder).roster()


def test_a_folder_that_may_not_be_written_leaves_the_file_whole():
    with tempfile.TemporaryDirectory() as name:  # pytest's own are closed to nobody
        folder, path = Path(name), Path(name, "ants.txt")
        path.write_bytes(ORIGINAL)
        path.chmod(0o666)
        folder.chmod(0o555)
        with _as_nobody():
            with pytest.raises(ListManagerUnavailableError, match="cannot be written: Permission denied"):
                _open(folder).add(["bob@example.org"])
            with pytest.raises(ListManagerUnavailableError, match="may not write"):
                _open(folder).check()
        folder.chmod(0o755)
        assert path.read_bytes() == ORIGINAL


def test_a_full_disk_leaves_the_file_whole_and_no_half_file_beside_it(path, folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ListManagerUnavailableError, match="cannot be written: File too large"):
            _open(folder).add([f"user{number}@example.org" for number in range(1000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_bytes() == ORIGINAL
    assert list(folder.iterdir()) == [path]


def test_what_a_crash_left_behind_is_cleared_away(path, folder):
    (folder / ".ants.txt.new").write_bytes(b"half of an addr")
    _open(folder).add(["bob@example.org"])
    assert list(folder.iterdir()) == [path]
    assert path.read_bytes().startswith(ORIGINAL)


def _add_many(folder: Path, worker: int) -> None:
    for number in range(25):
        _open(folder).add([f"w{worker}n{number}@example.org"])


@pytest.mark.slow
def test_processes_that_write_at_once_lose_nothing(folder):
    (folder / "ants.txt").touch()
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_add_many, args=(folder, worker)) for worker in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
        assert worker.exitcode == 0
    assert len(set(_open(folder).roster())) == 100


LINES = st.lists(
    st.sampled_from(
        [
            b"a@example.org",
            b"# c",
            b"",
            b"A@Example.org",
            b"X <b@example.org>",
            b"d@example.org, e@example.org # both",
            b"c@example.org ",
        ]
    )
)


@pytest.mark.slow
@given(lines=LINES, end=st.sampled_from([b"\n", b"\r\n", b""]))
def test_whoever_is_added_and_removed_again_leaves_the_lines_as_they_were(tmp_path_factory, lines, end):
    folder = tmp_path_factory.mktemp("rosters")
    path = folder / "ants.txt"
    original = (end or b"\n").join(lines) + (end if lines else b"")
    path.write_bytes(original)
    manager = _open(folder)
    manager.add(["new@example.org"])
    manager.remove(["NEW@example.org"])
    assert path.read_bytes().rstrip(b"\r\n") == original.rstrip(b"\r\n")
