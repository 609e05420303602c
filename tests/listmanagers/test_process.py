"""Running commands: their input, their end, and no processes left behind."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from portal.errors import ConfigurationError, ListManagerUnavailableError
from portal.listmanagers import process
from tests.waiting import is_gone, wait_until

REPOSITORY = Path(__file__).parents[2]


def _python(code: str, *arguments: str) -> list[str]:
    return [sys.executable, "-SE", "-c", code, *arguments]


def test_a_command_gets_its_words_as_they_are_and_no_shell_reads_them():
    words = ["$(touch pwned)", "`id`", "a b", "*", "'\"", ""]
    finished = process.run(_python("import sys; print(sys.argv[1:])", *words), timeout=10)
    assert finished.stdout.decode() == f"{words}\n"


def test_a_command_gets_a_path_and_a_language_and_nothing_of_ours(monkeypatch):
    monkeypatch.setenv("PORTAL_SECRET", "canary")
    monkeypatch.setenv("HOME", "/nowhere")
    finished = process.run(["/usr/bin/env"], timeout=10)
    names = {line.partition("=")[0] for line in finished.stdout.decode().splitlines()}
    assert names == {"PATH", "LANG"}


def test_large_input_and_large_output_do_not_wait_for_each_other():
    data = b"0123456789" * 500_000
    code = "import sys; d = sys.stdin.buffer.read(); sys.stderr.buffer.write(d); sys.stdout.buffer.write(d)"
    finished = process.run(_python(code), stdin=data, timeout=30)
    assert finished.stdout == data
    assert finished.stderr == data


def test_a_command_that_reads_no_input_is_no_failure():
    finished = process.run(_python("print('done')"), stdin=b"x" * 1_000_000, timeout=10)
    assert (finished.exit_code, finished.stdout) == (0, b"done\n")


def test_a_message_begins_with_the_name_that_the_caller_gave():
    for argv in (["/nowhere"], ["/bin/sleep", "9"]):
        with pytest.raises(ListManagerUnavailableError, match=r"^ants: add_members: "):
            process.run(argv, name="ants: add_members", timeout=0.2)
    with pytest.raises(ListManagerUnavailableError, match=r"^ants: add_members: "):
        process.require_success(process.run(["/bin/false"], name="ants: add_members", timeout=10))


def test_without_input_a_command_meets_the_end_of_it_at_once():
    assert process.run(["/bin/cat"], timeout=10).stdout == b""


@pytest.mark.parametrize("program", ["/nowhere/list_members", "no-such-program-of-ours"])
def test_a_missing_program_is_named(program):
    with pytest.raises(ListManagerUnavailableError, match=f"{program} cannot be run: No such file"):
        process.run([program], timeout=10)
    with pytest.raises(ListManagerUnavailableError, match=program):
        process.require_program(program)


def test_a_program_that_may_not_be_run_is_named(tmp_path):
    program = tmp_path / "list_members"
    program.write_text("#!/bin/sh\n")
    with pytest.raises(ListManagerUnavailableError, match="Permission denied"):
        process.run([str(program)], timeout=10)
    with pytest.raises(ListManagerUnavailableError, match="may not run it"):
        process.require_program(str(program))


def test_a_file_that_is_no_program_is_named(tmp_path):
    program = tmp_path / "list_members"
    program.write_bytes(b"\x00\x01 not a program")
    program.chmod(0o755)
    with pytest.raises(ListManagerUnavailableError, match="list_members cannot be run"):
        process.run([str(program)], timeout=10)


def test_a_failure_tells_the_first_line_of_stderr_without_control_characters():
    code = "import sys; sys.stderr.write('\\n\\x1b[31mno \\x07disk\\nsecond\\n'); sys.exit(9)"
    finished = process.run(_python(code), timeout=10)
    with pytest.raises(ListManagerUnavailableError) as caught:
        process.require_success(finished)
    assert "exit code 9: \ufffd[31mno \ufffddisk" in str(caught.value)
    assert "second" not in str(caught.value)


def test_a_failure_tells_the_last_line_of_a_traceback():
    finished = process.run(_python("raise OSError('disk on fire')"), timeout=10)
    assert process.error_line(finished) == "OSError: disk on fire"


def test_a_silent_failure_is_said_to_be_silent():
    with pytest.raises(ListManagerUnavailableError, match="exit code 1, with no error message"):
        process.require_success(process.run(["/bin/false"], timeout=10))


def test_a_command_that_a_signal_ends_has_failed():
    finished = process.run(_python("import os; os.kill(os.getpid(), 9)"), timeout=10)
    with pytest.raises(ListManagerUnavailableError, match="was killed by signal 9"):
        process.require_success(finished)


@pytest.mark.parametrize("stream", [1, 2])
def test_a_command_that_prints_without_end_is_stopped(stream):
    started = time.monotonic()
    with pytest.raises(ListManagerUnavailableError, match="printed more than 1000000 bytes"):
        process.run(_python(f"import os\nwhile 1: os.write({stream}, b'x' * 65536)"), timeout=60, max_output=1_000_000)
    assert time.monotonic() - started < 10


def test_a_command_that_closes_its_output_and_goes_on_is_stopped_in_time():
    with pytest.raises(ListManagerUnavailableError, match=r"did not finish within 0\.5 seconds"):
        process.run(_python("import os, time; os.close(1); os.close(2); time.sleep(60)"), timeout=0.5)


def _recorder(tmp_path: Path, *, deaf_to: str = "") -> list[str]:
    code = f"""
