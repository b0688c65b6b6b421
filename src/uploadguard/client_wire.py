"""What both clients of the service put on the wire, and what they make of what comes back."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self, TypeAlias
from urllib.parse import quote, urlsplit

from uploadguard.errors import ConfigError, MediaReadError, ServiceError, UploadguardError
from uploadguard.models import Context, Hash

try:
    import httpx
except ModuleNotFoundError as error:
    raise ConfigError("the client needs the httpx package: pip install 'uploadguard[client]'") from error

__all__ = [
    "Call",
    "Data",
    "Setup",
    "Upload",
    "accepted",
    "check",
    "check_hashes",
    "decision",
    "failure_of",
    "ready",
    "require_bounded",
]

Data: TypeAlias = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryIO
"""What a check takes: the bytes themselves, a path, or a binary file object, which is read from where it stands."""

_CHUNK_BYTES = 1 << 17
_MAX_ANSWER_BYTES = 16 << 20
_CONNECT_S = 5.0
_LONGEST_WAIT_S = 10.0
_CODE = re.compile(r"[a-z_]{1,40}")


@dataclass(frozen=True)
class Setup:
    """How a client connects. ``socket`` None: by TCP."""

    socket: str | None
    options: dict[str, Any]

    @classmethod
    def of(
        cls, base_url: str | None, socket: str | os.PathLike[str] | None, token: str | None, timeout_s: float
    ) -> Self:
        """Raises ``ValueError`` where it is not clear where to."""
        if (base_url is None) == (socket is None):
            raise ValueError("give base_url or socket")
        url = base_url if base_url is not None else "http://uploadguard"
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise ValueError("base_url is as http://127.0.0.1:8643")
        headers = {"User-Agent": "uploadguard", "Accept-Encoding": "identity"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        timeout = httpx.Timeout(timeout_s, connect=min(_CONNECT_S, timeout_s))
        options = {"base_url": url, "headers": headers, "timeout": timeout, "follow_redirects": False}
        return cls(os.fspath(socket) if socket is not None else None, options)

    def client(self) -> httpx.Client:
        """A client with this."""
        transport = httpx.HTTPTransport(uds=self.socket, trust_env=False)
        return httpx.Client(transport=transport, trust_env=False, **self.options)

    def async_client(self) -> httpx.AsyncClient:
        """The same for asyncio."""
        transport = httpx.AsyncHTTPTransport(uds=self.socket, trust_env=False)
        return httpx.AsyncClient(transport=transport, trust_env=False, **self.options)


class Upload:
    """The bytes to send, from their start; again, if they can be read again."""

    def __init__(self, file: BinaryIO, *, size_bytes: int | None, start: int | None, owned: bool) -> None:
        self._file = file
        self._start = start
        self._owned = owned
        self._sent = False
        self.size_bytes = size_bytes

    @classmethod
    def of(cls, data: Data) -> Self:
        """Raises :class:`~uploadguard.errors.MediaReadError`."""
        if isinstance(data, (bytes, bytearray, memoryview)):
            file: BinaryIO = io.BytesIO(data)
            return cls(file, size_bytes=memoryview(data).nbytes, start=0, owned=True)
        if isinstance(data, (str, os.PathLike)):
            path = Path(data)
            try:
                opened = path.open("rb")
            except (OSError, ValueError) as error:
                raise MediaReadError(getattr(error, "strerror", None) or "cannot be read", path=path) from error
            return cls(opened, size_bytes=os.fstat(opened.fileno()).st_size, start=0, owned=True)
        if not hasattr(data, "read") or hasattr(data, "encoding"):
            raise TypeError(f"data must be bytes, a path or a binary file object, not {type(data).__name__}")
        start = data.tell() if data.seekable() else None
        size_bytes = None
        if start is not None:
            size_bytes = data.seek(0, io.SEEK_END) - start
            data.seek(start)
        return cls(data, size_bytes=size_bytes, start=start, owned=False)

    @property
    def can_repeat(self) -> bool:
        """Whether it can be sent (again)."""
        return self._start is not None or not self._sent

    def chunks(self) -> Iterator[bytes]:
        """All of it. Raises :class:`~uploadguard.errors.MediaReadError`."""
        self._rewind()
        while chunk := self._read():
            yield chunk

    async def achunks(self) -> AsyncIterator[bytes]:
        """:meth:`chunks`, read on threads."""
        await asyncio.to_thread(self._rewind)
        while chunk := await asyncio.to_thread(self._read):
            yield chunk

    def close(self) -> None:
        """Close the file that was opened here; put a file object back to where it stood."""
        if self._owned:
            self._file.close()
        elif self._start is not None:
            self._file.seek(self._start)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _rewind(self) -> None:
        if self._start is not None:
            self._file.seek(self._start)
        self._sent = True

    def _read(self) -> bytes:
        try:
            chunk = self._file.read(_CHUNK_BYTES)
        except (OSError, ValueError) as error:
            raise MediaReadError(getattr(error, "strerror", None) or "cannot be read") from error
        if chunk is None:
            raise MediaReadError("the file object has no data yet: it does not wait for more (non-blocking)")
        return chunk


@dataclass(frozen=True)
class Call:
    """One request, and which answers to it are answers. ``missing`` is the error's code that means: there is none."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    content: bytes | None = None
    upload: Upload | None = None
    statuses: tuple[int, ...] = (200,)
    missing: str | None = None


