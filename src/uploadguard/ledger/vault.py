"""The evidence vault: the files of queued and blocked uploads, encrypted, each in a file of its own.

::

    3f/3f0c...e1      one preserved file, mode 0600, its name 32 random hex digits

It is written as :mod:`uploadguard.storage.encryption` does, bound to its name. Inside, before the upload's bytes, stand
its decision's reference and media type, so that a file can be told even where the ledger is lost; and what a row of
the ledger leads to is shown only if it is that decision's.

On destruction. A file's key is derived from the vault's key and 32 random bytes that stand in its header, nowhere else.
To destroy it, these are written over, and then the file is removed: to whoever reads the device afterwards, the
remaining blocks are noise, with the vault's key too. Where the file system or the device writes to new places (btrfs,
ZFS, flash memory), the old header may linger for a while, as it does in snapshots and backups. What reaches those is
another key: encrypt what is kept anew (:meth:`Vault.renew`), and destroy the old one. A random key for each file in the
ledger's rows would gain nothing on this, since a database's pages, logs and backups keep what was deleted no less; and
preserved files would be lost with the ledger.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from uploadguard.errors import EvidenceError
from uploadguard.keyring import configured_keys
from uploadguard.logs import log
from uploadguard.storage.encryption import HEADER_BYTES, DecryptionError, Decryptor, Encryptor, key_id_of
from uploadguard.storage.files import TEMPORARY_SUFFIX, sync_directory
from uploadguard.storage.keys import Key, Keys

if TYPE_CHECKING:
    from uploadguard.config import Settings

__all__ = ["StoredFile", "Vault", "open_vault"]

_NAME: Final = re.compile(r"[0-9a-f]{32}")
_FOLDER: Final = re.compile(r"[0-9a-f]{2}")
_ABOUT_LENGTH: Final = struct.Struct(">I")
_MAX_ABOUT_BYTES: Final = 4096
_OTHERS: Final = 0o077
_NO_KEY: Final = "is missing: files are never kept in the clear; `uploadguard evidence newkey FILE` makes a key"


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the vault: its name, None for one that was never finished; ``changed_at`` is UTC with zone."""

    path: Path
    name: str | None
    changed_at: datetime


