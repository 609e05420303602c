"""Delivery of letters to the mail server, by SMTP or by a command such as sendmail."""

import os
import shlex
import signal
import smtplib
import socket
import ssl
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from email import policy
from email.message import EmailMessage
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self
from urllib.parse import urlsplit

from portal.config import MailSettings, Settings, SmtpSettings
from portal.domain.address import printable
from portal.errors import ConfigurationError, MailDeferredError, MailRefusedError, MailUnavailableError
from portal.services.mail import letter_folder

TIMEOUT = 10  # seconds for each answer of a server, or for a command to take a letter
_LONGEST = 150  # characters of a server's message
_PERMANENT = {65: "refused the letter", 67: "does not know the mailbox", 68: "does not know the host"}  # sysexits.h

Report = Callable[[str], None]


class Server(ABC):
    """A mail server. It is connected at the first letter and reused for the others."""

    @abstractmethod
    def deliver(self, message: EmailMessage, *, to: str) -> None:
        """Deliver a letter. Raise MailRefusedError, MailDeferredError or MailUnavailableError."""

    @abstractmethod
    def check(self) -> str:
        """Check that it could take a letter, and describe it. Raise MailUnavailableError or ConfigurationError."""

    def close(self) -> None:
        """End the connection."""
        return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()


def open_server(settings: Settings, folder: Path, *, timeout: float, report: Report) -> Server:
    """Return the server from the settings; ``timeout`` is in seconds for each answer.

    ``report`` is called with each step. Raise ConfigurationError if mail is not configured.
    """
    mail = settings.mail
    if mail is None:
        raise ConfigurationError("mail is not configured: add a table [mail] to portal.toml")
    if mail.folder is not None:
        return _Folder(folder / mail.folder, report)
    if mail.smtp is None:
        return _Command(mail, timeout, report)
    return _Smtp(mail, mail.smtp, folder, _Call(_own_name(settings.base_url), timeout), report)


class _Call(NamedTuple):
    """How a server is called: the name in the greeting, and the seconds for each answer."""

    own_name: str
    timeout: float


class _Folder(Server):
    def __init__(self, folder: Path, report: Report) -> None:
        self._folder, self._report = folder, report

    def deliver(self, message: EmailMessage, *, to: str) -> None:
        letter_folder.write(self._folder, message)
        self._report(f"the letter to {to} is in {self._folder}")

    def check(self) -> str:
        return f"letters are written to {self._folder}, and not sent"


class _Command(Server):
    def __init__(self, mail: MailSettings, timeout: float, report: Report) -> None:
        self._argv, self._timeout, self._report = mail.sendmail_argv, timeout, report

    def deliver(self, message: EmailMessage, *, to: str) -> None:
        argv = [*self._argv, "--", to]  # an address may begin with a dash
        self._report(f"running: {shlex.join(argv)}")
        text = message.as_bytes(policy=policy.default.clone(utf8=not to.isascii()))
        code, said = _run(argv, text, timeout=self._timeout)
        if code == 0:
            self._report("the command accepted the letter")
            return
        words = f"{self._argv[0]} ended with exit code {code}" + (f": {said}" if said else "")
        if code in _PERMANENT:
            raise MailRefusedError(f"{words} ({_PERMANENT[code]})")
        raise MailUnavailableError(words)

    def check(self) -> str:
        program = self._argv[0]
        found = next((place for place in _places(program) if os.access(place, os.X_OK)), None)
        if found is None:
            raise ConfigurationError(f"{printable(program)} cannot be run as a program; correct `sendmail` in [mail]")
        return f"{found}, not tested; send a test letter with: flask mail test ADDRESS"


def _places(program: str) -> Iterator[Path]:
    folders = [""] if "/" in program else os.environ.get("PATH", os.defpath).split(os.pathsep)
    yield from (place for folder in folders if (place := Path(folder, program)).is_file())


def _run(argv: list[str], text: bytes, *, timeout: float) -> tuple[int, str]:
    environ = {name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ}
    try:
        process = subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=environ,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise MailUnavailableError(f"{argv[0]} cannot be run: {os.strerror(error.errno or 0)}") from None
    with process:
        try:
            _, errors = process.communicate(text, timeout=timeout)
        except subprocess.TimeoutExpired:
            _end(process)
            raise MailUnavailableError(
                f"{argv[0]} did not finish within {timeout:g} seconds", may_have_arrived=True
            ) from None
    return process.returncode, _one_line(errors)


def _end(process: "subprocess.Popen[bytes]") -> None:
    for kind in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, kind)
        try:
            process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            continue
        return


class _DataTracker:
    """Track whether the server has received a letter that it has not acknowledged."""

    has_given_letter = False

    def data(self, msg: Any) -> tuple[int, bytes]:
        self.has_given_letter = True
        answer: tuple[int, bytes] = super().data(msg)  # type: ignore[misc]
        self.has_given_letter = False
        return answer


class _Plain(_DataTracker, smtplib.SMTP):
    pass


class _Encrypted(_DataTracker, smtplib.SMTP_SSL):
    pass