def check(upload: Upload, context: Context | None, filename: str | None, *, full: bool) -> Call:
    """``POST /v1/check``."""
    found = context or Context()
    if filename is not None:
        found = replace(found, filename=filename)
    headers = {
        f"X-Uploadguard-{name.replace('_', '-')}": quote(value if isinstance(value, str) else json.dumps(value))
        for name, value in _context(found).items()
    }
    headers["Content-Type"] = "application/octet-stream"
    if upload.size_bytes is not None:
        headers["Content-Length"] = str(upload.size_bytes)
    return Call("POST", "/v1/check", _detail(full), headers, upload=upload)


def check_hashes(hashes: Sequence[Hash], context: Context | None, *, full: bool) -> Call:
    """``POST /v1/check-hash``."""
    items = [
        {
            "signal_type": item.signal_type,
            "value": item.value.hex(),
            "quality": item.quality,
            "variant": item.variant,
            "frame": item.frame,
        }
        for item in hashes
    ]
    body = json.dumps({"hashes": items, "context": _context(context or Context())}).encode()
    return Call("POST", "/v1/check-hash", _detail(full), {"Content-Type": "application/json"}, content=body)


def decision(reference: str, *, full: bool) -> Call:
    """``GET /v1/decisions/{reference}``."""
    return Call("GET", f"/v1/decisions/{quote(reference, safe='')}", _detail(full), missing="unknown_decision")


def ready() -> Call:
    """``GET /readyz``, which answers with 503 too."""
    return Call("GET", "/readyz", statuses=(200, 503))


def _detail(full: bool) -> dict[str, str]:
    return {"detail": "full"} if full else {}


def _context(context: Context) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in fields(Context):
        value = getattr(context, item.name)
        if isinstance(value, datetime):
            if value.tzinfo is None:
                raise ValueError("Context.uploaded_at needs a zone")
            value = value.isoformat()
        elif isinstance(value, Mapping):
            value = dict(value) or None
        if value is not None:
            found[item.name] = value
    return found


def require_bounded(body: bytearray) -> None:
    """Raise :class:`~uploadguard.errors.ServiceError` for an answer that does not end."""
    if len(body) > _MAX_ANSWER_BYTES:
        raise ServiceError("the service's answer is too long")


def accepted(status: int, headers: Mapping[str, str], body: bytes, call: Call) -> bytes | None:
    """The body of an answer; None where it says that there is none.

    Raises :class:`~uploadguard.errors.ServiceError`.
    """
    if status in call.statuses:
        return body
    code, message = _error_in(body)
    if call.missing is not None and status == 404 and code == call.missing:
        return None
    said = f": {code}" if code else ""
    raise ServiceError(
        f"the service answered {status}{said}{f' ({message})' if message else ''}",
        status=status,
        retry_after_s=_retry_after_s(headers.get("retry-after")),
    )


def failure_of(error: Exception, call: Call) -> tuple[Exception, float | None]:
    """What a failed attempt raises, and after how many seconds it may be tried again; None: it may not."""
    can_repeat = call.upload is None or call.upload.can_repeat
    if isinstance(error, ServiceError):
        # The service says so before it decides anything.
        again = error.status == 503 and error.retry_after_s is not None and can_repeat
        return error, min(error.retry_after_s or 0.0, _LONGEST_WAIT_S) if again else None
    if isinstance(error, UploadguardError):
        return error, None
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout)):
        # httpx tells the system's reason here, and nothing of the request.
        why = str(error) or "no connection in time"
        return ServiceError(f"the service cannot be reached: {why}"), 0.2 if can_repeat else None
    if isinstance(error, httpx.TimeoutException):
        return ServiceError("the service did not answer in time"), None
    if isinstance(error, (httpx.HTTPError, httpx.StreamError, httpx.InvalidURL)):
        return ServiceError(f"the conversation with the service failed: {type(error).__name__}"), None
    raise error


def _error_in(body: bytes) -> tuple[str, str]:
    try:
        found = json.loads(body)["error"]
        code, message = found["code"], found["message"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return "", ""
    if not isinstance(code, str) or not isinstance(message, str) or not _CODE.fullmatch(code):
        return "", ""
    return code, "".join(char for char in message[:200] if char.isprintable())


def _retry_after_s(value: str | None) -> float | None:
    if value is None or not value.isascii() or not value.isdigit() or len(value) > 6:
        return None
    return float(value)
