"""A task as JSON, for receivers that are the host's own: files and webhooks write the same."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from uploadguard.actions import Task
from uploadguard.ledger.codec import to_record

__all__ = ["SCHEMA", "task_body", "task_json"]

SCHEMA = 1
"""The version of the body. Fields may be added to it; when one changes its meaning or goes, this goes up."""


def task_body(task: Task, *, hashes: bool) -> dict[str, Any]:
    """The body, the same in each attempt. Without ``hashes``, no hash of the upload, and no fields of list entries."""
    record = to_record(task.decision, task.context, task.decided_at)
    context = record.pop("context")
    if not hashes:
        del record["hashes"]
        for match in record["matches"]:
            del match["fields"]  # lists keep other hashes of the same picture there
    return {
        "schema": SCHEMA,
        "type": f"uploadguard.{task.occasion}",
        "timestamp": _text(task.created_at),
        "data": {
            "key": task.key,
            "case_id": task.case_id,
            "confirmed_at": _text(task.confirmed_at),
            "viewed": task.viewed,
            "due_at": _text(task.due_at),
            "decision": record,
            "context": context,
        },
    }


def task_json(task: Task, *, hashes: bool) -> bytes:
    """:func:`task_body` as one line of JSON in ASCII, without its line end."""
    return json.dumps(task_body(task, hashes=hashes), separators=(",", ":"), allow_nan=False).encode("ascii")


def _text(at: datetime | None) -> str | None:
    return None if at is None else at.astimezone(UTC).isoformat()
