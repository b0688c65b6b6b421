"""The manifest: which segments make up the hash set now. Replaced as a whole by every change.

It is JSON. Where the hash set is encrypted, so is that JSON, and stands in base64 inside of other JSON.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AwareDatetime, Field, StringConstraints, ValidationError

from uploadguard.errors import ManifestError
from uploadguard.hashset.files import atomic_file
from uploadguard.hashset.metadata import FrozenModel, ListInfo, SegmentId, SegmentMetadata, summarise
from uploadguard.storage.encryption import DecryptionError, decrypt, encrypt, key_id_of
from uploadguard.storage.keys import Keys

__all__ = [
    "MANIFEST_NAME",
    "SEGMENT_PATTERN",
    "FileStamp",
    "ListChange",
    "Manifest",
    "ManifestFile",
    "PreviousGeneration",
    "SegmentRecord",
    "read_manifest",
    "write_manifest",
]

MANIFEST_NAME = "manifest.json"
SEGMENT_PATTERN = r"^segment-[0-9]{1,19}-[0-9a-f]{16}\.ugs$"

_FORMAT = "uploadguard hash set"
_VERSION = 2
_ENCRYPTED_FORMAT = "uploadguard hash set, encrypted"
_MAX_BYTES = 64 * 1024 * 1024
_ADVICE = "restore the directory from a backup, or create the hash set anew and import the lists again"


class SegmentRecord(FrozenModel):
    """One segment file of the hash set. ``checksum`` is :attr:`Segment.checksum`; the metadata is the segment's own."""

    file: Annotated[str, StringConstraints(pattern=SEGMENT_PATTERN)]
    size_bytes: Annotated[int, Field(gt=0)]
    checksum: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
    metadata: SegmentMetadata


class ListChange(FrozenModel):
    """One compiled change of one list: its segment, and what that is to do to the list.

    ``new`` and ``replace``: it is the whole list. ``append``: it comes behind the list's segments. ``update``: it does
    so too, and has tombstones on those of the ids ``base``, which were the list's when it was compiled. ``added`` and
    ``removed`` count entries, with ``replace`` those of the two lists.
    """

    kind: Literal["new", "replace", "append", "update"]
    base: tuple[SegmentId, ...]
    segment: SegmentRecord
    added: Annotated[int, Field(ge=0)]
    removed: Annotated[int, Field(ge=0)]
    staged_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))

    @property
    def list_name(self) -> str:
        """The list that it changes."""
        return self.segment.metadata.list_name

    def result(self, present: Sequence[SegmentRecord]) -> list[SegmentRecord]:
        """What the list is made of once this is in force; ``present`` are its segments until then."""
        return [*(present if self.kind in ("append", "update") else ()), self.segment]


class _GenerationRecord(FrozenModel):
    generation: Annotated[int, Field(ge=0, lt=2**63)]
    created_at: AwareDatetime = Field(default_factory=lambda: datetime.now(UTC).replace(microsecond=0))
    segments: tuple[SegmentRecord, ...]

    def lists(self) -> tuple[ListInfo, ...]:
        """The lists that the segments make up."""
        return summarise(record.metadata for record in self.segments)


class PreviousGeneration(_GenerationRecord):
    """A generation that was in force and can be so again."""


class Manifest(_GenerationRecord):
    """The generation in force: its number, and its segments in the order in which they were added.

    ``previous`` are the generations before it whose segments are kept, the latest first. ``confirmed`` is when lists,
    by name, were last found to be up to date, where that is later than their last change. ``staged`` are changes that
    wait for their activation, one a list at most: no check sees them, and they do not make a new generation.
    """

    previous: tuple[PreviousGeneration, ...] = ()
    staged: tuple[ListChange, ...] = ()
    confirmed: dict[str, AwareDatetime] = Field(default_factory=dict, repr=False)

    def lists(self) -> tuple[ListInfo, ...]:
        """The lists that the segments make up; a confirmation counts as an update."""
        return tuple(
            replace(info, updated_at=max(info.updated_at, self.confirmed.get(info.name, info.updated_at)))
            for info in super().lists()
        )

    def confirm(self, names: Iterable[str]) -> Manifest:
        """This manifest with these lists found to be up to date now."""
        now = datetime.now(UTC).replace(microsecond=0)
        return self.model_copy(update={"confirmed": {**self.confirmed, **dict.fromkeys(names, now)}})

    def of_list(self, name: str) -> tuple[SegmentRecord, ...]:
        """The segments of one list; none if there is no such list."""
        return tuple(record for record in self.segments if record.metadata.list_name == name)

    def files(self) -> dict[str, SegmentRecord]:
        """All segments that are kept, by file: those in force, of previous generations, and staged."""
        kept = (self, *self.previous)
        return {
            **{record.file: record for generation in kept for record in generation.segments},
            **{change.segment.file: change.segment for change in self.staged},
        }

    def staged_of(self, name: str) -> ListChange | None:
        """The change that is staged for a list."""
        return next((change for change in self.staged if change.list_name == name), None)

    def stage(self, change: ListChange) -> Manifest:
        """This manifest, of the same generation, with a change staged in place of the one of its list."""
        return self.model_copy(update={"staged": (*self.unstage(change.list_name).staged, change)})

    def unstage(self, name: str) -> Manifest:
        """This manifest, of the same generation, without a change staged for the list."""
        return self.model_copy(update={"staged": tuple(item for item in self.staged if item.list_name != name)})

    def next(self, segments: Iterable[SegmentRecord], *, keep_previous: int = 0) -> Manifest:
        """The generation after this one, of these segments; this one becomes the latest of the previous."""
        past = PreviousGeneration(generation=self.generation, created_at=self.created_at, segments=self.segments)
        previous = (past, *self.previous)[:keep_previous]
        return self._followed_by(segments, previous)

    def compacted(self, segments: Iterable[SegmentRecord]) -> Manifest:
        """The generation after this one, of other segments, which leaves those to go back to as they are."""
        return self._followed_by(segments, self.previous)

    def _followed_by(self, segments: Iterable[SegmentRecord], previous: tuple[PreviousGeneration, ...]) -> Manifest:
        segments = tuple(segments)
        names = {record.metadata.list_name for record in segments}
        confirmed = {name: at for name, at in self.confirmed.items() if name in names}
        return Manifest(
            generation=self.generation + 1,
            segments=segments,
            previous=previous,
            confirmed=confirmed,
            staged=self.staged,
        )


