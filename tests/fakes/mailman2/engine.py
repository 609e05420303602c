"""What the fake commands of Mailman 2.1 do; see the package for what tests set up and read.

Standard library only, and quick to start: it runs once for each call, in the portal's minimal environment.
The behaviour is that of bin/list_members, add_members and remove_members of 2.1, their misreadings included.
"""

import io
import json
import os
import re
import signal
import sys
import time
import types
from pathlib import Path

BAD_CHARACTERS = re.compile(r'[][()<>|:;^,\\"\x00-\x1f\x7f-\uffff]')  # _badchars of Mailman/Utils.py
HELPERS = Path(__file__).parents[3] / "portal/templates/scripts"
USAGE = "Usage of the fake: as of the real command, at some length.\n" * 30


def main(command):
    """Run a command as the real one would, unless a switch of the test says otherwise."""
    root, arguments = _root(sys.argv[1:])
    wants_input = command != "list_members"
    _log(root, {"command": command, "argv": [sys.argv[0], *sys.argv[1:]], "environment": dict(os.environ)})
    switch = _switches(root).get(command, {})
    _before(root, command, switch)
    name = arguments[-1].lower().strip() if arguments else ""
    text = sys.stdin.buffer.read().decode("utf-8", "surrogateescape") if wants_input else ""
    if wants_input:
        _log(root, {"command": command, "stdin": text})
    commands = {"list_members": list_members, "add_members": add_members, "remove_members": remove_members}
    if command in {"changepw", "memberoptions"}:
        withlist(root, command, name, text, _switches(root).get("add_members", {}))
    else:
        commands[command](
            root, arguments[:-1], name, [line.strip() for line in text.split("\n") if line.strip()], switch
        )
    _after(root, switch)


def list_members(root, options, name, _lines, _switch):
    """Print the regular, then the digest members; take no lock."""
    members = _load(root, name)
    if members is None:
        _leave(1, stderr=f"No such list: {name}\n")
    keeps_case = "-p" in options
    for kind in ("regular", "digest"):
        for low, spelling in sorted(members[kind].items()):
            _print(spelling if keeps_case else low)


def add_members(root, _options, name, lines, switch):
    """Subscribe what parseaddr makes of each line, and say one thing about each line."""
    if _load(root, name) is None:
        _leave(1, stderr=f"{USAGE}\nNo such list: {name}\n")
    with Lock(root, name):
        if not lines:
            _leave(0, stdout=f"{USAGE}\nNothing to do.\n")
        members = _load(root, name)
        for line in lines:
            if line in switch.get("crash", ()):
                _leave(
                    1, stderr="Traceback (most recent call last):\n  line\nUnicodeDecodeError: ordinal not in range\n"
                )
            _print(_add(members, line, switch))
        _hang(root, "add_members", switch, "hang_locked")
        _save(root, name, members)


def _add(members, line, switch):
    address = misread(line)
    wrong = why_invalid(address)
    if wrong == "bad":
        return f"Bad/Invalid email address: {line if address else 'blank line'}"
    if wrong == "hostile":
        return f"Hostile address (illegal characters): {line}"
    if address.lower() in members["regular"] or address.lower() in members["digest"]:
        return f"Already a member: {line}"
    for pattern in switch.get("ban", ()):
        if re.search(pattern, address, re.IGNORECASE):
            return f"{line}: Banned address (matched {pattern})"
    if not any(re.search(pattern, address) for pattern in switch.get("lie", ())):
        local, _, domain = address.partition("@")
        members["regular"][address.lower()] = f"{local}@{domain.lower()}"
    return f"{switch.get('subscribed', 'Subscribed')}: {line}"


def remove_members(root, _options, name, lines, switch):
    """Unsubscribe each line as it stands; the exit code is 0 even where there is no such list."""
    if _load(root, name) is None:
        _print(f"Error opening list {name}... skipping.")
        return
    with Lock(root, name):
        members = _load(root, name)
        for line in lines:
            if not any(line.lower() in members[kind] for kind in ("regular", "digest")):
                _print(f"No such member: {line}")
            elif not any(re.search(pattern, line) for pattern in switch.get("lie", ())):
                forget(members, line)
        _hang(root, "remove_members", switch, "hang_locked")
        _save(root, name, members)


