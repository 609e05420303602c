"""`flask mailinglist memberoptions-script`: the helper for withlist that reads options, and adds members with them."""

import os
import subprocess
from pathlib import Path

import pytest
from flask.testing import FlaskCliRunner

from tests.cli.test_passwords import Call, pythons

# What of Mailman 2.1 the helper needs, in words that Python 2 and 3 share. It tells on stderr what was done.
MAILMAN = {
    "__init__.py": "",
    "mm_cfg.py": "Digests, DisableMime = 0, 8\n",
    "MemberAdaptor.py": "ENABLED, UNKNOWN, BYUSER, BYADMIN, BYBOUNCE = range(5)\n",
    "Errors.py": "".join(
        f"class {name}(Exception):\n    pass\n"
        for name in ("MMBadEmailError", "MMHostileAddress", "MMAlreadyAMember", "MembershipIsBanned")
    ),
}
DRIVER = """
import sys
from Mailman import Errors, mm_cfg
import memberoptions


class MailList(object):
    def __init__(self):
        self.locked = "-l" in sys.argv
        self.members = {
            "alice@example.org": (False, False, 0),
            "dora@example.org": (True, False, 0),
            "paul@example.org": (True, True, 0),
            "user@example.org": (False, False, 2),
            "admin@example.org": (True, False, 3),
            "bounced@example.org": (False, True, 4),
            "unknown@example.org": (False, False, 1),
        }

    def Locked(self):
        return self.locked

    def Lock(self):
        self.locked = True
        sys.stderr.write("lock\\n")

    def Unlock(self):
        if self.locked:
            sys.stderr.write("unlock\\n")
        self.locked = False

    def Save(self):
        assert self.locked
        sys.stderr.write("save\\n")

    def isMember(self, address):
        return address.lower() in self.members

    def getMemberOption(self, address, flag):
        return self.members[address.lower()][0 if flag == mm_cfg.Digests else 1]

    def getDeliveryStatus(self, address):
        return self.members[address.lower()][2]

    def getDeliveryStatusChangeTime(self, address):
        return 1793692800.5

    def setMemberOption(self, address, flag, value):
        sys.stderr.write("option %s %d %d\\n" % (address, flag, value))

    def setDeliveryStatus(self, address, status):
        sys.stderr.write("status %s %d\\n" % (address, status))

    def ApprovedAddMember(self, userdesc, ack=None, admin_notif=None, text='', whence=''):
        assert (ack, admin_notif, userdesc.fullname) == (0, 0, "")
        for name in ("MMBadEmailError", "MMHostileAddress", "MMAlreadyAMember"):
            if userdesc.address.startswith(name):
                raise getattr(Errors, name)(userdesc.address)
        if userdesc.address.startswith("banned"):
            raise Errors.MembershipIsBanned("^banned")
        if userdesc.address.startswith("break"):
            raise RuntimeError("it broke down")
        sys.stderr.write("add %s %d\\n" % (userdesc.address, userdesc.digest))


arguments = [each for each in sys.argv[1:] if each not in ("-l", "nope")]
memberoptions.memberoptions(None if "nope" in sys.argv else MailList(), *arguments)
"""


@pytest.fixture(params=pythons(), ids=os.path.basename)
def withlist(request: pytest.FixtureRequest, runner: FlaskCliRunner, tmp_path: Path) -> Call:
    """Mailman's withlist -r memberoptions, with a list of its own."""
    printed = runner.invoke(args=["mailinglist", "memberoptions-script"])
    assert (printed.exit_code, printed.stderr) == (0, "")
    (tmp_path / "memberoptions.py").write_text(printed.stdout)
    (tmp_path / "driver.py").write_text(DRIVER)
    (tmp_path / "Mailman").mkdir()
    for name, text in MAILMAN.items():
        (tmp_path / "Mailman" / name).write_text(text)

    def run(*args: str, stdin: str = "") -> tuple[int, str, str]:
        command = [request.param, "-B", str(tmp_path / "driver.py"), *args]
        done = subprocess.run(command, check=False, input=stdin, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.mark.parametrize("locked", [["-l"], []])
def test_the_helper_prints_the_options_of_members_who_have_any_and_saves_nothing(withlist, locked):
    names = ("alice", "Dora", "paul", "user", "admin", "bounced", "unknown", "stranger")
    code, stdout, stderr = withlist(*locked, stdin="".join(f"{name}@example.org\n" for name in names))
    assert (code, stdout) == (
        0,
        "Dora@example.org\tdigest\npaul@example.org\tplain-digest\nuser@example.org\tby-user\n"
        "admin@example.org\tdigest by-admin\nbounced@example.org\t\t1793692800\n",
    )
    assert stderr == f"{'' if locked else f'lock{chr(10)}'}unlock\n"


def test_the_helper_adds_with_options_and_one_save_and_says_what_add_members_says(withlist):
    lines = [
        "a@example.org\tdigest",
        "b@example.org\tplain-digest by-user",
        "c@example.org\tby-admin",
        "d@example.org\t",
        "banned@example.org\tdigest",
        "MMAlreadyAMember@example.org\tdigest",
        "MMBadEmailError@example.org\tdigest",
        "MMHostileAddress@example.org\tdigest",
    ]
    code, stdout, stderr = withlist("-l", stdin="".join(f"{line}\n" for line in lines))
    assert (code, stdout.splitlines()) == (
        0,
        [
            "Subscribed: a@example.org",
            "Subscribed: b@example.org",
            "Subscribed: c@example.org",
            "Subscribed: d@example.org",
            "banned@example.org: Banned address (matched ^banned)",
            "Already a member: MMAlreadyAMember@example.org",
            "Bad/Invalid email address: MMBadEmailError@example.org",
            "Hostile address (illegal characters): MMHostileAddress@example.org",
        ],
    )
    assert stderr.splitlines() == [
        "add a@example.org 1",
        "option a@example.org 8 0",
        "add b@example.org 1",
        "option b@example.org 8 1",
        "status b@example.org 2",
        "add c@example.org 0",
        "status c@example.org 3",
        "add d@example.org 0",
        "save",
        "unlock",
    ]


def test_the_helper_that_breaks_down_saves_nothing_says_nothing_and_lets_go_of_the_lock(withlist):
    code, stdout, stderr = withlist("-l", stdin="a@example.org\tdigest\nbreak@example.org\tdigest\n")
    assert (code, stdout) == (1, "")
    assert "unlock" in stderr
    assert "save" not in stderr


def test_the_helper_ends_with_1_where_withlist_found_no_list(withlist):
    assert withlist("nope", stdin="a@example.org\n") == (1, "", "memberoptions: there is no such list\n")


@pytest.mark.parametrize(
    "lines", ["a@example.org\tdigest\tx\n", "a@example.org\tmore\n", "\tdigest\n", "\n", "a@example.org\tdig", "a@ex"]
)
def test_the_helper_adds_nobody_where_a_line_cannot_be_read(withlist, lines):
    code, stdout, stderr = withlist("-l", stdin=f"first@example.org\tdigest\n{lines}")
    assert (code, stdout) == (2, "")
    assert stderr.startswith("memberoptions: line 2 is neither ADDRESS nor ADDRESS TAB OPTIONS, so nobody was added\n")
    assert "add first" not in stderr


def test_the_helper_explains_its_use(withlist):
    code, stdout, stderr = withlist("-l", "alice@example.org")
    assert (code, stdout) == (2, "")
    assert stderr == "memberoptions: give LIST alone, and lines on standard input\n"
