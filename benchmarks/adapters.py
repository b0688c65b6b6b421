"""What each adapter for a web framework adds to a bare ``guard.check``, under its real server.

Run: ``python -m benchmarks.adapters [--framework NAME ...] [--rounds 300] [--size 1MP] [--json]``, where NAME is one of
:data:`tests.web.registry.HOSTS`; without it, all of them.

One upload after the other, on one connection that is kept. Three things take turns, so that they see the same machine:
``guard.check`` in this process, the upload to the adapter, and the same upload where the host has a path that reads it
and checks nothing. ``added`` is the adapter's request less the check, at p50 and at p99: HTTP, reading the form, the
temporary file. ``reading`` is the path that checks nothing.
"""

from __future__ import annotations

import argparse
import http.client
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.web.registry import HOSTS
from tests.web.wsgi import FORM, ask, form, serving, write_config

from benchmarks.pictures import SIZES, jpeg
from benchmarks.timing import p50_p99, progress, show
from uploadguard import Guard

_WARM_UP = 10


def timed_ms(work: Callable[[], object]) -> float:
    """How long it takes."""
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) * 1e3


def measure(guard: Guard, port: int, path: str, bare: str | None, data: bytes, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each thing, which take turns."""
    body = form(("file", "picture.jpg", data))
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def post(where: str) -> None:
        reply = ask(connection, "POST", where, body, FORM)
        assert reply.status == 200, reply

    works: dict[str, Callable[[], object]] = {"check": lambda: guard.check(data), "request": lambda: post(path)}
    if bare is not None:
        works["reading"] = lambda: post(bare)
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + _WARM_UP):
        for name, work in works.items():
            ms = timed_ms(work)
            if number >= _WARM_UP:
                times[name].append(ms)
    connection.close()
    return times


def row(name: str, times: dict[str, list[float]]) -> dict[str, Any]:
    """The table's line of one host."""
    check, request = p50_p99(times["check"]), p50_p99(times["request"])
    reading = p50_p99(times["reading"]) if "reading" in times else (None, None)
    return {
        "host": name,
        "check p50, ms": check[0],
        "check p99, ms": check[1],
        "request p50, ms": request[0],
        "request p99, ms": request[1],
        "added p50, ms": request[0] - check[0],
        "added p99, ms": request[1] - check[1],
        "reading p50, ms": reading[0],
        "reading p99, ms": reading[1],
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--framework", action="append", choices=list(HOSTS))
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--size", choices=list(SIZES), default="1MP")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    data = jpeg(arguments.size)
    rows = []
    with tempfile.TemporaryDirectory() as directory:
        config = write_config(Path(directory), max_body_bytes=64 << 20)
        with Guard.open(config, sandbox={"isolation": "sandbox"}) as guard:
            for number, name in enumerate(arguments.framework or HOSTS):
                progress.print(name)
                host = HOSTS[name]
                place = Path(directory, str(number))
                with serving(host.command, config, place, isolation="sandbox", alive=host.alive) as server:
                    times = measure(guard, server.port, host.path, host.bare, data, arguments.rounds)
                rows.append(row(name, times))
    title = f"one upload at a time, {len(data):,} bytes, {arguments.rounds} of each"
    show(title, rows, as_json=arguments.json)


if __name__ == "__main__":
    main()
