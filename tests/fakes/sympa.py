"""A Sympa for tests: its one command, with the outputs, exit codes and false claims of 6.2.70.

Run as a program it is the command; ``FakeSympa`` sets it up and reads what it did. Subscribers are kept in a file that
plays the database: {list: {address in lower case: {"reception": …, "visibility": …}}}.
"""

import json
import os
import re
import shlex
import sys
import time
from pathlib import Path

DOMAIN = "lists.example.org"
USUAL = {"date": 1795370667, "number_messages": 0, "subscribed": 1, "update_date": 1795370667}
NOISE = "setlogsock(): type='unix': path not available at /usr/share/sympa/lib/Sympa/Log.pm line 225.\n"
REFUSED = re.compile(r"[][(),:;<>\\]|[^\x21-\x7e]")


class FakeSympa:
    """A Sympa whose first domain is ``lists.example.org``; lists of other domains have a folder of their domain."""

    def __init__(self, root):
        self.root, self.data = root, root / "list_data"
        self.data.mkdir(parents=True, exist_ok=True)

    def table(self):
        """The manager's table, without its kind."""
        # -S -E -B: half the time to start
        program = f"{sys.executable} -SEB {shlex.quote(__file__)} {shlex.quote(str(self.root))}"
        return {"program": program, "data": str(self.data), "domain": DOMAIN}

    def set_roster(self, name, normal, *, digest=(), concealed=()):
        name, lists = name if "@" in name else f"{name}@{DOMAIN}", load(self.root)
        kinds = ((normal, "mail", "noconceal"), (digest, "digest", "noconceal"), (concealed, "mail", "conceal"))
        lists[name] = {
            each.lower(): {"reception": reception, "visibility": visibility}
            for addresses, reception, visibility in kinds
            for each in addresses
        }
        folder(self.root, name).mkdir(parents=True, exist_ok=True)
        save(self.root, lists)

    def roster(self, name):
        return set(load(self.root)[name if "@" in name else f"{name}@{DOMAIN}"])

    def digest_roster(self, name):
        return {each for each, row in load(self.root)[f"{name}@{DOMAIN}"].items() if row["reception"] == "digest"}

    def no_mail_roster(self, name):
        return {each for each, row in load(self.root)[f"{name}@{DOMAIN}"].items() if row["reception"] == "nomail"}

    def set_options(self, name, address, **options):
        """Let a subscriber have another reception mode, or suspend a subscription."""
        lists = load(self.root)
        lists[f"{name}@{DOMAIN}"][address] |= options
        save(self.root, lists)

    def act(self, **modes):
        """Set what the command does instead.

        down, garbage, flood, hang; closed; no_database; no_database_once; stale, torn, unsaved (the dump); unrestored;
        lie, mute, ban, crash (addresses); not_allowed (reception modes).
        """
        (self.root / "modes.json").write_text(json.dumps(modes))

    def calls(self):
        """Return {"argv": …, "stdin": …} of each call, the oldest first."""
        path = self.root / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def was_interrupted(self):
        return (self.root / "interrupted").exists()


def main(root, action, *arguments):
    modes = json.loads((root / "modes.json").read_text()) if (root / "modes.json").exists() else {}
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if action in {"add", "del"} else ""
    with (root / "calls.jsonl").open("a") as log:
        log.write(json.dumps({"argv": [action, *arguments], "stdin": text}) + "\n")
    sys.stderr.write(NOISE * 2)
    misbehave(root, modes)
    if action == "version":
        print("Sympa 6.2.70")  # noqa: T201 - it is a program
        return 0
    lists, name = load(root), arguments[-1].lower()
    if name not in lists:
        kinds = 'list, domain or "*"' if action == "dump" else "list"
        sys.stderr.write(f"Invalid argument '{arguments[-1]}' ({kinds} is expected)\n")
        return 1
    if "no_database_once" in modes:  # as while another process holds it
        (root / "modes.json").unlink()
        modes = {"no_database": True}
    if action == "dump":
        return dump(root, name, lists[name], modes)
    if action == "restore":
        return restore(root, name, lists, modes)
    return change(root, action, name, lists, text, modes)


