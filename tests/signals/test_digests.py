"""Digests in one pass against hashlib."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from uploadguard.signals.base import DigestSignal
from uploadguard.signals.digests import DIGESTS, MultiDigest


@given(st.lists(st.binary(max_size=2000), max_size=5))
def test_any_split_gives_the_digests_of_the_whole(parts: list[bytes]) -> None:
    digest = MultiDigest(DIGESTS)
    for part in parts:
        digest.update(part)
    whole = b"".join(parts)
    assert digest.digests() == [(name, hashlib.new(name, whole).digest()) for name in ("md5", "sha1", "sha256")]
    assert digest.size_bytes == len(whole)


def test_chunks_and_views_are_taken_whole() -> None:
    data = bytes(range(256)) * 4000
    digest = MultiDigest(DIGESTS)
    digest.update(memoryview(data).cast("I"))
    assert digest.digests()[2][1] == hashlib.sha256(data).digest()
    assert digest.size_bytes == len(data)


@pytest.mark.parametrize("signal", DIGESTS, ids=lambda signal: signal.name)
def test_hex_round_trip(signal: DigestSignal) -> None:
    value = bytes(range(signal.length_bytes))
    assert signal.parse(signal.format(value).upper()) == value
    with pytest.raises(ValueError, match="hex digits"):
        signal.parse(signal.format(value)[:-1])
    assert isinstance(signal, DigestSignal)
