"""What the parts of this plugin hand to one another: an object version, what came of checking it, and the errors.

::

    UploadguardError
    `-- S3Error
        |-- S3Retry     it could not be done now: the event is to be delivered again
        `-- S3Poison    it will never work: a dead letter, for a person to look at

No message or ``repr`` here holds a key, a bucket, a hash or a payload: they may end up in a log.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from typing import Protocol, Self
from urllib.parse import parse_qsl, quote, unquote, urlencode

from uploadguard.errors import UploadguardError
from uploadguard.models import Decision, Verdict

__all__ = ["NO_VERSION", "Checked", "Checks", "ObjectRef", "Outcome", "S3Error", "S3Poison", "S3Retry"]

NO_VERSION = "null"
"""What is called the version of an object that has none, in a bucket that had, or has, versions."""

_URL = re.compile(r"s3://(?P<bucket>[^/?#%\s]+)/(?P<key>[^?#]+)(?:\?(?P<query>[^#]+))?")


@dataclass(frozen=True, slots=True)
class ObjectRef:
    """An object as an event, a listing or a host names it.

    ``key`` is the key itself, in no encoding. ``version_id`` is None where the bucket has no versions; ``etag`` is
    without quotes. ``sequencer`` orders the events of one key, and of no two keys. What is None is not known.
    """

    bucket: str
    key: str
    version_id: str | None = None
    etag: str | None = None
    sequencer: str | None = None
    size_bytes: int | None = None

    def __repr__(self) -> str:
        return "ObjectRef(<redacted>)"

    @property
    def is_fixed(self) -> bool:
        """Whether it names a version that can never be overwritten. The version ``null`` can."""
        return self.version_id not in (None, NO_VERSION)

    @property
    def url(self) -> str:
        """It as text, ``s3://bucket/key?versionId=...``; where no version is fixed, with its ETag."""
        names = {"versionId": self.version_id, "etag": None if self.is_fixed else self.etag}
        query = urlencode({name: value for name, value in names.items() if value is not None})
        return f"s3://{self.bucket}/{quote(self.key)}" + (f"?{query}" if query else "")

    @classmethod
    def from_url(cls, url: str) -> Self:
        """What :attr:`url` gave. Raises ``ValueError``, without the text, for all else."""
        match = _URL.fullmatch(url)
        if match is None:
            raise ValueError("not the URL of an object of S3")
        try:
            key = unquote(match["key"], errors="strict")
            found = dict(parse_qsl(match["query"] or "", strict_parsing=bool(match["query"]), errors="strict"))
        except ValueError:
            raise ValueError("not the URL of an object of S3") from None
        ref = cls(match["bucket"], key, found.pop("versionId", None), found.pop("etag", None))
        if found or ref.url != url:
            raise ValueError("not the URL of an object of S3")
        return ref


class Outcome(enum.StrEnum):
    """What came of one object version. Stable: they are stored, and labels of metrics."""

    ALLOWED = "allowed"
    QUEUED = "queued"
    BLOCKED = "blocked"
    NOT_SCANNED = "not_scanned"
    GONE = "gone"
    """Deleted or overwritten before it could be checked; what overwrote it has an event of its own."""
    SKIPPED = "skipped"
    """Not to be checked: no media by its key, under no prefix that is checked, or this plugin's own doing."""
    DUPLICATE = "duplicate"
    """This version was checked, and all that its verdict asked for was done, before."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What came of one object version.

    ``ref`` is the version as it was found. ``decision`` is None where none was made now; ``verdict`` and ``reference``
    are there of earlier ones too. ``effects`` names what was done now, in order: ``tagged``, ``quarantined``,
    ``promoted``, ``superseded`` (in place of that: a newer version is there), ``deleted``. ``published`` is the public
    copy, where one was made.
    """

    ref: ObjectRef
    outcome: Outcome
    decision: Decision | None = None
    effects: tuple[str, ...] = ()
    verdict: Verdict | None = None
    reference: str | None = None
    published: ObjectRef | None = None


class Checks(Protocol):
    """What :class:`~uploadguard_s3.checker.ObjectChecker` does, for those who hand it events."""

    async def check(self, ref: ObjectRef) -> Checked:
        """Check one object version, and do what its verdict asks for, once. Raises :class:`S3Error`."""
        ...


class S3Error(UploadguardError):
    """An object could not be dealt with. ``reason`` is one sentence without key, hash or payload."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class S3Retry(S3Error):
    """Not now: have the event delivered again. ``after_s`` is the least wait, where one was asked for."""

    def __init__(self, reason: str, *, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


class S3Poison(S3Error):
    """Never: trying again changes nothing, a person must look."""
