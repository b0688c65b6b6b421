"""Who may use the service: bearer tokens, several at once while one is being replaced."""

from __future__ import annotations

import asyncio
import base64
import binascii
import enum
import hashlib
import hmac
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from uploadguard.config_hosts import ServeSettings
from uploadguard.errors import ConfigError
from uploadguard.logs import log

__all__ = ["MIN_TOKEN_CHARS", "Scope", "Tokens"]

MIN_TOKEN_CHARS = 20
_MAX_TOKENS = 64
_MAX_FILE_BYTES = 64 * 1024
_LOOK_S = 1.0
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")


class Scope(enum.StrEnum):
    """What a token is good for."""

    ALL = "all"
    METRICS = "metrics"


class Tokens:
    """The tokens in force. ``None`` for ``source``: none is needed. Used on one event loop.

    A file is looked at again, at most once a second, when a request comes. One that cannot be read or has an error
    leaves those in force that were, and the log says so.
    """

    def __init__(self, source: Path | str | None) -> None:
        """``source`` is a file's path, or the tokens themselves, one a line.

        Raises :class:`~uploadguard.errors.ConfigError` where there is none, or one is no token.
        """
        self._path = source if isinstance(source, Path) else None
        self.needed = source is not None
        self._digests: dict[bytes, Scope] = {}
        self._stamp: tuple[int, ...] | None = None
        self._looked = time.monotonic()
        self._looking = False
        if self._path is not None:
            self._stamp, self._digests = _read(self._path)
        elif isinstance(source, str):
            self._digests = _parse(source, "serve.token_env")

    @classmethod
    def of(cls, settings: ServeSettings, environment: Mapping[str, str] = os.environ) -> Tokens:
        """Those that the settings name. Raises :class:`~uploadguard.errors.ConfigError`."""
        if settings.token_file is not None and settings.token_env is not None:
            raise ConfigError("serve: set token_file or token_env, not both")
        if settings.token_file is not None:
            return cls(settings.token_file)
        if settings.token_env is not None:
            if settings.token_env not in environment:
                raise ConfigError("serve.token_env: there is no environment variable of that name")
            return cls(environment[settings.token_env])
        return cls(None)

    async def scope_of(self, authorization: str | None) -> Scope | None:
        """What a request with this ``Authorization`` header may do; None: nothing."""
        if not self.needed:
            return Scope.ALL
        await self._look()
        given = _given(authorization)
        digest = hashlib.sha256(given).digest()
        found = None
        for known, scope in self._digests.items():  # all of them, whichever it is
            if hmac.compare_digest(known, digest):
                found = scope
        return found if given else None

    async def _look(self) -> None:
        if self._path is None or self._looking or time.monotonic() - self._looked < _LOOK_S:
            return
        self._looking = True
        try:
            if await asyncio.to_thread(_stamp_of, self._path) != self._stamp:
                self._stamp, self._digests = await asyncio.to_thread(_read, self._path)
                log.info("the service's tokens were read again: there are %d", len(self._digests))
        except ConfigError as error:
            log.error("the service's tokens stay as they were: %s", error)
        finally:
            self._looked, self._looking = time.monotonic(), False


def _given(authorization: str | None) -> bytes:
    """The token of a header: a bearer token, or the password where a client can only do Basic."""
    scheme, _, value = (authorization or "").strip().partition(" ")
    value = value.strip()
    if scheme.lower() == "bearer":
        return value.encode()
    if scheme.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""


def _stamp_of(path: Path) -> tuple[int, ...]:
    try:
        found = path.stat()
    except OSError as error:
        raise ConfigError(f"serve.token_file: {path} cannot be read: {error.strerror}") from error
    return found.st_mtime_ns, found.st_size, found.st_ino


def _read(path: Path) -> tuple[tuple[int, ...], dict[bytes, Scope]]:
    stamp = _stamp_of(path)
    try:
        if path.stat().st_mode & 0o007:
            log.warning("serve.token_file: every user of this machine may read it")
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"serve.token_file: {path} cannot be read: {error.strerror}") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"serve.token_file: {path} is too large to be a file of tokens")
    return stamp, _parse(data.decode("ascii", "replace"), f"serve.token_file: {path}")


def _parse(text: str, where: str) -> dict[bytes, Scope]:
    """The digests of tokens, one a line; ``metrics`` after one limits it. ``#`` begins a comment."""
    found: dict[bytes, Scope] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        token, *rest = words
        if rest not in ([], [Scope.METRICS.value]):
            raise ConfigError(f"{where}, line {number}: a token, and after it nothing or the word metrics")
        if len(token) < MIN_TOKEN_CHARS or not _TOKEN.fullmatch(token):
            raise ConfigError(
                f"{where}, line {number}: a token has at least {MIN_TOKEN_CHARS} characters, "
                "letters, digits and . _ ~ + / = -; `openssl rand -hex 32` makes one"
            )
        found[hashlib.sha256(token.encode()).digest()] = Scope(rest[0]) if rest else Scope.ALL
    if not found:
        raise ConfigError(f"{where}: there is no token")
    if len(found) > _MAX_TOKENS:
        raise ConfigError(f"{where}: more than {_MAX_TOKENS} tokens")
    return found