import os, signal, sys, time
out = open({str(tmp_path / "signals")!r}, "a", buffering=1)
def heard(number, frame):
    out.write(signal.Signals(number).name + "\\n")
    if signal.Signals(number).name not in {deaf_to!r}:
        sys.exit(1)
signal.signal(signal.SIGINT, heard)
signal.signal(signal.SIGTERM, heard)
open({str(tmp_path / "ready")!r}, "w").write(str(os.getpid()))
while True:
    time.sleep(0.05)
"""
    return [sys.executable, "-SE", "-c", code]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("deaf_to", "heard"),
    [("", ["SIGINT"]), ("SIGINT", ["SIGINT", "SIGTERM"]), ("SIGINT SIGTERM", ["SIGINT", "SIGTERM"])],
)
def test_a_command_that_takes_too_long_is_interrupted_then_terminated_then_killed(tmp_path, deaf_to, heard):
    with pytest.raises(ListManagerUnavailableError, match=r"did not finish within 1\.5 seconds"):
        process.run(_recorder(tmp_path, deaf_to=deaf_to), timeout=1.5, grace=0.4)
    assert (tmp_path / "signals").read_text().split() == heard
    assert is_gone(int((tmp_path / "ready").read_text()))


@pytest.mark.slow
def test_what_a_command_started_ends_with_it(tmp_path):
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/sh\nsleep 300 &\necho $! > {tmp_path}/pid\nwait\n")
    wrapper.chmod(0o755)
    with pytest.raises(ListManagerUnavailableError):
        process.run([str(wrapper)], timeout=0.5, grace=0.3)
    assert is_gone(int((tmp_path / "pid").read_text()))


@pytest.mark.slow
def test_a_wrapper_that_dies_first_leaves_what_it_wraps_the_time_to_clean_up(tmp_path):
    """A shell dies of SIGINT at once, while the Mailman that it runs still has a lock to let go."""
    inner = f"""
import time
try:
    time.sleep(60)
except KeyboardInterrupt:
    time.sleep(0.7)
    open({str(tmp_path / "cleaned")!r}, "w")
"""
    (tmp_path / "inner.py").write_text(inner)
    wrapper = tmp_path / "wrapper"
    wrapper.write_text(f"#!/bin/sh\n{sys.executable} -SE {tmp_path}/inner.py\n")
    wrapper.chmod(0o755)
    with pytest.raises(ListManagerUnavailableError):
        process.run([str(wrapper)], timeout=1.5, grace=5)
    assert (tmp_path / "cleaned").exists()


@pytest.mark.slow
def test_a_command_with_much_to_say_at_its_end_is_still_heard_out(tmp_path):
    code = f"""
import os, time
try:
    time.sleep(60)
except KeyboardInterrupt:
    os.write(2, b"x" * 1_000_000)
    open({str(tmp_path / "cleaned")!r}, "w")
"""
    with pytest.raises(ListManagerUnavailableError):
        process.run(_python(code), timeout=1.5)
    assert (tmp_path / "cleaned").exists()


@contextmanager
def _driver(tmp_path: Path, *, before: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """A Python that runs the recorder, to be interrupted in our place."""
    code = f"""
