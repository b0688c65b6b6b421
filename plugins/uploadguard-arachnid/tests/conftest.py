"""A fake Arachnid Shield, and no way to anywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from arachnid_stubs import PASSWORD

from uploadguard.testing.fakes.arachnid import FakeArachnid
from uploadguard.testing.offline import loopback_only


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine may be contacted, or looked up, even where the error would be handled."""
    with loopback_only():
        monkeypatch.setenv("ARACHNID_PASSWORD", PASSWORD)
        yield


@pytest.fixture
def fake() -> Iterator[FakeArachnid]:
    with FakeArachnid(password=PASSWORD) as server:
        yield server
