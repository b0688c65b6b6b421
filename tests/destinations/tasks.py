"""Made-up tasks."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any

from uploadguard.actions import Occasion, State, Task
from uploadguard.models import Context, Decision, Hash, Match, Media, Verdict

AT = datetime(2026, 3, 1, 12, 30, tzinfo=UTC)
SHA256 = bytes(range(32))
HASHES = (Hash("md5", SHA256[:16]), Hash("sha1", SHA256[:20]), Hash("sha256", SHA256), Hash("pdq", SHA256, quality=80))
MATCH = Match("made-up", "entry-1", "A1", "sha256", 0, exact=True, fields={"md5": SHA256[:16].hex()})
CONTEXT = Context(
    uploader="somebody",
    filename="a.jpg",
    ip="192.0.2.7",
    port=4711,
    object_id="obj-1",
    url="https://images.example/obj-1",
    uploaded_at=datetime(2026, 3, 1, 12, 0, tzinfo=UTC),
)


def made_up_decision(**changes: Any) -> Decision:
    values: dict[str, Any] = {
        "verdict": Verdict.BLOCK,
        "reasons": ("digest_match",),
        "matches": (MATCH,),
        "failures": (),
        "hashes": HASHES,
        "media": Media(1234, "image/jpeg", 640, 480, frames_total=1, frames_hashed=1),
        "generation": 7,
        "report_due": True,
        "timings_ms": {"total": 12.5},
        "reference": "a-reference",
    }
    return Decision(**{**values, **changes})


def made_up_task(**changes: Any) -> Task:
    values: dict[str, Any] = {
        "id": 1,
        "key": str(uuid.uuid4()),
        "action": "example",
        "occasion": Occasion.REPORT,
        "state": State.PENDING,
        "decision": made_up_decision(),
        "context": CONTEXT,
        "decided_at": AT,
        "created_at": AT,
    }
    return Task(**{**values, **changes})
