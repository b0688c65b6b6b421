"""Signed checkpoints of the audit log: Ed25519, by the ``cryptography`` package (extra ``encryption``).

A checkpoint says that the log had this digest at this entry, at this time, and which checkpoint came before. So what it
covers can only be changed by whoever has the signing key, and one that is taken out is missed by the next. The log has
an entry of its own for each, the last one that it covers. A copy kept elsewhere (:func:`export_checkpoints`) also shows
a log that was cut off together with its checkpoints, or replaced as a whole.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from uploadguard.errors import AuditError, ConfigError
from uploadguard.ledger import audit, schema
from uploadguard.storage.files import sync_directory, write_new_file

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

    from uploadguard.config import Settings
    from uploadguard.ledger.database import Database

__all__ = [
    "ACTION",
    "Checkpoint",
    "Checkpointer",
    "PublicKey",
    "SigningKey",
    "checkpoint_line",
    "export_checkpoints",
    "load_checkpoints",
    "parse_checkpoint",
    "read_checkpoints",
    "read_public_keys",
    "read_signing_key",
    "write_signing_key",
]

ACTION = "audit.checkpoint"
"""The action of the entries that checkpoints end with."""

_EVERY = timedelta(hours=1)
_LABEL = b"uploadguard audit checkpoint 1\n"
_MAX_FILE_BYTES = 65536
_PEM_END = b"-----END PUBLIC KEY-----"


class PublicKey:
    """What verifies checkpoints. ``id`` names it in them; ``pem`` is for others to keep."""

    __slots__ = ("_key", "id", "pem")

    def __init__(self, key: Ed25519PublicKey) -> None:
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        self._key = key
        self.id = hashlib.sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]
        self.pem = key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode("ascii")

    def __repr__(self) -> str:
        return f"PublicKey({self.id})"

    def signed(self, checkpoint: Checkpoint) -> bool:
        """Whether the checkpoint's signature is this key's."""
        from cryptography.exceptions import InvalidSignature

        try:
            self._key.verify(checkpoint.signature, checkpoint.message)
        except InvalidSignature:
            return False
        return True


class SigningKey:
    """What signs checkpoints: a secret."""

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key())

    def __repr__(self) -> str:
        return "SigningKey(<redacted>)"

    def __reduce__(self) -> str:
        raise TypeError("a key is not to be pickled; load it where it is needed")

    def sign(self, seq: int, digest: bytes, at: datetime, previous: bytes) -> Checkpoint:
        """The checkpoint with these contents."""
        unsigned = Checkpoint(seq, digest, at, self.public.id, previous, b"")
        return Checkpoint(seq, digest, at, self.public.id, previous, self._key.sign(unsigned.message))


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """That the entry ``seq`` had this ``digest`` at that time (UTC). ``previous`` is the :attr:`link` of the checkpoint
    before it, no bytes for the first one."""

    seq: int
    digest: bytes
    at: datetime
    key_id: str
    previous: bytes
    signature: bytes

    @property
    def message(self) -> bytes:
        """What is signed."""
        return _LABEL + audit.canonical(self._unsigned()).encode("ascii")

    @property
    def link(self) -> bytes:
        """What the next checkpoint names this one by: 32 bytes."""
        return hashlib.sha256(self.message + self.signature).digest()

    def to_dict(self) -> dict[str, Any]:
        """As JSON, bytes in hex."""
        return {**self._unsigned(), "signature": self.signature.hex()}

    def _unsigned(self) -> dict[str, Any]:
        return {
            "seq": self.seq,
            "digest": self.digest.hex(),
            "at": self.at.astimezone(UTC).isoformat(timespec="microseconds"),
            "key": self.key_id,
            "previous": self.previous.hex(),
        }


def checkpoint_line(checkpoint: Checkpoint) -> str:
    """The checkpoint as a line of an exported file, without the line feed."""
    return audit.canonical({"checkpoint": checkpoint.to_dict()})


def parse_checkpoint(found: Any) -> Checkpoint:
    """The opposite of :meth:`Checkpoint.to_dict`. Raises ``ValueError`` for what that does not write."""
    try:
        checkpoint = Checkpoint(
            found["seq"],
            bytes.fromhex(found["digest"]),
            datetime.fromisoformat(found["at"]),
            found["key"],
            bytes.fromhex(found["previous"]),
            bytes.fromhex(found["signature"]),
        )
        if type(checkpoint.seq) is int and checkpoint.at.tzinfo is not None and checkpoint.to_dict() == found:
            return checkpoint
    except (ValueError, TypeError, KeyError, OverflowError):
        pass
    raise ValueError("not a checkpoint")


def write_signing_key(path: Path) -> SigningKey:
    """Write a new key to a new file (PEM), that its owner alone can read. Raises ``OSError``, ``ConfigError``."""
    _require_cryptography()
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    key = Ed25519PrivateKey.generate()
    write_new_file(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return SigningKey(key)


def read_signing_key(path: Path) -> SigningKey:
    """The key in a file of :func:`write_signing_key`. Raises :class:`~uploadguard.errors.ConfigError`."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(_read_small(path), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise ConfigError("is not an Ed25519 key in PEM, as `uploadguard audit newkey` writes it", path=path)
    return SigningKey(key)


