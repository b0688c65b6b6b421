"""The suites for signal types find what is broken: for each of their tests, signal types that must not pass it."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.testing.broken_pixels import PIXELS
from tests.testing.broken_signals import DIGESTS, SIGNALS, Sound, SoundDigest
from uploadguard._native import _kernel
from uploadguard.hashset.metadata import SignalInfo
from uploadguard.signals.digests import Digest
from uploadguard.testing.conformance import DigestSignalConformance, PixelSignalConformance, SignalTypeConformance
from uploadguard.testing.conformance.signals import HAMMING_LENGTHS_BYTES, MAX_LENGTH_BYTES


def suite_for(kind: type[SignalTypeConformance], signal: Any) -> SignalTypeConformance:
    suite: SignalTypeConformance = type("Suite", (kind,), {"make": lambda self: signal()})()
    return suite


CASES = [
    *((SignalTypeConformance, *case) for case in SIGNALS),
    *((DigestSignalConformance, *case) for case in DIGESTS),
    *((PixelSignalConformance, *case) for case in PIXELS),
]


@pytest.mark.parametrize(
    ("kind", "test", "broken", "message"), CASES, ids=[f"{case[1]}-{case[2].__name__}" for case in CASES]
)
def test_what_is_broken_fails(kind: type[SignalTypeConformance], test: str, broken: Any, message: str) -> None:
    with pytest.raises((pytest.fail.Exception, AssertionError, AttributeError), match=message):
        getattr(suite_for(kind, broken), test)()


@pytest.mark.parametrize("kind", [SignalTypeConformance, DigestSignalConformance, PixelSignalConformance])
def test_every_test_of_the_suites_has_a_broken_case(kind: type[SignalTypeConformance]) -> None:
    tests = {name for name in dir(kind) if name.startswith("test_")}
    assert len(tests) > 10
    assert tests <= {test for suite, test, *_ in CASES if issubclass(kind, suite)}


@pytest.mark.parametrize("test", sorted(name for name in dir(SignalTypeConformance) if name.startswith("test_")))
def test_what_is_sound_passes(test: str) -> None:
    getattr(suite_for(SignalTypeConformance, Sound), test)()


@pytest.mark.parametrize("test", sorted(name for name in dir(DigestSignalConformance) if name.startswith("test_")))
def test_a_sound_digest_passes(test: str) -> None:
    getattr(suite_for(DigestSignalConformance, SoundDigest), test)()


def test_the_limits_are_those_of_the_hash_set() -> None:
    SignalInfo(kind="exact", length_bytes=MAX_LENGTH_BYTES, count=0)
    with pytest.raises(ValueError, match="length_bytes"):
        SignalInfo(kind="exact", length_bytes=MAX_LENGTH_BYTES + 1, count=0)
    for length in range(1, 65):
        if length in HAMMING_LENGTHS_BYTES:
            _kernel.hamming_scan(bytes(length), length, bytes(length), 0)
        else:
            with pytest.raises(ValueError, match="not supported"):
                _kernel.hamming_scan(bytes(length), length, bytes(length), 0)


def test_base64_is_no_hex() -> None:
    class Base64(Sound):
        def parse(self, text: str) -> bytes:
            try:
                value = base64.b64decode(text.encode("ascii"), validate=True)
            except ValueError:
                raise ValueError("not base64") from None
            if len(value) != 32:
                raise ValueError(f"{len(value)} bytes instead of 32")
            return value

        def format(self, value: bytes) -> str:
            return base64.b64encode(value).decode()

    suite = suite_for(SignalTypeConformance, Base64)
    with pytest.raises(pytest.fail.Exception, match=r"another value|refused"):
        suite.test_hex_is_read_in_either_case()
    suite.text_is_hex = False
    for name in dir(suite):
        if name.startswith("test_"):
            getattr(suite, name)()


def test_digests_of_the_standard_library_share_the_suite() -> None:
    suite = suite_for(DigestSignalConformance, lambda: Digest("sha512", 64))
    suite.test_its_hashes_fit_the_hash_set()
