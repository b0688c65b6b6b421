"""A decision in words."""

from __future__ import annotations

from collections.abc import Iterator

from uploadguard.models import Decision, Match
from uploadguard.provenance import provenance

__all__ = ["explain"]


def explain(decision: Decision) -> str:
    """The decision in words, for the operator's log. Names lists and entries: never show it to the uploader."""
    lines = [f"{decision.reference}: {decision.verdict.label}, generation {decision.generation}"]
    if decision.reasons:
        lines.append(f"  because: {', '.join(decision.reasons)}")
    if decision.report_due:
        lines.append("  a report is due")
    if decision.shadow is not None:
        lines.append(f"  {decision.shadow.label} but for shadow mode")
    for match in decision.matches:
        lines.extend(_match_lines(match))
    lines.extend(f"  {failure.code.value}: {failure.detail}" for failure in decision.failures)
    media = decision.media
    if media.media_type is not None:
        lines.append(
            f"  {media.media_type}, {media.width}x{media.height}, {media.size_bytes} bytes, "
            f"{media.frames_hashed} of {media.frames_total} frames hashed"
        )
    return "\n".join(lines)


def _match_lines(match: Match) -> Iterator[str]:
    kind = "allow-list" if match.allow else "list"
    where = f"frame {match.frame}, {match.variant}" if not match.exact else "the file's own bytes"
    category = f", category {match.category!r}" if match.category else ""
    yield (
        f"  {match.signal_type} match in {kind} {match.list_name!r}, entry {match.entry_id!r}{category}: "
        f"{match.distance_bits} bits apart ({where})"
    )
    if known := provenance(match):
        yield f"    {'; '.join(f'{what} {said}' for what, said in known)}"