class Vault:
    """The preserved files. Safe to share between threads and processes."""

    def __init__(self, path: Path, keys: Keys, *, keep: timedelta | None) -> None:
        """``keep`` is how long files are to be preserved; None is for ever."""
        self.path = path
        self._keys = keys
        self._keep = keep
        self._lasting: set[Path] = set()

    def __repr__(self) -> str:
        return f"Vault({self.path})"

    def store(self, reference: str, data: bytes | memoryview, media_type: str | None) -> dict[str, Any]:
        """Preserve the file of the decision ``reference``; it is on the disk when this returns.

        Returns what belongs into the decision's record as ``evidence``, JSON types: ``file``, ``sha256`` in hex,
        ``size_bytes``, ``media_type``, ``stored_at`` and ``keep_until`` in ISO format, the last may be None. Takes
        two chunks of memory beside ``data``. Raises :class:`~uploadguard.errors.EvidenceError` and leaves nothing.
        """
        name = secrets.token_hex(16)
        now = datetime.now(UTC)
        about = {"reference": reference, "media_type": media_type, "stored_at": now.isoformat()}
        with _errors("cannot be preserved"):
            self._write(name, _packed(about), data)
        return {
            "file": name,
            "sha256": hashlib.sha256(data).hexdigest(),
            "size_bytes": len(data),
            "media_type": media_type,
            "stored_at": now.isoformat(),
            "keep_until": (now + self._keep).isoformat() if self._keep is not None else None,
        }

    def read(self, file: str, sha256: bytes, *, reference: str | None = None) -> bytes:
        """The bytes of a preserved file, whole and the ones that were stored.

        ``sha256`` and ``reference`` are what the ledger has. Raises :class:`~uploadguard.errors.EvidenceError` for a
        file that is gone, altered, cut short, another one, or encrypted with a key that is not at hand.
        """
        about, data = self._open(file)
        if hashlib.sha256(data).digest() != sha256 or (reference is not None and about["reference"] != reference):
            raise EvidenceError("the preserved file is not the one that was recorded")
        return bytes(data)

    def remove(self, file: str) -> bool:
        """Destroy a preserved file, as far as that goes; returns False where it is gone already.

        Durable when it returns. Raises :class:`~uploadguard.errors.EvidenceError`.
        """
        with _errors("cannot be destroyed"):
            return _shred(self._place(file))

    def holds(self, file: str) -> bool:
        """Whether there is a file of this name."""
        return self._place(file).is_file()

    def renew(self, file: str) -> bool:
        """Encrypt a file with the key that is written with now; returns False where it is already.

        Raises :class:`~uploadguard.errors.EvidenceError`.
        """
        place = self._place(file)
        assert self._keys.writing is not None
        with _errors("cannot be read"), place.open("rb") as opened:
            if key_id_of(opened.read(HEADER_BYTES)) == self._keys.writing.id:
                return False
        about, data = self._open(file)
        with _errors("cannot be encrypted anew"):
            self._write(file, _packed(about), data)
        return True

    def files(self) -> Iterator[StoredFile]:
        """All files, those that were never finished included, in no order."""
        with _errors("cannot be listed"):
            for folder in self.path.iterdir():
                if _FOLDER.fullmatch(folder.name) is None:
                    continue
                for path in folder.iterdir():
                    with suppress(FileNotFoundError):  # removed meanwhile
                        changed_at = datetime.fromtimestamp(path.stat().st_mtime, UTC)
                        if _NAME.fullmatch(path.name) is not None:
                            yield StoredFile(path, path.name, changed_at)
                        elif path.name.endswith(TEMPORARY_SUFFIX):
                            yield StoredFile(path, None, changed_at)

    def remove_unfinished(self, stored: StoredFile) -> None:
        """Remove what a writer that died has left. Raises :class:`~uploadguard.errors.EvidenceError`."""
        with _errors("cannot be removed"):
            _shred(stored.path)

    def _place(self, file: str) -> Path:
        if _NAME.fullmatch(file) is None:
            raise EvidenceError("the ledger names no file of the vault")
        return self.path / file[:2] / file

    def _write(self, name: str, about: bytes, data: bytes | memoryview) -> None:
        """Write a file, or write it anew, in one step. Raises ``OSError``, and then all is as it was."""
        place = self._place(name)
        self._make_folder(place.parent)
        temporary = place.with_name(f".{name}.{secrets.token_hex(4)}{TEMPORARY_SUFFIX}")
        anew = place.exists()
        assert self._keys.writing is not None
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as output:
                encryptor = Encryptor(output, self._keys.writing, "evidence", context=name.encode())
                encryptor.write(about)
                encryptor.write(data)
                encryptor.finish()
                output.flush()
                os.fsync(descriptor)
            temporary.replace(place)
            sync_directory(place.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            if not anew:
                with suppress(OSError):
                    place.unlink()
            raise

    def _make_folder(self, folder: Path) -> None:
        if folder in self._lasting and folder.is_dir():
            return
        with suppress(FileExistsError):
            folder.mkdir(0o700)
        # Also where it was there: whoever made it may have died before this.
        sync_directory(self.path)
        self._lasting.add(folder)

    def _open(self, file: str) -> tuple[dict[str, Any], memoryview]:
        """What stands before the bytes, and the bytes."""
        place = self._place(file)
        try:
            with _errors("cannot be read"):
                sealed = memoryview(place.read_bytes())
            decryptor = Decryptor(sealed, self._keys, "evidence", context=file.encode())
            plain = decryptor.read(0, decryptor.size_bytes)
        except DecryptionError as error:
            raise EvidenceError(f"the preserved file {error}") from error
        (length,) = _ABOUT_LENGTH.unpack_from(plain)
        about = json.loads(bytes(plain[_ABOUT_LENGTH.size : _ABOUT_LENGTH.size + length]))
        return about, plain[_ABOUT_LENGTH.size + length :]


def open_vault(settings: Settings, key: bytes | None = None) -> Vault | None:
    """The vault that the settings ask for, made if it is not there; None without ``evidence.path``.

    ``key`` is what a plugin's ``uploadguard_evidence_key`` gave: it is written with, and those of the settings are for
    reading. Raises :class:`~uploadguard.errors.ConfigError`, :class:`~uploadguard.errors.EvidenceError`.
    """
    evidence = settings.evidence
    if evidence.path is None:
        return None
    if settings.ledger.path is None:
        raise settings.error([(("evidence", "path"), "needs a ledger to say what the files are: set ledger.path")])
    keys = configured_keys(settings, ("evidence",), evidence.key_file, evidence.key_env)
    if key is not None:
        keys.insert(0, _hooked(settings, key))
    if not keys:
        raise settings.error([(("evidence", "key_file"), _NO_KEY)])
    _make_private(evidence.path)
    return Vault(evidence.path, Keys(keys), keep=timedelta(days=evidence.keep_days) if evidence.keep_days else None)


def _hooked(settings: Settings, key: bytes) -> Key:
    try:
        return Key(key)
    except ValueError as error:
        raise settings.error([(("evidence", "path"), f"the plugin's key cannot be used: {error}")]) from None


def _make_private(path: Path) -> None:
    with _errors(f"{path}: the vault cannot be made", whole=True):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        raise EvidenceError(f"{path}: is not a directory")
    if stat.S_IMODE(found.st_mode) & _OTHERS:
        log.warning("evidence.path: others than this user can look into the directory; chmod 700 it")


def _packed(about: dict[str, Any]) -> bytes:
    packed = json.dumps(about).encode()
    if len(packed) > _MAX_ABOUT_BYTES:
        raise EvidenceError("the upload cannot be preserved: its media type or reference is too long")
    return _ABOUT_LENGTH.pack(len(packed)) + packed


def _shred(path: Path) -> bool:
    """Write over a file's header, without which nothing can be decrypted, and remove it; False where there is none."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return False
    try:
        size_bytes = min(os.fstat(descriptor).st_size, HEADER_BYTES)
        # A disk that is full, or that takes no more writes, must not keep the file from being removed.
        with suppress(OSError):
            os.pwrite(descriptor, os.urandom(size_bytes), 0)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
    path.unlink(missing_ok=True)
    sync_directory(path.parent)
    return True


@contextmanager
def _errors(what: str, *, whole: bool = False) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise EvidenceError("the preserved file is gone" if not whole else f"{what}: {error.strerror}") from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        hint = "; make room, and try again" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
        raise EvidenceError(f"{what}: {reason}" if whole else f"the upload's file {what}: {reason}{hint}") from error
