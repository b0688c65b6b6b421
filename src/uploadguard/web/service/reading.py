"""Reading what is to be checked, within the limits, from clients that may leave."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, TypeVar

from starlette.types import Receive

from uploadguard.guard import Guard
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answers
from uploadguard.web.arriving import ArrivingFile, Limits, Refused, limited
from uploadguard.web.multipart import BrokenForm, FormParser, Part, is_form
from uploadguard.web.service.context import context_of
from uploadguard.web.service.faults import Fault

__all__ = ["ClientGoneError", "chunks_of", "read_body", "read_upload", "unless_gone"]

T = TypeVar("T")

_MAX_FIELDS = 16
_MAX_FIELD_BYTES = 256 * 1024


class ClientGoneError(Exception):
    """Nobody waits for the answer any more."""


async def chunks_of(receive: Receive) -> AsyncIterator[bytes]:
    """The body. Raises :class:`ClientGoneError`."""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        more = message.get("more_body", False)
        if body := message.get("body", b""):
            yield body


async def unless_gone(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """What ``work`` gives. If the client leaves before, it is cancelled, and :class:`ClientGoneError` is raised."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(receive))
    try:
        await asyncio.wait((task, gone), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientGoneError
        return task.result()
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


async def read_body(receive: Receive, guard: Guard, answers: Answers, limits: Limits) -> bytes:
    """A body that is no upload, whole. Raises :class:`~uploadguard.web.arriving.Refused`, :class:`ClientGoneError`."""
    body = bytearray()
    async with aclosing(limited(chunks_of(receive), limits, answers, Admission.of(guard))) as chunks:
        async for chunk in chunks:
            body += chunk
    return bytes(body)


async def read_upload(
    receive: Receive,
    content_type: str | None,
    values: Mapping[str, str],
    guard: Guard,
    answers: Answers,
    limits: Limits,
) -> ArrivingFile:
    """The upload, with its context: the body itself, or the one file of a form. ``values`` are the headers' fields.

    Raises :class:`Fault`, :class:`~uploadguard.web.arriving.Refused`, :class:`ClientGoneError`, and what
    :meth:`Guard.inspect` does; nothing is left then. Otherwise the caller drops it.
    """
    upload = _Upload(guard, dict(values))
    try:
        async with aclosing(limited(chunks_of(receive), limits, answers, Admission.of(guard))) as body:
            if is_form(content_type):
                await upload.take_form(body, FormParser(content_type, _form_limits(limits)))
            else:
                await upload.take_raw(body)
    except BrokenForm as error:
        upload.drop()
        raise Refused(answers.too_large() if error.too_many else answers.broken()) from error
    except BaseException:
        upload.drop()
        raise
    assert upload.file is not None
    return upload.file


def _form_limits(limits: Limits) -> Limits:
    # A second file, and more fields than there are, are told from what is too large.
    return replace(limits, max_files=2, max_fields=64)


class _Upload:
    def __init__(self, guard: Guard, values: dict[str, str]) -> None:
        self._guard = guard
        self._values = values
        self._fields: dict[str, bytearray] = {}
        self._part: Part | None = None
        self.file: ArrivingFile | None = None

    async def take_raw(self, body: AsyncIterator[bytes]) -> None:
        self.file = ArrivingFile(self._guard, context_of(self._values))
        async for chunk in body:
            await self.file.write(chunk)
        self._require_file()

    async def take_form(self, body: AsyncIterator[bytes], parser: FormParser) -> None:
        async for chunk in body:
            for part, data in parser.feed(chunk):
                if part.filename is None:
                    self._take_field(part.name, data or b"")
                elif data is not None:
                    await self._begin_file(part).write(data)
        parser.finish()
        self._require_file()

    def drop(self) -> None:
        if self.file is not None:
            self.file.drop()

    def _take_field(self, name: str, data: bytes) -> None:
        if self.file is not None:
            raise Fault(400, "field_after_file", "The file is the form's last part: fields stand before it.")
        if len(self._fields) >= _MAX_FIELDS and name not in self._fields:
            raise Fault(400, "unknown_field", "The form has more fields than there are.")
        field = self._fields.setdefault(name, bytearray())
        field += data
        if len(field) > _MAX_FIELD_BYTES:
            raise Fault(400, "bad_field", f"A field is longer than {_MAX_FIELD_BYTES} bytes.")

    def _begin_file(self, part: Part) -> ArrivingFile:
        if part is self._part:
            assert self.file is not None
            return self.file
        if self.file is not None:
            raise Fault(400, "several_files", "A request checks one file.")
        try:
            fields = {name: value.decode() for name, value in self._fields.items()}
        except UnicodeDecodeError:
            raise Fault(400, "bad_field", "A field of the form is not UTF-8.") from None
        values = {"filename": part.filename or "", **self._values, **fields}
        self._part, self.file = part, ArrivingFile(self._guard, context_of(values))
        return self.file

    def _require_file(self) -> None:
        if self.file is None or not self.file.size_bytes:
            raise Fault(400, "no_file", "There is no file to check: the body, or the form's file, is empty.")
