"""Forms with files, ``multipart/form-data``: read once, as they arrive, every file checked.

For the adapters of asynchronous frameworks and the service::

    answers, limits = Answers(guard.settings), Limits.of(guard.settings.web)
    try:
        with admit(guard, answers, limits, request.headers.get("content-length")):
            form = await receive_form(request.stream(), content_type, guard, answers, limits, context)
    except Refused as refused:
        return respond(refused.answer)      # 413, 400, 408 or 503
    try:
        answer = await conclude(form.files, answers, hold, queue)
        ...                                 # form.files: decisions and rewound temporary files; form.fields: the rest
    finally:
        form.close()

:func:`receive_file` does the same where the whole body is one file. :class:`FormParser` is what both stand on: bytes
in, parts out; it holds nothing back and reads nothing itself. (extras: serve, fastapi, aiohttp)
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from uploadguard.errors import ConfigError, NotReadyError, NotRecordedError
from uploadguard.guard import Guard
from uploadguard.models import Context
from uploadguard.web.admission import Admission
from uploadguard.web.answers import Answers
from uploadguard.web.arriving import (
    DIGESTED_AS_THEY_ARRIVE_BYTES,
    ArrivingFile,
    CheckedFile,
    Limits,
    Refused,
    decide,
    is_encoded,
    limited,
)

try:
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header
except ModuleNotFoundError as error:
    raise ConfigError(
        "python-multipart is not installed: install uploadguard[serve], or [fastapi], [starlette], [aiohttp]"
    ) from error

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

__all__ = [
    "BrokenForm",
    "ContextOf",
    "FormParser",
    "Part",
    "ReceivedForm",
    "is_encoded",
    "is_form",
    "media_type",
    "receive_file",
    "receive_form",
]

ContextOf: TypeAlias = Callable[[str | None], Context | None]
"""Gives a file's context, from the file's name."""

_MAX_HEADERS = 16
_MAX_HEADER_BYTES = 8192

_silent = logging.getLogger("uploadguard.multipart.parser")
_silent.propagate = False
_silent.addHandler(logging.NullHandler())


class BrokenForm(ValueError):
    """A body that is no form, or not one that can be read. ``too_many`` says that it is one with too many parts, or
    too much in them."""

    def __init__(self, reason: str, *, too_many: bool = False) -> None:
        super().__init__(reason)
        self.too_many = too_many


@dataclass(slots=True, eq=False)
class Part:
    """One part of a form. A file has a ``filename``, which may be empty: that of a field left empty is.

    ``headers`` are as they came, with names in lower case. ``value`` is what is in a part that is no file; ``arrived``
    and ``checked`` are those of a file, unless it was left empty.
    """

    name: str = ""
    filename: str | None = None
    headers: dict[bytes, bytes] = field(default_factory=dict)
    value: bytearray = field(default_factory=bytearray)
    arrived: ArrivingFile | None = None
    checked: CheckedFile | None = None

    @property
    def content_type(self) -> str | None:
        """What the client says of it."""
        declared = self.headers.get(b"content-type")
        return declared.decode("latin-1") if declared is not None else None

    def __repr__(self) -> str:
        return f"Part({'file' if self.filename is not None else 'field'}, <redacted>)"

    @property
    def text(self) -> str:
        """The value of a field."""
        return _text(bytes(self.value))


@dataclass(slots=True)
class ReceivedForm:
    """A form that was read, its parts in order. Its temporary files live until :meth:`close`."""

    parts: list[Part] = field(default_factory=list)

    @property
    def files(self) -> list[CheckedFile]:
        """The files; file fields that were left empty are not among them."""
        return [part.checked for part in self.parts if part.checked is not None]

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Names and values of the parts that are no files. A name may come more than once."""
        return [(part.name, part.text) for part in self.parts if part.filename is None]

    def close(self) -> None:
        """Remove the temporary files. To be called on the event loop; may be called again."""
        for part in self.parts:
            if part.arrived is not None:
                part.arrived.drop()


def media_type(content_type: str | None) -> str:
    """A Content-Type without its parameters, in lower case; empty for None."""
    return parse_options_header(_header(content_type))[0].decode("latin-1")


def is_form(content_type: str | None) -> bool:
    """Whether a request's Content-Type says that its body is a form with parts, to whatever application.

    Some strip more than blanks, or look at its beginning only. What is not quite the type of a form, is a broken one.
    """
    return media_type(content_type).strip().startswith("multipart/form-data")


