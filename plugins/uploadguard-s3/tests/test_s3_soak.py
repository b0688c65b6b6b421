"""The soak, tiny: two workers, of which one is killed."""

from __future__ import annotations

import pytest
from s3_server import S3Server
from s3_soak import Plan, soak


@pytest.mark.parametrize(("versions", "workers"), [(True, 2), (False, 1)])
def test_a_tiny_soak(s3_server: S3Server, versions: bool, workers: int) -> None:
    plan = Plan(objects=100, kills=1, workers=workers, dropped=0.05, overwritten=0.1, versions=versions)
    figures = soak(plan, s3_server)
    assert (figures.kills, figures.overwrites) == (1, 10)
    assert figures.dropped > 0
    assert figures.doubled > 0
