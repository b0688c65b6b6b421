"""A fake CyberTipline, an action that files with it, and no way to anywhere else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ncmec_stubs import PASSWORD, make_action

from uploadguard.testing.fakes.ncmec import FakeNcmec
from uploadguard.testing.offline import loopback_only
from uploadguard_ncmec import NcmecAction


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing but this machine may be contacted, or looked up, even where the error would be handled."""
    with loopback_only():
        monkeypatch.setenv("NCMEC_PASSWORD", PASSWORD)
        yield


@pytest.fixture
def fake() -> Iterator[FakeNcmec]:
    with FakeNcmec(password=PASSWORD) as server:
        yield server


@pytest.fixture
def action(fake: FakeNcmec) -> NcmecAction:
    return make_action(fake.url)