def withlist(root, command, name, text, switch):
    """Run a helper that the portal prints, as bin/withlist -l -r does where it was installed."""
    mailman = types.ModuleType("Mailman")
    mailman.Errors, mailman.MemberAdaptor, mailman.mm_cfg = Errors, MemberAdaptor, mm_cfg
    sys.modules["Mailman"] = mailman
    helper = {"__name__": command}
    exec(compile((HELPERS / f"{command}.py.txt").read_text(), f"{command}.py", "exec"), helper)
    mailing_list = MailList(root, name, switch) if _load(root, name) is not None else None
    if mailing_list is None:
        sys.stderr.write(f"Unknown list: {name}\n")
    sys.stdin = io.StringIO(text)
    helper[command](mailing_list)


class Errors:
    """Mailman.Errors, as far as adding a member raises them."""

    class MMBadEmailError(Exception):
        pass

    class MMHostileAddress(Exception):
        pass

    class MMAlreadyAMember(Exception):
        pass

    class MembershipIsBanned(Exception):
        pass


class MemberAdaptor:
    """Mailman.MemberAdaptor: whether a member gets mail, and why not."""

    ENABLED, UNKNOWN, BYUSER, BYADMIN, BYBOUNCE = range(5)


WHY_OFF = ["ENABLED", "UNKNOWN", "BYUSER", "BYADMIN", "BYBOUNCE"]


class mm_cfg:
    """Mailman.mm_cfg: the flags that a helper names."""

    Digests, DisableMime = 0, 8


class MailList:
    """What of Mailman.MailList a helper of withlist needs, locked when it is made."""

    def __init__(self, root, name, switch):
        self.root, self.name, self.switch = root, name, switch
        self.lock = None
        self.Lock()

    def Locked(self):
        return self.lock is not None

    def Lock(self):
        self.lock = Lock(self.root, self.name)
        self.lock.__enter__()
        self.members, self.passwords = _load(self.root, self.name), _passwords(self.root, self.name)

    def Unlock(self):
        if self.Locked():
            self.lock.__exit__()
        self.lock = None

    def isMember(self, address):
        return any(address.lower() in self.members[kind] for kind in ("regular", "digest"))

    def setMemberPassword(self, address, password):
        self.passwords[address.lower()] = password

    def getMemberOption(self, address, flag):
        return address.lower() in self.members["digest" if flag == mm_cfg.Digests else "plain"]

    def setMemberOption(self, address, flag, value):
        assert flag == mm_cfg.DisableMime, "digests are chosen when a member is added"
        self.members["plain"].pop(address.lower(), None)
        if value:
            self.members["plain"][address.lower()] = True

    def getDeliveryStatus(self, address):
        return WHY_OFF.index(self.members["delivery"].get(address.lower(), "ENABLED"))

    def getDeliveryStatusChangeTime(self, address):
        return 1_793_692_800 if address.lower() in self.members["delivery"] else 0

    def setDeliveryStatus(self, address, status):
        assert self.isMember(address)
        self.members["delivery"][address.lower()] = WHY_OFF[status]

    def ApprovedAddMember(self, user, ack=None, admin_notif=None):
        assert self.Locked()
        assert (ack, admin_notif) == (0, 0), "somebody would be written to"
        if user.address in self.switch.get("crash", ()):
            raise UnicodeDecodeError("ascii", b"x", 0, 1, "ordinal not in range")
        wrong = why_invalid(user.address)
        if wrong:
            raise Errors.MMBadEmailError() if wrong == "bad" else Errors.MMHostileAddress()
        if self.isMember(user.address):
            raise Errors.MMAlreadyAMember(user.address)
        for pattern in self.switch.get("ban", ()):
            if re.search(pattern, user.address, re.IGNORECASE):
                raise Errors.MembershipIsBanned(pattern)
        local, _, domain = user.address.partition("@")
        self.members["digest" if user.digest else "regular"][user.address.lower()] = f"{local}@{domain.lower()}"

    def Save(self):
        _save(self.root, self.name, self.members)
        (self.root / "lists" / f"{self.name}.passwords").write_text(json.dumps(self.passwords))


