"""An mlmmj for tests: its three programs on a spool like the real one's, with its silences and its traps.

Run as a program it is mlmmj-list, mlmmj-sub or mlmmj-unsub; ``FakeMlmmj`` sets it up and reads what it did. The
behaviour is that of 1.3.0: exit code 0 whatever came of an address, anything stored that holds an @, all lower case.
"""

import json
import os
import shlex
import sys
import time
from pathlib import Path

PROGRAMS = ("mlmmj-list", "mlmmj-sub", "mlmmj-unsub")
FOLDERS = {"-s": "subscribers.d", "-d": "digesters.d", "-n": "nomailsubs.d"}


class FakeMlmmj:
    """A spool, and the folder of the three programs."""

    def __init__(self, root):
        self.root, self.spool, self.bin = root, root / "spool", root / "bin"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.bin.mkdir(exist_ok=True)
        for name in PROGRAMS:
            # -S -E -B: half the time to start
            call = f"{sys.executable} -SEB {shlex.quote(__file__)} {shlex.quote(str(root))} {name}"
            (self.bin / name).write_text(f'#!/bin/sh\nexec {call} "$@"\n')
            (self.bin / name).chmod(0o755)

    def table(self):
        """The manager's table, without its kind."""
        return {"spool": str(self.spool), "bin": str(self.bin)}

    def set_roster(self, name, normal, *, digest=(), no_mail=()):
        for folder, addresses in zip(FOLDERS.values(), (normal, digest, no_mail), strict=True):
            path = self.spool / name / folder
            path.mkdir(parents=True, exist_ok=True)
            for old in path.iterdir():
                old.unlink()
            for address in addresses:
                append(path, address.lower())

    def roster(self, name, option="-s"):
        return set(read(self.spool / name / FOLDERS[option]))

    def set_no_mail(self, name, address):
        for folder in FOLDERS.values():
            path = self.spool / name / folder / address[0]
            if path.exists():
                path.write_text("".join(f"{each}\n" for each in path.read_text().split() if each != address))
        append(self.spool / name / FOLDERS["-n"], address)

    def everybody(self, name):
        return set().union(*(self.roster(name, option) for option in FOLDERS))

    def act(self, **modes):
        """Set what the programs do instead: down, hang, garbage, flood; lie, fail, kill (addresses); meanwhile (path, line)."""
        (self.root / "modes.json").write_text(json.dumps(modes))

    def calls(self, *programs):
        """Return what each call was given, the oldest first: the program and its arguments."""
        path = self.root / "calls.jsonl"
        calls = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
        return [call for call in calls if not programs or call[0] in programs]

    def was_interrupted(self):
        return (self.root / "interrupted").exists()


def main(root, program, *arguments):
    modes = json.loads((root / "modes.json").read_text()) if (root / "modes.json").exists() else {}
    with (root / "calls.jsonl").open("a") as log:
        log.write(json.dumps([program, *arguments]) + "\n")
    misbehave(root, modes)
    if "-V" in arguments:
        print(f"{program} version 1.3.0")  # noqa: T201 - it is a program
        return 0
    folder = Path(arguments[arguments.index("-L") + 1])
    if program == "mlmmj-list":
        return mlmmj_list(folder / FOLDERS[arguments[-1]])
    if not (folder / "subscribers.d").is_dir():
        return 1
    print(f"Changing to uid {folder.stat().st_uid}, owner of {folder}.")  # noqa: T201
    variant = next((each for each in ("-d", "-n") if each in arguments), "-s")
    return change(program, folder, arguments[arguments.index("-a") + 1].lower(), variant, modes)


def mlmmj_list(path):
    if not path.is_dir():
        sys.stderr.write(f"Could not opendir({path}/);\n")
        return 1
    for each in path.iterdir():
        if os.access(each, os.R_OK):  # no word about what it may not read
            sys.stdout.write(each.read_text(encoding="utf-8", errors="surrogateescape"))
    return 0


def change(program, folder, address, variant, modes):
    if address in modes.get("fail", ()) or address[:1] in {".", "/"}:
        return 1
    if address in modes.get("kill", ()):
        os.kill(os.getpid(), 9)
    if address in modes.get("lie", ()) or "@" not in address:
        return 0
    if program == "mlmmj-sub" and address in read(folder / FOLDERS[variant]):
        return 0
    for name in FOLDERS.values():
        path = folder / name
        rest = [each for each in read(path) if each != address]
        for old in path.iterdir():
            old.unlink()
        for each in rest:
            append(path, each)
    if program == "mlmmj-sub":
        append(folder / FOLDERS[variant], address)  # whoever got digests gets them no more
    return 0


def read(path):
    return [line for each in sorted(path.iterdir()) for line in each.read_text().split("\n") if line]


def append(path, address):
    with (path / address[0]).open("a") as stream:
        stream.write(f"{address}\n")


def misbehave(root, modes):
    if modes.get("down"):
        sys.stderr.write("\x1b[31mcannot reach\x07 the spool\nmore\n")
        raise SystemExit(1)
    if modes.get("garbage"):
        sys.stdout.write("<html>Service for admin@example.org is down</html>\n")
        raise SystemExit(0)
    while modes.get("flood"):
        os.write(1, b"x" * 65536)
    if modes.get("hang"):
        try:
            time.sleep(3600)
        except KeyboardInterrupt:
            (root / "interrupted").touch()
            raise SystemExit(1) from None


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *sys.argv[2:]))
