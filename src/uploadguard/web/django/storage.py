"""A storage around any other: nothing is stored unchecked, and what is queued is stored where nobody is served it."""

from __future__ import annotations

import posixpath
import tempfile
from collections.abc import Mapping
from typing import Any

from django.core.exceptions import ImproperlyConfigured, SuspiciousFileOperation
from django.core.files import File
from django.core.files.storage import Storage, storages
from django.utils.deconstruct import deconstructible

from uploadguard.errors import UploadRefused
from uploadguard.web.django.files import check_file, decision_of, was_held
from uploadguard.web.django.host import context_of, get_intake

__all__ = ["GuardedStorage", "HeldFileError"]

_WRITING = frozenset("wax+")


class HeldFileError(ValueError):
    """The file is held until a person decides: it has no address. Templates show nothing in its place."""

    silent_variable_failure = True


@deconstructible(path="uploadguard.web.django.GuardedStorage")
class GuardedStorage(Storage):
    """Stores in ``storage`` what may be served, and in ``held`` what is queued; what is blocked raises.

    ``storage`` and ``held`` are storages, their aliases in STORAGES, or such tables as stand there. The files of
    ``held`` must not be served: give it a place of its own, not one below MEDIA_ROOT. A held file's name begins with
    ``prefix``, by which it is found again; :meth:`url` raises for it, or gives ``held_url``, until :meth:`release` has
    moved it over. Without ``held`` a queued file is given to the host's HOLD and not stored, unless it was held before.

    ``wrapped`` is the storage for what the host makes itself, thumbnails and the like, which need no check.
    """

    def __init__(
        self,
        storage: Any,
        held: Any = None,
        *,
        prefix: str = "uploadguard-held/",
        held_url: str | None = None,
    ) -> None:
        if not prefix.endswith("/"):
            raise ImproperlyConfigured("the prefix of held files must end with a slash")
        self._storage, self._held_storage = storage, held
        self._prefix = prefix
        self._held_url = held_url

    @property
    def wrapped(self) -> Any:
        """The storage of what may be served."""
        self._storage = _made(self._storage)
        return self._storage

    @property
    def held(self) -> Any:
        """The storage of what is held, or None."""
        if self._held_storage is not None:
            self._held_storage = _made(self._held_storage)
        return self._held_storage

    def is_held(self, name: str) -> bool:
        """Whether this is the name of a held file."""
        return self._held_storage is not None and _plain(name).startswith(self._prefix)

    def save(self, name: str | None, content: Any, max_length: int | None = None) -> str:
        """Check and store.

        Raises :class:`~uploadguard.errors.UploadRefused` for what is blocked, or queued with nowhere to hold it; and
        :class:`~uploadguard.errors.NotReadyError`, :class:`~uploadguard.errors.NotRecordedError`.
        """
        name = str(name if name is not None else content.name)
        if not hasattr(content, "chunks"):
            content = File(content, name)
        if not content.seekable():
            with tempfile.TemporaryFile() as spooled:
                for chunk in content.chunks():
                    spooled.write(chunk)
                return self.save(name, File(spooled, name), max_length)
        intake = get_intake()
        decision = decision_of(content) or check_file(content, context_of(None, name))
        if not intake.is_queued(decision):
            if intake.refuses(decision):
                raise UploadRefused(decision)
            if self.is_held(name):
                raise SuspiciousFileOperation("this name is one of a held file")
            return str(self.wrapped.save(name, content, max_length=max_length))
        if self.held is None:
            if not was_held(content):
                intake.hold(decision, content)
            raise UploadRefused(decision)
        rest = max_length - len(self._prefix) if max_length is not None else None
        return self._prefix + str(self.held.save(name, content, max_length=rest))

    def release(self, name: str, max_length: int | None = None) -> str:
        """A person let the file go: move it to where it may be served. Returns its new name, for the host to note."""
        place, held_name = self._where(name)
        if place is not self.held:
            raise ValueError("this file is not held")
        with place.open(held_name) as file:
            released = str(self.wrapped.save(held_name, file, max_length=max_length))
        place.delete(held_name)
        return released

    def open(self, name: str, mode: str = "rb") -> Any:
        """Open a file, held or not, to read it. Raises ``ValueError`` for modes that write: that is not checked."""
        if _WRITING & set(mode):
            raise ValueError("a guarded storage is written to by save(); what needs no check, by its .wrapped")
        return self._call("open", name, mode)

    def delete(self, name: str) -> None:
        """Delete a file, held or not."""
        self._call("delete", name)

    def exists(self, name: str) -> bool:
        """Whether there is such a file, held or not."""
        return bool(self._call("exists", name))

    def listdir(self, path: str) -> Any:
        """List a folder; those of held files too, if asked for by their prefix."""
        return self._call("listdir", path)

    def size(self, name: str) -> int:
        """A file's size in bytes."""
        return int(self._call("size", name))

    def path(self, name: str) -> str:
        """Where a file lies on this machine, if the storage tells."""
        return str(self._call("path", name))

    def url(self, name: str | None) -> str:
        """A file's address. For a held file ``held_url``; without one, raises :class:`HeldFileError`."""
        if name is not None and self.is_held(name):
            if self._held_url is None:
                raise HeldFileError("the file is held until a person decides")
            return self._held_url
        return str(self.wrapped.url(name))

    def get_accessed_time(self, name: str) -> Any:
        """When a file was last read."""
        return self._call("get_accessed_time", name)

    def get_created_time(self, name: str) -> Any:
        """When a file was made."""
        return self._call("get_created_time", name)

    def get_modified_time(self, name: str) -> Any:
        """When a file was last changed."""
        return self._call("get_modified_time", name)

    def get_available_name(self, name: str, max_length: int | None = None) -> str:
        """A free name like this one."""
        return str(self.wrapped.get_available_name(name, max_length=max_length))

    def get_valid_name(self, name: str) -> str:
        """A name like this one that the storage takes."""
        return str(self.wrapped.get_valid_name(name))

    def generate_filename(self, filename: str) -> str:
        """The path and name to hand to :meth:`save`."""
        return str(self.wrapped.generate_filename(filename))

    def __getattr__(self, name: str) -> Any:
        """What else the wrapped storage offers: its location, its bucket."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.wrapped, name)

    def _call(self, method: str, name: str, *args: Any) -> Any:
        place, its_name = self._where(name)
        return getattr(place, method)(its_name, *args)

    def _where(self, name: str) -> tuple[Any, str]:
        if self.is_held(name):
            return self.held, _plain(name)[len(self._prefix) :]
        return self.wrapped, name


def _plain(name: str) -> str:
    """A name without the detours by which it could be taken for another."""
    plain = posixpath.normpath(str(name).replace("\\", "/")).lstrip("/")
    return plain + "/" if str(name).endswith("/") else plain


def _made(storage: Any) -> Any:
    if isinstance(storage, str):
        return storages[storage]
    if isinstance(storage, Mapping):
        return storages.create_storage(dict(storage))
    return storage
