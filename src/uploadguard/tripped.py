"""Which lists are tripped, on disk: a small file beside the hash set's manifest that all processes of a host go by.

JSON, replaced as a whole and written through to the disk; encrypted where the hash set is. Without the file no list is
tripped. A file that is there and cannot be read is an error, and no empty answer: it may have named any list.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from pydantic import AwareDatetime, Field, ValidationError

from uploadguard.errors import HashSetError
from uploadguard.hashset.files import atomic_file, write_lock
from uploadguard.hashset.manifest import FileStamp
from uploadguard.hashset.metadata import FrozenModel
from uploadguard.storage.encryption import DecryptionError, decrypt, encrypt, key_id_of
from uploadguard.storage.files import TEMPORARY_SUFFIX
from uploadguard.storage.keys import Keys

__all__ = ["FILE_NAME", "Trip", "Tripped", "TrippedFile"]

FILE_NAME: Final = "tripped.json"
_LOCK_NAME: Final = "tripped.lock"
_PREFIX: Final = "tripped.new."
"""Of the file while it is written: one that writers of lists do not take for their own and remove."""

_FORMAT: Final = "uploadguard tripped lists"
_VERSION: Final = 1
_MAX_BYTES: Final = 4 * 1024 * 1024
_ADVICE: Final = "until `uploadguard lists reset --all` starts it anew, matches of every list are only queued"


class Trip(FrozenModel):
    """A list that matched too much: ``matched`` different files in the last ``checks`` checks of a process."""

    list_name: str = Field(repr=False)
    at: AwareDatetime
    matched: Annotated[int, Field(ge=0)]
    checks: Annotated[int, Field(ge=0)]

    @property
    def percent(self) -> float:
        """The share of those checks that matched."""
        return 100 * self.matched / self.checks if self.checks else 0.0


class _Content(FrozenModel):
    lists: tuple[Trip, ...] = ()


class Tripped(NamedTuple):
    """What was read: the lists by name, the file's stamp, and whether it is encrypted as it would be written now.

    ``stamp`` is None where there is no file.
    """

    trips: Mapping[str, Trip]
    stamp: FileStamp | None
    as_configured: bool = True


class TrippedFile:
    """The file in ``directory``, a hash set's. Safe to share between threads and between processes.

    Everything raises :class:`~uploadguard.errors.HashSetError` where the file is damaged or cannot be read, and what
    writes also :class:`~uploadguard.errors.HashSetWriteError` and, after ``lock_timeout_s``,
    :class:`~uploadguard.errors.HashSetBusyError`.
    """

    def __init__(self, directory: Path, keys: Keys | None, *, lock_timeout_s: float = 5.0) -> None:
        self.path = directory / FILE_NAME
        self._keys = keys
        self._lock_timeout_s = lock_timeout_s

    def stamp(self) -> FileStamp | None:
        """Tells one file from the next without reading it; None where there is none."""
        try:
            return FileStamp.of(self.path.stat())
        except FileNotFoundError:
            return None
        except OSError as error:
            raise HashSetError(f"{self.path}: cannot be read ({error.strerror or error}); {_ADVICE}") from error

    def read(self) -> Tripped:
        """The tripped lists."""
        stamp = self.stamp()
        if stamp is None:
            return Tripped({}, None)
        try:
            with self.path.open("rb") as file:
                data = file.read(_MAX_BYTES + 1)
        except FileNotFoundError:
            return Tripped({}, None)
        except OSError as error:
            raise HashSetError(f"{self.path}: cannot be read ({error.strerror or error}); {_ADVICE}") from error
        key_id = key_id_of(data)
        if key_id is not None:
            try:
                data = decrypt(data, self._keys, "tripped")
            except DecryptionError as error:
                raise HashSetError(f"{self.path}: {error}; {_ADVICE}") from None
        trips = {trip.list_name: trip for trip in self._parse(data).lists}
        return Tripped(trips, stamp, key_id == self._writing_id)

    def add(self, trip: Trip) -> bool:
        """Note that a list is tripped; returns whether it was not so already."""

        def change(trips: Mapping[str, Trip]) -> Mapping[str, Trip]:
            return {trip.list_name: trip, **trips}

        return bool(self._change(change))

    def remove(self, names: Collection[str]) -> frozenset[str]:
        """Forget these lists; returns those of them that were tripped."""

        def change(trips: Mapping[str, Trip]) -> Mapping[str, Trip]:
            return {name: trip for name, trip in trips.items() if name not in names}

        return self._change(change)

    def clear(self) -> None:
        """Forget all lists, whatever is in the file."""
        with self._locked():
            self._write(_Content())

    def renew(self) -> None:
        """Write it anew, with the key to write with or plain if there is none."""
        with self._locked():
            self._write(_Content(lists=tuple(self.read().trips.values())))

    def _change(self, change: Callable[[Mapping[str, Trip]], Mapping[str, Trip]]) -> frozenset[str]:
        """Returns the names that came or went; writes only if there are any."""
        with self._locked():
            trips = self.read().trips
            changed = change(trips)
            if names := trips.keys() ^ changed.keys():
                self._write(_Content(lists=tuple(changed.values())))
            return frozenset(names)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        with write_lock(self.path.parent / _LOCK_NAME, self._lock_timeout_s):
            with suppress(OSError):  # what a dead writer left does no harm
                for path in self.path.parent.glob(f"{_PREFIX}*{TEMPORARY_SUFFIX}"):
                    path.unlink(missing_ok=True)
            yield

    def _write(self, content: _Content) -> None:
        data = _render(content)
        if self._keys is not None and self._keys.writing is not None:
            data = encrypt(data, self._keys.writing, "tripped")
        before = None
        with suppress(HashSetError):
            before = self.stamp()
        newer_than_ns = before.modified_ns if before is not None else 0
        with atomic_file(self.path, newer_than_ns=newer_than_ns, prefix=_PREFIX) as file:
            file.write(data)

    @property
    def _writing_id(self) -> bytes | None:
        return self._keys.writing.id if self._keys is not None and self._keys.writing is not None else None

    def _parse(self, data: bytes) -> _Content:
        content = None
        with suppress(ValidationError, ValueError, KeyError, TypeError, RecursionError):
            content = _Content.model_validate_json(json.dumps({"lists": json.loads(data)["lists"]}))
        if content is None or _render(content) != data:
            raise HashSetError(f"{self.path}: is altered; {_ADVICE}")
        return content


def _render(content: _Content) -> bytes:
    """The file of ``content``: the only bytes that are read as it."""
    stored = content.model_dump(mode="json")
    checksum = hashlib.sha256(json.dumps(stored, sort_keys=True).encode()).hexdigest()
    document = {"format": _FORMAT, "format_version": _VERSION, "checksum": checksum, **stored}
    return json.dumps(document, indent=1).encode() + b"\n"
