"""Reads a segment: one immutable file, or buffer, of hashes and entries.

A plain file is memory-mapped and shared between processes. Of an encrypted one this process decrypts what look-ups
touch, into memory of its own; entries, which only a hit asks for, are decrypted one by one.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
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
from uploadguard.hashset.layout import HEADER_BYTES, Header, Section, align, unpack_table
from uploadguard.hashset.metadata import SegmentMetadata
from uploadguard.hashset.source import Bytes, Mapped, source_of
from uploadguard.storage.encryption import DecryptionError, Decryptor
from uploadguard.storage.keys import Keys

__all__ = ["Segment", "StoredEntry"]

_VERIFY_CHUNK_BYTES = 1 << 24
_FOR_LOOKUP = ("signals/", "tombstones/")
_ENTRY_OFFSETS = struct.Struct("<QQ")


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
        "_entry_ids",
        "_entry_offsets",
        "_indexes",
        "_resident",
        "_sections",
        "_source",
        "_verified",
        "checksum",
        "metadata",
        "path",
    )

    def __init__(self, data: memoryview, path: Path | None, keys: Keys | None) -> None:
        """Use :meth:`open` or :meth:`from_buffer`."""
        self.path = path
        self._verified = False
        self._indexes: dict[str, ExactIndex | HammingIndex] = {}
        self._entry_ids: ExactIndex | None = None
        self._entry_offsets: npt.NDArray[np.uint64] | None = None
        with self._errors():
            self._source = source_of(data, keys)
            self._resident = (0, data) if isinstance(self._source, Mapped) else (0, memoryview(b""))
            head = bytes(self._bytes(0, min(HEADER_BYTES, self._source.size_bytes)))
            header = Header.unpack(head, self._source.size_bytes)
            self.checksum = hashlib.sha256(head).hexdigest()
            self._sections = unpack_table(bytes(self._bytes(header.table_offset, header.file_bytes)), header)
            self._check_section("metadata")
            self.metadata = SegmentMetadata.model_validate_json(bytes(self._section("metadata")))
            if self._place("entries/offsets").length != 8 * (self.metadata.entries + 1):
                raise SegmentError("its entries are inconsistent; import the list again")
            self._place("entries/json")
            for tombstones in self.metadata.tombstones:
                if len(self.tombstones(tombstones.segment_id)) != tombstones.entries:
                    raise SegmentError("its tombstones are inconsistent; import the list again")
            if not self.is_encrypted:
                self.load()
                self._index_of_ids()

    @classmethod
    def open(cls, path: Path, *, verify: bool = False, keys: Keys | None = None) -> Segment:
        """Map the file. Header, sizes, section table and metadata are checked always, all else if ``verify``.

        ``keys`` are for an encrypted one. Raises :class:`SegmentError`, and ``OSError`` where the file cannot be opened
        at all.
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
        segment = cls(memoryview(mapped), path, keys)
        if verify:
            segment.verify()
        return segment

    @classmethod
    def from_buffer(cls, data: bytes | memoryview, *, verify: bool = True, keys: Keys | None = None) -> Segment:
        """Open a segment in memory, without copying it. Raises :class:`SegmentError`."""
        segment = cls(memoryview(data).cast("B"), None, keys)
        if verify:
            segment.verify()
        return segment

    def __repr__(self) -> str:
        return f"Segment(path={self.path}, entries={self.metadata.entries})"

    @property
    def size_bytes(self) -> int:
        """The size of the whole segment, as it is stored."""
        return self._source.stored_bytes

    @property
    def is_encrypted(self) -> bool:
        """Whether it is stored encrypted."""
        return isinstance(self._source, Decryptor)

    def load(self) -> None:
        """Make look-ups ready: of an encrypted segment, decrypt what they need. Raises :class:`SegmentError`.

        The first query does so too, but takes longer then.
        """
        if len(self._indexes) == len(self.metadata.signals):
            return
        with self._errors():
            if isinstance(self._source, Decryptor):
                needed = [section for section in self._sections.values() if section.name.startswith(_FOR_LOOKUP)]
                start = min((section.offset for section in needed), default=0)
                end = max((section.end for section in needed), default=0)
                self._resident = (start, self._source.read(start, end))
            self._indexes = {name: self._open_index(name) for name in self.metadata.signals}

    def verify(self) -> None:
        """Read every byte and compare checksums, once in this object's life. Raises :class:`SegmentError`.

        The bytes of an encrypted segment are authenticated in place of that.
        """
        if self._verified:
            return
        with self._errors():
            if isinstance(self._source, Decryptor):
                start, resident = self._resident
                self._source.authenticate(start, start + len(resident))
            else:
                self._check_bytes()
            for prefix in ("entries/ids/", *(f"signals/{name}/" for name in self.metadata.signals)):
                ids = read_ids(self._section(f"{prefix}ids"))
                if len(ids) and int(ids.max()) >= self.metadata.entries:
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
        if signal_type not in self._indexes:
            self.load()
        index = self._indexes[signal_type]
        if isinstance(index, ExactIndex):
            return [(query, entry, 0) for query, value in enumerate(values) for entry in index.query(value).tolist()]
        codes = np.frombuffer(b"".join(values), np.uint8).reshape(-1, info.length_bytes)
        queries, ids, distances_bits = index.query_batch(codes, max_distance_bits)
        return list(zip(queries.tolist(), ids.tolist(), distances_bits.tolist(), strict=True))

    def is_exact(self, signal_type: str) -> bool:
        """Whether the segment holds this signal type for exact look-up."""
        info = self.metadata.signals.get(signal_type)
        return info is not None and info.kind == "exact"

    def index(self, signal_type: str) -> ExactIndex | HammingIndex:
        """What finds hashes of a signal type that the segment holds. Its ids are numbers of entries.

        Of an encrypted segment that is not loaded, it is decrypted for the caller, without a Hamming index's tables:
        these would take most of the memory, and merging needs none. Raises :class:`SegmentError`.
        """
        with self._errors():
            found = self._indexes.get(signal_type)
            return found if found is not None else self._open_index(signal_type, without="table_")

    @property
    def entries_json(self) -> Bytes:
        """The JSON of all entries, one behind the other."""
        section = self._place("entries/json")
        return _Part(self, section) if self.is_encrypted else self._section(section.name)

    @property
    def entry_offsets(self) -> npt.NDArray[np.uint64]:
        """Where each entry's JSON begins, and behind the last one's end; uint64 (entries + 1,)."""
        if self._entry_offsets is None:
            with self._errors():
                self._entry_offsets = np.frombuffer(self._section("entries/offsets"), "<u8")
        return self._entry_offsets

    def tombstones(self, segment_id: str) -> Rows:
        """The entries of that segment that this one takes back, ascending. Raises :class:`SegmentError`."""
        with self._errors():
            return read_ids(self._section(f"tombstones/{segment_id}"))

    def find_entries(self, entry_id: str) -> list[int]:
        """The numbers of all entries of that id. Raises :class:`SegmentError`."""
        candidates = self._index_of_ids().query(entry_key(entry_id)).tolist()
        return [number for number in candidates if self.entry(number).entry_id == entry_id]

    def entry_keys(self) -> tuple[npt.NDArray[np.uint8], Rows]:
        """What entries are found by, uint8 (n, 8) and sorted, and the number of each one's entry."""
        index = self._index_of_ids()
        return index.sections()["records"], index.ids

    def count_hashes(self, rows: Rows) -> dict[str, int]:
        """How many hashes these entries have, by signal type; those without any are left out."""
        counts: dict[str, int] = {}
        for name in self.metadata.signals:
            each = self.hash_counts(name)
            count = int(each[rows].sum()) if each is not None else len(rows)
            if count:
                counts[name] = count
        return counts

    def hash_counts(self, signal_type: str) -> npt.NDArray[np.unsignedinteger[Any]] | None:
        """How many hashes of a signal type that the segment holds each entry has; None where each has one.

        Raises :class:`SegmentError`.
        """
        section = f"entries/hashes/{signal_type}"
        return self._hash_counts(section) if section in self._sections else None

    def entry(self, number: int) -> StoredEntry:
        """Read the entry of that number from the file. Raises :class:`SegmentError`."""
        with self._errors():
            if not 0 <= number < self.metadata.entries:
                raise SegmentError("it refers to an entry that it does not hold; import the list again")
            offsets, data = self._place("entries/offsets"), self._place("entries/json")
            place = offsets.offset + 8 * number
            start, end = _ENTRY_OFFSETS.unpack(self._bytes(place, place + _ENTRY_OFFSETS.size))
            if not start < end <= data.length:
                raise SegmentError("an entry lies outside it; import the list again")
            stored = bytes(self._bytes(data.offset + start, data.offset + end))
            try:
                match json.loads(stored):
                    case {"id": str(entry_id), "category": str() | None as category, "fields": dict(fields)}:
                        return StoredEntry(entry_id, category, fields)
            except (ValueError, RecursionError):
                pass  # the same as JSON of another shape
            raise SegmentError("an entry in it is altered; import the list again")

    def _bytes(self, start: int, end: int) -> memoryview:
        base, resident = self._resident
        if base <= start and end <= base + len(resident):
            return resident[start - base : end - base]
        return self._source.read(start, end)

    def _place(self, name: str) -> Section:
        section = self._sections.get(name)
        if section is None:
            raise SegmentError(f"it has no section {name!r}; import the list again")
        return section

    def _section(self, name: str) -> memoryview:
        section = self._place(name)
        return self._bytes(section.offset, section.end)

    def _check_bytes(self) -> None:
        """Compare all checksums, and see that there are zeros between the sections."""
        end = HEADER_BYTES
        for section in self._sections.values():
            if any(self._bytes(end, section.offset)):
                raise SegmentError(f"bytes before its section {section.name!r} are altered; import the list again")
            self._check_section(section.name)
            end = section.end
        if any(self._bytes(end, align(end, 0))):
            raise SegmentError("bytes before its section table are altered; import the list again")

    def _check_section(self, name: str) -> None:
        data = self._section(name)
        digest = hashlib.sha256()
        for start in range(0, len(data), _VERIFY_CHUNK_BYTES):
            digest.update(data[start : start + _VERIFY_CHUNK_BYTES])
        if digest.digest() != self._sections[name].checksum:
            raise SegmentError(f"its section {name!r} is altered; import the list again")

    def _sections_in(self, prefix: str, without: str | None = None) -> dict[str, memoryview]:
        names = [name.removeprefix(prefix) for name in self._sections if name.startswith(prefix)]
        return {name: self._section(prefix + name) for name in names if without is None or not name.startswith(without)}

    def _index_of_ids(self) -> ExactIndex:
        """What finds entries by their ids. Decrypted once, and kept: only writers ask for it."""
        if self._entry_ids is None:
            with self._errors():
                found = ExactIndex.from_sections(self._sections_in("entries/ids/"), ENTRY_KEY_BYTES)
                if len(found) != self.metadata.entries:
                    raise SegmentError("its entries are inconsistent; import the list again")
                self._entry_ids = found
        return self._entry_ids

    def _hash_counts(self, section: str) -> npt.NDArray[np.unsignedinteger[Any]]:
        """How many hashes each entry has, stored as 1, 2 or 4 bytes each. Raises :class:`SegmentError`."""
        with self._errors():
            data = self._section(section)
            counts = np.frombuffer(data, f"<u{len(data) // max(1, self.metadata.entries)}")
            if len(counts) != self.metadata.entries:
                raise SegmentError("its entries are inconsistent; import the list again")
            return counts

    def _open_index(self, name: str, without: str | None = None) -> ExactIndex | HammingIndex:
        info = self.metadata.signals[name]
        sections = self._sections_in(f"signals/{name}/", without)
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
        except DecryptionError as error:
            advice = "; import the list again" if error.altered else ""
            raise SegmentError(f"{error}{advice}", path=self.path) from None
        except (ValidationError, ValueError, KeyError, TypeError) as error:
            raise SegmentError(
                f"its contents are inconsistent ({type(error).__name__}); import the list again", path=self.path
            ) from None


class _Part:
    """A section of an encrypted segment, decrypted piece by piece as it is asked for."""

    def __init__(self, segment: Segment, section: Section) -> None:
        self._segment = segment
        self._section = section

    def __len__(self) -> int:
        return self._section.length

    def __getitem__(self, part: slice, /) -> memoryview:
        start, end, step = part.indices(len(self))
        if step != 1:
            raise ValueError("only neighbouring bytes can be taken")
        with self._segment._errors():
            return self._segment._bytes(self._section.offset + start, self._section.offset + max(start, end))
