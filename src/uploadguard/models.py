"""What goes into a check and what comes out of it: frozen values, no I/O.

Hashes are ``bytes`` inside and hex only at the edges. No ``repr`` here shows a hash, a list's name or an uploader:
a decision may end up in a traceback or a log line.
"""

from __future__ import annotations

import enum
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from uploadguard.errors import UploadRefused

__all__ = ["Context", "Decision", "Failure", "FailureCode", "Hash", "Match", "Media", "Verdict"]


class Verdict(enum.IntEnum):
    """The answer to an upload, ordered: ``ALLOW < NOT_SCANNED < QUEUE < BLOCK``."""

    ALLOW = 0
    """Inspected; nothing found."""
    NOT_SCANNED = 1
    """Could not be inspected in full, and nothing was found in the rest. Not the same as clean."""
    QUEUE = 2
    """Keep it unserved until a person decides."""
    BLOCK = 3
    """Do not accept it."""

    @property
    def label(self) -> str:
        """The verdict in configuration, JSON and metrics: ``allow``, ``not_scanned``, ``queue`` or ``block``."""
        return self.name.lower()

    def __str__(self) -> str:
        return self.label

    def __format__(self, spec: str) -> str:
        return format(self.label, spec)

    @classmethod
    def from_label(cls, label: str) -> Verdict:
        """The verdict of that label, in any case. Raises ``ValueError`` naming the four labels."""
        try:
            return cls[label.upper()]
        except KeyError:
            raise ValueError(f"not a verdict: {label!r}; choose allow, not_scanned, queue or block") from None


class FailureCode(enum.StrEnum):
    """Why an upload could not be inspected, in full or at all. Stable: hosts store and count them."""

    EMPTY_FILE = "empty_file"
    TOO_LARGE = "too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNSUPPORTED_FORMAT = "unsupported_format"
    CODEC_REFUSED = "codec_refused"
    DECODE_FAILED = "decode_failed"
    TIMEOUT = "timeout"
    OUT_OF_MEMORY = "out_of_memory"
    DECODER_CRASHED = "decoder_crashed"
    SANDBOX_VIOLATION = "sandbox_violation"
    SANDBOX_FAILED = "sandbox_failed"
    HASH_SET_STALE = "hash_set_stale"
    OVERLOADED = "overloaded"
    TRUNCATED = "truncated"
    TOO_COMPLEX = "too_complex"
    APPENDED_CONTENT = "appended_content"
    POLYGLOT = "polyglot"
    SHOWN_OTHERWISE = "shown_otherwise"
    PICTURES_UNHASHED = "pictures_unhashed"
    LOW_QUALITY = "low_quality"
    FRAMES_OVER_BUDGET = "frames_over_budget"
    FRAMES_SAMPLED = "frames_sampled"
    SIGNAL_FAILED = "signal_failed"
    PLUGIN_FAILED = "plugin_failed"
    MATCHER_FAILED = "matcher_failed"
    CONTENT_UNSEEN = "content_unseen"


@dataclass(frozen=True, slots=True)
class Context:
    """What the host knows of an upload. All optional; only ``tenant`` changes a decision (its policy overrides).

    ``uploader``, ``ip`` (with ``port``, of the uploader's side) and ``uploaded_at`` (by default the time of the check;
    give it a zone) go into reports. ``object_id`` is the host's own name for the stored upload: actions and reviews
    get it back, to release, delete or show it. ``url`` is where it is, or would be, served. ``extra`` holds JSON
    values; of these, ``email``, ``screen_name`` and ``profile_url`` go into reports that have a place for them.
    """

    filename: str | None = None
    uploader: str | None = None
    ip: str | None = None
    port: int | None = None
    tenant: str | None = None
    object_id: str | None = None
    url: str | None = None
    uploaded_at: datetime | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        return "Context(<redacted>)"


@dataclass(frozen=True, slots=True)
class Hash:
    """One hash of one upload.

    ``value`` is the raw hash; for PDQ 32 bytes in the order of the reference's hex. ``quality`` is 0 to 100, or None
    for signal types without one. ``variant`` names the form of the picture it belongs to (``original`` or one of the
    dihedral forms); for another face of the frame, that face's name and a dot go before it: ``thumbnail.original``.
    ``frame`` counts from 0.
    """

    signal_type: str
    value: bytes
    quality: int | None = None
    variant: str = "original"
    frame: int = 0

    def __repr__(self) -> str:
        return (
            f"Hash({self.signal_type}, <redacted>, quality={self.quality}, variant={self.variant}, frame={self.frame})"
        )


