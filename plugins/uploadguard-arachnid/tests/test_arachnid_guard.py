"""Whole checks of a picture: by its hashes, and with the file itself."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from arachnid_stubs import table
from PIL import Image, ImageOps

import uploadguard_arachnid
from uploadguard import FailureCode, Guard, Verdict
from uploadguard.hashset import HashSet
from uploadguard.testing import fakes
from uploadguard.testing.fakes.arachnid import FakeArachnid


def jpeg(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "JPEG", quality=90)
    return out.getvalue()


@pytest.fixture(scope="module")
def drawn() -> Image.Image:
    """A picture with enough in it to be hashed."""
    mandelbrot = Image.effect_mandelbrot((640, 480), (-2.2, -1.1, 0.7, 1.2), 60).convert("RGB")
    return ImageOps.autocontrast(mandelbrot)


@pytest.fixture
def opened(fake: FakeArachnid, tmp_path: Path) -> Iterator[Callable[..., Guard]]:
    HashSet.create(tmp_path / "hashset")
    with ExitStack() as stack:

        def make(**options: Any) -> Guard:
            guard = Guard.open(
                hashset={"path": tmp_path / "hashset", "allow_empty": True},
                sandbox={"isolation": "none"},
                matchers={"shield": table(fake.url, **options)},
                plugins={"arachnid": uploadguard_arachnid},
            )
            return stack.enter_context(guard)

        yield make


def test_a_near_match_is_queued_even_if_mirrored(
    fake: FakeArachnid, opened: Callable[..., Guard], drawn: Image.Image
) -> None:
    guard = opened()
    clean = guard.check(jpeg(drawn))
    assert clean.verdict is Verdict.ALLOW
    [value] = [item.value for item in clean.hashes if item.signal_type == "pdq" and item.variant == "original"]
    fake.add_pdq(value)
    mirrored = guard.check(jpeg(ImageOps.mirror(drawn)))
    assert (mirrored.verdict, mirrored.report_due) == (Verdict.QUEUE, False)
    assert {match.list_name for match in mirrored.matches} == {"shield"}
    assert all(request.path == "/v1/pdq/" for request in fake.requests)


def test_an_exact_match_is_blocked_and_reported(
    fake: FakeArachnid, opened: Callable[..., Guard], drawn: Image.Image
) -> None:
    content = jpeg(drawn)
    guard = opened(send="media", block=["csam"])
    assert guard.check(jpeg(drawn.resize((320, 240)))).verdict is Verdict.ALLOW
    fake.add_media(content)
    decision = guard.check(content)
    assert (decision.verdict, decision.report_due) == (Verdict.BLOCK, True)


def test_what_need_not_be_illegal_is_queued_without_a_report(
    fake: FakeArachnid, opened: Callable[..., Guard], drawn: Image.Image
) -> None:
    content = jpeg(drawn)
    fake.add_media(content, classification="harmful-abusive-material")
    decision = opened(send="media").check(content)
    assert (decision.verdict, decision.report_due) == (Verdict.QUEUE, False)


@pytest.mark.parametrize("send", ["pdq", "media"])
@pytest.mark.parametrize(
    "kind",
    [fakes.Status(401), fakes.throttled(9), fakes.Garbage(b"{}"), fakes.Garbage(b""), fakes.HalfClosed()],
    ids=repr,
)
def test_no_failure_counts_as_clean(
    fake: FakeArachnid, opened: Callable[..., Guard], drawn: Image.Image, kind: fakes.Misbehaviour, send: str
) -> None:
    fake.misbehave(kind, times=None)
    decision = opened(send=send).check(jpeg(drawn))
    assert decision.verdict is Verdict.QUEUE
    assert [failure.code for failure in decision.failures] == [FailureCode.MATCHER_FAILED]
