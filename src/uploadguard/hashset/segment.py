"""Reads a segment: one immutable file, or buffer, of hashes and entries, memory-mapped and shared between processes."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from uploadguard.errors import SegmentError
from uploadguard.hashset.exact import ExactIndex
from uploadguard.hashset.hamming import HammingIndex
from uploadguard.hashset.ids import ENTRY_KEY_BYTES, Rows, entry_key, read_ids
from uploadguard.hashset.layout import HEADER_BYTES, Header, unpack_table
from uploadguard.hashset.metadata import SegmentMetadata

__all__ = ["Segment", "StoredEntry"]

_VERIFY_CHUNK_BYTES = 1 << 24


@dataclass(frozen=True, slots=True)
class StoredEntry:
    """What the list says of one entry."""

    entry_id: str
    category: str | None
    fields: Mapping[str, Any] = field(repr=False)

    def __repr__(self) -> str:
        return "StoredEntry(<redacted>)"


class Segment:
    """An open segment. Immutable and safe to share between threads; its map lives until its last user is gone.

    Whatever the file holds, reading it gives answers or a :class:`~uploadguard.errors.SegmentError`.
    The one thing that a map cannot bear is a file that shrinks under it; segments are never written in place.
    """

    __slots__ = (
        "_buffer",
        "_entry_ids",
        "_indexes",
        "_sections",
        "_verified",
        "entries_json",
        "entry_offsets",
        "metadata",
        "path",
    )

    def __init__(self, buffer: memoryview, path: Path | None) -> None:
        """Use :meth:`open` or :meth:`from_buffer`."""
        self.path = path
        self._buffer = buffer
        self._verified = False
        with self._errors():
            header = Header.unpack(bytes(buffer[:HEADER_BYTES]), len(buffer))
            self._sections = unpack_table(bytes(buffer[header.table_offset :]), header)
            self._check_section("metadata")
            self.metadata = SegmentMetadata.model_validate_json(bytes(self._section("metadata")))
            self.entries_json = self._section("entries/json")
            self.entry_offsets = np.frombuffer(self._section("entries/offsets"), "<u8")
            if len(self.entry_offsets) != self.metadata.entries + 1:
                raise SegmentError("its entries are inconsistent; import the list again")
            self._entry_ids = ExactIndex.from_sections(self._sections_in("entries/ids/"), ENTRY_KEY_BYTES)
            if len(self._entry_ids) != self.metadata.entries:
                raise SegmentError("its entries are inconsistent; import the list again")
            self._indexes = {name: self._open_index(name) for name in self.metadata.signals}
            for tombstones in self.metadata.tombstones:
                if len(self.tombstones(tombstones.segment_id)) != tombstones.entries:
                    raise SegmentError("its tombstones are inconsistent; import the list again")

    @classmethod
    def open(cls, path: Path, *, verify: bool = False) -> Segment:
        """Map the file. Header, sizes, section table and metadata are checked always, all else if ``verify``.

        Raises :class:`SegmentError`, and ``OSError`` where the file cannot be opened at all.
        """
        with path.open("rb") as file:
            size_bytes = os.fstat(file.fileno()).st_size
            if size_bytes < HEADER_BYTES:
                raise SegmentError(f"holds {size_bytes} bytes, too few for a segment; import the list again", path=path)
            mapped = mmap.mmap(file.fileno(), size_bytes, access=mmap.ACCESS_READ)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            # Look-ups touch places all over: with large pages each costs one miss less. Not every system has them.
            with suppress(OSError):
                mapped.madvise(mmap.MADV_HUGEPAGE)
        segment = cls(memoryview(mapped), path)
        if verify:
            segment.verify()
        return segment

    @classmethod
    def from_buffer(cls, data: bytes | memoryview, *, verify: bool = True) -> Segment:
        """Open a segment in memory, without copying it. Raises :class:`SegmentError`."""
        segment = cls(memoryview(data).cast("B"), None)
        if verify:
            segment.verify()
        return segment

    def __repr__(self) -> str:
        return f"Segment(path={self.path}, entries={self.metadata.entries})"

    @property
    def size_bytes(self) -> int:
        """The size of the whole segment."""
        return len(self._buffer)

    @property
    def checksum(self) -> str:
        """SHA-256 of the header, in hex. Covers every byte, through the checksums in header and section table."""
        return hashlib.sha256(self._buffer[:HEADER_BYTES]).hexdigest()

    def verify(self) -> None:
        """Read every byte and compare checksums, once in this object's life. Raises :class:`SegmentError`."""
        if self._verified:
            return
        with self._errors():
            end = HEADER_BYTES
            for section in self._sections.values():
                if any(self._buffer[end : section.offset]):
                    raise SegmentError(f"bytes before its section {section.name!r} are altered; import the list again")
                self._check_section(section.name)
                end = section.end
            table_offset = Header.unpack(bytes(self._buffer[:HEADER_BYTES]), len(self._buffer)).table_offset
            if any(self._buffer[end:table_offset]):
                raise SegmentError("bytes before its section table are altered; import the list again")
            for index in (self._entry_ids, *self._indexes.values()):
                if len(index) and int(index.ids.max()) >= self.metadata.entries:
                    raise SegmentError("it refers to an entry that it does not hold; import the list again")
            for tombstones in self.metadata.tombstones:
                rows = self.tombstones(tombstones.segment_id)
                if bool(np.any(rows[1:] <= rows[:-1])):
                    raise SegmentError("its tombstones are out of order; import the list again")
        self._verified = True

    def query(self, signal_type: str, values: Sequence[bytes], max_distance_bits: int) -> list[tuple[int, int, int]]:
        """Look up ``values``: (number of the value, number of the entry, distance in bits) of every hit.

        An exact index answers at distance 0 and does not look at the limit. A signal type that the segment does not
        hold has no hits. Raises ``ValueError`` for a value of another length.
        """
        info = self.metadata.signals.get(signal_type)
        if info is None or not values:
            return []
        lengths = {len(value) for value in values}
        if lengths != {info.length_bytes}:
            raise ValueError(f"{signal_type} hashes of {sorted(lengths)} bytes in place of {info.length_bytes}")
        index = self._indexes[signal_type]
        if isinstance(index, ExactIndex):
            return [(query, entry, 0) for query, value in enumerate(values) for entry in index.query(value).tolist()]
        codes = np.frombuffer(b"".join(values), np.uint8).reshape(-1, info.length_bytes)
        queries, ids, distances_bits = index.query_batch(codes, max_distance_bits)
        return list(zip(queries.tolist(), ids.tolist(), distances_bits.tolist(), strict=True))

    def is_exact(self, signal_type: str) -> bool:
        """Whether the segment holds this signal type for exact look-up."""
        return isinstance(self._indexes.get(signal_type), ExactIndex)

    def index(self, signal_type: str) -> ExactIndex | HammingIndex:
        """What finds hashes of a signal type that the segment holds. Its ids are numbers of entries."""
        return self._indexes[signal_type]

    def tombstones(self, segment_id: str) -> Rows:
        """The entries of that segment that this one takes back, ascending. Raises :class:`SegmentError`."""
        with self._errors():
            return read_ids(self._section(f"tombstones/{segment_id}"))

    def find_entries(self, entry_id: str) -> list[int]:
        """The numbers of all entries of that id. Raises :class:`SegmentError`."""
        candidates = self._entry_ids.query(entry_key(entry_id)).tolist()
        return [number for number in candidates if self.entry(number).entry_id == entry_id]

    def entry_keys(self) -> tuple[npt.NDArray[np.uint8], Rows]:
        """What entries are found by, uint8 (n, 8) and sorted, and the number of each one's entry."""
        return self._entry_ids.sections()["records"], self._entry_ids.ids

    def count_hashes(self, rows: Rows) -> dict[str, int]:
        """How many hashes these entries have, by signal type; those without any are left out."""
        counts: dict[str, int] = {}
        for name in self.metadata.signals:
            section = f"entries/hashes/{name}"
            # Without that section every entry has one.
            count = int(self._hash_counts(section)[rows].sum()) if section in self._sections else len(rows)
            if count:
                counts[name] = count
        return counts

    def entry(self, number: int) -> StoredEntry:
        """Read the entry of that number from the file. Raises :class:`SegmentError`."""
        with self._errors():
            if not 0 <= number < self.metadata.entries:
                raise SegmentError("it refers to an entry that it does not hold; import the list again")
            start, end = int(self.entry_offsets[number]), int(self.entry_offsets[number + 1])
            if not start < end <= len(self.entries_json):
                raise SegmentError("an entry lies outside it; import the list again")
            try:
                match json.loads(bytes(self.entries_json[start:end])):
                    case {"id": str(entry_id), "category": str() | None as category, "fields": dict(fields)}:
                        return StoredEntry(entry_id, category, fields)
            except (ValueError, RecursionError):
                pass  # the same as JSON of another shape
            raise SegmentError("an entry in it is altered; import the list again")

    def _section(self, name: str) -> memoryview:
        section = self._sections.get(name)
        if section is None:
            raise SegmentError(f"it has no section {name!r}; import the list again")
        return self._buffer[section.offset : section.end]

    def _check_section(self, name: str) -> None:
        data = self._section(name)
        digest = hashlib.sha256()
        for start in range(0, len(data), _VERIFY_CHUNK_BYTES):
            digest.update(data[start : start + _VERIFY_CHUNK_BYTES])
        if digest.digest() != self._sections[name].checksum:
            raise SegmentError(f"its section {name!r} is altered; import the list again")

    def _sections_in(self, prefix: str) -> dict[str, memoryview]:
        return {
            section.name.removeprefix(prefix): self._section(section.name)
            for section in self._sections.values()
            if section.name.startswith(prefix)
        }

    def _hash_counts(self, section: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """How many hashes each entry has, stored as 1, 2 or 4 bytes each. Raises :class:`SegmentError`."""
        with self._errors():
            data = self._section(section)
            counts = np.frombuffer(data, f"<u{len(data) // max(1, self.metadata.entries)}")
            if len(counts) != self.metadata.entries:
                raise SegmentError("its entries are inconsistent; import the list again")
            return counts

    def _open_index(self, name: str) -> ExactIndex | HammingIndex:
        info = self.metadata.signals[name]
        sections = self._sections_in(f"signals/{name}/")
        kind = HammingIndex if info.kind == "hamming" else ExactIndex
        index = kind.from_sections(sections, info.length_bytes)
        if len(index) != info.count:
            raise SegmentError(f"it holds {len(index)} {name} hashes in place of {info.count}; import the list again")
        return index

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Name the file in a :class:`SegmentError`, and turn what numpy and pydantic say of bad bytes into one."""
        try:
            yield
        except SegmentError as error:
            raise SegmentError(error.reason, path=self.path) from None
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            raise SegmentError(
                f"its contents are inconsistent ({type(error).__name__}); import the list again", path=self.path
            ) from None
