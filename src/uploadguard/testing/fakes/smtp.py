"""A mail server for tests, by aiosmtpd: it keeps what it took, and misbehaves at any stage of the conversation."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from dataclasses import dataclass, field
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, Literal, Self, TypeAlias

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

from uploadguard.testing.fakes.misbehaviour import Rules

__all__ = ["FakeSmtpServer", "Hang", "HangUp", "Mail", "Raw", "Reply", "Stage"]

Stage: TypeAlias = Literal["banner", "ehlo", "starttls", "auth", "mail", "rcpt", "data", "message", "quit"]
"""Before which answer. ``data`` is that to the command, ``message`` that to what follows it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """Refuse with this code."""

    code: int


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the connection without an answer. At ``message`` the mail is kept: a lost answer; not so by ``reset``."""

    reset: bool = False


@dataclass(frozen=True, slots=True)
class Hang:
    """Wait so long before the answer."""

    wait_s: float


@dataclass(frozen=True, slots=True)
class Raw:
    """Send these bytes in place of the answer; ``every_s`` is the pause after each, and 0 sends them at once."""

    data: bytes
    every_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail that was taken. ``recipients`` are those of the envelope."""

    envelope_from: str
    recipients: tuple[str, ...]
    data: bytes
    encrypted: bool
    username: str | None

    def parsed(self) -> EmailMessage:
        """The mail as the email package reads it."""
        return message_from_bytes(self.data, policy=policy.default)


@dataclass(slots=True)
class _State:
    mails: list[Mail] = field(default_factory=list)
    commands: list[str] = field(default_factory=list)


class FakeSmtpServer:
    """A server on 127.0.0.1; a context manager that runs it, with a thread of its own.

    ``tls`` offers STARTTLS, or with ``implicit_tls`` is used from the first byte. ``login`` is a user name and a
    password that it takes, and then wants. ``refused`` maps recipients to the codes that they are refused with.
    """

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        implicit_tls: bool = False,
        login: tuple[str, str] | None = None,
        seed: int = 0,
    ) -> None:
        self.rules = Rules(seed)
        self.refused: dict[str, int] = {}
        self.port = 0
        self._tls = tls
        self._implicit_tls = implicit_tls
        self._login = login
        self._state = _State()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._open: set[asyncio.BaseTransport] = set()

    @property
    def mails(self) -> list[Mail]:
        """Every mail that was taken, in order; a copy."""
        return list(self._state.mails)

    @property
    def commands(self) -> list[str]:
        """Every stage that was reached, in order; a copy."""
        return list(self._state.commands)

    def misbehave(self, *kinds: Any, at: Stage, **when: Any) -> None:
        """Misbehave at this stage; ``when`` is as for :meth:`Rules.add`."""
        self.rules.add(*kinds, path=at, **when)

    def pick(self, stage: Stage) -> Any:
        """What to do wrong at this stage, if anything."""
        return self.rules.pick("", stage)

    def start(self) -> None:
        """Listen. The port stays the same once one was taken."""
        listening = socket.create_server(("127.0.0.1", self.port))
        self.port = listening.getsockname()[1]
        loop = self._loop = asyncio.new_event_loop()
        context = self._tls if self._implicit_tls else None
        server = loop.run_until_complete(loop.create_server(lambda: _Smtp(self, loop), sock=listening, ssl=context))

        async def finish() -> None:
            server.close()
            for transport in list(self._open):
                if isinstance(transport, asyncio.WriteTransport):
                    transport.abort()
            conversations = asyncio.all_tasks() - {asyncio.current_task()}
            for one in conversations:
                one.cancel()
            await asyncio.gather(*conversations, return_exceptions=True)
            await asyncio.sleep(0.01)  # until what was aborted is closed

        def run() -> None:
            loop.run_forever()
            loop.run_until_complete(finish())
            loop.close()

        self._thread = threading.Thread(target=run, name=f"fake-smtp-{self.port}")
        self._thread.start()

    def stop(self) -> None:
        """Close the port and all connections; what was taken stays."""
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


