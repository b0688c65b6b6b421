"""OpenTelemetry spans, through its API package alone (extra ``traces``): the host chooses what exports them.

A check is one span with a child for each stage, made when the decision is final. How long each stage took is known, and
not when it began, so all children begin with the check. Attributes hold no hash, no list's name and nothing of the
uploader's.
"""

from __future__ import annotations

import time
from typing import Any

from uploadguard.errors import ConfigError
from uploadguard.hookspecs import hookimpl
from uploadguard.models import Decision

__all__ = ["Traces"]


class Traces:
    """A plugin that makes a span of every check.

    Raises :class:`~uploadguard.errors.ConfigError` if opentelemetry-api is not installed.
    """

    def __init__(self) -> None:
        try:
            from opentelemetry import trace
        except ImportError as error:
            raise ConfigError(
                "telemetry.traces needs the opentelemetry-api package: pip install 'uploadguard[traces]'"
            ) from error
        self._trace = trace
        self._tracer: Any = trace.get_tracer("uploadguard")

    @hookimpl
    def uploadguard_decision_made(self, decision: Decision) -> None:
        """One span for the check, one below it for each stage."""
        ended_ns = time.time_ns()
        total_ms = decision.timings_ms.get("total", 0.0)
        started_ns = ended_ns - int(total_ms * 1e6)
        span = self._tracer.start_span("uploadguard.check", start_time=started_ns)
        if span.is_recording():
            media = decision.media
            span.set_attributes(
                {
                    "uploadguard.verdict": decision.verdict.label,
                    "uploadguard.reasons": list(decision.reasons),
                    "uploadguard.failures": [failure.code.value for failure in decision.failures],
                    "uploadguard.generation": decision.generation,
                    "uploadguard.size_bytes": media.size_bytes,
                    "uploadguard.media_type": media.media_type or "unknown",
                }
            )
            within = self._trace.set_span_in_context(span)
            for stage, ms in decision.timings_ms.items():
                if stage != "total":
                    child = self._tracer.start_span(f"uploadguard.{stage}", context=within, start_time=started_ns)
                    child.end(started_ns + int(ms * 1e6))
        span.end(ended_ns)
