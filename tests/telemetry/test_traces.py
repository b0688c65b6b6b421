"""OpenTelemetry spans, through the SDK that a host would use."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from uploadguard import Guard
from uploadguard.hashset import HashSet
from uploadguard.signals.base import lookup_kinds
from uploadguard.signals.digests import DIGESTS
from uploadguard.signals.pdq import Pdq
from uploadguard.testing import picture, testlist


@pytest.fixture(scope="module")
def exporter() -> InMemorySpanExporter:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    trace.set_tracer_provider(provider)  # can be set once in a process only
    return exporter


async def _check(guard: Guard, way: str) -> None:
    data = picture.unrelated_picture()
    if way == "check":
        guard.check(data)
    else:
        await guard.acheck(data)


@pytest.mark.parametrize("way", ["check", "acheck"])
def test_a_check_is_a_span_with_its_stages_below_the_hosts_own(
    tmp_path: Path, exporter: InMemorySpanExporter, way: str
) -> None:
    exporter.clear()
    HashSet.create(tmp_path / "set").add_list("a", testlist.entries(), lookup_kinds((*DIGESTS, Pdq())))

    async def upload(guard: Guard) -> None:
        with trace.get_tracer("host").start_as_current_span("upload"):
            await _check(guard, way)

    options = {"telemetry": {"traces": True}, "sandbox": {"isolation": "none"}}
    with Guard.open(hashset=tmp_path / "set", **options) as guard:
        asyncio.run(upload(guard))
    spans = {span.name: span for span in exporter.get_finished_spans()}
    check = spans["uploadguard.check"]
    assert check.attributes is not None
    assert check.attributes["uploadguard.verdict"] == "allow"
    assert check.attributes["uploadguard.media_type"] == "image/jpeg"
    assert check.parent is not None
    assert check.parent.span_id == spans["upload"].context.span_id
    for stage in ("digests", "decode", "pdq", "match"):
        span = spans[f"uploadguard.{stage}"]
        assert span.parent is not None
        assert span.parent.span_id == check.context.span_id
        assert check.start_time <= span.start_time <= span.end_time  # type: ignore[operator]
    assert "uploadguard.total" not in spans