@dataclass(frozen=True, slots=True)
class Match:
    """One entry of a hash list that an upload matches.

    ``distance_bits`` is the Hamming distance, 0 for an exact match. ``allow`` says that the list is an allow-list.

    Where it comes from: ``source`` is the name of the file, or whatever else the import was of that brought the entry,
    and ``listed_at`` when that was; where imports were merged, the latest's name and the first one's time.
    ``updated_at`` is when the list was last imported or updated. UTC; None for a match service. ``fields`` holds what
    else the list says of the entry.
    """

    list_name: str
    entry_id: str
    category: str | None
    signal_type: str
    distance_bits: int
    variant: str = "original"
    frame: int = 0
    exact: bool = False
    allow: bool = False
    fields: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""
    listed_at: datetime | None = None
    updated_at: datetime | None = None

    @property
    def face(self) -> str:
        """Which face of the frame matched: empty for the frame itself, else ``thumbnail``, ``bare``, ..."""
        return self.variant.rpartition(".")[0]

    def __repr__(self) -> str:
        return (
            f"Match({self.signal_type}, distance_bits={self.distance_bits}, variant={self.variant}, frame={self.frame})"
        )

    def to_dict(self) -> dict[str, Any]:
        """The match as JSON types. For the operator: it names the list and the entry."""
        return {
            "list": self.list_name,
            "entry_id": self.entry_id,
            "category": self.category,
            "signal_type": self.signal_type,
            "distance_bits": self.distance_bits,
            "variant": self.variant,
            "frame": self.frame,
            "exact": self.exact,
            "allow": self.allow,
            "fields": dict(self.fields),
            "source": self.source,
            "listed_at": self.listed_at.isoformat() if self.listed_at is not None else None,
            "updated_at": self.updated_at.isoformat() if self.updated_at is not None else None,
        }


@dataclass(frozen=True, slots=True)
class Failure:
    """One thing that could not be inspected. ``detail`` is one sentence for the operator and holds no payload.

    ``matcher`` names the match service that failed, where one did.
    """

    code: FailureCode
    detail: str
    frame: int | None = None
    matcher: str | None = None


@dataclass(frozen=True, slots=True)
class Media:
    """What was learnt about the upload itself.

    ``width`` and ``height`` are in pixels as stored, before any EXIF rotation; None where no header could be read.
    ``orientation`` is the EXIF value 1 to 8. ``scale`` says at which fraction the pixels were decoded: 4 is a quarter.
    """

    size_bytes: int
    media_type: str | None = None
    width: int | None = None
    height: int | None = None
    orientation: int = 1
    scale: int = 1
    decoder: str | None = None
    frames_total: int = 0
    frames_hashed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """The facts as JSON types."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Decision:
    """The verdict on one upload, with its evidence.

    ``reasons`` are stable codes, the weightiest first. ``report_due`` says that a rule asks for a report.
    ``reference`` is a random name for this decision that may be shown to an uploader. ``timings_ms`` is wall-clock
    milliseconds by stage; stages that ran side by side overlap, ``total`` is the whole check.

    ``shadow`` is the verdict that there would have been without shadow mode; None where none is in force or it would
    have been the same. ``pending`` names the match services whose answer is still to come
    (:func:`~uploadguard.hookspecs.uploadguard_decision_revised`); ``revises`` is the reference of the decision that
    this one, made when the answer was there, takes the place of.
    """

    verdict: Verdict
    reasons: tuple[str, ...]
    matches: tuple[Match, ...]
    failures: tuple[Failure, ...]
    hashes: tuple[Hash, ...]
    media: Media
    generation: int
    report_due: bool = False
    timings_ms: Mapping[str, float] = field(default_factory=dict)
    reference: str = field(default_factory=lambda: secrets.token_urlsafe(12))
    shadow: Verdict | None = None
    pending: tuple[str, ...] = ()
    revises: str | None = None

    def __repr__(self) -> str:
        return f"Decision({self.verdict.label}, reference={self.reference})"

    @property
    def allowed(self) -> bool:
        """True only for ``ALLOW``: inspected and nothing found."""
        return self.verdict is Verdict.ALLOW

    def raise_for_verdict(self, *, at_least: Verdict = Verdict.QUEUE) -> None:
        """Raise :class:`~uploadguard.errors.UploadRefused` if the verdict is ``at_least`` or above."""
        if self.verdict >= at_least:
            raise UploadRefused(self)

    def to_dict(self, *, include_hashes: bool = False) -> dict[str, Any]:
        """The decision as JSON types, for the operator's store. Hashes, as hex, only when asked for."""
        record: dict[str, Any] = {
            "reference": self.reference,
            "verdict": self.verdict.label,
            "reasons": list(self.reasons),
            "report_due": self.report_due,
            "generation": self.generation,
            "matches": [match.to_dict() for match in self.matches],
            "failures": [
                {"code": f.code.value, "detail": f.detail, "frame": f.frame, "matcher": f.matcher}
                for f in self.failures
            ],
            "media": self.media.to_dict(),
            "timings_ms": {stage: round(ms, 3) for stage, ms in self.timings_ms.items()},
            "shadow": self.shadow.label if self.shadow is not None else None,
            "pending": list(self.pending),
            "revises": self.revises,
        }
        if include_hashes:
            record["hashes"] = [
                {
                    "signal_type": h.signal_type,
                    "value": h.value.hex(),
                    "quality": h.quality,
                    "variant": h.variant,
                    "frame": h.frame,
                }
                for h in self.hashes
            ]
        return record

    def to_json(self, *, include_hashes: bool = False) -> str:
        """:meth:`to_dict` as one line of JSON."""
        return json.dumps(self.to_dict(include_hashes=include_hashes), ensure_ascii=False)
