"""Samples: the hashes of pictures that no list should match, in a file of JSON lines.

The first line says what the file is. Each of the others is one picture: what it is called, where that is kept, and its
hashes as signal type, hex and, for perceptual ones, quality. Packed with gzip where the file's name ends in ``.gz``.
"""

from __future__ import annotations

import contextlib
import functools
import gzip
import io
import json
import os
import secrets
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, Self

from uploadguard.errors import ListFormatError
from uploadguard.models import Hash

if TYPE_CHECKING:
    from uploadguard.hashing import HashedMedia

__all__ = ["SampleItem", "SampleWriter", "benign_corpus", "is_sample", "read_sample"]

_FORMAT = "uploadguard sample"
_VERSION = 1
_MAX_LINE_BYTES = 1 << 20
_MAX_HASH_BYTES = 64


@dataclass(frozen=True, slots=True)
class SampleItem:
    """One picture's hashes, of all its frames. ``line`` is where it stands in the file; ``label`` what it is, or ""."""

    line: int
    label: str
    hashes: tuple[Hash, ...] = field(repr=False)

    @classmethod
    def of(cls, hashed: HashedMedia, label: str = "", *, signal_types: Collection[str] | None = None) -> SampleItem:
        """The item of one medium: its own hashes, without those of mirrored and turned forms, each once."""
        kept = {
            (item.signal_type, item.value): Hash(item.signal_type, item.value, item.quality)
            for item in reversed(hashed.hashes)
            if item.variant == "original" and (signal_types is None or item.signal_type in signal_types)
        }
        return cls(0, label, tuple(reversed(kept.values())))


class SampleWriter:
    """Writes a sample, which appears under its name when the block ends well; mode 0600 unless said otherwise."""

    def __init__(self, path: Path, *, mode: int = 0o600) -> None:
        self._path = path
        self._mode = mode
        self._temporary = path.parent / f".{path.name}.{secrets.token_hex(6)}.tmp"
        self._closing = contextlib.ExitStack()
        self.items = 0

    def __enter__(self) -> Self:
        descriptor = os.open(self._temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
        self._output: IO[bytes] | gzip.GzipFile = self._closing.enter_context(os.fdopen(descriptor, "wb"))
        if self._path.suffix == ".gz":
            packed = gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=self._output, mtime=0)
            self._output = self._closing.enter_context(packed)
        self._write({"format": _FORMAT, "version": _VERSION})
        return self

    def add(self, item: SampleItem) -> None:
        """Write one picture."""
        record: dict[str, Any] = {"label": item.label} if item.label else {}
        record["hashes"] = [
            [one.signal_type, one.value.hex(), *([one.quality] if one.quality is not None else [])]
            for one in item.hashes
        ]
        self._write(record)
        self.items += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._closing.close()
            if kind is None:
                self._temporary.replace(self._path)
        finally:
            self._temporary.unlink(missing_ok=True)

    def _write(self, record: dict[str, Any]) -> None:
        self._output.write(json.dumps(record, separators=(",", ":")).encode() + b"\n")


@functools.cache
def benign_corpus() -> tuple[SampleItem, ...]:
    """The built-in hashes of ordinary, widely spread pictures: MD5, SHA-1, SHA-256 and PDQ."""
    return tuple(read_sample(resources.files("uploadguard.lists") / "data" / "benign.jsonl.gz"))


def is_sample(path: Path) -> bool:
    """Whether a file begins as a sample does."""
    try:
        next(read_sample(path), None)
    except ListFormatError:
        return False
    return True


def read_sample(path: Path | Traversable) -> Iterator[SampleItem]:
    """The pictures of a sample, one after the other, so that its size does not matter.

    Raises :class:`~uploadguard.errors.ListFormatError` for a file that is none, is damaged or cannot be read.
    """
    place = path if isinstance(path, Path) else Path(path.name)
    line = 0
    try:
        with path.open("rb") as file:
            head = file.read(2)
            file.seek(0)
            lines = io.BufferedReader(gzip.GzipFile(fileobj=file)) if head == b"\x1f\x8b" else file
            while data := lines.readline(_MAX_LINE_BYTES + 1):
                line += 1
                if len(data) > _MAX_LINE_BYTES:
                    raise ValueError("longer than a line may be")
                record = json.loads(data)
                if line == 1:
                    _check_head(record)
                else:
                    yield SampleItem(line, *_parse(record))
    except OSError as error:
        reason = f"cannot be read ({error.strerror or error})"
        raise ListFormatError(f"{reason}; `uploadguard lists sample` makes one", path=place) from None
    except (EOFError, ValueError, RecursionError, KeyError, TypeError) as error:
        raise ListFormatError(f"not a sample, or damaged ({type(error).__name__})", path=place, line=line) from None
    if line == 0:
        raise ListFormatError("not a sample: it is empty", path=place)


def _check_head(record: Any) -> None:
    if record["format"] != _FORMAT or record["version"] != _VERSION:
        raise ValueError("another format")


def _parse(record: Any) -> tuple[str, tuple[Hash, ...]]:
    if not isinstance(record, dict) or not isinstance(label := record.get("label", ""), str):
        raise TypeError("not a picture")
    return label, tuple(_hash(*parts) for parts in record["hashes"])


def _hash(signal_type: Any, text: Any, quality: Any = None) -> Hash:
    if not (isinstance(signal_type, str) and isinstance(text, str) and 0 < len(text) <= 2 * _MAX_HASH_BYTES):
        raise TypeError("not a hash")
    if quality is not None and not (type(quality) is int and 0 <= quality <= 100):
        raise ValueError("not a quality")
    return Hash(signal_type, bytes.fromhex(text), quality)