def read_public_keys(paths: Iterable[Path]) -> list[PublicKey]:
    """The public keys in these PEM files, each of which may hold several. Raises ``ConfigError``."""
    _require_cryptography()
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    found: list[PublicKey] = []
    for path in paths:
        *blocks, rest = _read_small(path).split(_PEM_END)
        for block in blocks:
            try:
                key = load_pem_public_key(block + _PEM_END + b"\n")
            except (ValueError, UnsupportedAlgorithm):
                key = None
            if not isinstance(key, Ed25519PublicKey):
                raise ConfigError("holds what is not an Ed25519 public key", path=path)
            found.append(PublicKey(key))
        if not blocks or rest.strip():
            raise ConfigError("is not a file of public keys in PEM", path=path)
    return found


def _read_small(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror}", path=path) from None
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError("is too large for a key", path=path)
    return data


def _require_cryptography() -> None:
    if importlib.util.find_spec("cryptography") is None:
        raise ConfigError("signed checkpoints need the cryptography package: pip install 'uploadguard[encryption]'")


def load_checkpoints(
    connection: Connection, first: int | None = None, last: int | None = None
) -> list[Checkpoint | int | None]:
    """The log's checkpoints in order, of entries from ``first`` to ``last``.

    In place of one that cannot be read, as only tampering leaves it, stands its number, or None.
    """
    columns = schema.audit_checkpoints.c
    # Without the columns' types, which would not let everything through.
    raw: list[sa.ColumnClause[Any]] = [
        sa.literal_column(name) for name in ("seq", "digest", "at", "key_id", "previous", "signature")
    ]
    query = sa.select(*raw).select_from(schema.audit_checkpoints).order_by(columns.seq)
    if first is not None:
        query = query.where(columns.seq >= first)
    if last is not None:
        query = query.where(columns.seq <= last)
    return [_of_row(row) for row in connection.execute(query)]


def _of_row(row: Any) -> Checkpoint | int | None:
    seq, digest, at, key_id, previous, signature = row
    if type(seq) is not int:
        return None
    try:
        if isinstance(at, str):
            text, at = at, datetime.fromisoformat(at)
            if at.isoformat(" ", "microseconds") != text or at.tzinfo is not None:
                return seq
            at = at.replace(tzinfo=UTC)
        if all(isinstance(one, bytes) for one in (digest, previous, signature)):
            return parse_checkpoint(Checkpoint(seq, digest, at, key_id, previous, signature).to_dict())
    except (ValueError, TypeError, AttributeError, OverflowError):
        pass
    return seq