import signal, sys
{before}
from portal.listmanagers import process
process.run({_recorder(tmp_path)!r}, timeout=60, grace=1)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY, stderr=subprocess.DEVNULL) as child:
        try:
            wait_until(lambda: (tmp_path / "ready").exists() and (tmp_path / "ready").read_text() != "")
            yield child
        finally:
            child.kill()


def test_an_interrupt_at_the_keyboard_interrupts_the_command_too(tmp_path):
    with _driver(tmp_path) as driver:
        driver.send_signal(signal.SIGINT)
        assert driver.wait(10) == -signal.SIGINT
    assert (tmp_path / "signals").read_text().split() == ["SIGINT"]
    assert is_gone(int((tmp_path / "ready").read_text()))


def test_an_exit_asked_for_by_a_signal_handler_interrupts_the_command_too(tmp_path):
    before = "signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(7))"
    with _driver(tmp_path, before=before) as driver:
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(10) == 7
    assert (tmp_path / "signals").read_text().split() == ["SIGINT"]


def test_the_default_interrupt_works_in_a_background_job_which_ignores_it(tmp_path):
    """`sync &` in a script runs with SIGINT ignored; a Mailman that inherited that would have to be killed."""
    code = f"""
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from portal.listmanagers import process
inner = '''
import signal
open({str(tmp_path / "inherited")!r}, "w").write(str(signal.getsignal(signal.SIGINT)))
'''
process.run([{sys.executable!r}, "-c", inner], timeout=20)
assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, check=True, timeout=30)
    assert "default_int_handler" in (tmp_path / "inherited").read_text()


def test_killed_while_it_hands_over_input_it_never_gives_a_command_half_an_address(tmp_path):
    """Input is whole before the command starts: SIGKILL cannot make bob@example.co of bob@example.com."""
    slow = f"""
import os, sys, time
parent = os.getppid()
open({str(tmp_path / "ready")!r}, "w").write("x")
while os.getppid() == parent:
    time.sleep(0.01)
data = sys.stdin.buffer.read()
open({str(tmp_path / "got")!r}, "wb").write(data)
"""
    code = f"""
from portal.listmanagers import process
process.run({_python(slow)!r}, stdin=b"bob@example.com\\n" * 100_000, timeout=20)
"""
    with subprocess.Popen([sys.executable, "-c", code], cwd=REPOSITORY) as driver:
        wait_until((tmp_path / "ready").exists)
        driver.kill()
    wait_until(lambda: (tmp_path / "got").exists() and (tmp_path / "got").stat().st_size == 1_600_000)


def test_no_file_is_left_open():
    before = set(Path("/proc/self/fd").iterdir())
    for argv in (["/bin/true"], ["/nowhere"], ["/bin/sleep", "9"]):
        try:
            process.run(argv, stdin=b"x", timeout=0.2)
        except ListManagerUnavailableError:
            continue
    assert set(Path("/proc/self/fd").iterdir()) <= before


@pytest.mark.parametrize(
    ("command", "argv"),
    [
        ("/bin/list -x", ("/bin/list", "-x", "ants")),
        ("/bin/list 'a b' \"c\"", ("/bin/list", "a b", "c", "ants")),
        ("/bin/list -l {list} -x", ("/bin/list", "-l", "ants", "-x")),
        ("/bin/list -L /var/spool/{list}/{list}", ("/bin/list", "-L", "/var/spool/ants/ants")),
    ],
)
def test_the_name_of_the_list_is_appended_or_put_where_it_is_wanted(command, argv):
    assert process.with_list(command, "ants") == argv


@pytest.mark.parametrize("name", ["-a", "--all", "", "a\nb", "a\0"])
def test_a_list_name_that_a_command_would_misread_is_refused(name):
    with pytest.raises(ConfigurationError, match="a list name"):
        process.with_list("/bin/list", name)


@pytest.mark.parametrize("command", ["", "  ", "/bin/list 'open", "./list", "bin/list", "/bin/list \0"])
def test_a_text_that_cannot_be_split_into_a_command_is_refused(command):
    with pytest.raises(ValueError, match=r"it is empty|quotation|absolute path|NUL"):
        process.split(command)
