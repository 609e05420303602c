"""A list manager of three plain commands for the kind ``commands``: ``plain.py FOLDER list|add|remove [-a ADDRESS] LIST``.

Run as a program it is the command; ``FakePlain`` sets it up and reads what it did. Rosters are kept as they were sent.
"""

import json
import os
import shlex
import sys
import time
from pathlib import Path


class FakePlain:
    """Three commands on a folder of rosters."""

    def __init__(self, root):
        self.root = root
        root.mkdir(parents=True, exist_ok=True)

    def cmds(self, *, option=""):
        """The ``cmds`` table; ``option`` is put into the commands that add and remove."""
        base = f"{sys.executable} -SEB {shlex.quote(__file__)} {shlex.quote(str(self.root))}"
        return {
            "list_members": f"{base} list",
            "add_members": f"{base} add {option}",
            "remove_members": f"{base} remove {option}",
        }

    def set_roster(self, name, addresses):
        (self.root / f"{name}.roster").write_text("".join(f"{each}\n" for each in addresses))

    def roster(self, name):
        return set((self.root / f"{name}.roster").read_text().split("\n")) - {""}

    def act(self, **modes):
        """Set what the commands do instead: down, hang, garbage, flood, header (text), exit_code, refuse (addresses)."""
        (self.root / "modes.json").write_text(json.dumps(modes))

    def calls(self):
        """Return {"argv": …, "stdin": …} of each call, the oldest first."""
        path = self.root / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main(root, action, *rest):
    modes = json.loads((root / "modes.json").read_text()) if (root / "modes.json").exists() else {}
    text = "" if action == "list" else sys.stdin.buffer.read().decode("utf-8", "surrogateescape")
    with (root / "calls.jsonl").open("a") as log:
        log.write(json.dumps({"argv": sys.argv[2:], "stdin": text}) + "\n")
    _misbehave(modes)
    path = root / f"{rest[-1]}.roster"
    if not path.exists():
        sys.stderr.write(f"{rest[-1]}: unknown list\n")
        return 2
    roster = [line for line in path.read_text().split("\n") if line]
    given = [rest[1]] if rest[0] == "-a" else text.split("\n")[:-1]
    if action == "list":
        sys.stdout.write(modes.get("header", "") + "".join(f"{each}\n" for each in roster))
        return 0
    if set(given) & set(modes.get("refuse", ())):
        sys.stderr.write("refused by the fake\nsecond line\n")
        return 1
    lows = {each.lower() for each in given}
    kept = [each for each in roster if each.lower() not in lows or action == "add"]
    held = {each.lower() for each in roster}
    new = [each for each in given if each.lower() not in held] if action == "add" else []
    path.write_text("".join(f"{each}\n" for each in [*kept, *new]))
    return modes.get("exit_code", 0)


def _misbehave(modes):
    if modes.get("down"):
        sys.stderr.write("\x1b[31mcannot reach\x07 the server\nmore\n")
        raise SystemExit(3)
    if modes.get("garbage"):
        sys.stdout.write("<html>Service for admin@example.org is down</html>\n")
        raise SystemExit(0)
    while modes.get("flood"):
        os.write(1, b"x" * 65536)
    if modes.get("hang"):
        time.sleep(3600)


if __name__ == "__main__":
    raise SystemExit(main(Path(sys.argv[1]), *sys.argv[2:]))
