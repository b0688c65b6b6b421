"""The soaks, tiny: two workers, of which one is killed; and one that reads a queue."""

from __future__ import annotations

import pytest
from s3_server import S3Server
from s3_soak import Plan, soak


@pytest.mark.parametrize(("versions", "workers", "kills"), [(True, 2, 1), (False, 1, 0)])
def test_a_tiny_soak(s3_server: S3Server, versions: bool, workers: int, kills: int) -> None:
    plan = Plan(100, kills, workers, versions, dropped=0.05, overwritten=0.1)
    figures = soak(plan, s3_server)
    assert (figures.kills, figures.overwrites) == (kills, 10)
    assert figures.dropped > 0
    assert figures.doubled > 0


def test_a_tiny_soak_through_the_queue(s3_server: S3Server, emulator: str) -> None:
    plan = Plan(40, 1, 1, dropped=0.05, overwritten=0.1, seconds=60.0)
    figures = soak(plan, s3_server, emulator)
    assert (figures.kills, figures.overwrites) == (1, 4)
    assert figures.dropped > 0
    assert figures.doubled > 0
