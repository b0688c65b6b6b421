"""A client of the service (``uploadguard serve``), for hosts that check in another process or on another machine.

It needs httpx (extra: client) and nothing of what decodes or matches. Whatever goes wrong is a
:class:`~uploadguard.errors.ServiceError`: no failure looks like an upload that may go on.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from uploadguard import client_wire as wire
from uploadguard.client_results import CaseState, CheckResult, Readiness, RecordedResult, UploaderAnswer, parse_result
from uploadguard.client_wire import Data
from uploadguard.models import Context, Hash

__all__ = ["AsyncClient", "CaseState", "CheckResult", "Client", "Readiness", "RecordedResult", "UploaderAnswer"]


class Client:
    """Checks uploads by the service. Thread-safe; keeps connections open; close it, or use it as a context manager.

    ``base_url`` is as ``http://127.0.0.1:8643``; ``socket`` the path of a Unix socket in its place. ``timeout_s`` is
    how long each wait for the service may be; a check itself ends within its ``sandbox.deadline_s``. A request is
    tried again, ``retries`` times, only where it is certain that nothing was decided: no connection came about, or the
    service said that it has no room. Proxies that the environment names are not used.
    """

    def __init__(
        self,
        base_url: str | None = None,
        *,
        socket: str | os.PathLike[str] | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
    ) -> None:
        setup = wire.Setup.of(base_url, socket, token, timeout_s)
        self._http = setup.client()
        self._retries = retries

    def check(
        self, data: Data, *, context: Context | None = None, filename: str | None = None, full: bool = False
    ) -> CheckResult:
        """Check one upload; it is sent as it is read. ``filename`` goes before the context's. ``full`` also asks for
        matches, failures and hashes.

        Raises :class:`~uploadguard.errors.ServiceError`, and :class:`~uploadguard.errors.MediaReadError` where the
        bytes cannot be read.
        """
        with wire.Upload.of(data) as upload:
            body = self._send(wire.check(upload, context, filename, full=full))
        return parse_result(CheckResult, body or b"")

    def check_hashes(
        self, hashes: Sequence[Hash], *, context: Context | None = None, full: bool = False
    ) -> CheckResult:
        """Look up hashes of a file that is not sent. What is not found is ``NOT_SCANNED``, never ``ALLOW``."""
        return parse_result(CheckResult, self._send(wire.check_hashes(hashes, context, full=full)) or b"")

    def decision(self, reference: str, *, full: bool = False) -> RecordedResult | None:
        """The decision of that reference as it stands now; None where none is kept: plain allows are not."""
        body = self._send(wire.decision(reference, full=full))
        return None if body is None else parse_result(RecordedResult, body)

    def ready(self) -> Readiness:
        """Whether the service can check uploads. Raises where there is no service."""
        return Readiness.of(self._send(wire.ready()) or b"")

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: wire.Call) -> bytes | None:
        left = self._retries
        while True:
            try:
                return self._send_once(call)
            except Exception as error:  # noqa: BLE001 - told apart there; what is unknown is raised
                failure, wait_s = wire.failure_of(error, call)
            if wait_s is None or left <= 0:
                raise failure from None
            left -= 1
            time.sleep(wait_s)

    def _send_once(self, call: wire.Call) -> bytes | None:
        content = call.content if call.upload is None else call.upload.chunks()
        with self._http.stream(
            call.method, call.path, params=call.query, headers=call.headers, content=content
        ) as response:
            body = bytearray()
            for chunk in response.iter_raw():
                body += chunk
                wire.require_bounded(body)
        return wire.accepted(response.status_code, response.headers, bytes(body), call)


class AsyncClient:
    """:class:`Client` for asyncio. Files are read on threads. Cancelling a check stops it here and in the service."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        socket: str | os.PathLike[str] | None = None,
        token: str | None = None,
        timeout_s: float = 30.0,
        retries: int = 2,
    ) -> None:
        setup = wire.Setup.of(base_url, socket, token, timeout_s)
        self._http = setup.async_client()
        self._retries = retries

    async def check(
        self, data: Data, *, context: Context | None = None, filename: str | None = None, full: bool = False
    ) -> CheckResult:
        """See :meth:`Client.check`."""
        upload = await asyncio.to_thread(wire.Upload.of, data)
        try:
            body = await self._send(wire.check(upload, context, filename, full=full))
        finally:
            await asyncio.to_thread(upload.close)
        return parse_result(CheckResult, body or b"")

    async def check_hashes(
        self, hashes: Sequence[Hash], *, context: Context | None = None, full: bool = False
    ) -> CheckResult:
        """See :meth:`Client.check_hashes`."""
        return parse_result(CheckResult, await self._send(wire.check_hashes(hashes, context, full=full)) or b"")

    async def decision(self, reference: str, *, full: bool = False) -> RecordedResult | None:
        """See :meth:`Client.decision`."""
        body = await self._send(wire.decision(reference, full=full))
        return None if body is None else parse_result(RecordedResult, body)

    async def ready(self) -> Readiness:
        """See :meth:`Client.ready`."""
        return Readiness.of(await self._send(wire.ready()) or b"")

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: wire.Call) -> bytes | None:
        left = self._retries
        while True:
            try:
                return await self._send_once(call)
            except Exception as error:  # noqa: BLE001 - told apart there; what is unknown is raised
                failure, wait_s = wire.failure_of(error, call)
            if wait_s is None or left <= 0:
                raise failure from None
            left -= 1
            await asyncio.sleep(wait_s)

    async def _send_once(self, call: wire.Call) -> bytes | None:
        content = call.content if call.upload is None else call.upload.achunks()
        async with self._http.stream(
            call.method, call.path, params=call.query, headers=call.headers, content=content
        ) as response:
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                wire.require_bounded(body)
        return wire.accepted(response.status_code, response.headers, bytes(body), call)
