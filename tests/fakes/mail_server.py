"""A mail server on the loopback that stores mail, and fails in the ways that mail servers do."""

import asyncio
import ssl
import subprocess
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session


@dataclass
class Taken:
    """A letter that the server took."""

    sender: str
    to: str
    raw: bytes

    @property
    def message(self) -> EmailMessage:
        return cast(EmailMessage, message_from_bytes(self.raw, policy=policy.default))

    @property
    def text(self) -> str:
        return self.message.get_content().replace("\r\n", "\n")


@dataclass
class FakeMailServer:
    """``answers``: what it says to a mailbox at RCPT, ``at_data`` what it says to every letter; "" takes it.

    ``cut``: the connection ends after the letter; ``hang``: no answer comes to it. In both cases it is kept.
    """

    answers: dict[str, str] = field(default_factory=dict)
    at_data: str = ""
    at_mail: str = ""
    cut: bool = False
    hang: bool = False
    password: str | None = None
    tls: ssl.SSLContext | None = None
    is_tls_from_the_start: bool = False
    taken: list[Taken] = field(default_factory=list)
    connections: int = 0
    port: int = 0

    def __enter__(self) -> "FakeMailServer":
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result()
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _listen(self) -> asyncio.Server:
        encryption = self.tls if self.is_tls_from_the_start else None
        return await self._loop.create_server(self._protocol, "127.0.0.1", self.port, ssl=encryption)

    async def _end(self) -> None:
        self._server.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for each in others:
            each.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _protocol(self) -> SMTP:
        self.connections += 1
        later = None if self.is_tls_from_the_start else self.tls
        return SMTP(
            self,
            hostname="mail.example.org",
            enable_SMTPUTF8=True,
            tls_context=later,
            require_starttls=later is not None,
            authenticator=self.authenticate if self.password else None,
            auth_require_tls=False,
            loop=self._loop,
        )

    def toml(self, *, security: str = "none", more: str = "") -> str:
        host = "127.0.0.1" if security == "none" else "localhost"
        return (
            f'[mail]\nsender = "portal@example.org"\n{more}\n'
            f'[mail.smtp]\nhost = "{host}"\nport = {self.port}\nsecurity = "{security}"\n'
        )

    # What aiosmtpd calls.

    async def handle_MAIL(
        self, _server: SMTP, session: Session, envelope: Envelope, address: str, _o: list[str]
    ) -> str:
        if self.password and not session.authenticated:
            return "530 log in first"
        envelope.mail_from = address
        return self.at_mail or "250 go on"

    async def handle_RCPT(self, _server: SMTP, _s: Session, envelope: Envelope, address: str, _o: list[str]) -> str:
        answer = self.answers.get(address, "")
        if not answer:
            envelope.rcpt_tos.append(address)
        return answer or "250 go on"

    async def handle_DATA(self, server: SMTP, _session: Session, envelope: Envelope) -> str:
        if self.at_data:
            return self.at_data
        raw = cast(bytes, envelope.original_content)
        self.taken += [Taken(envelope.mail_from or "", each, raw) for each in envelope.rcpt_tos]
        if self.cut:
            server.transport.abort()
        if self.hang:
            await asyncio.Event().wait()
        return "250 it is here"

    def authenticate(self, _server: SMTP, _session: Session, _envelope: Envelope, _kind: str, data: Any) -> AuthResult:
        is_right = isinstance(data, LoginPassword) and data.password == (self.password or "").encode()
        return AuthResult(success=is_right, handled=False)


def make_certificate(folder: Path, *, host: str = "localhost") -> tuple[ssl.SSLContext, Path]:
    """Return what a server of a name encrypts with, and the certificate for those who are to trust it."""
    key, certificate = folder / f"{host}.key", folder / f"{host}.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "36500", "-subj", f"/CN={host}",
         "-addext", f"subjectAltName=DNS:{host}", "-keyout", str(key), "-out", str(certificate)],
        check=True, capture_output=True,
    )  # fmt: skip
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate, key)
    return context, certificate