class FormParser:
    """Bytes in, parts out. Raises :class:`BrokenForm`.

    The parser, and what counts as a file, are those of Starlette, so that no application behind finds a file that
    this did not.
    """

    def __init__(self, content_type: str | None, limits: Limits) -> None:
        kind, options = parse_options_header(_header(content_type))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise BrokenForm("the Content-Type is not that of a form with a boundary")
        callbacks: MultipartCallbacks = {
            "on_part_begin": self._begin,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_header_field": self._header_name,
            "on_header_value": self._header_value,
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_end": self._form_end,
        }
        try:
            self._parser = MultipartParser(
                boundary, callbacks, max_header_count=_MAX_HEADERS, max_header_size=_MAX_HEADER_BYTES
            )
        except FormParserError as error:
            raise BrokenForm("the form's boundary is too long") from error
        self._parser.logger = _silent  # it logs what it cannot parse
        self._limits = limits
        self._parts = 0
        self._part = Part()
        self._name = b""
        self._value = b""
        self._found: list[tuple[Part, bytes | None]] = []
        self._ended = False

    def feed(self, chunk: bytes) -> list[tuple[Part, bytes | None]]:
        """The next bytes of the body. Returns what is in them: each part with the next of its bytes, and with None
        where it ends."""
        self._found = []
        try:
            self._parser.write(chunk)
        except BrokenForm:
            raise
        except FormParserError as error:
            raise BrokenForm("the body is not a well-formed form") from error
        return self._found

    def finish(self) -> None:
        """The body is at its end, and so should the form be."""
        if not self._ended:
            raise BrokenForm("the body ends before the form does")

    def _begin(self) -> None:
        self._parts += 1
        if self._parts > self._limits.max_fields + self._limits.max_files:
            raise BrokenForm("too many parts", too_many=True)
        self._part = Part()

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        name, value = self._name.lower(), self._value.strip()
        if name in self._part.headers or b"\n" in value or b"\0" in value:
            raise BrokenForm("a part's headers can be read in more than one way")
        self._part.headers[name] = value
        self._name, self._value = b"", b""

    def _headers_end(self) -> None:
        headers = self._part.headers
        _, options = parse_options_header(headers.get(b"content-disposition"))
        if b"name" not in options:
            raise BrokenForm("a part without a name")
        for encoding in (b"content-transfer-encoding", b"content-encoding"):
            if is_encoded(headers.get(encoding, b"").decode("latin-1")):
                raise BrokenForm("a part with an encoding")
        self._part.name = _text(options[b"name"])
        if b"filename" in options:
            self._part.filename = _text(options[b"filename"])

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._found.append((self._part, data[start:end]))

    def _end(self) -> None:
        self._found.append((self._part, None))

    def _form_end(self) -> None:
        self._ended = True


async def receive_form(
    chunks: AsyncIterator[bytes],
    content_type: str | None,
    guard: Guard,
    answers: Answers,
    limits: Limits,
    context: ContextOf,
) -> ReceivedForm:
    """Read a form and check its files, all of them when the body is complete: of one that breaks off nothing is
    decided.

    Raises :class:`~uploadguard.web.arriving.Refused` where it is not within the limits, not readable or cannot be
    checked now, and what ``chunks`` raises. The files are gone then.
    """
    form = _ArrivingForm(guard, answers, limits, context)
    try:
        return await form.receive(chunks, content_type)
    except (NotReadyError, NotRecordedError) as error:
        form.received.close()
        raise Refused(answers.of_error(error)) from error
    except BaseException:
        form.received.close()
        raise


class _ArrivingForm:
    def __init__(self, guard: Guard, answers: Answers, limits: Limits, context: ContextOf) -> None:
        self._guard = guard
        self._answers = answers
        self._limits = limits
        self._context = context
        self._fields_bytes = 0
        self._files = 0
        self.received = ReceivedForm()

    async def receive(self, chunks: AsyncIterator[bytes], content_type: str | None) -> ReceivedForm:
        try:
            parser = FormParser(content_type, self._limits)
            async with aclosing(limited(chunks, self._limits, self._answers, Admission.of(self._guard))) as body:
                async for chunk in body:
                    for part, data in parser.feed(chunk):
                        if part.filename is None:
                            self._take_field(part, data)
                        else:
                            await self._take_file(part, data)
            parser.finish()
        except BrokenForm as error:
            raise Refused(self._answers.too_large() if error.too_many else self._answers.broken()) from error
        await _check_all(self.received, self._answers)
        return self.received

    def _take_field(self, part: Part, data: bytes | None) -> None:
        if data is None:
            self.received.parts.append(part)
            return
        self._fields_bytes += len(data)
        part.value += data
        if len(part.value) > self._limits.max_field_bytes or self._fields_bytes > self._limits.max_fields_bytes:
            raise BrokenForm("a field is too large", too_many=True)

    async def _take_file(self, part: Part, data: bytes | None) -> None:
        if part.arrived is None:
            if not part.filename and data is None:
                self.received.parts.append(part)
                return
            self._files += 1
            if self._files > self._limits.max_files:
                raise BrokenForm("too many files", too_many=True)
            in_memory = sum(one.arrived.in_memory_bytes for one in self.received.parts if one.arrived is not None)
            left_bytes = DIGESTED_AS_THEY_ARRIVE_BYTES - in_memory
            part.arrived = ArrivingFile(self._guard, self._context(part.filename), digested_bytes=left_bytes)
            self.received.parts.append(part)
        if data is not None:
            await part.arrived.write(data)


async def _check_all(received: ReceivedForm, answers: Answers) -> None:
    """The body is complete: check one file after the other."""
    for part in received.parts:
        if part.arrived is not None:
            decision = await decide(part.arrived.check(), answers)
            file = await part.arrived.rewind()
            size_bytes = part.arrived.size_bytes
            part.checked = CheckedFile(decision, file, part.filename, part.content_type, part.name, size_bytes)


async def receive_file(
    chunks: AsyncIterator[bytes],
    content_type: str | None,
    guard: Guard,
    answers: Answers,
    limits: Limits,
    context: Context | None,
) -> ReceivedForm:
    """Read and check a body that is one file. Its name is unknown. Raises as :func:`receive_form` does."""
    received = ReceivedForm()
    try:
        file = ArrivingFile(guard, context)
        headers = {b"content-type": _header(content_type)} if content_type is not None else {}
        received.parts.append(Part(headers=headers, arrived=file))
        async with aclosing(limited(chunks, limits, answers, Admission.of(guard))) as body:
            async for chunk in body:
                await file.write(chunk)
        await _check_all(received, answers)
    except (NotReadyError, NotRecordedError) as error:
        received.close()
        raise Refused(answers.of_error(error)) from error
    except BaseException:
        received.close()
        raise
    return received


def _header(value: str | None) -> bytes:
    """A header as it came. Servers differ in how they decode what is not ASCII."""
    try:
        return (value or "").encode("latin-1")
    except UnicodeEncodeError:
        return (value or "").encode("utf-8", "surrogateescape")


def _text(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return data.decode("latin-1")