class Checkpointer:
    """Signs the audit log when it is due, with the key of ``ledger.signing_key_file``; does nothing where none is set.

    Any number may run, in any number of processes. Raises :class:`~uploadguard.errors.ConfigError`.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        path = settings.ledger.signing_key_file
        self._key = read_signing_key(path) if path is not None else None
        self._database = database
        self._every_entries = settings.ledger.checkpoint_every

    def run_if_due(self) -> Checkpoint | None:
        """Make a checkpoint if so many entries, or an hour, came since the last one: one look at the database else.

        Raises :class:`~uploadguard.errors.LedgerError`.
        """
        if self._key is None:
            return None
        with self._database.reading() as connection:
            if not self._is_due(connection):
                return None
        return self._make(due=True)

    def run(self) -> Checkpoint | None:
        """Make a checkpoint now; None where nothing came since the last one. Raises as :meth:`run_if_due`, and
        :class:`~uploadguard.errors.ConfigError` where there is no key."""
        if self._key is None:
            raise ConfigError("ledger.signing_key_file is not set; `uploadguard audit newkey FILE` makes a key")
        return self._make(due=False)

    def _is_due(self, connection: Connection, *, at_all: bool = False) -> bool:
        latest = _latest(connection)
        head = connection.execute(sa.select(schema.audit_head.c.seq).where(schema.audit_head.c.id == 1)).scalar()
        since = (head or 0) - (latest.seq if latest is not None else 0)
        if since == 0:
            return False
        # A last one from the future is of a clock that was set right since.
        return at_all or latest is None or since >= self._every_entries or abs(datetime.now(UTC) - latest.at) >= _EVERY

    def _make(self, *, due: bool) -> Checkpoint | None:
        assert self._key is not None
        with self._database.writing() as connection:
            if not self._is_due(connection, at_all=not due):
                return None
            latest = _latest(connection)
            seq = audit.append(
                connection,
                "system",
                ACTION,
                "audit",
                key=self._key.public.id,
                previous=latest.seq if latest is not None else 0,
            )
            digest = connection.execute(sa.select(schema.audit.c.digest).where(schema.audit.c.seq == seq)).scalar_one()
            made = self._key.sign(seq, digest, datetime.now(UTC), latest.link if latest is not None else b"")
            connection.execute(
                sa.insert(schema.audit_checkpoints).values(
                    seq=made.seq,
                    digest=made.digest,
                    at=made.at,
                    key_id=made.key_id,
                    previous=made.previous,
                    signature=made.signature,
                )
            )
        return made


def _latest(connection: Connection) -> Checkpoint | None:
    columns = schema.audit_checkpoints.c
    seq = connection.execute(sa.select(sa.func.max(columns.seq))).scalar()
    if seq is None:
        return None
    found = load_checkpoints(connection, seq, seq)
    if len(found) == 1 and isinstance(found[0], Checkpoint):
        return found[0]
    raise AuditError("the last checkpoint of the audit log is damaged; `uploadguard audit verify` says more")


def read_checkpoints(path: Path) -> list[Checkpoint]:
    """The checkpoints in a file of :func:`export_checkpoints`. Raises :class:`~uploadguard.errors.AuditError`."""
    found: list[Checkpoint] = []
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                try:
                    found.append(parse_checkpoint(json.loads(line)["checkpoint"]))
                except (ValueError, TypeError, KeyError, RecursionError):
                    raise AuditError(f"{path}:{number}: is not a checkpoint of an audit log") from None
    except OSError as error:
        raise AuditError(f"{path}: cannot be read: {error.strerror}") from None
    return found


def export_checkpoints(checkpoints: Sequence[Checkpoint], path: Path) -> int:
    """Add those that a file does not have yet to its end, and make it last; returns how many.

    Raises :class:`~uploadguard.errors.AuditError` where the file has others for the same entries, or later ones: they
    are not of this log, or this log was changed.
    """
    have = {one.seq: one for one in read_checkpoints(path)} if path.exists() else {}
    ours = {one.seq: one for one in checkpoints}
    if any(ours.get(seq) != one for seq, one in have.items()):
        raise AuditError(f"{path}: holds checkpoints that this log has not; `uploadguard audit verify` says more")
    added = [one for one in checkpoints if one.seq not in have]
    data = "".join(f"{checkpoint_line(one)}\n" for one in added).encode("ascii")
    try:
        _append(path, data)
    except OSError as error:
        raise AuditError(f"{path}: cannot be written: {error.strerror}") from None
    return len(added)


def _append(path: Path, data: bytes) -> None:
    """All of it or nothing."""
    with path.open("ab", buffering=0) as file:
        size_bytes = file.seek(0, os.SEEK_END)
        try:
            if file.write(data) != len(data):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(file.fileno())
        except OSError:
            file.truncate(size_bytes)
            raise
    sync_directory(path.parent)
