"""A fake HashCheckService, and no way to anywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from eokm_stubs import PASSWORD

from uploadguard.testing.fakes.eokm import FakeEokm
from uploadguard.testing.offline import loopback_only


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine may be contacted, or looked up, even where the error would be handled."""
    with loopback_only():
        monkeypatch.setenv("EOKM_PASSWORD", PASSWORD)
        yield


@pytest.fixture
def fake() -> Iterator[FakeEokm]:
    with FakeEokm(password=PASSWORD) as server:
        yield server