def dump(root, name, rows, modes):
    if modes.get("closed"):
        return 0  # not a word, and the old file stays
    path = folder(root, name) / "member.dump"
    if path.exists() and not modes.get("stale"):
        path.replace(path.with_suffix(".dump.old"))
    if modes.get("unsaved"):
        sys.stderr.write(f"{name}: Could not dump list users (member)\n")
        return 0
    records = [
        "".join(f"{key} {value}\n" for key, value in sorted(({"email": email} | USUAL | row).items())) + "\n"
        for email, row in ({} if modes.get("no_database") else rows).items()
    ]
    if not modes.get("stale"):
        content = "".join(records).encode("utf-8", "surrogateescape")
        path.write_bytes(content[:-40] if modes.get("torn") else content)
    sys.stderr.write(f"{name}: Dumped list users (member)\n")
    return 0


def restore(root, name, lists, modes):
    """Add what member.dump holds and the list does not; say nothing of any address, and exit with 0 all the same."""
    if modes.get("closed"):
        return 0
    path = folder(root, name) / "member.dump"
    if modes.get("unrestored"):
        sys.stderr.write(f"{name}: Could not restore list users (member)\n")
        return 0
    for record in path.read_text().split("\n\n"):
        fields = dict(line.partition(" ")[::2] for line in record.split("\n"))
        email = fields.pop("email", "").lower()
        mode = fields.get("reception", "mail")
        reception = "mail" if mode in modes.get("not_allowed", ()) else mode
        if add(name, lists[name], email, modes)[1] and email in lists[name]:
            lists[name][email] |= {**fields, "reception": reception}
    save(root, lists)
    sys.stderr.write(f"{name}: Restored list users (member)\n")
    return 0


def change(root, action, name, lists, text, modes):
    lines = [line for line in re.split(r"\r\n|\r|\n", text) if line.strip() and not line.lstrip().startswith("#")]
    if not lines:
        sys.stderr.write("No email addresses found in input.\n")
        return 1
    failed = False
    for email in (line.split()[0].lower() for line in lines):
        if email in modes.get("crash", ()):
            sys.stderr.write(f"DIED: cannot handle {email}\n")
            return 255
        answer, is_good = {"add": add, "del": delete}[action](name, lists[name], email, modes)
        failed = failed or not is_good
        if email not in modes.get("mute", ()):
            sys.stderr.buffer.write(f"{action} {answer}\n".encode("utf-8", "surrogateescape"))
    if not modes.get("no_database"):
        save(root, lists)
    if failed:
        what = "Failed to add email addresses to" if action == "add" else "Failed to delete email addresses from"
        sys.stderr.write(f"{what} {name}\n")
    return int(failed)


def add(name, rows, email, modes):
    if modes.get("no_database"):
        return "[intern] Attempts to add some users in database failed.", False
    if email == name:
        return f'[user] Address "{email}" is the address of the list', False
    if email in modes.get("ban", ()):
        return f'[user] Address "{email}" is blocklisted', False
    if REFUSED.search(email) or not re.fullmatch(r"[^@]+@[^@.]+(\.[^@.]+)+", email):
        return f'[user] Address "{email}" is incorrect', False
    if email in rows:
        return f"[user] The User '{email}' is already subscriber of list ''.", False
    if email not in modes.get("lie", ()):
        rows[email] = {"reception": "mail", "visibility": "noconceal"}
    return f"[notice] 1 subscribers added\nadd [notice] User {email} is now subscriber of list {list_of(name)}.", True


def delete(name, rows, email, modes):
    if modes.get("no_database"):
        return "[intern] Attempts to delete some users in database failed.", False
    if email not in rows:
        return f"[user] E-mail address {email} was not found in list .", False
    if email not in modes.get("lie", ()):
        del rows[email]
    return f"[notice] The user {email} has been removed from the list {name}.", True


def list_of(name):
    return name.partition("@")[0]


def folder(root, name):
    domain = name.partition("@")[2]
    return root / "list_data" / ("" if domain == DOMAIN else domain) / list_of(name)


def load(root):
    path = root / "database.json"
    return json.loads(path.read_text()) if path.exists() else {}


def save(root, lists):
    (root / "database.json").write_text(json.dumps(lists))


def misbehave(root, modes):
    if modes.get("down"):
        sys.stderr.write("\x1b[31mnotice Conf::_load() Unable to open\x07 sympa.conf: Permission denied\nmore\n")
        raise SystemExit(13)
    if modes.get("garbage"):
        sys.stderr.write("<html>Service for admin@example.org is down</html>\n")
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
