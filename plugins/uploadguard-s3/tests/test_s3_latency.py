"""The measurement runs, and its table has its figures."""

from __future__ import annotations

import asyncio
from pathlib import Path

from s3_latency import measure, table
from s3_server import S3Server

from uploadguard import Guard


def test_it_measures(s3_server: S3Server, guard: Guard, tmp_path: Path) -> None:
    taken = asyncio.run(measure(s3_server, guard, tmp_path, 2))
    assert {name: len(values) for name, values in taken.items()} == {"bare": 2, "tag": 2, "promote": 2}
    assert table({"bare": [1.0, 3.0], "tag": [2.0, 8.0]}).splitlines()[2:] == [
        "| bare | 2.0 | 3.0 |  |  |",
        "| tag | 5.0 | 7.9 | 3.0 | 5.0 |",
    ]
