"""What the service does, one method for each address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from starlette.datastructures import Headers
from starlette.types import Receive

from uploadguard.errors import LedgerError, MediaReadError, NotReadyError, NotRecordedError
from uploadguard.guard import Guard
from uploadguard.logs import log
from uploadguard.models import Decision
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answers
from uploadguard.web.arriving import Limits, admit
from uploadguard.web.service import tusd
from uploadguard.web.service.context import from_headers
from uploadguard.web.service.faults import Fault, fault_of
from uploadguard.web.service.hashes import MAX_BODY_BYTES, parse_hashes
from uploadguard.web.service.health import readiness
from uploadguard.web.service.metrics import CONTENT_TYPE, ServiceMetrics, render
from uploadguard.web.service.openapi import document
from uploadguard.web.service.reading import read_body, read_upload, unless_gone
from uploadguard.web.service.recorded import RecordedDecisions
from uploadguard.web.service.views import Options, answer_to_relay, decision_json

__all__ = ["Call", "Endpoints", "Reply"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Call:
    """One request. ``rest`` is what its path has after that of the endpoint."""

    rest: str
    query: list[tuple[str, str]]
    headers: Headers
    receive: Receive


@dataclass(frozen=True, slots=True)
class Reply:
    """What is answered."""

    status: int
    body: bytes
    media_type: str = "application/json"
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, record: Any, status: int = 200) -> Reply:
        """JSON."""
        return cls(status, json.dumps(record, ensure_ascii=False).encode("utf-8", "backslashreplace"))


class Endpoints:
    """The endpoints of one Guard."""

    def __init__(self, guard: Guard, metrics: ServiceMetrics | None) -> None:
        self._guard = guard
        self._metrics = metrics
        settings = guard.settings
        self._answers = Answers(settings)
        self._admission = Admission(settings.serve.max_uploads, beside=Admission.of(guard))
        self._limits = replace(Limits.of(settings.web, timeout_s=settings.serve.body_timeout_s), max_files=1)
        # Of its own: a database or a match service that is slow must not keep uploads from being written.
        self._threads = ThreadPoolExecutor(settings.serve.max_uploads, thread_name_prefix="uploadguard-service")
        late = [name for name, matcher in guard.plugins.matchers.items() if matcher.prefetch]
        self._recorded = RecordedDecisions(settings, late)
        self._openapi = json.dumps(document()).encode()

    def close(self) -> None:
        """Let go of what was opened here, and not of the Guard. Blocks until its threads are done."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._recorded.close()

    async def check(self, call: Call) -> Reply:
        """``POST /v1/check``."""
        options = Options.of(call.query)
        values = from_headers(call.headers.items())
        with self._room(call):
            file = await read_upload(
                call.receive, call.headers.get("content-type"), values, self._guard, self._answers, self._limits
            )
            try:
                decision = await unless_gone(call.receive, file.check())
            finally:
                file.drop()
        return self._reply(decision, options)

    async def check_hash(self, call: Call) -> Reply:
        """``POST /v1/check-hash``."""
        options = Options.of(call.query)
        with self._room(call):
            limits = replace(self._limits, max_body_bytes=MAX_BODY_BYTES)
            hashes, context = parse_hashes(await read_body(call.receive, self._guard, self._answers, limits))
            try:
                decision = await unless_gone(
                    call.receive, self._on_thread(lambda: self._guard.check_hashes(hashes, context=context))
                )
            except ValueError as error:
                raise Fault(400, "bad_hash", f"{str(error)[:1].upper()}{str(error)[1:]}.") from None
        return self._reply(decision, options)

    async def tusd(self, call: Call) -> Reply:
        """``POST /v1/hooks/tusd``."""
        refusal = tusd.Refusal.of(call.query)
        limits = replace(self._limits, max_body_bytes=MAX_BODY_BYTES)
        with self._room(call):
            hook = tusd.parse_hook(await read_body(call.receive, self._guard, self._answers, limits))
            if hook.kind is tusd.Kind.REFUSE:
                return Reply.of(tusd.PARTIAL_REFUSED)
            if hook.kind is tusd.Kind.IGNORE:
                return Reply.of({})
            file = await self._on_thread(tusd.open_upload, self._guard.settings.serve.tusd_dir, hook.path)
            try:
                decision = await unless_gone(call.receive, self._guard.acheck(file, context=hook.context))
            finally:
                await self._on_thread(file.close)
        status, record = tusd.answer(decision, self._answers, refusal)
        return Reply.of(record, status)

    async def decision(self, call: Call) -> Reply:
        """``GET /v1/decisions/{reference}``."""
        options = Options.of(call.query)
        try:
            found = await self._on_thread(self._recorded.find, call.rest)
        except LedgerError as error:
            log.warning("a decision could not be looked up: %s", error)
            raise Fault(503, "ledger_down", "The ledger cannot be read now.", headers={"Retry-After": "2"}) from None
        if found is None:
            raise Fault(404, "unknown_decision", "No decision of that reference is kept. Plain allows are not.")
        return Reply.of({**decision_json(found.decision, self._answers, full=options.full), **found.about})

    async def livez(self, _call: Call) -> Reply:
        """``GET /livez``: the event loop answers."""
        return Reply.of({"alive": True})

    async def readyz(self, _call: Call) -> Reply:
        """``GET /readyz``."""
        ready, checks = await self._on_thread(readiness, self._guard)
        return Reply.of({"ready": ready, "checks": checks}, 200 if ready else 503)

    async def metrics(self, _call: Call) -> Reply:
        """``GET /metrics``."""
        if self._metrics is None:
            raise Fault(404, "metrics_off", "There are no metrics: telemetry.metrics is off.")
        return Reply(200, await self._on_thread(render), CONTENT_TYPE)

    async def openapi(self, _call: Call) -> Reply:
        """``GET /openapi.json``."""
        return Reply(200, self._openapi)

    async def _on_thread(self, work: Callable[..., T], *arguments: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)

    @contextmanager
    def _room(self, call: Call) -> Iterator[None]:
        """Room for one upload, before its body is read. Raises :class:`Fault`, ``Refused``."""
        if not self._guard.ready:
            raise fault_of(self._answers.busy(), "Nothing can be checked now: /readyz says why.", code="not_ready")
        with self._admission.enter() as admitted:
            if not admitted:
                raise fault_of(self._answers.busy(), "There are serve.max_uploads uploads already.", code="busy")
            self._show_uploads()
            try:
                length, encoding = call.headers.get("content-length"), call.headers.get("content-encoding")
                with admit(self._guard, self._answers, self._limits, length, encoding):
                    yield
            except (NotReadyError, NotRecordedError, MediaReadError) as error:
                raise fault_of(self._answers.of_error(error)) from error
        self._show_uploads()

    def _show_uploads(self) -> None:
        if self._metrics is not None:
            self._metrics.under_way(self._admission.under_way)

    def _reply(self, decision: Decision, options: Options) -> Reply:
        if options.respond == "decision":
            return Reply.of(decision_json(decision, self._answers, full=options.full))
        answer = answer_to_relay(decision, self._answers, options)
        return Reply(answer.status, answer.body, answer.media_type, dict(answer.headers))
