"""The soaks, tiny: two workers, of which one is killed, without versions; and one that reads a queue, with them."""

from __future__ import annotations

from s3_server import S3Server
from s3_soak import Plan, soak


def test_a_tiny_soak(s3_server: S3Server) -> None:
    figures = soak(Plan(60, 1, 2, versions=False, dropped=0.05, overwritten=0.1), s3_server)
    assert (figures.kills, figures.overwrites) == (1, 6)
    assert figures.dropped > 0
    assert figures.doubled > 0


def test_a_tiny_soak_through_the_queue(s3_server: S3Server, emulator: str) -> None:
    figures = soak(Plan(40, 1, 1, dropped=0.05, overwritten=0.1, seconds=60.0), s3_server, emulator)
    assert (figures.kills, figures.overwrites) == (1, 4)
    assert figures.dropped > 0
    assert figures.doubled > 0
