"""aiohttp: checks the parts of a form as the handler meets them, or a whole form at once. (extra: aiohttp)

Both are asynchronous context managers: the temporary files are gone when they are left. Where an upload may not go on
they raise the HTTP exception that aiohttp answers with.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager
from functools import lru_cache
from typing import Any

from uploadguard.errors import ConfigError, NotReadyError, NotRecordedError
from uploadguard.guard import Guard
from uploadguard.models import Context
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answer, Answers, Shape
from uploadguard.web.arriving import (
    ArrivingFile,
    Hold,
    Queue,
    Refused,
    Waiting,
    admit,
    conclude,
    decide,
    is_encoded,
    limited,
)
from uploadguard.web.arriving import CheckedFile as CheckedUpload
from uploadguard.web.checking import RequestCheck
from uploadguard.web.multipart import ReceivedForm

try:
    from aiohttp import BodyPartReader, ClientError, MultipartReader, web
    from aiohttp.http_exceptions import HttpProcessingError
except ModuleNotFoundError as error:
    raise ConfigError("aiohttp is not installed: install uploadguard[aiohttp]") from error

__all__ = ["CheckedUpload", "ReceivedForm", "check_form", "check_part"]

_READ_BYTES = 64 * 1024
_DECODED = ("gzip", "deflate", "br", "zstd")
_BROKEN = (ConnectionError, EOFError, ValueError, ClientError, HttpProcessingError, web.RequestPayloadError)
"""What reading a request raises that ends early, or is none."""

_key: Any = getattr(web, "RequestKey", lambda name, _: name)  # aiohttp before 3.14 has strings only
_FILES = _key("uploadguard.files", int)
_WAITING = _key("uploadguard.waiting", Waiting)


@asynccontextmanager
async def check_part(
    part: BodyPartReader | MultipartReader,
    guard: Guard,
    request: web.Request,
    *,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: Callable[[web.Request, str | None], Context] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> AsyncIterator[CheckedUpload | None]:
    """Read one part of ``request.multipart()`` as it arrives, check it, and give the file, at its beginning.

    None is a file field that was left empty. Raises the ``web.HTTPException`` of the answer where the upload may not go
    on, the request is not within the limits or broken, or cannot be checked now. ``hold`` gets the decision and the
    file of a queued upload before that; with ``queue="pass"`` it is given to the handler, which must look at the
    decision. ``context`` gets the request and the file's name; ``shape`` makes the answers the host's own.

    ``body_timeout_s`` is for all parts together. The parts before this one are decided, whatever comes of the parts
    behind: :func:`check_form` decides when the request is complete.
    """
    check = RequestCheck(guard, _context, context, hold, queue, shape, body_timeout_s)
    answers, limits = check.answers(guard), check.limits(guard)
    file: ArrivingFile | None = None
    try:
        with _answering(check, guard):
            with admit(guard, answers, limits, request.headers.get("Content-Length"), _encoding(request)):
                encodings = (part.headers.get(name) for name in ("Content-Transfer-Encoding", "Content-Encoding"))
                if not isinstance(part, BodyPartReader) or any(map(is_encoded, encodings)):
                    raise Refused(answers.broken())
                file = ArrivingFile(guard, check.context_of(request, part.filename))
                waiting = request[_WAITING] = request.get(_WAITING) or Waiting(limits)
                body = limited(_readable(_chunks(part), answers), limits, answers, Admission.of(guard), waiting)
                async with aclosing(body) as chunks:
                    async for chunk in chunks:
                        await file.write(chunk)
                upload = None
                if part.filename or file.size_bytes:
                    request[_FILES] = request.get(_FILES, 0) + 1
                    if request[_FILES] > limits.max_files:
                        raise Refused(answers.too_large())
                    upload = CheckedUpload(
                        await decide(file.check(), answers),
                        await file.rewind(),
                        part.filename,
                        part.headers.get("Content-Type"),
                        part.name or "",
                        file.size_bytes,
                    )
            answer = await conclude([upload] if upload is not None else [], answers, hold, queue)
            if answer is not None:
                raise Refused(answer)
        yield upload
    finally:
        if file is not None:
            file.drop()


@asynccontextmanager
async def check_form(
    request: web.Request,
    guard: Guard,
    *,
    hold: Hold | None = None,
    queue: Queue = "answer",
    context: Callable[[web.Request, str | None], Context] | None = None,
    shape: Shape | None = None,
    body_timeout_s: float | None = 600.0,
) -> AsyncIterator[ReceivedForm]:
    """Read a whole form as it arrives, in ``request.post()``'s place, and check its files when it is complete.

    Gives the form's ``files`` (each a :class:`CheckedUpload`) and ``fields``. A body that is no form is checked as one
    file. Parameters and errors as in :func:`check_part`; the worst decision answers for the request.
    """
    check = RequestCheck(guard, _context, context, hold, queue, shape, body_timeout_s)
    with _answering(check, guard):
        headers = request.headers
        chunks = _readable(request.content.iter_any(), check.answers(guard))
        form = await check.receive(
            request, chunks, headers.get("Content-Type"), headers.get("Content-Length"), _encoding(request)
        )
    try:
        yield form
    finally:
        form.close()


def _encoding(request: web.Request) -> str | None:
    """How the body is encoded that the handler gets: without what aiohttp decodes, or refuses itself."""
    encoding = ", ".join(request.headers.getall("Content-Encoding", ()))
    return None if encoding.strip().lower() in _DECODED else encoding


async def _chunks(part: BodyPartReader) -> AsyncIterator[bytes]:
    while chunk := await part.read_chunk(_READ_BYTES):
        yield chunk


async def _readable(chunks: AsyncIterator[bytes], answers: Answers) -> AsyncIterator[bytes]:
    """The chunks, as long as they can be read. Raises :class:`Refused`."""
    while True:
        try:
            chunk = await anext(chunks, None)
        except _BROKEN as error:
            raise Refused(answers.broken()) from error
        if chunk is None:
            return
        yield chunk


@contextmanager
def _answering(check: RequestCheck[Any], guard: Guard) -> Iterator[None]:
    """Turn refusals into the HTTP exception to answer with."""
    try:
        yield
    except Refused as refused:
        raise _exception(refused.answer) from None
    except (NotReadyError, NotRecordedError) as error:
        raise _exception(check.answers(guard).of_error(error)) from error


def _exception(answer: Answer) -> web.HTTPException:
    kind = _exception_class(answer.status)
    details: dict[str, Any] = {"headers": dict(answer.headers), "content_type": answer.media_type}
    exception = kind(max_size=0, **details) if issubclass(kind, web.HTTPRequestEntityTooLarge) else kind(**details)
    exception.body = answer.body
    return exception


@lru_cache
def _exception_class(status: int) -> type[web.HTTPException]:
    """aiohttp's exception of that status; one of our own where it has none."""
    kinds = [web.HTTPException]
    for kind in kinds:
        if kind.status_code == status:
            return kind
        kinds += kind.__subclasses__()
    return type(f"HTTP{status}", (web.HTTPException,), {"status_code": status})


def _context(request: web.Request, filename: str | None) -> Context:
    peer = request.transport.get_extra_info("peername") if request.transport is not None else None
    port = peer[1] if isinstance(peer, tuple) and peer[0] == request.remote else None
    return Context(filename=filename, ip=request.remote, port=port)
