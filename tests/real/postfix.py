"""A Postfix of its own on a free loopback port, which delivers to mailboxes in a folder and to nowhere else.

``.ci/postfix FOLDER`` unpacks the programs that PORTAL_TEST_POSTFIX names; without the variable they are looked for in
``.postfix`` beside pyproject.toml.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

import pytest

from tests.waiting import is_gone, wait_until

ROOT = Path(__file__).parents[2]
# Postfix insists on a user and a group that are nobody else's. Every Debian has these, and a test adds none to a machine.
OWNER, GROUP = "mail", "uucp"
SETTINGS = """
compatibility_level = 3.6
import_environment = MAIL_CONFIG LANG=C LD_LIBRARY_PATH={programs}/usr/lib/postfix
daemon_directory = {programs}/usr/lib/postfix/sbin
command_directory = {programs}/usr/sbin
shlib_directory = {programs}/usr/lib/postfix
meta_directory = {programs}/etc/postfix
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = {owner}
setgid_group = {group}
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
disable_dns_lookups = yes
myhostname = mail.example.org
mydestination =
alias_maps =
local_recipient_maps =
mynetworks = 127.0.0.0/8
smtpd_relay_restrictions = permit_mynetworks, reject
virtual_mailbox_domains = example.org, example.net
virtual_mailbox_base = {folder}/boxes
virtual_mailbox_maps = texthash:{folder}/settings/mailboxes
virtual_uid_maps = static:8
virtual_gid_maps = static:8
virtual_minimum_uid = 1
default_transport = error:nothing leaves this machine
relay_transport = error:nothing leaves this machine
local_transport = error:nothing leaves this machine
"""
SERVICES = """
127.0.0.1:{port} inet n - n - - smtpd
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
error unix - - n - - error
retry unix - - n - - error
virtual unix - n n - - virtual
anvil unix - - n - 1 anvil
postlog unix-dgram n - n - 1 postlogd
"""
QUEUE = ("active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved", "trace")
UNOWNED = ("maildrop", "pid", "public")


def programs() -> Path:
    """Return the folder that Postfix is in, or would be."""
    return Path(os.environ.get("PORTAL_TEST_POSTFIX") or ROOT / ".postfix")


def why_missing() -> str:
    """Return why Postfix cannot run here; an empty text where it can."""
    master = programs() / "usr/lib/postfix/sbin/master"
    if not master.exists():
        return f"no {master}: .ci/postfix {programs()}"
    return "" if os.geteuid() == 0 else "Postfix is started by root alone"


@contextmanager
def running(names: Iterable[str]) -> Iterator["Postfix"]:
    """Run a mail server with some mailboxes in a folder of its own; skip where Postfix is not installed."""
    if why := why_missing():
        pytest.skip(why)
    with TemporaryDirectory(prefix="postfix-") as folder:
        Path(folder).chmod(0o755)  # its daemons have a user of their own
        found = Postfix(Path(folder), names)
        try:
            yield found
        finally:
            found.stop()


class Postfix:
    """A mail server with a mailbox for each of some names, at example.org and example.net. It knows no other address."""

    def __init__(self, folder: Path, names: Iterable[str]) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as server:
            self.port = int(server.getsockname()[1])
        self._furnish(names)
        self.start()

    def _furnish(self, names: Iterable[str]) -> None:
        values = {"programs": programs(), "folder": self.folder, "owner": OWNER, "group": GROUP, "port": self.port}
        settings = self.folder / "settings"
        settings.mkdir()
        (settings / "main.cf").write_text(SETTINGS.format(**values))
        (settings / "master.cf").write_text(SERVICES.format(**values))
        lines = [f"{name}@example.{end} {name}.{end}/\n" for name in names for end in ("org", "net")]
        (settings / "mailboxes").write_text("".join(lines))
        (self.folder / "queue").mkdir()
        for name in (*(f"queue/{each}" for each in (*QUEUE, *UNOWNED)), "data", "boxes"):
            (self.folder / name).mkdir()
            if name != "queue/pid":
                subprocess.run(["chown", f"{OWNER}:{OWNER}", self.folder / name], check=True)

    def start(self) -> None:
        """Start it, or start it again."""
        with (self.folder / "output").open("ab") as output:
            self._process: subprocess.Popen[Any] = subprocess.Popen(
                [programs() / "usr/lib/postfix/sbin/master", "-c", self.folder / "settings", "-d"],
                env={"PATH": os.defpath, "LD_LIBRARY_PATH": str(programs() / "usr/lib/postfix")},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        wait_until(self._answers)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self.folder / "output").read_text()
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
            return connection.recv(3) == b"220"
        return False

    def stop(self, kind: signal.Signals = signal.SIGTERM) -> None:
        """End it and all that it has started."""
        if self._process.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, kind)
            self._process.wait(timeout=30)
            wait_until(lambda: is_gone(self._process.pid))

    def toml(self, more: str = "") -> str:
        """Return the tables of a portal.toml that sends by this server."""
        return (
            f'[mail]\nsender = "portal@example.org"\n{more}\n'
            f'[mail.smtp]\nhost = "127.0.0.1"\nport = {self.port}\nsecurity = "none"\n'
        )

    def letters(self, mailbox: str) -> list[EmailMessage]:
        """Return what lies in a mailbox, the oldest first."""
        name, _, domain = mailbox.partition("@")
        folder = self.folder / "boxes" / f"{name}.{domain.rpartition('.')[2]}" / "new"
        paths = sorted(folder.iterdir(), key=lambda each: each.stat().st_mtime_ns) if folder.exists() else []
        return [cast(EmailMessage, message_from_bytes(each.read_bytes(), policy=policy.default)) for each in paths]

    def wait_for(self, mailbox: str, *, number: int = 1) -> str:
        """Return the text of a mailbox's letter of a number, as soon as it has arrived."""
        wait_until(lambda: len(self.letters(mailbox)) >= number)
        return str(self.letters(mailbox)[number - 1].get_content())