class _Smtp(SMTP):
    """One connection."""

    def __init__(self, fake: FakeSmtpServer, loop: asyncio.AbstractEventLoop) -> None:
        self._fake = fake
        self._greeted = False
        login = fake._login
        super().__init__(
            _Handler(fake, self),
            hostname="mail.example",
            ident="fake",
            loop=loop,
            tls_context=None if fake._implicit_tls else fake._tls,
            auth_require_tls=False,
            authenticator=self._check_login if login is not None else None,
        )

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._fake._open.add(transport)
        super().connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._fake._open.discard(self.transport)
        super().connection_lost(error)

    def _check_login(self, _server: SMTP, _session: Session, _envelope: Envelope, _how: str, data: Any) -> AuthResult:
        login = (data.login.decode(), data.password.decode()) if isinstance(data, LoginPassword) else None
        return AuthResult(success=login == self._fake._login, handled=False, auth_data=login and login[0])

    async def meets(self, stage: Stage) -> bool:
        """Misbehave at this stage, if that is asked for; whether the answer is thereby given."""
        self._fake._state.commands.append(stage)
        match self._fake.pick(stage):
            case Reply(code):
                await super().push(f"{code} a refusal that nobody quotes")
            case HangUp(reset):
                self._close(reset=reset)
            case Hang(wait_s):
                await asyncio.sleep(wait_s)
                return False
            case Raw(data, every_s):
                for at in range(0, len(data), 1 if every_s else len(data)):
                    self._writer.write(data[at : at + 1] if every_s else data)
                    await self._writer.drain()
                    await asyncio.sleep(every_s)
            case _:
                return False
        return True

    def _close(self, *, reset: bool) -> None:
        if isinstance(self.transport, asyncio.WriteTransport):
            if reset:
                self.transport.abort()
            else:
                self.transport.close()

    async def push(self, status: Any) -> None:
        if not self._greeted:
            self._greeted = True
            if await self.meets("banner"):
                return
        with contextlib.suppress(ConnectionError):
            await super().push(status)

    async def smtp_EHLO(self, hostname: str) -> None:  # noqa: N802 - the base's names, here and below
        if not await self.meets("ehlo"):
            await super().smtp_EHLO(hostname)

    async def smtp_STARTTLS(self, arg: str) -> None:  # noqa: N802
        if not await self.meets("starttls"):
            await super().smtp_STARTTLS(arg)

    async def smtp_AUTH(self, arg: str) -> None:  # noqa: N802
        if not await self.meets("auth"):
            await super().smtp_AUTH(arg)

    async def smtp_MAIL(self, arg: str | None) -> None:  # noqa: N802
        if await self.meets("mail"):
            return
        if self._fake._login is not None and (self.session is None or not self.session.authenticated):
            await self.push("530 5.7.0 who are you?")
            return
        await super().smtp_MAIL(arg)

    async def smtp_RCPT(self, arg: str | None) -> None:  # noqa: N802
        if not await self.meets("rcpt"):
            await super().smtp_RCPT(arg)

    async def smtp_DATA(self, arg: str) -> None:  # noqa: N802
        if not await self.meets("data"):
            await super().smtp_DATA(arg)

    async def smtp_QUIT(self, arg: str) -> None:  # noqa: N802
        if not await self.meets("quit"):
            await super().smtp_QUIT(arg)


class _Handler:
    """What becomes of mails."""

    def __init__(self, fake: FakeSmtpServer, connection: _Smtp) -> None:
        self._fake = fake
        self._connection = connection

    async def handle_RCPT(  # noqa: N802 - the package's name
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        code = self._fake.refused.get(address)
        if code is not None:
            return f"{code} no such person"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, _server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        fake = self._fake
        fake._state.commands.append("message")
        found = fake.pick("message")
        if isinstance(found, Reply):
            return f"{found.code} a refusal that nobody quotes"
        if isinstance(found, HangUp) and found.reset:
            self._connection._close(reset=True)
            return "250 unheard"
        content = envelope.content if isinstance(envelope.content, bytes) else b""
        encrypted = session.ssl is not None or fake._implicit_tls
        mail = Mail(envelope.mail_from or "", tuple(envelope.rcpt_tos), content, encrypted, session.auth_data)
        fake._state.mails.append(mail)
        match found:
            case HangUp():
                self._connection._close(reset=False)
            case Hang(wait_s):
                await asyncio.sleep(wait_s)
            case Raw(data):
                return data.decode("ascii")
        return "250 OK"