class _Smtp(Server):
    def __init__(self, mail: MailSettings, smtp: SmtpSettings, folder: Path, call: _Call, report: Report) -> None:
        self._mail, self._settings, self._folder = mail, smtp, folder
        self._call, self._report = call, report
        self._connection: _Plain | _Encrypted | None = None
        self._where = f"{smtp.host}:{smtp.port_in_use}"

    def deliver(self, message: EmailMessage, *, to: str) -> None:
        with self._translated():
            connection = self._connected()
            try:
                connection.send_message(message, self._mail.sender, [to])
            except smtplib.SMTPRecipientsRefused as error:
                code, words = error.recipients[to]
                raise _refusal(code, words) from None
            except smtplib.SMTPDataError as error:
                connection.has_given_letter = False
                raise _refusal(error.smtp_code, error.smtp_error) from None
            except smtplib.SMTPNotSupportedError:
                raise MailRefusedError(f"{self._where} does not accept addresses with non-ASCII letters") from None
        self._report(f"{self._where} accepted the letter")

    def check(self) -> str:
        with self._translated():
            connection = self._connected()
            connection.noop()
        return f"{self._where}, {self._security()}"

    def close(self) -> None:
        if self._connection is not None:
            with suppress(OSError, smtplib.SMTPException):
                self._connection.quit()
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
        self._connection = None

    def _connected(self) -> "_Plain | _Encrypted":
        if self._connection is None:
            self._connection = self._connect()
            self._report(f"connected to {self._where}, {self._security()}")
            self._log_in(self._connection)
        return self._connection

    def _connect(self) -> "_Plain | _Encrypted":
        smtp = self._settings
        host, port = smtp.host.strip("[]"), smtp.port_in_use
        if smtp.security == "tls":
            context = ssl.create_default_context()
            return _Encrypted(host, port, self._call.own_name, timeout=self._call.timeout, context=context)
        connection = _Plain(host, port, self._call.own_name, timeout=self._call.timeout)
        if smtp.security == "starttls":
            try:
                connection.starttls(context=ssl.create_default_context())
            except BaseException:
                connection.close()
                raise
        return connection

    def _security(self) -> str:
        inner = self._connection.sock if self._connection is not None else None
        return str(inner.version()) if isinstance(inner, ssl.SSLSocket) else "not encrypted"

    def _log_in(self, connection: "_Plain | _Encrypted") -> None:
        user, file = self._settings.user, self._settings.password_file
        connection.ehlo_or_helo_if_needed()
        if user is None or file is None:
            return
        try:
            password = (self._folder / file).read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError):
            raise ConfigurationError(
                f"{self._folder / file}, which holds the password for {self._where}, cannot be read"
            ) from None
        try:
            connection.login(user, password)
        except smtplib.SMTPAuthenticationError as error:
            words = _one_line(error.smtp_error)
            raise MailUnavailableError(f"{self._where} refused the log-in of {user}: {words}") from None
        self._report(f"logged in as {user}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Translate smtplib's errors into ours. After any error but a reply the connection is not reused."""
        try:
            yield
        except (MailRefusedError, MailDeferredError):
            if self._connection is not None and self._connection.sock is None:  # 421: it has closed it
                self._drop()
            raise
        except Exception as error:
            may_have_arrived = self._connection is not None and self._connection.has_given_letter
            self._drop()
            if isinstance(error, OSError):  # smtplib's own errors are OSErrors too
                words = f"{self._where}: {_in_words(error)}"
                raise MailUnavailableError(words, may_have_arrived=may_have_arrived) from None
            raise


def _refusal(code: int, said: bytes | str) -> MailRefusedError | MailDeferredError:
    words = f"{code} {_one_line(said)}".strip()
    return MailRefusedError(words) if code >= 500 else MailDeferredError(words)


def _in_words(error: OSError) -> str:
    if isinstance(error, smtplib.SMTPResponseException):
        return f"{error.smtp_code} {_one_line(error.smtp_error)}"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted: {error.verify_message}"
    if isinstance(error, smtplib.SMTPNotSupportedError) and "STARTTLS" in str(error):
        return 'it does not offer STARTTLS; set `security` in [mail.smtp]: "none" on the same host, otherwise "tls"'
    if isinstance(error, TimeoutError) or "timed out" in str(error):  # smtplib hides a timeout in its own message
        return "no answer in time"
    if isinstance(error, socket.gaierror):
        return "the host name cannot be resolved"
    known = error.errno and not isinstance(error, smtplib.SMTPException | ssl.SSLError)
    return os.strerror(error.errno or 0) if known else _one_line(str(error))


def _one_line(said: bytes | str) -> str:
    text = said.decode("utf-8", "replace") if isinstance(said, bytes) else said
    return printable(" ".join(text.split()), limit=_LONGEST)


def _own_name(base_url: str) -> str:
    """Return the name to greet the server with: the portal's host, so that no DNS lookup is needed."""
    host = urlsplit(base_url).hostname or "localhost"
    return f"[IPv6:{host}]" if ":" in host else f"[{host}]" if host.replace(".", "").isdigit() else host
