"""How ``uploadguard cases`` prints a case: as tables and as JSON. Hashes only where they were asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from uploadguard.cli.output import echo, new_table, print_table, size_text
from uploadguard.cli.times import iso_time, time_text
from uploadguard.provenance import provenance

if TYPE_CHECKING:
    from uploadguard.ledger.cases import Case, CaseDetail, CaseUpload, Feedback
    from uploadguard.models import Match

__all__ = ["case_record", "case_row", "detail_record", "feedback_record", "print_detail"]


def case_row(case: Case) -> list[object]:
    """A row of a listing."""
    status = f"{case.status}{', escalated' if case.escalated else ''}"
    return [
        case.id,
        status,
        time_text(case.opened_at),
        case.verdict,
        case.reason,
        case.uploads,
        case.uploader or "",
        case.claimed_by or "",
    ]


def case_record(case: Case) -> dict[str, Any]:
    """A case as JSON types."""
    return {
        "case": case.id,
        "status": case.status.value,
        "opened": iso_time(case.opened_at),
        "updated": iso_time(case.updated_at),
        "verdict": case.verdict,
        "reason": case.reason,
        "tenant": case.tenant,
        "uploader": case.uploader,
        "uploads": case.uploads,
        "claimed_by": case.claimed_by,
        "claimed": iso_time(case.claimed_at),
        "proposed": case.proposed,
        "proposed_by": case.proposed_by,
        "escalated": case.escalated,
        "viewed": case.viewed,
        "decided_by": case.decided_by,
        "decided": iso_time(case.decided_at),
        "round": case.round,
        "legal_hold": case.legal_hold,
    }


def detail_record(detail: CaseDetail, *, hashes: bool) -> dict[str, Any]:
    """A case with all that belongs to it as JSON types."""
    return {
        **case_record(detail.case),
        "shown_uploads": [_upload_record(upload, hashes=hashes) for upload in detail.uploads],
        "events": [
            {"at": iso_time(event.at), "actor": event.actor, "kind": event.kind, "note": event.note}
            for event in detail.events
        ],
        "tasks": [
            {
                "task": task.id,
                "action": task.action,
                "occasion": task.occasion.value,
                "state": task.state.value,
                "decision": task.decision_id,
                "due": iso_time(task.due_at),
                "remote_id": task.remote_id,
                "cancelled": task.cancelled,
                "late": task.late,
            }
            for task in detail.tasks
        ],
    }


def _upload_record(upload: CaseUpload, *, hashes: bool) -> dict[str, Any]:
    context, evidence = upload.recorded.context, upload.evidence
    return {
        "decision": upload.decision_id,
        "decided": iso_time(upload.recorded.decided_at),
        **upload.recorded.decision.to_dict(include_hashes=hashes),
        "object_id": context.object_id,
        "filename": context.filename,
        "evidence": {
            "size_bytes": evidence.size_bytes,
            "media_type": evidence.media_type,
            "keep_until": iso_time(evidence.keep_until),
            "destroyed": iso_time(evidence.destroyed_at),
        }
        if evidence is not None
        else None,
    }


def feedback_record(one: Feedback) -> dict[str, Any]:
    """Feedback as JSON types."""
    return {
        "id": one.id,
        "list": one.list_name,
        "entry_id": one.entry_id,
        "opinion": one.opinion,
        "case": one.case_id,
        "actor": one.actor,
        "at": iso_time(one.at),
        "sent": iso_time(one.sent_at),
    }


def print_detail(detail: CaseDetail, *, hashes: bool) -> None:
    """Print a case as tables."""
    case = detail.case
    rows: list[tuple[str, object]] = [
        ("status", f"{case.status}{', escalated' if case.escalated else ''}"),
        ("opened", time_text(case.opened_at)),
        ("verdict", case.verdict),
        ("reason", case.reason),
        *((name, value) for name in ("tenant", "uploader") if (value := getattr(case, name)) is not None),
        ("uploads", f"{case.uploads:,}"),
        *([("claimed by", f"{case.claimed_by}, {time_text(case.claimed_at)}")] if case.claimed_by is not None else []),
        *([("proposed", f"to {case.proposed} it, by {case.proposed_by}")] if case.proposed is not None else []),
        *([("decided by", f"{case.decided_by}, {time_text(case.decided_at)}")] if case.decided_by is not None else []),
        *([("round", case.round)] if case.round > 1 else []),
        ("viewed", "yes" if case.viewed else "no"),
        *([("legal hold", "yes")] if case.legal_hold else []),
    ]
    print_table(new_table("Case", str(case.id), fold=[str(case.id)]), rows)
    for upload in detail.uploads:
        echo()
        _print_upload(upload, hashes=hashes)
    if len(detail.uploads) < case.uploads:
        echo(f"\nand {case.uploads - len(detail.uploads):,} uploads more")
    if detail.events:
        echo()
        events = ([time_text(one.at), one.actor, one.kind, one.note] for one in detail.events)
        print_table(new_table("When", "Who", "What", "Note", fold=["Note"]), events)
    if detail.tasks:
        echo()
        table = new_table("Task", "Action", "For", "State", "Decision", "Deadline", right=["Task", "Decision"])
        print_table(
            table,
            (
                [
                    one.id,
                    one.action,
                    one.occasion.value,
                    f"{one.state.value}{', to be retracted' if one.cancelled and one.state.is_open else ''}",
                    one.decision_id,
                    f"{time_text(one.due_at)}{' late' if one.late else ''}",
                ]
                for one in detail.tasks
            ),
        )


def _print_upload(upload: CaseUpload, *, hashes: bool) -> None:
    decision, context, evidence = upload.recorded.decision, upload.recorded.context, upload.evidence
    media = decision.media
    size = f"{media.width}x{media.height}, " if media.width is not None else ""
    kept = "no"
    if evidence is not None:
        kept = f"until {time_text(evidence.keep_until)}" if evidence.keep_until is not None else "yes"
        kept = f"destroyed {time_text(evidence.destroyed_at)}" if evidence.destroyed_at is not None else kept
    timings = ", ".join(f"{stage} {ms:.1f}" for stage, ms in decision.timings_ms.items())
    rows: list[tuple[str, object]] = [
        ("reference", decision.reference),
        ("uploaded", time_text(context.uploaded_at or upload.recorded.decided_at)),
        *([("object", context.object_id)] if context.object_id is not None else []),
        *([("file name", context.filename)] if context.filename is not None else []),
        ("verdict", f"{decision.verdict.label}: {', '.join(decision.reasons)}"),
        ("media", f"{media.media_type or 'unknown type'}, {size}{size_text(media.size_bytes)}"),
        *([("in shadow mode", f"would be {decision.shadow.label}")] if decision.shadow is not None else []),
        *(row for one in decision.matches for row in _match_rows(one)),
        *(("failure", f"{one.code.value}: {one.detail}") for one in decision.failures),
        *([("timings", f"{timings} ms")] if timings else []),
        ("preserved", kept),
    ]
    if hashes:
        rows += [
            (f"{one.signal_type} hash", f"{one.value.hex()}, frame {one.frame}, {one.variant}")
            for one in decision.hashes
        ]
    heading = str(upload.decision_id)
    print_table(new_table("Upload", heading, fold=[heading]), rows)


def _match_rows(match: Match) -> Iterator[tuple[str, object]]:
    yield "match", _match_text(match)
    if known := provenance(match):
        yield "  from", "; ".join(f"{what} {said}" for what, said in known)


def _match_text(match: Match) -> str:
    kind, category = "allow-list" if match.allow else "list", f", category {match.category}" if match.category else ""
    where = f"frame {match.frame}, {match.variant}"
    return (
        f"{kind} {match.list_name}, entry {match.entry_id}, {match.signal_type}, {match.distance_bits} bits apart, "
        f"{where}{category}"
    )