@dataclass(frozen=True, slots=True)
class FileStamp:
    """Tells one manifest file from the next without reading it. No two in a row share a time of modification."""

    device: int
    inode: int
    size_bytes: int
    modified_ns: int

    @classmethod
    def of(cls, status: os.stat_result) -> FileStamp:
        """The stamp of a file of that status."""
        return cls(status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)


class ManifestFile(NamedTuple):
    """What was read: the manifest, the file's stamp, and the id of the key it is encrypted with, if it is."""

    manifest: Manifest
    stamp: FileStamp
    key_id: bytes | None


def read_manifest(directory: Path, keys: Keys | None = None) -> ManifestFile:
    """The manifest of the hash set in ``directory``, checked byte for byte. Raises :class:`ManifestError`."""
    path = directory / MANIFEST_NAME
    try:
        with path.open("rb") as file:
            stamp = FileStamp.of(os.fstat(file.fileno()))
            data = file.read(_MAX_BYTES + 1)
    except FileNotFoundError:
        raise ManifestError(f"{path}: no hash set here; create it, or check the directory in the settings") from None
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read ({error.strerror or error}); check its permissions") from error
    document = _document(data)
    if document is None or document.get("format") != _ENCRYPTED_FORMAT:
        return ManifestFile(_parse(data, document, path), stamp, None)
    encrypted = _unwrap(document, data, path)
    try:
        plain = decrypt(encrypted, keys, "manifest")
    except DecryptionError as error:
        raise ManifestError(f"{path}: {error}{f'; {_ADVICE}' if error.altered else ''}") from None
    return ManifestFile(_parse(plain, _document(plain), path), stamp, key_id_of(encrypted))


def write_manifest(
    directory: Path, manifest: Manifest, *, after: FileStamp | None = None, keys: Keys | None = None
) -> None:
    """Put ``manifest`` in place of the one of stamp ``after``. Raises :class:`HashSetWriteError`."""
    newer_than_ns = after.modified_ns if after is not None else 0
    data = _render(manifest)
    if keys is not None and keys.writing is not None:
        data = _wrap(encrypt(data, keys.writing, "manifest"))
    with atomic_file(directory / MANIFEST_NAME, newer_than_ns=newer_than_ns) as output:
        output.write(data)


def _render(manifest: Manifest) -> bytes:
    """The file of ``manifest``: the only bytes that are read as it."""
    content = manifest.model_dump(mode="json", exclude=None if manifest.staged else {"staged"})
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    document = {"format": _FORMAT, "format_version": _VERSION, "checksum": checksum, **content}
    return json.dumps(document, indent=1).encode() + b"\n"


def _wrap(encrypted: bytes) -> bytes:
    """The file of an encrypted manifest: the only bytes that are read as it."""
    content = base64.b64encode(encrypted).decode()
    document = {"format": _ENCRYPTED_FORMAT, "format_version": _VERSION, "content": content}
    return json.dumps(document, indent=1).encode() + b"\n"


def _unwrap(document: dict[str, Any], data: bytes, path: Path) -> bytes:
    _check_version(document, path)
    try:
        encrypted = base64.b64decode(document["content"], validate=True)
    except (KeyError, TypeError, ValueError):
        encrypted = b""
    if _wrap(encrypted) != data:
        raise ManifestError(f"{path}: is altered; {_ADVICE}")
    return encrypted


def _document(data: bytes) -> dict[str, Any] | None:
    try:
        document = json.loads(data) if len(data) <= _MAX_BYTES else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


def _check_version(document: dict[str, Any], path: Path) -> None:
    if document.get("format_version") != _VERSION:
        raise ManifestError(
            f"{path}: its format version is not {_VERSION}, the one read here; install another release or "
            "create the hash set anew"
        )


def _parse(data: bytes, document: dict[str, Any] | None, path: Path) -> Manifest:
    if document is None or document.get("format") != _FORMAT:
        raise ManifestError(f"{path}: is not a manifest of a hash set; {_ADVICE}")
    _check_version(document, path)
    content = {key: value for key, value in document.items() if key not in ("format", "format_version", "checksum")}
    try:
        manifest = Manifest.model_validate_json(json.dumps(content))
    except (ValidationError, ValueError, RecursionError):
        manifest = None
    if manifest is None or _render(manifest) != data:
        raise ManifestError(f"{path}: is altered; {_ADVICE}")
    staged = [change.segment for change in manifest.staged]
    if any(_names_twice([*generation.segments, *staged]) for generation in (manifest, *manifest.previous)):
        raise ManifestError(f"{path}: names a segment twice; {_ADVICE}")
    if len({change.list_name for change in manifest.staged}) != len(staged):
        raise ManifestError(f"{path}: has two changes staged for one list; {_ADVICE}")
    return manifest


def _names_twice(segments: Sequence[SegmentRecord]) -> bool:
    return len({record.file for record in segments}) != len(segments)
