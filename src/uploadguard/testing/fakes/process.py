"""Fake servers as processes of their own, for tests that kill their clients."""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import Sequence
from typing import Any, ClassVar, Self

from uploadguard.testing.fakes.misbehaviour import CHAOS
from uploadguard.testing.fakes.server import CONTROL, FakeServer

__all__ = ["FakeProcess", "run_fake"]


def run_fake(make: type[FakeServer], arguments: Sequence[str] | None = None) -> None:
    """Run a fake as a process: it prints its URL as its first line, and ends when its standard input does."""
    parser = argparse.ArgumentParser(description=(make.__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0, help="of the random misbehaviour")
    parser.add_argument("--chaos", type=float, default=0.0, help="the share of requests that meet misbehaviour")
    options = parser.parse_args(arguments)
    with make(port=options.port, seed=options.seed) as fake:
        if options.chaos:
            fake.misbehave(*CHAOS, times=None, probability=options.chaos)
        print(fake.url, flush=True)  # noqa: T201 - its one line of output
        sys.stdin.read()


class FakeProcess:
    """A fake in a process of its own, for tests that kill its client. ``module`` is run by ``python -m``."""

    TIMEOUT_S: ClassVar[float] = 30.0

    def __init__(self, module: str, *arguments: str) -> None:
        self._process = subprocess.Popen(  # noqa: S603 - this interpreter
            [sys.executable, "-m", module, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        self.url = self._process.stdout.readline().strip()
        if not self.url:
            self.close()
            raise RuntimeError("the fake server did not start")

    def snapshot(self) -> dict[str, Any]:
        """What :meth:`FakeServer.snapshot` says there."""
        return self._ask("GET", "state")

    def calm(self) -> None:
        """Misbehave no more."""
        self._ask("POST", "calm")

    def close(self) -> None:
        """End it, and wait until it is gone."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.communicate(timeout=self.TIMEOUT_S)
        if self._process.poll() is None:
            self._process.kill()
            self._process.communicate()

    def _ask(self, method: str, what: str) -> dict[str, Any]:
        request = urllib.request.Request(self.url + CONTROL + what, method=method)  # noqa: S310 - loopback
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=self.TIMEOUT_S) as answer:
            result: dict[str, Any] = json.load(answer)
        return result

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