def forget(members, address):
    """Delete all that is kept about a member, as removeMember() does."""
    for kind in members.values():
        kind.pop(address.lower(), None)


def _passwords(root, name):
    path = root / "lists" / f"{name}.passwords"
    return json.loads(path.read_text()) if path.exists() else {}


def misread(line):
    """Return what email.Utils.parseaddr of Python 2 takes for the address."""
    text = re.sub(r"\([^)]*\)", "", line).partition(",")[0]
    if "<" in text:
        text = text.partition("<")[2].partition(">")[0]
    if ":" in text:
        text = text.partition(":")[2]
    text = text.partition(";")[0]
    if text.count("@") > 1:
        return ""
    return "".join(text.split())


def why_invalid(address):
    """Return how ValidateEmail refuses an address: "bad", "hostile" or not at all."""
    if not address:
        return "bad"
    if BAD_CHARACTERS.search(address):
        return "hostile"
    local, at, domain = address.partition("@")
    if not local or not at or "." not in domain:
        return "bad"
    if any(not re.fullmatch(r"[a-z0-9][-a-z0-9]*", part, re.IGNORECASE) for part in domain.split(".")):
        return "hostile"
    return ""


class Lock:
    """The list's lock: waited for without end, let go by SIGINT, left behind by SIGTERM and SIGKILL."""

    def __init__(self, root, name):
        self.path = root / "locks" / f"{name}.lock"

    def __enter__(self):
        while True:
            try:
                self.path.open("x").close()
            except FileExistsError:
                time.sleep(0.01)
            else:
                return

    def __exit__(self, *_error):
        self.path.unlink()


def _before(root, command, switch):
    while "hold" in switch and not (root / "let-go").exists():
        time.sleep(0.01)
    if "fail" in switch:
        fail = switch["fail"]
        _leave(fail["exit_code"], stdout=fail["stdout"], stderr=fail["stderr"])
    while "flood" in switch:
        os.write(1, b"x" * 65536)
    _hang(root, command, switch, "hang")


def _hang(root, command, switch, how):
    if how not in switch:
        return
    for name in switch[how]:
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        (root / "hanging").touch()
        time.sleep(3600)
    except KeyboardInterrupt:
        _log(root, {"command": command, "signal": "SIGINT"})
        raise SystemExit(1) from None


def _after(root, switch):
    for change in switch.get("meanwhile", ()):
        members = _load(root, change["list"])
        for address in change["leave"]:
            forget(members, address)
        members["regular"].update({address.lower(): address for address in change["join"]})
        _save(root, change["list"], members)


def _root(arguments):
    where = arguments.index("--root")
    return Path(arguments[where + 1]), arguments[:where] + arguments[where + 2 :]


def _switches(root):
    path = root / "switches.json"
    return json.loads(path.read_text()) if path.exists() else {}


def _load(root, name):
    path = root / "lists" / f"{name}.json"
    return json.loads(path.read_text()) if path.exists() else None


def _save(root, name, members):
    fresh = root / "lists" / f"{name}.json.tmp"
    fresh.write_text(json.dumps(members))
    fresh.replace(root / "lists" / f"{name}.json")


def _log(root, entry):
    with (root / "calls.jsonl").open("a") as stream:
        stream.write(json.dumps({**entry, "pid": os.getpid()}) + "\n")


def _print(line):
    sys.stdout.buffer.write(line.encode("utf-8", "surrogateescape") + b"\n")


def _leave(code, *, stdout="", stderr=""):
    sys.stdout.buffer.write(stdout.encode("utf-8", "surrogateescape"))
    sys.stderr.buffer.write(stderr.encode("utf-8", "surrogateescape"))
    raise SystemExit(code)
